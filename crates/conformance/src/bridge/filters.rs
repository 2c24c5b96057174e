//! Duties of filters: every criterion holds exactly, on the decoded message.

use purista_core::id::Id;
use purista_core::message::{Message, MessageType, Party};
use purista_core::subscription::{Filter, PartyFilter};
use purista_core::text::Text;

use super::consumers::Recorder;
use super::world::{World, address, publish, subscribe, subscription};

/// A subscription with this filter gets, of these messages in this order, exactly those marked `true`.
async fn check(world: &World, filter: Filter, messages: Vec<(Message, bool)>) {
    let (listener, source) = (world.bridge().await, world.bridge().await);
    let recorder = Recorder::default();
    subscribe(&listener, subscription("filtered", filter), recorder.consumer()).await;
    let expected: Vec<_> =
        messages.iter().filter(|(_, passes)| *passes).map(|(message, _)| message.id.clone()).collect();
    // The last one passes, so that what did not pass has had its chance before.
    assert!(messages.last().is_some_and(|(_, passes)| *passes));
    for (message, _) in messages {
        publish(&source, message).await;
    }
    let mut got = Vec::new();
    for _ in &expected {
        got.push(recorder.message().await.id);
    }
    assert_eq!(got, expected);
    world.close().await;
    recorder.expect_nothing_more().await;
}

fn party(service: &str, version: &str, target: &str, instance: Option<&str>) -> Party {
    let mut parts = address(service, target).parts().clone();
    parts.version = version.to_owned().into();
    Party { address: parts.into(), instance: instance.and_then(|name| Id::parse(name).ok()) }
}

/// The type of the message.
pub async fn filter_by_kind(world: &World) {
    let filter = Filter { kind: Some(MessageType::InfoServiceReady), ..Filter::default() };
    let messages = vec![
        (world.event("userRegistered"), false),
        (world.message(MessageType::InfoServiceInit), false),
        (world.message(MessageType::InfoServiceReady), true),
    ];
    check(world, filter, messages).await;
}

/// The name of the event, exactly.
pub async fn filter_by_event_name(world: &World) {
    let messages = ["userRemoved", "userregistered", "UserRegistered", "userRegistered2", "userRegistered"]
        .map(|name| (world.event(name), name == "userRegistered"));
    check(world, Filter::event(Text::from("userRegistered")), messages.into()).await;
}

/// The principal, exactly.
pub async fn filter_by_principal(world: &World) {
    let filter = Filter { principal_id: Some("user-1".into()), ..Filter::default() };
    let messages = [None, Some("user-2"), Some("user_1"), Some("User-1"), Some("user-1")].map(|id| {
        let mut event = world.event("userRegistered");
        event.principal_id = id.map(Into::into);
        (event, id == Some("user-1"))
    });
    check(world, filter, messages.into()).await;
}

/// The tenant, exactly.
pub async fn filter_by_tenant(world: &World) {
    let filter = Filter { tenant_id: Some("acme".into()), ..Filter::default() };
    let messages = [None, Some("other"), Some("*"), Some("acme2"), Some("acme")].map(|id| {
        let mut event = world.event("userRegistered");
        event.tenant_id = id.map(Into::into);
        (event, id == Some("acme"))
    });
    check(world, filter, messages.into()).await;
}

/// Service, version and target of the sender.
pub async fn filter_by_sender(world: &World) {
    let sender = PartyFilter {
        service: Some("User".into()),
        version: Some("2".into()),
        target: Some("signUp".into()),
        instance: None,
    };
    let messages = [
        ("User", "1", "signUp", false),
        ("Account", "2", "signUp", false),
        ("User", "2", "signOut", false),
        ("user", "2", "sign-up", false),
        ("User", "2", "signUp", true),
    ]
    .map(|(service, version, target, passes)| {
        let mut event = world.event("userRegistered");
        event.sender = party(service, version, target, Some("i1"));
        (event, passes)
    });
    check(world, Filter { sender, ..Filter::default() }, messages.into()).await;
}

/// The process that sent it.
pub async fn filter_by_sending_process(world: &World) {
    let sender = PartyFilter { instance: Some("instance-1".into()), ..PartyFilter::default() };
    let messages = [None, Some("instance-2"), Some("instance_1"), Some("instance-1")].map(|instance| {
        let mut event = world.event("userRegistered");
        event.sender = party("User", "1", "signUp", instance);
        (event, instance == Some("instance-1"))
    });
    check(world, Filter { sender, ..Filter::default() }, messages.into()).await;
}

/// Every part of the receiver.
pub async fn filter_by_receiver(world: &World) {
    let receiver = PartyFilter {
        service: Some("Email".into()),
        version: Some("1".into()),
        target: Some("sendMail".into()),
        instance: Some("i1".into()),
    };
    let receivers = [
        None,
        Some(party("Email", "1", "sendMail", None)),
        Some(party("Email", "1", "sendMail", Some("i2"))),
        Some(party("Email", "2", "sendMail", Some("i1"))),
        Some(party("Email", "1", "send-mail", Some("i1"))),
        Some(party("Sms", "1", "sendMail", Some("i1"))),
        Some(party("Email", "1", "sendMail", Some("i1"))),
    ];
    let last = receivers.len() - 1;
    let messages = receivers.into_iter().enumerate().map(|(index, receiver)| {
        let mut event = world.event("mailWanted");
        event.receiver = receiver;
        (event, index == last)
    });
    let messages = messages.collect();
    check(world, Filter { receiver, ..Filter::default() }, messages).await;
}

/// One criterion that fails is enough.
pub async fn all_criteria_must_hold(world: &World) {
    let filter = Filter {
        kind: Some(MessageType::CustomMessage),
        tenant_id: Some("acme".into()),
        principal_id: Some("ada".into()),
        ..Filter::event(Text::from("userRegistered"))
    };
    let event = |name: &str, tenant: &str, principal: &str| {
        let mut event = world.event(name);
        event.tenant_id = Some(tenant.into());
        event.principal_id = Some(principal.into());
        event
    };
    let messages = vec![
        (event("userRegistered", "acme", "bob"), false),
        (event("userRegistered", "other", "ada"), false),
        (event("userRemoved", "acme", "ada"), false),
        (event("userRegistered", "acme", "ada"), true),
    ];
    check(world, filter, messages).await;
}

/// A criterion that is the very word by which a carrier says "absent" does not match what is absent.
pub async fn set_criterion_never_matches_an_absent_field(world: &World) {
    for word in ["empty", "none"] {
        let filter = Filter { tenant_id: Some(word.into()), ..Filter::default() };
        let (listener, recorder) = (world.bridge().await, Recorder::default());
        let name = format!("filtered-{word}");
        subscribe(&listener, subscription(&name, filter), recorder.consumer()).await;
        publish(&listener, world.event("userRegistered")).await;
        let mut passing = world.event("userRegistered");
        passing.tenant_id = Some(word.into());
        publish(&listener, passing.clone()).await;
        assert_eq!(recorder.message().await.id, passing.id);
        recorder.expect_nothing_more().await;
    }
}

/// Different names that become one topic reach only those who asked for them.
pub async fn names_that_collide_in_topics_are_told_apart(world: &World) {
    let bridge = world.bridge().await;
    let recorders = ["a-b", "aB", "a_b"].map(|name| (name, Recorder::default()));
    for ((name, recorder), listener) in recorders.iter().zip(["first", "second", "third"]) {
        let filter = Filter::event(Text::from(*name));
        subscribe(&bridge, subscription(listener, filter), recorder.consumer()).await;
    }
    for (name, _) in &recorders {
        publish(&bridge, world.event(name)).await;
    }
    for (name, recorder) in &recorders {
        assert_eq!(recorder.message().await.event_name.as_deref(), Some(*name));
    }
    world.close().await;
    for (_, recorder) in &recorders {
        recorder.expect_nothing_more().await;
    }
}
