//! A command on its way: the call of its consumer, and the answer to who asked.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use tokio::time::Instant;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::InProcessBridge;
use crate::bridge::{BridgeError, Outcome};
use crate::detaching::detach;
use crate::message::Message;

/// Answers a call: at once where its consumer does and nobody else listens, which takes no more than this, and else by way
/// of a future of its own.
pub(super) struct Answering<'b> {
    bridge: &'b InProcessBridge,
    step: Step<'b>,
}

enum Step<'b> {
    Asked(Calling),
    Waiting(BoxFuture<'b, Result<Message, BridgeError>>),
    Answered,
}

impl<'b> Answering<'b> {
    pub(super) fn new(bridge: &'b InProcessBridge, calling: Calling) -> Self {
        Self { bridge, step: Step::Asked(calling) }
    }
}

impl Future for Answering<'_> {
    type Output = Result<Message, BridgeError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let bridge = self.bridge;
        if let Step::Asked(calling) = &mut self.step {
            let polled = Pin::new(calling).poll(cx);
            let Step::Asked(calling) = std::mem::replace(&mut self.step, Step::Answered) else {
                return Poll::Pending;
            };
            match polled {
                Poll::Ready(Outcome::Reply(reply)) if !bridge.0.always_encode && !bridge.is_heard(&reply) => {
                    return Poll::Ready(Ok(*reply));
                }
                Poll::Ready(outcome) => {
                    self.step = Step::Waiting(Box::pin(bridge.conclude(outcome, calling.deadline)));
                }
                Poll::Pending => self.step = Step::Waiting(Box::pin(bridge.wait(calling))),
            }
        }
        match &mut self.step {
            Step::Waiting(waiting) => waiting.as_mut().poll(cx),
            _ => Poll::Pending,
        }
    }
}

/// A call in the hands of a consumer; who stops the consumer waits for it. It runs on its caller's task; when the caller
/// goes away, the rest moves to a task, so that nothing changes for the handler.
pub(super) struct Calling {
    consuming: Option<BoxFuture<'static, Outcome>>,
    deadline: Option<Instant>,
    token: TaskTrackerToken,
}

impl Calling {
    pub(super) fn new(
        consuming: BoxFuture<'static, Outcome>,
        deadline: Option<Instant>,
        token: TaskTrackerToken,
    ) -> Self {
        Self { consuming: Some(consuming), deadline, token }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }
}

impl Future for Calling {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let Some(consuming) = self.consuming.as_mut() else { return Poll::Pending };
        let polled = consuming.as_mut().poll(cx);
        if polled.is_ready() {
            self.consuming = None;
        }
        polled
    }
}

impl Drop for Calling {
    #[inline]
    fn drop(&mut self) {
        if let Some(rest) = self.consuming.take() {
            detach(rest, self.token.task_tracker());
        }
    }
}
