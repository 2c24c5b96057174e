//! Logs that are wrong: their order, what queries find, snapshots, what they say of themselves.

use std::sync::Mutex;
use std::time::Duration;

use futures_util::stream;
use jiff::Timestamp;
use purista_core::clock::{Clock, Source};
use purista_events::position::{Position, ReadToken};
use purista_events::query::Query;
use purista_events::recorded::Recorded;
use purista_events::store::Direction::{Backwards, Forwards};
use purista_events::store::StoreErrorKind::Invalid;
use purista_events::store::{EventStore as _, PAGE_MAX};
use purista_events::view_read::ViewRead;
use serde_json::Value;

use crate::commits::forgives;
use crate::way::{Engine, Fault, Way, commit, fault, view};

pub(crate) const FAULTS: &[Fault] = &[
    // Order.
    fault("positions_grow_in_commit_order", "a receipt has the last position first", || {
        Way::Receipt(|_, _, receipt| receipt.positions.reverse())
    }),
    fault("no_event_arrives_late", "a page leaves out its last event, which comes with a later page", || {
        let late: Mutex<Option<Recorded>> = Mutex::default();
        Way::Follow(Box::new(move |_, _, page| {
            let mut late = late.lock().unwrap();
            match late.take() {
                Some(event) => page.events.insert(0, event),
                None => *late = page.events.pop(),
            }
        }))
    }),
    fault("following_says_how_far_it_looked", "a page says that it looked as far as its last event", || {
        Way::Follow(Box::new(|_, from, page| {
            page.looked_up_to = page.events.last().map_or(from, |event| event.position);
        }))
    }),
    fault("versions_of_a_stream_are_gapless", "every tenth version of a stream is left out", || {
        Way::Events(|events| {
            for version in events.iter_mut().filter_map(|event| event.stream_version.as_mut()) {
                *version += *version / 10;
            }
        })
    }),
    fault("an_event_without_tags_has_no_stream", "events without tags are one stream", || {
        Way::Events(|events| {
            for event in events {
                event.stream_version = event.stream_version.or(Some(1));
            }
        })
    }),
    fault(
        "recorded_times_never_run_back",
        "a receipt has the clock's time, also when that runs back",
        || Way::Receipt(|engine, _, receipt| receipt.recorded_at = engine.clock.now()),
    ),
    fault(
        "position_at_finds_the_last_before_a_time",
        "what was recorded at the very time is left out",
        || Way::PositionAt(|time| *time -= Duration::from_nanos(1)),
    ),
    fault("the_head_wakes_those_who_wait", "the head stays where it was at the opening", || Way::Head),
    fault("a_clock_that_jumps_ahead_moves_no_time", "a clock is believed, whatever it shows", || {
        Way::Clock(|clock| Clock::new(Believed(clock)))
    }),
    fault("a_clock_behind_the_log_is_reported", "nothing is reported", || Way::Attention),
    fault("the_last_position_is_that_of_the_last_commit", "what was committed last is not counted", || {
        Way::LastPosition(|last| *last = last.previous())
    }),
    fault(
        "what_is_committed_is_seen_at_once",
        "the newest event is followed when there is a newer one",
        || {
            Way::Follow(Box::new(|engine, from, page| {
                let head = engine.head();
                page.events.retain(|event| event.position < head);
                page.looked_up_to = page.looked_up_to.min(head.previous()).max(from);
            }))
        },
    ),
    // Queries.
    fault("a_query_selects_what_it_says", "of the tags of an item the first counts", || {
        Way::Query(|query| query.items.iter_mut().for_each(|item| item.tags.truncate(1)))
    }),
    fault("pages_go_in_both_directions", "a page backwards begins at its place and not before it", || {
        Way::Page(|from, direction| *from = if direction == Backwards { from.next() } else { *from })
    }),
    fault("a_page_has_a_bound_and_a_view_has_none", "a view ends after a page", || {
        view(|engine, query, after| async move {
            let mut view = engine.store.read_view(&query, after).await?;
            let first = view.next_page().await?.unwrap_or_default();
            Ok(ViewRead::new(view.token.clone(), first, None))
        })
    }),
    fault("a_view_is_of_one_moment", "the token of a view is one event older than the view", || {
        view(|engine, query, after| async move {
            let (events, token) = engine.store.read_view(&query, after).await?.all().await?;
            Ok(ViewRead::new(ReadToken::seen_up_to(token.position().previous()), events, None))
        })
    }),
    // Snapshots.
    fault("a_snapshot_is_found_by_its_whole_key", "the version of a view is no part of its key", || {
        Way::SnapshotKey(|key| key.version = 1)
    }),
    fault("a_snapshot_never_goes_back", "the snapshot that comes last is kept", || {
        Way::SaveSnapshot(Box::new(|engine: Engine, snapshot| {
            Box::pin(async move {
                engine.store.forget_snapshots(Some(snapshot.key.name.as_str())).await?;
                engine.store.save_snapshot(snapshot).await
            })
        }))
    }),
    fault("a_view_begins_behind_its_snapshots", "a view begins behind the latest of its snapshots", || {
        Way::BehindLatest
    }),
    fault(
        "each_item_of_a_view_begins_behind_its_own_snapshot",
        "all items begin behind the earliest of their snapshots",
        || Way::BehindEarliest,
    ),
    fault("snapshots_are_counted_and_forgotten", "all are forgotten when one name is", || {
        Way::ForgetSnapshots(|name| *name = None)
    }),
    fault("a_snapshot_has_a_bound", "one that is too large is left out in silence", || {
        Way::SaveSnapshot(Box::new(|engine: Engine, snapshot| {
            Box::pin(async move {
                let saved = engine.store.save_snapshot(snapshot).await;
                saved.or_else(|error| if error.kind() == Invalid { Ok(()) } else { Err(error) })
            })
        }))
    }),
    // What a log says of itself.
    fault("a_long_view_is_of_one_moment", "each page of a view is of its own moment", || {
        view(of_many_moments)
    }),
    fault("a_view_begins_after_a_position", "a view begins at its position and not after it", || {
        view(|engine, query, after| async move { engine.store.read_view(&query, after.previous()).await })
    }),
    fault("forms_name_what_is_stored", "the last place of a form stays the first", || {
        Way::Forms(|forms| forms.iter_mut().for_each(|form| form.newest = form.oldest))
    }),
    fault("counting_has_a_bound", "a count that was cut off does not say so", || {
        Way::Count(|counted| counted.is_at_least = false)
    }),
    fault("a_place_has_a_time", "a place without an event has a time", || {
        Way::RecordedAt(|time| *time = time.or(Some(Timestamp::UNIX_EPOCH)))
    }),
    fault(
        "a_dead_letter_is_taken_up_once",
        "who comes too late for a dead letter parks its event as well",
        || forgives(|batch| batch.forgotten_dead_letters.clear()),
    ),
    // Their life.
    fault("everything_survives_closing_and_opening", "the log has another name after each opening", || {
        Way::Origin(|engine| format!("{}-{}", engine.store.origin(), engine.opening).into())
    }),
    fault("a_closed_store_rejects_commits", "a closed store goes on", || Way::Close),
    fault(
        "closing_loses_nothing_that_was_committed",
        "every fiftieth commit is answered and never written",
        || {
            commit(|engine, batch| async move {
                if engine.count().is_multiple_of(50) {
                    return engine.store.commit(engine.batch(batch.tenant)).await;
                }
                engine.store.commit(batch).await
            })
        },
    ),
    fault("events_come_back_as_they_were", "a body is read and written anew", || {
        Way::Events(|events| {
            for body in events.iter_mut().map(|event| &mut event.body) {
                let json: Value = serde_json::from_slice(body).unwrap();
                *body = json.to_string().into();
            }
        })
    }),
    fault("names_of_any_script_are_told_apart", "upper and lower case of an id are the same", || {
        Way::Batch(|batch| {
            batch.id = purista_core::id::Id::parse(&batch.id.to_string().to_lowercase()).unwrap();
        })
    }),
];

/// The first page as it should be, the others as the log is when they are read.
async fn of_many_moments(
    engine: Engine,
    query: Query,
    after: Position,
) -> Result<ViewRead, purista_events::store::StoreError> {
    let mut view = engine.store.read_view(&query, after).await?;
    let first = view.next_page().await?.unwrap_or_default();
    let last = first.last().map_or(after, |event| event.position);
    let rest = stream::try_unfold((engine, query, last), async |(engine, query, last)| {
        let page = engine.store.read(&query, last, Forwards, PAGE_MAX).await?;
        Ok(page.last().map(|event| event.position).map(|last| (page, (engine, query, last))))
    });
    Ok(ViewRead::new(view.token.clone(), first, Some(Box::pin(rest))))
}

/// A clock that has nothing to be compared with.
struct Believed(Clock);

impl Source for Believed {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn random(&self) -> u128 {
        self.0.random()
    }
}
