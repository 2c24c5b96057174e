//! A house with a gateway, consumers that stand for services, and a client that sends what no proper client would.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use purista_core::address::{Address, ServiceId};
use purista_core::bridge::{Consumer, Delivery, EventBridge, Outcome};
use purista_core::catalogue::{Catalogue, CommandEntry, ServiceEntry};
use purista_core::client::Client;
use purista_core::clock::Clock;
use purista_core::contract::Command;
use purista_core::door::{Door, DoorError, House, OpenDoor};
use purista_core::error::HandlerError;
use purista_core::health::{Condition, Health, HealthReport, PartHealth};
use purista_core::in_process::InProcessBridge;
use purista_core::lag::Lags;
use purista_core::message::{ErrorPayload, Message, MessageType, Party};
use purista_core::parameter::Parameters;
use purista_core::payload::Payload;
use purista_core::schema::Inspector;
use purista_core::subscription::Subscription;
use purista_http::api_key::ApiKeys;
use purista_http::authenticator::Identity;
use purista_http::gateway::Gateway;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::contracts::{
    Configure, FindUser, Registered, RemoveUser, RenameUser, Seen, SignUp, Subscribe, USER, WriteNote,
};

/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What a test's service does with an input that was decoded and checked.
pub(crate) type Work<C> =
    Arc<dyn Fn(C, Message) -> BoxFuture<'static, Result<<C as Command>::Output, HandlerError>> + Send + Sync>;

/// Stands for a service: decodes, checks, works and replies, as dispatch does.
struct Serving<C: Command> {
    work: Work<C>,
    parameters: Arc<Parameters>,
    inspector: Arc<Inspector>,
}

impl<C: Command> Consumer for Serving<C> {
    fn consume(&self, delivery: Delivery) -> BoxFuture<'static, Outcome> {
        let command = delivery.message;
        let (work, parameters) = (Arc::clone(&self.work), Arc::clone(&self.parameters));
        let inspector = Arc::clone(&self.inspector);
        Box::pin(async move {
            let sender = Party::anywhere(Address::known(C::ADDRESS));
            let worked = match decode::<C>(&command, &parameters, &inspector) {
                Ok(input) => work(input, Message::clone(&command)).await,
                Err(error) => Err(error),
            };
            Outcome::Reply(Box::new(match worked {
                Ok(output) => {
                    command.response(MessageType::CommandSuccessResponse, 0, sender, Payload::typed(output))
                }
                Err(error) => {
                    let told = ErrorPayload {
                        data: error.data().cloned(),
                        nothing_kept: true,
                        ..ErrorPayload::new(error.status(), error.public_message())
                    };
                    command.error_response(0, sender, &told, error.is_handled())
                }
            }))
        })
    }
}

fn decode<C: Command>(
    command: &Message,
    parameters: &Parameters,
    inspector: &Inspector,
) -> Result<C, HandlerError> {
    let mut json = command.payload.bytes().unwrap().unwrap_or_else(|| "null".into());
    if let Some(parameter) = &command.parameter {
        let fault = |_| HandlerError::invalid(&inspector.inspect(&json, Vec::new()));
        json = parameters.join(&json, parameter).map_err(fault)?;
    }
    let Ok(input) = C::decode(&json) else {
        return Err(HandlerError::invalid(&inspector.inspect(&json, Vec::new())));
    };
    match input.check() {
        Ok(()) => Ok(input),
        Err(found) => Err(HandlerError::invalid(&inspector.inspect(&json, found))),
    }
}

/// What a message told its consumer.
pub(crate) fn seen<C: Command>(input: &C, command: &Message) -> Seen {
    Seen {
        sender: command.sender.address.to_string(),
        trace_id: command.trace_id.to_string(),
        trace: command.trace.as_ref().map(ToString::to_string),
        principal: command.principal_id.as_deref().map(ToOwned::to_owned),
        tenant: command.tenant_id.as_deref().map(ToOwned::to_owned),
        idempotency_key: command.idempotency_key.as_deref().map(ToOwned::to_owned),
        input: String::from_utf8(input.encode().unwrap().to_vec()).unwrap(),
    }
}

/// A house that is being built.
pub(crate) struct Builder {
    bridge: InProcessBridge,
    commands: Vec<CommandEntry>,
    pub(crate) report: Arc<std::sync::Mutex<HealthReport>>,
    pub(crate) lags: Lags,
}

impl Builder {
    /// A house without services, ready and well.
    pub(crate) fn new() -> Self {
        let part = PartHealth {
            name: "bridge".to_owned(),
            condition: Condition::Up,
            detail: None,
            events_behind: None,
        };
        let report = HealthReport { is_ready: true, parts: vec![part] };
        Self {
            bridge: InProcessBridge::new(),
            commands: Vec::new(),
            report: Arc::new(std::sync::Mutex::new(report)),
            lags: Lags::none(),
        }
    }

    /// A house that serves all contracts of the tests by telling what it saw.
    pub(crate) async fn full() -> Self {
        let told = |seen: Seen| Registered { user_id: "u1".to_owned(), seen };
        Self::new()
            .command::<SignUp>(move |input, message| Ok(told(seen(&input, &message))))
            .await
            .command::<FindUser>(move |input, message| Ok(told(seen(&input, &message))))
            .await
            .command::<RenameUser>(move |input, message| Ok(told(seen(&input, &message))))
            .await
            .command::<RemoveUser>(|_, _| Ok(()))
            .await
            .command::<Subscribe>(move |input, message| Ok(told(seen(&input, &message))))
            .await
            .command::<WriteNote>(move |input, message| Ok(told(seen(&input, &message))))
            .await
            .command::<Configure>(move |input, message| Ok(told(seen(&input, &message))))
            .await
    }

    /// One command, answered at once.
    pub(crate) async fn command<C: Command>(
        self,
        work: impl Fn(C, Message) -> Result<C::Output, HandlerError> + Send + Sync + 'static,
    ) -> Self {
        let work = Arc::new(work);
        self.command_of(Arc::new(move |input, message| {
            let work = Arc::clone(&work);
            Box::pin(async move { work(input, message) })
        }))
        .await
    }

    /// One command.
    pub(crate) async fn command_of<C: Command>(mut self, work: Work<C>) -> Self {
        let consumer = Serving::<C> {
            work,
            parameters: Arc::new(Parameters::of::<C>()),
            inspector: Arc::new(Inspector::of::<C>()),
        };
        self.bridge
            .subscribe(Subscription::command(Address::known(C::ADDRESS), 64), Arc::new(consumer))
            .await
            .unwrap();
        self.commands.push(CommandEntry::of::<C>());
        self
    }

    /// One command of the catalogue that nobody serves.
    pub(crate) fn unserved<C: Command>(mut self) -> Self {
        self.commands.push(CommandEntry::of::<C>());
        self
    }

    /// A client of this house's bridge.
    pub(crate) fn client(&self) -> Client {
        let sender = Address::of(ServiceId::new("Test", "1"), "");
        Client::new(Arc::new(self.bridge.clone()), sender, Clock::system(), 1024)
    }

    /// Opens the gateway.
    pub(crate) async fn try_open(self, gateway: Gateway) -> Result<Open, DoorError> {
        let report = Arc::clone(&self.report);
        let house = House {
            client: self.client(),
            catalogue: Arc::new(Catalogue {
                services: vec![ServiceEntry {
                    id: USER,
                    description: "Users and their notes",
                    commands: self.commands,
                    subscriptions: Vec::new(),
                    events: Vec::new(),
                }],
            }),
            health: Health::new(move || report.lock().unwrap().clone()),
            lags: self.lags,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            clock: Clock::system(),
        };
        let OpenDoor { place, closed } = Box::new(gateway).open(house.clone()).await?;
        let address = place.strip_prefix("http://").unwrap().parse().unwrap();
        Ok(Open { address, closed, house, report: self.report })
    }

    /// Opens the gateway, which must succeed.
    pub(crate) async fn open(self, gateway: Gateway) -> Open {
        self.try_open(gateway).await.unwrap()
    }
}

/// A house whose gateway is open.
pub(crate) struct Open {
    pub(crate) address: SocketAddr,
    pub(crate) closed: BoxFuture<'static, ()>,
    pub(crate) house: House,
    pub(crate) report: Arc<std::sync::Mutex<HealthReport>>,
}

impl Open {
    /// One request on a connection of its own, with these header lines and this body.
    pub(crate) async fn ask(&self, request_line: &str, headers: &[&str], body: &str) -> Reply {
        let mut connection = self.connect().await;
        connection.send(&request(request_line, headers, body)).await;
        connection.reply().await
    }

    /// `POST` of JSON.
    pub(crate) async fn post(&self, path: &str, json: &str) -> Reply {
        self.ask(&format!("POST {path}"), &["content-type: application/json"], json).await
    }

    /// `GET`.
    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.ask(&format!("GET {path}"), &[], "").await
    }

    /// A connection on which nothing was said yet.
    pub(crate) async fn connect(&self) -> Connection {
        Connection::to(self.address).await
    }
}

/// The header line of a caller who is known.
pub(crate) const KEY: &str = "x-api-key: 0123456789abcdef";

/// A gateway on any free port that knows one caller.
pub(crate) fn gateway() -> Gateway {
    let keys = ApiKeys::new().key("0123456789abcdef".into(), Identity::of("billing").in_tenant("acme"));
    Gateway::listen("127.0.0.1:0").authenticator(keys)
}

/// The text of a request.
pub(crate) fn request(request_line: &str, headers: &[&str], body: &str) -> String {
    let mut text = format!("{request_line} HTTP/1.1\r\nhost: test\r\n");
    for header in headers {
        text.push_str(header);
        text.push_str("\r\n");
    }
    if !body.is_empty() {
        let _ = write!(text, "content-length: {}\r\n", body.len());
    }
    text + "\r\n" + body
}

/// A connection that sends any bytes.
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    read: Vec<u8>,
}

impl Connection {
    pub(crate) async fn to(address: impl tokio::net::ToSocketAddrs) -> Self {
        Self::on(TcpStream::connect(address).await.unwrap())
    }

    pub(crate) fn on(stream: TcpStream) -> Self {
        Self { stream, read: Vec::new() }
    }

    /// Says this on a connection that nobody can have accepted yet.
    pub(crate) fn that_said(text: &str, address: std::net::SocketAddr) -> Self {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        stream.set_nonblocking(true).unwrap();
        Self { stream: TcpStream::from_std(stream).unwrap(), read: Vec::new() }
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    /// Sends, whether the other end still reads or not.
    pub(crate) async fn try_send(&mut self, text: &str) -> bool {
        self.stream.write_all(text.as_bytes()).await.is_ok()
    }

    async fn more(&mut self) -> bool {
        let reading = self.stream.read_buf(&mut self.read);
        let read = tokio::time::timeout(PATIENCE, reading).await.expect("the gateway says nothing");
        matches!(read, Ok(1..))
    }

    /// Waits until the other end closes, and returns what it had said before.
    pub(crate) async fn ended(&mut self) -> String {
        while self.more().await {}
        String::from_utf8(std::mem::take(&mut self.read)).unwrap()
    }

    /// The next response.
    pub(crate) async fn reply(&mut self) -> Reply {
        self.reply_to("").await
    }

    /// The next response, to a request of this method: one to `HEAD` has no body.
    pub(crate) async fn reply_to(&mut self, method: &str) -> Reply {
        let head_end = loop {
            if let Some(at) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                break at;
            }
            assert!(self.more().await, "closed before a response: {:?}", String::from_utf8_lossy(&self.read));
        };
        let head = String::from_utf8(self.read[..head_end].to_vec()).unwrap();
        self.read.drain(..head_end + 4);
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: BTreeMap<String, String> = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let told = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let length: usize = if method == "HEAD" { 0 } else { told };
        while self.read.len() < length {
            assert!(self.more().await, "closed within a body");
        }
        let body = self.read.drain(..length).collect();
        Reply { status, headers, body }
    }
}

/// A response.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    /// The body as JSON; `null` when there is none.
    pub(crate) fn json(&self) -> Value {
        if self.body.is_empty() { Value::Null } else { serde_json::from_slice(&self.body).unwrap() }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// Checks that this is a problem of this status, and returns it.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        let problem = self.json();
        assert_eq!(problem["status"], status);
        assert_eq!(problem["type"], "about:blank");
        assert!(problem["title"].is_string() && problem["detail"].is_string(), "{problem}");
        let trace_id = self.header("x-trace-id").unwrap();
        assert_eq!(problem["traceId"], trace_id);
        assert_eq!(problem["instance"], format!("urn:trace:{trace_id}"));
        problem
    }

    /// What the consumer saw of a successful command.
    #[track_caller]
    pub(crate) fn seen(&self) -> Seen {
        assert_eq!(self.status, 200, "{} {self:?}", String::from_utf8_lossy(&self.body));
        serde_json::from_value::<Registered>(self.json()).unwrap().seen
    }
}
