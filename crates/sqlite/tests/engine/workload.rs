//! The process that writes (`examples/writer.rs`), and what must be true of its file afterwards.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use purista_core::text::Text;
use purista_events::query::Query;
use purista_events::store::EventStore as _;
use purista_sqlite::store::SqliteStore;
use serde_json::Value;

/// The writer's program. It is an example, so that nobody installs it; cargo builds it with the tests.
pub(crate) fn program() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let path = tests.ancestors().nth(2).unwrap().join("examples/writer");
    assert!(path.exists(), "run `cargo build -p purista-sqlite --example writer` first");
    path
}

/// Arguments of the writer.
pub(crate) fn arguments(file: &Path, tasks: usize, batches: usize) -> [String; 3] {
    [file.display().to_string(), tasks.to_string(), batches.to_string()]
}

/// Runs a command to its end, and returns what the writer in it said.
pub(crate) fn run(command: &mut Command) -> Said {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Said { is_unharmed: output.status.success(), ..Said::parse(&text) }
}

/// What the writer said.
#[derive(Debug, Default)]
pub(crate) struct Said {
    /// The last acknowledged batch of each task.
    pub(crate) acknowledged: BTreeMap<u64, u64>,
    /// How many were acknowledged in all.
    pub(crate) count: usize,
    /// The kinds of failures, in order.
    pub(crate) failures: Vec<String>,
    /// Whether one was acknowledged after one had failed.
    pub(crate) is_acknowledged_after_failure: bool,
    pub(crate) is_poisoned: bool,
    pub(crate) is_unharmed: bool,
}

impl Said {
    pub(crate) fn parse(text: &str) -> Self {
        let mut said = Self::default();
        for line in text.lines() {
            match line.split(' ').collect::<Vec<_>>().as_slice() {
                ["ok", task, batch] => {
                    let (task, batch) = (task.parse().unwrap(), batch.parse().unwrap());
                    let before = said.acknowledged.insert(task, batch).unwrap_or(0);
                    assert_eq!(before + 1, batch, "batches of a task are acknowledged in order");
                    said.count += 1;
                    said.is_acknowledged_after_failure |= !said.failures.is_empty();
                }
                ["failed", _, _, kind, ..] => said.failures.push((*kind).to_owned()),
                ["poisoned", ..] => said.is_poisoned = true,
                _ => panic!("the writer said {line:?}"),
            }
        }
        said
    }
}

/// Opens the file again and checks it against what was acknowledged: nothing is lost, no batch is there in part, versions
/// are gapless, positions grow, state and events are of one commit. Returns how many batches it found.
pub(crate) fn verify(file: &Path, tasks: usize, acknowledged: &BTreeMap<u64, u64>) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = SqliteStore::open(file).unwrap();
        let mut batches = 0;
        for task in 0..tasks as u64 {
            let found = batches_of(&store, task).await;
            let acknowledged = acknowledged.get(&task).copied().unwrap_or(0);
            assert!(found >= acknowledged, "LOST {} batches of task {task}", acknowledged - found);
            assert!(found <= acknowledged + 1, "task {task} has {found}, acknowledged {acknowledged}");
            batches += usize::try_from(found).unwrap();
        }
        let receipt = store.commit(purista_events::batch::Batch::new(fresh_id(), None)).await.unwrap();
        assert_eq!(receipt.position, *store.head().borrow());
        store.close().await.unwrap();
        let connection = rusqlite::Connection::open(file).unwrap();
        let sound: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(sound, "ok");
        check_projection(&connection);
        batches
    })
}

/// Whatever the moment of the crash: the read model holds each event up to its checkpoint once, and none beyond it. Returns
/// whether all are in it; `None` when it was not made yet.
pub(crate) fn check_projection(connection: &rusqlite::Connection) -> Option<bool> {
    let position: Option<i64> =
        connection.query_row("SELECT max(position) FROM projections", [], |row| row.get(0)).unwrap();
    let position = position?;
    let wrong: i64 = connection
        .query_row(
            "SELECT count(*) FROM (
                 SELECT value AS task, count(*) AS count FROM tags WHERE name = 'task' AND position <= ?1 GROUP BY value
             ) AS expected FULL JOIN counted USING (task) WHERE expected.count IS NOT counted.count",
            [position],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(wrong, 0, "the read model is not what the events up to {position} make of it");
    let head: i64 =
        connection.query_row("SELECT coalesce(max(position), 0) FROM events", [], |row| row.get(0)).unwrap();
    Some(position >= head)
}

fn fresh_id() -> purista_core::id::Id {
    purista_core::clock::Clock::system().id()
}

async fn batches_of(store: &SqliteStore, task: u64) -> u64 {
    let query = Query::tag("task", Text::from(task.to_string())).of_tenant(None);
    let (events, _) = crate::given::view(store, &query).await.unwrap();
    let mut last = (0, 0, 0);
    for (version, event) in (1..).zip(&events) {
        assert_eq!(event.stream_version, Some(version), "versions are gapless");
        let body: Value = serde_json::from_slice(&event.body).unwrap();
        let part = |name: &str| body[name].as_u64().unwrap();
        let (batch, index, of) = (part("batch"), part("index"), part("of"));
        match last {
            (before, at, size) if at == size => assert_eq!((batch, index), (before + 1, 1)),
            (before, at, size) => assert_eq!((batch, index, of), (before, at + 1, size)),
        }
        last = (batch, index, of);
    }
    let (batch, index, of) = last;
    assert_eq!(index, of, "batch {batch} of task {task} is there in part");
    let positions: Vec<_> = events.iter().map(|event| event.position).collect();
    assert!(positions.is_sorted_by(|a, b| a < b));
    let key = format!("task-{task}");
    let state = store.state(None, std::slice::from_ref(&key)).await.unwrap();
    let state = state.get(&key).map(|found| (found.value.as_u64().unwrap(), found.version));
    assert_eq!(state, (batch > 0).then_some((batch, batch)), "state and events are of one commit");
    batch
}
