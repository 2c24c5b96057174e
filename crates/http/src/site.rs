//! Everything that one open gateway serves and needs to serve it, fixed when it opens.

use std::sync::Arc;

use hyper::StatusCode;
use hyper::header::HeaderValue;
use purista_core::door::House;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::authenticator::{Authenticator, SecurityScheme};
use crate::cors::Cors;
use crate::limits::Limits;
use crate::response::Problem;
use crate::route::Routes;

/// One open gateway.
pub(crate) struct Site {
    pub(crate) house: House,
    pub(crate) routes: Routes,
    pub(crate) limits: Limits,
    pub(crate) guard: Option<Guard>,
    pub(crate) cors: Option<Cors>,
    /// One permit for each command under way, held until its handler has ended.
    pub(crate) in_flight: Arc<Semaphore>,
}

impl Site {
    /// The in-flight permit of a command.
    pub(crate) fn admit(&self) -> Result<OwnedSemaphorePermit, Problem> {
        Arc::clone(&self.in_flight).try_acquire_owned().map_err(|_| Self::busy())
    }

    /// 503: every in-flight permit is taken.
    pub(crate) fn busy() -> Problem {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many requests are under way; try again later")
    }
}

/// Who finds out who asks.
pub(crate) struct Guard {
    pub(crate) authenticator: Arc<dyn Authenticator>,
    pub(crate) challenge: HeaderValue,
}

impl Guard {
    /// The guard with what its scheme says, an error when its challenge is no header.
    pub(crate) fn new(authenticator: Arc<dyn Authenticator>) -> Result<(Self, SecurityScheme), String> {
        let scheme = authenticator.scheme();
        let challenge = HeaderValue::from_str(&scheme.challenge)
            .map_err(|_| "the challenge of the authenticator's scheme is no value of a header".to_owned())?;
        Ok((Self { authenticator, challenge }, scheme))
    }
}
