//! Recovers a commit whose answer was lost: the same batch is committed again under its id, until the store says what became of it.

use std::time::Duration;

use crate::batch::{Batch, Receipt};
use crate::error::{StoreError, StoreErrorKind};

/// How often a batch is committed again before its end stays unknown.
pub const REPEATS_MAX: u32 = 5;

/// The pause before the first repeat; each pause is twice as long as the one before it.
const PAUSE: Duration = Duration::from_millis(20);

/// Commits a batch; when the answer is lost, commits it again under the same id, up to [`REPEATS_MAX`] times.
///
/// A batch that may have been committed stays so until the store answers for its id: with its receipt, or with a rejection that
/// comes after the receipts were looked up ([`StoreErrorKind::Conflict`], `StateConflict`, `KeyTaken`, `AlreadyDone`). That a
/// repeat could not be written, because the store is away, full or closed, says nothing of the first commit.
///
/// # Errors
///
/// Returns the error of the first commit if it is not [`StoreErrorKind::Unknown`]; then the rejection of a repeat; and `Unknown`
/// if no repeat tells what became of the batch.
///
/// # Cancel safety
///
/// Not cancel safe: the batch may have been committed.
pub async fn commit_until_known<F>(batch: Batch, commit: impl Fn(Batch) -> F) -> Result<Receipt, StoreError>
where
    F: Future<Output = Result<Receipt, StoreError>>,
{
    // What is repeated has no deadline: it may have happened in time.
    let again = Batch { deadline: None, ..batch.clone() };
    let mut lost = match commit(batch).await {
        Err(error) if error.kind() == StoreErrorKind::Unknown => error,
        known => return known,
    };
    for repeat in 0..REPEATS_MAX {
        tokio::time::sleep(PAUSE * 2_u32.pow(repeat)).await;
        match commit(again.clone()).await {
            Ok(receipt) => return Ok(receipt),
            Err(error) if is_after_the_receipts(error.kind()) => return Err(error),
            Err(error) if error.kind() == StoreErrorKind::Closed => break,
            Err(error) if error.kind() == StoreErrorKind::Unknown => lost = error,
            Err(error) => tracing::debug!(%error, repeat, "a commit whose answer was lost is not known yet"),
        }
    }
    Err(lost)
}

/// Whether a store finds this only after it has looked for the receipt of the batch, so that there is none.
fn is_after_the_receipts(kind: StoreErrorKind) -> bool {
    use StoreErrorKind::{AlreadyDone, Conflict, KeyTaken, StateConflict};
    matches!(kind, Conflict | StateConflict | KeyTaken | AlreadyDone)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use purista_core::id::Id;

    use super::*;

    /// What becomes of a batch whose commits end like this, one after the other.
    async fn ends(kinds: &[StoreErrorKind]) -> (StoreErrorKind, usize) {
        let left = Mutex::new(kinds.iter());
        let commit = |_| {
            let kind = left.lock().unwrap().next().copied().unwrap_or(StoreErrorKind::Overloaded);
            std::future::ready(Err(StoreError::new(kind, "as the test wants it")))
        };
        let end = commit_until_known(Batch::new(Id::from_random(1), None), commit).await;
        let unused = left.lock().unwrap().len();
        (end.unwrap_err().kind(), unused)
    }

    #[tokio::test(start_paused = true)]
    async fn a_commit_that_may_have_happened_stays_unknown_until_its_receipt_was_looked_for() {
        use StoreErrorKind::*;
        for away in [Overloaded, NoSpace, ReadFailed, Corrupt, InUse, Invalid, DeadlinePassed, Unknown] {
            assert_eq!(ends(&[Unknown, away]).await, (Unknown, 0), "{away:?}");
        }
        assert_eq!(ends(&[Unknown, Closed, Conflict]).await, (Unknown, 1), "nothing comes after its closing");
        for decided in [Conflict, StateConflict, KeyTaken, AlreadyDone] {
            assert_eq!(ends(&[Unknown, Overloaded, decided]).await, (decided, 0));
        }
        assert_eq!(ends(&[Overloaded, Conflict]).await, (Overloaded, 1), "what was refused at once is known");
    }
}
