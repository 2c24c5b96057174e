//! Supervises the long-lived tasks of a host: one that ends before the host stops is logged, and reported by its name.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt as _;
use purista_core::health::{Condition, PartHealth};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::failure::panic_text;

/// Spawns tasks and keeps the names of those that have ended too early. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Supervisor(Arc<Mutex<Vec<Ended>>>);

/// A task that has ended although it should not; the reason of a panic is in the log.
struct Ended {
    name: String,
    has_panicked: bool,
}

impl Supervisor {
    /// Runs a task until it ends. It may end once `stop` is cancelled; before, an end is a failure of the host.
    pub(crate) fn spawn(
        &self,
        tasks: &TaskTracker,
        name: String,
        stop: CancellationToken,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        let supervisor = self.clone();
        tasks.spawn(async move {
            let result = AssertUnwindSafe(work).catch_unwind().await;
            match &result {
                Ok(()) if stop.is_cancelled() => return,
                Ok(()) => tracing::error!(task = name, "a task of the host ended before the host stopped"),
                Err(panic) => {
                    let reason = panic_text(&**panic);
                    tracing::error!(task = name, reason, "a task of the host panicked and has ended");
                }
            }
            let ended = Ended { name, has_panicked: result.is_err() };
            supervisor.0.lock().unwrap_or_else(PoisonError::into_inner).push(ended);
        });
    }

    /// Each task that has ended too early, as a component that is down.
    pub(crate) fn health(&self) -> Vec<PartHealth> {
        let ended = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let part = |ended: &Ended| PartHealth {
            name: format!("task {}", ended.name),
            condition: Condition::Down,
            detail: Some(if ended.has_panicked {
                "it panicked and has ended: see the log, and restart the program".to_owned()
            } else {
                "it has ended: see the log, and restart the program".to_owned()
            }),
            events_behind: None,
        };
        ended.iter().map(part).collect()
    }
}

impl fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervisor").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn names_after(work: impl Future<Output = ()> + Send + 'static, stopped: bool) -> Vec<String> {
        let (supervisor, tasks, stop) = (Supervisor::default(), TaskTracker::new(), CancellationToken::new());
        if stopped {
            stop.cancel();
        }
        supervisor.spawn(&tasks, "relay".to_owned(), stop, work);
        tasks.close();
        tasks.wait().await;
        supervisor.health().into_iter().map(|part| format!("{} {:?}", part.name, part.condition)).collect()
    }

    #[tokio::test]
    async fn a_task_that_panics_or_ends_too_early_is_down_by_its_name() {
        assert_eq!(names_after(async { panic!("as asked") }, false).await, ["task relay Down"]);
        assert_eq!(names_after(async {}, false).await, ["task relay Down"]);
    }

    #[tokio::test]
    async fn a_task_that_ends_when_the_host_stops_is_not_reported() {
        assert_eq!(names_after(async {}, true).await, Vec::<String>::new());
    }
}
