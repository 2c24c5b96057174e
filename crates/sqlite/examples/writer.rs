//! Writes as fast as it is told to, and says what was acknowledged: the process that the crash tests kill, and a measure
//! of commits a second.
//!
//! `writer <file> <tasks> <batches of each task, 0 without end> [quiet]`
//!
//! Each batch of a task brings one to five events of the task's stream, on the condition that the stream is as the task
//! left it, and a state that names the batch. For each acknowledged batch one line goes out: `ok <task> <batch>`; for
//! each other `failed <task> <batch> <kind>`, after which the task ends. Beside them a projection counts the events of each
//! task; the program ends when it has counted all of them.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use garde::Validate;
use purista_core::address::{Address, ServiceId};
use purista_core::clock::Clock;
use purista_core::event::{Event, Tags};
use purista_core::message::Party;
use purista_core::store::{Expect, StateChange};
use purista_core::text::Text;
use purista_events::batch::{Append, Batch, Condition};
use purista_events::projector::ProjectionHandle;
use purista_events::recorded::{Cause, NewEvent, Recorded};
use purista_events::store::EventStore;
use purista_sqlite::read_models::projection;
use purista_sqlite::store::SqliteStore;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const WRITER: ServiceId = ServiceId::new("Writer", "1");

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, tasks, batches, rest @ ..] = arguments.as_slice() else {
        eprintln!("writer <file> <tasks> <batches of each task, 0 without end> [quiet]");
        return ExitCode::FAILURE;
    };
    let (Ok(tasks), Ok(batches)) = (tasks.parse(), batches.parse()) else {
        eprintln!("tasks and batches are numbers");
        return ExitCode::FAILURE;
    };
    match run(path, tasks, batches, rest.is_empty()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(worker_threads = 2)]
async fn run(path: &str, tasks: u64, batches: u64, is_loud: bool) -> Result<(), Box<dyn std::error::Error>> {
    let store = SqliteStore::open(path)?;
    let (projecting, counted) = if is_loud { Some(project(&store).await) } else { None }.unzip();
    let started = Instant::now();
    let mut running = JoinSet::new();
    for task in 0..tasks {
        running.spawn(write(store.clone(), task, batches, is_loud));
    }
    let mut committed = 0_u64;
    while let Some(done) = running.join_next().await {
        committed += done?;
    }
    let took = started.elapsed();
    if let Some(reason) = store.poisoned() {
        say(&format!("poisoned {reason}"));
    }
    if let (Some((task, stop)), Some(counted)) = (projecting, counted) {
        if store.poisoned().is_none() {
            let head = *store.head().borrow();
            counted.reached(head, Duration::from_secs(60)).await?;
        }
        stop.cancel();
        task.join_all().await;
    }
    let statistics = store.statistics();
    store.close().await?;
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let rate = committed as f64 / took.as_secs_f64();
    eprintln!("{committed} commits in {took:?}: {rate:.0} a second; {statistics:?}");
    Ok(())
}

/// What the projection reads of an event.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[garde(allow_unvalidated)]
struct Written {
    batch: i64,
}

impl Event for Written {
    const NAME: &'static str = "written";
}

/// A projection that runs, and what stops it.
type Projecting = (JoinSet<()>, CancellationToken);

/// Counts the events of each task.
async fn project(store: &SqliteStore) -> (Projecting, ProjectionHandle) {
    let counting = projection("counted", 1)
        .set_up(|tx| {
            tx.create_table(
                "counted",
                "task TEXT PRIMARY KEY, count INTEGER NOT NULL, batches INTEGER NOT NULL",
            )
        })
        .on(|tx, event: Recorded<Written>| {
            let task = event.tags.first().map_or("", |(_, task)| task);
            let sql = "INSERT INTO {counted} (task, count, batches) VALUES (?1, 1, ?2) \
                       ON CONFLICT (task) DO UPDATE SET count = count + 1, batches = excluded.batches";
            tx.execute(sql, (task, event.body.batch))?;
            Ok(())
        });
    let (projected, stop) = (store.projected(counting), CancellationToken::new());
    let handle = projected.handle();
    // As a host does: its table is there also when there is nothing to count. A disk that fails ends the writer too, which says so.
    if let Err(error) = projected.begin().await {
        eprintln!("{error}");
    }
    let mut task = JoinSet::new();
    task.spawn(projected.run(stop.clone(), Clock::system()));
    ((task, stop), handle)
}

async fn write(store: SqliteStore, task: u64, batches: u64, is_loud: bool) -> u64 {
    let clock = Clock::system();
    let mut version = 0;
    let name: Arc<str> = task.to_string().into();
    for number in 1.. {
        let events = if is_loud { 1 + number % 5 } else { 1 };
        let mut batch = Batch::new(clock.id(), None);
        batch.appends.push(Append {
            events: (1..=events).map(|index| event(&clock, &name, number, index, events)).collect(),
            condition: Condition::Stream { name: "task".to_owned(), value: name.to_string(), version },
        });
        if is_loud {
            batch.state.push(StateChange {
                key: format!("task-{name}"),
                expect: if number == 1 { Expect::Absent } else { Expect::Version(number - 1) },
                value: Some(json!(number)),
                time_to_live: None,
            });
        }
        match store.commit(batch).await {
            Ok(_) if is_loud => say(&format!("ok {name} {number}")),
            Ok(_) => {}
            Err(error) => {
                say(&format!("failed {name} {number} {:?} {error}", error.kind()));
                return number - 1;
            }
        }
        version += events;
        if number == batches {
            return number;
        }
    }
    0
}

fn event(clock: &Clock, task: &str, batch: u64, index: u64, of: u64) -> NewEvent {
    NewEvent {
        id: clock.id(),
        name: Text::known("written"),
        version: 1,
        tags: Tags::new().with("task", task),
        body: json!({ "batch": batch, "index": index, "of": of, "filler": "x".repeat(150) })
            .to_string()
            .into(),
        cause: Cause {
            sender: Party::anywhere(Address::of(WRITER, "write")),
            principal_id: None,
            trace_id: clock.id(),
            trace: None,
            correlation_id: None,
            causation_id: None,
            hops: 0,
        },
    }
}

/// One line in one write, so that a kill leaves whole lines.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody may listen any more.
    let _ = out.write_all(format!("{line}\n").as_bytes());
}
