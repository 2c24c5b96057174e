//! The place to which replies come, and the echoes by which it is known what the server has read.
//!
//! One subscription for all of them. The client's own requests would keep an entry for every reply that never comes; here
//! an entry lives as long as its call.

use std::pin::pin;

use async_nats::{StatusCode, Subscriber};
use futures_util::StreamExt;
use purista_core::bridge::{BridgeError, BridgeErrorKind};
use purista_core::id::Id;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::link::Link;
use crate::wire;

/// Begins the last part of the subject of an echo.
const ECHO: &str = "echo-";
/// Begins the last part of the subject of a reply whose correlation id is a peer's, followed by its bytes in hex.
const FOREIGN: &str = "x";

/// Where replies come in.
#[derive(Debug, Clone)]
pub(crate) struct Inbox {
    subject: String,
    echoed: watch::Sender<u64>,
}

impl Inbox {
    /// An inbox of its own name.
    pub(crate) fn new(link: &Link) -> Self {
        Self { subject: link.client.new_inbox(), echoed: watch::channel(0).0 }
    }

    /// What it subscribes to.
    pub(crate) fn wildcard(&self) -> String {
        format!("{}.*", self.subject)
    }

    /// The subject for the reply to one call.
    pub(crate) fn reply_to(&self, correlation_id: &Id) -> String {
        let token = match correlation_id.bytes() {
            Some(_) => correlation_id.to_string(),
            None => correlation_id
                .text()
                .bytes()
                .fold(FOREIGN.to_owned(), |token, byte| format!("{token}{byte:02x}")),
        };
        format!("{}.{token}", self.subject)
    }

    /// The subject for an echo.
    pub(crate) fn echo_to(&self, number: u64) -> String {
        format!("{}.{ECHO}{number}", self.subject)
    }

    /// The largest number that came back.
    pub(crate) fn echoed(&self) -> watch::Receiver<u64> {
        self.echoed.subscribe()
    }

    /// Takes what comes in until `stop`.
    pub(crate) async fn run(self, mut subscriber: Subscriber, link: Link, stop: CancellationToken) {
        // One for all replies: to begin waiting takes a lock each time.
        let mut stopped = pin!(stop.cancelled());
        loop {
            let raw = tokio::select! {
                () = &mut stopped => return,
                raw = subscriber.next() => raw,
            };
            let Some(raw) = raw else { return };
            self.take(&raw, &link);
        }
    }

    fn take(&self, raw: &async_nats::Message, link: &Link) {
        let Some(token) = raw.subject.strip_prefix(&self.subject).and_then(|rest| rest.strip_prefix('.'))
        else {
            return;
        };
        if let Some(number) = token.strip_prefix(ECHO).and_then(|number| number.parse::<u64>().ok()) {
            self.echoed.send_if_modified(|echoed| number > std::mem::replace(echoed, number.max(*echoed)));
            return;
        }
        let Some(call) = correlation_id(token) else { return };
        let ended = if raw.status == Some(StatusCode::NO_RESPONDERS) {
            link.watch
                .replies
                .refuse(&call, BridgeError::new(BridgeErrorKind::Unroutable, "nobody serves the command"))
        } else {
            reply(raw, &call, link)
        };
        if !ended {
            tracing::debug!(correlation_id = %call, "a reply came that nobody waits for");
        }
    }
}

/// Hands a reply to its call, or says why it is none.
fn reply(raw: &async_nats::Message, call: &Id, link: &Link) -> bool {
    let unreadable = |what: &str| BridgeError::new(BridgeErrorKind::Unknown, what);
    match wire::decode(raw, &link.clock) {
        Ok(reply) if !reply.kind.is_response() || reply.correlation_id.as_ref() != Some(call) => {
            link.watch.replies.refuse(call, unreadable("the reply is no answer to this command"))
        }
        Ok(reply) => link.watch.replies.complete(reply),
        Err(error) => {
            link.watch.replies.refuse(call, unreadable("the reply cannot be read").with_source(error))
        }
    }
}

fn correlation_id(token: &str) -> Option<Id> {
    let Some(hex) = token.strip_prefix(FOREIGN) else { return Id::parse(token).ok() };
    let pairs = hex.as_bytes().chunks(2);
    let bytes: Option<Vec<u8>> =
        pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect();
    Id::parse(std::str::from_utf8(&bytes?).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_subject_finds_its_correlation_id_again() {
        let inbox = Inbox { subject: "_INBOX.1".to_owned(), echoed: watch::channel(0).0 };
        for id in [Id::from_random(7), Id::parse("s01 .*> ä").unwrap(), Id::parse("x").unwrap()] {
            let subject = inbox.reply_to(&id);
            assert!(!subject.contains([' ', '*', '>']), "{subject}");
            assert_eq!(correlation_id(subject.rsplit('.').next().unwrap()), Some(id));
        }
        for token in ["", "xzz", "x0", "xc3"] {
            assert_eq!(correlation_id(token), None, "{token}");
        }
    }
}
