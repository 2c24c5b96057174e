//! Pages near the log's end, which all who follow it ask for when it grows: one reads, and the others have what he read.
//!
//! Such a page ends where the log could be followed when it was asked for. What lies up to there stays as it is for ever, so
//! that it says the same to everybody.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use purista_events::position::Position;
use purista_events::store::{FollowPage, StoreError};

use crate::ahead::Place;

/// The most pages that are kept. With [`PAGE_BYTES_MAX`] they hold at most a MiB of bodies.
const PAGES_MAX: usize = 4;
/// How many bytes the bodies of a page may have that is kept.
const PAGE_BYTES_MAX: usize = 256 << 10;

/// Whoever reads the page holds the lock.
pub(crate) type Slot = Arc<tokio::sync::Mutex<Page>>;

/// What is known of a page.
#[derive(Debug, Default)]
pub(crate) enum Page {
    /// Nobody has read it.
    #[default]
    Unread,
    /// All have it of him who read it.
    Kept(FollowPage),
    /// It was read, and each reads it for himself, none waiting for another: it is too long, or full, or reading it failed. A
    /// full one is followed by what is read ahead, for whoever reads it.
    Apart,
}

/// The pages that were asked for last.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    slots: Mutex<VecDeque<(Place, Position, Slot)>>,
}

impl Tail {
    /// Where the page lies that begins here and ends at this position, or where it is to be put.
    pub(crate) fn slot(&self, place: &Place, up_to: Position) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let known = slots.iter().find(|(known, end, _)| *end == up_to && known == place);
        if let Some((.., slot)) = known {
            return Arc::clone(slot);
        }
        if slots.len() >= PAGES_MAX {
            slots.pop_front();
        }
        let slot = Slot::default();
        slots.push_back((place.clone(), up_to, Arc::clone(&slot)));
        slot
    }
}

impl Page {
    /// What others are told of a page that was read.
    pub(crate) fn of(read: &Result<FollowPage, StoreError>, limit: usize) -> Self {
        let bytes = |page: &FollowPage| page.events.iter().map(|event| event.body.len()).sum::<usize>();
        match read {
            Ok(page) if page.events.len() < limit && bytes(page) <= PAGE_BYTES_MAX => {
                Self::Kept(page.clone())
            }
            _ => Self::Apart,
        }
    }
}
