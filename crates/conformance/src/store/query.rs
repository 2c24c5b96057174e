//! Duties of reading: what a query selects, in both directions, page by page.

use purista_core::text::Text;
use purista_events::batch::{Append, Batch, Condition};
use purista_events::position::Position;
use purista_events::query::{Query, QueryItem, TenantScope};
use purista_events::recorded::Recorded;
use purista_events::store::Direction::{Backwards, Forwards};
use purista_events::store::{Direction, PAGE_MAX, StoreErrorKind};

use super::given::{self, always, event, events};
use super::stage::Stage;

/// A query selects what its items say, by types, by all tags of an item, by tenants: each event once, as
/// `Query::selects` has it, by whichever way it is read.
pub async fn a_query_selects_what_it_says(stage: &mut Stage) {
    fill(stage).await;
    let all = stage.events().await;
    assert_eq!(all.len(), 54);
    for (query, count) in queries() {
        let expected: Vec<&Recorded> = all.iter().filter(|event| query.selects(event)).collect();
        assert_eq!(expected.len(), count, "{query:?}");
        let (view, _) = stage.view(&query).await;
        assert_eq!(view.iter().collect::<Vec<_>>(), expected, "{query:?}");
        let page = stage.page(&query, Position::START, Forwards, PAGE_MAX).await;
        assert_eq!(page.iter().collect::<Vec<_>>(), expected, "{query:?}");
        let followed = stage.follow(&query, PAGE_MAX).await;
        assert_eq!(followed.iter().collect::<Vec<_>>(), expected, "{query:?}");
    }
}

/// Pages go strictly on from where they begin, in both directions, and together hold everything once.
pub async fn pages_go_in_both_directions(stage: &mut Stage) {
    fill(stage).await;
    let end = Position::new(u64::MAX);
    for (query, count) in queries() {
        for limit in [1, 3, 54] {
            let forwards = read_all(stage, &query, Position::START, Forwards, limit).await;
            let mut backwards = read_all(stage, &query, end, Backwards, limit).await;
            backwards.reverse();
            assert_eq!(forwards.len(), count, "{query:?} in pages of {limit}");
            assert_eq!(forwards, backwards, "{query:?} in pages of {limit}");
        }
        let (view, _) = stage.view(&query).await;
        let Some(middle) = view.get(count / 2) else { continue };
        let after = stage.page(&query, middle.position, Forwards, PAGE_MAX).await;
        assert_eq!(after.as_slice(), view.get(count / 2 + 1..).unwrap_or_default());
        let mut before = stage.page(&query, middle.position, Backwards, PAGE_MAX).await;
        before.reverse();
        assert_eq!(before.as_slice(), view.get(..count / 2).unwrap_or_default());
    }
    assert_eq!(stage.page(&Query::all(), end, Forwards, 10).await, []);
    assert_eq!(stage.page(&Query::all(), Position::START, Backwards, 10).await, []);
    assert_eq!(stage.page(&Query::all(), Position::START, Forwards, 0).await, []);
}

/// A page holds no more than a page may, however much is asked; a view holds everything.
pub async fn a_page_has_a_bound_and_a_view_has_none(stage: &mut Stage) {
    stage.append(events(700, "moved", &[("user", "ada")])).await;
    stage.append(events(700, "moved", &[("user", "ada")])).await;
    let query = Query::tag("user", "ada");
    for direction in [Forwards, Backwards] {
        let from = if direction == Forwards { Position::START } else { Position::new(u64::MAX) };
        assert_eq!(stage.page(&query, from, direction, usize::MAX).await.len(), PAGE_MAX);
    }
    let page = stage.store.follow(&query, Position::START, usize::MAX).await.expect("a page is followed");
    assert!(page.events.len() <= PAGE_MAX && !page.is_caught_up);
    let (view, _) = stage.view(&query).await;
    assert_eq!(view.len(), 1400);
    assert_eq!(view, stage.events().await);
}

/// The token of a view is of the same moment as its events: a decision on them holds until one more is recorded.
pub async fn a_view_is_of_one_moment(stage: &mut Stage) {
    let query = Query::tag("user", "ada");
    let unless = |token, events| {
        let condition = Condition::Unless(query.clone(), token);
        Batch { appends: vec![Append { events, condition }], ..given::batch() }
    };
    let (view, of_nothing) = stage.view(&query).await;
    assert_eq!(view, []);
    stage.commit(unless(of_nothing.clone(), vec![event("moved", &[("user", "ada")])])).await;
    stage.refuse(unless(of_nothing, Vec::new()), StoreErrorKind::Conflict).await;
    for count in 1..5 {
        let (view, token) = stage.view(&query).await;
        assert_eq!(view.len(), count);
        stage.append(vec![event("moved", &[("user", "bob")])]).await;
        stage.commit(unless(token.clone(), Vec::new())).await;
        stage.commit(unless(token.clone(), vec![event("moved", &[("user", "ada")])])).await;
        stage.refuse(unless(token, Vec::new()), StoreErrorKind::Conflict).await;
    }
}

async fn read_all(
    stage: &Stage,
    query: &Query,
    mut from: Position,
    direction: Direction,
    limit: usize,
) -> Vec<Recorded> {
    let mut all = Vec::new();
    loop {
        let page = stage.page(query, from, direction, limit).await;
        assert!(page.len() <= limit);
        let Some(last) = page.last() else { return all };
        let is_beyond =
            if direction == Direction::Forwards { last.position > from } else { last.position < from };
        assert!(is_beyond, "a page goes on from {from}, not to {}", last.position);
        from = last.position;
        all.extend(page);
    }
}

/// Eighteen events of each tenant: of three types, with all ways to bear two tags.
async fn fill(stage: &Stage) {
    for tenant in given::tenants() {
        for name in ["moved", "slept", "met"] {
            let tags: [&[(&str, &str)]; 6] = [
                &[],
                &[("user", "ada")],
                &[("user", "bob")],
                &[("user", "ada"), ("meeting", "1")],
                &[("meeting", "1"), ("user", "ada")],
                &[("user", "ada"), ("user", "bob")],
            ];
            let events = tags.iter().map(|tags| event(name, tags)).collect();
            let batch = Batch { tenant: tenant.clone(), appends: vec![always(events)], ..given::batch() };
            stage.commit(batch).await;
        }
    }
}

/// Queries, and how many of the events above they select.
fn queries() -> Vec<(Query, usize)> {
    let text = |texts: &[&str]| texts.iter().map(|text| Text::from(*text)).collect::<Vec<_>>();
    let item = |types: &[&str], tags: &[(&str, &str)]| {
        let tags = tags.iter().map(|(name, value)| (Text::from(*name), Text::from(*value))).collect();
        QueryItem { types: text(types), tags }
    };
    let of = |items: Vec<QueryItem>| Query { tenants: TenantScope::All, items };
    vec![
        (Query::all(), 54),
        (of(vec![item(&[], &[])]), 54),
        (Query::all().of_tenant(None), 18),
        (Query::all().of_tenant(Some("north".into())), 18),
        (Query::all().of_tenant(Some("nobody".into())), 0),
        (Query::types(text(&["moved"])), 18),
        (Query::types(text(&["moved", "met", "moved"])), 36),
        (Query::types(text(&["move", "moved ", "Moved"])), 0),
        (Query::tag("user", "ada"), 36),
        (Query::tag("meeting", "1"), 18),
        (Query::tag("user", "1"), 0),
        (Query::tag("user", "ad"), 0),
        (of(vec![item(&[], &[("user", "ada"), ("meeting", "1")])]), 18),
        (of(vec![item(&[], &[("meeting", "1"), ("user", "ada")])]), 18),
        (of(vec![item(&[], &[("user", "ada"), ("user", "ada")])]), 36),
        (of(vec![item(&[], &[("user", "ada"), ("user", "bob")])]), 9),
        (of(vec![item(&[], &[("user", "bob"), ("meeting", "1")])]), 0),
        (of(vec![item(&["moved"], &[("user", "ada")])]), 12),
        (of(vec![item(&["moved", "met"], &[("user", "ada"), ("meeting", "1")])]), 12),
        (Query::tag("user", "ada").or(item(&[], &[("user", "bob")])), 45),
        (Query::tag("user", "ada").or(item(&["moved"], &[])), 42),
        (Query::tag("user", "ada").or(item(&["moved"], &[])).of_tenant(Some("south".into())), 14),
        (Query::types(text(&["moved"])).or(item(&["slept"], &[])).or(item(&["moved"], &[])), 36),
    ]
}
