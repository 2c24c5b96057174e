//! The one loop that feeds a consumer from a carrier: take a place, pull, consume, settle.
//!
//! Every adapter uses it, so that bounds, retries of a paused feed and the end of a subscription are the same everywhere.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
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
    // One for all rounds: to begin waiting takes a lock each time.
    let mut stopped = pin!(control.stop.cancelled());
    let mut has_ended = false;
    loop {
        // Asked once for all of a burst: both take a lock.
        let mut may_burst = !(control.stop.is_cancelled() || *paused.borrow());
        let mut burst = 0;
        // What is there is pulled without setting up what would wake it.
        while may_burst && !has_ended && burst < BURST_MAX && running.len() < in_flight {
            let Poll::Ready(pulled) = futures_util::poll!(source.next()) else { break };
            burst += 1;
            match pulled {
                Some(pulled) => {
                    let taken = taken(pulled, &*consumer, &control).await;
                    // What was not done at once, or had to be told, may have asked for a pause.
                    may_burst = matches!(taken, Taken::Done) || !*paused.borrow();
                    if let Taken::UnderWay(rest) = taken {
                        running.push(rest);
                    }
                }
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
            () = &mut stopped, if !is_stopping => {}
            _ = paused.changed() => {}
            pulled = source.next(), if may_pull => match pulled {
                Some(pulled) => {
                    if let Taken::UnderWay(rest) = taken(pulled, &*consumer, &control).await {
                        running.push(rest);
                    }
                }
                None => has_ended = true,
            }
        }
    }
}

/// What became of one message so far.
enum Taken<F> {
    /// It is done, and the carrier need not hear of it.
    Done,
    /// It is done, and the carrier was told.
    Told,
    /// It waits for something, or the telling does.
    UnderWay(F),
}

/// Hands one message to the consumer. Most are done and told at once; what waits is returned.
async fn taken<K: Settle>(
    Pulled { delivery, settle }: Pulled<K>,
    consumer: &dyn Consumer,
    control: &Arc<Control>,
) -> Taken<Pin<Box<impl Future<Output = ()> + use<K>>>> {
    let mut consuming = consume(consumer, delivery);
    let outcome = match futures_util::poll!(&mut consuming) {
        Poll::Ready(ended) => Some(outcome_of(ended)),
        Poll::Pending => None,
    };
    if outcome.as_ref().is_some_and(|outcome| settle.nothing_to_tell(outcome)) {
        return Taken::Done;
    }
    let is_done = outcome.is_some();
    let mut rest = Box::pin(finish(outcome, consuming, settle, Arc::clone(control)));
    // A handler that waits has been polled for now.
    if is_done && futures_util::poll!(&mut rest).is_ready() { Taken::Told } else { Taken::UnderWay(rest) }
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use futures_util::stream;

    use super::*;
    use crate::address::{Address, ServiceId};
    use crate::clock::Clock;
    use crate::message::{Message, MessageType, Party};

    /// Tells each outcome to a list, after some other task has had its turn where the carrier takes its time.
    struct Told {
        number: usize,
        takes_time: bool,
        list: Arc<Mutex<Vec<String>>>,
    }

    impl Settle for Told {
        async fn settle(self, outcome: Outcome) {
            if self.takes_time {
                tokio::task::yield_now().await;
            }
            self.list.lock().unwrap().push(format!("{} {outcome:?}", self.number));
        }
    }

    /// Pauses at the first message, as long as it is told to.
    struct Pauses {
        does: AtomicBool,
        list: Arc<Mutex<Vec<String>>>,
    }

    impl Consumer for Pauses {
        fn consume(&self, delivery: Delivery) -> BoxFuture<'static, Outcome> {
            self.list.lock().unwrap().push(format!("consumes {}", delivery.message.timestamp_ms));
            let pauses = self.does.swap(false, Ordering::Relaxed);
            let outcome = if pauses { Outcome::Pause { reason: "full".to_owned() } } else { Outcome::Ack };
            Box::pin(std::future::ready(outcome))
        }
    }

    fn message(number: usize) -> Message {
        let (clock, sender) =
            (Clock::system(), Party::anywhere(Address::of(ServiceId::new("Test", "1"), "")));
        Message::new(clock.id(), MessageType::CustomMessage, number as u64, sender, clock.id())
    }

    #[tokio::test]
    async fn in_order_each_is_told_before_the_next_is_consumed_and_nothing_behind_a_pause() {
        for takes_time in [false, true] {
            let list = Arc::<Mutex<Vec<String>>>::default();
            let (consumer, tasks) =
                (Pauses { does: true.into(), list: Arc::clone(&list) }, TaskTracker::new());
            let pulled = |number: usize| Pulled {
                delivery: Delivery { message: message(number).into(), attempt: 1 },
                settle: Told { number, takes_time, list: Arc::clone(&list) },
            };
            let source = stream::iter((1..=3).map(pulled).collect::<Vec<_>>());
            let control = start(source, Arc::new(consumer), 1, &tasks);
            control.drained().await;
            assert_eq!(control.paused().as_deref(), Some("full"));
            // A pause is told as a retry, and it lasts.
            let first = ["consumes 1", "1 Retry { after: 0ns }"];
            control.stop().await;
            assert_eq!(*list.lock().unwrap(), first, "{takes_time}");
            list.lock().unwrap().clear();

            let (consumer, tasks) =
                (Pauses { does: false.into(), list: Arc::clone(&list) }, TaskTracker::new());
            let source = stream::iter((1..=2).map(pulled).collect::<Vec<_>>());
            start(source, Arc::new(consumer), 1, &tasks).drained().await;
            assert_eq!(*list.lock().unwrap(), ["consumes 1", "1 Ack", "consumes 2", "2 Ack"], "{takes_time}");
        }
    }
}
