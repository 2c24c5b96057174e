//! Durable subscriptions: what waits for them, what comes again, and what is kept as a dead letter.

use std::sync::Arc;
use std::time::Duration;

use lapin::Channel;
use lapin::message::BasicGetMessage;
use lapin::options::{BasicGetOptions, BasicPublishOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use purista_amqp::history::{DEAD_ATTEMPT, DEAD_QUEUE, DEAD_REASON, DEAD_TIME, RETRY_HISTORY};
use purista_conformance::bridge::consumers::{Recorder, consumer};
use purista_conformance::bridge::world::{address, number};
use purista_core::bridge::{Consumer, Delivery, EventBridge, Outcome};
use purista_core::clock::Clock;
use purista_core::message::{Message, MessageType, Party};
use purista_core::payload::Payload;
use purista_core::subscription::{Filter, Sharing, Subscription};
use purista_core::text::Text;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::server::{Server, System};

const PATIENCE: Duration = Duration::from_secs(20);

fn event(number: usize) -> Message {
    let clock = Clock::system();
    let sender = Party::anywhere(address("Caller", "main"));
    let mut event = Message::new(clock.id(), MessageType::CustomMessage, clock.now_ms(), sender, clock.id());
    event.event_name = Some(Text::known("userRegistered"));
    event.payload = Payload::encoded(number.to_string().into());
    event
}

fn mail(in_flight: usize) -> Subscription {
    Subscription {
        address: address("Listener", "mail"),
        filter: Filter::event(Text::known("userRegistered")),
        sharing: Sharing::Shared,
        durable: true,
        in_flight,
        from_start: false,
        answers: false,
    }
}

/// How many messages wait in a queue.
async fn waiting(client: &Channel, queue: &str) -> u32 {
    let look = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    client.queue_declare(queue.into(), look, FieldTable::default()).await.unwrap().message_count()
}

/// The next dead letter, taken out.
pub(crate) async fn dead_letter(system: &System, client: &Channel) -> BasicGetMessage {
    let queue = format!("{}.sub.Listener.1.mail.dead-letter", system.name);
    client
        .queue_declare(
            queue.as_str().into(),
            QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() },
            FieldTable::default(),
        )
        .await
        .unwrap();
    let until = Instant::now() + PATIENCE;
    loop {
        let options = BasicGetOptions { no_ack: true };
        if let Some(found) = client.basic_get(queue.as_str().into(), options).await.unwrap() {
            return found;
        }
        assert!(Instant::now() < until, "no dead letter comes");
        tokio::time::sleep(Duration::from_millis(20)).await; // real time: a queue says nothing by itself
    }
}

pub(crate) fn header(found: &BasicGetMessage, name: &str) -> Option<String> {
    Some(match found.properties.headers().as_ref()?.inner().get(name)? {
        AMQPValue::LongString(text) => text.to_string(),
        AMQPValue::LongLongInt(number) => number.to_string(),
        other => panic!("{other:?}"),
    })
}

async fn until_empty(client: &Channel, queue: &str) {
    let until = Instant::now() + PATIENCE;
    while waiting(client, queue).await > 0 {
        assert!(Instant::now() < until, "{queue} stays full");
        tokio::time::sleep(Duration::from_millis(20)).await; // real time: a queue says nothing by itself
    }
}

#[tokio::test]
#[ignore = "needs rabbitmq-server: cargo xtask test"]
async fn messages_wait_for_a_subscriber_that_is_away_and_come_in_order() {
    let system = Server::shared().await.system();
    let source = system.bridge("source").await;
    let first = system.bridge("user").await;
    first.subscribe(mail(1), Recorder::default().consumer()).await.unwrap();
    first.close().await.unwrap();
    for n in 0..20 {
        source.publish(event(n)).await.unwrap();
    }
    let (second, recorder) = (system.bridge("user").await, Recorder::default());
    second.subscribe(mail(1), recorder.consumer()).await.unwrap();
    for n in 0..20 {
        let delivery = recorder.next().await;
        assert_eq!((number(&delivery.message), delivery.attempt), (n, 1));
    }
    second.close().await.unwrap();
    let client = system.client().await;
    assert_eq!(waiting(&client, &format!("{}.sub.Listener.1.mail", system.name)).await, 0);
}

#[tokio::test]
#[ignore = "needs rabbitmq-server: cargo xtask test"]
async fn the_broker_hands_over_no_more_than_may_be_in_flight() {
    let system = Server::shared().await.system();
    let (user, client) = (system.bridge("user").await, system.client().await);
    let (began, gate) = (Recorder::default(), Arc::new(Semaphore::new(0)));
    let (keeps, waits) = (began.clone(), Arc::clone(&gate));
    let held = consumer(move |delivery: Delivery| {
        keeps.keep(delivery);
        let waits = Arc::clone(&waits);
        async move {
            waits.acquire().await.expect("the gate stays").forget();
            Outcome::Ack
        }
    });
    user.subscribe(mail(2), held).await.unwrap();
    for n in 0..10 {
        user.publish(event(n)).await.unwrap();
    }
    for _ in 0..2 {
        began.next().await;
    }
    let queue = format!("{}.sub.Listener.1.mail", system.name);
    assert_eq!(waiting(&client, &queue).await, 8, "the others wait where another process could have them");
    gate.add_permits(10);
    until_empty(&client, &queue).await;
    user.close().await.unwrap();
}

#[tokio::test]
#[ignore = "needs rabbitmq-server: cargo xtask test"]
async fn what_is_not_settled_goes_to_another_process() {
    let system = Server::shared().await.system();
    let source = system.bridge("source").await;
    let began = Recorder::default();
    let keeps = began.clone();
    let never: Arc<dyn Consumer> = consumer(move |delivery: Delivery| {
        keeps.keep(delivery);
        std::future::pending()
    });
    // A runtime of its own, so that it can go away as a process does: with everything that runs on it.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let dying = system.clone();
    let subscribed = runtime.spawn(async move {
        let bridge = dying.bridge("dying").await;
        bridge.subscribe(mail(4), never).await.unwrap();
        bridge
    });
    let bridge = subscribed.await.unwrap();
    for n in 0..3 {
        source.publish(event(n)).await.unwrap();
    }
    for _ in 0..3 {
        began.next().await;
    }
    runtime.shutdown_background();
    // The last hand on the connection's socket, which a process's end would take away.
    drop(bridge);
    let (other, recorder) = (system.bridge("other").await, Recorder::default());
    other.subscribe(mail(4), recorder.consumer()).await.unwrap();
    let mut heard: Vec<_> = Vec::new();
    for _ in 0..3 {
        heard.push(number(&recorder.message().await));
    }
    heard.sort_unstable();
    assert_eq!(heard, [0, 1, 2]);
    other.close().await.unwrap();
}

#[tokio::test]
#[ignore = "needs rabbitmq-server: cargo xtask test"]
async fn a_retry_waits_at_the_broker_also_while_its_process_is_away() {
    let system = Server::shared().await.system();
    let client = system.client().await;
    let source = system.bridge("source").await;
    let first = system.bridge("user").await;
    let tried = Recorder::default();
    let keeps = tried.clone();
    let failing = consumer(move |delivery: Delivery| {
        keeps.keep(delivery);
        async { Outcome::Retry { after: Duration::from_millis(1100) } }
    });
    first.subscribe(mail(1), failing).await.unwrap();
    source.publish(event(7)).await.unwrap();
    tried.next().await;
    let failed = Instant::now();
    first.close().await.unwrap();
    let retry = format!("{}.sub.Listener.1.mail.retry.1536", system.name);
    assert_eq!(waiting(&client, &retry).await, 1, "it is confirmed there before it is acknowledged");

    let (second, recorder) = (system.bridge("user").await, Recorder::default());
    second.subscribe(mail(1), recorder.consumer()).await.unwrap();
    let again = recorder.next().await;
    assert_eq!((number(&again.message), again.attempt), (7, 2));
    assert!(failed.elapsed() >= Duration::from_millis(1100), "after {:?}", failed.elapsed());
    second.close().await.unwrap();
    recorder.expect_nothing_more().await;
    tried.expect_nothing_more().await;
}

#[tokio::test]
#[ignore = "needs rabbitmq-server: cargo xtask test"]
async fn a_dead_letter_is_kept_with_its_reason_and_its_past() {
    let system = Server::shared().await.system();
    let client = system.client().await;
    let user = system.bridge("user").await;
    let recorder = Recorder::default();
    let keeps = recorder.clone();
    let failing = consumer(move |delivery: Delivery| {
        let attempt = delivery.attempt;
        keeps.keep(delivery);
        async move {
            if attempt < 3 {
                Outcome::Retry { after: Duration::from_millis(20) }
            } else {
                Outcome::DeadLetter { reason: "the mail server says no".to_owned() }
            }
        }
    });
    user.subscribe(mail(1), failing).await.unwrap();
    let sent = event(7);
    user.publish(sent.clone()).await.unwrap();
    let dead = dead_letter(&system, &client).await;
    assert_eq!(dead.properties.message_id().as_ref().unwrap().as_str(), sent.id.text());
    assert_eq!(*dead.properties.delivery_mode(), Some(2));
    assert_eq!(dead.data, sent.encode(Instant::now()).unwrap(), "the message as it came");
    let queue = format!("{}.sub.Listener.1.mail", system.name);
    assert_eq!(header(&dead, DEAD_REASON).as_deref(), Some("the mail server says no"));
    assert_eq!(header(&dead, DEAD_QUEUE).as_deref(), Some(queue.as_str()));
    assert_eq!(header(&dead, DEAD_ATTEMPT).as_deref(), Some("3"));
    assert!(header(&dead, DEAD_TIME).is_some());
    let history = header(&dead, RETRY_HISTORY).unwrap();
    assert_eq!(history.split("; ").count(), 2, "{history}");
    assert_eq!(header(&dead, "eventName").as_deref(), Some("userRegistered"), "its own headers stay");
    user.close().await.unwrap();
    assert_eq!(waiting(&client, &queue).await, 0, "it is acknowledged once it is kept");
    assert_eq!(recorder.rest().await.len(), 3, "exactly its attempts");

    // Put back by hand, it is handled like any other.
    let (healed, again) = (system.bridge("user").await, Recorder::default());
    healed.subscribe(mail(1), again.consumer()).await.unwrap();
    let options = BasicPublishOptions::default();
    client
        .basic_publish("".into(), queue.as_str().into(), options, &dead.data, dead.properties.clone())
        .await
        .unwrap();
    assert_eq!(again.message().await.id, sent.id);
    healed.close().await.unwrap();
}

#[tokio::test]
#[ignore = "needs rabbitmq-server: cargo xtask test"]
async fn what_cannot_be_read_is_a_dead_letter_at_once_and_the_next_is_handled() {
    let system = Server::shared().await.system();
    let client = system.client().await;
    let bridge = system.builder().message_bytes_max(10_000).connect().await.unwrap();
    let recorder = Recorder::default();
    bridge.subscribe(mail(1), recorder.consumer()).await.unwrap();
    let mut headers = FieldTable::default();
    headers.insert("eventName".into(), AMQPValue::LongString("userRegistered".into()));
    let properties = lapin::BasicProperties::default().with_headers(headers);
    let large = "x".repeat(20_000);
    for (body, reason) in [("{", "cannot be read"), (large.as_str(), "too large"), ("{}", "cannot be read")] {
        let (exchange, options) = (system.name.as_str().into(), BasicPublishOptions::default());
        client
            .basic_publish(exchange, "".into(), options, body.as_bytes(), properties.clone())
            .await
            .unwrap();
        let dead = dead_letter(&system, &client).await;
        assert_eq!(dead.data, body.as_bytes());
        let told = header(&dead, DEAD_REASON).unwrap();
        assert!(told.contains(reason), "{told}");
    }
    bridge.publish(event(1)).await.unwrap();
    assert_eq!(number(&recorder.message().await), 1);
    assert_eq!(bridge.messages_dropped(), 3);
    bridge.close().await.unwrap();
}

#[tokio::test]
#[ignore = "needs rabbitmq-server: cargo xtask test"]
async fn a_paused_subscription_leaves_its_messages_to_others_and_goes_on_later() {
    let system = Server::shared().await.system();
    let (paused, source) = (system.bridge("paused").await, system.bridge("source").await);
    let recorder = Recorder::default();
    let keeps = recorder.clone();
    let pausing = consumer(move |delivery: Delivery| {
        let is_first = delivery.attempt == 1 && number(&delivery.message) == 0;
        keeps.keep(delivery);
        async move { if is_first { Outcome::Pause { reason: "not now".to_owned() } } else { Outcome::Ack } }
    });
    let registration = paused.subscribe(mail(8), pausing).await.unwrap();
    source.publish(event(0)).await.unwrap();
    recorder.next().await;
    let client = system.client().await;
    let queue = format!("{}.sub.Listener.1.mail", system.name);
    let until = Instant::now() + PATIENCE;
    // The consumer goes with its channel, and what it had in store is there for others.
    while registration.paused().is_none() || consumers(&client, &queue).await > 0 {
        assert!(Instant::now() < until, "it is fed although it is paused");
        tokio::time::sleep(Duration::from_millis(20)).await; // real time: a queue says nothing by itself
    }
    for n in 1..4 {
        source.publish(event(n)).await.unwrap();
    }
    let (other, elsewhere) = (system.bridge("other").await, Recorder::default());
    other.subscribe(mail(8), elsewhere.consumer()).await.unwrap();
    let mut heard = Vec::new();
    for _ in 0..4 {
        heard.push(number(&elsewhere.message().await));
    }
    heard.sort_unstable();
    assert_eq!(heard, [0, 1, 2, 3]);
    other.close().await.unwrap();
    recorder.expect_nothing_more().await;

    source.publish(event(5)).await.unwrap();
    registration.resume();
    assert_eq!(number(&recorder.message().await), 5);
    paused.close().await.unwrap();
    until_empty(&client, &queue).await;
}

#[tokio::test]
#[ignore = "needs rabbitmq-server: cargo xtask test"]
async fn what_an_older_filter_of_the_queue_lets_in_is_not_handled() {
    let system = Server::shared().await.system();
    let (first, recorder) = (system.bridge("user").await, Recorder::default());
    first.subscribe(mail(1), recorder.consumer()).await.unwrap();
    first.close().await.unwrap();
    let second = system.bridge("user").await;
    let changed = Subscription { filter: Filter::event(Text::known("userRemoved")), ..mail(1) };
    second.subscribe(changed, recorder.consumer()).await.unwrap();
    // The queue is still bound to the event that it was for.
    second.publish(event(1)).await.unwrap();
    let wanted = Message { event_name: Some(Text::known("userRemoved")), ..event(2) };
    second.publish(wanted).await.unwrap();
    assert_eq!(number(&recorder.message().await), 2);
    second.close().await.unwrap();
    recorder.expect_nothing_more().await;
}

async fn consumers(client: &Channel, queue: &str) -> u32 {
    let look = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    client.queue_declare(queue.into(), look, FieldTable::default()).await.unwrap().consumer_count()
}

#[tokio::test]
#[ignore = "needs rabbitmq-server: cargo xtask test"]
async fn a_queue_that_is_deleted_under_its_subscription_is_declared_again() {
    let system = Server::shared().await.system();
    let user = system.bridge("user").await;
    let recorder = Recorder::default();
    user.subscribe(mail(4), recorder.consumer()).await.unwrap();
    let client = system.client().await;
    let queue = format!("{}.sub.Listener.1.mail", system.name);
    client.queue_delete(queue.as_str().into(), lapin::options::QueueDeleteOptions::default()).await.unwrap();
    let until = Instant::now() + PATIENCE;
    loop {
        user.publish(event(1)).await.unwrap();
        if !recorder.rest().await.is_empty() {
            break;
        }
        assert!(Instant::now() < until, "it is fed no more");
        tokio::time::sleep(Duration::from_millis(20)).await; // real time: the broker tells, and is asked
    }
    user.close().await.unwrap();
}
