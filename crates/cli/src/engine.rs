//! What the commands ask of a store, whichever engine keeps it: its contract, and what tools need beyond that.

use std::time::Duration;

use futures_util::future::BoxFuture;
use purista_core::id::Id;
use purista_events::position::Position;
use purista_events::read_models::{BuildPause, BuildRecord, ReadModels};
use purista_events::store::{EventStore, StoreError, StoreErrorKind};
use purista_events::subscriptions::{DeadLetter, SubscriptionId};
use purista_postgres::store::PostgresStore;
use purista_sqlite::store::SqliteStore;

/// How long whoever still writes is waited for.
const SETTLED_WITHIN: Duration = Duration::from_secs(10);

type Answer<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// An open store.
pub(crate) trait Engine: EventStore {
    /// What people call it: a file has one owner, a store has many users.
    fn noun(&self) -> &'static str;
    /// What a program that runs now makes of a change: with a file there is none.
    fn heard_by_programs(&self) -> Option<&'static str>;
    /// Every build of a projection that is kept, in order.
    fn builds(&self) -> Answer<'_, Vec<BuildRecord>>;
    /// Stops a build, or lets it go on.
    fn pause_build(&self, record: BuildRecord, pause: Option<BuildPause>) -> Answer<'_, ()>;
    /// Where the event of this id lies.
    fn position_of(&self, event: Id) -> Answer<'_, Option<Position>>;
    /// The dead letter of this id.
    fn dead_letter(&self, id: Id) -> Answer<'_, Option<DeadLetter>>;
    /// How many there are, of one subscription or of all.
    fn count_dead_letters(&self, subscription: Option<SubscriptionId>) -> Answer<'_, u64>;
    /// Waits until nothing more can appear up to a position.
    fn settled(&self, position: Position) -> Answer<'_, ()>;
    /// Looks through everything, and says what is not as it was written.
    fn check(&self) -> Answer<'_, Vec<String>>;
}

impl Engine for SqliteStore {
    fn noun(&self) -> &'static str {
        "file"
    }

    fn heard_by_programs(&self) -> Option<&'static str> {
        None
    }

    fn builds(&self) -> Answer<'_, Vec<BuildRecord>> {
        ReadModels::builds(self)
    }

    fn pause_build(&self, record: BuildRecord, pause: Option<BuildPause>) -> Answer<'_, ()> {
        Box::pin(async move { ReadModels::pause_build(self, &record.build, pause).await })
    }

    fn position_of(&self, event: Id) -> Answer<'_, Option<Position>> {
        Box::pin(async move { Self::position_of(self, &event).await })
    }

    fn dead_letter(&self, id: Id) -> Answer<'_, Option<DeadLetter>> {
        Box::pin(async move { Self::dead_letter(self, &id).await })
    }

    fn count_dead_letters(&self, subscription: Option<SubscriptionId>) -> Answer<'_, u64> {
        Box::pin(async move { Self::count_dead_letters(self, subscription.as_ref()).await })
    }

    fn settled(&self, _: Position) -> Answer<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn check(&self) -> Answer<'_, Vec<String>> {
        Box::pin(Self::check(self))
    }
}

impl Engine for PostgresStore {
    fn noun(&self) -> &'static str {
        "store"
    }

    fn heard_by_programs(&self) -> Option<&'static str> {
        Some("a program that runs already learns of it within seconds")
    }

    fn builds(&self) -> Answer<'_, Vec<BuildRecord>> {
        ReadModels::builds(self)
    }

    fn pause_build(&self, record: BuildRecord, pause: Option<BuildPause>) -> Answer<'_, ()> {
        Box::pin(async move { ReadModels::pause_build(self, &record.build, pause).await })
    }

    fn position_of(&self, event: Id) -> Answer<'_, Option<Position>> {
        Box::pin(async move { Self::position_of(self, &event).await })
    }

    fn dead_letter(&self, id: Id) -> Answer<'_, Option<DeadLetter>> {
        Box::pin(async move { Self::dead_letter(self, &id).await })
    }

    fn count_dead_letters(&self, subscription: Option<SubscriptionId>) -> Answer<'_, u64> {
        Box::pin(async move { Self::count_dead_letters(self, subscription.as_ref()).await })
    }

    fn settled(&self, position: Position) -> Answer<'_, ()> {
        Box::pin(async move {
            let mut head = self.head();
            let reached = head.wait_for(|head| *head >= position);
            if tokio::time::timeout(SETTLED_WITHIN, reached).await.is_ok() {
                return Ok(());
            }
            let what = format!(
                "somebody still writes below position {position}: ask again when he has ended; `purista store status` names him"
            );
            Err(StoreError::new(StoreErrorKind::Overloaded, what))
        })
    }

    fn check(&self) -> Answer<'_, Vec<String>> {
        Box::pin(Self::check(self))
    }
}
