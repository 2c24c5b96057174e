//! Work with an end, whose timer is set only if it has to wait.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep};

/// Runs `work` until `deadline`; `None` when the deadline came first, and `work` is then dropped.
///
/// `tokio::time::timeout_at` sets up its timer before the first poll; most handlers are done by then.
pub(crate) struct UntilDeadline<'w, F> {
    work: Pin<&'w mut F>,
    deadline: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<'w, F: Future> UntilDeadline<'w, F> {
    pub(crate) fn new(work: Pin<&'w mut F>, deadline: Instant) -> Self {
        Self { work, deadline, timer: None }
    }
}

impl<F: Future> Future for UntilDeadline<'_, F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(output) = self.work.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        let deadline = self.deadline;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        timer.as_mut().poll(cx).map(|()| None)
    }
}
