//! A future that runs on its caller's task, and goes on without it when the caller goes away.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio_util::task::TaskTracker;

/// Polls `future` in place; when it is dropped before it has ended, the rest moves to a task of `tasks`. So a caller that
/// goes away changes nothing of what a handler does, and the usual case costs no task.
///
/// What it returns is lost after a move; it runs to its own end, which the deadline of its message bounds.
pub struct Detaching<F: Future + Unpin + Send + 'static>
where
    F::Output: Send + 'static,
{
    running: Option<F>,
    tasks: TaskTracker,
}

impl<F: Future + Unpin + Send + 'static> Detaching<F>
where
    F::Output: Send + 'static,
{
    /// Runs `future` here, or on `tasks` when nobody waits any more.
    pub fn new(future: F, tasks: TaskTracker) -> Self {
        Self { running: Some(future), tasks }
    }
}

impl<F: Future + Unpin + Send + 'static> Future for Detaching<F>
where
    F::Output: Send + 'static,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        // Polled after its end it stays pending, like every fused future.
        let Some(running) = self.running.as_mut() else { return Poll::Pending };
        let polled = Pin::new(running).poll(cx);
        if polled.is_ready() {
            self.running = None;
        }
        polled
    }
}

impl<F: Future + Unpin + Send + 'static> Drop for Detaching<F>
where
    F::Output: Send + 'static,
{
    fn drop(&mut self) {
        if let Some(rest) = self.running.take() {
            detach(rest, &self.tasks);
        }
    }
}

/// Moves the rest of a future to a task, if there is anybody to run it: without a runtime the process is going down.
pub(crate) fn detach<F>(rest: F, tasks: &TaskTracker)
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    if tokio::runtime::Handle::try_current().is_ok() {
        tasks.spawn(rest);
    }
}

impl<F: Future + Unpin + Send + 'static> fmt::Debug for Detaching<F>
where
    F::Output: Send + 'static,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Detaching").field("ended", &self.running.is_none()).finish_non_exhaustive()
    }
}
