//! `purista subscriptions`: how far durable subscriptions are, and stopping them.

use clap::Subcommand;
use jiff::Timestamp;
use purista_core::clock::Clock;
use purista_events::batch::Batch;
use purista_events::lag::Lag;
use purista_events::position::Position;
use purista_events::projector::sink::CHECKPOINTS;
use purista_events::query::Query;
use purista_events::subscriptions::{Parked, Pause, Progress, RELAY, SubscriptionId, SubscriptionRecord};
use serde_json::{Value, json};

use crate::engine::Engine;
use crate::opening::{self, Location};
use crate::refusal::Refusal;
use crate::screen::{Screen, duration, number, time};
use crate::table::{Column, Table};

/// How a running program resumes by itself.
const WITHIN: &str = "have the program do it: `RunningHost::resume` lets a subscription go on";

#[derive(Debug, Subcommand)]
pub(crate) enum Subscriptions {
    /// List them: how far each is, what waits for another attempt, what was given up, and what is paused.
    ///
    /// BEHIND counts all events after its place, since what it listens to is known to its program alone: it is so far behind
    /// at most.
    List,
    /// Stop one: its program will not run it until it is resumed.
    Pause {
        /// As it is listed, such as `Email.1.sendWelcomeEmail`.
        name: String,
        /// Why, for whoever finds it paused.
        #[arg(long, default_value = "paused on the command line", value_name = "TEXT")]
        reason: String,
    },
    /// Let one go on that is paused.
    Resume {
        /// As it is listed, such as `Email.1.sendWelcomeEmail`.
        name: String,
    },
}

pub(crate) async fn run(location: &Location, what: Subscriptions, screen: &mut Screen) -> anyhow::Result<()> {
    match what {
        Subscriptions::List => {
            let store = opening::read(location).await?;
            list(&*store, screen).await?;
            store.close().await?;
        }
        Subscriptions::Pause { name, reason } => {
            let store = opening::own(
                location,
                "pause a subscription",
                "let its handler answer `HandlerError::pause`",
            )
            .await?;
            pause(&*store, &name, reason, screen).await?;
            opening::remark_on_programs(&*store);
            store.close().await?;
        }
        Subscriptions::Resume { name } => {
            let store = opening::own(location, "resume a subscription", WITHIN).await?;
            resume(&*store, &name, screen).await?;
            opening::remark_on_programs(&*store);
            store.close().await?;
        }
    }
    Ok(())
}

/// Those that are subscriptions: checkpoints of projections into other places are listed with the projections.
async fn known(store: &dyn Engine) -> anyhow::Result<Vec<SubscriptionId>> {
    let mut known = store.subscriptions().await?;
    known.retain(|id| !id.as_str().starts_with(CHECKPOINTS));
    Ok(known)
}

async fn list(store: &dyn Engine, screen: &mut Screen) -> anyhow::Result<()> {
    let now = Clock::system().now();
    let mut table = Table::new([
        Column::Left("SUBSCRIPTION"),
        Column::Right("DONE UP TO"),
        Column::Right("BEHIND"),
        Column::Left("FOR"),
        Column::Right("PARKED"),
        Column::Right("DEAD"),
        Column::Left("STATE"),
    ]);
    for id in known(store).await? {
        let subscription = Listed::read(store, id, now).await?;
        if screen.is_json() {
            screen.json(&subscription.json())?;
        } else {
            table.row(subscription.row());
        }
    }
    if !screen.is_json() && table.is_empty() {
        screen.line("no durable subscriptions")?;
    }
    Ok(table.print(screen)?)
}

/// What is known of one.
struct Listed {
    id: SubscriptionId,
    record: SubscriptionRecord,
    /// Of those that follow the log: others are fed by a bridge, which keeps their place.
    lag: Option<Lag>,
    dead: u64,
}

impl Listed {
    async fn read(store: &dyn Engine, id: SubscriptionId, now: Timestamp) -> anyhow::Result<Self> {
        let record = store.subscription(&id).await?.unwrap_or_default();
        let dead = store.count_dead_letters(Some(id.clone())).await?;
        let follows_log = record.progress != Progress::default() || !record.parked.is_empty();
        let lag = if follows_log { Some(lag(store, &record, now).await?) } else { None };
        Ok(Self { id, record, lag, dead })
    }

    fn is_relay(&self) -> bool {
        self.id.as_str() == RELAY
    }

    fn behind(&self) -> Option<u64> {
        // What is done beyond its place is between it and the head, too.
        let done = u64::try_from(self.record.progress.done.len()).unwrap_or(0);
        self.lag.as_ref().map(|lag| lag.events.events.saturating_sub(done))
    }

    fn row(&self) -> Vec<String> {
        let state = match (&self.record.pause, &self.lag) {
            (Some(pause), _) => format!("paused since {}: {}", time(pause.since), pause.reason),
            (None, _) if self.is_relay() => "relay to the bridge".to_owned(),
            (None, None) => "fed by a bridge".to_owned(),
            (None, Some(_)) => "fed from the log".to_owned(),
        };
        let at_least = self.lag.as_ref().is_some_and(|lag| lag.events.is_at_least);
        let behind = self.behind();
        let dash = || "-".to_owned();
        vec![
            self.id.to_string(),
            self.lag.as_ref().map_or_else(dash, |lag| lag.position.to_string()),
            behind.map_or_else(dash, |count| format!("{}{}", number(count), if at_least { "+" } else { "" })),
            self.lag
                .as_ref()
                .filter(|_| behind.is_some_and(|count| count > 0))
                .map_or_else(dash, |lag| duration(lag.behind)),
            number(u64::try_from(self.record.parked.len()).unwrap_or(0)),
            number(self.dead),
            state,
        ]
    }

    fn json(&self) -> Value {
        let parked = |parked: &Parked| {
            json!({
                "position": parked.position,
                "attempts": parked.attempts,
                "due": parked.due,
                "failures": parked.history,
            })
        };
        json!({
            "subscription": self.id.as_str(),
            "isRelay": self.is_relay(),
            "doneUpTo": self.lag.as_ref().map(|lag| lag.position),
            "eventsBehindAtMost": self.behind(),
            "isCountedToItsEnd": self.lag.as_ref().map(|lag| !lag.events.is_at_least),
            "secondsBehind": self.lag.as_ref().map(|lag| lag.behind.as_secs_f64()),
            "parked": self.record.parked.iter().map(parked).collect::<Vec<_>>(),
            "deadLetters": self.dead,
            "pause": self.record.pause.as_ref().map(|pause| json!({ "since": pause.since, "reason": pause.reason })),
        })
    }
}

async fn lag(store: &dyn Engine, record: &SubscriptionRecord, now: Timestamp) -> anyhow::Result<Lag> {
    let low: Position = record.progress.low;
    Ok(Lag::measure(store, &Query::all(), low, now, 0.0).await?)
}

/// The one of this name, that can be steered.
async fn named(store: &dyn Engine, name: &str) -> anyhow::Result<SubscriptionId> {
    if name == RELAY {
        return Err(Refusal::error(
            "the relay is no subscription: it is not paused",
            "stop the program, or start it without its bridge",
        ));
    }
    if name.starts_with(CHECKPOINTS) {
        return Err(Refusal::error(
            format!("`{name}` is a projection into another place"),
            "use `purista projections pause` and `resume`",
        ));
    }
    let known = known(store).await?;
    if let Some(id) = known.iter().find(|id| id.as_str() == name) {
        return Ok(id.clone());
    }
    let names: Vec<&str> = known.iter().map(SubscriptionId::as_str).filter(|name| *name != RELAY).collect();
    let remedy = if names.is_empty() {
        format!("the {} knows none: a program makes them known when it starts first", store.noun())
    } else {
        format!("it knows {}", names.join(", "))
    };
    Err(Refusal::error(format!("the {} knows no subscription `{name}`", store.noun()), remedy))
}

async fn pause(store: &dyn Engine, name: &str, reason: String, screen: &mut Screen) -> anyhow::Result<()> {
    let (id, clock) = (named(store, name).await?, Clock::system());
    let before = store.subscription(&id).await?.unwrap_or_default().pause;
    if let Some(before) = before {
        let sentence = format!("{id} is paused since {}: {}", time(before.since), before.reason);
        return screen.say(&sentence, &json!({ "subscription": id.as_str(), "changed": false }));
    }
    let mut batch = Batch::new(clock.id(), None);
    batch.pauses.push((id.clone(), Some(Pause { since: clock.now(), reason })));
    opening::commit(store, batch).await?;
    let sentence = format!("{id} is paused: its program will not run it until it is resumed");
    screen.say(&sentence, &json!({ "subscription": id.as_str(), "changed": true }))
}

async fn resume(store: &dyn Engine, name: &str, screen: &mut Screen) -> anyhow::Result<()> {
    let (id, clock) = (named(store, name).await?, Clock::system());
    if store.subscription(&id).await?.unwrap_or_default().pause.is_none() {
        let sentence = format!("{id} is not paused");
        return screen.say(&sentence, &json!({ "subscription": id.as_str(), "changed": false }));
    }
    let mut batch = Batch::new(clock.id(), None);
    batch.pauses.push((id.clone(), None));
    opening::commit(store, batch).await?;
    let sentence = format!("{id} goes on when its program starts next");
    screen.say(&sentence, &json!({ "subscription": id.as_str(), "changed": true }))
}
