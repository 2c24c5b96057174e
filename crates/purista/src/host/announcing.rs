//! The messages by which services tell others of their life, in PURISTA's form.

use std::sync::Arc;

use purista_core::address::{Address, ServiceId};
use purista_core::bridge::BridgeError;
use purista_core::catalogue::CommandEntry;
use purista_core::message::{Message, MessageType, Party, Record};
use purista_core::payload::Payload;

use super::HOST;
use crate::runtime::Runtime;

pub(super) async fn init(runtime: &Runtime, service: ServiceId) {
    tell(runtime, MessageType::InfoServiceInit, Address::of(service, ""), Payload::empty(), None).await;
}

pub(super) async fn function_added(runtime: &Runtime, entry: &CommandEntry) {
    let metadata = serde_json::to_vec(&entry.metadata()).unwrap_or_default();
    tell(
        runtime,
        MessageType::InfoServiceFunctionAdded,
        entry.address.clone(),
        Payload::encoded(metadata.into()),
        None,
    )
    .await;
}

/// `store_id` names the store that the commands of the service decide on; see [`super::store_peers`].
pub(super) async fn ready(runtime: &Runtime, service: ServiceId, store_id: Option<Arc<str>>) {
    let kind = MessageType::InfoServiceReady;
    tell(runtime, kind, Address::of(service, ""), Payload::empty(), store_id).await;
}

pub(super) async fn drain(runtime: &Runtime, service: ServiceId) {
    tell(runtime, MessageType::InfoServiceDrain, Address::of(service, ""), Payload::empty(), None).await;
}

pub(super) async fn shutdown(runtime: &Runtime, service: ServiceId) {
    tell(runtime, MessageType::InfoServiceShutdown, Address::of(service, ""), Payload::empty(), None).await;
}

/// Publishes a small message that changes nothing for anybody, to find out whether the bridge carries one.
pub(crate) async fn probe(runtime: &Runtime) -> Result<(), BridgeError> {
    let address = Address::of(HOST, "");
    runtime.bridge.publish(info(runtime, MessageType::InfoServiceReady, address, Payload::empty())).await
}

fn info(runtime: &Runtime, kind: MessageType, address: Address, payload: Payload) -> Message {
    let clock = &runtime.clock;
    let sender = Party { address, instance: Some(runtime.instance.clone()) };
    Message { payload, ..Message::new(clock.id(), kind, clock.now_ms(), sender, clock.id()) }
}

/// An info that cannot be told stops nobody.
async fn tell(
    runtime: &Runtime,
    kind: MessageType,
    address: Address,
    payload: Payload,
    store_id: Option<Arc<str>>,
) {
    let record =
        store_id.map(|id| Box::new(Record { origin: Some(id), causation_id: None, event_version: 1 }));
    let message = Message { record, ..info(runtime, kind, address, payload) };
    tracing::debug!(kind = kind.as_str(), sender = %message.sender.address, "purista.sendServiceInfo");
    if let Err(error) = runtime.bridge.publish(message).await {
        tracing::warn!(kind = kind.as_str(), %error, "an info message was not published");
    }
}
