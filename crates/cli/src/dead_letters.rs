//! `purista dead-letters`: what was given up, and another attempt at it.

use clap::{Args, Subcommand};
use purista_core::clock::Clock;
use purista_core::id::Id;
use purista_events::batch::Batch;
use purista_events::position::Position;
use purista_events::query::Query;
use purista_events::store::{Direction, PAGE_MAX};
use purista_events::subscriptions::{DeadLetter, DeadLetterSource, SubscriptionId};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::engine::Engine;
use crate::opening::Location;
use crate::refusal::Refusal;
use crate::screen::{Screen, counted, on_one_line, plain, remark, time};
use crate::table::{Column, Table, pairs};
use crate::{indented, opening};

/// How a running program does the same.
const WITHIN: &str =
    "have the program do it: `RunningHost::try_again` tries a dead letter again while it runs";

#[derive(Debug, Subcommand)]
pub(crate) enum DeadLetters {
    /// List them, the oldest first.
    List {
        /// Only those of this subscription.
        #[arg(long, value_name = "NAME")]
        subscription: Option<String>,
        /// At most so many.
        #[arg(long, value_name = "NUMBER", default_value_t = 50,
              value_parser = clap::value_parser!(u64).range(1..=PAGE_MAX as u64))]
        limit: u64,
    },
    /// Show everything of one: why it was given up, and what was tried.
    Show {
        /// Its id.
        id: String,
        /// Show the message of a bridge, too; of an event, its body.
        #[arg(long)]
        body: bool,
    },
    /// Give events back to their subscriptions, from the first attempt on: their program tries them when it starts next.
    ///
    /// A message of a bridge is not in the log, and only the program can deliver it: see `RunningHost::try_again`.
    Replay {
        #[command(flatten)]
        which: Which,
    },
    /// Forget them for good.
    Drop {
        #[command(flatten)]
        which: Which,
    },
}

/// Which dead letters.
#[derive(Debug, Args)]
#[group(required = true)]
pub(crate) struct Which {
    /// Their ids.
    #[arg(value_name = "ID", conflicts_with_all = ["all", "subscription"])]
    ids: Vec<String>,
    /// All of them.
    #[arg(long)]
    all: bool,
    /// All of this subscription.
    #[arg(long, value_name = "NAME")]
    subscription: Option<String>,
}

pub(crate) async fn run(location: &Location, what: DeadLetters, screen: &mut Screen) -> anyhow::Result<()> {
    match what {
        DeadLetters::List { subscription, limit } => {
            let store = opening::read(location).await?;
            list(&*store, subscription.map(SubscriptionId::new), limit, screen).await?;
            store.close().await?;
        }
        DeadLetters::Show { id, body } => {
            let store = opening::read(location).await?;
            let letter = found(&*store, &id).await?;
            show(&*store, &letter, body, screen).await?;
            store.close().await?;
        }
        DeadLetters::Replay { which } => {
            let store = opening::own(location, "replay dead letters", WITHIN).await?;
            each(&*store, &which, Act::Replay, screen).await?;
            opening::remark_on_programs(&*store);
            store.close().await?;
        }
        DeadLetters::Drop { which } => {
            let within = "replay or keep them until then: nothing waits for them";
            let store = opening::own(location, "drop dead letters", within).await?;
            each(&*store, &which, Act::Drop, screen).await?;
            store.close().await?;
        }
    }
    Ok(())
}

fn source(letter: &DeadLetter) -> String {
    match &letter.source {
        DeadLetterSource::Event(position) => format!("event at {position}"),
        DeadLetterSource::Message(_) => "message of a bridge".to_owned(),
    }
}

fn listed(letter: &DeadLetter) -> Value {
    json!({
        "id": letter.id,
        "subscription": letter.subscription.as_str(),
        "position": match letter.source {
            DeadLetterSource::Event(position) => Some(position),
            DeadLetterSource::Message(_) => None,
        },
        "isFromBridge": matches!(letter.source, DeadLetterSource::Message(_)),
        "at": letter.at,
        "reason": letter.reason,
        "attempts": letter.attempts,
        "traceId": letter.trace_id,
        "failures": letter.history,
    })
}

async fn list(
    store: &dyn Engine,
    subscription: Option<SubscriptionId>,
    limit: u64,
    screen: &mut Screen,
) -> anyhow::Result<()> {
    let limit = usize::try_from(limit).unwrap_or(PAGE_MAX);
    let letters = store.dead_letters(subscription.as_ref(), limit).await?;
    if screen.is_json() {
        return letters.iter().try_for_each(|letter| screen.json(&listed(letter)));
    }
    let mut table = Table::new([
        Column::Left("ID"),
        Column::Left("SUBSCRIPTION"),
        Column::Left("WHAT"),
        Column::Left("SINCE"),
        Column::Right("ATTEMPTS"),
        Column::Left("REASON"),
    ]);
    for letter in &letters {
        table.row([
            letter.id.to_string(),
            letter.subscription.to_string(),
            source(letter),
            time(letter.at),
            letter.attempts.to_string(),
            letter.reason.clone(),
        ]);
    }
    if table.is_empty() {
        screen.line("no dead letters")?;
    }
    table.print(screen)?;
    let all = store.count_dead_letters(subscription).await?;
    let shown = u64::try_from(letters.len()).unwrap_or(u64::MAX);
    if all > shown {
        screen.flush()?;
        remark(&format!("there are {} more: --limit NUMBER shows up to {PAGE_MAX}", all - shown));
    }
    Ok(())
}

async fn found(store: &dyn Engine, id: &str) -> anyhow::Result<DeadLetter> {
    store.dead_letter(Id::parse(id)?).await?.ok_or_else(|| {
        let what = format!("there is no dead letter `{id}`");
        Refusal::error(
            what,
            "`purista dead-letters list` shows their whole ids; one that was replayed or dropped is gone",
        )
    })
}

async fn show(
    store: &dyn Engine,
    letter: &DeadLetter,
    body: bool,
    screen: &mut Screen,
) -> anyhow::Result<()> {
    let content = match &letter.source {
        _ if !body => None,
        DeadLetterSource::Message(bytes) => Some(bytes.clone()),
        DeadLetterSource::Event(position) => {
            let page = store.read(&Query::all(), position.previous(), Direction::Forwards, 1).await?;
            page.into_iter().find(|event| event.position == *position).map(|event| event.body)
        }
    };
    let json: Option<&RawValue> = content.as_ref().and_then(|content| serde_json::from_slice(content).ok());
    let text = content.as_ref().map(|content| String::from_utf8_lossy(content));
    if screen.is_json() {
        let mut value = listed(letter);
        if let (Some(text), Some(fields)) = (&text, value.as_object_mut()) {
            match &json {
                Some(_) => fields.insert("body".to_owned(), serde_json::from_str(text)?),
                None => fields.insert("bodyText".to_owned(), text.clone().into()),
            };
        }
        return screen.json(&value);
    }
    pairs(
        screen,
        &[
            ("id", letter.id.to_string()),
            ("subscription", letter.subscription.to_string()),
            ("what", source(letter)),
            ("since", time(letter.at)),
            ("reason", letter.reason.clone()),
            ("attempts", letter.attempts.to_string()),
            ("trace", letter.trace_id.to_string()),
        ],
    )?;
    for failure in &letter.history {
        let reason = on_one_line(&failure.reason);
        screen.line(&format!("  attempt {} at {}: {reason}", failure.attempt, time(failure.at)))?;
    }
    if let Some(text) = text {
        screen.line("body")?;
        let laid_out = if json.is_some() { indented::json(&text) } else { text.into_owned() };
        laid_out.lines().try_for_each(|line| screen.line(&format!("  {}", plain(line))))?;
    }
    Ok(())
}

/// What is done with dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Replay,
    Drop,
}

async fn each(store: &dyn Engine, which: &Which, act: Act, screen: &mut Screen) -> anyhow::Result<()> {
    if !which.ids.is_empty() {
        // All are looked at before the first is touched.
        let mut letters = Vec::new();
        for id in &which.ids {
            let letter = found(store, id).await?;
            if act == Act::Replay && matches!(letter.source, DeadLetterSource::Message(_)) {
                let what = format!(
                    "the dead letter {id} is a message of a bridge, which only its program can deliver"
                );
                return Err(Refusal::error(
                    what,
                    "start the program and call `RunningHost::try_again`; or `purista dead-letters show --body` it, and `drop` it",
                ));
            }
            letters.push(letter);
        }
        for letter in letters {
            one(store, &letter, act, screen).await?;
        }
        return Ok(());
    }
    let subscription = which.subscription.clone().map(SubscriptionId::new);
    let (mut done, mut left) = (0, 0);
    loop {
        let page = store.dead_letters(subscription.as_ref(), PAGE_MAX).await?;
        let is_possible =
            |letter: &&DeadLetter| act == Act::Drop || matches!(letter.source, DeadLetterSource::Event(_));
        let possible: Vec<&DeadLetter> = page.iter().filter(is_possible).collect();
        left = left.max(page.len() - possible.len());
        if possible.is_empty() {
            break;
        }
        for letter in possible {
            one(store, letter, act, screen).await?;
            done += 1;
        }
    }
    if !screen.is_json() && done == 0 {
        screen.line(if act == Act::Replay { "nothing to replay" } else { "nothing to drop" })?;
    }
    if left > 0 {
        screen.flush()?;
        let messages = counted(
            u64::try_from(left).unwrap_or(0),
            "message of a bridge stays",
            "messages of a bridge stay",
        );
        remark(&format!(
            "{messages}: only the program can deliver them, see `purista dead-letters replay --help`"
        ));
    }
    Ok(())
}

async fn one(store: &dyn Engine, letter: &DeadLetter, act: Act, screen: &mut Screen) -> anyhow::Result<()> {
    let clock = Clock::system();
    let id = &letter.id;
    let batch = if let (Act::Replay, DeadLetterSource::Event(position)) = (act, &letter.source) {
        Batch::trying_again(clock.id(), letter, order_key(store, *position).await?)
    } else {
        let mut batch = Batch::new(clock.id(), None);
        batch.forgotten_dead_letters.push(id.clone());
        batch
    };
    opening::commit(store, batch).await?;
    match act {
        Act::Replay => screen.say(
            &format!(
                "{id} waits again for {}, which tries it when its program starts next",
                letter.subscription
            ),
            &json!({ "id": id, "replayed": true }),
        ),
        Act::Drop => screen.say(&format!("{id} is forgotten"), &json!({ "id": id, "dropped": true })),
    }
}

/// The order key of the event at this position, so that it goes after those of its key that wait already.
async fn order_key(store: &dyn Engine, position: Position) -> anyhow::Result<Option<String>> {
    let page = store.read(&Query::all(), position.previous(), Direction::Forwards, 1).await?;
    Ok(page.into_iter().find(|event| event.position == position).and_then(|event| event.order_key()))
}
