//! The one loop that feeds a consumer from a carrier: take a place, pull, consume, settle.
//!
//! Every adapter uses it, so that bounds, retries of a paused feed and the end of a subscription are the same everywhere.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures_util::future::{BoxFuture, CatchUnwind};
use futures_util::{FutureExt, Stream, StreamExt};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::bridge::{Consumer, Delivery, Feed, Outcome, Registration};
use crate::running::Running;

/// How many messages are pulled at most before the pump looks at what else there is to do.
const BURST_MAX: usize = 32;

/// One message pulled from a carrier, and the way to tell the carrier what became of it.
#[derive(Debug)]
pub struct Pulled<K> {
    /// What the consumer gets.
    pub delivery: Delivery,
    /// Tells the carrier.
    pub settle: K,
}

/// Tells a carrier what became of one message.
pub trait Settle: Send + 'static {
    /// Whether the carrier need not hear of this outcome, so that nothing waits for telling it.
    fn nothing_to_tell(&self, _outcome: &Outcome) -> bool {
        false
    }

    /// Tells it, exactly once. A pause is told as a retry at once: the pump has stopped pulling, and the message goes back.
    fn settle(self, outcome: Outcome) -> impl Future<Output = ()> + Send;
}

/// Pulls from `source` into `consumer` on a task of `tasks`, at most `in_flight` at a time, until the source ends or the
/// registration is stopped; a paused feed ends when `tasks` is closed.
pub fn pump<S, K>(
    source: S,
    consumer: Arc<dyn Consumer>,
    in_flight: usize,
    tasks: &TaskTracker,
) -> Registration
where
    S: Stream<Item = Pulled<K>> + Send + Unpin + 'static,
    K: Settle,
{
    Registration::new(start(source, consumer, in_flight, tasks))
}

/// The same, with the handle by which the end of the source can be waited for.
pub(crate) fn start<S, K>(
    source: S,
    consumer: Arc<dyn Consumer>,
    in_flight: usize,
    tasks: &TaskTracker,
) -> Arc<Control>
where
    S: Stream<Item = Pulled<K>> + Send + Unpin + 'static,
    K: Settle,
{
    let control = Arc::new(Control {
        stop: CancellationToken::new(),
        stopped: CancellationToken::new(),
        paused: watch::channel(false).0,
        reason: Mutex::default(),
    });
    let guard = control.stopped.clone().drop_guard();
    let run = run(source, consumer, in_flight.max(1), Arc::clone(&control), tasks.clone());
    tasks.spawn(async move {
        let _ended = guard;
        run.await;
    });
    control
}

/// The handle of one pump.
pub(crate) struct Control {
    stop: CancellationToken,
    stopped: CancellationToken,
    paused: watch::Sender<bool>,
    reason: Mutex<Option<String>>,
}

impl Control {
    /// Waits until the source has ended and everything pulled from it is settled, or until a pause makes that impossible.
    pub(crate) async fn drained(&self) {
        let mut paused = self.paused.subscribe();
        tokio::select! {
            () = self.stopped.cancelled() => {}
            // It fails only with the pump itself.
            _ = paused.wait_for(|is_paused| *is_paused) => {}
        }
    }

    fn pause(&self, reason: String) {
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
        self.paused.send_replace(true);
    }
}

impl Feed for Control {
    fn resume(&self) {
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.paused.send_replace(false);
    }

    fn paused(&self) -> Option<String> {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn stop(&self) -> BoxFuture<'static, ()> {
        self.stop.cancel();
        let stopped = self.stopped.clone();
        Box::pin(async move { stopped.cancelled().await })
    }
}

async fn run<S, K>(
    mut source: S,
    consumer: Arc<dyn Consumer>,
    in_flight: usize,
    control: Arc<Control>,
    tasks: TaskTracker,
) where
    S: Stream<Item = Pulled<K>> + Send + Unpin,
    K: Settle,
{
    let mut running = Running::default();
    let mut paused = control.paused.subscribe();
    let mut has_ended = false;
    loop {
        // Asked once for all of a burst: both take a lock.
        let may_burst = !(control.stop.is_cancelled() || *paused.borrow());
        let mut burst = 0;
        // What is there is pulled without setting up what would wake it.
        while may_burst && !has_ended && burst < BURST_MAX && running.len() < in_flight {
            let Poll::Ready(pulled) = futures_util::poll!(source.next()) else { break };
            burst += 1;
            match pulled {
                Some(pulled) => running.extend(taken(pulled, &*consumer, &control).await),
                None => has_ended = true,
            }
        }
        let is_paused = *paused.borrow_and_update();
        // A paused feed never sees the end of its source: it ends with its bridge.
        let is_stopping = has_ended || control.stop.is_cancelled() || (is_paused && tasks.is_closed());
        if is_stopping && running.is_empty() {
            return;
        }
        let may_pull = !is_stopping && !is_paused && running.len() < in_flight;
        tokio::select! {
            biased;
            Some(()) = running.next(), if !running.is_empty() => {}
            () = control.stop.cancelled(), if !is_stopping => {}
            _ = paused.changed() => {}
            pulled = source.next(), if may_pull => match pulled {
                Some(pulled) => running.extend(taken(pulled, &*consumer, &control).await),
                None => has_ended = true,
            }
        }
    }
}

/// Hands one message to the consumer. Most are done at once; what waits, or has to be told, is returned.
async fn taken<K: Settle>(
    Pulled { delivery, settle }: Pulled<K>,
    consumer: &dyn Consumer,
    control: &Arc<Control>,
) -> Option<impl Future<Output = ()> + use<K>> {
    let mut consuming = consume(consumer, delivery);
    let outcome = match futures_util::poll!(&mut consuming) {
        Poll::Ready(ended) => Some(outcome_of(ended)),
        Poll::Pending => None,
    };
    let is_settled = outcome.as_ref().is_some_and(|outcome| settle.nothing_to_tell(outcome));
    (!is_settled).then(|| finish(outcome, consuming, settle, Arc::clone(control)))
}

/// A consumer catches the panics of handlers; one of its own, made before its future or in it, must not end the feed.
fn consume(consumer: &dyn Consumer, delivery: Delivery) -> Consuming {
    let consuming = catch_unwind(AssertUnwindSafe(|| consumer.consume(delivery)))
        .unwrap_or_else(|_| Box::pin(std::future::ready(panicked())));
    AssertUnwindSafe(consuming).catch_unwind()
}

type Consuming = CatchUnwind<AssertUnwindSafe<BoxFuture<'static, Outcome>>>;

async fn finish<K: Settle>(outcome: Option<Outcome>, consuming: Consuming, settle: K, control: Arc<Control>) {
    let outcome = match outcome {
        Some(outcome) => outcome,
        None => outcome_of(consuming.await),
    };
    let outcome = match outcome {
        Outcome::Pause { reason } => {
            tracing::warn!(%reason, "a subscription is paused");
            control.pause(reason);
            Outcome::Retry { after: Duration::ZERO }
        }
        other => other,
    };
    settle.settle(outcome).await;
}

fn outcome_of(ended: std::thread::Result<Outcome>) -> Outcome {
    ended.unwrap_or_else(|_| panicked())
}

fn panicked() -> Outcome {
    Outcome::DeadLetter { reason: "the consumer panicked".to_owned() }
}
