//! The gateway: told what to serve, it opens as a door of a host, or by itself in a process of its own.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use hyper::Method;
use hyper::header::HeaderValue;
use purista_core::catalogue::{Catalogue, CommandEntry};
use purista_core::client::Client;
use purista_core::clock::Clock;
use purista_core::contract::Command;
use purista_core::door::{Door, DoorError, House, OpenDoor};
use purista_core::lag::Lags;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::accept;
use crate::authenticator::{Authenticator, SecurityScheme};
use crate::cors::Cors;
use crate::endpoint::{self, Endpoint};
use crate::health;
use crate::limits::Limits;
use crate::metrics;
use crate::openapi;
use crate::route::{Routes, Taken};
use crate::served::{Page, Served};
use crate::site::{Guard, Site};

/// Where the OpenAPI document is found.
pub const DOCUMENT_PATH: &str = "/api/openapi.json";
/// What pages may load unless the gateway says otherwise: scripts, images and data from this gateway alone, styles also
/// from within the page.
pub const PAGE_POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
     object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// Serves commands over HTTP, at `/api/v{version of the service}/{path of the route}`, beside `/healthz`, `/readyz` and
/// the OpenAPI document at [`DOCUMENT_PATH`].
///
/// Added to a host with `.door(..)` it serves the commands of that host:
///
/// ```no_run
/// use purista_http::gateway::Gateway;
/// let gateway = Gateway::listen("127.0.0.1:3000").title("Accounts");
/// ```
///
/// In a process of its own it serves the contracts that it is given, over any bridge:
///
/// ```no_run
/// # use purista_core::{client::Client, contract::Command, door::DoorError};
/// use purista_http::gateway::Gateway;
/// use tokio_util::sync::CancellationToken;
///
/// # async fn example<SignUp: Command>(client: Client, stop: CancellationToken) -> Result<(), DoorError> {
/// let door = Gateway::new(client).command::<SignUp>().serve("0.0.0.0:3000", stop).await?;
/// door.closed.await;
/// # Ok(())
/// # }
/// ```
pub struct Gateway {
    place: String,
    client: Option<Client>,
    commands: Vec<CommandEntry>,
    pages: Vec<(String, String, Bytes)>,
    page_policy: String,
    authenticator: Option<Arc<dyn Authenticator>>,
    limits: Limits,
    cors: Option<Cors>,
    title: String,
    version: String,
    shows_metrics: bool,
}

impl Gateway {
    /// A gateway for a host, at `place`: address and port, as `127.0.0.1:3000`. Port 0 is any that is free.
    pub fn listen(place: impl Into<String>) -> Self {
        Self {
            place: place.into(),
            client: None,
            commands: Vec::new(),
            pages: Vec::new(),
            page_policy: PAGE_POLICY.to_owned(),
            authenticator: None,
            limits: Limits::default(),
            cors: None,
            title: "API".to_owned(),
            version: "1".to_owned(),
            shows_metrics: false,
        }
    }

    /// A gateway in a process of its own, that invokes with this client; see [`Gateway::serve`].
    pub fn new(client: Client) -> Self {
        Self { client: Some(client), ..Self::listen("") }
    }

    /// Serves a command that services of other processes answer, over the bridge. It needs a route in its contract.
    ///
    /// It is documented as any other. What breaks the form or the rules of the contract is refused here with every field at
    /// fault, in the words of the service, and goes nowhere; a transform of the service's input, which would come first
    /// there, is not known here. Nobody serving it is 502, at once where the bridge says so, else 504 at the deadline. A host
    /// that serves it itself does so, too, and nothing changes: one program may say this whatever it runs.
    #[must_use]
    pub fn command<C: Command>(mut self) -> Self {
        self.commands.push(CommandEntry::of::<C>());
        self
    }

    /// Finds out who asks on every route that is not public.
    #[must_use]
    pub fn authenticator(mut self, authenticator: impl Authenticator) -> Self {
        self.authenticator = Some(Arc::new(authenticator));
        self
    }

    /// How much it takes of everything.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Opens it to pages of other origins.
    #[must_use]
    pub fn cors(mut self, cors: Cors) -> Self {
        self.cors = Some(cors);
        self
    }

    /// Serves something that does not change, as a page or a script, to anybody. A page runs no script that stands within
    /// it, unless [`Gateway::page_policy`] says so: serve scripts as pages of their own.
    #[must_use]
    pub fn page(mut self, path: &str, media_type: &str, body: impl Into<Bytes>) -> Self {
        self.pages.push((path.to_owned(), media_type.to_owned(), body.into()));
        self
    }

    /// What browsers let pages do (the value of `content-security-policy`), instead of [`PAGE_POLICY`].
    #[must_use]
    pub fn page_policy(mut self, policy: &str) -> Self {
        policy.clone_into(&mut self.page_policy);
        self
    }

    /// Shows at `/metrics`, to anybody and in the text format of Prometheus, how far projections, durable subscriptions and the
    /// relay are behind the log.
    ///
    /// It is off unless asked for: a gateway faces the outside, how much a system has to do is not for strangers, and each
    /// answer counts events in the store.
    #[must_use]
    pub fn metrics(mut self) -> Self {
        self.shows_metrics = true;
        self
    }

    /// What the OpenAPI document is called.
    #[must_use]
    pub fn title(mut self, title: impl Into<String>) -> Self {
        self.title = title.into();
        self
    }

    /// Which version the OpenAPI document says it is; `1` unless told.
    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = version.into();
        self
    }

    /// Opens in a process of its own, at `place`, until `stop` is cancelled; its health is that of the bridge. Made by
    /// [`Gateway::listen`] it has no client and is refused: give it to a host.
    pub async fn serve(
        mut self,
        place: impl Into<String>,
        stop: CancellationToken,
    ) -> Result<OpenDoor, DoorError> {
        let Some(client) = self.client.take() else {
            return Err(DoorError::new(
                "a gateway made by `Gateway::listen` has no client: give it to a host, or make it by `Gateway::new`",
            ));
        };
        self.place = place.into();
        let tasks = TaskTracker::new();
        let house = House {
            health: health::of_bridge(&client),
            lags: Lags::none(),
            client,
            catalogue: Arc::new(Catalogue::default()),
            stop,
            tasks: tasks.clone(),
            clock: Clock::system(),
        };
        let OpenDoor { place, closed } = self.open_in(house).await?;
        let closed = Box::pin(async move {
            closed.await;
            tasks.close();
            tasks.wait().await;
        });
        Ok(OpenDoor { place, closed })
    }

    async fn open_in(self, house: House) -> Result<OpenDoor, DoorError> {
        let place = self.place.clone();
        let refuse = |what: String| DoorError::new(format!("the gateway at {place} cannot open: {what}"));
        let site = self.site(house).map_err(refuse)?;
        let listener = TcpListener::bind(&place).await.map_err(|error| unbound(&place, error))?;
        let address = listener.local_addr().map_err(|error| unbound(&place, error))?;
        let closed = accept::start(listener, Arc::new(site));
        tracing::info!(%address, "the gateway is open");
        Ok(OpenDoor { place: format!("http://{address}"), closed })
    }

    fn site(self, house: House) -> Result<Site, String> {
        if let Some(fault) = self.limits.fault() {
            return Err(fault);
        }
        let (guard, scheme) = match &self.authenticator {
            Some(authenticator) => {
                let (guard, scheme) = Guard::new(Arc::clone(authenticator))?;
                (Some(guard), Some(scheme))
            }
            None => (None, None),
        };
        let mut routes = Routes::default();
        self.add_pages(&mut routes)?;
        self.add_commands(&mut routes, &house.catalogue)?;
        add(
            &mut routes,
            &Method::GET,
            DOCUMENT_PATH,
            Served::Document(self.document(&house.catalogue, scheme.as_ref())),
        )?;
        let in_flight = Arc::new(Semaphore::new(self.limits.in_flight));
        Ok(Site { house, routes, limits: self.limits, guard, cors: self.cors, in_flight })
    }

    fn add_pages(&self, routes: &mut Routes) -> Result<(), String> {
        add(routes, &Method::GET, health::ALIVE_PATH, Served::Alive)?;
        add(routes, &Method::GET, health::READY_PATH, Served::Ready)?;
        if self.shows_metrics {
            add(routes, &Method::GET, metrics::METRICS_PATH, Served::Metrics)?;
        }
        let policy = HeaderValue::from_str(&self.page_policy)
            .map_err(|_| "the page policy is no value of a header: write it in one line".to_owned())?;
        for (path, media_type, body) in &self.pages {
            if !path.starts_with('/') || path.contains(['{', '}', '?', '#', ' ']) {
                return Err(format!(
                    "`{path}` is no path of a page: begin it with a slash, without query or braces"
                ));
            }
            let with_charset = match media_type.as_str() {
                text if text.starts_with("text/") && !text.contains(';') => format!("{text}; charset=utf-8"),
                other => other.to_owned(),
            };
            let media_type = HeaderValue::from_str(&with_charset).map_err(|_| {
                format!("`{media_type}` is no media type of the page {path}: write it as `text/html`")
            })?;
            let page = Page { media_type, policy: policy.clone(), body: body.clone() };
            add(routes, &Method::GET, path, Served::Page(Arc::new(page)))?;
        }
        Ok(())
    }

    fn add_commands(&self, routes: &mut Routes, catalogue: &Catalogue) -> Result<(), String> {
        if let Some(hidden) = self.commands.iter().find(|entry| entry.route.is_none()) {
            return Err(format!("{} has no route: give its contract one in `HTTP`", hidden.address));
        }
        for entry in self.entries(catalogue) {
            let Some(mut endpoint) = Endpoint::of(entry, self.authenticator.is_some())? else { continue };
            if !serves(catalogue, entry) {
                endpoint.checker = Some(entry.checker());
            }
            let (method, path) = (endpoint.method.clone(), endpoint.path.clone());
            add(routes, &method, &path, Served::Command(Arc::new(endpoint)))?;
        }
        Ok(())
    }

    fn entries<'a>(&'a self, catalogue: &'a Catalogue) -> impl Iterator<Item = &'a CommandEntry> {
        catalogue.commands().chain(self.commands.iter().filter(|entry| !serves(catalogue, entry)))
    }

    fn document(&self, catalogue: &Catalogue, scheme: Option<&SecurityScheme>) -> Bytes {
        let routed =
            |entry: &'_ CommandEntry| entry.route.map(|route| (route, endpoint::path_of(entry, &route)));
        let commands: Vec<_> = self
            .entries(catalogue)
            .filter_map(|entry| routed(entry).map(|(route, path)| (entry, route, path)))
            .collect();
        let subject = openapi::Subject {
            title: &self.title,
            version: &self.version,
            limits: &self.limits,
            scheme,
            services: catalogue
                .services
                .iter()
                .map(|service| (service.id.name(), service.description))
                .collect(),
        };
        serde_json::to_vec(&openapi::document(&subject, &commands)).unwrap_or_default().into()
    }
}

/// Whether a service of this process answers it.
fn serves(catalogue: &Catalogue, entry: &CommandEntry) -> bool {
    catalogue.commands().any(|served| served.address == entry.address)
}

fn add(routes: &mut Routes, method: &Method, path: &str, served: Served) -> Result<(), String> {
    let name = served.name();
    routes.add(method.clone(), path, served).map_err(|Taken(first)| {
        format!("{method} {path} of {name} is already taken by {first}: give one of them another path")
    })
}

#[cold]
fn unbound(place: &str, error: std::io::Error) -> DoorError {
    let remedy = match error.kind() {
        std::io::ErrorKind::AddrInUse => "another program listens there: end it, or choose another port",
        std::io::ErrorKind::PermissionDenied => {
            "choose a port from 1024 on, or give the process the right to it"
        }
        _ => "write it as address and port, as `127.0.0.1:3000`",
    };
    DoorError::new(format!("the gateway cannot listen on `{place}`: {remedy}")).with_source(error)
}

impl Door for Gateway {
    fn name(&self) -> &'static str {
        "http"
    }

    fn open(self: Box<Self>, house: House) -> BoxFuture<'static, Result<OpenDoor, DoorError>> {
        Box::pin(self.open_in(house))
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway")
            .field("place", &self.place)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
