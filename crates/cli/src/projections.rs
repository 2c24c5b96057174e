//! `purista projections`: how far read models are, stopping them, and asking for them to be made anew.

use clap::{Args, Subcommand};
use jiff::Timestamp;
use purista_core::clock::Clock;
use purista_events::batch::Batch;
use purista_events::lag::Lag;
use purista_events::position::Position;
use purista_events::projector::request;
use purista_events::projector::sink::CHECKPOINTS;
use purista_events::query::Query;
use purista_events::read_models::{BuildPause, BuildRecord};
use purista_events::subscriptions::{Pause, SubscriptionId};
use serde_json::{Value, json};

use crate::engine::Engine;
use crate::opening::Location;
use crate::refusal::Refusal;
use crate::screen::{Screen, duration, number, time};
use crate::table::{Column, Table};
use crate::{opening, waiting};

/// How a running program resumes by itself.
const RESUME_WITHIN: &str =
    "have the program do it: `RunningHost::projection(name)` gives a handle that can `resume`";
const PAUSE_WITHIN: &str =
    "wait for it to end: a program pauses a projection only at an event that it cannot take in";
/// How a running program does it by itself.
const REBUILD_WITHIN: &str =
    "have the program do it: `RunningHost::projection(name)` gives a handle that can `rebuild`";

#[derive(Debug, Subcommand)]
pub(crate) enum Projections {
    /// List them with their builds: how far each is, and whether readers see it.
    ///
    /// BEHIND counts all events after its place, since which of them it takes in is known to its program alone: it is so far
    /// behind at most. Projections that live in memory keep nothing but snapshots: see `purista store snapshots`.
    List,
    /// Ask for a read model to be made anew, from the first event on.
    ///
    /// The handlers of a projection live in its program, so the request is kept in the file, and the program begins with it
    /// when it starts next: beside the read model that readers see, which it replaces when it has caught up.
    Rebuild {
        #[command(flatten)]
        which: Which,
        /// Wait until it is done, and show how far it is. The request stays when the wait is ended.
        #[arg(long, conflicts_with = "withdraw")]
        wait: bool,
        /// Take the request back.
        #[arg(long)]
        withdraw: bool,
    },
    /// Stop one: its program will not run it until it is resumed.
    Pause {
        #[command(flatten)]
        which: Which,
        /// Why, for whoever finds it paused.
        #[arg(long, default_value = "paused on the command line", value_name = "TEXT")]
        reason: String,
    },
    /// Let one go on that is paused: its program tries the event before which it stands when it starts next.
    Resume {
        #[command(flatten)]
        which: Which,
    },
}

/// Which projection.
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// Its name.
    name: String,
    /// Its version, where the file holds several.
    #[arg(long = "version", value_name = "NUMBER")]
    version: Option<u32>,
}

pub(crate) async fn run(location: &Location, what: Projections, screen: &mut Screen) -> anyhow::Result<()> {
    match what {
        Projections::List => {
            let store = opening::read(location).await?;
            list(&*store, screen).await?;
            store.close().await?;
        }
        Projections::Rebuild { which, wait, withdraw } => {
            rebuild(location, &which, (wait, withdraw), screen).await?;
        }
        Projections::Pause { which, reason } => {
            let store = opening::own(location, "pause a projection", PAUSE_WITHIN).await?;
            let found = named(&*store, &which).await?;
            pause(&*store, &found, Some(reason), screen).await?;
            opening::remark_on_programs(&*store);
            store.close().await?;
        }
        Projections::Resume { which } => {
            let store = opening::own(location, "resume a projection", RESUME_WITHIN).await?;
            let found = named(&*store, &which).await?;
            pause(&*store, &found, None, screen).await?;
            opening::remark_on_programs(&*store);
            store.close().await?;
        }
    }
    Ok(())
}

/// One version of a projection, as the file keeps it.
pub(crate) struct Kept {
    pub(crate) name: String,
    pub(crate) version: u32,
    place: Place,
}

/// Where its read model is.
enum Place {
    /// In tables of the file.
    Tables(Vec<BuildRecord>),
    /// Outside; the file keeps its checkpoint.
    Outside(SubscriptionId),
}

impl Kept {
    async fn all(store: &dyn Engine) -> anyhow::Result<Vec<Self>> {
        let mut all: Vec<Self> = Vec::new();
        for record in store.builds().await? {
            let (name, version) = (record.build.name.to_string(), record.build.version);
            match all.last_mut() {
                Some(Self { name: last, version: of, place: Place::Tables(builds) })
                    if *last == name && *of == version =>
                {
                    builds.push(record);
                }
                _ => all.push(Self { name, version, place: Place::Tables(vec![record]) }),
            }
        }
        for id in store.subscriptions().await? {
            let Some((name, version)) =
                id.as_str().strip_prefix(CHECKPOINTS).and_then(|it| it.rsplit_once('.'))
            else {
                continue;
            };
            let Ok(version) = version.parse() else { continue };
            all.push(Self { name: name.to_owned(), version, place: Place::Outside(id.clone()) });
        }
        Ok(all)
    }
}

async fn list(store: &dyn Engine, screen: &mut Screen) -> anyhow::Result<()> {
    let now = Clock::system().now();
    let mut table = Table::new([
        Column::Left("PROJECTION"),
        Column::Right("VERSION"),
        Column::Right("BUILD"),
        Column::Right("DONE UP TO"),
        Column::Right("BEHIND"),
        Column::Left("FOR"),
        Column::Left("STATE"),
    ]);
    for kept in Kept::all(store).await? {
        let asked = request::asked_since(store, &kept.name, kept.version).await?;
        for row in rows(store, &kept, asked, now).await? {
            if screen.is_json() {
                screen.json(&row.json())?;
            } else {
                table.row(row.cells());
            }
        }
    }
    if !screen.is_json() && table.is_empty() {
        screen.line(&format!("no projections that keep anything in the {}", store.noun()))?;
    }
    Ok(table.print(screen)?)
}

/// One build, or the checkpoint of a projection into another place.
struct Row {
    name: String,
    version: u32,
    generation: Option<u32>,
    lag: Lag,
    is_current: bool,
    /// Before which event it stands, since when and why.
    pause: Option<(Option<Position>, Timestamp, String)>,
    asked: Option<Timestamp>,
}

async fn rows(
    store: &dyn Engine,
    kept: &Kept,
    asked: Option<Timestamp>,
    now: Timestamp,
) -> anyhow::Result<Vec<Row>> {
    let (name, version) = (&kept.name, kept.version);
    let mut rows = Vec::new();
    match &kept.place {
        Place::Tables(builds) => {
            for BuildRecord { build, position, is_current, pause } in builds.clone() {
                let lag = Lag::measure(store, &Query::all(), position, now, 0.0).await?;
                let pause = pause.map(|pause| (Some(pause.at), pause.since, pause.reason));
                let generation = Some(build.generation);
                let asked = asked.filter(|_| is_current);
                rows.push(Row { name: name.clone(), version, generation, lag, is_current, pause, asked });
            }
        }
        Place::Outside(id) => {
            let record = store.subscription(id).await?.unwrap_or_default();
            let lag = Lag::measure(store, &Query::all(), record.progress.low, now, 0.0).await?;
            let pause = record.pause.map(|pause| (None, pause.since, pause.reason));
            rows.push(Row {
                name: name.clone(),
                version,
                generation: None,
                lag,
                is_current: true,
                pause,
                asked: None,
            });
        }
    }
    Ok(rows)
}

impl Row {
    fn cells(&self) -> Vec<String> {
        let mut state = match (self.generation, self.is_current) {
            (None, _) => "in another place".to_owned(),
            (_, true) => "readers see it".to_owned(),
            (_, false) => "not shown".to_owned(),
        };
        if let Some((at, since, reason)) = &self.pause {
            let at = at.map(|at| format!(" before {at}")).unwrap_or_default();
            state = format!("{state}, paused{at} since {}: {reason}", time(*since));
        }
        if let Some(asked) = self.asked {
            state = format!("{state}, to be made anew: asked for at {}", time(asked));
        }
        let events = self.lag.events;
        let has_more = if events.is_at_least { "+" } else { "" };
        vec![
            self.name.clone(),
            self.version.to_string(),
            self.generation.map_or_else(|| "-".to_owned(), |generation| generation.to_string()),
            self.lag.position.to_string(),
            format!("{}{has_more}", number(events.events)),
            if events.events == 0 { "-".to_owned() } else { duration(self.lag.behind) },
            state,
        ]
    }

    fn json(&self) -> Value {
        let pause = |(at, since, reason): &(Option<Position>, Timestamp, String)| json!({ "before": at, "since": since, "reason": reason });
        json!({
            "projection": self.name,
            "version": self.version,
            "build": self.generation,
            "isInFile": self.generation.is_some(),
            "isCurrent": self.is_current,
            "doneUpTo": self.lag.position,
            "head": self.lag.head,
            "eventsBehindAtMost": self.lag.events.events,
            "isCountedToItsEnd": !self.lag.events.is_at_least,
            "secondsBehind": self.lag.behind.as_secs_f64(),
            "pause": self.pause.as_ref().map(pause),
            "rebuildAskedAt": self.asked,
        })
    }
}

/// The one of this name and version.
async fn named(store: &dyn Engine, which: &Which) -> anyhow::Result<Kept> {
    let all = Kept::all(store).await?;
    let names: Vec<String> = all.iter().map(|kept| format!("{} {}", kept.name, kept.version)).collect();
    let is_meant =
        |kept: &Kept| kept.name == which.name && which.version.is_none_or(|version| version == kept.version);
    let mut meant: Vec<Kept> = all.into_iter().filter(is_meant).collect();
    let version = which.version.map(|version| format!(" of version {version}")).unwrap_or_default();
    match (meant.pop(), meant.len()) {
        (Some(kept), 0) => Ok(kept),
        (Some(_), _) => Err(Refusal::error(
            format!("the {} holds several versions of `{}`: {}", store.noun(), which.name, names.join(", ")),
            "say which one with `--version NUMBER`",
        )),
        (None, _) => Err(Refusal::error(
            format!("the {} knows no projection `{}`{version}", store.noun(), which.name),
            if names.is_empty() {
                "it knows none: a program makes them known when it runs them first".to_owned()
            } else {
                format!("it knows {}", names.join(", "))
            },
        )),
    }
}

async fn pause(
    store: &dyn Engine,
    kept: &Kept,
    reason: Option<String>,
    screen: &mut Screen,
) -> anyhow::Result<()> {
    let clock = Clock::system();
    let since = clock.now();
    let mut has_changed = false;
    match &kept.place {
        Place::Tables(builds) => {
            for record in builds {
                if record.pause.is_some() == reason.is_some() {
                    continue;
                }
                let at = record.position.next();
                let pause = reason.clone().map(|reason| BuildPause { at, since, reason });
                store.pause_build(record.clone(), pause).await?;
                has_changed = true;
            }
        }
        Place::Outside(id) => {
            let is_paused = store.subscription(id).await?.unwrap_or_default().pause.is_some();
            if is_paused != reason.is_some() {
                let mut batch = Batch::new(clock.id(), None);
                let pause = reason.clone().map(|reason| Pause { since, reason });
                batch.pauses.push((id.clone(), pause));
                opening::commit(store, batch).await?;
                has_changed = true;
            }
        }
    }
    let Kept { name, version, .. } = kept;
    let sentence = match (reason.is_some(), has_changed) {
        (true, true) => {
            format!("{name} {version} is paused: its program will not run it until it is resumed")
        }
        (true, false) => format!("{name} {version} is paused already; `purista projections list` says why"),
        (false, true) => format!("{name} {version} goes on when its program starts next"),
        (false, false) => format!("{name} {version} is not paused"),
    };
    screen.say(&sentence, &json!({ "projection": name, "version": version, "changed": has_changed }))
}

async fn rebuild(
    location: &Location,
    which: &Which,
    (wait, withdraw): (bool, bool),
    screen: &mut Screen,
) -> anyhow::Result<()> {
    // Beside the program of a file nothing can be asked for; but what a program does already can be watched.
    if wait && let Some(under_way) = under_way(location, which).await? {
        return waiting::watch(location, under_way, screen).await;
    }
    let what = if withdraw { "take a request back" } else { "ask for a projection to be made anew" };
    let store = opening::own(location, what, REBUILD_WITHIN).await?;
    let kept = named(&*store, which).await?;
    let Kept { name, version, place } = &kept;
    let Place::Tables(builds) = place else {
        return Err(Refusal::error(
            format!("{name} {version} is kept in another place, which only its program can empty"),
            "raise its version in the program: another version begins at the first event",
        ));
    };
    let clock = Clock::system();
    if withdraw {
        let was_asked = request::asked_since(&*store, name, *version).await?.is_some();
        request::withdraw(&*store, &clock, name, *version).await?;
        store.close().await?;
        let sentence = if was_asked {
            format!("{name} {version} is not made anew when its program starts next")
        } else {
            format!("nobody asked for {name} {version} to be made anew")
        };
        return screen
            .say(&sentence, &json!({ "projection": name, "version": version, "changed": was_asked }));
    }
    request::ask(&*store, &clock, name, *version).await?;
    let before = newest(builds);
    // Of a file there is one program, of a database there may be several.
    let who = if store.heard_by_programs().is_some() { "a program" } else { "the program" };
    store.close().await?;
    let sentence = format!(
        "asked for: {who} makes {name} {version} anew when it starts next, beside what readers see until then"
    );
    screen.say(&sentence, &json!({ "projection": name, "version": version, "isAskedFor": true }))?;
    if wait {
        screen.flush()?;
        let awaited = waiting::Awaited { name: name.clone(), version: *version, after: before };
        waiting::watch(location, awaited, screen).await?;
    }
    Ok(())
}

fn newest(builds: &[BuildRecord]) -> u32 {
    builds.iter().map(|record| record.build.generation).max().unwrap_or(0)
}

/// The build that a running program is making, when there is one.
async fn under_way(location: &Location, which: &Which) -> anyhow::Result<Option<waiting::Awaited>> {
    let store = opening::read(location).await?;
    let kept = named(&*store, which).await?;
    store.close().await?;
    if waiting::is_running(location)? == Some(false) {
        return Ok(None);
    }
    let Place::Tables(builds) = kept.place else { return Ok(None) };
    let current =
        builds.iter().filter(|record| record.is_current).map(|record| record.build.generation).max();
    let after = current.unwrap_or(0);
    let is_under_way = newest(&builds) > after;
    Ok(is_under_way.then_some(waiting::Awaited { name: kept.name, version: kept.version, after }))
}
