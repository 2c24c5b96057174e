//! What is kept beside the log, wrongly: state, tenants, progress.

use std::collections::BTreeMap;

use purista_core::store::{Expect, StateChange};
use purista_events::batch::Batch;
use purista_events::position::Position;
use purista_events::query::TenantScope;
use purista_events::store::StoreErrorKind::{AlreadyDone, KeyTaken};
use purista_events::store::{EventStore as _, PAGE_MAX, StoreError};
use purista_events::subscriptions::{DeadLetterSource, ParkedChange, SubscriptionRecord};
use serde_json::Value;

use crate::commits::forgives;
use crate::way::{Fault, Way, commit, fault};

/// How many keys fit into one question of an engine that forgot that there may be more.
const KEYS_OF_A_QUESTION: usize = 999;

pub(crate) const FAULTS: &[Fault] = &[
    // State.
    fault(
        "state_is_compared_and_set",
        "whatever version a writer expects is taken for the one there is",
        || {
            Way::Batch(|batch| {
                for change in &mut batch.state {
                    if matches!(change.expect, Expect::Version(_)) {
                        change.expect = Expect::Any;
                    }
                }
            })
        },
    ),
    fault("state_is_removed", "a removal writes `null`", || {
        Way::Batch(|batch| {
            for change in &mut batch.state {
                change.value = change.value.take().or(Some(Value::Null));
            }
        })
    }),
    fault("versions_of_state_never_come_again", "a key that was absent begins at version 1", || {
        Way::Receipt(|_, batch, receipt| {
            let absent = |change: &StateChange| change.expect == Expect::Absent && change.value.is_some();
            let versions = batch.state.iter().zip(&mut receipt.state_versions);
            versions.filter(|(change, _)| absent(change)).for_each(|(_, version)| *version = 1);
        })
    }),
    fault("state_expires_after_its_time", "a value is kept beyond its time", || {
        Way::Batch(|batch| batch.state.iter_mut().for_each(|change| change.time_to_live = None))
    }),
    fault("changes_of_one_key_follow_one_another", "of several changes of a key the last is made", || {
        Way::Batch(|batch| {
            let last: BTreeMap<String, StateChange> =
                batch.state.drain(..).map(|change| (change.key.clone(), change)).collect();
            batch.state = last.into_values().collect();
        })
    }),
    fault("values_of_state_come_back_as_they_were", "a value that is `null` is taken for absent", || {
        Way::State(|values| values.retain(|_, found| !found.value.is_null()))
    }),
    fault("many_keys_are_read_at_once", "keys beyond the 999th are left out", || {
        Way::StateKeys(|keys| keys.truncate(KEYS_OF_A_QUESTION))
    }),
    fault("of_many_writers_of_one_key_one_wins", "a value is compared first, and set later", || {
        commit(|engine, mut batch| async move {
            let keys: Vec<String> = batch.state.iter().map(|change| change.key.clone()).collect();
            let now = engine.store.state(batch.tenant.as_deref(), &keys).await?;
            let is_so = |change: &StateChange| match change.expect {
                Expect::Any => true,
                Expect::Absent => !now.contains_key(&change.key),
                Expect::Version(version) => {
                    now.get(&change.key).is_some_and(|found| found.version == version)
                }
            };
            if batch.state.iter().all(is_so) {
                engine.lets_others_in().await;
                batch.state.iter_mut().for_each(|change| change.expect = Expect::Any);
            }
            engine.store.commit(batch).await
        })
    }),
    // Tenants.
    fault("tenants_see_nothing_of_each_other", "a query of one tenant selects events of all", || {
        Way::Query(|query| query.tenants = TenantScope::All)
    }),
    fault("tenants_do_not_stand_in_each_others_way", "a key that one tenant took is taken for all", || {
        commit(|engine, batch| async move {
            let key = batch.reply.as_ref().map(|reply| format!("{:?}", reply.key)).unwrap_or_default();
            let own = format!("{key} of {:?}", batch.tenant);
            if engine.is_noted(&key) && !engine.is_noted(&own) {
                return Err(StoreError::new(KeyTaken, "a tenant has it"));
            }
            let is_keyed = batch.reply.is_some();
            let receipt = engine.store.commit(batch).await?;
            if is_keyed {
                engine.note(key);
                engine.note(own);
            }
            Ok(receipt)
        })
    }),
    fault("names_that_read_the_same_are_told_apart", "scope and key are joined by a colon", || {
        Way::ReplyKey(|key| (key.scope, key.key) = ("".into(), format!("{}:{}", key.scope, key.key).into()))
    }),
    // Progress.
    fault(
        "a_subscription_is_registered_by_its_first_progress",
        "one that stands at the start counts as none",
        || {
            Way::Record(|_, record| {
                *record = record.take().filter(|kept| *kept != SubscriptionRecord::default());
            })
        },
    ),
    fault("changes_of_progress_commute", "who moves the mark takes in all that is done by then", || {
        commit(|engine, mut batch| async move {
            for change in &mut batch.progress {
                let kept = engine.store.subscription(&change.subscription).await?.unwrap_or_default();
                let done = kept.progress.done.last().copied();
                change.up_to = change.up_to.map(|mark| done.map_or(mark, |done| mark.max(done)));
            }
            engine.store.commit(batch).await
        })
    }),
    fault("the_low_mark_never_goes_back", "what lies below the mark is kept one by one", || {
        Way::Record(|_, record| {
            for progress in record.iter_mut().map(|record| &mut record.progress) {
                if progress.low > Position::START {
                    progress.done.insert(progress.low);
                }
            }
        })
    }),
    fault(
        "a_finished_position_is_not_finished_again",
        "a position that is finished already is left out in silence",
        || forgives(|batch| batch.progress.clear()),
    ),
    fault("many_positions_are_finished_at_once", "progress is read first, and written later", || {
        commit(|engine, batch| async move {
            engine.lets_others_in().await;
            match engine.store.commit(batch.clone()).await {
                Err(error) if error.kind() == AlreadyDone => {
                    engine.store.commit(Batch { progress: Vec::new(), ..batch }).await
                }
                end => end,
            }
        })
    }),
    fault(
        "what_is_parked_is_kept_until_it_is_forgotten",
        "in a batch, what is forgotten goes before what is kept",
        || Way::Batch(|batch| batch.parked.sort_by_key(|change| matches!(change, ParkedChange::Keep(_)))),
    ),
    fault("parked_events_are_kept_apart_from_progress", "the mark takes what is parked with it", || {
        Way::Record(|_, record| {
            for record in record.iter_mut() {
                record.parked.retain(|parked| parked.position > record.progress.low);
            }
        })
    }),
    fault("a_pause_is_kept_until_it_ends", "a pause ends with the process", || {
        Way::Record(|engine, record| {
            if engine.opening > 1 {
                for record in record.iter_mut() {
                    record.pause = None;
                }
            }
        })
    }),
    fault("dead_letters_are_kept_with_their_history", "a message that is not text is made text", || {
        Way::DeadLetters(|letters| {
            for source in letters.iter_mut().map(|letter| &mut letter.source) {
                if let DeadLetterSource::Message(bytes) = source {
                    *bytes = String::from_utf8_lossy(bytes).into_owned().into();
                }
            }
        })
    }),
    fault("dead_letters_are_read_within_a_limit", "a whole page is read, whatever the limit", || {
        Way::Limit(|limit| *limit = PAGE_MAX)
    }),
    // Whatever nobody thought of.
    fault("model_agrees", "a batch with a pause forgets nothing that is parked", || {
        Way::Batch(|batch| {
            if !batch.pauses.is_empty() {
                batch.parked.retain(|change| matches!(change, ParkedChange::Keep(_)));
            }
        })
    }),
];
