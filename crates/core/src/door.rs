//! What serves the outside beside a host: an HTTP gateway, a console. It knows the catalogue and the client, not the
//! handlers.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::catalogue::Catalogue;
use crate::client::Client;
use crate::clock::Clock;
use crate::health::Health;
use crate::lag::Lags;

/// What a host hands to its doors.
#[derive(Debug, Clone)]
pub struct House {
    /// Invokes and emits.
    pub client: Client,
    /// What can be invoked.
    pub catalogue: Arc<Catalogue>,
    /// How the host is.
    pub health: Health,
    /// How far those who follow its log are behind.
    pub lags: Lags,
    /// Cancelled when the door shall take no more and finish what it has.
    pub stop: CancellationToken,
    /// Owns every task of the door.
    pub tasks: TaskTracker,
    /// Time of day and randomness.
    pub clock: Clock,
}

/// Serves the outside. It is opened when the services are ready, and drained first.
pub trait Door: Send + 'static {
    /// How it calls itself in errors and logs.
    fn name(&self) -> &'static str;
    /// Opens; from its return on the outside is served.
    fn open(self: Box<Self>, house: House) -> BoxFuture<'static, Result<OpenDoor, DoorError>>;
}

/// A door that serves.
pub struct OpenDoor {
    /// Where, for people, as `http://127.0.0.1:3000`.
    pub place: String,
    /// Ends when, after [`House::stop`], the last request was answered.
    pub closed: BoxFuture<'static, ()>,
}

impl fmt::Debug for OpenDoor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenDoor").field("place", &self.place).finish_non_exhaustive()
    }
}

/// A door cannot open. It says what to change.
#[derive(Debug)]
pub struct DoorError {
    what: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl DoorError {
    /// What stands in the way, and the remedy.
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), source: None }
    }

    /// The same, with its cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }
}

impl fmt::Display for DoorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl Error for DoorError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}
