//! The event that is measured between processes, and three services that listen to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use garde::Validate;
use purista::context::Context;
use purista::service::Service;
use purista::subscription::subscription;
use purista_core::address::ServiceId;
use purista_core::error::HandlerError;
use purista_core::event::Event;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who listens.
pub const LISTENERS: [ServiceId; 3] =
    [ServiceId::new("Email", "1"), ServiceId::new("Search", "1"), ServiceId::new("Audit", "1")];
/// How each calls its subscription.
pub const LISTENS: &str = "hearOfUser";

/// Somebody has registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase")]
pub struct UserRegistered {
    /// The new user.
    #[garde(length(min = 1, max = 64))]
    pub user_id: String,
    /// A text with a rule on its length.
    #[garde(length(min = 3, max = 120))]
    pub email: String,
}

impl Event for UserRegistered {
    const NAME: &'static str = "userRegistered";
}

impl UserRegistered {
    /// A valid event, made anew as everybody makes their own.
    pub fn sample() -> Self {
        Self { user_id: "0af7651916cd43dd8448eb211c80319c".to_owned(), email: "ada@example.com".to_owned() }
    }
}

/// Counts what was heard, and tells whenever all of a round was.
pub struct Heard {
    count: AtomicU64,
    of_round: u64,
    tell: Box<dyn Fn() + Send + Sync>,
}

impl Heard {
    /// Tells by `tell` when each of [`LISTENERS`] has heard `events` more.
    pub fn new(events: u64, tell: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        let of_round = events * LISTENERS.len() as u64;
        Arc::new(Self { count: AtomicU64::new(0), of_round, tell: Box::new(tell) })
    }

    /// One more was heard by one of them.
    pub fn one(&self, event: &UserRegistered) {
        std::hint::black_box(event);
        let heard = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        if heard.checked_rem(self.of_round) == Some(0) {
            (self.tell)();
        }
    }
}

impl std::fmt::Debug for Heard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Heard").field("count", &self.count).finish_non_exhaustive()
    }
}

async fn hear(ctx: Context<Arc<Heard>>, event: UserRegistered) -> Result<(), HandlerError> {
    ctx.resources().one(&event);
    Ok(())
}

/// The services that listen.
pub fn listening_services(heard: &Arc<Heard>) -> [Service; 3] {
    LISTENERS.map(|listener| {
        let builder = Service::builder(listener, "Listens", Arc::clone(heard));
        builder.subscription(subscription(LISTENS, hear)).build()
    })
}
