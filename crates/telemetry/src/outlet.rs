//! Lines leave through a thread of their own, so that whoever reads them slowly, or not at all, holds up nobody else.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

/// The most lines that wait to be written; what comes while so many wait is lost, and counted.
pub(crate) const LINES_MAX: usize = 4_096;
/// How long the end of a program waits for its last lines.
const FLUSH_TIME_MAX: Duration = Duration::from_secs(1);
/// How long it pauses between two tries when too much waits.
const FLUSH_PAUSE: Duration = Duration::from_millis(10);

enum Order {
    Line(String),
    /// Answers when everything before it is written.
    Flush(SyncSender<()>),
}

/// Where lines leave. Clones are the same outlet.
#[derive(Debug, Clone)]
pub(crate) struct Outlet {
    orders: SyncSender<Order>,
    lost: Arc<AtomicU64>,
}

impl Outlet {
    /// An outlet with its thread, which ends with the last clone.
    pub(crate) fn into_writer(writer: impl Write + Send + 'static) -> io::Result<Self> {
        let (orders, waiting) = sync_channel(LINES_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&lost);
        std::thread::Builder::new()
            .name("purista-logs".to_owned())
            .spawn(move || write_all(writer, &waiting, &counted))?;
        Ok(Self { orders, lost })
    }

    /// Hands a line over; never waits.
    pub(crate) fn send(&self, line: String) {
        if self.orders.try_send(Order::Line(line)).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Waits until everything so far is written, but not for ever.
    pub(crate) fn flush(&self) {
        let until = Instant::now() + FLUSH_TIME_MAX;
        let (done, written) = sync_channel(1);
        let mut order = Order::Flush(done);
        while let Err(TrySendError::Full(back)) = self.orders.try_send(order) {
            if Instant::now() >= until {
                return;
            }
            order = back;
            std::thread::sleep(FLUSH_PAUSE);
        }
        let _ = written.recv_timeout(until.saturating_duration_since(Instant::now()));
    }
}

/// An error of writing has nobody left to be told, so it is passed over.
fn write_all(mut writer: impl Write, waiting: &Receiver<Order>, lost: &AtomicU64) {
    let mut reported = 0;
    for order in waiting {
        match order {
            Order::Line(line) => {
                let _ = writer.write_all(line.as_bytes());
            }
            Order::Flush(done) => {
                let _ = writer.flush();
                let _ = done.send(());
            }
        }
        let now = lost.load(Ordering::Relaxed);
        if now > reported {
            let _ = writeln!(writer, "purista-telemetry: {} lines of the log were lost here", now - reported);
            reported = now;
        }
    }
}
