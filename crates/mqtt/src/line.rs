//! One connection, from its greeting to its loss, and what can be done over it.
//!
//! What was asked over a connection that is lost ends with it: nothing is sent again behind the asker's back.

use std::sync::Arc;
use std::time::Duration;

use purista_core::bridge::{BridgeError, BridgeErrorKind};
use rumqttc::{
    AsyncClient, PubAckReason, Publish, PublishOptions, PublishResult, QoS, SubscribeFilterInput,
    SubscribeProperties, SubscribeReasonCode,
};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::link::rejected;
use crate::refused::Refused;

/// One connection.
#[derive(Debug)]
pub(crate) struct Line {
    /// Counts the connections of a session.
    pub(crate) number: u64,
    pub(crate) client: AsyncClient,
    /// The largest packet that the broker takes, as it says itself.
    pub(crate) packet_bytes_max: usize,
    /// What it has refused without having said so before, over any connection.
    pub(crate) refused: Arc<Refused>,
    /// Cancelled when the connection is lost.
    pub(crate) lost: CancellationToken,
    /// How many ends of subscriptions the broker has confirmed; counted behind all that it had sent before.
    pub(crate) unsubscribed: watch::Sender<u64>,
}

/// What the broker says of a publication that it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It has somebody to give it to, or does not say.
    Taken,
    /// Nobody subscribes to its topic.
    Unheard,
}

impl Line {
    /// Publishes, and waits for the broker's word that it has the message. `Rejected` when it was not sent or not taken,
    /// `Unknown` when the connection is lost before that word, `Timeout` at the deadline.
    pub(crate) async fn publish(&self, raw: Publish, deadline: Instant) -> Result<Taken, BridgeError> {
        let bytes = raw.size().saturating_add(PACKET_ID_BYTES);
        let most = self.packet_bytes_max.min(self.refused.most());
        if bytes > most {
            return Err(BridgeError::too_large(bytes, most));
        }
        let sent = self.refused.sends(bytes);
        let topic = String::from_utf8_lossy(&raw.topic).into_owned();
        let options = PublishOptions::new(QoS::AtLeastOnce).properties(raw.properties.unwrap_or_default());
        let sending = self.client.publish_tracked(topic, raw.payload, options);
        let queued = tokio::time::timeout_at(deadline, sending).await;
        let queued =
            queued.map_err(|_| rejected("the queue to the MQTT broker was full until the deadline"))?;
        // The client is gone with the connection: it took nothing.
        let notice = queued.map_err(|_| rejected("the connection to the MQTT broker is lost"))?;
        match tokio::time::timeout_at(deadline, self.until_lost(notice.wait_async())).await {
            Ok(Some(Ok(PublishResult::Qos1(ack)))) => match ack.reason {
                PubAckReason::Success => Ok(Taken::Taken),
                PubAckReason::NoMatchingSubscribers => Ok(Taken::Unheard),
                reason => Err(rejected(format!("the MQTT broker refuses a message: {reason:?}"))),
            },
            Ok(_) => {
                // Why the connection ended is known when its end is.
                let _ = tokio::time::timeout(LOSS_TIMEOUT, self.lost.cancelled()).await;
                Err(if sent.is_refused() {
                    BridgeError::too_large(bytes, bytes.saturating_sub(1))
                } else {
                    lost()
                })
            }
            Err(_) => Err(BridgeError::new(
                BridgeErrorKind::Timeout,
                "the MQTT broker did not confirm before the deadline",
            )),
        }
    }

    /// Subscribes at QoS 1, and waits until the broker has granted it.
    pub(crate) async fn subscribe(
        &self,
        filter: &str,
        id: Option<usize>,
        deadline: Instant,
    ) -> Result<(), BridgeError> {
        let properties = SubscribeProperties { id, user_properties: Vec::new() };
        let input = SubscribeFilterInput::new(filter, QoS::AtLeastOnce);
        let subscribing = async {
            let asked = self.client.subscribe_many_with_properties_tracked([input], properties).await;
            let noted = self.until_lost(asked.map_err(|_| lost())?.wait_async()).await;
            noted.ok_or_else(lost)?.map_err(|_| lost())
        };
        let late = || rejected(format!("the MQTT broker did not grant {filter} before the deadline"));
        let granted = tokio::time::timeout_at(deadline, subscribing).await.map_err(|_| late())??;
        match granted.return_codes.as_slice() {
            [SubscribeReasonCode::Success(QoS::AtLeastOnce | QoS::ExactlyOnce)] => Ok(()),
            codes => Err(rejected(format!("the MQTT broker does not grant {filter} at QoS 1: {codes:?}"))),
        }
    }

    /// Ends a subscription; behind it everything that the broker had sent for it has been taken, or the connection is lost.
    /// One at a time.
    pub(crate) async fn unsubscribe(&self, filter: &str, deadline: Instant) {
        let mut confirmed = self.unsubscribed.subscribe();
        let before = *confirmed.borrow_and_update();
        let unsubscribing = async {
            if self.client.unsubscribe(filter.to_owned()).await.is_ok() {
                tokio::select! {
                    _ = confirmed.wait_for(|count| *count > before) => {}
                    () = self.lost.cancelled() => {}
                }
            }
        };
        if tokio::time::timeout_at(deadline, unsubscribing).await.is_err() {
            tracing::warn!(filter, "the MQTT broker did not confirm the end of a subscription");
        }
    }

    /// What is noted, unless the connection is lost before: what still waits in the client then is never noted.
    async fn until_lost<T>(&self, noting: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            noted = noting => Some(noted),
            () = self.lost.cancelled() => None,
        }
    }

    /// Tells the broker that a message need not come again. When it cannot be told, the message comes again.
    pub(crate) async fn acknowledge(&self, raw: &Publish) {
        if self.client.ack(raw).await.is_err() {
            tracing::debug!("an acknowledgement is lost with its connection");
        }
    }
}

/// How long the end of a connection may take, once something that was sent over it is lost.
const LOSS_TIMEOUT: Duration = Duration::from_secs(1);
/// A packet has its number only when it leaves.
const PACKET_ID_BYTES: usize = 2;

/// An error of something that may have happened.
fn lost() -> BridgeError {
    BridgeError::new(BridgeErrorKind::Unknown, "the connection to the MQTT broker was lost meanwhile")
}
