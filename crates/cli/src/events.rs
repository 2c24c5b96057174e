//! `purista events`: what is recorded.

use anyhow::Context as _;
use clap::Subcommand;
use jiff::Timestamp;
use jiff::civil::Date;
use purista_core::clock::Clock;
use purista_core::id::Id;
use purista_events::position::Position;
use purista_events::query::Query;
use purista_events::reading::Pager;
use purista_events::store::Direction;

use crate::engine::Engine;
use crate::opening::Location;
use crate::refusal::Refusal;
use crate::screen::{Screen, remark, time};
use crate::selection::{self, Limit, Selection, Tenant};
use crate::shown::{self, Shown};
use crate::{opening, tail};

/// Before everything that is yet to come.
const END: Position = Position::new(u64::MAX);

#[derive(Debug, Subcommand)]
pub(crate) enum Events {
    /// List events, the newest first, or onwards from a position.
    List {
        #[command(flatten)]
        selection: Selection,
        /// Onwards from this position, the oldest first.
        #[arg(long, value_name = "POSITION", conflicts_with = "before")]
        from: Option<Position>,
        /// The newest before this position.
        #[arg(long, value_name = "POSITION")]
        before: Option<Position>,
        #[command(flatten)]
        limit: Limit,
        /// Show bodies, too.
        #[arg(long)]
        body: bool,
    },
    /// Show everything of one event, its body included.
    Read {
        /// Its position or its id.
        #[arg(value_name = "POSITION|ID")]
        event: String,
    },
    /// Show events as they are recorded, until Ctrl-C; a mark says when all that was there has been shown.
    Tail {
        #[command(flatten)]
        selection: Selection,
        /// Begin at this position, instead of with the newest events.
        #[arg(long, value_name = "POSITION", conflicts_with = "last")]
        from: Option<Position>,
        /// Begin with so many of the newest.
        #[arg(long, value_name = "NUMBER", default_value_t = 10)]
        last: usize,
        /// Show bodies, too.
        #[arg(long)]
        body: bool,
    },
    /// List the events that were there at a time, or up to a position; the newest first.
    #[command(group = clap::ArgGroup::new("moment").required(true))]
    AsOf {
        /// All that were recorded at or before this time: `2026-03-01T00:00:00Z`, or a day, which is its beginning in UTC.
        #[arg(long, value_name = "TIME", value_parser = moment, group = "moment")]
        time: Option<Timestamp>,
        /// All up to this position.
        #[arg(long, value_name = "POSITION", group = "moment")]
        position: Option<Position>,
        #[command(flatten)]
        selection: Selection,
        #[command(flatten)]
        limit: Limit,
        /// Show bodies, too.
        #[arg(long)]
        body: bool,
    },
    /// Show who did what, when and why to the thing that a tag names, from its beginning.
    History {
        /// The tag, as user=42; given several times, what has all of them.
        #[arg(long = "tag", value_name = "NAME=VALUE", required = true, value_parser = selection::tag)]
        tags: Vec<(String, String)>,
        /// Only events of this type; given several times, of any of them.
        #[arg(long = "type", value_name = "TYPE")]
        types: Vec<String>,
        #[command(flatten)]
        tenant: Tenant,
        /// Show bodies, too.
        #[arg(long)]
        body: bool,
    },
}

fn moment(text: &str) -> anyhow::Result<Timestamp> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let date: Date = text
        .parse()
        .ok()
        .context("a time is written 2026-03-01T00:00:00Z, with its offset, or 2026-03-01")?;
    Ok(date.in_tz("UTC")?.timestamp())
}

pub(crate) async fn run(location: &Location, what: Events, screen: &mut Screen) -> anyhow::Result<()> {
    let store = opening::read(location).await?;
    match what {
        Events::List { selection, from, before, limit, body } => {
            let (direction, from) = match from {
                Some(from) => (Direction::Forwards, from.previous()),
                None => (Direction::Backwards, before.unwrap_or(END)),
            };
            let pages = Pages { query: selection.query(), from, direction, most: limit.most() };
            list(&*store, pages, body, screen).await?;
        }
        Events::Read { event } => read(&*store, &event, screen).await?,
        Events::Tail { selection, from, last, body } => {
            let start = tail::Start { from, last };
            tail::run(&*store, selection.query(), start, body, screen).await?;
        }
        Events::AsOf { time, position, selection, limit, body } => {
            let at = match (time, position) {
                (Some(time), _) => position_at(&*store, time).await?,
                (None, position) => reached(&*store, position.unwrap_or_default())?,
            };
            let pages = Pages {
                query: selection.query(),
                from: at.next(),
                direction: Direction::Backwards,
                most: limit.most(),
            };
            as_of(&*store, (time, at), pages, body, screen).await?;
        }
        Events::History { tags, types, tenant, body } => {
            history(&*store, tenant.query(&types, &tags), body, screen).await?;
        }
    }
    store.close().await?;
    Ok(())
}

/// Which events are listed, and in which order.
struct Pages {
    query: Query,
    from: Position,
    direction: Direction,
    most: u64,
}

impl Pages {
    fn pager<'s>(&self, store: &'s dyn Engine) -> Pager<'s> {
        let pager = Pager::new(store, self.query.clone(), self.from, self.direction);
        match usize::try_from(self.most) {
            // One more tells whether there are more.
            Ok(most) => pager.page(most.saturating_add(1)),
            Err(_) => pager,
        }
    }
}

/// Prints events as rows or lines of JSON. Says how the list goes on when it is not all.
async fn list(store: &dyn Engine, pages: Pages, body: bool, screen: &mut Screen) -> anyhow::Result<()> {
    let (mut onwards, mut left, mut last) = (pages.pager(store), pages.most, None);
    let mut table = shown::table(body);
    let mut has_more = false;
    'pages: while let Some(page) = onwards.next().await? {
        for event in &page {
            if left == 0 {
                has_more = true;
                break 'pages;
            }
            left -= 1;
            last = Some(event.position);
            if screen.is_json() {
                screen.json(&Shown::of(event, body))?;
            } else {
                table.row(shown::row(event, body));
            }
        }
        table.print(screen)?;
    }
    if screen.is_json() {
        return Ok(());
    }
    table.print(screen)?;
    if last.is_none() {
        screen.line("no events")?;
    }
    if has_more && let Some(last) = last {
        screen.flush()?;
        remark(&match pages.direction {
            Direction::Forwards => format!("there are more: --from {}", last.next()),
            Direction::Backwards => format!("there are older ones: --before {last}"),
        });
    }
    Ok(())
}

async fn read(store: &dyn Engine, event: &str, screen: &mut Screen) -> anyhow::Result<()> {
    let known = match event.parse::<Position>() {
        Ok(position) => Some(position),
        Err(_) => store.position_of(Id::parse(event)?).await?,
    };
    let found = match known {
        Some(position) => {
            let page = store.read(&Query::all(), position.previous(), Direction::Forwards, 1).await?;
            page.into_iter().find(|event| event.position == position)
        }
        None => None,
    };
    let Some(found) = found else {
        let head = *store.head().borrow();
        return Err(Refusal::error(
            format!("there is no event `{event}`"),
            format!(
                "give the position of an event, 1 to {head}, or its whole id; `purista events list` shows both"
            ),
        ));
    };
    if screen.is_json() { screen.json(&Shown::of(&found, true)) } else { Ok(shown::print(screen, &found)?) }
}

/// The last position that was there at a time, once nothing more can be recorded at it.
async fn position_at(store: &dyn Engine, at: Timestamp) -> anyhow::Result<Position> {
    let clock = Clock::system();
    let now = clock.now();
    if at > now {
        return Err(Refusal::error(
            format!("{at} is still to come"),
            format!("give a time up to now, which is {}", time(now)),
        ));
    }
    while clock.now().as_millisecond() <= at.as_millisecond() {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    let position = store.position_at(at).await?;
    // In a store of many writers those that began before may not have ended.
    store.settled(position).await?;
    Ok(position)
}

fn reached(store: &dyn Engine, position: Position) -> anyhow::Result<Position> {
    let head = *store.head().borrow();
    if position > head {
        let what = format!("position {position} was not reached");
        return Err(Refusal::error(what, format!("the log ends at {head}: give a position up to that")));
    }
    Ok(position)
}

async fn as_of(
    store: &dyn Engine,
    (at, position): (Option<Timestamp>, Position),
    pages: Pages,
    body: bool,
    screen: &mut Screen,
) -> anyhow::Result<()> {
    if !screen.is_json() {
        screen.heading(&match at {
            Some(at) => format!("as of {at}, which is position {position}"),
            None => format!("as of position {position}"),
        })?;
        return list(store, pages, body, screen).await;
    }
    // Written piece by piece, so that the whole of a long log needs no memory.
    let time = serde_json::to_string(&at)?;
    screen.raw(&format!("{{\"time\":{time},\"position\":{position},\"events\":["))?;
    let (mut onwards, mut written) = (pages.pager(store), 0);
    'pages: while let Some(page) = onwards.next().await? {
        for event in &page {
            if written == pages.most {
                break 'pages;
            }
            screen.raw(if written == 0 { "\n" } else { ",\n" })?;
            screen.raw(&serde_json::to_string(&Shown::of(event, body))?)?;
            written += 1;
        }
    }
    Ok(screen.raw("]}\n")?)
}

async fn history(store: &dyn Engine, query: Query, body: bool, screen: &mut Screen) -> anyhow::Result<()> {
    let mut pager = Pager::new(store, query, Position::START, Direction::Forwards);
    let mut is_empty = true;
    while let Some(page) = pager.next().await? {
        for event in &page {
            is_empty = false;
            if screen.is_json() {
                screen.json(&Shown::of(event, body))?;
            } else {
                shown::print_audit(screen, event, body)?;
            }
        }
    }
    if is_empty && !screen.is_json() {
        screen.line("no events")?;
    }
    Ok(())
}
