//! State and configuration in buckets of a real server.

use std::time::Duration;

use purista_core::bridge::{BridgeErrorKind, EventBridge};
use purista_core::store::{
    ConfigStore, Expect, KeyValueError, KeyValueErrorKind, StateChange, StateStore, Versioned,
};
use purista_nats::bridge::NatsBridge;
use purista_nats::key_value::{NatsStateStore, STATE_BUCKET};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::server::Server;

async fn bridge() -> (Server, NatsBridge) {
    let server = Server::start_with(&["--jetstream"]).await;
    let bridge = NatsBridge::connect(server.url()).await.unwrap();
    (server, bridge)
}

fn change(key: &str, expect: Expect, value: Option<Value>) -> StateChange {
    StateChange { key: key.to_owned(), expect, value, time_to_live: None }
}

async fn value(state: &NatsStateStore, tenant: Option<&str>, key: &str) -> Option<Versioned> {
    state.get(tenant, &[key.to_owned()]).await.unwrap().remove(key)
}

fn kind<T>(result: Result<T, KeyValueError>) -> Option<KeyValueErrorKind> {
    result.err().map(|error| error.kind())
}

#[tokio::test]
#[ignore = "needs nats-server: cargo xtask test"]
async fn a_write_happens_only_when_what_it_expects_is_so() {
    let (_server, bridge) = bridge().await;
    let state = bridge.state_store(1).await.unwrap();
    assert_eq!(value(&state, None, "theme").await, None);
    let first = state.change(None, change("theme", Expect::Absent, Some(json!("dark")))).await.unwrap();
    let again = state.change(None, change("theme", Expect::Absent, Some(json!("light")))).await;
    assert_eq!(kind(again), Some(KeyValueErrorKind::Conflict));
    let second =
        state.change(None, change("theme", Expect::Version(first), Some(json!("light")))).await.unwrap();
    assert!(second > first);
    let late = state.change(None, change("theme", Expect::Version(first), None)).await;
    assert_eq!(kind(late), Some(KeyValueErrorKind::Conflict), "a removal is a write");
    assert_eq!(
        value(&state, None, "theme").await,
        Some(Versioned { value: json!("light"), version: second })
    );
    assert_eq!(state.change(None, change("theme", Expect::Version(second), None)).await.unwrap(), 0);
    assert_eq!(value(&state, None, "theme").await, None);
    let third = state.change(None, change("theme", Expect::Absent, Some(json!(null)))).await.unwrap();
    assert!(third > second, "no version comes twice");
    assert_eq!(
        state.change(None, change("theme", Expect::Any, Some(json!({ "a": 1 })))).await.unwrap(),
        third + 1
    );
    assert_eq!(state.change(None, change("never", Expect::Any, None)).await.unwrap(), 0);
    bridge.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: cargo xtask test"]
async fn of_many_who_race_for_a_version_one_wins() {
    let (server, bridge) = bridge().await;
    let other = NatsBridge::connect(server.url()).await.unwrap();
    let states = [bridge.state_store(1).await.unwrap(), other.state_store(1).await.unwrap()];
    let mut version = states[0].change(None, change("seat", Expect::Absent, Some(json!(0)))).await.unwrap();
    for round in 1..=20 {
        let mut racing = JoinSet::new();
        for racer in 0..16 {
            let state = states[racer % 2].clone();
            let change = change("seat", Expect::Version(version), Some(json!([round, racer])));
            racing.spawn(async move { state.change(None, change).await });
        }
        let (won, lost): (Vec<_>, Vec<_>) = racing.join_all().await.into_iter().partition(Result::is_ok);
        assert_eq!((won.len(), lost.len()), (1, 15));
        assert!(lost.into_iter().all(|lost| kind(lost) == Some(KeyValueErrorKind::Conflict)));
        version = value(&states[1], None, "seat").await.unwrap().version;
    }
    bridge.close().await.unwrap();
    other.close().await.unwrap();
}

#[tokio::test]
#[ignore = "needs nats-server: cargo xtask test"]
async fn tenants_do_not_see_each_other_and_any_key_may_be_one() {
    let (_server, bridge) = bridge().await;
    let state = bridge.state_store(1).await.unwrap();
    let places = [
        (None, "a b"),
        (None, "a>"),
        (Some("x"), "a b"),
        (Some("y"), "a b"),
        (Some(""), "a b"),
        (None, "ü/."),
    ];
    for (number, (tenant, key)) in places.into_iter().enumerate() {
        state.change(tenant, change(key, Expect::Absent, Some(json!(number)))).await.unwrap();
    }
    for (number, (tenant, key)) in places.into_iter().enumerate() {
        assert_eq!(value(&state, tenant, key).await.unwrap().value, json!(number));
    }
    let keys: Vec<String> = (0..40).map(|number| format!("k{number}")).collect();
    for key in keys.iter().step_by(2) {
        state.change(None, change(key, Expect::Any, Some(json!(key)))).await.unwrap();
    }
    let found = state.get(None, &keys).await.unwrap();
    assert_eq!(found.keys().collect::<Vec<_>>().len(), 20);
    assert!(found.iter().all(|(key, found)| found.value == json!(key)));
    assert_eq!(kind(state.get(None, &[String::new()]).await), Some(KeyValueErrorKind::InvalidKey));
    bridge.close().await.unwrap();
}

#[tokio::test]
#[ignore = "needs nats-server: cargo xtask test"]
async fn a_value_ends_after_its_time_and_makes_room() {
    let (_server, bridge) = bridge().await;
    let state = bridge.state_store(1).await.unwrap();
    let ending =
        |time| StateChange { time_to_live: Some(time), ..change("code", Expect::Absent, Some(json!(1234))) };
    state.change(None, ending(Duration::from_secs(60))).await.unwrap();
    assert_eq!(value(&state, None, "code").await.unwrap().value, json!(1234));
    let early = state.change(None, ending(Duration::from_secs(60))).await;
    assert_eq!(kind(early), Some(KeyValueErrorKind::Conflict));
    let short = StateChange { expect: Expect::Any, ..ending(Duration::ZERO) };
    let ended = state.change(None, short).await.unwrap();
    assert_eq!(value(&state, None, "code").await, None);
    let of_ended = state.change(None, change("code", Expect::Version(ended), Some(json!(1)))).await;
    assert_eq!(kind(of_ended), Some(KeyValueErrorKind::Conflict), "what has ended has no version");
    state.change(None, ending(Duration::from_secs(60))).await.unwrap();
    bridge.close().await.unwrap();
}

#[tokio::test]
#[ignore = "needs nats-server: cargo xtask test"]
async fn configuration_is_peers_json_and_what_is_set_is_read_everywhere() {
    let (server, bridge) = bridge().await;
    let config = bridge.config_store(1).await.unwrap();
    let client = server.client().await;
    let kv = async_nats::jetstream::new(client).get_key_value("purista-config-store").await.unwrap();
    kv.put("mail.limit", "7".into()).await.unwrap();
    let keys = ["mail.limit".to_owned(), "mail.from".to_owned()];
    assert_eq!(config.get(&keys).await.unwrap(), [(keys[0].clone(), json!(7))].into());
    config.set(keys[1].clone(), Some(json!({ "name": "Ada" }))).await.unwrap();
    assert_eq!(kv.get("mail.from").await.unwrap().unwrap(), r#"{"name":"Ada"}"#);
    config.set(keys[0].clone(), None).await.unwrap();
    assert_eq!(config.get(&keys).await.unwrap(), [(keys[1].clone(), json!({ "name": "Ada" }))].into());
    kv.put("broken", "{".into()).await.unwrap();
    assert_eq!(kind(config.get(&["broken".to_owned()]).await), Some(KeyValueErrorKind::Rejected));
    bridge.close().await.unwrap();
}

#[tokio::test]
#[ignore = "needs nats-server: cargo xtask test"]
async fn state_survives_the_servers_crash_and_ends_with_its_bridge() {
    let (mut server, bridge) = bridge().await;
    let state = bridge.state_store(1).await.unwrap();
    let version = state.change(None, change("kept", Expect::Absent, Some(json!("yes")))).await.unwrap();
    server.kill();
    server.restart().await;
    assert_eq!(value(&state, None, "kept").await, Some(Versioned { value: json!("yes"), version }));
    let large = Value::String("x".repeat(2 << 20));
    let refused = state.change(None, change("large", Expect::Any, Some(large))).await.unwrap_err();
    assert_eq!(refused.kind(), KeyValueErrorKind::Rejected);
    assert!(refused.to_string().contains("the NATS server takes"), "{refused}");
    bridge.close().await.unwrap();
    assert_eq!(kind(state.get(None, &["kept".to_owned()]).await), Some(KeyValueErrorKind::Rejected));
    assert!(bridge.state_store(1).await.is_err());
}

#[tokio::test]
#[ignore = "needs nats-server: cargo xtask test"]
async fn without_jetstream_there_are_no_buckets_and_it_says_why() {
    let server = Server::start().await;
    let bridge = NatsBridge::connect(server.url()).await.unwrap();
    let refused = bridge.state_store(1).await.unwrap_err();
    assert_eq!(refused.kind(), BridgeErrorKind::Rejected);
    assert!(refused.to_string().contains("--jetstream"), "{refused} {STATE_BUCKET}");
    bridge.close().await.unwrap();
}
