//! Follows the log: what is there, a mark when there is no more, then what comes.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use crate::head::HeadWatch;
use crate::position::Position;
use crate::query::Query;
use crate::recorded::Recorded;
use crate::store::{EventStore, StoreError};

/// The most events that a follower holds.
pub const FOLLOWED_MAX: usize = 256;

/// Follows the log forwards from a position, without an end. It holds one page of events, and asks for more when that is
/// used up: who reads slowly is waited for.
///
/// ```
/// # use std::sync::Arc;
/// # use purista_events::{memory::MemoryStore, position::Position, query::Query, store::StoreError};
/// use purista_events::following::{Followed, Follower};
///
/// # async fn example(store: MemoryStore) -> Result<(), StoreError> {
/// let mut follower = Follower::new(Arc::new(store), Query::tag("user", "ada"), Position::START);
/// loop {
///     match follower.next().await? {
///         Followed::Event(event) => println!("{} at {}", event.name, event.position),
///         Followed::CaughtUp(position) => println!("that was all up to {position}, now live"),
///     }
/// }
/// # }
/// ```
pub struct Follower {
    store: Arc<dyn EventStore>,
    query: Query,
    head: HeadWatch,
    buffer: VecDeque<Recorded>,
    looked_up_to: Position,
    /// What is said when the buffer is empty.
    mark: Mark,
}

/// What a follower gives next.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "nearly all of them are events: a box each would cost more")]
pub enum Followed {
    /// An event, in order.
    Event(Recorded),
    /// Everything up to here was given: nothing more was there when it looked. It comes each time the follower has caught up
    /// with a log that grew, also where none of the new events was selected.
    CaughtUp(Position),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    /// There is more to read.
    Behind,
    /// The mark is due.
    Due,
    /// It was given; only a longer log changes that.
    Given,
}

impl Follower {
    /// Follows what the query selects strictly after `from`.
    pub fn new(store: Arc<dyn EventStore>, query: Query, from: Position) -> Self {
        let head = store.head();
        Self { store, query, head, buffer: VecDeque::new(), looked_up_to: from, mark: Mark::Behind }
    }

    /// The next event, or the mark that there are no more; after the mark it waits until the log grows.
    ///
    /// After an error it can be asked again, and goes on where it was. Cancel safe: nothing is lost.
    pub async fn next(&mut self) -> Result<Followed, StoreError> {
        loop {
            if let Some(event) = self.buffer.pop_front() {
                return Ok(Followed::Event(event));
            }
            match self.mark {
                Mark::Due => {
                    self.mark = Mark::Given;
                    return Ok(Followed::CaughtUp(self.looked_up_to));
                }
                Mark::Given => {
                    let place = self.looked_up_to;
                    // The store holds the sender as long as it is followed.
                    let _ = self.head.wait_for(|head| *head > place).await;
                    self.mark = Mark::Behind;
                }
                Mark::Behind => {
                    let page = self.store.follow(&self.query, self.looked_up_to, FOLLOWED_MAX).await?;
                    self.looked_up_to = page.looked_up_to.max(self.looked_up_to);
                    self.buffer = page.events.into();
                    if page.is_caught_up {
                        self.mark = Mark::Due;
                    }
                }
            }
        }
    }

    /// How many events it holds, at most [`FOLLOWED_MAX`].
    pub fn held(&self) -> usize {
        self.buffer.len()
    }
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower")
            .field("looked_up_to", &self.looked_up_to)
            .field("held", &self.held())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
