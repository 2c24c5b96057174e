//! Spans leave through a thread of their own, with a bounded queue before it: a collector that is away, or slow, holds up nobody.
//! What cannot be taken is lost and counted, and the log is told once, not span by span.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use opentelemetry::Context;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{Span, SpanData, SpanExporter, SpanProcessor};
use tokio::runtime::Runtime;
use tracing::subscriber::NoSubscriber;

use super::Traces;

/// How long the end of a program waits for its last spans.
pub const FLUSH_TIME_MAX: Duration = Duration::from_secs(5);
/// How long it pauses between two tries when too much waits.
const FLUSH_PAUSE: Duration = Duration::from_millis(10);
/// How often it is said at most that spans are lost while the collector answers, but too slowly.
const SAID_EVERY: Duration = Duration::from_secs(60);

pub(super) enum Order {
    Span(Box<SpanData>),
    /// Answers when everything before it has left, or is lost.
    Flush(SyncSender<()>),
}

/// Keeps spans flowing. Dropped, it waits for the last of them, at most [`FLUSH_TIME_MAX`].
#[derive(Debug)]
pub(crate) struct Exporting {
    orders: SyncSender<Order>,
    lost: Arc<AtomicU64>,
}

impl Exporting {
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Exporting {
    fn drop(&mut self) {
        if !flushed(&self.orders) {
            tracing::warn!(
                lost = self.lost(),
                "the collector of traces did not take the last spans in time; they are lost"
            );
        }
    }
}

/// Waits until everything so far has left or is lost, but not for ever: whether that was in time.
fn flushed(orders: &SyncSender<Order>) -> bool {
    let until = Instant::now() + FLUSH_TIME_MAX;
    let (done, left) = sync_channel(1);
    let mut order = Order::Flush(done);
    while let Err(TrySendError::Full(back)) = orders.try_send(order) {
        if Instant::now() >= until {
            return false;
        }
        order = back;
        std::thread::sleep(FLUSH_PAUSE);
    }
    left.recv_timeout(until.saturating_duration_since(Instant::now())).is_ok()
}

/// Takes finished spans; never waits.
#[derive(Debug)]
pub(super) struct Processor {
    orders: SyncSender<Order>,
    lost: Arc<AtomicU64>,
}

impl SpanProcessor for Processor {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() && self.orders.try_send(Order::Span(Box::new(span))).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        if flushed(&self.orders) { Ok(()) } else { Err(OTelSdkError::Timeout(FLUSH_TIME_MAX)) }
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// Starts the thread; it ends with the last who hands it spans.
pub(super) fn start(
    exporter: impl SpanExporter + 'static,
    traces: &Traces,
) -> io::Result<(Exporting, Processor)> {
    let (worker, waiting, processor) = parts(exporter, traces)?;
    let exporting = Exporting { orders: processor.orders.clone(), lost: Arc::clone(&processor.lost) };
    std::thread::Builder::new().name("purista-traces".to_owned()).spawn(move || worker.run(&waiting))?;
    Ok((exporting, processor))
}

/// Who sends, what waits for it, and who hands it over.
pub(super) fn parts<E: SpanExporter>(
    exporter: E,
    traces: &Traces,
) -> io::Result<(Worker<E>, Receiver<Order>, Processor)> {
    let (orders, waiting) = sync_channel(traces.waiting_max);
    let lost = Arc::new(AtomicU64::new(0));
    // A runtime of its own: the program's may be busy, or not be there yet.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let worker = Worker {
        exporter,
        runtime,
        endpoint: traces.endpoint(),
        timeout: traces.timeout,
        delay: traces.delay,
        at_a_time_max: traces.at_a_time_max,
        lost: Arc::clone(&lost),
        told: Told::default(),
    };
    Ok((worker, waiting, Processor { orders, lost }))
}

pub(super) struct Worker<E> {
    exporter: E,
    runtime: Runtime,
    /// Without a password.
    endpoint: String,
    timeout: Duration,
    delay: Duration,
    at_a_time_max: usize,
    lost: Arc<AtomicU64>,
    told: Told,
}

/// What the log knows.
#[derive(Debug, Default)]
struct Told {
    is_away: bool,
    lost: u64,
    at: Option<Instant>,
}

impl<E: SpanExporter> Worker<E> {
    pub(super) fn run(mut self, waiting: &Receiver<Order>) {
        let mut spans = Vec::new();
        let mut due = None;
        loop {
            let order = match due {
                None => waiting.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(due) => waiting.recv_timeout(Instant::saturating_duration_since(&due, Instant::now())),
            };
            match order {
                Ok(Order::Span(span)) => {
                    spans.push(*span);
                    due.get_or_insert_with(|| Instant::now() + self.delay);
                    if spans.len() < self.at_a_time_max {
                        continue;
                    }
                    self.export(&mut spans);
                }
                Ok(Order::Flush(done)) => {
                    self.export(&mut spans);
                    self.tell_what_is_lost();
                    let _ = done.send(());
                }
                Err(RecvTimeoutError::Timeout) => self.export(&mut spans),
                Err(RecvTimeoutError::Disconnected) => return self.export(&mut spans),
            }
            due = None;
        }
    }

    fn export(&mut self, spans: &mut Vec<SpanData>) {
        if spans.is_empty() {
            return;
        }
        let batch = std::mem::take(spans);
        let count = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        // What the client of HTTP itself tells of this would be sent by it again.
        let exported = tracing::subscriber::with_default(NoSubscriber::new(), || {
            self.runtime
                .block_on(async { tokio::time::timeout(self.timeout, self.exporter.export(batch)).await })
        });
        match exported {
            Ok(Ok(())) => self.answered(),
            failed => {
                self.lost.fetch_add(count, Ordering::Relaxed);
                let why = match failed {
                    Ok(Err(error)) => error.to_string(),
                    _ => "it did not answer in time".to_owned(),
                };
                self.failed(&why);
            }
        }
    }

    fn answered(&mut self) {
        let lost = self.lost.load(Ordering::Relaxed);
        if self.told.is_away {
            tracing::info!(endpoint = self.endpoint, lost, "the collector of traces takes spans again");
            self.told = Told { is_away: false, lost, at: Some(Instant::now()) };
        } else if self.told.at.is_none_or(|at| at.elapsed() >= SAID_EVERY) {
            self.tell_what_is_lost();
        }
    }

    fn failed(&mut self, why: &str) {
        if !self.told.is_away {
            let lost = self.lost.load(Ordering::Relaxed);
            tracing::warn!(
                endpoint = self.endpoint,
                why,
                lost,
                "the collector of traces does not take spans; they are lost until it does"
            );
            self.told = Told { is_away: true, lost, at: Some(Instant::now()) };
        }
    }

    fn tell_what_is_lost(&mut self) {
        let lost = self.lost.load(Ordering::Relaxed);
        if lost > self.told.lost {
            tracing::warn!(
                endpoint = self.endpoint,
                lost,
                "spans were lost on the way to the collector of traces"
            );
            self.told = Told { lost, at: Some(Instant::now()), ..self.told };
        }
    }
}
