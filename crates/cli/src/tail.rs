//! `purista events tail`: events as they come, also from another process.

use std::time::Duration;

use purista_events::position::Position;
use purista_events::query::Query;
use purista_events::recorded::Recorded;
use purista_events::store::Direction;
use serde_json::json;

use crate::engine::Engine;
use crate::screen::Screen;
use crate::shown::{self, Shown};
use crate::table::Table;

/// How long it waits before it looks again: another process does not say when it has written.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// How many events it holds.
const PAGE: usize = 256;

/// With which events it begins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Start {
    /// With this one; else with the newest.
    pub(crate) from: Option<Position>,
    /// How many of the newest.
    pub(crate) last: usize,
}

/// Follows the log until Ctrl-C.
pub(crate) async fn run(
    store: &dyn Engine,
    query: Query,
    start: Start,
    body: bool,
    screen: &mut Screen,
) -> anyhow::Result<()> {
    let mut ended = std::pin::pin!(tokio::signal::ctrl_c());
    let mut table = shown::table(body);
    let mut at = match start.from {
        Some(from) => from.previous(),
        None => newest(store, &query, start.last, (body, &mut table), screen).await?,
    };
    let mut is_mark_due = true;
    loop {
        let page = tokio::select! {
            // From the first moment on it is this that Ctrl-C ends.
            biased;
            ended = &mut ended => return Ok(ended?),
            page = store.follow(&query, at, PAGE) => page?,
        };
        at = page.looked_up_to.max(at);
        is_mark_due |= !page.events.is_empty();
        show(&page.events, (body, &mut table), screen)?;
        if !page.is_caught_up {
            continue;
        }
        if std::mem::take(&mut is_mark_due) {
            if screen.is_json() {
                screen.json(&json!({ "caughtUp": at }))?;
            } else {
                screen.line(&format!("-- caught up at position {at}, waiting for more; Ctrl-C ends --"))?;
            }
        }
        screen.flush()?;
        tokio::select! {
            ended = &mut ended => return Ok(ended?),
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
    }
}

/// Shows the newest events. Returns up to where they go: what comes later is not forgotten in between.
async fn newest(
    store: &dyn Engine,
    query: &Query,
    last: usize,
    shown: (bool, &mut Table),
    screen: &mut Screen,
) -> anyhow::Result<Position> {
    let head = *store.head().borrow();
    if last == 0 {
        return Ok(head);
    }
    let mut page = store.read(query, head.next(), Direction::Backwards, last).await?;
    page.reverse();
    show(&page, shown, screen)?;
    Ok(head)
}

fn show(events: &[Recorded], (body, table): (bool, &mut Table), screen: &mut Screen) -> anyhow::Result<()> {
    for event in events {
        if screen.is_json() {
            screen.json(&Shown::of(event, body))?;
        } else {
            table.row(shown::row(event, body));
        }
    }
    Ok(table.print(screen)?)
}
