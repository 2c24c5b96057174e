//! `purista store check`: whether the file is what was written.

use std::io::IsTerminal as _;

use purista_events::form::Form;
use purista_events::position::Position;
use purista_events::query::Query;
use serde_json::{Value, json};

use crate::engine::Engine;
use crate::screen::{Screen, counted, number, on_one_line};
use crate::table::{Column, Table};

/// Behind everything.
const END: Position = Position::new(u64::MAX);

/// Looks through the whole store. Returns whether it is sound.
pub(crate) async fn run(store: &dyn Engine, screen: &mut Screen) -> anyhow::Result<bool> {
    let forms = store.forms().await?;
    let counted_forms: Option<Vec<u64>> = forms.iter().map(|form| form.count).collect();
    let events = match counted_forms {
        Some(counts) => counts.iter().sum(),
        // An engine that does not count them as they come counts them now.
        None => store.count(&Query::all(), Position::START, END, u64::MAX).await?.events,
    };
    if std::io::stderr().is_terminal() {
        eprintln!("looking through {} ...", counted(events, "event", "events"));
    }
    let findings = store.check().await?;
    let is_sound = findings.is_empty();
    if screen.is_json() {
        let forms: Vec<Value> = forms.iter().map(form_json).collect();
        screen
            .json(&json!({ "isSound": is_sound, "findings": findings, "events": events, "forms": forms }))?;
        return Ok(is_sound);
    }
    let mut table = Table::new([
        Column::Left("TYPE"),
        Column::Right("VERSION"),
        Column::Right("EVENTS"),
        Column::Right("FIRST AT"),
        Column::Right("LAST AT"),
    ]);
    for Form { name, version, count, oldest, newest } in &forms {
        let count = count.map_or_else(|| "-".to_owned(), number);
        table.row([name.to_string(), version.to_string(), count, oldest.to_string(), newest.to_string()]);
    }
    table.print(screen)?;
    for finding in &findings {
        screen.line(&format!("found: {}", on_one_line(finding)))?;
    }
    let events = counted(events, "event", "events");
    screen.line(&if is_sound {
        format!("{events}: everything is as it was written")
    } else {
        let found = counted(u64::try_from(findings.len()).unwrap_or(0), "finding", "findings");
        format!(
            "{events}, {found}: keep this {} as it is, and go back to a backup that `purista store check` finds sound",
            store.noun()
        )
    })?;
    Ok(is_sound)
}

/// A form with its count and the places of two samples.
pub(crate) fn form_json(form: &Form) -> Value {
    json!({
        "type": form.name.as_str(),
        "version": form.version,
        "count": form.count,
        "first": form.oldest,
        "last": form.newest,
    })
}
