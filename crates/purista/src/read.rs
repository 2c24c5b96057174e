//! What a handler reads of the log, by `ctx.read`.

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use purista_core::error::HandlerError;
use purista_events::batch::Condition;
use purista_events::position::Position;
use purista_events::reading::{Moment, ReadError, Reader, Seen, keep};
use purista_events::view::Boundary;

use crate::context::Context;
use crate::decide::Facts;

/// A read of a view or a tuple of views, by [`Context::read`]; awaiting it gives the state.
#[must_use = "nothing is read until it is awaited"]
pub struct Read<'c, S, B> {
    context: &'c Context<S>,
    boundary: B,
    moment: Moment,
}

impl<'c, S, B> Read<'c, S, B> {
    /// The state as it was: all events before the first that was recorded after this time. It stays the same for ever. A time
    /// that is still to come is refused with 400.
    pub fn as_of(mut self, time: Timestamp) -> Self {
        self.moment = Moment::AsOf(time);
        self
    }

    /// The state at this position of the log. It stays the same for ever. A position that was not reached is refused with
    /// 400.
    pub fn at(mut self, position: Position) -> Self {
        self.moment = Moment::At(position);
        self
    }

    /// The state and the position that it goes up to: [`Read::at`] that position reads the same again.
    pub fn with_position(self) -> ReadWithPosition<'c, S, B> {
        ReadWithPosition(self)
    }

    /// The state now, and the promise that the unit of work is committed only if nothing was added to it meanwhile; else the
    /// caller of a command gets 409, and a subscription tries again. A unit that changes nothing is not committed, so it
    /// promises nothing. Whoever wants to decide again rather than fail takes [`crate::decide::decide`].
    pub fn guarded(self) -> GuardedRead<'c, S, B> {
        GuardedRead { context: self.context, boundary: self.boundary }
    }
}

impl<'c, S: Send + Sync + 'static, B: Boundary> IntoFuture for Read<'c, S, B> {
    type Output = Result<B::State, HandlerError>;
    type IntoFuture = BoxFuture<'c, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { Ok(self.context.look(self.boundary, self.moment).await?.state) })
    }
}

/// A read that says up to where it went, by [`Read::with_position`].
#[must_use = "nothing is read until it is awaited"]
pub struct ReadWithPosition<'c, S, B>(Read<'c, S, B>);

impl<'c, S: Send + Sync + 'static, B: Boundary> IntoFuture for ReadWithPosition<'c, S, B> {
    type Output = Result<(B::State, Position), HandlerError>;
    type IntoFuture = BoxFuture<'c, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let Read { context, boundary, moment } = self.0;
        Box::pin(async move {
            let seen = context.look(boundary, moment).await?;
            Ok((seen.state, seen.position))
        })
    }
}

/// A read that the commit depends on, by [`Read::guarded`].
#[must_use = "nothing is read until it is awaited"]
pub struct GuardedRead<'c, S, B> {
    context: &'c Context<S>,
    boundary: B,
}

impl<'c, S: Send + Sync + 'static, B: Boundary> IntoFuture for GuardedRead<'c, S, B> {
    type Output = Result<B::State, HandlerError>;
    type IntoFuture = BoxFuture<'c, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let seen = self.context.look(self.boundary, Moment::Now).await?;
            if let Some(condition) = seen.condition {
                self.context.unit().change(|changes| changes.guard(condition))?;
            }
            Ok(seen.state)
        })
    }
}

impl<S> Context<S> {
    /// What a view, or a tuple of views, adds up to in the log of this tenant: now, or as it was.
    ///
    /// ```
    /// # use garde::Validate; use schemars::JsonSchema; use serde::{Deserialize, Serialize};
    /// # use purista::{Context, Event, HandlerError};
    /// # use purista_events::view::{View, view};
    /// # #[derive(Clone, Serialize, Deserialize, JsonSchema, Validate)] #[garde(allow_unvalidated)]
    /// # struct Renamed { name: String }
    /// # impl Event for Renamed { const NAME: &'static str = "renamed"; }
    /// fn name(user: &str) -> View<String> {
    ///     view(String::new()).tagged("user", user).on(|name, event: Renamed| *name = event.name)
    /// }
    ///
    /// async fn handler(ctx: Context<()>, march_1: jiff::Timestamp) -> Result<(), HandlerError> {
    ///     let now = ctx.read(name("ada")).await?;
    ///     let then = ctx.read(name("ada")).as_of(march_1).await?;
    ///     let (state, position) = ctx.read(name("ada")).with_position().await?;
    ///     let the_same = ctx.read(name("ada")).at(position).await?;
    ///     # Ok(())
    /// }
    /// ```
    pub fn read<B: Boundary>(&self, boundary: B) -> Read<'_, S, B> {
        Read { context: self, boundary, moment: Moment::Now }
    }

    /// Commits the unit of work only if the stream of this tag has exactly this many events; 0 is a stream that does not
    /// exist. Else the caller of a command gets 409, and a subscription tries again. For a version that the caller has seen,
    /// as in an `If-Match`; what a handler has read itself is guarded by [`Read::guarded`].
    pub fn expect_stream(
        &self,
        name: &str,
        value: impl fmt::Display,
        version: u64,
    ) -> Result<(), HandlerError> {
        if self.runtime().store.is_none() {
            return Err(self.without_store("expects a stream's version"));
        }
        let condition = Condition::Stream { name: name.to_owned(), value: value.to_string(), version };
        self.unit().change(|changes| changes.guard(condition))?;
        Ok(())
    }

    pub(crate) fn facts(&self) -> Facts {
        let message = self.message();
        let mut facts = Facts::new(self.now(), self.new_id());
        facts.principal.clone_from(&message.principal_id);
        facts.tenant.clone_from(&message.tenant_id);
        facts
    }

    /// Reads a boundary. Snapshots that are due are kept in the background.
    pub(crate) async fn look<B: Boundary>(
        &self,
        boundary: B,
        moment: Moment,
    ) -> Result<Seen<B::State>, HandlerError> {
        let runtime = self.runtime();
        let Some(store) = &runtime.store else { return Err(self.without_store("reads recorded events")) };
        let reader = Reader::new(&**store).of_tenant(self.tenant());
        let reader = reader.upcasters(&runtime.upcasters).clock(runtime.clock.clone());
        let mut seen = reader.read(boundary, moment).await.map_err(|error| match error {
            ReadError::Future(_) | ReadError::NotReached { .. } => {
                HandlerError::bad_request(error.to_string())
            }
            error => HandlerError::from(error),
        })?;
        let due = std::mem::take(&mut seen.due_snapshots);
        if !due.is_empty() {
            let store = Arc::clone(store);
            runtime.tasks.spawn(async move { keep(&*store, due).await });
        }
        Ok(seen)
    }

    #[cold]
    fn without_store(&self, does: &str) -> HandlerError {
        let handler = &self.place().sender.address;
        HandlerError::failed(format!(
            "{handler} {does}, but the host has no store: give the host a `.store(..)`"
        ))
    }
}

impl<S, B> fmt::Debug for Read<'_, S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Read").field("moment", &self.moment).finish_non_exhaustive()
    }
}

impl<S, B> fmt::Debug for ReadWithPosition<'_, S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl<S, B> fmt::Debug for GuardedRead<'_, S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardedRead").finish_non_exhaustive()
    }
}
