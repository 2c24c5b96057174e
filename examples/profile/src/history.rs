//! Service `History`: what happened to a user, as the log has it.

use std::sync::Arc;

use purista::{Context, HandlerError, Service, command};
use purista_events::position::Position;
use purista_events::query::Query;
use purista_events::recorded::Recorded;
use purista_events::store::{Direction, EventStore};

use crate::contracts::{Entry, GetHistory, HISTORY, History, PAGE_DEFAULT, Who, Why};
use crate::profile::no_such_user;

/// The log that is read.
type Log = Arc<dyn EventStore>;

/// The service, ready for a host.
pub(crate) fn history_service(log: impl EventStore) -> Service {
    Service::builder(HISTORY, "What happened to users", Arc::new(log) as Log)
        .command(command(get_history))
        .build()
}

async fn get_history(ctx: Context<Log>, question: GetHistory) -> Result<History, HandlerError> {
    let GetHistory { user_id, after, limit } = question;
    let (log, after) = (ctx.resources(), Position::new(after.unwrap_or_default()));
    let limit = usize::try_from(limit.unwrap_or(PAGE_DEFAULT))?;
    let query = Query::tag("user", user_id.clone()).of_tenant(ctx.tenant().map(Into::into));
    // One more than is shown tells whether there is a next page.
    let mut events = log.read(&query, after, Direction::Forwards, limit + 1).await?;
    let has_more = events.len() > limit;
    events.truncate(limit);
    if events.is_empty() && log.read(&query, Position::START, Direction::Forwards, 1).await?.is_empty() {
        return Err(no_such_user());
    }
    let next = events.last().filter(|_| has_more).map(|event| event.position.number());
    let entries = events.into_iter().map(entry).collect::<Result<_, _>>()?;
    Ok(History { user_id, entries, next })
}

/// Every event says by itself who, when and why: nothing had to be kept for it.
fn entry(event: Recorded) -> Result<Entry, HandlerError> {
    let cause = event.cause;
    Ok(Entry {
        position: event.position.number(),
        event_id: event.id.to_string(),
        event: event.name.to_string(),
        version: event.version,
        at: event.recorded_at,
        who: Who {
            principal: cause.principal_id.as_deref().map(str::to_owned),
            tenant: event.tenant_id.as_deref().map(str::to_owned),
        },
        why: Why {
            command: cause.sender.address.to_string(),
            trace_id: cause.trace_id.to_string(),
            correlation_id: cause.correlation_id.map(|id| id.to_string()),
            causation_id: cause.causation_id.map(|id| id.to_string()),
        },
        what: serde_json::from_slice(&event.body)?,
    })
}
