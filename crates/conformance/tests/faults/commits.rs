//! Commits that are wrong: their parts, their repetition, their conditions.

use std::time::Duration;

use purista_core::bounds::TENANT_BYTES_MAX;
use purista_core::store::STATE_BYTES_MAX;
use purista_events::batch::{Append, Batch, Condition, REPLY_BYTES_MAX, Receipt};
use purista_events::query::Query;
use purista_events::store::StoreErrorKind::{AlreadyDone, Conflict, DeadlinePassed, KeyTaken};
use purista_events::store::{EventStore as _, StoreError};
use purista_events::subscriptions::{HISTORY_MAX, ParkedChange};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Mutex;
use tokio::time::Instant;

use crate::way::{Engine, Fault, Way, commit, fault, view};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub(crate) const FAULTS: &[Fault] = &[
    // Atomicity.
    fault("a_batch_commits_all_its_parts", "a pause is left out of its batch", || {
        Way::Batch(|batch| batch.pauses.clear())
    }),
    fault(
        "a_batch_that_fails_leaves_nothing_of_its_parts",
        "events are written before the rest is looked at",
        || {
            commit(|engine, mut batch| async move {
                let appends = std::mem::take(&mut batch.appends);
                engine.store.commit(Batch { appends, ..engine.batch(batch.tenant.clone()) }).await?;
                engine.store.commit(batch).await
            })
        },
    ),
    fault(
        "a_refused_batch_is_not_remembered",
        "the id of a refused batch is kept as that of one that was committed",
        || {
            commit(|engine, batch| async move {
                let id = batch.id.clone();
                if engine.is_noted(&id.to_string()) {
                    let nothing = engine.store.commit(engine.batch(None)).await?;
                    return Ok(Receipt { id, is_repeated: true, ..nothing });
                }
                let end = engine.store.commit(batch).await;
                if end.is_err() {
                    engine.note(id.to_string());
                }
                end
            })
        },
    ),
    fault(
        "each_of_many_batches_has_its_own_end",
        "of batches that come together all fail when one does",
        || {
            commit(|engine, batch| async move {
                engine.lets_others_in().await;
                let end = engine.store.commit(batch).await;
                if end.is_err() {
                    engine.note("one failed");
                }
                end.and_then(|receipt| {
                    let together = || StoreError::new(Conflict, "another batch failed");
                    if engine.is_noted("one failed") { Err(together()) } else { Ok(receipt) }
                })
            })
        },
    ),
    fault("a_passed_deadline_refuses_the_batch", "nobody looks at the deadline", || {
        Way::Batch(|batch| batch.deadline = None)
    }),
    fault("bounds_hold", "a history that is too long is cut in silence", || {
        Way::Batch(|batch| {
            let parked = batch.parked.iter_mut().filter_map(|change| match change {
                ParkedChange::Keep(parked) => Some(&mut parked.history),
                ParkedChange::Forget(..) => None,
            });
            let letters = batch.dead_letters.iter_mut().map(|letter| &mut letter.history);
            parked.chain(letters).for_each(|history| history.truncate(HISTORY_MAX));
        })
    }),
    fault("names_have_a_bound", "a tenant that is too long is cut in silence", || {
        Way::Batch(|batch| {
            let cut = |tenant: &str| tenant.chars().take(TENANT_BYTES_MAX).collect::<String>();
            batch.tenant = batch.tenant.as_deref().map(cut).map(Into::into);
        })
    }),
    fault("a_value_of_state_has_a_bound", "a value of state that is too large is cut in silence", || {
        Way::Batch(|batch| {
            for value in batch.state.iter_mut().filter_map(|change| change.value.as_mut()) {
                if value.to_string().len() > STATE_BYTES_MAX {
                    *value = Value::Null;
                }
            }
        })
    }),
    fault("a_stored_reply_has_a_bound", "a reply that is too large is kept without its body", || {
        Way::Batch(|batch| {
            if let Some(reply) = &mut batch.reply {
                reply.body = reply.body.take().filter(|body| body.len() <= REPLY_BYTES_MAX);
            }
        })
    }),
    // Repetition.
    fault("a_repeated_batch_returns_the_first_receipt", "the deadline is looked at before the id", || {
        commit(|engine, batch| async move {
            if batch.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Err(StoreError::new(DeadlinePassed, "it is late"));
            }
            engine.store.commit(batch).await
        })
    }),
    fault(
        "a_batch_committed_many_times_at_once_happens_once",
        "an id is kept after its batch, and not with it",
        || {
            commit(|engine, batch| async move {
                if engine.is_noted(&batch.id.to_string()) {
                    return engine.store.commit(batch).await;
                }
                engine.lets_others_in().await;
                engine.note(batch.id.to_string());
                engine.store.commit(Batch { id: engine.clock.id(), ..batch }).await
            })
        },
    ),
    fault("a_commit_whose_answer_is_lost_is_recovered", "an id that comes again is refused as done", || {
        commit(|engine, batch| async move {
            let receipt = engine.store.commit(batch).await?;
            if receipt.is_repeated {
                return Err(StoreError::new(AlreadyDone, "it was committed before"));
            }
            Ok(receipt)
        })
    }),
    fault("ids_of_batches_are_kept_for_seven_days", "ids are forgotten after a day", || {
        commit(|engine, batch| async move {
            let receipt = engine.store.commit(batch.clone()).await?;
            let age = engine.clock.now().duration_since(receipt.recorded_at).unsigned_abs();
            if !receipt.is_repeated || age < DAY {
                return Ok(receipt);
            }
            engine.store.commit(Batch { id: engine.clock.id(), ..batch }).await
        })
    }),
    fault("a_key_holds_one_reply", "a key is free for another input", || {
        commit(|engine, batch| async move {
            let tenant = batch.tenant.clone();
            if let Some(reply) = &batch.reply
                && let Some(kept) = engine.store.reply(tenant.as_deref(), &reply.key).await?
                && kept.fingerprint != reply.fingerprint
            {
                return engine.store.commit(Batch { reply: None, ..batch }).await;
            }
            engine.store.commit(batch).await
        })
    }),
    fault("of_many_with_one_key_one_wins", "a key is looked up first, and taken later", || {
        commit(|engine, batch| async move {
            let Some(reply) = &batch.reply else { return engine.store.commit(batch).await };
            if engine.store.reply(batch.tenant.as_deref(), &reply.key).await?.is_some() {
                return engine.store.commit(batch).await;
            }
            engine.lets_others_in().await;
            match engine.store.commit(batch.clone()).await {
                Err(error) if error.kind() == KeyTaken => {
                    engine.store.commit(Batch { reply: None, ..batch }).await
                }
                end => end,
            }
        })
    }),
    fault("what_is_done_is_said_before_a_conflict", "conditions are looked at before keys", || {
        commit(|engine, batch| async move {
            engine.looks(&batch).await?;
            engine.store.commit(batch).await
        })
    }),
    fault("a_reply_expires_after_seven_days", "a reply is found for ever", || {
        let replies = Mutex::new(HashMap::new());
        Way::Reply(Box::new(move |key, found| {
            let mut replies = replies.lock().unwrap();
            match found {
                Some(reply) => drop(replies.insert(key.clone(), reply.clone())),
                None => *found = replies.get(key).cloned(),
            }
        }))
    }),
    fault("a_message_is_consumed_once", "what one subscription consumed counts for all", || {
        Way::Consumed(Box::new(|engine: Engine, (subscription, message)| {
            Box::pin(async move {
                let mut all = engine.store.subscriptions().await?;
                all.push(subscription);
                // Nobody is registered by what it consumed.
                all.extend(
                    ["Email.1.welcome", "Search.1.index"]
                        .map(purista_events::subscriptions::SubscriptionId::new),
                );
                for one in &all {
                    if engine.store.is_consumed(one, &message).await? {
                        return Ok(true);
                    }
                }
                Ok(false)
            })
        }))
    }),
    // Conditions.
    fault("a_stream_has_the_version_that_was_expected", "a stream only has to be there", || {
        Way::Batch(|batch| {
            for append in &mut batch.appends {
                if matches!(append.condition, Condition::Stream { version: 1.., .. }) {
                    append.condition = Condition::Always;
                }
            }
        })
    }),
    fault("a_query_selects_nothing_new", "a condition looks at types and not at tags", || {
        unless(|query, _| query.items.iter_mut().for_each(|item| item.tags.clear()))
    }),
    fault(
        "a_condition_asks_for_tag_and_type_of_each_alternative",
        "a condition on a tag does not look at types",
        || {
            unless(|query, _| {
                query
                    .items
                    .iter_mut()
                    .filter(|item| item.tags.len() == 1)
                    .for_each(|item| item.types.clear());
            })
        },
    ),
    fault(
        "a_condition_sees_the_tenants_of_its_query",
        "a condition looks at the batch's own tenant only",
        || unless(|query, batch| *query = query.clone().of_tenant(batch.tenant.as_deref().map(Into::into))),
    ),
    fault("a_condition_without_events_guards_the_batch", "an append without events is skipped", || {
        Way::Batch(|batch| batch.appends.retain(|append| !append.events.is_empty()))
    }),
    fault(
        "conditions_look_at_the_log_before_the_batch",
        "an append sees the events of the one before it",
        || {
            commit(|engine, mut batch| async move {
                let last = batch.appends.pop();
                for append in std::mem::take(&mut batch.appends) {
                    let appends = vec![append];
                    engine.store.commit(Batch { appends, ..engine.batch(batch.tenant.clone()) }).await?;
                }
                engine.store.commit(Batch { appends: last.into_iter().collect(), ..batch }).await
            })
        },
    ),
    fault(
        "of_many_deciders_on_one_boundary_one_wins",
        "a query is looked at first, and written on later",
        || looks_first(|condition| matches!(condition, Condition::Unless(..))),
    ),
    fault(
        "of_many_writers_of_one_version_one_wins",
        "a version is looked at first, and written on later",
        || looks_first(|condition| matches!(condition, Condition::Stream { .. })),
    ),
    fault(
        "deciders_on_different_boundaries_all_win",
        "whatever was recorded stands in the way of a decision",
        || unless(|query, _| *query = Query::all()),
    ),
    fault(
        "deciders_that_decide_again_never_sell_too_much",
        "the newest event is in the token of a view and not in the view",
        || {
            view(|engine, query, after| async move {
                let (mut events, token) = engine.store.read_view(&query, after).await?.all().await?;
                events.pop();
                Ok(purista_events::view_read::ViewRead::new(token, events, None))
            })
        },
    ),
];

/// Asks another question than a condition says.
fn unless(change: fn(&mut Query, &Batch)) -> Way {
    commit(move |engine, mut batch| async move {
        let whole = batch.clone();
        for Append { condition, .. } in &mut batch.appends {
            if let Condition::Unless(query, _) = condition {
                change(query, &whole);
            }
        }
        engine.store.commit(batch).await
    })
}

/// Looks whether such conditions hold, lets others write, and writes.
fn looks_first(at: fn(&Condition) -> bool) -> Way {
    commit(move |engine, mut batch| async move {
        if batch.appends.iter().any(|append| at(&append.condition)) {
            engine.looks(&batch).await?;
            engine.lets_others_in().await;
            batch.appends.iter_mut().for_each(|append| append.condition = Condition::Always);
        }
        engine.store.commit(batch).await
    })
}

/// What was done before is left out in silence: a repetition is no error then.
pub(crate) fn forgives(leave_out: fn(&mut Batch)) -> Way {
    commit(move |engine, mut batch| async move {
        match engine.store.commit(batch.clone()).await {
            Err(error) if error.kind() == AlreadyDone => {
                leave_out(&mut batch);
                engine.store.commit(batch).await
            }
            end => end,
        }
    })
}
