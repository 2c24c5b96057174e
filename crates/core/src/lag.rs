//! How far whoever follows a log is behind it, and who holds all of them back, as doors tell the outside.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

/// What follows the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum FollowerKind {
    /// A read model, as readers see it.
    Projection,
    /// A read model that is being made anew, and that nobody sees yet.
    Rebuild,
    /// A durable subscription.
    Subscription,
    /// What carries recorded events to the bridge.
    Relay,
}

impl FollowerKind {
    /// The word for people and probes.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Projection => "projection",
            Self::Rebuild => "rebuild",
            Self::Subscription => "subscription",
            Self::Relay => "relay",
        }
    }
}

/// How far one follower is behind.
#[derive(Debug, Clone, PartialEq)]
pub struct FollowerLag {
    /// What it is.
    pub kind: FollowerKind,
    /// Its name.
    pub name: String,
    /// How many of its events wait.
    pub events: u64,
    /// Whether there may be more: counting ends somewhere.
    pub is_at_least: bool,
    /// How long the oldest of them waits; nothing when none does.
    pub behind: Duration,
    /// How many events it took in a second of late; 0 when it is not known.
    pub per_second: f64,
    /// When it will have caught up at that rate, where it can be said.
    pub caught_up_in: Option<Duration>,
}

/// A blocking transaction: it has written to the same server and is still open. Nothing that is recorded after it began to write
/// is delivered before it ends. Engines that have a log to themselves know none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Holder {
    /// The process of the server that serves it, by which an operator ends it; 0 for a prepared transaction, which has none.
    pub pid: i32,
    /// The id of a prepared transaction (two-phase commit), by which an operator ends it; `None` for one of a session.
    pub prepared: Option<String>,
    /// The user of the server whose transaction it is.
    pub user: String,
    /// What its client calls itself.
    pub application: String,
    /// In which database it works.
    pub database: String,
    /// What it does, as `idle in transaction`.
    pub state: String,
    /// For how long its transaction is open.
    pub age: Duration,
}

impl Holder {
    /// The statement by which an operator ends it.
    pub fn remedy(&self) -> String {
        match &self.prepared {
            Some(gid) => format!("ROLLBACK PREPARED '{}'", gid.replace('\'', "''")),
            None => format!("SELECT pg_terminate_backend({})", self.pid),
        }
    }
}

/// Which transaction it is, for how long it is open, and what ends it.
impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, prepared, user, application, database, state, age } = self;
        match prepared {
            Some(gid) => write!(f, "the prepared transaction '{gid}' of {user} in database {database}")?,
            None => write!(
                f,
                "the transaction of process {pid} ({application}, {user}, {state}) in database {database}"
            )?,
        }
        write!(f, ", open for {} s; end it with {}", age.as_secs(), self.remedy())
    }
}

/// What is measured.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Measured {
    /// How far everybody is behind.
    pub followers: Vec<FollowerLag>,
    /// Who holds them back, the oldest first, when somebody does for longer than a commit takes.
    pub holders: Vec<Holder>,
    /// What each subscription has put aside, and the relay.
    pub put_aside: Vec<PutAside>,
}

/// What one subscription, or the relay, could not finish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutAside {
    /// Its name.
    pub name: String,
    /// How many messages it has given up.
    pub dead_letters: u64,
    /// How many of its events wait for another attempt, or behind one that does.
    pub deferred: u64,
}

/// Measures how far everybody is behind. Cheap to clone.
#[derive(Clone)]
pub struct Lags(Arc<Measure>);

type Measure = dyn Fn() -> BoxFuture<'static, Option<Measured>> + Send + Sync;

impl Lags {
    /// Asks `measure` each time; `None` is that it cannot be told now.
    pub fn new(measure: impl Fn() -> BoxFuture<'static, Option<Measured>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(measure))
    }

    /// Those of a process in which nobody follows a log.
    pub fn none() -> Self {
        Self::new(|| Box::pin(std::future::ready(Some(Measured::default()))))
    }

    /// How far everybody is behind now; `None` when it cannot be told. Cancel safe.
    pub async fn measure(&self) -> Option<Measured> {
        (self.0)().await
    }
}

impl fmt::Debug for Lags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lags").finish_non_exhaustive()
    }
}
