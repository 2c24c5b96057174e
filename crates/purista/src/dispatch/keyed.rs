//! The key of a caller: taken before the handler, and looked up again before an error is answered.

use purista_core::contract::Command;
use purista_core::error::HandlerError;
use purista_events::batch::StoredReply;

use crate::context::Context;
use crate::idempotency::{self, Claim, Claimed};

/// Takes the key of the caller, or finds the answer that it got before.
pub(super) async fn claimed<S, C: Command>(
    context: &Context<S>,
    input: &C,
    claim: &mut Option<Box<Claim>>,
) -> Result<Option<StoredReply>, HandlerError> {
    let (runtime, message) = (context.runtime(), context.message());
    // Who decides again has it already.
    let (Some(key), None) = (&message.idempotency_key, &claim) else { return Ok(None) };
    if runtime.store.is_none() && idempotency::is_derived(key) {
        return Ok(None);
    }
    if key.is_empty() || key.len() > idempotency::KEY_BYTES_MAX {
        let text = format!("an idempotency key is 1 to {} bytes", idempotency::KEY_BYTES_MAX);
        return Err(HandlerError::bad_request(text));
    }
    let input = idempotency::fingerprint_of(input);
    match runtime.running.claim(runtime.store.as_deref(), message, key, input).await? {
        Claimed::Answered(reply) => Ok(Some(reply)),
        Claimed::Mine(mine) => {
            *claim = Some(Box::new(mine));
            Ok(None)
        }
    }
}

/// The answer that was kept under a key meanwhile.
pub(super) async fn kept_reply<S>(context: &Context<S>, claim: &Claim) -> Option<StoredReply> {
    let runtime = context.runtime();
    runtime.running.answer(runtime.store.as_deref(), claim).await.ok().flatten()
}
