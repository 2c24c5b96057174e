//! The messages by which services tell others of their life, in PURISTA's form.

use purista_core::address::{Address, ServiceId};
use purista_core::catalogue::CommandEntry;
use purista_core::message::{Message, MessageType, Party};
use purista_core::payload::Payload;

use crate::runtime::Runtime;

pub(super) async fn init(runtime: &Runtime, service: ServiceId) {
    tell(runtime, MessageType::InfoServiceInit, Address::of(service, ""), Payload::empty()).await;
}

pub(super) async fn function_added(runtime: &Runtime, entry: &CommandEntry) {
    let metadata = serde_json::to_vec(&entry.metadata()).unwrap_or_default();
    tell(
        runtime,
        MessageType::InfoServiceFunctionAdded,
        entry.address.clone(),
        Payload::encoded(metadata.into()),
    )
    .await;
}

pub(super) async fn ready(runtime: &Runtime, service: ServiceId) {
    tell(runtime, MessageType::InfoServiceReady, Address::of(service, ""), Payload::empty()).await;
}

pub(super) async fn drain(runtime: &Runtime, service: ServiceId) {
    tell(runtime, MessageType::InfoServiceDrain, Address::of(service, ""), Payload::empty()).await;
}

pub(super) async fn shutdown(runtime: &Runtime, service: ServiceId) {
    tell(runtime, MessageType::InfoServiceShutdown, Address::of(service, ""), Payload::empty()).await;
}

/// An info that cannot be told stops nobody.
async fn tell(runtime: &Runtime, kind: MessageType, address: Address, payload: Payload) {
    let clock = &runtime.clock;
    let sender = Party { address, instance: Some(runtime.instance.clone()) };
    let message = Message { payload, ..Message::new(clock.id(), kind, clock.now_ms(), sender, clock.id()) };
    tracing::debug!(kind = kind.as_str(), sender = %message.sender.address, "purista.sendServiceInfo");
    if let Err(error) = runtime.bridge.publish(message).await {
        tracing::warn!(kind = kind.as_str(), %error, "an info message was not published");
    }
}
