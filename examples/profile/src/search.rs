//! Service `Search`, and the projection that it reads: an index over names, beside the events.
//!
//! What is indexed and what is answered is said here, once for every engine; `sqlite` and `postgres` hold the SQL of each.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use purista::{Context, HandlerError, Service, command};
use purista_events::projection::{Projection, projection};
use purista_events::projector::{Condition, ProjectionHandle, ProjectionState};
use purista_events::recorded::Recorded;
use purista_events::store::StoreError;

use crate::contracts::{
    FindUsers, Found, GetSearchState, Hit, NewUserRegistered, PAGE_DEFAULT, ProfileUpdated, Rebuild,
    RebuildSearch, SEARCH, SearchState,
};

mod postgres;
mod sqlite;

/// How many words of a question are looked for; the rest is ignored.
const WORDS_MAX: usize = 8;

/// How long whoever asks for a rebuild waits to hear that it has begun.
const BEGINNING_TIME_MAX: Duration = Duration::from_secs(2);

/// How the index is written: in the transaction of an engine.
pub(crate) trait NamesTables: 'static {
    /// Makes the tables, empty.
    fn make(&self) -> Result<(), HandlerError>;
    /// Adds a user; answers are in the order of entries.
    fn add(&self, entry: i64, user_id: &str, name: &str) -> Result<(), HandlerError>;
    /// Gives a user another name.
    fn rename(&self, user_id: &str, name: &str) -> Result<(), HandlerError>;
}

/// How the index is read.
pub(crate) trait Names: Send + Sync + 'static {
    /// The first users in whose names each of these words is the beginning of one, in any case and without regard to accents.
    fn find(&self, words: Vec<String>, limit: u32) -> BoxFuture<'_, Result<Vec<Hit>, StoreError>>;
}

/// Raise the version when tables or handlers change: the new version is built beside the old one, and takes its place.
pub(crate) fn profile_search<Tx: NamesTables>() -> Projection<Tx> {
    projection("profileSearch", 1)
        .set_up(|tx: &Tx| tx.make())
        .on(|tx: &Tx, event: Recorded<NewUserRegistered>| {
            // The event's position is a number that no other has, in the order of accounts.
            let entry = i64::try_from(event.position.number())?;
            tx.add(entry, &event.body.user_id, &event.body.name)
        })
        .on(|tx: &Tx, event: Recorded<ProfileUpdated>| tx.rename(&event.body.user_id, &event.body.new_name))
}

/// What the service is given.
struct Index {
    names: Arc<dyn Names>,
    projection: ProjectionHandle,
}

/// The service, ready for a host.
pub(crate) fn search_service(names: impl Names, projection: ProjectionHandle) -> Service {
    Service::builder(SEARCH, "Finds users by their names", Index { names: Arc::new(names), projection })
        .command(command(find_users))
        .command(command(rebuild_search))
        .command(command(get_search_state))
        .build()
}

async fn find_users(ctx: Context<Index>, question: FindUsers) -> Result<Found, HandlerError> {
    let words = words(&question.q);
    if words.is_empty() {
        return Ok(Found { users: Vec::new(), has_more: false });
    }
    let limit = question.limit.unwrap_or(PAGE_DEFAULT);
    // One more than is shown tells whether there are more.
    let mut users = ctx.resources().names.find(words, limit + 1).await?;
    let limit = usize::try_from(limit)?;
    let has_more = users.len() > limit;
    users.truncate(limit);
    Ok(Found { users, has_more })
}

/// The words of a question. None holds a quotation mark or a control character.
fn words(question: &str) -> Vec<String> {
    let is_between = |c: char| c.is_whitespace() || c.is_control() || c == '"';
    let words = question.split(is_between).filter(|word| word.contains(char::is_alphanumeric));
    words.take(WORDS_MAX).map(str::to_owned).collect()
}

/// Answers when the new build has begun; [`GetSearchState`] tells when it has taken the place of the old one.
async fn rebuild_search(ctx: Context<Index>, _: RebuildSearch) -> Result<SearchState, HandlerError> {
    let projection = &ctx.resources().projection;
    let newest = |state: &ProjectionState| state.builds.iter().map(|build| build.build.generation).max();
    let (mut states, before) = (projection.states(), newest(&projection.state()));
    projection.rebuild();
    let begun = states.wait_for(|state| newest(state) > before);
    // One that takes longer to begin is begun all the same.
    let _ = tokio::time::timeout(BEGINNING_TIME_MAX, begun).await;
    state_of(&ctx).await
}

async fn get_search_state(ctx: Context<Index>, _: GetSearchState) -> Result<SearchState, HandlerError> {
    state_of(&ctx).await
}

async fn state_of(ctx: &Context<Index>) -> Result<SearchState, HandlerError> {
    let (projection, now) = (&ctx.resources().projection, ctx.now());
    let (state, lag) = (projection.state(), projection.lag(now).await?);
    let current = state.builds.iter().find(|build| build.is_current);
    let rebuild = projection.rebuilding(now).await?.map(|lag| Rebuild {
        position: lag.position.number(),
        head: lag.head.number(),
        events_per_second: lag.per_second,
        seconds_left: lag.caught_up_in.map(|left| left.as_secs_f64()),
    });
    Ok(SearchState {
        generation: current.map_or(0, |current| current.build.generation),
        position: lag.position.number(),
        events_behind: lag.events.events,
        trouble: match state.condition {
            Condition::Running => None,
            Condition::Paused(pause) => Some(format!("it is paused at {}: see the log", pause.at)),
            Condition::Failing(_) => Some("it waits for its store: see the log".to_owned()),
        },
        rebuild,
    })
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn a_question_is_its_words() {
        for (question, expect) in [
            ("ada", &["ada"][..]),
            ("  Ada  Lov ", &["Ada", "Lov"]),
            ("ada OR bob", &["ada", "OR", "bob"]),
            ("name:ada*", &["name:ada*"]),
            ("\"ada\" \"", &["ada"]),
            ("a\0b", &["a", "b"]),
            ("NEAR(a b, 2)", &["NEAR(a", "b,", "2)"]),
            ("***", &[]),
            ("-", &[]),
            (" \t", &[]),
            ("a b c d e f g h i j", &["a", "b", "c", "d", "e", "f", "g", "h"]),
        ] {
            assert_eq!(words(question), expect, "{question:?}");
        }
    }
}
