//! One request becomes one command, and its response the answer: who asks, the body, the call.

use std::sync::Arc;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header;
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};
use purista_core::bridge::BridgeErrorKind;
use purista_core::client::Request;
use purista_core::payload::Payload;
use purista_core::trace::TraceContext;
use serde::de::IgnoredAny;

use crate::authenticator::{AuthenticationError, Identity, RequestHead};
use crate::body::{self, Reader};
use crate::buffered::PeerBuffered;
use crate::endpoint::Endpoint;
use crate::pulse::Pulse;
use crate::response::{self, Answer, Flow, Problem};
use crate::site::Site;

/// The header under whose value a command does its work once.
pub(crate) const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// The longest idempotency key, in bytes.
pub(crate) const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

/// One request for a command, with its body unread.
pub(crate) struct Exchange {
    pub(crate) site: Arc<Site>,
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) head: RequestHead,
    pub(crate) body: Incoming,
    pub(crate) parameter: Option<Bytes>,
    pub(crate) trace: Option<TraceContext>,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) buffered: Arc<PeerBuffered>,
}

impl Exchange {
    /// The answer, whatever happens.
    pub(crate) async fn answer(self, flow: &Flow) -> Answer {
        match self.run(flow).await {
            Ok(answer) => answer,
            Err(problem) => problem.into_answer(flow),
        }
    }

    async fn run(self, flow: &Flow) -> Result<Answer, Problem> {
        let Self { site, endpoint, head, body, parameter, trace, pulse, buffered } = self;
        let tasks = &site.house.tasks;
        let admitted = match admit(&site, &endpoint, &head, flow).await {
            Ok(identity) => idempotency_key(&head.parts).map(|key| (identity, key)),
            Err(problem) => Err(problem),
        };
        let (identity, idempotency_key) = match admitted {
            Ok(admitted) => admitted,
            Err(problem) => {
                body::swallow(body, tasks);
                return Err(problem);
            }
        };
        let reader = Reader { limits: &site.limits, tasks, pulse: &pulse, buffered: &buffered };
        let (payload, charge) = reader.payload(&endpoint, &head.parts, body).await?;
        // Taken once the body is here: a body that arrives slowly keeps no other command from running.
        let _permit = site.admit()?;
        drop(charge);
        if let Some(checker) = &endpoint.checker {
            checker
                .check(&payload, parameter.as_deref())
                .map_err(|faults| Problem::invalid_fields(&faults))?;
        }
        let (principal_id, tenant_id) =
            identity.map_or((None, None), |identity| (Some(identity.principal_id), identity.tenant_id));
        let request = Request {
            receiver: endpoint.address.clone(),
            payload: payload.clone(),
            parameter,
            sender: Some(endpoint.sender.clone()),
            principal_id,
            tenant_id,
            trace_id: Some(flow.id.clone()),
            trace,
            idempotency_key,
            timeout: None,
        };
        match site.house.client.request(request).await {
            Ok(response) => Ok(response::of_response(&response, flow)),
            // A broker's bridge has to put the payload into a message, and cannot when it is no JSON.
            Err(error) if error.kind() == BridgeErrorKind::Rejected && !is_json(&payload) => {
                Err(Problem::invalid_input("not valid JSON"))
            }
            Err(error) => Err(Problem::of_bridge_error(&error, flow)),
        }
    }
}

fn is_json(payload: &Payload) -> bool {
    let json = payload.bytes().ok().flatten();
    json.is_none_or(|json| serde_json::from_slice::<IgnoredAny>(&json).is_ok())
}

async fn admit(
    site: &Site,
    endpoint: &Endpoint,
    head: &RequestHead,
    flow: &Flow,
) -> Result<Option<Identity>, Problem> {
    if endpoint.is_public {
        return Ok(None);
    }
    // A gateway without a guard has no such route; were there one, it would stay closed.
    let Some(guard) = &site.guard else { return Err(Problem::internal()) };
    // An authenticator may ask another system: as many at a time as commands.
    let _permit = site.admit()?;
    match guard.authenticator.authenticate(head).await {
        Ok(identity) => Ok(Some(identity)),
        Err(AuthenticationError::Refused(why)) => {
            tracing::debug!(trace_id = %flow.id, why, peer = %head.peer, "a request was refused");
            Err(Problem::new(StatusCode::UNAUTHORIZED, "it is not known who asks")
                .with_header(header::WWW_AUTHENTICATE, guard.challenge.clone()))
        }
        Err(AuthenticationError::Unavailable(why)) => {
            tracing::error!(trace_id = %flow.id, why, "nobody can tell who asks");
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "nobody can tell now who asks"))
        }
    }
}

/// The key of a request that may change something. GET and HEAD are safe and idempotent by themselves (RFC 9110, 9.2): there
/// the header means nothing, whatever it says.
fn idempotency_key(head: &Parts) -> Result<Option<Arc<str>>, Problem> {
    if matches!(head.method, Method::GET | Method::HEAD) {
        return Ok(None);
    }
    let mut told = head.headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(key) = told.next() else { return Ok(None) };
    let is_good = (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len()) && told.next().is_none();
    let text =
        key.to_str().ok().filter(|text| is_good && text.bytes().all(|byte| matches!(byte, b' '..=b'~')));
    match text {
        Some(text) => Ok(Some(text.into())),
        None => Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "the header idempotency-key is one text of 1 to 255 printable ASCII characters",
        )),
    }
}
