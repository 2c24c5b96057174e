//! `purista store`: the file itself.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use purista_events::position::Position;
use purista_events::store::EventStore as _;
use purista_sqlite::store::SqliteStore;
use serde_json::json;

use crate::engine::Engine;
use crate::everywhere::Shared;
use crate::opening::Location;
use crate::screen::{Screen, counted, number, time};
use crate::table::{Column, Table, pairs};
use crate::{backup, check, copy, opening, status};

#[derive(Debug, Subcommand)]
pub(crate) enum Store {
    /// Show what the store holds, and who has a file open.
    Info,
    /// Look through the whole store, and name what is not as it was written. Exits with 1 when there is anything.
    ///
    /// The pages of a file; the checksum of each event; whether positions, times and the versions of each stream follow each other;
    /// whether bodies are JSON, and indices and counts agree with the log. Whether a program can decode its events is the
    /// program's to check: its types are not in the file.
    Check,
    /// Copy a data file into a new one, as it is at one moment, also while a program writes.
    Backup {
        /// The new file.
        to: PathBuf,
        /// Replace a file of that name.
        #[arg(long)]
        force: bool,
    },
    /// Make the data file of `--file` out of a backup, after a look through it. No program may have the file open.
    ///
    /// Never copy a backup over a data file: the write-ahead log and the page checksums next to it belong to what was there.
    Restore {
        /// The backup.
        from: PathBuf,
        /// Replace a store that is there already. Its files are renamed to `<file>.replaced`.
        #[arg(long)]
        force: bool,
    },
    /// Make the tables of a database where they are missing, or bring them up to date.
    ///
    /// A program does the same when it opens the store, unless it may not make tables.
    Migrate,
    /// Show how far the tables of a database are, whether a copy into it is finished, and who holds followers back.
    Status,
    /// Move the log of a data file, with everything that is kept beside it, into an empty database: `--file` to `--store`.
    ///
    /// Events keep their positions, ids and times, subscriptions their progress, replies their keys. Both sides are compared in the
    /// end, and only then the database can be used. A copy that was interrupted goes on where it was. The file stays as it is.
    Copy,
    /// List snapshots, or forget them.
    Snapshots {
        #[command(subcommand)]
        what: Option<Snapshots>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Snapshots {
    /// List them by name and version.
    List,
    /// Forget them: what they hold is folded from its events again, which takes time and changes nothing else.
    Forget {
        #[command(flatten)]
        which: Which,
    },
}

/// Which snapshots.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Which {
    /// Those of this name.
    name: Option<String>,
    /// All of them.
    #[arg(long)]
    all: bool,
}

/// Returns the exit code.
pub(crate) async fn run(shared: &Shared, what: Store, screen: &mut Screen) -> anyhow::Result<u8> {
    let location = &shared.location();
    let is_sound = match what {
        Store::Info => info(location, screen).await.map(|()| true),
        Store::Check => {
            let store = opening::read(location).await?;
            let is_sound = check::run(&*store, screen).await?;
            store.close().await?;
            Ok(is_sound)
        }
        Store::Backup { to, force } => backup::run(location, &to, force, screen).await.map(|()| true),
        Store::Restore { from, force } => {
            backup::restore(location, &from, force, screen).await.map(|()| true)
        }
        Store::Migrate => status::migrate(location, screen).await.map(|()| true),
        Store::Status => status::show(location, screen).await.map(|()| true),
        Store::Copy => copy::run(&shared.file, shared.database(), screen).await,
        Store::Snapshots { what: Some(Snapshots::Forget { which }) } => {
            let within = "leave them: `EventStore::forget_snapshots` does it within the program";
            let store = opening::own(location, "forget snapshots", within).await?;
            forget(&*store, which.name.as_deref(), screen).await?;
            store.close().await?;
            Ok(true)
        }
        Store::Snapshots { .. } => {
            let store = opening::read(location).await?;
            snapshots(&*store, screen).await?;
            store.close().await?;
            Ok(true)
        }
    }?;
    Ok(if is_sound { crate::DONE } else { crate::FAILED })
}

async fn info(location: &Location, screen: &mut Screen) -> anyhow::Result<()> {
    match location {
        Location::File(file) => {
            let store = opening::read_file(file)?;
            info_of_file(&store, file, screen).await?;
            store.close().await?;
        }
        Location::Postgres(database) => {
            let store = database.open().await?;
            status::info(&store, screen).await?;
            store.close().await?;
        }
    }
    Ok(())
}

async fn info_of_file(store: &SqliteStore, file: &Path, screen: &mut Screen) -> anyhow::Result<()> {
    let owner = SqliteStore::owner(file)?;
    let head = *store.head().borrow();
    let forms = store.forms().await?;
    let events: u64 = forms.iter().filter_map(|form| form.count).sum();
    let first = store.recorded_at(Position::new(1)).await?;
    let last = store.recorded_at(head).await?;
    let subscriptions = store.subscriptions().await?.len();
    let builds = store.builds().await?.len();
    let dead = store.count_dead_letters(None).await?;
    let snapshots: u64 = store.snapshots().await?.iter().map(|group| group.count).sum();
    let bytes = std::fs::metadata(file)?.len();
    let form = store.form_of_file().await?;
    if screen.is_json() {
        return screen.json(&json!({
            "file": file.display().to_string(),
            "bytes": bytes,
            "form": form,
            "origin": store.origin().as_ref(),
            "openIn": owner,
            "head": head,
            "events": events,
            "firstRecordedAt": first,
            "lastRecordedAt": last,
            "forms": forms.iter().map(check::form_json).collect::<Vec<_>>(),
            "subscriptions": subscriptions,
            "builds": builds,
            "deadLetters": dead,
            "snapshots": snapshots,
        }));
    }
    let span = match (first, last) {
        (Some(first), Some(last)) => format!("{} to {}", time(first), time(last)),
        _ => "-".to_owned(),
    };
    let count = |count: usize| number(u64::try_from(count).unwrap_or(0));
    pairs(
        screen,
        &[
            ("file", file.display().to_string()),
            ("size", format!("{} bytes", number(bytes))),
            ("form", form.to_string()),
            ("origin", store.origin().to_string()),
            ("open in", owner.unwrap_or_else(|| "no program".to_owned())),
            ("events", format!("{}, up to position {head}", number(events))),
            ("recorded", span),
            ("types", count(forms.len())),
            ("subscriptions", count(subscriptions)),
            ("projections", counted(u64::try_from(builds).unwrap_or(0), "build", "builds")),
            ("dead letters", number(dead)),
            ("snapshots", number(snapshots)),
        ],
    )?;
    Ok(())
}

async fn snapshots(store: &dyn Engine, screen: &mut Screen) -> anyhow::Result<()> {
    let mut table = Table::new([
        Column::Left("SNAPSHOTS OF"),
        Column::Right("VERSION"),
        Column::Right("COUNT"),
        Column::Left("NEWEST"),
    ]);
    for group in store.snapshots().await? {
        if screen.is_json() {
            let (name, newest) = (group.name.as_str(), group.newest);
            screen.json(
                &json!({ "name": name, "version": group.version, "count": group.count, "newest": newest }),
            )?;
        } else {
            let version = group.version.to_string();
            table.row([group.name.to_string(), version, number(group.count), time(group.newest)]);
        }
    }
    if !screen.is_json() && table.is_empty() {
        screen.line("no snapshots")?;
    }
    Ok(table.print(screen)?)
}

async fn forget(store: &dyn Engine, name: Option<&str>, screen: &mut Screen) -> anyhow::Result<()> {
    let count = store.forget_snapshots(name).await?;
    let of = name.map(|name| format!(" of `{name}`")).unwrap_or_default();
    let sentence = format!("{}{of} forgotten", counted(count, "snapshot", "snapshots"));
    screen.say(&sentence, &json!({ "name": name, "forgotten": count }))
}
