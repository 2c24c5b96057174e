//! What a handler may touch: its first argument.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use purista_core::address::{Address, AddressParts};
use purista_core::bridge::{COMMAND_TIMEOUT, Carried};
use purista_core::contract::Command;
use purista_core::event::Event;
use purista_core::id::Id;
use purista_core::invoke_error::{InvokeError, InvokeErrorKind};
use purista_core::message::{Message, MessageType, Party, Record};
use purista_core::payload::Payload;
use purista_core::recording::{CheckedEvent, RecordError, Recording};
use purista_core::span;
use purista_core::status::Status;
use purista_core::text::Text;
use purista_core::trace::TraceContext;
use purista_events::batch::Condition;
use purista_events::recorded::{Cause, NewEvent};
use tokio::time::Instant;
use tracing::{Instrument, Span};

use crate::gated::{GatedConfig, GatedSecrets};
use crate::idempotency;
use crate::runtime::Runtime;
use crate::state::{SHARED, State};
use crate::unit_of_work::{Changes, EmitError, EmitErrorKind, UnitOfWork};

/// What a handler may touch: its service's resources, the message, and the unit of work. Cheap to clone.
///
/// What is emitted and what is written to the state is collected, and committed together when the handler returns `Ok`;
/// after an error nothing of it exists. An invoke is a unit of work of its own.
pub struct Context<S> {
    inner: Arc<Inner<S>>,
}

pub(crate) struct Inner<S> {
    place: Arc<Place<S>>,
    message: Carried,
    /// When the handler is cut off.
    deadline: Instant,
    attempt: u32,
    unit: UnitOfWork,
}

/// Where a handler lives: one a handler and host.
pub(crate) struct Place<S> {
    pub(crate) resources: Arc<S>,
    pub(crate) runtime: Arc<Runtime>,
    /// The handler, as it calls itself in messages.
    pub(crate) sender: Party,
    pub(crate) emits: Vec<&'static str>,
    pub(crate) invokes: Vec<&'static AddressParts>,
    /// What the way of its messages knows of the handler; only that way looks at it. It lies here because a call then holds
    /// on to one thing and not to two.
    pub(crate) handler: Arc<dyn Any + Send + Sync>,
}

impl<S> Place<S> {
    /// The same place with counters of its own, for other threads.
    pub(crate) fn apart(&self) -> Self {
        Self {
            resources: Arc::clone(&self.resources),
            runtime: Arc::clone(&self.runtime),
            sender: self.sender.clone(),
            emits: self.emits.clone(),
            invokes: self.invokes.clone(),
            handler: Arc::clone(&self.handler),
        }
    }
}

impl<S> Clone for Context<S> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<S> Context<S> {
    pub(crate) fn new(place: Arc<Place<S>>, message: Carried, attempt: u32) -> Self {
        let deadline = message.deadline.unwrap_or_else(|| Instant::now() + COMMAND_TIMEOUT);
        let unit = UnitOfWork::default();
        Self { inner: Arc::new(Inner { place, message, deadline, attempt, unit }) }
    }

    /// With a deadline of the handler's own, for who goes on with a unit that may have been begun before.
    pub(crate) fn within(
        place: Arc<Place<S>>,
        message: Carried,
        deadline: Instant,
        attempt: u32,
        begun: Option<Box<Changes>>,
    ) -> Self {
        let unit = UnitOfWork::begun(begun);
        Self { inner: Arc::new(Inner { place, message, deadline, attempt, unit }) }
    }

    /// The same message with a unit of work of its own.
    pub(crate) fn afresh(&self) -> Self {
        let Inner { place, message, deadline, attempt, .. } = &*self.inner;
        Self::within(Arc::clone(place), message.clone(), *deadline, *attempt, None)
    }

    /// What the service was built with.
    pub fn resources(&self) -> &S {
        &self.inner.place.resources
    }

    /// The message that is handled. Its payload is the handler's second argument, and may no longer be in here.
    pub fn message(&self) -> &Message {
        &self.inner.message
    }

    /// The flow that it belongs to.
    pub fn trace_id(&self) -> &Id {
        &self.inner.message.trace_id
    }

    /// On whose behalf.
    pub fn principal(&self) -> Option<&str> {
        self.inner.message.principal_id.as_deref()
    }

    /// In whose part of the system; state and events are read and written there only.
    pub fn tenant(&self) -> Option<&str> {
        self.inner.message.tenant_id.as_deref()
    }

    /// Which attempt this is, from 1.
    pub fn attempt(&self) -> u32 {
        self.inner.attempt
    }

    /// The time of day, from the host's clock.
    pub fn now(&self) -> Timestamp {
        self.runtime().clock.now()
    }

    /// A new id, from the host's randomness.
    pub fn new_id(&self) -> Id {
        self.runtime().clock.id()
    }

    /// When the handler is cut off.
    pub fn deadline(&self) -> Instant {
        self.inner.deadline
    }

    /// Ends at the deadline or when the host stops: for tasks that a handler starts, and for waits without an end. The
    /// handler itself needs it for nothing: it is dropped at its deadline. Cancel safe.
    pub async fn cancelled(&self) {
        let stop = self.runtime().stop.cancelled();
        // Which of the two came first does not matter.
        let _ = tokio::time::timeout_at(self.deadline(), stop).await;
    }

    /// The state of this service in this tenant; writes are part of the unit of work. Other services do not see it, and
    /// their keys of the same name are other keys. The versions of a service share it.
    pub fn state(&self) -> State<'_> {
        self.state_in(self.inner.place.sender.address.service())
    }

    /// The state that all services of this tenant share: here a key is the same for every service. Writes are part of the
    /// unit of work.
    pub fn shared_state(&self) -> State<'_> {
        self.state_in(SHARED)
    }

    fn state_in<'c>(&'c self, service: &'c str) -> State<'c> {
        State { backend: &self.runtime().state, unit: &self.inner.unit, tenant: self.tenant(), service }
    }

    /// The configuration.
    pub fn config(&self) -> &GatedConfig {
        &self.runtime().config
    }

    /// The secrets.
    pub fn secrets(&self) -> &GatedSecrets {
        &self.runtime().secrets
    }

    /// Adds an event to the unit of work: it leaves when the handler has returned `Ok` and the unit is committed.
    ///
    /// It fails at once when the event breaks its rules, is too large, or was not declared with `.emits::<E>()`.
    pub fn emit<E: Event>(&self, event: E) -> Result<(), EmitError> {
        if !self.inner.place.emits.contains(&E::NAME) {
            return Err(EmitError(EmitErrorKind::Undeclared {
                handler: self.inner.place.sender.address.to_string(),
                event: E::NAME,
                line: format!(".emits::<{}>()", short_type_name::<E>()),
            }));
        }
        event.check().map_err(RecordError::broken::<E>)?;
        self.record(event).map(drop)
    }

    /// Adds a checked event; says whether it goes into the log.
    pub(crate) fn record<E: Event>(&self, event: E) -> Result<bool, EmitError> {
        // In a trace it is made with the event's place.
        let _span =
            (!span::is_on()).then(|| tracing::debug_span!("purista.emitEvent", event = E::NAME).entered());
        let id = self.runtime().clock.id();
        if E::RECORDED && self.runtime().store.is_some() {
            let recorded =
                NewEvent::of(&event, id, self.cause(E::NAME)).map_err(RecordError::not_encodable::<E>)?;
            RecordError::check_bounds(E::NAME, recorded.body.len(), &recorded.tags)?;
            self.runtime().check_carried(E::NAME, recorded.body.len())?;
            self.change(|changes| changes.recorded.push(recorded))?;
            return Ok(true);
        }
        let payload = if self.runtime().bridge.capabilities().is_local {
            RecordError::check_unencoded(&event)?;
            Payload::typed(event)
        } else {
            // Now, and not when the rest is committed: what cannot be carried was not emitted.
            let body = event.encode().map_err(RecordError::not_encodable::<E>)?;
            RecordError::check_bounds(E::NAME, body.len(), &event.tags())?;
            self.runtime().check_carried(E::NAME, body.len())?;
            Payload::encoded(body)
        };
        let message = self.unrecorded(E::NAME, E::VERSION, id, payload);
        self.change(|changes| changes.published.push(message))?;
        Ok(false)
    }

    fn unrecorded(&self, name: &'static str, version: u32, id: Id, payload: Payload) -> Message {
        let record = Record {
            origin: None,
            causation_id: Some(self.inner.message.id.clone()),
            event_version: version,
        };
        Message {
            event_name: Some(Text::known(name)),
            correlation_id: self.inner.message.correlation_id.clone(),
            trace: self.trace_of_event(name),
            record: Some(Box::new(record)),
            payload,
            ..self.inner.message.causes(
                id,
                MessageType::CustomMessage,
                self.runtime().clock.now_ms(),
                self.inner.place.sender.clone(),
            )
        }
    }

    /// Adds what was decided, under the condition that its boundary has not changed.
    pub(crate) fn decided(
        &self,
        recording: Recording,
        condition: Option<Condition>,
    ) -> Result<(), EmitError> {
        let clock = &self.runtime().clock;
        for event in recording.events() {
            self.runtime().check_carried(event.name, event.body.len())?;
        }
        self.change(|changes| {
            let guarded = changes.guarded.get_or_insert_default();
            guarded.conditions.extend(condition);
            guarded.has_decided = true;
            for CheckedEvent { name, version, tags, body, is_recorded } in recording.into_events() {
                if is_recorded {
                    changes.recorded.push(NewEvent {
                        id: clock.id(),
                        name: Text::known(name),
                        version,
                        tags,
                        body,
                        cause: self.cause(name),
                    });
                } else {
                    let payload = Payload::encoded(body);
                    changes.published.push(self.unrecorded(name, version, clock.id(), payload));
                }
            }
        })
    }

    /// Marks the answer with its event; says whether that event is in the log. What a decision has recorded already is not
    /// recorded a second time.
    pub(crate) fn mark<E: Event>(&self, output: &E) -> Result<bool, EmitError> {
        let is_recorded = E::RECORDED && self.runtime().store.is_some();
        let has_decided =
            |changes: &Changes| changes.guarded.as_ref().is_some_and(|guarded| guarded.has_decided);
        if self.inner.unit.look(has_decided) == Some(true) {
            let is_there = self.change(|changes| {
                let is_it = |message: &Message| message.event_name.as_deref() == Some(E::NAME);
                // The response carries what is not recorded, so it does not leave a second time.
                if let Some(place) = changes.published.iter().position(is_it) {
                    changes.published.remove(place);
                }
                changes.recorded.iter().any(|event| &*event.name == E::NAME)
            })?;
            if is_there {
                return Ok(true);
            }
        }
        // Without a log the response itself carries the event.
        if is_recorded { self.record(output.clone()) } else { Ok(false) }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Changes) -> T) -> Result<T, EmitError> {
        self.inner.unit.change(change).map_err(|closed| EmitError(EmitErrorKind::Closed(closed)))
    }

    /// The place in the trace from which those continue who hear the event.
    #[inline(never)]
    fn trace_of_event(&self, name: &str) -> Option<TraceContext> {
        let message = &self.inner.message;
        if span::is_on() {
            return span::emitting(name, message.trace.as_ref(), &message.trace_id);
        }
        message.trace.clone()
    }

    fn cause(&self, event: &str) -> Cause {
        let message = &self.inner.message;
        Cause {
            sender: self.inner.place.sender.clone(),
            principal_id: message.principal_id.clone(),
            trace_id: message.trace_id.clone(),
            trace: self.trace_of_event(event).map(Box::new),
            correlation_id: message.correlation_id.clone(),
            causation_id: Some(message.id.clone()),
            hops: message.hops.saturating_add(1),
        }
    }

    /// Asks another command, and waits for its answer as long as this handler has time. It is a unit of work of its own: it
    /// stays when this handler fails. A handler that runs again gets the first answer again, when who answers has a store.
    ///
    /// It must be declared with `.invokes::<C>()`. `?` hides a callee's refusal behind a 500; see [`InvokeError::forward`].
    pub async fn invoke<C: Command>(&self, command: C) -> Result<C::Output, InvokeError> {
        self.invoke_within(command, None).await
    }

    /// The same with a time-out of its own; what is left of this handler's time still bounds it.
    pub async fn invoke_for<C: Command>(
        &self,
        command: C,
        timeout: Duration,
    ) -> Result<C::Output, InvokeError> {
        self.invoke_within(command, Some(timeout)).await
    }

    async fn invoke_within<C: Command>(
        &self,
        command: C,
        timeout: Option<Duration>,
    ) -> Result<C::Output, InvokeError> {
        let place = &self.inner.place;
        if !place.invokes.contains(&C::ADDRESS) {
            let text = format!(
                "{} does not declare that it invokes {}: add `.invokes::<{}>()` where it is registered",
                place.sender.address,
                Address::known(C::ADDRESS),
                short_type_name::<C>()
            );
            tracing::error!("{text}");
            return Err(InvokeError::new(InvokeErrorKind::Rejected, Status::INTERNAL_SERVER_ERROR, text));
        }
        let input = if self.runtime().derives_keys { idempotency::fingerprint_of(&command) } else { 0 };
        let call = self.inner.unit.change(|changes| {
            changes.invokes_kept += 1;
            changes.call(Address::known(C::ADDRESS), input)
        });
        let nth = call.map_err(|closed| {
            InvokeError::new(InvokeErrorKind::Rejected, Status::INTERNAL_SERVER_ERROR, closed.to_string())
        })?;
        let own = Instant::now() + timeout.unwrap_or(COMMAND_TIMEOUT);
        let deadline = self.deadline().min(own);
        let derived = || idempotency::derived_key(&self.inner.message, C::ADDRESS, input, nth);
        let key = self.runtime().derives_keys.then(derived);
        // In a trace the client makes it.
        let span = if span::is_on() {
            Span::none()
        } else {
            tracing::debug_span!("invoke", otel.name = %format_args!("{}.invoke", place.sender.address),
                receiver = %Address::known(C::ADDRESS))
        };
        let result = self
            .runtime()
            .client
            .invoke_for(&self.inner.message, place.sender.clone(), command, deadline, key)
            .instrument(span)
            .await;
        if result.as_ref().is_err_and(|error| !error.may_have_happened()) {
            // A unit that is closed meanwhile is not asked any more.
            let _ = self.inner.unit.change(|changes| changes.invokes_kept -= 1);
        }
        result
    }

    /// The message and the place of a unit that changed nothing, when no clone of this context lives on, as in a task that
    /// outlives its handler.
    pub(crate) fn untouched(self) -> Result<(Carried, Arc<Place<S>>), Self> {
        let mut inner = Arc::try_unwrap(self.inner).map_err(|inner| Self { inner })?;
        if inner.unit.is_untouched() {
            return Ok((inner.message, inner.place));
        }
        Err(Self { inner: Arc::new(inner) })
    }

    /// The message, moved out when no clone of this context lives on.
    pub(crate) fn into_message(self) -> Carried {
        Arc::try_unwrap(self.inner).map_or_else(|inner| inner.message.clone(), |inner| inner.message)
    }

    pub(crate) fn runtime(&self) -> &Arc<Runtime> {
        &self.inner.place.runtime
    }

    pub(crate) fn place(&self) -> &Arc<Place<S>> {
        &self.inner.place
    }

    pub(crate) fn unit(&self) -> &UnitOfWork {
        &self.inner.unit
    }
}

/// The name of a type as it is written after an import.
pub(crate) fn short_type_name<T>() -> &'static str {
    let name = std::any::type_name::<T>();
    name.rsplit("::").next().unwrap_or(name)
}

impl<S> fmt::Debug for Context<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("handler", &self.inner.place.sender.address)
            .field("message", &self.inner.message.id)
            .field("trace_id", &self.inner.message.trace_id)
            .finish_non_exhaustive()
    }
}
