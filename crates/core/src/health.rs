//! Whether the parts of a host work, as its doors tell the outside.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::bridge::BridgeState;

/// How one part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// It works.
    Up,
    /// It works, but something needs attention.
    Degraded,
    /// It does not work.
    Down,
}

impl Condition {
    /// The word for people and probes.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Degraded => "degraded",
            Self::Down => "down",
        }
    }
}

/// One part of a host: a service, the bridge, the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartHealth {
    /// Which.
    pub name: String,
    /// How it is.
    pub condition: Condition,
    /// Why, when it is not up. It is shown to whoever may ask; it holds no secret.
    pub detail: Option<String>,
    /// How many events of the log it has not taken in yet, at most; `None` for what follows no log,
    /// and where a store would have to be asked: metrics do.
    pub events_behind: Option<u64>,
}

impl PartHealth {
    /// The same bridge while its broker takes no messages though it is connected.
    #[must_use]
    pub fn with_alarm(self, alarm: Option<String>) -> Self {
        match alarm {
            Some(alarm) if self.condition == Condition::Up => {
                Self { condition: Condition::Degraded, detail: Some(alarm), ..self }
            }
            _ => self,
        }
    }

    /// The part of a bridge. One that has lost its broker comes back by itself: it needs no restart, but nothing should be
    /// sent to its process meanwhile.
    pub fn of_bridge(name: &str, state: BridgeState) -> Self {
        let (condition, detail) = match state {
            BridgeState::Connected => (Condition::Up, None),
            BridgeState::Reconnecting => {
                (Condition::Degraded, Some("the connection is lost and tried again"))
            }
            BridgeState::Closed => (Condition::Down, Some("it is closed")),
        };
        let detail = detail.map(ToOwned::to_owned);
        Self { name: format!("bridge {name}"), condition, detail, events_behind: None }
    }
}

/// How a host is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthReport {
    /// Whether it takes work now: not while it starts or drains, nor while its bridge looks for its broker.
    pub is_ready: bool,
    /// Its parts.
    pub parts: Vec<PartHealth>,
}

impl HealthReport {
    /// The worst condition among the parts.
    pub fn condition(&self) -> Condition {
        self.parts.iter().map(|part| part.condition).max().unwrap_or(Condition::Up)
    }
}

/// Tells how a host is. Cheap to clone.
#[derive(Clone)]
pub struct Health {
    report: Arc<dyn Fn() -> HealthReport + Send + Sync>,
    ask: Option<Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>>,
}

impl Health {
    /// A health that asks `report` each time.
    pub fn new(report: impl Fn() -> HealthReport + Send + Sync + 'static) -> Self {
        Self { report: Arc::new(report), ask: None }
    }

    /// Calls `ask` before each [`Health::current`] report, for parts that have to be asked over a network. It must end within
    /// a few seconds; `report` shows what it found.
    #[must_use]
    pub fn asking(self, ask: impl Fn() -> BoxFuture<'static, ()> + Send + Sync + 'static) -> Self {
        Self { ask: Some(Arc::new(ask)), ..self }
    }

    /// How it is, as far as it is known without asking anything over a network.
    pub fn report(&self) -> HealthReport {
        (self.report)()
    }

    /// How it is now: parts that can be away, as a database, are asked first.
    ///
    /// # Cancel safety
    ///
    /// This method is cancel safe: a dropped future leaves the last report as it was.
    pub async fn current(&self) -> HealthReport {
        if let Some(ask) = &self.ask {
            ask().await;
        }
        self.report()
    }
}

impl std::fmt::Debug for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Health").field(&self.report()).finish()
    }
}
