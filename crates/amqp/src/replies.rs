//! The replies to this process's commands.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use lapin::Consumer;
use lapin::message::Delivery;
use lapin::options::BasicAckOptions;
use purista_core::id::Id;

use crate::error::unknown;
use crate::link::Link;
use crate::session::Session;
use crate::wire;

/// How many replies are taken before they are acknowledged together.
const TOGETHER_MAX: usize = 64;

/// Hands replies to their calls until the connection is lost.
pub(crate) async fn read(mut consumer: Consumer, link: Link, session: Arc<Session>) {
    // The client does not always end a consumer with its connection.
    while let Some(Some(Ok(mut last))) = session.lost.run_until_cancelled(consumer.next()).await {
        take(&mut last, &link);
        for _ in 1..TOGETHER_MAX {
            let Some(Some(Ok(next))) = consumer.next().now_or_never() else { break };
            last = next;
            take(&mut last, &link);
        }
        // One after the other: when a later one overtakes it, the broker does not know its message any more, and ends the channel.
        let acknowledging = last.acker.ack(BasicAckOptions { multiple: true });
        if session.lost.run_until_cancelled(acknowledging).await.is_none() {
            break;
        }
    }
    // Without its replies a connection is of no use.
    session.give_up();
}

/// Hands a reply to its call, or says why it is none.
fn take(raw: &mut Delivery, link: &Link) {
    let body = Bytes::from(std::mem::take(&mut raw.data));
    let properties = &raw.properties;
    let named = properties.correlation_id().as_ref().and_then(|id| Id::parse(id.as_str()).ok());
    let replies = &link.watch.replies;
    let refused = |what: &str| named.as_ref().is_some_and(|call| replies.refuse(call, unknown(what)));
    let has_ended = if body.len() > link.message_bytes_max {
        refused("the reply is too large")
    } else {
        match wire::decode(&body, properties, &link.clock) {
            Ok(reply) if reply.kind.is_response() => replies.complete(reply),
            Ok(_) => refused("the reply is no answer to this command"),
            Err(error) => named.as_ref().is_some_and(|call| {
                replies.refuse(call, unknown("the reply cannot be read").with_source(error))
            }),
        }
    };
    if !has_ended {
        tracing::debug!(correlation_id = ?named, bytes = body.len(), "a reply came that nobody waits for");
    }
}
