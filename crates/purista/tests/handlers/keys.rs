//! Whose keys of state are whose: a service's own, those of all, and those from before there was a difference.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use garde::Validate;
use purista::memory::MemoryStateStore;
use purista::testing::TestHost;
use purista::{Command, Context, HandlerError, Host, Service, ServiceId, command};
use purista_core::store::{Expect, KeyValueError, StateChange, StateStore, Versioned};
use purista_events::batch::Batch;
use purista_events::memory::MemoryStore;
use purista_events::store::EventStore;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a service does with the key `k`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
enum Do {
    Get,
    Set(u32),
    SetIfAbsent(u32),
    Add(u32),
    Remove,
    SetShared(u32),
    GetShared,
    GetOther,
}

macro_rules! services {
    ($($command:ident $service:literal;)+) => { $(
        #[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
        #[garde(allow_unvalidated)]
        struct $command {
            what: Do,
        }
        impl Command for $command {
            const SERVICE: ServiceId = ServiceId::new($service, "1");
            const NAME: &'static str = "act";
            type Output = Found;
        }
        impl $command {
            fn service() -> Service {
                let def = command(async |ctx: Context<()>, input: Self| act(ctx, input.what).await);
                Service::builder(Self::SERVICE, "Keeps", ()).command(def).build()
            }
        }
    )+ };
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Validate)]
#[garde(allow_unvalidated)]
struct Found {
    value: Option<u32>,
}

services! {
    One "One";
    Other "Other";
}

async fn act(ctx: Context<()>, what: Do) -> Result<Found, HandlerError> {
    let state = ctx.state();
    match what {
        Do::Get => return Ok(Found { value: state.get("k").await? }),
        Do::GetShared => return Ok(Found { value: ctx.shared_state().get("k").await? }),
        Do::GetOther => return Ok(Found { value: state.get("@One/k").await? }),
        Do::Set(value) => state.set("k", &value)?,
        Do::SetIfAbsent(value) => state.compare_and_set("k", Expect::Absent, &value)?,
        Do::Add(value) => {
            let before: u32 = state.get("k").await?.unwrap_or(0);
            state.set("k", &(before + value))?;
        }
        Do::Remove => state.remove("k")?,
        Do::SetShared(value) => ctx.shared_state().set("k", &value)?,
    }
    Ok(Found { value: None })
}

/// A host whose store holds `k` from before.
async fn with_old(value: Option<u32>) -> TestHost {
    let host = TestHost::start([One::service(), Other::service()]).await;
    if let Some(value) = value {
        old(host.store(), value).await;
    }
    host
}

async fn old(store: &MemoryStore, value: u32) {
    let mut batch = Batch::new(purista_core::id::Id::from_random(u128::from(value)), None);
    let value = Some(value.into());
    batch.state.push(StateChange { key: "k".into(), expect: Expect::Any, value, time_to_live: None });
    store.commit(batch).await.unwrap();
}

async fn one(host: &TestHost, what: Do) -> Option<u32> {
    host.invoke(One { what }).await.unwrap().value
}

async fn other(host: &TestHost, what: Do) -> Option<u32> {
    host.invoke(Other { what }).await.unwrap().value
}

async fn is_old_there(host: &TestHost) -> bool {
    !host.store().state(None, &["k".to_owned()]).await.unwrap().is_empty()
}

#[tokio::test]
async fn two_services_never_overwrite_each_others_key() {
    let host = with_old(None).await;
    one(&host, Do::Set(1)).await;
    other(&host, Do::Set(2)).await;
    assert_eq!((one(&host, Do::Get).await, other(&host, Do::Get).await), (Some(1), Some(2)));
    other(&host, Do::Remove).await;
    assert_eq!((one(&host, Do::Get).await, other(&host, Do::Get).await), (Some(1), None));
    assert_eq!(other(&host, Do::GetOther).await, None, "a key that looks like another service's is its own");
}

#[tokio::test]
async fn shared_state_is_one_for_all_and_apart_from_their_own() {
    let host = with_old(None).await;
    one(&host, Do::SetShared(1)).await;
    one(&host, Do::Set(2)).await;
    assert_eq!((other(&host, Do::GetShared).await, other(&host, Do::Get).await), (Some(1), None));
    assert_eq!((one(&host, Do::GetShared).await, one(&host, Do::Get).await), (Some(1), Some(2)));
}

#[tokio::test]
async fn a_key_from_before_is_read_and_moved_when_it_is_first_written() {
    for write in [Do::Add(1), Do::Set(8)] {
        let host = with_old(Some(7)).await;
        assert_eq!(one(&host, Do::Get).await, Some(7));
        assert!(is_old_there(&host).await, "reading moves nothing");
        one(&host, write).await;
        assert_eq!(one(&host, Do::Get).await, Some(8));
        assert!(!is_old_there(&host).await);
        assert_eq!(other(&host, Do::Get).await, None, "it is the first writer's");
    }
    let host = with_old(Some(7)).await;
    one(&host, Do::SetShared(8)).await;
    assert_eq!((one(&host, Do::GetShared).await, one(&host, Do::Get).await), (Some(8), None));
}

#[tokio::test]
async fn a_key_from_before_that_is_removed_does_not_come_back() {
    let host = with_old(Some(7)).await;
    one(&host, Do::Remove).await;
    assert_eq!((one(&host, Do::Get).await, is_old_there(&host).await), (None, false));
}

#[tokio::test]
async fn who_expects_that_nothing_is_there_finds_a_key_from_before() {
    let host = with_old(Some(7)).await;
    let error = host.invoke(One { what: Do::SetIfAbsent(1) }).await.unwrap_err();
    assert_eq!(error.status().code(), 409);
    assert_eq!(one(&host, Do::Get).await, Some(7));
}

#[tokio::test]
async fn of_two_who_move_a_key_from_before_one_wins() {
    let host = with_old(Some(7)).await;
    let client = host.host().client();
    let (first, second) =
        tokio::join!(client.invoke(One { what: Do::Add(1) }), client.invoke(One { what: Do::Add(1) }));
    let lost = [first, second].into_iter().filter_map(Result::err).map(|error| error.status().code());
    let lost: Vec<u16> = lost.collect();
    let added = 2 - u32::try_from(lost.len()).unwrap();
    assert!(lost.iter().all(|status| *status == 409), "{lost:?}");
    assert_eq!(one(&host, Do::Get).await, Some(7 + added));
}

/// A store that the test looks into.
struct Looked(Arc<MemoryStateStore>);

impl StateStore for Looked {
    fn get<'a>(
        &'a self,
        tenant: Option<&'a str>,
        keys: &'a [String],
    ) -> BoxFuture<'a, Result<BTreeMap<String, Versioned>, KeyValueError>> {
        self.0.get(tenant, keys)
    }

    fn change<'a>(
        &'a self,
        tenant: Option<&'a str>,
        change: StateChange,
    ) -> BoxFuture<'a, Result<u64, KeyValueError>> {
        self.0.change(tenant, change)
    }
}

#[tokio::test]
async fn a_state_store_beside_the_host_has_the_same_keys() {
    let state = Arc::new(MemoryStateStore::default());
    let change = StateChange {
        key: "k".into(),
        expect: Expect::Any,
        value: Some(7.into()),
        time_to_live: Some(Duration::from_secs(60)),
    };
    state.change(None, change).await.unwrap();
    let builder = Host::builder().state_store(Looked(Arc::clone(&state)));
    let host = builder.service(One::service()).service(Other::service()).start().await.unwrap();
    let client = host.client();
    client.invoke(One { what: Do::Add(1) }).await.unwrap();
    client.invoke(Other { what: Do::Add(1) }).await.unwrap();
    let keys = ["k", "@One/k", "@Other/k"].map(ToOwned::to_owned);
    let found = state.get(None, &keys).await.unwrap();
    let found: Vec<_> = found.iter().map(|(key, found)| (key.as_str(), found.value.clone())).collect();
    assert_eq!(found, [("@One/k", 8.into()), ("@Other/k", 1.into())]);
    host.stop().await;
}
