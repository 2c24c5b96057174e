//! Invokes commands and emits events over a bridge: what doors, tests and programs outside of handlers use.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, select_ok};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::address::Address;
use crate::bridge::{Answer, Asking, BridgeError, BridgeErrorKind, COMMAND_TIMEOUT, EventBridge};
use crate::clock::Clock;
use crate::contract::{Command, Contract};
use crate::event::Event;
use crate::id::Id;
use crate::invoke_error::{InvokeError, InvokeErrorKind};
use crate::message::{HOPS_MAX, Message, MessageType, Party, Record};
use crate::outline::UnencodedBounds;
use crate::payload::{EVENT_BYTES_MAX, Payload};
use crate::recording::{CheckedEvent, RecordError};
use crate::sharded::{Sharded, shards};
use crate::span;
use crate::status::Status;
use crate::text::Text;
use crate::trace::TraceContext;

/// How many calls of one client are under way at a time, unless it says otherwise; the others wait until their deadline.
pub const CALLS_IN_FLIGHT_DEFAULT: usize = 1024;

/// Invokes commands and emits events. Cheap to clone; clones share the bound on calls under way.
///
/// ```no_run
/// # use purista_core::{client::Client, contract::Command, invoke_error::InvokeError};
/// # async fn example<SignUp: Command>(client: Client, sign_up: SignUp) -> Result<SignUp::Output, InvokeError> {
/// client.call(sign_up).tenant("acme").idempotency_key("order-17").send().await
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    bridge: Arc<dyn EventBridge>,
    clock: Clock,
    entrances: Arc<Sharded<Entrance>>,
    recorder: Option<Arc<dyn EventRecorder>>,
}

/// Records events that enter from outside of handlers; the client of a host with a store has one.
pub trait EventRecorder: Send + Sync + 'static {
    /// Records a checked event for this cause. `Ok` means that it is committed.
    ///
    /// # Errors
    ///
    /// Returns an error that says whether it may have been recorded all the same.
    fn record(&self, event: CheckedEvent, cause: OutsideCause) -> BoxFuture<'_, Result<(), InvokeError>>;
}

/// Who emits an event from outside of handlers, and for whom.
#[derive(Debug, Clone)]
pub struct OutsideCause {
    /// The client.
    pub sender: Party,
    /// The authenticated principal, if any.
    pub principal_id: Option<Arc<str>>,
    /// The tenant.
    pub tenant_id: Option<Arc<str>>,
    /// The trace id.
    pub trace_id: Id,
}

/// What every call takes, a part of it for every few threads.
struct Entrance {
    sender: Party,
    /// The places among the calls under way.
    places: Semaphore,
}

/// One command as it enters the house, before anybody has decoded it.
#[derive(Debug, Clone)]
pub struct Request {
    /// The command.
    pub receiver: Address,
    /// The input, without the fields that travel apart.
    pub payload: Payload,
    /// The fields that travel apart, as a JSON object.
    pub parameter: Option<Bytes>,
    /// How the sender calls the place it came in at, as PURISTA's `$$endpoint:post:/api/v1/sign-up`.
    pub sender: Option<Address>,
    /// On whose behalf.
    pub principal_id: Option<Arc<str>>,
    /// In whose part of the system.
    pub tenant_id: Option<Arc<str>>,
    /// The flow; a new one when absent.
    pub trace_id: Option<Id>,
    /// The technical trace.
    pub trace: Option<TraceContext>,
    /// Under which it may be asked again.
    pub idempotency_key: Option<Arc<str>>,
    /// How long the answer is of use; [`COMMAND_TIMEOUT`] when absent.
    pub timeout: Option<Duration>,
}

impl Request {
    /// A request with nothing but an input.
    pub fn new(receiver: Address, payload: Payload) -> Self {
        Self {
            receiver,
            payload,
            parameter: None,
            sender: None,
            principal_id: None,
            tenant_id: None,
            trace_id: None,
            trace: None,
            idempotency_key: None,
            timeout: None,
        }
    }
}

impl Client {
    /// A client that calls itself `sender` in its messages. At most `calls_in_flight` of its calls are under way at a time.
    pub fn new(bridge: Arc<dyn EventBridge>, sender: Address, clock: Clock, calls_in_flight: usize) -> Self {
        let sender = Party { address: sender, instance: Some(bridge.instance()) };
        let places = calls_in_flight.max(1);
        let entrances = shards().min(places);
        let entrance = |nth: usize| Entrance {
            sender: sender.clone(),
            places: Semaphore::new(places / entrances + usize::from(nth < places % entrances)),
        };
        Self { bridge, clock, entrances: Arc::new(Sharded::of((0..entrances).map(entrance))), recorder: None }
    }

    /// Asks, and waits for the answer, at most [`COMMAND_TIMEOUT`]. Dropping the future does not stop the handler.
    pub async fn invoke<C: Command>(&self, command: C) -> Result<C::Output, InvokeError> {
        // Written out, and not by way of a `Request`: every step that hands on a large value by a future copies it.
        let deadline = Instant::now() + COMMAND_TIMEOUT;
        let entrance = self.entrances.mine();
        let place = match entrance.places.try_acquire() {
            Ok(place) => place,
            Err(_) => self.wait_for_place(deadline).await?,
        };
        let (receiver, payload) = (Address::known(C::ADDRESS), Payload::command(command));
        let sender = entrance.sender.clone();
        let asking = self.ask(self.entering(sender, receiver, payload, None, deadline));
        let output = decoded(asking).await;
        drop(place);
        output
    }

    /// Asks with a tenant, a principal, a trace, a key or a time-out.
    pub fn call<C: Command>(&self, command: C) -> Call<'_, C> {
        let request = Request::new(Address::known(C::ADDRESS), Payload::command(command));
        Call { client: self, request, output: std::marker::PhantomData }
    }

    /// Sends a command that nobody has decoded yet and returns its response, of success or of error. Waits for a free
    /// place among the calls under way, at most until the deadline: then it never happened.
    pub async fn request(&self, request: Request) -> Answer {
        let deadline = Instant::now() + request.timeout.unwrap_or(COMMAND_TIMEOUT);
        let place = match self.entrances.mine().places.try_acquire() {
            Ok(place) => place,
            Err(_) => self.wait_for_place(deadline).await?,
        };
        let response = self.ask(self.command(request, deadline)).await;
        drop(place);
        response
    }

    /// The first place that is free at any entrance.
    #[cold]
    fn wait_for_place(&self, deadline: Instant) -> BoxFuture<'_, Result<SemaphorePermit<'_>, BridgeError>> {
        Box::pin(async move {
            let waits = self.entrances.all().map(|entrance| Box::pin(entrance.places.acquire()));
            match tokio::time::timeout_at(deadline, select_ok(waits)).await {
                Ok(Ok((place, _))) => Ok(place),
                _ => Err(BridgeError::new(BridgeErrorKind::Rejected, "too many calls are under way")),
            }
        })
    }

    /// A command as it enters the house, with nothing but what every command has.
    fn entering(
        &self,
        sender: Party,
        receiver: Address,
        payload: Payload,
        trace_id: Option<Id>,
        deadline: Instant,
    ) -> Box<Message> {
        let bits = self.clock.random();
        let trace_id = trace_id.unwrap_or_else(|| self.clock.id());
        Box::new(Message {
            receiver: Some(Party::anywhere(receiver)),
            correlation_id: Some(Id::from_random(pairing(bits))),
            payload,
            deadline: Some(deadline),
            ..Message::new(Id::from_random(bits), MessageType::Command, self.clock.now_ms(), sender, trace_id)
        })
    }

    fn command(&self, request: Request, deadline: Instant) -> Box<Message> {
        let mut sender = self.sender().clone();
        if let Some(address) = request.sender {
            sender.address = address;
        }
        let mut message =
            self.entering(sender, request.receiver, request.payload, request.trace_id, deadline);
        message.trace = request.trace;
        message.principal_id = request.principal_id;
        message.tenant_id = request.tenant_id;
        message.parameter = request.parameter;
        message.idempotency_key = request.idempotency_key;
        message
    }

    /// Asks on behalf of a handler: `cause` hands down trace, principal, tenant and its hops.
    /// `deadline` is no later than the handler's own.
    /// It takes no place among the calls under way: if 64 handlers call 64, none must wait for another's place.
    pub async fn invoke_for<C: Command>(
        &self,
        cause: &Message,
        sender: Party,
        command: C,
        deadline: Instant,
        idempotency_key: Option<Arc<str>>,
    ) -> Result<C::Output, InvokeError> {
        if cause.hops >= HOPS_MAX {
            let text = format!("more than {HOPS_MAX} messages cause one another");
            return Err(InvokeError::new(InvokeErrorKind::Rejected, Status::LOOP_DETECTED, text)
                .traced(&cause.trace_id));
        }
        let bits = self.clock.random();
        let message = Message {
            receiver: Some(Party::anywhere(Address::known(C::ADDRESS))),
            correlation_id: Some(Id::from_random(pairing(bits))),
            payload: Payload::command(command),
            deadline: Some(deadline),
            idempotency_key,
            ..cause.causes(Id::from_random(bits), MessageType::Command, self.clock.now_ms(), sender)
        };
        decoded(self.ask(Box::new(message))).await
    }

    /// Emits an event from outside of any handler, when the returned value is awaited or sent.
    ///
    /// The client of a host with a store records it, like an event that a handler emits: it reaches durable subscriptions and
    /// projections, and the relay publishes it. An event with `RECORDED = false`, and every event of a client without a store,
    /// is published at once.
    ///
    /// ```no_run
    /// # use purista_core::{client::Client, event::Event, invoke_error::InvokeError};
    /// # async fn example<Ordered: Event>(client: Client, one: Ordered, other: Ordered) -> Result<(), InvokeError> {
    /// client.emit(one).await?;
    /// client.emit(other).tenant("acme").principal("ada").await
    /// # }
    /// ```
    pub fn emit<E: Event>(&self, event: E) -> Emit<'_, E> {
        Emit { client: self, event, tenant_id: None, principal_id: None, trace_id: None }
    }

    /// Records what it emits by this.
    #[must_use]
    pub fn recording(self, recorder: Arc<dyn EventRecorder>) -> Self {
        Self { recorder: Some(recorder), ..self }
    }

    #[inline]
    fn ask(&self, command: Box<Message>) -> Asking<'_> {
        if span::is_on() { span::request(&*self.bridge, command) } else { self.bridge.request(command) }
    }

    /// The bridge that it speaks over.
    pub fn bridge(&self) -> &Arc<dyn EventBridge> {
        &self.bridge
    }

    /// How many calls may begin now.
    pub fn free_places(&self) -> usize {
        self.entrances.all().map(|entrance| entrance.places.available_permits()).sum()
    }

    fn sender(&self) -> &Party {
        &self.entrances.mine().sender
    }
}

/// The random bits of a correlation, of those of its message's id: both travel in the same message, so whoever knows one knows
/// the other anyway, and a third draw a command is spared.
fn pairing(bits: u128) -> u128 {
    bits.rotate_left(64)
}

/// Waits for a response, and decodes it.
fn decoded<O: Contract>(mut asking: Asking<'_>) -> impl Future<Output = Result<O, InvokeError>> + Send {
    std::future::poll_fn(move |cx| match Pin::new(&mut asking).poll(cx) {
        Poll::Ready(Ok(ref mut response)) => Poll::Ready(decode(response)),
        Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
        Poll::Pending => Poll::Pending,
    })
}

fn decode<O: Contract>(response: &mut Message) -> Result<O, InvokeError> {
    if let Some(error) = InvokeError::of_response(response) {
        return Err(error);
    }
    let payload = std::mem::take(&mut response.payload);
    payload.take().map_err(|error| InvokeError::undecodable(error, &response.trace_id))
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("sender", &self.sender().address)
            .field("free_places", &self.free_places())
            .finish()
    }
}

/// One call with more than its input; made by [`Client::call`].
#[derive(Debug)]
#[must_use = "a call does nothing until it is sent"]
pub struct Call<'c, C: Command> {
    client: &'c Client,
    request: Request,
    output: std::marker::PhantomData<fn() -> C::Output>,
}

impl<C: Command> Call<'_, C> {
    /// On whose behalf. The caller vouches for it: over HTTP only the authenticator names it.
    pub fn principal(mut self, id: impl Into<Arc<str>>) -> Self {
        self.request.principal_id = Some(id.into());
        self
    }

    /// In whose part of the system. The caller vouches for it.
    pub fn tenant(mut self, id: impl Into<Arc<str>>) -> Self {
        self.request.tenant_id = Some(id.into());
        self
    }

    /// The flow that it belongs to.
    pub fn trace_id(mut self, id: Id) -> Self {
        self.request.trace_id = Some(id);
        self
    }

    /// Under this key the command does its work once, however often it is sent; with another input it is refused (422).
    pub fn idempotency_key(mut self, key: impl Into<Arc<str>>) -> Self {
        self.request.idempotency_key = Some(key.into());
        self
    }

    /// How long the answer is of use.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.request.timeout = Some(timeout);
        self
    }

    /// Sends, and waits for the answer. Dropping the future does not stop the handler.
    pub async fn send(self) -> Result<C::Output, InvokeError> {
        decode(&mut *self.client.request(self.request).await?)
    }
}

/// One event from outside of handlers; made by [`Client::emit`]. Await it, or call [`Emit::send`].
#[derive(Debug)]
#[must_use = "an event is not emitted until it is awaited"]
pub struct Emit<'c, E: Event> {
    client: &'c Client,
    event: E,
    tenant_id: Option<Arc<str>>,
    principal_id: Option<Arc<str>>,
    trace_id: Option<Id>,
}

impl<E: Event> Emit<'_, E> {
    /// The authenticated principal. The caller vouches for it.
    pub fn principal(mut self, id: impl Into<Arc<str>>) -> Self {
        self.principal_id = Some(id.into());
        self
    }

    /// The tenant. The caller vouches for it.
    pub fn tenant(mut self, id: impl Into<Arc<str>>) -> Self {
        self.tenant_id = Some(id.into());
        self
    }

    /// The trace id that it belongs to; a new one otherwise.
    pub fn trace_id(mut self, id: Id) -> Self {
        self.trace_id = Some(id);
        self
    }

    /// Emits it. `Ok` means that it is recorded, or, where it is not, that the bridge has taken it.
    ///
    /// # Errors
    ///
    /// Returns [`InvokeErrorKind::Rejected`] if the event breaks its rules or bounds, or if the store or bridge refused it; any
    /// other kind says whether it may have been emitted.
    ///
    /// # Cancel safety
    ///
    /// A dropped future may have emitted the event or not.
    pub async fn send(self) -> Result<(), InvokeError> {
        let Self { client, event, tenant_id, principal_id, trace_id } = self;
        let (clock, sender) = (&client.clock, client.sender().clone());
        let trace_id = trace_id.unwrap_or_else(|| clock.id());
        if let (true, Some(recorder)) = (E::RECORDED, &client.recorder) {
            let checked = CheckedEvent::of(&event).map_err(|error| invalid(&error))?;
            return recorder
                .record(checked, OutsideCause { sender, principal_id, tenant_id, trace_id })
                .await;
        }
        event.check().map_err(|faults| invalid(&RecordError::broken::<E>(faults)))?;
        if let Err(error) = UnencodedBounds::new::<E>(EVENT_BYTES_MAX).check(&event) {
            let status = if error.is_too_large() { Status::PAYLOAD_TOO_LARGE } else { Status::BAD_REQUEST };
            return Err(InvokeError::new(InvokeErrorKind::Rejected, status, error.to_string()));
        }
        let record = (E::VERSION != 1)
            .then(|| Box::new(Record { origin: None, causation_id: None, event_version: E::VERSION }));
        let message = Message {
            event_name: Some(Text::known(E::NAME)),
            payload: Payload::typed(event),
            record,
            principal_id,
            tenant_id,
            ..Message::new(clock.id(), MessageType::CustomMessage, clock.now_ms(), sender, trace_id)
        };
        Ok(span::publish(&*client.bridge, message).await?)
    }
}

fn invalid(error: &RecordError) -> InvokeError {
    InvokeError::new(InvokeErrorKind::Rejected, Status::BAD_REQUEST, error.to_string())
}

impl<'c, E: Event> IntoFuture for Emit<'c, E> {
    type Output = Result<(), InvokeError>;
    type IntoFuture = BoxFuture<'c, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}
