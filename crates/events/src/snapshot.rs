//! The state of a view as it was folded up to a position: a cache, never the truth.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use purista_core::text::Text;

use crate::error::{StoreError, StoreErrorKind};
use crate::fingerprint::Fingerprint;
use crate::position::Position;
use crate::query::Query;

/// The most bytes of a snapshot's body. A state that is larger is folded from its events each time.
pub const SNAPSHOT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Of which view, and in which form, a snapshot is. Another version of the view, or another query, is another snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SnapshotKey {
    /// Whose.
    pub tenant: Option<Arc<str>>,
    /// Names the view.
    pub name: Text,
    /// The version of the view's state; raised when its form or its fold changes.
    pub version: u32,
    /// [`Query::fingerprint`] of what it reads.
    pub query: Fingerprint,
}

impl SnapshotKey {
    /// The key of a view that reads this query.
    pub fn of(tenant: Option<Arc<str>>, name: Text, version: u32, query: &Query) -> Self {
        Self { tenant, name, version, query: query.fingerprint() }
    }
}

/// A folded state. Whoever finds one reads on from its position; whoever finds none folds from the start, and comes to the
/// same state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Of what.
    pub key: SnapshotKey,
    /// Everything up to here is in it.
    pub position: Position,
    /// When it was taken.
    pub taken_at: Timestamp,
    /// The state, JSON.
    pub body: Bytes,
}

impl Snapshot {
    /// The position that each of these covers: [`Position::START`] where a snapshot is missing.
    pub fn positions(snapshots: &[Option<Self>]) -> Vec<Position> {
        let position = |snapshot: &Option<Self>| snapshot.as_ref().map(|snapshot| snapshot.position);
        snapshots.iter().map(|snapshot| position(snapshot).unwrap_or_default()).collect()
    }

    /// Refuses what is larger than its bound, as [`StoreErrorKind::Invalid`]; every engine asks it before it writes.
    pub fn check_bounds(&self) -> Result<(), StoreError> {
        let bytes = self.body.len();
        if bytes <= SNAPSHOT_BYTES_MAX {
            return Ok(());
        }
        let what = format!("{bytes} bytes of a snapshot are more than {SNAPSHOT_BYTES_MAX}");
        Err(StoreError::new(StoreErrorKind::Invalid, what))
    }
}

/// The snapshots of several keys, in the order of the keys; `None` where there is none.
pub type Snapshots = Vec<Option<Snapshot>>;

/// The snapshots of one name and version, counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotGroup {
    /// Names the view.
    pub name: Text,
    /// The version of the view's state.
    pub version: u32,
    /// How many there are, of all tenants and queries.
    pub count: u64,
    /// When the newest of them was taken.
    pub newest: Timestamp,
}
