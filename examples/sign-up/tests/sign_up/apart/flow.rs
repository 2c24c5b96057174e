//! One sign-up by way of three processes, and what each of them says and keeps.

use std::collections::HashSet;

use serde_json::json;

use crate::apart::{Apart, Broker, Folders, Kind, http, part};
use crate::http::{request, sign_up};
use crate::{beside_others, mails, soon};

/// What a process keeps itself; without a store the broker keeps what waits.
const STORES: [&[&str]; 2] = [&[], &["--no-store"]];

#[tokio::test]
#[ignore = "needs nats-server: cargo xtask test"]
async fn a_sign_up_through_three_processes_over_nats_is_one_mail() {
    one_mail(Kind::Nats).await;
}

#[tokio::test]
#[ignore = "needs RabbitMQ: cargo xtask test"]
async fn a_sign_up_through_three_processes_over_rabbitmq_is_one_mail() {
    one_mail(Kind::RabbitMq).await;
}

#[tokio::test]
#[ignore = "needs mosquitto: cargo xtask test"]
async fn a_sign_up_through_three_processes_over_mqtt_is_one_mail() {
    one_mail(Kind::Mosquitto).await;
}

async fn one_mail(kind: Kind) {
    let _cores = beside_others().await;
    let broker = Broker::start(kind).await;
    for store in STORES {
        let folders = Folders::new();
        let apart = Apart::start(&broker, &folders, store).await;
        it_says_what_it_runs_and_keeps(&broker, &apart, store);
        // As the page sends it: always with a key. The same key gets the same answer, with a store and without.
        let asked = sign_up("ada@example.com", "Ada", Some("key of the page"));
        let user_id = apart.http.ask(&asked).await.user_id();
        assert_eq!(apart.http.ask(&asked).await.user_id(), user_id, "{store:?}");
        let mails = soon("the mail", mails::until_written(&folders.email, &["ada@example.com"])).await;
        assert!(mails[0].body.contains(&user_id), "{mails:?}");
        assert_eq!(apart.http.sign_up("ADA@example.com", "Ada").await.status, 409, "the address is taken");
        // What breaks the contract is told by the gateway, which knows no more than that.
        let bad =
            request("POST", "/api/v1/sign-up", &[("content-type", "application/json")], b"{\"email\":7}");
        let told = apart.http.ask(&bad).await;
        let fields: HashSet<String> = told.json()["errors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|fault| fault["path"][0].to_string())
            .collect();
        assert_eq!((told.status, fields), (400, ["\"email\"".to_owned(), "\"name\"".to_owned()].into()));
        apart.stop().await;
        assert_eq!(mails::all(&folders.email).len(), 1, "one sign-up, one mail");
        assert!(!folders.http.data().exists(), "who only asks keeps nothing");
        assert_eq!(folders.user.data().join("sign-up.db").exists(), store.is_empty());
        assert_eq!(folders.email.data().join("sign-up.db").exists(), store.is_empty());
    }
}

fn it_says_what_it_runs_and_keeps(broker: &Broker, apart: &Apart, store: &[&str]) {
    let line = |said: &[String], begin: &str| -> String {
        let line = said.iter().find(|line| line.starts_with(begin));
        line.unwrap_or_else(|| panic!("{begin}: {said:?}")).clone()
    };
    for (part, said) in [("http", &apart.http.said), ("user", &apart.user.said), ("email", &apart.email.said)]
    {
        assert_eq!(line(said, "runs "), format!("runs     {part}"));
        let bridge = line(said, "bridge ");
        assert!(bridge.starts_with(&format!("bridge   {}: ", broker.url())), "{bridge}");
        let has_store = store.is_empty() && part != "http";
        assert_eq!(line(said, "store ").starts_with("store    none"), !has_store, "{said:?}");
        assert_eq!(said.iter().any(|line| line.starts_with("mails ")), part == "email");
        assert_eq!(said.iter().any(|line| line.starts_with("page ")), part == "http");
    }
}

#[tokio::test]
#[ignore = "needs nats-server: cargo xtask test"]
async fn nobody_to_answer_is_said_at_once_on_nats() {
    nobody_answers(Kind::Nats).await;
}

#[tokio::test]
#[ignore = "needs RabbitMQ: cargo xtask test"]
async fn nobody_to_answer_is_said_at_once_on_rabbitmq() {
    nobody_answers(Kind::RabbitMq).await;
}

#[tokio::test]
#[ignore = "needs mosquitto: cargo xtask test"]
async fn nobody_to_answer_is_said_at_once_on_mqtt() {
    nobody_answers(Kind::Mosquitto).await;
}

/// All three brokers say at once when nobody is there. `soon` is no longer than a command's own deadline, which is 504.
async fn nobody_answers(kind: Kind) {
    let _cores = beside_others().await;
    let (broker, folders) = (Broker::start(kind).await, Folders::new());
    let url = broker.url();
    let server = http(&url, &folders.http).await;
    let answer = server.sign_up("ada@example.com", "Ada").await;
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    let problem = answer.json();
    assert_eq!((answer.status, &problem["detail"]), (502, &json!("nobody serves this command now")));
    let told = problem.to_string();
    assert!(!told.contains("127.0.0.1") && !told.contains("purista"), "no internals: {told}");
    // Somebody comes, and nothing has to be started again.
    let user = part("user", &url, &folders.user, &[]).await;
    server.sign_up("ada@example.com", "Ada").await.user_id();
    user.stop().await;
    assert_eq!(server.sign_up("bob@example.com", "Bob").await.status, 502);
    server.stop().await;
}
