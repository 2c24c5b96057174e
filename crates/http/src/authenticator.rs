//! Who asks: the one place that names principal and tenant of a request.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use hyper::http::request::Parts;
use serde_json::{Value, json};

/// Finds out who asks, before the body is read. Routes that are public do not run it.
pub trait Authenticator: Send + Sync + 'static {
    /// Who sent this head. Anything but an identity ends the request: 401, or 503 when nobody can tell now.
    fn authenticate<'a>(
        &'a self,
        head: &'a RequestHead,
    ) -> BoxFuture<'a, Result<Identity, AuthenticationError>>;

    /// How callers prove who they are, for `www-authenticate` and the OpenAPI document.
    fn scheme(&self) -> SecurityScheme;
}

/// On whose behalf a request is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub(crate) principal_id: Arc<str>,
    pub(crate) tenant_id: Option<Arc<str>>,
}

impl Identity {
    /// A principal without a tenant.
    pub fn of(principal_id: impl Into<Arc<str>>) -> Self {
        Self { principal_id: principal_id.into(), tenant_id: None }
    }

    /// The same, in a tenant's part of the system.
    #[must_use]
    pub fn in_tenant(mut self, tenant_id: impl Into<Arc<str>>) -> Self {
        self.tenant_id = Some(tenant_id.into());
        self
    }
}

/// It is not known who asks. Why is for the log; the caller learns nothing but the status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthenticationError {
    /// There is no proof, or it does not hold: 401.
    #[error("refused: {0}")]
    Refused(String),
    /// Nobody can tell now, as when keys cannot be fetched: 503.
    #[error("cannot be told now: {0}")]
    Unavailable(String),
}

impl AuthenticationError {
    /// A refusal; `why` is logged and must hold no secret.
    pub fn refused(why: impl Into<String>) -> Self {
        Self::Refused(why.into())
    }
}

/// How callers prove who they are.
#[derive(Debug, Clone, PartialEq)]
pub struct SecurityScheme {
    pub(crate) name: &'static str,
    pub(crate) challenge: String,
    pub(crate) definition: Value,
}

impl SecurityScheme {
    /// A key in a header of this name (lower case).
    pub fn api_key(header: &str) -> Self {
        Self {
            name: "apiKey",
            challenge: format!("ApiKey header=\"{header}\""),
            definition: json!({"type": "apiKey", "in": "header", "name": header}),
        }
    }

    /// A bearer token; `format` says to people what kind.
    pub fn bearer(format: &str) -> Self {
        Self {
            name: "bearer",
            challenge: "Bearer".to_owned(),
            definition: json!({"type": "http", "scheme": "bearer", "bearerFormat": format}),
        }
    }

    /// Any other: a name for the document (letters, digits, `.`, `-` and `_`), the value of `www-authenticate`, and
    /// OpenAPI's security scheme object.
    pub fn other(name: &'static str, challenge: impl Into<String>, definition: Value) -> Self {
        Self { name, challenge: challenge.into(), definition }
    }
}

/// A request without its body.
pub struct RequestHead {
    pub(crate) parts: Parts,
    pub(crate) peer: SocketAddr,
}

impl RequestHead {
    /// The method, in capitals.
    pub fn method(&self) -> &str {
        self.parts.method.as_str()
    }

    /// The path as it came, percent-encoded.
    pub fn path(&self) -> &str {
        self.parts.uri.path()
    }

    /// The query as it came, without the question mark.
    pub fn query(&self) -> Option<&str> {
        self.parts.uri.query()
    }

    /// The header of this name (lower case), if there is exactly one and it is printable ASCII. A header that came twice
    /// proves nothing: which of them another program believes is anybody's guess.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut all = self.parts.headers.get_all(name).iter();
        let only = all.next()?;
        if all.next().is_some() { None } else { only.to_str().ok() }
    }

    /// The other end of the connection: the caller, or the proxy before this gateway.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }
}

impl fmt::Debug for RequestHead {
    /// Shows no header: they hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestHead")
            .field("method", &self.method())
            .field("path", &self.path())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The head of a `GET /` with these headers.
    pub(crate) fn head(headers: &[(&str, &str)]) -> RequestHead {
        let mut request = hyper::Request::builder().uri("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        RequestHead { parts, peer: ([127, 0, 0, 1], 1).into() }
    }

    #[test]
    fn a_header_that_came_twice_counts_for_none() {
        assert_eq!(head(&[("a", "1")]).header("a"), Some("1"));
        assert_eq!(head(&[("a", "1"), ("a", "1")]).header("a"), None);
        assert_eq!(head(&[]).header("a"), None);
    }

    #[test]
    fn a_head_shows_no_header_when_it_is_printed() {
        assert!(!format!("{:?}", head(&[("authorization", "CANARY")])).contains("CANARY"));
    }
}
