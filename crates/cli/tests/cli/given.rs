//! A data file with a bit of everything, always the same: times and ids are the test's.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use garde::Validate;
use jiff::Timestamp;
use purista_core::address::{Address, ServiceId};
use purista_core::clock::{Clock, Source};
use purista_core::event::{Event, Tags};
use purista_core::id::Id;
use purista_core::message::Party;
use purista_core::text::Text;
use purista_events::batch::{Append, Batch, Condition};
use purista_events::position::Position;
use purista_events::projector::{Projected, ProjectionHandle};
use purista_events::query::Query;
use purista_events::recorded::{Cause, NewEvent, Recorded};
use purista_events::snapshot::{Snapshot, SnapshotKey};
use purista_events::store::EventStore as _;
use purista_events::subscriptions::{
    DeadLetter, DeadLetterSource, Failure, Parked, ParkedChange, ProgressChange, SubscriptionId,
};
use purista_sqlite::read_models::projection;
use purista_sqlite::store::SqliteStore;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// A folder that goes away with its test.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        let path = std::env::temp_dir().join(format!("purista-cli-{}", Clock::system().id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// A folder with [`write`]'s file in it, which nobody has open.
    pub(crate) async fn with_file() -> Self {
        let folder = Self::new();
        write(&folder.file()).await.close().await.unwrap();
        folder
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.0.join("app.db")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What a user is called; the form that the projection reads.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[garde(allow_unvalidated)]
pub(crate) struct Joined {
    pub(crate) user: String,
    pub(crate) name: String,
}

impl Event for Joined {
    const NAME: &'static str = "joined";
    fn tags(&self) -> Tags {
        Tags::new().with("user", &self.user)
    }
}

/// Seconds and ids are counted.
#[derive(Clone)]
pub(crate) struct Steps(Arc<[AtomicU64; 2]>);

impl Source for Steps {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(self.0[0].load(Ordering::Relaxed).try_into().unwrap()).unwrap()
    }

    fn random(&self) -> u128 {
        (0x0a11 << 64) + u128::from(self.0[1].fetch_add(1, Ordering::Relaxed))
    }
}

impl Steps {
    fn new() -> Self {
        Self(Arc::new([AtomicU64::new(0), AtomicU64::new(1)]))
    }

    fn at(&self, time: &str) {
        let seconds = time.parse::<Timestamp>().unwrap().as_second();
        self.0[0].store(seconds.try_into().unwrap(), Ordering::Relaxed);
    }
}

pub(crate) fn id(number: u128) -> Id {
    Id::from_random((0xe << 124) + number)
}

/// One event as a batch; its id is that of its number.
pub(crate) fn happened(
    number: u128,
    (tenant, principal): (Option<&str>, Option<&str>),
    (name, target): (&'static str, &'static str),
    (user, body): (&str, &str),
) -> Batch {
    let caused = (number == 3).then(|| id(0xcab));
    let event = NewEvent {
        id: id(number),
        name: Text::known(name),
        version: 1,
        tags: Tags::new().with("user", user),
        body: body.to_owned().into(),
        cause: Cause {
            sender: Party::anywhere(Address::of(ServiceId::new("User", "1"), target)),
            principal_id: principal.map(Into::into),
            trace_id: id(0x77),
            trace: None,
            correlation_id: caused.clone(),
            causation_id: caused,
            hops: 1,
        },
    };
    let mut batch = Batch::new(Clock::system().id(), tenant.map(Into::into));
    batch.appends.push(Append { events: vec![event], condition: Condition::Always });
    batch
}

/// Users who join, rename and leave; a subscription that is behind, a relay, dead letters, a projection, a snapshot.
pub(crate) async fn write(file: &Path) -> SqliteStore {
    let steps = Steps::new();
    steps.at("2026-03-01T09:59:59Z");
    let store = SqliteStore::builder(file).clock(Clock::new(steps.clone())).open().unwrap();
    let (ada, bob) = ((Some("acme"), Some("ada")), (Some("acme"), Some("bob")));
    for (time, batch) in [
        (
            "2026-03-01T10:00:00Z",
            happened(1, ada, ("joined", "signUp"), ("42", r#"{"user":"42","name":"Ada"}"#)),
        ),
        (
            "2026-03-01T10:05:00Z",
            happened(2, bob, ("joined", "signUp"), ("43", r#"{"user":"43","name":"Bob"}"#)),
        ),
        (
            "2026-03-02T09:00:00Z",
            happened(
                3,
                ada,
                ("renamed", "updateProfile"),
                ("42", r#"{"user":"42","old":"Ada","new":"Ada L."}"#),
            ),
        ),
        (
            "2026-03-02T09:30:00Z",
            happened(4, (None, None), ("joined", "signUp"), ("44", r#"{"user":"44","name":"Eve"}"#)),
        ),
        ("2026-03-03T12:00:00Z", happened(5, bob, ("left", "leave"), ("43", r#"{"user":"43"}"#))),
    ] {
        steps.at(time);
        store.commit(batch).await.unwrap();
    }
    let (working, running) = run(store.projected(names()));
    running.reached(Position::new(5), Duration::from_secs(20)).await.unwrap();
    working.stop().await;
    deliver(&store).await;
    let key = SnapshotKey::of(None, Text::known("profile"), 2, &Query::all());
    let taken_at = "2026-03-03T12:00:00Z".parse().unwrap();
    let snapshot = Snapshot { key, position: Position::new(3), taken_at, body: "{}".into() };
    store.save_snapshot(snapshot).await.unwrap();
    store
}

/// What is kept for subscriptions.
async fn deliver(store: &SqliteStore) {
    let (email, relay) =
        (SubscriptionId::new("Email.1.sendWelcomeEmail"), SubscriptionId::new("purista.relay"));
    let audit = SubscriptionId::new("Audit.1.note");
    let failure = |attempt| Failure {
        at: "2026-03-01T10:06:00Z".parse().unwrap(),
        attempt,
        reason: "connect to smtp.example:25: refused".to_owned(),
    };
    let letter = |number, subscription: &SubscriptionId, source| DeadLetter {
        id: id(number),
        subscription: subscription.clone(),
        source,
        at: "2026-03-01T10:07:00Z".parse().unwrap(),
        reason: "given up after 2 attempts".to_owned(),
        attempts: 2,
        trace_id: id(0x77),
        history: vec![failure(1), failure(2)],
    };
    let mut batch = Batch::new(Clock::system().id(), None);
    let done = |subscription: &SubscriptionId, up_to| ProgressChange {
        subscription: subscription.clone(),
        up_to: Some(Position::new(up_to)),
        done: None,
    };
    batch.progress = vec![done(&email, 3), done(&relay, 5)];
    batch.parked.push(ParkedChange::Keep(Parked {
        subscription: email.clone(),
        position: Position::new(3),
        attempts: 1,
        key: None,
        due: None,
        history: vec![failure(1)],
    }));
    let message = r#"{"id":"m-1","payload":{"what":"it"}}"#;
    batch.dead_letters = vec![
        letter(0xd1, &email, DeadLetterSource::Event(Position::new(2))),
        letter(0xd2, &audit, DeadLetterSource::Message(message.into())),
    ];
    store.commit(batch).await.unwrap();
}

pub(crate) fn names() -> purista_events::projection::Projection<purista_sqlite::tx::Tx> {
    projection("names", 1)
        .set_up(|tx| tx.create_table("names", "user TEXT PRIMARY KEY, name TEXT NOT NULL"))
        .on(|tx, event: Recorded<Joined>| {
            let sql = "INSERT INTO {names} (user, name) VALUES (?1, ?2)";
            tx.execute(sql, (&event.body.user, &event.body.name))?;
            Ok(())
        })
}

/// The same in the other engine's SQL.
pub(crate) fn names_on_postgres() -> purista_events::projection::Projection<purista_postgres::tx::Tx> {
    purista_postgres::read_models::projection("names", 1)
        .set_up(|tx| tx.create_table("names", "\"user\" text PRIMARY KEY, name text NOT NULL"))
        .on(|tx, event: Recorded<Joined>| {
            let sql = "INSERT INTO {names} (\"user\", name) VALUES ($1, $2)";
            tx.execute(sql, &[&event.body.user, &event.body.name])?;
            Ok(())
        })
}

/// A projection that is run.
pub(crate) struct Working {
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl Working {
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.tasks.join_all().await;
    }
}

pub(crate) fn run(projected: Projected) -> (Working, ProjectionHandle) {
    let (stop, handle) = (CancellationToken::new(), projected.handle());
    let mut tasks = JoinSet::new();
    tasks.spawn(projected.run(stop.clone(), Clock::system()));
    (Working { tasks, stop }, handle)
}
