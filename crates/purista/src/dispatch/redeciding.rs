//! The way of a decision: as that of any command, and once more from its input when somebody else was faster.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use purista_core::bridge::Outcome;
use purista_core::contract::Command;
use purista_core::error::HandlerError;
use tokio::time::Instant;

use super::{Given, NOT_OURS, answered, committed, run, serving};
use crate::context::Context;
use crate::deadline::UntilDeadline;
use crate::failure::Failure;
use crate::observed::Observed;

/// How often a command decides before it answers 409: the first time, and then as long as others are faster.
pub(crate) const DECISIONS_MAX: u32 = 8;

/// How long it waits before it decides a second time; the wait doubles from then on.
const WAIT_FIRST: Duration = Duration::from_millis(2);

/// Every attempt has a unit of work of its own, so that nothing of an attempt that lost is left. Its guards are asked
/// again, because what they have read is part of the unit. The key of the caller is held through all of them.
pub(super) async fn dispatch<S, C, F, Fut>(mut context: Context<S>, given: Given) -> Outcome
where
    S: Send + Sync + 'static,
    C: Command,
    F: Fn(Context<S>, C) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<C::Output, HandlerError>> + Send + 'static,
{
    let place = Arc::clone(context.place());
    let Some(serving) = serving::<S, C, F>(&place) else {
        return Outcome::DeadLetter { reason: NOT_OURS.to_owned() };
    };
    let event = serving.steps.success.map(|(event, _)| event);
    let deadline = context.deadline();
    let mut claim = None;
    let mut lost: Option<Failure> = None;
    let mut decisions = 0;
    loop {
        let mut input = given.clone();
        let ran = {
            let work = run(serving, &context, &mut input, &mut claim);
            UntilDeadline::new(pin!(AssertUnwindSafe(work).catch_unwind()), deadline).await
        };
        decisions += 1;
        let changes = context.unit().seal();
        let is_observed = context.runtime().observer.is_some();
        let observed = is_observed.then(|| Observed::of(&given.payload, changes.as_deref()));
        let ended = match (ran, lost.take()) {
            // Cut off while it decided again: nothing was written, which 409 says and 504 does not.
            (None, Some(lost)) => Err(lost),
            (ran, _) => Box::pin(committed::<S, C>(event, &context, ran, changes, claim.as_deref())).await,
        };
        let until = Instant::now() + wait_after(decisions, &context);
        match ended {
            Err(failure) if failure.is_lost_race() && decisions < DECISIONS_MAX && until < deadline => {
                tracing::debug!(command = %place.sender.address, decisions, "decides again: {}", failure.report());
                lost = Some(failure);
                tokio::time::sleep_until(until).await;
                context = context.afresh();
            }
            ended => return Outcome::Reply(answered(&context, ended, claim, observed).await),
        }
    }
}

/// Between half of the wait and the whole, so that who collided once does not collide again.
fn wait_after<S>(decisions: u32, context: &Context<S>) -> Duration {
    let whole = WAIT_FIRST * (1 << decisions.saturating_sub(1).min(16));
    whole / 2 + (whole / 2).mul_f64(context.runtime().clock.fraction())
}
