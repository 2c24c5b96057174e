//! What goes back: outputs as JSON, everything else as a problem (RFC 9457).

use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{HeaderMap, Response, StatusCode};
use purista_core::bridge::{BridgeError, BridgeErrorKind};
use purista_core::error::chain;
use purista_core::fault::Fault;
use purista_core::id::{ID_BYTES_MAX, Id};
use purista_core::message::{ErrorPayload, Message, MessageType};
use serde::Serialize;
use serde_json::Value;

/// The header that names the flow, on every request that has one and on every response.
pub(crate) static TRACE_ID: HeaderName = HeaderName::from_static("x-trace-id");
/// When somebody who was refused for lack of room may come again, in seconds.
pub(crate) const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");
pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");
const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");

/// A response with its whole body.
pub(crate) type Answer = Response<Whole>;

/// A body that is there at once.
#[derive(Debug, Default)]
pub(crate) struct Whole(Option<Bytes>);

impl Whole {
    pub(crate) fn of(bytes: Bytes) -> Self {
        Self((!bytes.is_empty()).then_some(bytes))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, Bytes::len)
    }
}

impl Body for Whole {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.len() as u64)
    }
}

/// The flow of one request, and how its id is written.
#[derive(Debug, Clone)]
pub(crate) struct Flow {
    pub(crate) id: Id,
    pub(crate) header: HeaderValue,
}

impl Flow {
    /// A flow whose id came in a header, if it is one.
    pub(crate) fn of_header(header: &HeaderValue) -> Option<Self> {
        let id = Id::parse(header.to_str().ok()?).ok()?;
        Some(Self { id, header: header.clone() })
    }

    /// A flow with an id of ours.
    pub(crate) fn of_id(id: Id) -> Self {
        let mut text = String::with_capacity(ID_BYTES_MAX.min(32));
        let _ = write!(text, "{id}");
        // An id of ours is hex digits, which every header may hold.
        let header =
            HeaderValue::from_maybe_shared(Bytes::from(text)).unwrap_or(HeaderValue::from_static("-"));
        Self { id, header }
    }
}

/// Why a request is not answered with an output. Boxed, so that what goes well carries nothing of it.
#[derive(Debug)]
pub(crate) struct Problem(Box<Told>);

#[derive(Debug)]
struct Told {
    status: StatusCode,
    detail: Cow<'static, str>,
    details: Option<Value>,
    header: Option<(HeaderName, HeaderValue)>,
}

/// The form of RFC 9457, with the members `traceId`, `errors` and `data` added.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    r#type: &'static str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    instance: String,
    trace_id: &'a Id,
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a Value>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, detail: impl Into<Cow<'static, str>>) -> Self {
        let mut told = Told { status, detail: detail.into(), details: None, header: None };
        if status == StatusCode::SERVICE_UNAVAILABLE {
            told.header = Some((header::RETRY_AFTER, RETRY_AFTER));
        }
        Self(Box::new(told))
    }

    /// 400 with what is wrong with the input as a whole.
    pub(crate) fn invalid_input(message: &str) -> Self {
        Self::invalid_fields(&[Fault { message: message.to_owned(), path: Vec::new() }])
    }

    /// 400 with every field at fault, as a service says it.
    pub(crate) fn invalid_fields(faults: &[Fault]) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "input validation failed")
            .with_details(serde_json::to_value(faults).ok())
    }

    /// 500 that tells nothing but the trace id.
    pub(crate) fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "something went wrong; the log knows more under the trace id",
        )
    }

    pub(crate) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.header = Some((name, value));
        self
    }

    fn with_details(mut self, details: Option<Value>) -> Self {
        self.0.details = details;
        self
    }

    /// The problem behind a command that was not carried.
    pub(crate) fn of_bridge_error(error: &BridgeError, flow: &Flow) -> Self {
        let (status, detail) = match error.kind() {
            BridgeErrorKind::Unroutable => (StatusCode::BAD_GATEWAY, "nobody serves this command now"),
            BridgeErrorKind::Timeout => {
                (StatusCode::GATEWAY_TIMEOUT, "no answer came in time; it may have happened all the same")
            }
            BridgeErrorKind::Rejected => {
                (StatusCode::SERVICE_UNAVAILABLE, "it was not taken on and did not happen; try again later")
            }
            BridgeErrorKind::TooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "the request is larger than the broker carries; it did not happen",
            ),
            _ => (StatusCode::BAD_GATEWAY, "the answer was lost; it may have happened all the same"),
        };
        tracing::warn!(trace_id = %flow.id, error = chain(error), "a command was not answered");
        Self::new(status, detail)
    }

    /// The problem that an error response tells of. Only a handled error is shown to the caller.
    fn of_error_response(response: &Message) -> Self {
        let json = response.payload.bytes().ok().flatten().unwrap_or_default();
        let Ok(told) = serde_json::from_slice::<ErrorPayload>(&json) else { return Self::internal() };
        let status = StatusCode::from_u16(told.status.code())
            .ok()
            .filter(|status| status.is_client_error() || status.is_server_error())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if response.is_handled_error {
            return Self::new(status, told.message).with_details(told.data);
        }
        match status {
            StatusCode::INTERNAL_SERVER_ERROR => Self::internal(),
            _ => Self::new(status, told.status.text()),
        }
    }

    pub(crate) fn into_answer(self, flow: &Flow) -> Answer {
        let is_list_of_faults = |details: &Value| {
            details.as_array().is_some_and(|faults| {
                !faults.is_empty()
                    && faults.iter().all(|fault| fault["message"].is_string() && fault["path"].is_array())
            })
        };
        let Told { status, detail, details, header } = *self.0;
        let (errors, data) = match &details {
            Some(details) if is_list_of_faults(details) => (Some(details), None),
            details => (None, details.as_ref()),
        };
        let document = Document {
            r#type: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: &detail,
            instance: format!("urn:trace:{}", flow.id),
            trace_id: &flow.id,
            errors,
            data,
        };
        let json = serde_json::to_vec(&document).unwrap_or_default();
        let mut answer = api_answer(status, flow, Some(PROBLEM), json.into());
        if let Some((name, value)) = header {
            answer.headers_mut().insert(name, value);
        }
        answer
    }
}

/// The answer to a command: its output, or the error that it ended with.
pub(crate) fn of_response(response: &Message, flow: &Flow) -> Answer {
    if response.kind == MessageType::CommandErrorResponse {
        return Problem::of_error_response(response).into_answer(flow);
    }
    match response.payload.unread_bytes() {
        Ok(Some(json)) if &json[..] != b"null" => api_answer(StatusCode::OK, flow, Some(JSON), json),
        Ok(_) => api_answer(StatusCode::NO_CONTENT, flow, None, Bytes::new()),
        Err(error) => {
            tracing::error!(trace_id = %flow.id, error = chain(&error), "an output cannot be written as JSON");
            Problem::internal().into_answer(flow)
        }
    }
}

/// An answer that belongs to its caller alone: nobody keeps it.
pub(crate) fn api_answer(
    status: StatusCode,
    flow: &Flow,
    media_type: Option<HeaderValue>,
    body: Bytes,
) -> Answer {
    // One allocation for all that an answer usually bears, with the date that hyper adds.
    let mut headers = HeaderMap::with_capacity(8);
    if let Some(media_type) = media_type {
        headers.insert(header::CONTENT_TYPE, media_type);
    }
    headers.insert(TRACE_ID.clone(), flow.header.clone());
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let mut answer = Response::new(Whole::of(body));
    *answer.status_mut() = status;
    *answer.headers_mut() = headers;
    answer
}
