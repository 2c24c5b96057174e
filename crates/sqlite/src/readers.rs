//! Readers beside the writer: a few threads, each with a connection of its own that cannot write.
//!
//! SQLite reads block, so they do not run on the runtime's threads.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use purista_events::store::{StoreError, StoreErrorKind};
use rusqlite::Connection;
use tokio::sync::{Semaphore, oneshot};

use crate::error::closed;

/// How many reads may wait; more wait for room.
pub(crate) const READS_MAX: usize = 256;

type Read = Box<dyn FnOnce(&mut Connection) + Send>;

enum Order {
    Read(Read),
    Stop,
}

/// Hands reads to the threads.
#[derive(Debug)]
pub(crate) struct Readers {
    orders: SyncSender<Order>,
    room: Arc<Semaphore>,
}

/// Ends the threads.
#[derive(Debug)]
pub(crate) struct ReaderThreads {
    orders: SyncSender<Order>,
    room: Arc<Semaphore>,
    threads: Vec<JoinHandle<()>>,
}

/// Starts a thread for each connection.
pub(crate) fn start(connections: Vec<Connection>) -> std::io::Result<(Readers, ReaderThreads)> {
    let (orders, waiting) = sync_channel(READS_MAX + connections.len());
    let room = Arc::new(Semaphore::new(READS_MAX));
    let waiting = Arc::new(Mutex::new(waiting));
    let mut ends = ReaderThreads { orders: orders.clone(), room: Arc::clone(&room), threads: Vec::new() };
    for connection in connections {
        let waiting = Arc::clone(&waiting);
        let thread = std::thread::Builder::new()
            .name("purista-read".to_owned())
            .spawn(move || serve(connection, &waiting))?;
        ends.threads.push(thread);
    }
    Ok((Readers { orders, room }, ends))
}

fn serve(mut connection: Connection, waiting: &Mutex<Receiver<Order>>) {
    loop {
        // One thread waits for the next order, the others for the lock: whoever is free takes it.
        let order = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Order::Read(read)) = order else { return };
        // A panic fails its own read: the answer's other end sees that nobody answers.
        let _ = catch_unwind(AssertUnwindSafe(|| read(&mut connection)));
    }
}

impl Readers {
    /// Runs a read on one of the threads. Cancel safe: a read that nobody waits for changes nothing.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let permit = Arc::clone(&self.room).acquire_owned().await.map_err(|_| closed())?;
        let (answer, answered) = oneshot::channel();
        let order = Order::Read(Box::new(move |connection| {
            let _permit = permit;
            if !answer.is_closed() {
                // The caller may be gone by now.
                let _ = answer.send(read(connection));
            }
        }));
        // There is a slot for each permit, so it is never full.
        self.orders.try_send(order).map_err(|_| closed())?;
        let unanswered =
            |_| StoreError::new(StoreErrorKind::ReadFailed, "the reader ended without an answer");
        answered.await.map_err(unanswered)?
    }
}

impl ReaderThreads {
    /// Waits until the reads that were handed over are done; later ones are refused.
    pub(crate) fn stop(self) {
        self.room.close();
        for _ in &self.threads {
            let _ = self.orders.send(Order::Stop);
        }
        for thread in self.threads {
            // A reader that panicked outside of a read is gone as well.
            let _ = thread.join();
        }
    }
}
