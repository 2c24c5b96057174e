//! Waits until a program has made a read model anew, and shows how far it is.

use std::time::{Duration, Instant};

use purista_events::position::Position;
use purista_events::read_models::BuildRecord;
use purista_sqlite::store::SqliteStore;
use serde_json::json;

use crate::opening::{self, Location};
use crate::progress::{Line, far};
use crate::screen::{Screen, plain, remark};

/// How often it looks.
const LOOK: Duration = Duration::from_millis(200);

/// What is waited for: that readers see a build after this one.
pub(crate) struct Awaited {
    pub(crate) name: String,
    pub(crate) version: u32,
    pub(crate) after: u32,
}

/// Where it is.
enum Seen {
    /// No program has begun.
    Nothing { is_running: Option<bool> },
    /// It is being made, or stands before an event.
    Making { position: Position, head: Position, pause: Option<String> },
    /// The program ended before it was done.
    Left { position: Position, head: Position },
    /// Readers see it.
    Done { position: Position },
}

/// Waits until it is done, or for Ctrl-C.
pub(crate) async fn watch(location: &Location, awaited: Awaited, screen: &mut Screen) -> anyhow::Result<()> {
    let mut progress = Progress::new();
    let mut ended = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        let seen = tokio::select! {
            biased;
            ended = &mut ended => {
                progress.line.end();
                remark("the wait is ended; what was asked for stays asked for");
                return Ok(ended?);
            }
            seen = look(location, &awaited) => seen?,
        };
        if let Seen::Done { position } = seen {
            progress.line.end();
            let Awaited { name, version, .. } = awaited;
            let sentence =
                format!("{name} {version} is made anew: readers see it, up to position {position}");
            return screen
                .say(&sentence, &json!({ "projection": name, "version": version, "doneUpTo": position }));
        }
        progress.tell(&seen, &awaited);
        tokio::select! {
            ended = &mut ended => {
                progress.line.end();
                remark("the wait is ended; what was asked for stays asked for");
                return Ok(ended?);
            }
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// Whether its program runs: whoever uses a database is not known.
pub(crate) fn is_running(location: &Location) -> anyhow::Result<Option<bool>> {
    Ok(match location {
        Location::File(file) => Some(SqliteStore::owner(file)?.is_some()),
        Location::Postgres(_) => None,
    })
}

async fn look(location: &Location, awaited: &Awaited) -> anyhow::Result<Seen> {
    // Opened anew each time: in between a program may begin to own it.
    let is_running = is_running(location)?;
    let store = opening::read(location).await?;
    let builds = store.builds().await?;
    let head = *store.head().borrow();
    store.close().await?;
    let is_awaited = |record: &&BuildRecord| {
        let build = &record.build;
        *build.name == *awaited.name && build.version == awaited.version && build.generation > awaited.after
    };
    Ok(match builds.iter().rfind(is_awaited) {
        None => Seen::Nothing { is_running },
        Some(record) if record.is_current => Seen::Done { position: record.position },
        Some(BuildRecord { position, .. }) if is_running == Some(false) => {
            Seen::Left { position: *position, head }
        }
        Some(BuildRecord { position, pause, .. }) => {
            let pause = pause.as_ref().map(|pause| format!("paused before {}: {}", pause.at, pause.reason));
            Seen::Making { position: *position, head, pause }
        }
    })
}

/// What was told, and since when it is counted.
struct Progress {
    line: Line,
    began: Option<(Instant, Position)>,
}

impl Progress {
    fn new() -> Self {
        Self { line: Line::new(), began: None }
    }

    fn tell(&mut self, seen: &Seen, awaited: &Awaited) {
        let Awaited { name, version, .. } = awaited;
        let text = match seen {
            Seen::Nothing { is_running: Some(false) } => {
                "waiting for its program to start; Ctrl-C ends the wait".to_owned()
            }
            Seen::Nothing { is_running: None } => {
                "waiting for one of its programs to start; Ctrl-C ends the wait".to_owned()
            }
            Seen::Nothing { is_running: Some(true) } => {
                "a program has the file open and has not begun; does it run this version?".to_owned()
            }
            Seen::Making { pause: Some(pause), .. } => pause.clone(),
            Seen::Making { position, head, pause: None } => {
                let (since, first) = *self.began.get_or_insert((Instant::now(), *position));
                let (position, head) = (position.number(), head.number());
                let taken = position.saturating_sub(first.number());
                self.line.share(position, head, (taken, since.elapsed()))
            }
            Seen::Left { position, head } => {
                // What it does later is counted anew.
                self.began = None;
                let share = far(position.number(), head.number());
                format!(
                    "its program ended at {share} %, and goes on when it starts next; Ctrl-C ends the wait"
                )
            }
            Seen::Done { .. } => return,
        };
        self.line.show(&plain(&format!("{name} {version}: {text}")), matches!(seen, Seen::Making { .. }));
    }
}
