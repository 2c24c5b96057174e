//! `purista store`: the file itself.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use purista_events::position::Position;
use purista_events::read_models::ReadModels as _;
use purista_events::store::EventStore as _;
use purista_sqlite::store::SqliteStore;
use serde_json::json;

use crate::screen::{Screen, counted, number, time};
use crate::table::{Column, Table, pairs};
use crate::{backup, check, opening};

#[derive(Debug, Subcommand)]
pub(crate) enum Store {
    /// Show what the file holds, and who has it open.
    Info,
    /// Look through the whole file, and name what is not as it was written. Exits with 1 when there is anything.
    ///
    /// Its pages; the checksum of each event; whether positions, times and the versions of each stream follow each other;
    /// whether bodies are JSON, and indices and counts agree with the log. Whether a program can decode its events is the
    /// program's to check: its types are not in the file.
    Check,
    /// Copy the store into a new file, as it is at one moment, also while a program writes.
    Backup {
        /// The new file.
        to: PathBuf,
        /// Replace a file of that name.
        #[arg(long)]
        force: bool,
    },
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
pub(crate) async fn run(file: &Path, what: Store, screen: &mut Screen) -> anyhow::Result<u8> {
    if let Store::Snapshots { what: Some(Snapshots::Forget { which }) } = what {
        let within = "leave them: `EventStore::forget_snapshots` does it within the program";
        let store = opening::own(file, "forget snapshots", within).await?;
        forget(&store, which.name.as_deref(), screen).await?;
        store.close().await?;
        return Ok(crate::DONE);
    }
    let store = opening::read(file)?;
    let is_sound = match what {
        Store::Info => info(&store, file, screen).await.map(|()| true),
        Store::Check => check::run(&store, screen).await,
        Store::Backup { to, force } => backup::run(&store, file, &to, force, screen).await.map(|()| true),
        Store::Snapshots { .. } => snapshots(&store, screen).await.map(|()| true),
    }?;
    store.close().await?;
    Ok(if is_sound { crate::DONE } else { crate::FAILED })
}

async fn info(store: &SqliteStore, file: &Path, screen: &mut Screen) -> anyhow::Result<()> {
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

async fn snapshots(store: &SqliteStore, screen: &mut Screen) -> anyhow::Result<()> {
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

async fn forget(store: &SqliteStore, name: Option<&str>, screen: &mut Screen) -> anyhow::Result<()> {
    let count = store.forget_snapshots(name).await?;
    let of = name.map(|name| format!(" of `{name}`")).unwrap_or_default();
    let sentence = format!("{}{of} forgotten", counted(count, "snapshot", "snapshots"));
    screen.say(&sentence, &json!({ "name": name, "forgotten": count }))
}
