//! A reply on its way to who asked.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::Instant;
use tokio_util::sync::DropGuard;
use tokio_util::task::TaskTracker;

use super::{BridgeError, Outcome};
use crate::detaching::detach;
use crate::message::Message;

/// What came of a request.
pub type Answer = Result<Box<Message>, BridgeError>;

/// The answer to a request, on its way: what [`super::EventBridge::request`] returns. An adapter makes it of a future of its
/// own with [`Asking::new`]; the bridge inside the process spares that future.
#[must_use = "nothing is asked before it is polled"]
pub struct Asking<'b>(Step<'b>);

enum Step<'b> {
    Calling(Calling, &'b dyn Concludes),
    Waiting(BoxFuture<'b, Answer>),
    Answered,
}

/// Who lets its callers run what they call: what it does with the outcome.
pub(crate) trait Concludes: Send + Sync {
    /// The answer, where nobody else waits for it.
    fn at_once(&self, outcome: Outcome) -> Result<Answer, Outcome>;
    /// The answer, once those who listen to it have it.
    fn conclude(&self, outcome: Outcome, deadline: Option<Instant>) -> BoxFuture<'_, Answer>;
    /// The answer of who did not answer at once.
    fn wait(&self, calling: Calling) -> BoxFuture<'_, Answer>;
}

impl<'b> Asking<'b> {
    /// The answer that this future brings.
    pub fn new(answering: impl Future<Output = Answer> + Send + 'b) -> Self {
        Self(Step::Waiting(Box::pin(answering)))
    }

    /// The answer of a consumer that is called here.
    pub(crate) fn calling(calling: Calling, concludes: &'b dyn Concludes) -> Self {
        Self(Step::Calling(calling, concludes))
    }
}

impl Future for Asking<'_> {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        if let Step::Calling(calling, concludes) = &mut self.0 {
            let (concludes, deadline) = (*concludes, calling.deadline);
            match Pin::new(&mut *calling).poll(cx) {
                Poll::Ready(outcome) => match concludes.at_once(outcome) {
                    Ok(answer) => {
                        self.0 = Step::Answered;
                        return Poll::Ready(answer);
                    }
                    Err(outcome) => self.0 = Step::Waiting(concludes.conclude(outcome, deadline)),
                },
                Poll::Pending => {
                    if let Step::Calling(calling, _) = std::mem::replace(&mut self.0, Step::Answered) {
                        self.0 = Step::Waiting(concludes.wait(calling));
                    }
                }
            }
        }
        match &mut self.0 {
            Step::Waiting(waiting) => waiting.as_mut().poll(cx),
            // Polled after its end it stays pending, like every fused future.
            _ => Poll::Pending,
        }
    }
}

impl fmt::Debug for Asking<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let step = match self.0 {
            Step::Calling(..) => "calling",
            Step::Waiting(_) => "waiting",
            Step::Answered => "answered",
        };
        f.debug_tuple("Asking").field(&step).finish()
    }
}

/// A call in the hands of a consumer; who stops the consumer waits for it. It runs on its caller's task; when the caller
/// goes away, the rest moves to a task, so that nothing changes for the handler.
pub(crate) struct Calling {
    consuming: Option<BoxFuture<'static, Outcome>>,
    pub(crate) deadline: Option<Instant>,
    in_hand: Arc<InHand>,
}

/// What the calls of one consumer hold on to, so that who stops it can wait until nothing does.
pub(crate) struct InHand {
    /// Where a call goes on whose caller went away.
    tasks: TaskTracker,
    _held: Arc<DropGuard>,
}

impl InHand {
    /// The last one to be dropped drops `held`.
    pub(crate) fn new(tasks: TaskTracker, held: Arc<DropGuard>) -> Self {
        Self { tasks, _held: held }
    }
}

impl Calling {
    pub(crate) fn new(
        consuming: BoxFuture<'static, Outcome>,
        deadline: Option<Instant>,
        in_hand: Arc<InHand>,
    ) -> Self {
        Self { consuming: Some(consuming), deadline, in_hand }
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
            let in_hand = Arc::clone(&self.in_hand);
            detach(rest.map(|_| drop(in_hand)), &self.in_hand.tasks);
        }
    }
}
