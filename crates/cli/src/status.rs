//! `purista store migrate`, `status` and `info` of a database: its tables, a copy into it, who holds followers back.

use purista_core::lag::Holder;
use purista_events::position::Position;
use purista_events::query::Query;
use purista_events::read_models::ReadModels as _;
use purista_events::store::{Direction, EventStore as _};
use purista_postgres::migrations::Migration;
use purista_postgres::status::Status;
use purista_postgres::store::PostgresStore;
use serde_json::{Value, json};

use crate::check;
use crate::opening::{Database, Location, not_connected};
use crate::refusal::Refusal;
use crate::screen::{Screen, counted, duration, number, time};
use crate::table::{Column, Table, pairs};

/// How many events are counted: more are "at least so many".
const COUNTED_MAX: u64 = 1_000_000;

fn database<'l>(location: &'l Location, what: &str, remedy: &str) -> anyhow::Result<&'l Database> {
    match location {
        Location::Postgres(database) => Ok(database),
        Location::File(_) => Err(Refusal::error(
            format!("{what} is for a database"),
            format!("name it with `--store postgres://user@host/database` or in PURISTA_STORE; {remedy}"),
        )),
    }
}

/// Makes the tables.
pub(crate) async fn migrate(location: &Location, screen: &mut Screen) -> anyhow::Result<()> {
    let of_a_file = "a file is brought up to date when its program starts";
    let database = database(location, "`migrate`", of_a_file)?;
    let made = database.migrating().migrate().await.map_err(not_connected)?;
    let step = |Migration { number, name, .. }: &Migration| format!("{number} {name}");
    let sentence = if made.is_empty() {
        "all tables are there, nothing was changed".to_owned()
    } else {
        format!("made: {}", made.iter().map(step).collect::<Vec<_>>().join(", "))
    };
    let made: Vec<Value> =
        made.iter().map(|step| json!({ "number": step.number, "name": step.name })).collect();
    screen.say(&sentence, &json!({ "made": made }))
}

/// Shows how far the tables are, and what stands in the way.
pub(crate) async fn show(location: &Location, screen: &mut Screen) -> anyhow::Result<()> {
    let of_a_file = "of a file `purista store info` shows what there is";
    let database = database(location, "`status`", of_a_file)?;
    let status = database.builder().status().await.map_err(not_connected)?;
    let is_usable = status.migrations.iter().all(|(_, made)| made.is_some())
        && status.unknown == 0
        && status.copy.as_ref().is_none_or(|copy| copy.is_finished);
    let holders = if is_usable {
        let store = database.open().await?;
        let holders = store.holders().await?;
        store.close().await?;
        holders
    } else {
        Vec::new()
    };
    if screen.is_json() {
        screen.json(&status_json(&status, &holders))
    } else {
        lines(&status, &holders, screen)
    }
}

fn status_json(status: &Status, holders: &[Holder]) -> Value {
    let step = |(step, made): &(Migration, Option<jiff::Timestamp>)| json!({ "number": step.number, "name": step.name, "madeAt": made });
    let copy = |copy: &purista_postgres::copying::CopyState| json!({ "origin": copy.origin, "reached": copy.reached, "isFinished": copy.is_finished });
    let holder = |holder: &Holder| {
        json!({
            "pid": holder.pid,
            "prepared": holder.prepared,
            "user": holder.user,
            "application": holder.application,
            "database": holder.database,
            "state": holder.state,
            "seconds": holder.age.as_secs_f64(),
        })
    };
    json!({
        "database": status.place,
        "migrations": status.migrations.iter().map(step).collect::<Vec<_>>(),
        "unknownMigrations": status.unknown,
        "copy": status.copy.as_ref().map(copy),
        "holders": holders.iter().map(holder).collect::<Vec<_>>(),
    })
}

fn lines(status: &Status, holders: &[Holder], screen: &mut Screen) -> anyhow::Result<()> {
    screen.heading(&status.place)?;
    let mut table = Table::new([Column::Right("STEP"), Column::Left("BRINGS"), Column::Left("MADE AT")]);
    for (step, made) in &status.migrations {
        let made = made.map_or_else(|| "not yet: `purista store migrate` makes it".to_owned(), time);
        table.row([step.number.to_string(), step.name.to_owned(), made]);
    }
    table.print(screen)?;
    if status.unknown > 0 {
        let steps = counted(status.unknown.into(), "step", "steps");
        screen.line(&format!("{steps} more that this program does not know: a newer one made them"))?;
    }
    match &status.copy {
        None => {}
        Some(copy) if copy.is_finished => {
            screen.line(&format!("copied from the log {}, up to position {}", copy.origin, copy.reached))?;
        }
        Some(copy) => screen.line(&format!(
            "a copy of the log {} is not finished: it is at position {}, and `purista store copy` goes on with it",
            copy.origin, copy.reached
        ))?,
    }
    let mut table = Table::new([
        Column::Left("TRANSACTION"),
        Column::Left("USER"),
        Column::Left("APPLICATION"),
        Column::Left("DATABASE"),
        Column::Left("STATE"),
        Column::Left("AGE"),
        Column::Left("ENDED BY"),
    ]);
    for holder in holders {
        let transaction =
            holder.prepared.as_ref().map_or_else(|| format!("pid {}", holder.pid), |gid| format!("'{gid}'"));
        table.row([
            transaction,
            holder.user.clone(),
            holder.application.clone(),
            holder.database.clone(),
            holder.state.clone(),
            duration(holder.age),
            holder.remedy(),
        ]);
    }
    if !table.is_empty() {
        screen
            .line("blocking transactions: what was recorded after them is not delivered before they end")?;
    }
    Ok(table.print(screen)?)
}

/// Shows what a database holds.
pub(crate) async fn info(store: &PostgresStore, screen: &mut Screen) -> anyhow::Result<()> {
    let head = *store.head().borrow();
    let forms = store.forms().await?;
    let events = store.count(&Query::all(), Position::START, head, COUNTED_MAX).await?;
    let first = store.read(&Query::all(), Position::START, Direction::Forwards, 1).await?;
    let first = first.first().map(|event| event.recorded_at);
    let last = store.recorded_at(head).await?;
    let subscriptions = store.subscriptions().await?.len();
    let builds = store.builds().await?.len();
    let dead = store.count_dead_letters(None).await?;
    let snapshots: u64 = store.snapshots().await?.iter().map(|group| group.count).sum();
    let bytes = store.size().await?;
    if screen.is_json() {
        return screen.json(&json!({
            "database": store.place(),
            "bytes": bytes,
            "origin": store.origin().as_ref(),
            "head": head,
            "events": events.events,
            "isCountedToItsEnd": !events.is_at_least,
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
    let more = if events.is_at_least { "+" } else { "" };
    pairs(
        screen,
        &[
            ("store", store.place()),
            ("size", format!("{} bytes", number(bytes))),
            ("origin", store.origin().to_string()),
            ("events", format!("{}{more}, up to position {head}", number(events.events))),
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
