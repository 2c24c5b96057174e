//! What is under way at a time on one task: a set of futures that wakes its task only when there is something to do.
//!
//! A [`FuturesUnordered`] wakes its own task whenever it has polled all that it holds and nothing was ready. Who waits for
//! one future is so polled twice for each, and the second time often on another thread, which costs two calls of the system.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::Stream;
use futures_util::stream::FuturesUnordered;
use futures_util::task::AtomicWaker;

/// How often what wakes itself is polled again at once; then others have their turn.
const POLLS_MAX: usize = 2;

/// Futures of which many are under way at a time, as a stream of what they end with. Dropping it drops all of them.
pub struct Running<F> {
    futures: FuturesUnordered<F>,
    turn: Arc<Turn>,
    waker: Waker,
}

/// Who wakes during a poll is heard by its end; otherwise the task is woken.
#[derive(Debug, Default)]
struct Turn {
    is_polling: AtomicBool,
    is_woken: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Turn {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // In this order, and the other way round at the end of a poll: one of the two sees the other.
        self.is_woken.store(true, Ordering::SeqCst);
        if !self.is_polling.load(Ordering::SeqCst) {
            self.task.wake();
        }
    }
}

impl<F> Running<F> {
    /// How many are under way.
    pub fn len(&self) -> usize {
        self.futures.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.futures.is_empty()
    }

    /// One more. It is first polled with the set.
    pub fn push(&self, future: F) {
        self.futures.push(future);
    }
}

impl<F: Future> Stream for Running<F> {
    type Item = F::Output;

    /// `None` when nothing is under way, and for that time only.
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<F::Output>> {
        let Self { futures, turn, waker } = &mut *self;
        turn.task.register(cx.waker());
        for _ in 0..POLLS_MAX {
            // A swap, so that what was made ready before a wake is seen by this poll.
            turn.is_woken.swap(false, Ordering::SeqCst);
            turn.is_polling.store(true, Ordering::SeqCst);
            let polled = Pin::new(&mut *futures).poll_next(&mut Context::from_waker(waker));
            turn.is_polling.store(false, Ordering::SeqCst);
            if polled.is_ready() || !turn.is_woken.load(Ordering::SeqCst) {
                return polled;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<F> Extend<F> for Running<F> {
    fn extend<T: IntoIterator<Item = F>>(&mut self, futures: T) {
        futures.into_iter().for_each(|future| self.push(future));
    }
}

impl<F> Default for Running<F> {
    fn default() -> Self {
        let turn = Arc::new(Turn::default());
        Self { futures: FuturesUnordered::new(), waker: Waker::from(Arc::clone(&turn)), turn }
    }
}

impl<F> fmt::Debug for Running<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("len", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn, ready};
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use futures_util::future::{BoxFuture, FutureExt};
    use futures_util::stream::StreamExt;
    use tokio::sync::oneshot;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What a poll gives, and how often it woke its task.
    fn poll<F: Future>(running: &mut Running<F>) -> (Poll<Option<F::Output>>, usize) {
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let polled = running.poll_next_unpin(&mut Context::from_waker(&waker));
        (polled, count.0.load(Ordering::Relaxed))
    }

    #[test]
    fn what_waits_wakes_nobody_until_it_is_ready() {
        let mut running: Running<BoxFuture<'_, u8>> = Running::default();
        let (one, waits) = oneshot::channel();
        running.push(waits.map(|end: Result<u8, _>| end.unwrap()).boxed());
        running.push(pending().boxed());
        assert_eq!(poll(&mut running), (Poll::Pending, 0), "FuturesUnordered alone wakes here");
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        assert!(running.poll_next_unpin(&mut Context::from_waker(&waker)).is_pending());
        one.send(7).unwrap();
        assert_eq!(count.0.load(Ordering::Relaxed), 1, "who becomes ready wakes the task that polled last");
        assert_eq!(poll(&mut running), (Poll::Ready(Some(7)), 0));
        assert_eq!(running.len(), 1);
    }

    #[test]
    fn what_wakes_itself_is_polled_again_and_then_lets_others_run() {
        let (mut running, mut left) = (Running::default(), 2);
        running.push(poll_fn(move |cx| {
            cx.waker().wake_by_ref();
            left -= 1;
            if left == 0 { Poll::Ready(()) } else { Poll::Pending }
        }));
        assert_eq!(poll(&mut running), (Poll::Ready(Some(())), 0));
        assert_eq!(poll(&mut running), (Poll::Ready(None), 0), "nothing is under way");
        let mut running = Running::default();
        running.push(poll_fn(|cx| {
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        }));
        assert_eq!(poll(&mut running), (Poll::Pending, 1));
        let mut running = Running::default();
        running.extend([ready(1), ready(2)]);
        assert_eq!(running.by_ref().collect::<Vec<_>>().now_or_never().unwrap().len(), 2);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_wake_from_another_thread_is_missed() {
        let mut running = Running::default();
        let all = async {
            for round in 0..20_000_usize {
                let (one, waits) = oneshot::channel();
                let other = tokio::task::spawn_blocking(move || one.send(round));
                running.push(waits);
                assert_eq!(running.next().await, Some(Ok(round)));
                other.await.unwrap().unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(60), all).await.expect("a wake was missed");
    }
}
