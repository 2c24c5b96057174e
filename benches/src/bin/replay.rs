//! A million events of 256 bytes through a projection that folds them in memory, beside serde_json that decodes the same
//! bodies and does nothing else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use garde::Validate;
use purista_benches::callers::runtime;
use purista_benches::folder::Folder;
use purista_benches::given::recorded;
use purista_benches::harness::{Spread, amount, rounds_asked, show, work};
use purista_core::address::{AddressParts, ServiceId};
use purista_core::clock::Clock;
use purista_core::event::{Event, Tags};
use purista_events::batch::EVENTS_MAX;
use purista_events::projector::fold::folding;
use purista_events::store::EventStore as _;
use purista_sqlite::store::SqliteStore;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const EVENTS: u64 = 1_000_000;
const STREAMS: u64 = 1_000;
/// How long a body is, in bytes.
const BODY_BYTES: usize = 256;

static SENDER: AddressParts = AddressParts::known(ServiceId::new("Meter", "1"), "measure");

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[garde(allow_unvalidated)]
struct Measured {
    meter: u64,
    value: u64,
    unit: String,
    note: String,
}

impl Event for Measured {
    const NAME: &'static str = "measured";

    fn tags(&self) -> Tags {
        Tags::new().with("meter", self.meter)
    }
}

/// What is folded: small, so that the figure is of the way and not of the fold.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Sum {
    events: u64,
    value: u64,
    bytes: u64,
}

impl Sum {
    fn add(&mut self, measured: &Measured) {
        self.events += 1;
        self.value += measured.value;
        self.bytes += (measured.unit.len() + measured.note.len()) as u64;
    }
}

fn measured(nth: u64) -> Result<Measured> {
    let mut event =
        Measured { meter: nth % STREAMS, value: nth, unit: "kWh".to_owned(), note: String::new() };
    let bare = serde_json::to_vec(&event)?.len();
    event.note = "n".repeat(BODY_BYTES.saturating_sub(bare));
    Ok(event)
}

async fn fill(store: &SqliteStore) -> Result<()> {
    for first in (0..work(EVENTS)).step_by(EVENTS_MAX) {
        recorded(store, &SENDER, (first..first + EVENTS_MAX as u64).map(measured)).await?;
    }
    Ok(())
}

/// Replays everything. The name is another one each time, so that nothing is left of the last.
async fn replay(store: &SqliteStore, version: u32, tasks: &TaskTracker) -> Result<(Sum, Duration)> {
    let (projected, folded) = folding("sum", version, Sum::default())
        .on(|sum: &mut Sum, event: Measured| sum.add(&event))
        .of(store);
    let (handle, stop, head) = (projected.handle(), CancellationToken::new(), *store.head().borrow());
    projected.begin().await?;
    let start = Instant::now();
    let running = tasks.spawn(projected.run(stop.clone(), Clock::system()));
    handle.reached(head, Duration::from_secs(300)).await?;
    let took = start.elapsed();
    stop.cancel();
    running.await?;
    Ok((folded.read(Sum::clone), took))
}

fn decode(bodies: &[Bytes]) -> Result<(Sum, Duration)> {
    let start = Instant::now();
    let mut sum = Sum::default();
    for body in bodies {
        sum.add(&serde_json::from_slice(body)?);
    }
    Ok((sum, start.elapsed()))
}

/// The memory that this process holds, in MiB, now and at most so far.
fn memory() -> Result<(f64, f64)> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        kib.map(|kib| kib / 1024.0).with_context(|| format!("{name} is not told"))
    };
    Ok((of("VmRSS:")?, of("VmHWM:")?))
}

fn main() -> Result<()> {
    let rounds = rounds_asked(5)?;
    runtime()?.block_on(async {
        let (folder, tasks) = (Folder::new("replay")?, TaskTracker::new());
        let store = SqliteStore::open(folder.file())?;
        fill(&store).await?;
        store.close().await?;
        // Opened anew, so that the log is read from the file.
        let store = SqliteStore::open(folder.file())?;
        let (before, events) = (memory()?, work(EVENTS));
        let (expected, _) = replay(&store, 1, &tasks).await?;
        let after = memory()?;
        println!(
            "memory: {:.0} MiB before a replay of {events} events, {:.0} MiB after it, at most {:.0} MiB",
            before.0, after.0, after.1
        );
        let bodies = (0..work(EVENTS)).map(|nth| Ok(serde_json::to_vec(&measured(nth)?)?.into()));
        let bodies: Arc<Vec<Bytes>> = Arc::new(bodies.collect::<Result<_>>()?);
        let (mut ours, mut bare) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            let mut decoded = || -> Result<()> {
                let (sum, took) = decode(&bodies)?;
                ensure!(sum == expected, "the replay folded something else");
                bare.push(amount(events) / took.as_secs_f64());
                Ok(())
            };
            if round % 2 == 1 {
                decoded()?;
            }
            let (sum, took) = replay(&store, u32::try_from(round)? + 2, &tasks).await?;
            ensure!(sum == expected, "a replay that came to something else");
            ours.push(amount(events) / took.as_secs_f64());
            if round % 2 == 0 {
                decoded()?;
            }
        }
        let ratio = Spread::of(ours.iter().zip(&bare).map(|(one, other)| one / other));
        println!("{events} events of {BODY_BYTES} bytes, {rounds} rounds: median (min to max)");
        for (name, spread, places) in [
            ("purista, replayed and folded, a second", Spread::of(ours.into_iter()), 0),
            ("serde_json, decoded, a second", Spread::of(bare.into_iter()), 0),
            ("ratio", ratio, 2),
        ] {
            show(name, spread, places)?;
        }
        store.close().await?;
        Ok(())
    })
}
