//! What becomes of each batch of a group: every check first, then what it will have written.
//!
//! The checks only read, so a batch that is refused leaves nothing; their order is that of the memory engine. What is taken
//! changes what is known, so that the next batch of the group finds the log as it will be.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use purista_core::store::{Expect, StateChange};
use purista_events::batch::{Batch, Condition, Receipt};
use purista_events::position::Position;
use purista_events::recorded::{NewEvent, Recorded};
use purista_events::store::{StoreError, StoreErrorKind};
use purista_events::subscriptions::{
    DeadLetter, Parked, ParkedChange, Pause, ProgressChange, SubscriptionId,
};
use tokio::time::Instant;

use crate::codec;
use crate::flight::Blob;
use crate::known::{Entry, Known, Owned, Stream, stream};
use crate::place;

/// What a group will have written, when it is committed.
#[derive(Debug, Default)]
pub(crate) struct Decided<'g> {
    /// The events, with the keys of their tenants.
    pub(crate) events: Vec<(Recorded, String)>,
    pub(crate) streams: HashSet<Stream>,
    pub(crate) state: BTreeSet<Owned>,
    pub(crate) replies: Vec<(&'g Batch, String)>,
    pub(crate) consumed: Vec<(String, Blob)>,
    /// The new low marks; and what is finished beyond them.
    pub(crate) lows: BTreeMap<String, i64>,
    pub(crate) done: BTreeSet<(String, i64)>,
    pub(crate) parked: BTreeMap<(&'g SubscriptionId, Position), Option<&'g Parked>>,
    pub(crate) pauses: BTreeMap<&'g SubscriptionId, Option<&'g Pause>>,
    pub(crate) letters: Vec<&'g DeadLetter>,
    pub(crate) forgotten_letters: Vec<Blob>,
    pub(crate) receipts: Vec<Receipt>,
}

impl<'g> Decided<'g> {
    /// Decides on the batch of this number. `texts` are the values of its state as they will lie in their rows.
    pub(crate) fn batch(
        &mut self,
        known: &mut Known,
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
        known: &Known,
        number: [usize; 2],
        tenant: &str,
        condition: &Condition,
    ) -> Result<(), StoreError> {
        let conflict = |what| Err(StoreError::new(StoreErrorKind::Conflict, what));
        match condition {
            Condition::Always => Ok(()),
            Condition::Stream { name, value, version } => {
                let actual = known.streams.get(&stream(tenant, name, value)).copied().unwrap_or(0);
                if actual == codec::signed(*version) {
                    return Ok(());
                }
                // The value of a tag may be somebody's e-mail address: it stays out of the text.
                conflict(format!("a stream of `{name}` has {actual} events, not {version}"))
            }
            Condition::Unless(query, _) => {
                let before = known.broken.get(&number).map(|(name, position)| (name.as_str(), *position));
                // What the batches before it in the group record comes after every token.
                let of_group = self.events.iter().find(|(event, _)| query.selects(event));
                let of_group =
                    of_group.map(|(event, _)| (&*event.name, codec::signed(event.position.number())));
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

    /// Takes what was checked.
    fn write(
        &mut self,
        known: &mut Known,
        tenant: &str,
        batch: &'g Batch,
        entries: HashMap<Owned, Entry>,
        state_versions: Vec<u64>,
    ) -> Receipt {
        let events: Vec<&NewEvent> = batch.appends.iter().flat_map(|append| &append.events).collect();
        let positions: Vec<Position> =
            place::positions(known.base, self.events.len() + 1, events.len()).collect();
        for (event, position) in events.into_iter().zip(&positions) {
            self.record(known, tenant, batch, event, *position);
        }
        self.state.extend(entries.keys().cloned());
        known.state.extend(entries);
        if let Some(reply) = &batch.reply {
            known.replies.insert(stream(tenant, &reply.key.scope, &reply.key.key));
            self.replies.push((batch, tenant.to_owned()));
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
        known.receipts.insert(batch.id.clone(), receipt.clone());
        self.receipts.push(receipt.clone());
        receipt
    }

    fn record(
        &mut self,
        known: &mut Known,
        tenant: &str,
        batch: &Batch,
        event: &NewEvent,
        position: Position,
    ) {
        let stream_version = event.tags.first().map(|(name, value)| {
            let stream = stream(tenant, name, value);
            let count = known.streams.entry(stream.clone()).or_insert(0);
            *count += 1;
            self.streams.insert(stream);
            u64::try_from(*count).unwrap_or(0)
        });
        let NewEvent { id, name, version, tags, body, cause } = event.clone();
        known.head = codec::signed(position.number());
        let recorded = Recorded {
            position,
            id,
            name,
            version,
            tags,
            stream_version,
            recorded_at: codec::timestamp(known.now),
            tenant_id: batch.tenant.clone(),
            cause,
            body,
        };
        self.events.push((recorded, tenant.to_owned()));
    }

    fn progress(&mut self, known: &mut Known, change: &ProgressChange) {
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

fn check_undone(known: &Known, batch: &Batch) -> Result<(), StoreError> {
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

fn check_reply_key(known: &Known, tenant: &str, batch: &Batch) -> Result<(), StoreError> {
    let Some(reply) = &batch.reply else { return Ok(()) };
    if known.replies.contains(&stream(tenant, &reply.key.scope, &reply.key.key)) {
        let what = format!("another reply is kept under the key that {} brings", batch.id);
        return Err(StoreError::new(StoreErrorKind::KeyTaken, what));
    }
    Ok(())
}

/// Checks each change against what those before it leave. Returns the rows, and the new version of each change.
fn plan_state(
    known: &Known,
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
