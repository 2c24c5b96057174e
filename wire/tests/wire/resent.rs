//! Events that a broker lost although it had confirmed them: the host that recorded them sends them again from its log, and a
//! subscription with a store handles each of them once.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use purista::{Context, Host, RunningHost, Service, subscription};
use purista_events::position::Position;
use purista_events::resend;
use purista_events::store::EventStore as _;
use purista_events::subscriptions::{RELAY, SubscriptionId};
use purista_mqtt::bridge::MqttBridge;
use purista_servers::folder::Folder;
use purista_servers::mosquitto::Mosquitto;
use purista_sqlite::store::SqliteStore;

use crate::carrier::PATIENCE;
use crate::services::{self, EMAIL, TouchUser, UserTouched};

/// What the broker stores for a subscriber that is away.
const QUEUED_MAX: usize = 50;
/// What is published meanwhile.
const MISSED: usize = 150;
/// How long the listener may take for what the broker stores.
const SETTLING_TIME: Duration = Duration::from_millis(500);
const LOOK_EVERY: Duration = Duration::from_millis(20);

type Heard = Arc<Mutex<Vec<String>>>;

async fn hear(ctx: Context<Heard>, event: UserTouched) -> Result<(), purista::HandlerError> {
    ctx.resources().lock().unwrap().push(event.user_id);
    Ok(())
}

async fn listening(server: &Mosquitto, store: SqliteStore, heard: &Heard) -> RunningHost {
    let bridge = MqttBridge::builder(server.url()).client_id("email-1").durable_in_one_process();
    let def = subscription("hear", hear).durable();
    let service = Service::builder(EMAIL, "Hears", Arc::clone(heard)).subscription(def).build();
    let host = Host::builder().bridge(bridge.connect().await.unwrap()).store(store).service(service);
    host.start().await.unwrap()
}

async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let wait = async {
        while !is_so().await {
            tokio::time::sleep(LOOK_EVERY).await; // real time: a broker and two hosts work
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{what} does not come"));
}

async fn touch(host: &RunningHost, users: std::ops::Range<usize>) {
    for user in users {
        host.client().invoke(TouchUser { user_id: user.to_string() }).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs mosquitto: cargo xtask test"]
async fn what_a_broker_lost_comes_again_from_the_log_and_is_handled_once() {
    let (server, folder) = (Mosquitto::start_storing(QUEUED_MAX).await, Folder::fresh("resent"));
    let store = SqliteStore::open(folder.join("source.db")).unwrap();
    let bridge = MqttBridge::builder(server.url()).instance("source").connect().await.unwrap();
    let source = Host::builder().bridge(bridge).store(store.clone()).service(services::user());
    let source = source.start().await.unwrap();
    let (heard, mails) = (Heard::default(), SqliteStore::open(folder.join("mails.db")).unwrap());
    let count = || heard.lock().unwrap().len();

    let listener = listening(&server, mails, &heard).await;
    touch(&source, 0..1).await;
    until("the first event", async || count() == 1).await;
    listener.stop().await;

    touch(&source, 1..MISSED).await;
    let relay = SubscriptionId::new(RELAY);
    until("the broker's confirmation of each", async || {
        let record = store.subscription(&relay).await.unwrap();
        record.is_some_and(|record| record.progress.low == *store.head().borrow())
    })
    .await;
    let mails = SqliteStore::open(folder.join("mails.db")).unwrap();
    let listener = listening(&server, mails, &heard).await;
    touch(&source, MISSED..MISSED + 1).await;
    until("the event after its return", async || heard.lock().unwrap().contains(&MISSED.to_string())).await;
    assert!(count() < MISSED, "the broker kept everything: {}", count());

    // The broker stores no more for a subscriber that is there and slower than the relay: what it drops again is sent again.
    while count() <= MISSED {
        let resent = source.resend(Position::START).await.unwrap();
        assert_eq!(resent.up_to(), *store.head().borrow());
        until("the end of the request", async || resend::requested(&store).await.unwrap().is_none()).await;
        tokio::time::sleep(SETTLING_TIME).await; // real time: what does not come cannot be waited for
    }
    touch(&source, MISSED + 1..MISSED + 2).await;
    until("the last event", async || heard.lock().unwrap().contains(&(MISSED + 1).to_string())).await;
    let mut all = heard.lock().unwrap().clone();
    all.sort_by_key(|user| user.parse::<usize>().unwrap());
    let expected: Vec<String> = (0..MISSED + 2).map(|user| user.to_string()).collect();
    assert_eq!(all, expected, "each once");
    listener.stop().await;
    source.stop().await;
}
