//! A gateway whose commands are served by other processes: what it knows from their contracts alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::BoxFuture;
use purista_core::address::{Address, ServiceId};
use purista_core::bridge::{
    Asking, BridgeError, BridgeErrorKind, BridgeState, Capabilities, Consumer, EventBridge, Registration,
};
use purista_core::client::Client;
use purista_core::clock::Clock;
use purista_core::door::OpenDoor;
use purista_core::id::Id;
use purista_core::in_process::InProcessBridge;
use purista_core::message::Message;
use purista_core::subscription::Subscription;
use purista_http::gateway::Gateway;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::contracts::{RenameUser, SignUp};
use crate::requests::GOOD;
use crate::support::{Builder, Connection, KEY, Reply, gateway, request};

const JSON: &str = "content-type: application/json";

/// A broker that leads to nobody: it counts what is asked, ends it as told, and loses its connection when told.
struct Broker {
    ends: BridgeErrorKind,
    asked: AtomicUsize,
    state: watch::Sender<BridgeState>,
    beside: InProcessBridge,
}

impl Broker {
    fn ending(ends: BridgeErrorKind) -> Arc<Self> {
        let state = watch::channel(BridgeState::Connected).0;
        Arc::new(Self { ends, asked: AtomicUsize::new(0), state, beside: InProcessBridge::new() })
    }
}

impl EventBridge for Broker {
    fn capabilities(&self) -> Capabilities {
        Capabilities { name: "broker", is_local: false, ..self.beside.capabilities() }
    }

    fn instance(&self) -> Id {
        self.beside.instance()
    }

    fn publish(&self, message: Message) -> BoxFuture<'_, Result<(), BridgeError>> {
        self.beside.publish(message)
    }

    fn request(&self, _: Box<Message>) -> Asking<'_> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let ends = self.ends;
        Asking::new(async move { Err(BridgeError::new(ends, "CANARY at user:secret@10.0.0.1")) })
    }

    fn subscribe(
        &self,
        subscription: Subscription,
        consumer: Arc<dyn Consumer>,
    ) -> BoxFuture<'_, Result<Registration, BridgeError>> {
        self.beside.subscribe(subscription, consumer)
    }

    fn state(&self) -> watch::Receiver<BridgeState> {
        self.state.subscribe()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), BridgeError>> {
        self.beside.close()
    }
}

/// A gateway in a process of its own before this broker, with the contracts of two commands.
async fn open(broker: &Arc<Broker>) -> OpenDoor {
    let sender = Address::of(ServiceId::new("Test", "1"), "");
    let client = Client::new(Arc::clone(broker) as _, sender, Clock::system(), 16);
    let keys = purista_http::api_key::ApiKeys::new()
        .key("0123456789abcdef".into(), purista_http::authenticator::Identity::of("billing"));
    let gateway = Gateway::new(client).authenticator(keys).command::<SignUp>().command::<RenameUser>();
    gateway.serve("127.0.0.1:0", CancellationToken::new()).await.unwrap()
}

async fn ask(door: &OpenDoor, line: &str, headers: &[&str], body: &str) -> Reply {
    let mut connection = Connection::to(door.place.strip_prefix("http://").unwrap()).await;
    connection.send(&request(line, headers, body)).await;
    connection.reply().await
}

/// A problem without what differs from flow to flow.
fn settled(mut problem: Value) -> Value {
    let fields = problem.as_object_mut().unwrap();
    assert!(fields.remove("traceId").is_some() && fields.remove("instance").is_some());
    problem
}

#[tokio::test]
async fn what_breaks_a_contract_is_refused_at_the_door_in_the_words_of_the_service() {
    let (service, broker) =
        (Builder::full().await.open(gateway()).await, Broker::ending(BridgeErrorKind::Unknown));
    let door = open(&broker).await;
    let bad = [
        ("POST /api/v1/sign-up", r#"{"email":"nobody","name":""}"#),
        ("POST /api/v1/sign-up", r#"{"email":7}"#),
        ("POST /api/v1/sign-up", "{}"),
        ("POST /api/v1/sign-up", ""),
        ("POST /api/v1/sign-up", r#"{"email":"a@b.de","name":"#),
        ("POST /api/v1/sign-up", "[]"),
        ("PATCH /api/v1/users/7", r#"{"name":7,"address":{"city":1}}"#),
        ("PATCH /api/v1/users/7", r#"{"address":null}"#),
    ];
    for (line, body) in bad {
        let here = service.ask(line, &[JSON, KEY], body).await.problem(400);
        let there = ask(&door, line, &[JSON, KEY], body).await.problem(400);
        assert!(
            there["errors"].as_array().is_some_and(|faults| !faults.is_empty()),
            "{line} {body}: {there}"
        );
        assert_eq!(settled(there), settled(here), "{line} {body}");
    }
    assert_eq!(broker.asked.load(Ordering::Relaxed), 0, "nobody is asked in vain");
    // The path's parameter is part of what is checked, and belongs to what is sent.
    ask(&door, "PATCH /api/v1/users/7", &[JSON, KEY], r#"{"name":"Ada"}"#).await.problem(502);
    assert_eq!(broker.asked.load(Ordering::Relaxed), 1);
    // Who asks is still asked first.
    ask(&door, "PATCH /api/v1/users/7", &[JSON], "{}").await.problem(401);
}

#[tokio::test]
async fn a_command_that_is_not_answered_is_told_without_internals() {
    let ends = [
        (BridgeErrorKind::Unroutable, 502, "nobody serves this command now"),
        (BridgeErrorKind::Timeout, 504, "no answer came in time; it may have happened all the same"),
        (BridgeErrorKind::Unknown, 502, "the answer was lost; it may have happened all the same"),
        (BridgeErrorKind::TooLarge, 413, "the request is larger than the broker carries; it did not happen"),
        (BridgeErrorKind::Rejected, 503, "it was not taken on and did not happen; try again later"),
    ];
    for (kind, status, detail) in ends {
        let door = open(&Broker::ending(kind)).await;
        let reply = ask(&door, "POST /api/v1/sign-up", &[JSON], GOOD).await;
        let told = String::from_utf8_lossy(&reply.body).into_owned();
        assert!(!told.contains("CANARY") && !told.contains("secret"), "{told}");
        assert_eq!(reply.problem(status)["detail"], detail);
    }
}

#[tokio::test]
async fn readiness_follows_the_connection_and_a_lost_one_is_no_reason_to_restart() {
    let broker = Broker::ending(BridgeErrorKind::Unroutable);
    let door = open(&broker).await;
    let probe = async |path: &str| ask(&door, &format!("GET {path}"), &[], "").await;
    assert_eq!((probe("/readyz").await.status, probe("/healthz").await.status), (200, 200));
    broker.state.send_replace(BridgeState::Reconnecting);
    let ready = probe("/readyz").await;
    let part = json!({"name": "bridge broker", "status": "degraded", "detail": "the connection is lost and tried again"});
    assert_eq!((ready.status, &ready.json()["parts"]), (503, &json!([part])));
    assert_eq!(probe("/healthz").await.status, 200, "it comes back by itself");
    broker.state.send_replace(BridgeState::Connected);
    assert_eq!(probe("/readyz").await.status, 200);
    broker.state.send_replace(BridgeState::Closed);
    assert_eq!((probe("/readyz").await.status, probe("/healthz").await.status), (503, 503));
}

#[tokio::test]
async fn what_is_served_elsewhere_is_documented_as_what_is_served_here() {
    let here = Builder::new().unserved::<SignUp>().unserved::<RenameUser>().open(gateway()).await;
    let here = here.get("/api/openapi.json").await.json();
    let there = open(&Broker::ending(BridgeErrorKind::Unroutable)).await;
    let there = ask(&there, "GET /api/openapi.json", &[], "").await.json();
    assert_eq!(there["paths"], here["paths"]);
    assert_eq!(there["components"], here["components"]);
    assert!(there["paths"]["/api/v1/sign-up"]["post"]["requestBody"].is_object(), "{there}");
}

#[tokio::test]
async fn a_contract_that_the_host_serves_itself_is_served_once() {
    let open = Builder::full().await.open(gateway().command::<SignUp>()).await;
    open.post("/api/v1/sign-up", GOOD).await.seen();
    let document = open.get("/api/openapi.json").await.json();
    assert_eq!(document["paths"].as_object().unwrap().len(), 5, "{}", document["paths"]);
}
