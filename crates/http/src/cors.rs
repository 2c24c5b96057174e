//! Which pages of other origins may call this gateway from a browser. Without this nobody's may.

use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, StatusCode};

use crate::response::{self, Answer, Flow};

/// How long a browser may remember what it was allowed, in seconds.
const MAX_AGE_SECONDS: &str = "600";
const HEADERS: &str =
    "content-type, authorization, x-api-key, idempotency-key, x-trace-id, traceparent, tracestate";

/// Opens the gateway to pages of other origins (CORS).
///
/// ```
/// use purista_http::cors::Cors;
/// let cors = Cors::new().origin("https://app.example");
/// ```
#[derive(Debug, Clone, Default)]
pub struct Cors {
    origins: Vec<String>,
    any_origin: bool,
    credentials: bool,
}

impl Cors {
    /// Open to nobody yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Open to pages of every origin. Browsers then send no cookies, whatever [`Cors::credentials`] says: the two
    /// together would lend every visitor's session to every page.
    #[must_use]
    pub fn any_origin(mut self) -> Self {
        self.any_origin = true;
        self
    }

    /// Open to pages of this origin, written as browsers do: scheme, host and a port that is not the usual one.
    #[must_use]
    pub fn origin(mut self, origin: impl Into<String>) -> Self {
        self.origins.push(origin.into());
        self
    }

    /// Lets browsers send cookies and client certificates, from the origins named by [`Cors::origin`].
    #[must_use]
    pub fn credentials(mut self) -> Self {
        self.credentials = true;
        self
    }

    fn is_named(&self, origin: &HeaderValue) -> bool {
        self.origins.iter().any(|named| named.as_bytes() == origin.as_bytes())
    }

    /// Tells the browser what it may do with this answer.
    pub(crate) fn mark(&self, origin: Option<&HeaderValue>, answer: &mut Answer) {
        let headers = answer.headers_mut();
        headers.append(header::VARY, HeaderValue::from_static("origin"));
        let Some(origin) = origin else { return };
        if self.is_named(origin) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            if self.credentials {
                headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
            }
        } else if self.any_origin {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        } else {
            return;
        }
        headers.insert(
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static("x-trace-id, retry-after"),
        );
    }

    /// Whether a browser asks beforehand what it may do.
    pub(crate) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
        *method == Method::OPTIONS
            && headers.contains_key(header::ORIGIN)
            && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
    }

    /// What it may do at a place that allows these methods; [`Cors::mark`] says whether at all.
    pub(crate) fn preflight(allow: &str, flow: &Flow) -> Answer {
        let mut answer = response::api_answer(StatusCode::NO_CONTENT, flow, None, bytes::Bytes::new());
        let headers = answer.headers_mut();
        if let Ok(methods) = HeaderValue::from_str(allow) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
        }
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(HEADERS));
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE_SECONDS));
        answer
    }
}
