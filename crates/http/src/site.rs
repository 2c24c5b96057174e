//! Everything that one open gateway serves and needs to serve it, fixed when it opens.

use std::sync::Arc;

use hyper::header::HeaderValue;
use purista_core::door::House;
use tokio::sync::Semaphore;

use crate::authenticator::{Authenticator, SecurityScheme};
use crate::cors::Cors;
use crate::limits::Limits;
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
