//! One attempt at one event, up to what the store knows of it.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use purista_core::error::HandlerError;
use purista_core::message::Message;
use purista_events::batch::Batch;
use purista_events::position::Position;
use purista_events::recorded::Recorded;
use purista_events::store::{EventStore, StoreError, StoreErrorKind};
use purista_events::subscriptions::{
    DeadLetter, DeadLetterSource, Failure, HISTORY_MAX, Parked, ParkedChange, Pause, ProgressChange,
    SubscriptionId,
};
use purista_events::upcast::UnreadableEvent;
use tracing::Instrument;

use super::event_at;
use super::ledger::{Job, Overflow};
use crate::commit::{Beside, CommitError, commit, settled};
use crate::failure::{panic_text, unreadable};
use crate::hearing::Heard;
use crate::listener::Listener;
use crate::observation::Ending;
use crate::runtime::Runtime;
use crate::unit_of_work::Changes;
use crate::verdict::Verdict;

/// What an attempt needs.
pub(crate) struct Attempt {
    pub(crate) listener: Arc<dyn Listener>,
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) store: Arc<dyn EventStore>,
    pub(crate) id: SubscriptionId,
    /// So many events wait that another one must not.
    pub(crate) is_full: bool,
}

/// What an attempt came to.
pub(crate) struct Ended {
    pub(crate) position: Position,
    pub(crate) how: How,
}

pub(crate) enum How {
    /// Handled, refused or given up; whether the store knows.
    Finished {
        is_saved: bool,
    },
    Parked(Parked),
    ParkedBehind(Vec<Parked>),
    /// Dead letters without an attempt.
    GivenUp(Vec<Position>),
    Paused,
    Failed(StoreError),
}

/// An event that is tried, and what was tried before.
struct Trial {
    event: Recorded,
    attempt: u32,
    /// Present when it was parked.
    history: Option<Vec<Failure>>,
}

impl Attempt {
    pub(crate) async fn run(self, job: Job) -> Ended {
        match job {
            Job::First(event) => self.attempt(Trial { event, attempt: 1, history: None }).await,
            Job::Again(parked) => {
                let position = parked.position;
                match event_at(&*self.store, position).await {
                    Ok(Some(event)) => {
                        let attempt = parked.attempts.saturating_add(1);
                        self.attempt(Trial { event, attempt, history: Some(parked.history) }).await
                    }
                    Ok(None) => {
                        let what = format!("the parked event at {position} is not in the log");
                        Ended { position, how: How::Failed(StoreError::new(StoreErrorKind::Corrupt, what)) }
                    }
                    Err(error) => Ended { position, how: How::Failed(error) },
                }
            }
            Job::ParkBehind(events) => self.park_behind(&events).await,
            Job::GiveUp(events) => self.give_up(&events).await,
        }
    }

    async fn attempt(self, trial: Trial) -> Ended {
        let position = trial.event.position;
        // An upcaster is the user's code.
        let read = std::panic::catch_unwind(AssertUnwindSafe(|| self.messages(&trial.event)));
        let messages = match read {
            Ok(messages) => messages.map_err(|error| unreadable(&error)),
            Err(panic) => Err(HandlerError::failed(panic_text(&*panic))),
        };
        let (mut heard, result) = match messages {
            Ok(messages) => self.hear(messages, &trial).await,
            Err(error) => {
                let message = trial.event.to_message(&self.store.origin());
                (Heard::unreadable(message.into()), Err(error))
            }
        };
        let how = match result {
            Ok(changes) => match self.conclude(&trial, &heard, changes).await {
                Ok(is_saved) => {
                    heard.settled(Ending::Done);
                    How::Finished { is_saved }
                }
                Err(CommitError::AlreadyDone) => How::Finished { is_saved: true },
                Err(error) => self.failed(&trial, heard, &HandlerError::from(error)).await,
            },
            Err(error) => self.failed(&trial, heard, &error).await,
        };
        Ended { position, how }
    }

    /// The messages of an event: one, unless it is of an older form, which may have become none or several.
    fn messages(&self, event: &Recorded) -> Result<Vec<Message>, UnreadableEvent> {
        let (terms, origin) = (&self.listener.listening().terms, self.store.origin());
        let mut messages = Vec::with_capacity(1);
        let mut admit = |event: &Recorded| {
            let message = event.to_message(&origin);
            // A set criterion that the query does not say is asked here.
            if terms.filter.matches(&message) {
                messages.push(message);
            }
        };
        let Some(version) = terms.version else {
            admit(event);
            return Ok(messages);
        };
        let wanted =
            |name: &str| terms.filter.event_names.iter().any(|known| &**known == name).then_some(version);
        self.runtime.upcasters.read(event, wanted, |name, version, body| {
            if (name, version) == (&event.name, event.version) {
                admit(event);
            } else {
                admit(&Recorded { name: name.clone(), version, body: body.clone(), ..event.clone() });
            }
            Ok::<_, UnreadableEvent>(())
        })?;
        Ok(messages)
    }

    /// Runs the handler for each message, all in one unit of work: what one event has become is finished together.
    async fn hear(
        &self,
        messages: Vec<Message>,
        trial: &Trial,
    ) -> (Heard, Result<Option<Box<Changes>>, HandlerError>) {
        let mut heard = None;
        let mut begun = None;
        for message in messages {
            let mut next = Arc::clone(&self.listener).hear(message.into(), trial.attempt, begun.take()).await;
            let result = std::mem::replace(&mut next.result, Ok(None));
            match result {
                Ok(changes) => begun = changes,
                Err(error) => return (next, Err(error)),
            }
            heard = Some(next);
        }
        let nothing = || Heard::unreadable(trial.event.to_message(&self.store.origin()).into());
        (heard.unwrap_or_else(nothing), Ok(begun.filter(|changes| changes.commits())))
    }

    /// Commits what the handler did together with the progress. A handler that changed nothing costs no commit of its own.
    async fn conclude(
        &self,
        trial: &Trial,
        heard: &Heard,
        changes: Option<Box<Changes>>,
    ) -> Result<bool, CommitError> {
        if changes.is_none() && trial.history.is_none() {
            return Ok(false);
        }
        let (progress, parked) = self.done(trial);
        let beside = Beside { progress, parked, ..Beside::default() };
        commit(&self.runtime, &heard.message, changes, beside).instrument(heard.span.clone()).await?;
        Ok(true)
    }

    /// What the store is told of an event that is finished: progress, or that it is parked no more.
    fn done(&self, trial: &Trial) -> (Vec<ProgressChange>, Vec<ParkedChange>) {
        let (subscription, position) = (self.id.clone(), trial.event.position);
        match trial.history {
            Some(_) => (Vec::new(), vec![ParkedChange::Forget(subscription, position)]),
            None => (vec![ProgressChange { subscription, up_to: None, done: Some(position) }], Vec::new()),
        }
    }

    async fn failed(&self, trial: &Trial, mut heard: Heard, error: &HandlerError) -> How {
        let retry = &self.listener.listening().terms.retry;
        let verdict = match retry.verdict(error, trial.attempt, &self.runtime.clock) {
            // What waits already keeps its place.
            Verdict::Retry { reason, .. } if self.is_full && trial.history.is_none() => {
                Verdict::DeadLetter { reason: format!("{reason}; {}", Overflow::Subscription.reason()) }
            }
            verdict => verdict,
        };
        verdict.log(self.id.as_str(), &heard.message, trial.attempt);
        let now = self.runtime.clock.now();
        let history = |reason: &str| {
            let mut history = trial.history.clone().unwrap_or_default();
            history.push(Failure { at: now, attempt: trial.attempt, reason: reason.to_owned() });
            history.drain(..history.len().saturating_sub(HISTORY_MAX));
            history
        };
        let mut batch = Batch::new(self.runtime.clock.id(), None);
        (batch.progress, batch.parked) = self.done(trial);
        let how = match &verdict {
            Verdict::Final { .. } | Verdict::Drop { .. } => How::Finished { is_saved: true },
            Verdict::Retry { after, reason } => {
                let due = now.checked_add(*after).unwrap_or(jiff::Timestamp::MAX);
                let parked = self.parked(&trial.event, trial.attempt, Some(due), history(reason));
                batch.parked = vec![ParkedChange::Keep(parked.clone())];
                How::Parked(parked)
            }
            Verdict::DeadLetter { reason } => {
                batch.dead_letters.push(DeadLetter {
                    id: self.runtime.clock.id(),
                    subscription: self.id.clone(),
                    source: DeadLetterSource::Event(trial.event.position),
                    at: now,
                    reason: reason.clone(),
                    attempts: trial.attempt,
                    trace_id: heard.message.trace_id.clone(),
                    history: history(reason),
                });
                How::Finished { is_saved: true }
            }
            Verdict::Pause { reason } => {
                // Nothing is finished: the event comes again when the subscription goes on.
                (batch.progress, batch.parked) = (Vec::new(), Vec::new());
                batch.pauses.push((self.id.clone(), Some(Pause { since: now, reason: reason.clone() })));
                How::Paused
            }
        };
        match settled(&self.store, batch).await {
            Ok(()) => {
                heard.settled(verdict.ending(error));
                how
            }
            Err(error) if error.kind() == StoreErrorKind::AlreadyDone => How::Finished { is_saved: true },
            Err(error) => How::Failed(error),
        }
    }

    fn parked(
        &self,
        event: &Recorded,
        attempts: u32,
        due: Option<jiff::Timestamp>,
        history: Vec<Failure>,
    ) -> Parked {
        let (subscription, position, key) = (self.id.clone(), event.position, event.order_key());
        Parked { subscription, position, attempts, key, due, history }
    }

    async fn park_behind(&self, events: &[Recorded]) -> Ended {
        let mut batch = Batch::new(self.runtime.clock.id(), None);
        let parked: Vec<_> = events.iter().map(|event| self.parked(event, 0, None, Vec::new())).collect();
        for one in &parked {
            let (subscription, position) = (self.id.clone(), one.position);
            batch.progress.push(ProgressChange { subscription, up_to: None, done: Some(position) });
            batch.parked.push(ParkedChange::Keep(one.clone()));
        }
        let position = events.first().map_or(Position::START, |event| event.position);
        let how = match settled(&self.store, batch).await {
            Ok(()) => How::ParkedBehind(parked),
            Err(error) => How::Failed(error),
        };
        Ended { position, how }
    }

    /// Makes dead letters of events that would wait behind one of their key.
    async fn give_up(&self, events: &[(Recorded, Overflow)]) -> Ended {
        let (clock, mut batch) = (&self.runtime.clock, Batch::new(self.runtime.clock.id(), None));
        for (event, overflow) in events {
            let (subscription, position, reason) = (self.id.clone(), event.position, overflow.reason());
            batch.dead_letters.push(DeadLetter {
                id: clock.id(),
                subscription: subscription.clone(),
                source: DeadLetterSource::Event(position),
                at: clock.now(),
                reason,
                attempts: 0,
                trace_id: event.cause.trace_id.clone(),
                history: Vec::new(),
            });
            batch.progress.push(ProgressChange { subscription, up_to: None, done: Some(position) });
        }
        let position = events.first().map_or(Position::START, |(event, _)| event.position);
        let reason = events.first().map(|(_, overflow)| overflow.reason());
        let how = match settled(&self.store, batch).await {
            Ok(()) => {
                tracing::error!(subscription = %self.id, events = events.len(), reason, "events became dead letters without an attempt");
                How::GivenUp(events.iter().map(|(event, _)| event.position).collect())
            }
            Err(error) => How::Failed(error),
        };
        Ended { position, how }
    }
}
