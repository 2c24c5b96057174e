//! What becomes of each batch of a group: every check first, then what it will have written.
//!
//! The checks only read, so a batch that is refused leaves nothing; their order is that of the memory engine. What is taken
//! changes what is known, so that the next batch of the group finds the log as it will be.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use purista_core::id::Id;
use purista_core::store::{Expect, StateChange};
use purista_core::text::Text;
use purista_events::batch::{Batch, Condition, Receipt};
use purista_events::position::Position;
use purista_events::query::Query;
use purista_events::recorded::NewEvent;
use purista_events::store::{StoreError, StoreErrorKind};
use purista_events::subscriptions::{
    DeadLetter, Parked, ParkedChange, Pause, ProgressChange, SubscriptionId,
};
use tokio::time::Instant;

use crate::codec;
use crate::flight::Blob;
use crate::known::{Entry, Known, Owned, key, stream};
use crate::place;

/// An event with what its place in the log gives it.
#[derive(Debug)]
pub(crate) struct Placed<'g> {
    pub(crate) event: &'g NewEvent,
    pub(crate) batch: &'g Batch,
    /// The key of its tenant.
    pub(crate) tenant: Cow<'g, str>,
    pub(crate) position: i64,
    pub(crate) stream_version: Option<i64>,
    pub(crate) recorded_at: i64,
}

/// The receipt of a batch, as it is kept.
#[derive(Debug)]
pub(crate) struct NewReceipt<'g> {
    pub(crate) id: &'g Id,
    pub(crate) recorded_at: i64,
    pub(crate) position: i64,
    pub(crate) events: i32,
    pub(crate) state_versions: Option<String>,
}

/// What a group will have written, when it is committed.
#[derive(Debug, Default)]
pub(crate) struct Decided<'g> {
    pub(crate) events: Vec<Placed<'g>>,
    /// The tags that they bear.
    tags: HashSet<(&'g str, &'g str)>,
    pub(crate) state: BTreeSet<Owned>,
    pub(crate) replies: Vec<(&'g Batch, Cow<'g, str>)>,
    pub(crate) consumed: Vec<(String, Blob)>,
    /// The new low marks; and what is finished beyond them.
    pub(crate) lows: BTreeMap<String, i64>,
    pub(crate) done: BTreeSet<(String, i64)>,
    pub(crate) parked: BTreeMap<(&'g SubscriptionId, Position), Option<&'g Parked>>,
    pub(crate) pauses: BTreeMap<&'g SubscriptionId, Option<&'g Pause>>,
    pub(crate) letters: Vec<&'g DeadLetter>,
    pub(crate) forgotten_letters: Vec<Blob>,
    pub(crate) receipts: Vec<NewReceipt<'g>>,
}

#[expect(clippy::ptr_arg, reason = "a key that is borrowed from its batch is copied for nothing")]
impl<'g> Decided<'g> {
    /// Decides on the batch of this number. `texts` are the values of its state as they will lie in their rows.
    pub(crate) fn batch(
        &mut self,
        known: &mut Known<'g>,
        number: usize,
        batch: &'g Batch,
        texts: &'g [Option<String>],
    ) -> Result<Receipt, StoreError> {
        if let Some(first) = known.receipts.get(&batch.id) {
            return Ok(Receipt { is_repeated: true, ..first.clone() });
        }
        if batch.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            let what = format!("the deadline of {} passed before its write began", batch.id);
            return Err(StoreError::new(StoreErrorKind::DeadlinePassed, what));
        }
        let tenant = codec::tenant_key(batch.tenant.as_deref());
        check_undone(known, batch)?;
        check_reply_key(known, &tenant, batch)?;
        for (of_batch, append) in batch.appends.iter().enumerate() {
            self.check_condition(known, [number, of_batch], &tenant, &append.condition)?;
        }
        let (entries, state_versions) = plan_state(known, &tenant, &batch.state, texts)?;
        Ok(self.write(known, &tenant, batch, entries, state_versions))
    }

    fn check_condition(
        &self,
        known: &Known<'g>,
        number: [usize; 2],
        tenant: &Cow<'g, str>,
        condition: &'g Condition,
    ) -> Result<(), StoreError> {
        let conflict = |what| Err(StoreError::new(StoreErrorKind::Conflict, what));
        match condition {
            Condition::Always => Ok(()),
            Condition::Stream { name, value, version } => {
                let known = known.streams.get(&stream(tenant, name, value));
                let actual = known.map_or(0, |count| count.events);
                if actual == codec::signed(*version) {
                    return Ok(());
                }
                // The value of a tag may be somebody's e-mail address: it stays out of the text.
                conflict(format!("a stream of `{name}` has {actual} events, not {version}"))
            }
            Condition::Unless(query, _) => {
                let before = known.broken.get(&number).map(|(name, position)| (name.as_str(), *position));
                // What the batches before it in the group record comes after every token.
                let of_group =
                    self.first_selected(query).map(|placed| (&*placed.event.name, placed.position));
                match before.or(of_group) {
                    None => Ok(()),
                    Some((name, position)) => conflict(format!("`{name}` was recorded at {position}")),
                }
            }
            _ => {
                let what = "this store does not know one of the batch's conditions";
                Err(StoreError::new(StoreErrorKind::Invalid, what))
            }
        }
    }

    /// The first event of the batches before that a query selects.
    fn first_selected(&self, query: &Query) -> Option<&Placed<'g>> {
        let is_borne = |(name, value): &(Text, Text)| self.tags.contains(&(name.as_str(), value.as_str()));
        // Most are about what nobody else in the group is about: their tags say so at once.
        if !query.items.is_empty() && query.items.iter().all(|item| !item.tags.iter().all(is_borne)) {
            return None;
        }
        let is_selected =
            |placed: &&Placed<'_>| query.selects_new(placed.batch.tenant.as_deref(), placed.event);
        self.events.iter().find(is_selected)
    }

    /// Takes what was checked.
    fn write(
        &mut self,
        known: &mut Known<'g>,
        tenant: &Cow<'g, str>,
        batch: &'g Batch,
        entries: HashMap<Owned, Entry>,
        state_versions: Vec<u64>,
    ) -> Receipt {
        let events = || batch.appends.iter().flat_map(|append| &append.events);
        let positions: Vec<Position> =
            place::positions(known.base, self.events.len() + 1, events().count()).collect();
        for (event, position) in events().zip(&positions) {
            self.record(known, tenant, batch, event, codec::signed(position.number()));
        }
        self.state.extend(entries.keys().cloned());
        known.state.extend(entries);
        if let Some(reply) = &batch.reply {
            known.replies.insert(key(tenant, &reply.key.scope, &reply.key.key));
            self.replies.push((batch, tenant.clone()));
        }
        if let Some((subscription, message)) = &batch.consumed {
            let consumed = (codec::text(subscription.as_str()).into_owned(), codec::id(message).into());
            known.consumed.insert(consumed.clone());
            self.consumed.push(consumed);
        }
        batch.progress.iter().for_each(|change| self.progress(known, change));
        for change in &batch.parked {
            match change {
                ParkedChange::Keep(parked) => {
                    self.parked.insert((&parked.subscription, parked.position), Some(parked))
                }
                ParkedChange::Forget(subscription, position) => {
                    self.parked.insert((subscription, *position), None)
                }
            };
        }
        self.pauses.extend(batch.pauses.iter().map(|(subscription, pause)| (subscription, pause.as_ref())));
        for id in &batch.forgotten_dead_letters {
            self.letters.retain(|letter| letter.id != *id);
            let id = Blob::from(codec::id(id));
            known.letters.remove(&id);
            self.forgotten_letters.push(id);
        }
        known.letters.extend(batch.dead_letters.iter().map(|letter| Blob::from(codec::id(&letter.id))));
        self.letters.extend(&batch.dead_letters);
        let receipt = Receipt {
            id: batch.id.clone(),
            position: codec::position(known.head),
            positions,
            recorded_at: codec::timestamp(known.now),
            state_versions,
            is_repeated: false,
        };
        self.receipts.push(NewReceipt {
            id: &batch.id,
            recorded_at: known.now,
            position: known.head,
            events: i32::try_from(receipt.positions.len()).unwrap_or(i32::MAX),
            state_versions: codec::versions(&receipt),
        });
        known.receipts.insert(batch.id.clone(), receipt.clone());
        receipt
    }

    fn record(
        &mut self,
        known: &mut Known<'g>,
        tenant: &Cow<'g, str>,
        batch: &'g Batch,
        event: &'g NewEvent,
        position: i64,
    ) {
        let stream_version = event.tags.first().map(|(name, value)| {
            let count = known.streams.entry(stream(tenant, name, value)).or_default();
            count.events += 1;
            count.is_new = true;
            count.events
        });
        self.tags.extend(event.tags.iter());
        known.head = position;
        let (tenant, recorded_at) = (tenant.clone(), known.now);
        self.events.push(Placed { event, batch, tenant, position, stream_version, recorded_at });
    }

    fn progress(&mut self, known: &mut Known<'_>, change: &ProgressChange) {
        let name = codec::text(change.subscription.as_str()).into_owned();
        let up_to = codec::signed(change.up_to.unwrap_or_default().number());
        let low = known.lows.entry(name.clone()).or_insert(0);
        *low = up_to.max(*low);
        self.lows.insert(name.clone(), *low);
        if let Some(position) = change.done {
            let position = codec::signed(position.number());
            known.done.insert((name.clone(), position));
            self.done.insert((name, position));
        }
    }

    /// Whether nothing of it needs to be written.
    pub(crate) fn is_empty(&self) -> bool {
        self.receipts.is_empty()
    }
}

fn already_done(what: String) -> StoreError {
    StoreError::new(StoreErrorKind::AlreadyDone, what)
}

fn check_undone(known: &Known<'_>, batch: &Batch) -> Result<(), StoreError> {
    if let Some((subscription, message)) = &batch.consumed
        && known
            .consumed
            .contains(&(codec::text(subscription.as_str()).into_owned(), codec::id(message).into()))
    {
        return Err(already_done(format!("{subscription} handled the message {message} before")));
    }
    let mut done = HashSet::new();
    for ProgressChange { subscription, done: position, .. } in &batch.progress {
        let Some(position) = *position else { continue };
        let name = codec::text(subscription.as_str()).into_owned();
        let number = codec::signed(position.number());
        let is_finished =
            known.lows.get(&name).is_some_and(|low| number <= *low) || known.done.contains(&(name, number));
        if is_finished || !done.insert((subscription, position)) {
            return Err(already_done(format!("{subscription} finished the event at {position} before")));
        }
    }
    let mut forgotten = HashSet::new();
    for id in &batch.forgotten_dead_letters {
        if !known.letters.contains(&Blob::from(codec::id(id))) || !forgotten.insert(id) {
            return Err(already_done(format!("the dead letter {id} is not there any more")));
        }
    }
    Ok(())
}

fn check_reply_key(known: &Known<'_>, tenant: &str, batch: &Batch) -> Result<(), StoreError> {
    let Some(reply) = &batch.reply else { return Ok(()) };
    if known.replies.contains(&key(tenant, &reply.key.scope, &reply.key.key)) {
        let what = format!("another reply is kept under the key that {} brings", batch.id);
        return Err(StoreError::new(StoreErrorKind::KeyTaken, what));
    }
    Ok(())
}

/// Checks each change against what those before it leave. Returns the rows, and the new version of each change.
fn plan_state(
    known: &Known<'_>,
    tenant: &str,
    changes: &[StateChange],
    texts: &[Option<String>],
) -> Result<(HashMap<Owned, Entry>, Vec<u64>), StoreError> {
    let mut entries: HashMap<Owned, Entry> = HashMap::new();
    let mut versions = Vec::with_capacity(changes.len());
    for (StateChange { key, expect, time_to_live, .. }, text) in changes.iter().zip(texts) {
        let place = (tenant.to_owned(), codec::text(key).into_owned());
        let stored = || known.state.get(&place).cloned();
        let unknown = || Entry { version: known.state_versions_forgotten, ..Entry::default() };
        let before = entries.get(&place).cloned().or_else(stored).unwrap_or_else(unknown);
        let holds = match expect {
            Expect::Any => true,
            Expect::Absent => !before.is_present(known.now),
            Expect::Version(version) => {
                before.is_present(known.now) && before.version == codec::signed(*version)
            }
        };
        if !holds {
            let what = format!("the state `{key}` is not what its writer expected");
            return Err(StoreError::new(StoreErrorKind::StateConflict, what));
        }
        let version = before.version + i64::from(text.is_some());
        versions.push(if text.is_some() { u64::try_from(version).unwrap_or(0) } else { 0 });
        let expires_at = match (text, time_to_live) {
            (None, _) => Some(known.now),
            (Some(_), None) => None,
            (Some(_), Some(time)) => {
                Some(known.now.saturating_add(i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)))
            }
        };
        entries.insert(place, Entry { value: text.clone(), version, expires_at });
    }
    Ok((entries, versions))
}
