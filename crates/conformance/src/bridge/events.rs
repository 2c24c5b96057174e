//! Duties towards those who listen.

use std::collections::BTreeSet;

use purista_core::bridge::{Delivery, Outcome};
use purista_core::message::{MessageType, Record};
use purista_core::subscription::{Filter, Sharing};
use purista_core::text::Text;

use super::consumers::{Recorder, consumer, reply};
use super::world::{World, listening, number, publish, request, serve, subscribe, subscription};

const EVENTS: usize = 50;

/// Every subscription that asks for an event gets it, once; others get nothing.
pub async fn event_reaches_every_subscription_once(world: &World) {
    let (first, second, source) = (world.bridge().await, world.bridge().await, world.bridge().await);
    let (mail, audit, search, other) =
        (Recorder::default(), Recorder::default(), Recorder::default(), Recorder::default());
    subscribe(&first, listening("mail", "userRegistered"), mail.consumer()).await;
    subscribe(&first, listening("audit", "userRegistered"), audit.consumer()).await;
    subscribe(&second, listening("search", "userRegistered"), search.consumer()).await;
    subscribe(&second, listening("other", "userRemoved"), other.consumer()).await;
    for n in 0..EVENTS {
        publish(&source, world.numbered("userRegistered", n)).await;
    }
    for recorder in [&mail, &audit, &search] {
        let mut seen = BTreeSet::new();
        for _ in 0..EVENTS {
            let delivery = recorder.next().await;
            assert_eq!(delivery.attempt, 1);
            seen.insert(number(&delivery.message));
        }
        assert_eq!(seen.len(), EVENTS, "each event once");
    }
    world.close().await;
    for recorder in [mail, audit, search, other] {
        recorder.expect_nothing_more().await;
    }
}

/// A shared subscription that runs in two processes gets an event in one of them.
pub async fn shared_subscription_gets_an_event_once_over_two_processes(world: &World) {
    let (first, second, source) = (world.bridge().await, world.bridge().await, world.bridge().await);
    let both = Recorder::default();
    subscribe(&first, listening("mail", "userRegistered"), both.consumer()).await;
    subscribe(&second, listening("mail", "userRegistered"), both.consumer()).await;
    for n in 0..EVENTS {
        publish(&source, world.numbered("userRegistered", n)).await;
    }
    let mut seen = BTreeSet::new();
    for _ in 0..EVENTS {
        seen.insert(number(&both.message().await));
    }
    assert_eq!(seen.len(), EVENTS);
    settle_arrivals(world).await;
    both.expect_nothing_more().await;
}

/// Each process of an every-instance subscription gets each event.
pub async fn every_instance_subscription_gets_it_in_each_process(world: &World) {
    let (first, second, source) = (world.bridge().await, world.bridge().await, world.bridge().await);
    let (in_first, in_second) = (Recorder::default(), Recorder::default());
    let mut everywhere = listening("cache", "userRegistered");
    everywhere.sharing = Sharing::EveryInstance;
    subscribe(&first, everywhere.clone(), in_first.consumer()).await;
    subscribe(&second, everywhere, in_second.consumer()).await;
    for n in 0..EVENTS {
        publish(&source, world.numbered("userRegistered", n)).await;
    }
    for recorder in [&in_first, &in_second] {
        let mut seen = BTreeSet::new();
        for _ in 0..EVENTS {
            seen.insert(number(&recorder.message().await));
        }
        assert_eq!(seen.len(), EVENTS);
    }
    world.close().await;
    in_first.expect_nothing_more().await;
    in_second.expect_nothing_more().await;
}

/// A subscription to several names gets each event of them once, also of names that one topic stands for.
pub async fn subscription_to_several_events_gets_each_once(world: &World) {
    let bridge = world.bridge().await;
    let recorder = Recorder::default();
    let names = ["userRegistered", "userRemoved", "user-removed"];
    let filter = Filter { event_names: names.map(Text::from).to_vec(), ..Filter::default() };
    subscribe(&bridge, subscription("audit", filter), recorder.consumer()).await;
    for name in names {
        publish(&bridge, world.event(name)).await;
    }
    publish(&bridge, world.event("userTouched")).await;
    let mut seen = BTreeSet::new();
    for _ in names {
        seen.extend(recorder.message().await.event_name.map(|name| name.to_string()));
    }
    assert_eq!(seen, names.map(str::to_owned).into());
    world.close().await;
    recorder.expect_nothing_more().await;
}

/// A response that bears an event's name is that event for who listens; the caller has it once.
pub async fn response_marked_with_an_event_reaches_event_subscriptions(world: &World) {
    let delivered = marked_response(world, None).await;
    assert_eq!(delivered.len(), 1, "{delivered:?}");
    for delivery in &delivered {
        assert_eq!(delivery.message.kind, MessageType::CommandSuccessResponse);
        assert_eq!(number(&delivery.message), 7);
    }
}

/// What keeps a response from being routed is a log that holds its event, not its event's version.
pub async fn response_of_an_unrecorded_later_version_is_routed_too(world: &World) {
    let record = Record { origin: None, causation_id: None, event_version: 2 };
    let delivered = marked_response(world, Some(record)).await;
    let versions: Vec<_> = delivered
        .iter()
        .map(|delivery| delivery.message.record.as_ref().map_or(1, |record| record.event_version))
        .collect();
    assert_eq!(versions, [2]);
}

/// An event that a log holds leaves from the log: its response bears the name, and yet is not routed by it, also when
/// somebody taps responses.
pub async fn response_whose_event_was_recorded_is_not_routed_by_its_name(world: &World) {
    let tap = Recorder::default();
    let responses = Filter { kind: Some(MessageType::CommandSuccessResponse), ..Filter::default() };
    subscribe(&world.bridge().await, subscription("tap", responses), tap.consumer()).await;
    let record = Record { origin: Some("store-1".into()), causation_id: None, event_version: 1 };
    let delivered = marked_response(world, Some(record)).await;
    assert!(delivered.is_empty(), "the log delivers it: {delivered:?}");
}

/// What a subscription to `userRegistered` gets when a command answers `7` and marks it with that name.
async fn marked_response(world: &World, record: Option<Record>) -> Vec<Delivery> {
    let (server, listener, caller) = (world.bridge().await, world.bridge().await, world.bridge().await);
    let recorder = Recorder::default();
    let serving = consumer(move |delivery: Delivery| {
        let mut answer = reply(&delivery.message, "7");
        answer.event_name = Some(Text::from("userRegistered"));
        answer.record = record.clone().map(Box::new);
        async move { Outcome::Reply(Box::new(answer)) }
    });
    serve(&server, "User", "signUp", serving).await;
    subscribe(&listener, listening("mail", "userRegistered"), recorder.consumer()).await;
    let answer = request(&caller, world.command("User", "signUp", "{}")).await;
    assert_eq!(answer.event_name.as_deref(), Some("userRegistered"), "the reply bears the name in any case");
    // From the process that answered, so that it comes after whatever it published for the response.
    publish(&server, world.numbered("userRegistered", usize::MAX)).await;
    let mut delivered = Vec::new();
    loop {
        let delivery = recorder.next().await;
        if delivery.message.kind == MessageType::CustomMessage {
            break;
        }
        delivered.push(delivery);
    }
    world.close().await;
    delivered.extend(recorder.rest().await);
    delivered
}

/// Waits until every process has been handed what was published before, then settles it.
async fn settle_arrivals(world: &World) {
    let (recorder, source) = (Recorder::default(), world.bridge().await);
    let mut marker = listening("marker", "marker");
    marker.sharing = Sharing::EveryInstance;
    let processes = world.bridges();
    for process in &processes {
        subscribe(process, marker.clone(), recorder.consumer()).await;
    }
    publish(&source, world.event("marker")).await;
    for _ in &processes {
        recorder.next().await;
    }
    world.close().await;
}
