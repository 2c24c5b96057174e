//! Service `Search`, and the projection that it reads: a full-text index over names, in the same file as the events.

use std::time::Duration;

use purista::{Context, HandlerError, Service, command};
use purista_events::projection::Projection;
use purista_events::projector::{Condition, ProjectionHandle, ProjectionState};
use purista_events::recorded::Recorded;
use purista_sqlite::read_models::{TableReader, projection};
use purista_sqlite::tx::Tx;

use crate::contracts::{
    FindUsers, Found, GetSearchState, Hit, NewUserRegistered, PAGE_DEFAULT, ProfileUpdated, Rebuild,
    RebuildSearch, SEARCH, SearchState,
};

/// How many words of a question are looked for; the rest is ignored.
const WORDS_MAX: usize = 8;

/// How long whoever asks for a rebuild waits to hear that it has begun.
const BEGINNING_TIME_MAX: Duration = Duration::from_secs(2);

/// Raise the version when tables or handlers change: the new version is built beside the old one, and takes its place.
pub(crate) fn profile_search() -> Projection<Tx> {
    projection("profileSearch", 1)
        .set_up(|tx| {
            // Accents make no difference; beginnings of two and three letters have an index of their own.
            let options = "tokenize = 'unicode61 remove_diacritics 2', prefix = '2 3'";
            tx.create_search_table("names", &format!("name, user_id UNINDEXED, {options}"))?;
            tx.create_table("accounts", "user_id TEXT PRIMARY KEY, entry INTEGER NOT NULL")
        })
        .on(|tx, event: Recorded<NewUserRegistered>| {
            // The event's position is a number that no other has, in the order of accounts.
            let entry = i64::try_from(event.position.number())?;
            let NewUserRegistered { user_id, name, .. } = event.body;
            tx.execute("INSERT INTO {accounts} (user_id, entry) VALUES (?1, ?2)", (&user_id, entry))?;
            let sql = "INSERT INTO {names} (rowid, name, user_id) VALUES (?1, ?2, ?3)";
            tx.execute(sql, (entry, name, user_id))?;
            Ok(())
        })
        .on(|tx, event: Recorded<ProfileUpdated>| {
            let ProfileUpdated { user_id, new_name, .. } = event.body;
            let sql = "UPDATE {names} SET name = ?2 WHERE rowid = (SELECT entry FROM {accounts} WHERE user_id = ?1)";
            tx.execute(sql, (user_id, new_name))?;
            Ok(())
        })
}

/// What the service is given.
struct Index {
    tables: TableReader,
    projection: ProjectionHandle,
}

/// The service, ready for a host.
pub(crate) fn search_service(tables: TableReader, projection: ProjectionHandle) -> Service {
    Service::builder(SEARCH, "Finds users by their names", Index { tables, projection })
        .command(command(find_users))
        .command(command(rebuild_search))
        .command(command(get_search_state))
        .build()
}

async fn find_users(ctx: Context<Index>, question: FindUsers) -> Result<Found, HandlerError> {
    let Some(words) = beginnings(&question.q) else {
        return Ok(Found { users: Vec::new(), has_more: false });
    };
    let limit = question.limit.unwrap_or(PAGE_DEFAULT);
    let read = ctx.resources().tables.read(move |tables| {
        let sql = "SELECT user_id, name FROM names WHERE names MATCH ?1 ORDER BY rowid LIMIT ?2";
        let mut hits = tables.prepare_cached(sql)?;
        // One more than is shown tells whether there are more.
        let hits =
            hits.query_map((words, limit + 1), |row| Ok(Hit { user_id: row.get(0)?, name: row.get(1)? }))?;
        hits.collect::<Result<Vec<_>, _>>()
    });
    let mut users = read.await?;
    let limit = usize::try_from(limit)?;
    let has_more = users.len() > limit;
    users.truncate(limit);
    Ok(Found { users, has_more })
}

/// The question in the language of FTS5: all words, each as the beginning of one. A word stands in quotation marks, so that
/// nothing in it is an operator. `None` when there is none.
fn beginnings(question: &str) -> Option<String> {
    let is_between = |c: char| c.is_whitespace() || c.is_control() || c == '"';
    let words = question.split(is_between).filter(|word| word.contains(char::is_alphanumeric));
    let words: Vec<_> = words.take(WORDS_MAX).map(|word| format!("\"{word}\"*")).collect();
    (!words.is_empty()).then(|| words.join(" "))
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
    use super::beginnings;

    #[test]
    fn words_are_looked_for_as_they_are_and_never_as_operators() {
        for (question, expect) in [
            ("ada", Some(r#""ada"*"#)),
            ("  Ada  Lov ", Some(r#""Ada"* "Lov"*"#)),
            ("ada OR bob", Some(r#""ada"* "OR"* "bob"*"#)),
            ("name:ada*", Some(r#""name:ada*"*"#)),
            ("\"ada\" \"", Some(r#""ada"*"#)),
            ("a\0b", Some(r#""a"* "b"*"#)),
            ("NEAR(a b, 2)", Some(r#""NEAR(a"* "b,"* "2)"*"#)),
            ("***", None),
            ("-", None),
            (" \t", None),
            ("a b c d e f g h i j", Some(r#""a"* "b"* "c"* "d"* "e"* "f"* "g"* "h"*"#)),
        ] {
            assert_eq!(beginnings(question).as_deref(), expect, "{question:?}");
        }
    }
}
