//! One key, one effect: a command that is asked again under its key gets its first answer.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};

use purista_core::address::AddressParts;
use purista_core::canonical::canonical_json;
use purista_core::contract::Contract;
use purista_core::error::HandlerError;
use purista_core::message::Message;
use purista_core::status::Status;
use purista_events::batch::{ReplyKey, StoredReply};
use purista_events::fingerprint::Fingerprint;
use purista_events::store::EventStore;
use tokio::sync::watch;
use uuid::Uuid;

mod local_replies;

use local_replies::LocalReplies;
pub(crate) use local_replies::{LOCAL_REPLIES_BYTES_MAX, LOCAL_REPLIES_MAX, LOCAL_REPLY_TIME};

/// The name space of our fingerprints (UUID version 5, RFC 9562: the first 128 bits of a SHA-1).
const NAMESPACE: Uuid = Uuid::from_u128(0x6f1d_3a52_8c0e_4b7f_9a64_21d7_05be_93c8);

/// Begins the keys that an invoke inside a handler derives. Under such a key an empty unit stores nothing.
const DERIVED: &str = "derived:";

/// The longest key of a caller, in bytes.
pub(crate) const KEY_BYTES_MAX: usize = 255;

/// Tells one input from another, over its canonical JSON: equal inputs are equal, in whatever order their maps iterate, and
/// a field that gets a default in a newer version changes no older input's. 0 for what cannot be encoded, which fails on
/// its way anyway.
pub(crate) fn fingerprint_of<T: Contract>(input: &T) -> u128 {
    canonical_json(input).map_or(0, |json| Uuid::new_v5(&NAMESPACE, &json).as_u128())
}

/// The key under which a handler's call reaches its callee: the same when the handler runs again on the same message.
pub(crate) fn derived_key(cause: &Message, callee: &AddressParts, input: u128, nth: usize) -> Arc<str> {
    let mut text = String::new();
    match &cause.idempotency_key {
        Some(key) => {
            let principal = cause.principal_id.as_deref().unwrap_or_default();
            let receiver = cause.receiver.as_ref().map(|party| party.address.to_string()).unwrap_or_default();
            let _ = write!(text, "{principal}\0{receiver}\0{key}");
        }
        None => drop(write!(text, "{}", cause.id)),
    }
    let _ = write!(text, "\0{}\0{}\0{}\0{input:x}\0{nth}", callee.service, callee.version, callee.target);
    format!("{DERIVED}{}", Uuid::new_v5(&NAMESPACE, text.as_bytes()).simple()).into()
}

/// Whether a key was derived by an invoke inside a handler.
pub(crate) fn is_derived(key: &str) -> bool {
    key.starts_with(DERIVED)
}

/// Keyed commands of this process: those that run now, and, without a store, the replies to those that ran. The entry of a
/// running command lives as long as the command.
#[derive(Default)]
pub(crate) struct Running {
    keys: Arc<Mutex<HashMap<Scope, watch::Receiver<()>>>>,
    local: LocalReplies,
}

type Scope = (Option<Arc<str>>, ReplyKey);

/// The right to run a keyed command; those that wait go on when it is dropped.
pub(crate) struct Claim {
    pub(crate) key: ReplyKey,
    pub(crate) fingerprint: Fingerprint,
    scope: Scope,
    keys: Arc<Mutex<HashMap<Scope, watch::Receiver<()>>>>,
    /// Closed by the drop: that is what the others wait for.
    _ended: watch::Sender<()>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.scope);
    }
}

/// What a keyed command finds.
pub(crate) enum Claimed {
    /// Nobody has answered it: run it.
    Mine(Claim),
    /// It was answered.
    Answered(StoredReply),
}

impl Running {
    /// Waits until no other call with this key runs, then looks for its answer. Cancel safe.
    pub(crate) async fn claim(
        &self,
        store: Option<&dyn EventStore>,
        message: &Message,
        key: &Arc<str>,
        input: u128,
    ) -> Result<Claimed, HandlerError> {
        let key = reply_key(message, key);
        let fingerprint = Fingerprint(input.to_be_bytes());
        let scope = (message.tenant_id.clone(), key.clone());
        let claim = loop {
            let mut other = {
                let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
                let Some(other) = keys.get(&scope) else {
                    let (ended, waiting) = watch::channel(());
                    keys.insert(scope.clone(), waiting);
                    break Claim { key, fingerprint, scope, keys: Arc::clone(&self.keys), _ended: ended };
                };
                other.clone()
            };
            // It never changes: an error says that the other one has ended.
            let _ = other.changed().await;
        };
        match self.answer(store, &claim).await? {
            Some(reply) => Ok(Claimed::Answered(reply)),
            None => Ok(Claimed::Mine(claim)),
        }
    }

    /// The answer that was kept under a key, in the store or else in this process; another input under the same key is 422.
    pub(crate) async fn answer(
        &self,
        store: Option<&dyn EventStore>,
        claim: &Claim,
    ) -> Result<Option<StoredReply>, HandlerError> {
        let reply = match store {
            Some(store) => store.reply(claim.scope.0.as_deref(), &claim.key).await?,
            None => self.local.get(&claim.scope),
        };
        let Some(reply) = reply else { return Ok(None) };
        if reply.fingerprint != claim.fingerprint {
            let text = "this idempotency key was used with another input";
            return Err(HandlerError::handled(Status::UNPROCESSABLE_ENTITY.code(), text));
        }
        Ok(Some(reply))
    }

    /// Keeps the answer to a command that was done, for a host without a store.
    pub(crate) fn keep(&self, claim: &Claim, reply: StoredReply) {
        self.local.keep(&claim.scope, reply);
    }
}

fn reply_key(message: &Message, key: &Arc<str>) -> ReplyKey {
    let principal = message.principal_id.as_deref().unwrap_or_default();
    let receiver = message.receiver.as_ref().map(|party| party.address.to_string()).unwrap_or_default();
    ReplyKey { scope: format!("{principal}\0{receiver}").into(), key: Arc::clone(key) }
}
