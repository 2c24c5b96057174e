//! The commit: every check first, in the order of [`crate::store::EventStore::commit`], then writing, which cannot fail.

use std::collections::{HashMap, HashSet};

use purista_core::store::{Expect, StateChange};
use tokio::time::Instant;

use crate::batch::{Batch, Condition, Receipt};
use crate::error::{StoreError, StoreErrorKind};
use crate::memory::log::{Entry, Expiring, Log, Tenant};
use crate::position::Position;
use crate::recorded::{NewEvent, Recorded};
use crate::subscriptions::{ParkedChange, ProgressChange};

/// The changes of state of a batch whose expectations held.
struct PlannedState {
    entries: HashMap<String, Entry>,
    versions: Vec<u64>,
}

impl Log {
    pub(super) fn commit(&mut self, batch: Batch, now: jiff::Timestamp) -> Result<Receipt, StoreError> {
        self.let_time_pass(now);
        if let Some(first) = self.receipts.get(&batch.id) {
            return Ok(Receipt { is_repeated: true, ..first.clone() });
        }
        batch.check_bounds()?;
        if batch.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            let what = format!("the deadline of {} passed before its write began", batch.id);
            return Err(StoreError::new(StoreErrorKind::DeadlinePassed, what));
        }
        self.check_undone(&batch)?;
        self.check_reply_key(&batch)?;
        for append in &batch.appends {
            self.check_condition(&append.condition, &batch.tenant)?;
        }
        let state = self.plan_state(&batch.state, &batch.tenant)?;
        Ok(self.write(batch, state))
    }

    fn check_undone(&self, batch: &Batch) -> Result<(), StoreError> {
        if let Some((subscription, message)) = &batch.consumed
            && self.is_consumed(subscription, message)
        {
            let what = format!("{subscription} handled the message {message} before");
            return Err(StoreError::new(StoreErrorKind::AlreadyDone, what));
        }
        let mut done = HashSet::new();
        for ProgressChange { subscription, done: position, .. } in &batch.progress {
            let Some(position) = *position else { continue };
            let progress = self.subscriptions.get(subscription).and_then(|kept| kept.progress.as_ref());
            let is_finished = progress.is_some_and(|progress| progress.is_finished(position));
            if is_finished || !done.insert((subscription, position)) {
                let what = format!("{subscription} finished the event at {position} before");
                return Err(StoreError::new(StoreErrorKind::AlreadyDone, what));
            }
        }
        let mut forgotten = HashSet::new();
        for id in &batch.forgotten_dead_letters {
            if !self.dead_letters.iter().any(|letter| letter.id == *id) || !forgotten.insert(id) {
                let what = format!("the dead letter {id} is not there any more");
                return Err(StoreError::new(StoreErrorKind::AlreadyDone, what));
            }
        }
        Ok(())
    }

    fn check_reply_key(&self, batch: &Batch) -> Result<(), StoreError> {
        let Some(reply) = &batch.reply else { return Ok(()) };
        if self.replies.contains_key(&(batch.tenant.clone(), reply.key.clone())) {
            let what = format!("another reply is kept under the key that {} brings", batch.id);
            return Err(StoreError::new(StoreErrorKind::KeyTaken, what));
        }
        Ok(())
    }

    fn check_condition(&self, condition: &Condition, tenant: &Tenant) -> Result<(), StoreError> {
        let conflict = |what| Err(StoreError::new(StoreErrorKind::Conflict, what));
        match condition {
            Condition::Always => Ok(()),
            Condition::Stream { name, value, version } => {
                let key = (tenant.clone(), name.clone(), value.clone());
                let actual = self.streams.get(&key).copied().unwrap_or(0);
                if actual == *version {
                    return Ok(());
                }
                // The value of a tag may be somebody's e-mail address: it stays out of the text.
                conflict(format!("a stream of `{name}` has {actual} events, not {version}"))
            }
            Condition::Unless(query, token) => {
                match self.after(token.position()).iter().find(|event| query.selects(event)) {
                    None => Ok(()),
                    Some(event) => conflict(format!("`{}` was recorded at {}", event.name, event.position)),
                }
            }
        }
    }

    fn plan_state(&self, changes: &[StateChange], tenant: &Tenant) -> Result<PlannedState, StoreError> {
        let mut planned = PlannedState { entries: HashMap::new(), versions: Vec::new() };
        for StateChange { key, expect, value, time_to_live } in changes {
            let stored = || self.state.get(&(tenant.clone(), key.clone())).cloned();
            let before = planned.entries.remove(key).or_else(stored).unwrap_or_default();
            let is_present = before.value_at(self.time).is_some();
            let holds = match expect {
                Expect::Any => true,
                Expect::Absent => !is_present,
                Expect::Version(version) => is_present && before.version == *version,
            };
            if !holds {
                let what = format!("the state `{key}` is not what its writer expected");
                return Err(StoreError::new(StoreErrorKind::StateConflict, what));
            }
            let version = before.version + u64::from(value.is_some());
            let expires_at = time_to_live.and_then(|duration| self.time.checked_add(duration).ok());
            planned.versions.push(if value.is_some() { version } else { 0 });
            planned.entries.insert(key.clone(), Entry { value: value.clone(), version, expires_at });
        }
        Ok(planned)
    }

    /// Writes what was checked.
    fn write(&mut self, batch: Batch, state: PlannedState) -> Receipt {
        let (tenant, recorded_at) = (batch.tenant, self.time);
        let events = batch.appends.into_iter().flat_map(|append| append.events);
        let positions: Vec<Position> = events.map(|event| self.record(event, &tenant)).collect();

        let entries = state.entries.into_iter().map(|(key, entry)| ((tenant.clone(), key), entry));
        self.state.extend(entries);

        if let Some(reply) = batch.reply {
            self.expiring.push_back((recorded_at, Expiring::Reply(tenant.clone(), reply.key.clone())));
            self.replies.insert((tenant, reply.key.clone()), reply);
        }
        if let Some((subscription, message)) = batch.consumed {
            let expiring = Expiring::Consumed(subscription.clone(), message.clone());
            self.expiring.push_back((recorded_at, expiring));
            self.consumed.insert((subscription, message));
        }
        for change in batch.progress {
            self.progress(change);
        }
        for change in batch.parked {
            self.park(change);
        }
        for (subscription, pause) in batch.pauses {
            self.subscriptions.entry(subscription).or_default().pause = pause;
        }
        self.subscriptions.retain(|_, kept| !kept.is_empty());
        let forgotten = batch.forgotten_dead_letters;
        self.dead_letters.retain(|letter| !forgotten.contains(&letter.id));
        self.dead_letters.extend(batch.dead_letters);

        let receipt = Receipt {
            id: batch.id.clone(),
            position: self.head(),
            positions,
            recorded_at,
            state_versions: state.versions,
            is_repeated: false,
        };
        self.expiring.push_back((recorded_at, Expiring::Receipt(batch.id.clone())));
        self.receipts.insert(batch.id, receipt.clone());
        receipt
    }

    fn record(&mut self, event: NewEvent, tenant: &Tenant) -> Position {
        let NewEvent { id, name, version, tags, body, cause } = event;
        let position = self.head().next();
        let stream = tags.first().map(|(name, value)| (tenant.clone(), name.to_owned(), value.to_owned()));
        let stream_version = stream.map(|stream| {
            let events = self.streams.entry(stream).or_insert(0);
            *events += 1;
            *events
        });
        self.events.push(Recorded {
            position,
            id,
            name,
            version,
            tags,
            stream_version,
            recorded_at: self.time,
            tenant_id: tenant.clone(),
            cause,
            body,
        });
        position
    }

    fn progress(&mut self, change: ProgressChange) {
        let kept = self.subscriptions.entry(change.subscription).or_default();
        let progress = kept.progress.get_or_insert_default();
        progress.done.extend(change.done);
        progress.low = progress.low.max(change.up_to.unwrap_or_default());
        // What lies at or below the low mark is finished by it.
        progress.done = progress.done.split_off(&progress.low.next());
    }

    fn park(&mut self, change: ParkedChange) {
        match change {
            ParkedChange::Keep(parked) => {
                let kept = self.subscriptions.entry(parked.subscription.clone()).or_default();
                kept.parked.insert(parked.position, parked);
            }
            ParkedChange::Forget(subscription, position) => {
                if let Some(kept) = self.subscriptions.get_mut(&subscription) {
                    kept.parked.remove(&position);
                }
            }
        }
    }
}
