//! `purista relay`: sending recorded events to the bridge again.

use clap::Subcommand;
use jiff::{SignedDuration, Timestamp};
use purista_core::clock::Clock;
use purista_events::batch::RECEIPTS_KEPT_DAYS;
use purista_events::position::Position;
use purista_events::query::Query;
use purista_events::resend;
use purista_events::store::Direction;
use serde_json::json;

use crate::engine::Engine;
use crate::opening::{self, Location};
use crate::screen::{Screen, remark};

/// How a running program does it by itself.
const RESEND_WITHIN: &str = "have the program do it: `RunningHost::resend(position)`";

#[derive(Debug, Subcommand)]
pub(crate) enum Relay {
    /// Send events to the bridge again that a broker lost.
    ///
    /// The relay of the program sends the events after a position again, up to the last that it has relayed, under the ids that
    /// they had. A subscription with a store handles an event that it knows once; one without a store handles it again. The
    /// request is stored: the program of a file begins when it starts next, one on a database within a second.
    Resend {
        /// The position after which events are sent again; 0 is the begin of the log.
        #[arg(long, value_name = "POSITION", required_unless_present = "withdraw")]
        after: Option<u64>,
        /// Withdraw the request.
        #[arg(long, conflicts_with = "after")]
        withdraw: bool,
    },
}

pub(crate) async fn run(location: &Location, what: Relay, screen: &mut Screen) -> anyhow::Result<()> {
    let Relay::Resend { after, .. } = what;
    let store = opening::own(location, "send events again", RESEND_WITHIN).await?;
    let clock = Clock::system();
    let Some(after) = after else {
        resend::withdraw(&*store, &clock).await?;
        store.close().await?;
        return screen.say("the request is withdrawn", &json!({ "isRequested": false }));
    };
    remark_on_age(&*store, Position::new(after), clock.now()).await?;
    let pending = resend::request(&*store, &clock, Position::new(after)).await?;
    // A file has no running program meanwhile; in a database the relay looks every second.
    let begins = if store.heard_by_programs().is_some() { "within a second" } else { "when it starts next" };
    let (after, up_to) = (pending.after().number(), pending.up_to().number());
    let sentence =
        format!("requested: the program sends the events after {after} up to {up_to} again {begins}");
    screen.say(&sentence, &json!({ "after": after, "upTo": up_to, "isRequested": true }))?;
    store.close().await?;
    Ok(())
}

/// Subscriptions know what they handled for some days only.
async fn remark_on_age(store: &dyn Engine, after: Position, now: Timestamp) -> anyhow::Result<()> {
    let first = store.read(&Query::all(), after, Direction::Forwards, 1).await?;
    let known_since = now - SignedDuration::from_hours(24 * RECEIPTS_KEPT_DAYS);
    if first.first().is_some_and(|event| event.recorded_at < known_since) {
        remark(&format!(
            "some of these events are older than {RECEIPTS_KEPT_DAYS} days: a subscription that handled one so long ago handles it again"
        ));
    }
    Ok(())
}
