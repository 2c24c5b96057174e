//! Events of older forms: read by decisions, views and durable subscriptions through the host's upcasters.

use purista::observation::Ending;
use purista::testing::TestHost;
use purista::{Context, Event, Host, Upcasters, command, decide, subscription};
use purista_core::health::Condition;
use purista_events::memory::MemoryStore;
use purista_events::memory::tables::Tables;
use purista_events::projection::projection;
use purista_events::recorded::Recorded;
use purista_events::store::EventStore as _;
use serde_json::json;

use crate::contracts::{Rename, Renamed, RenamedV1, names, rename, renamed, service, to_rename};
use crate::{log, refused};

fn old(name: &str) -> RenamedV1 {
    RenamedV1 { user: "ada".to_owned(), name: name.to_owned() }
}

/// A store in which an older program recorded these.
async fn left_by_an_older_program<E: Event>(events: Vec<E>) -> MemoryStore {
    let def = command(move |ctx: Context<()>, _: Rename| {
        let events = events.clone();
        async move {
            events.into_iter().try_for_each(|event| ctx.emit(event))?;
            Ok(())
        }
    });
    let host = TestHost::start([service().command(def.emits::<E>()).build()]).await;
    host.invoke(to_rename("ada", "")).await.unwrap();
    host.stop().await.1
}

fn upcasters() -> Upcasters {
    Upcasters::new().upcast(|old: RenamedV1| Renamed { user: old.user, name: old.name, times: 10 })
}

async fn newer_program(store: MemoryStore, upcasters: Upcasters) -> TestHost {
    let heard = subscription("heard", |_ctx: Context<()>, _event: Renamed| async { Ok(()) });
    let service = service().command(decide(names, rename)).subscription(heard.durable().from_start());
    let builder = TestHost::builder().services([service.build()]).store(store);
    let host = builder.configure(|host| host.upcasters(upcasters)).start().await;
    host.settled().await;
    host
}

#[tokio::test]
async fn a_decision_reads_them() {
    let host = newer_program(left_by_an_older_program(vec![old("Ada")]).await, upcasters()).await;
    host.invoke(to_rename("ada", "Ada")).await.unwrap();
    assert_eq!(log(host.store()).await.len(), 1, "that was the name already");
    host.invoke(to_rename("ada", "Countess")).await.unwrap();
    assert_eq!(host.emitted::<Renamed>(), [renamed("Countess", 11)]);
}

#[tokio::test]
async fn a_durable_subscription_hears_them_as_they_are_today() {
    let host = newer_program(left_by_an_older_program(vec![old("Ada"), old("A.")]).await, upcasters()).await;
    assert_eq!(host.saw::<Renamed>("heard"), [renamed("Ada", 10), renamed("A.", 10)]);
}

#[tokio::test]
async fn one_event_that_became_several_is_heard_as_several_in_one_unit() {
    let several = Upcasters::new().upcast_json("renamed", 1, &[("renamed", 2)], |json| {
        let one =
            |times| ("renamed", 2, json!({ "user": json["user"], "name": json["name"], "times": times }));
        vec![one(1), one(2)]
    });
    let store = left_by_an_older_program(vec![old("Ada")]).await;
    let heard = subscription("counting", |ctx: Context<()>, _event: Renamed| async move {
        let count: u32 = ctx.state().get("count").await?.unwrap_or(0);
        ctx.state().set("count", &(count + 1))?;
        Ok(())
    });
    let service = service().subscription(heard.durable().from_start()).build();
    let builder = TestHost::builder().services([service]).store(store);
    let host = builder.configure(|host| host.upcasters(several)).start().await;
    host.settled().await;
    assert_eq!(host.endings("counting"), [Ending::Done]);
    let state = purista_events::store::EventStore::state(host.store(), None, &["@Account/count".to_owned()])
        .await
        .unwrap();
    assert_eq!(state["@Account/count"].value, json!(2));
}

#[tokio::test]
async fn an_event_that_was_forgotten_is_heard_by_nobody() {
    let none = Upcasters::new().upcast_json("renamed", 1, &[], |_| Vec::new());
    let host = newer_program(left_by_an_older_program(vec![old("Ada")]).await, none).await;
    assert!(host.handled("heard").is_empty());
    host.invoke(to_rename("ada", "Ada")).await.unwrap();
    assert_eq!(host.emitted::<Renamed>(), [renamed("Ada", 1)]);
}

#[tokio::test]
async fn without_a_step_a_decision_fails_and_a_subscription_puts_it_aside() {
    let host = newer_program(left_by_an_older_program(vec![old("Ada")]).await, Upcasters::new()).await;
    refused(host.invoke(to_rename("ada", "x")).await, 500, "");
    assert!(host.handled("heard").is_empty());
    let letters = host.store().dead_letters(None, 10).await.unwrap();
    assert_eq!(letters.len(), 1);
    assert!(letters[0].reason.contains("renamed v1 at position 1"), "{}", letters[0].reason);
}

#[tokio::test]
async fn upcasters_that_cannot_work_are_refused_at_the_start() {
    let twice = upcasters().upcast(|old: RenamedV1| renamed(&old.name, 1));
    let text = Host::builder().upcasters(twice).start().await.err().unwrap().to_string();
    assert!(text.contains("two upcasters of renamed v1"), "{text}");
}

/// An event of a version that no program here knows.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize, schemars::JsonSchema, garde::Validate)]
#[garde(allow_unvalidated)]
struct RenamedV9 {
    user: String,
}

impl Event for RenamedV9 {
    const NAME: &'static str = "renamed";
    const VERSION: u32 = 9;
}

/// An event under the name that it had at first.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize, schemars::JsonSchema, garde::Validate)]
#[garde(allow_unvalidated)]
struct NameChanged {
    user: String,
}

impl Event for NameChanged {
    const NAME: &'static str = "nameChanged";
}

/// Subscriptions that a bridge and the log feed, on a host that knows how older forms are read.
async fn hearing(always_encodes: bool, upcasters: Upcasters) -> TestHost {
    let on_bridge = subscription("onBridge", |_ctx: Context<()>, _event: Renamed| async { Ok(()) });
    let on_log = subscription("onLog", |_ctx: Context<()>, _event: Renamed| async { Ok(()) });
    let retry = purista::Retry::exponential(3);
    let service = service().subscription(on_bridge.retry(retry)).subscription(on_log.durable().retry(retry));
    let mut builder = TestHost::builder().services([service.build()]);
    if always_encodes {
        builder = builder.always_encoding();
    }
    builder.configure(|host| host.upcasters(upcasters)).start().await
}

#[tokio::test]
async fn an_event_of_an_older_form_is_heard_as_it_is_today_whichever_way_it_comes() {
    for always_encodes in [false, true] {
        let several = upcasters().upcast_json("nameChanged", 1, &[("renamed", 2)], |json| {
            let one = |times| ("renamed", 2, json!({ "user": json["user"], "name": "?", "times": times }));
            vec![one(1), one(2)]
        });
        let host = hearing(always_encodes, several).await;
        host.emit(old("Ada")).await.unwrap();
        host.emit(NameChanged { user: "ada".to_owned() }).await.unwrap();
        host.emit(renamed("Countess", 3)).await.unwrap();
        for name in ["onBridge", "onLog"] {
            let expected = [renamed("Ada", 10), renamed("?", 1), renamed("?", 2), renamed("Countess", 3)];
            let seen = host.saw::<Renamed>(name);
            // Of what one event became, an observer sees the last, in the one unit of both.
            assert!(seen.first() == expected.first() && seen.last() == expected.last(), "{name}: {seen:?}");
            assert!(host.endings(name).iter().all(|ending| *ending == Ending::Done), "{name}");
        }
    }
}

#[tokio::test]
async fn an_event_of_a_newer_form_is_tried_again_and_then_put_aside_with_both_versions() {
    let host = hearing(true, upcasters()).await;
    host.emit(RenamedV9 { user: "ada".to_owned() }).await.unwrap();
    let letters = host.store().dead_letters(None, 10).await.unwrap();
    let mut found: Vec<_> =
        letters.iter().map(|letter| (letter.subscription.as_str(), letter.attempts)).collect();
    found.sort_unstable();
    assert_eq!(found, [("Account.1.onBridge", 3), ("Account.1.onLog", 3)]);
    for letter in letters {
        let is_named = letter.reason.contains("reads renamed v2") && letter.reason.contains("v9 is newer");
        assert!(is_named, "{}", letter.reason);
    }
}

#[tokio::test]
async fn an_upcaster_that_panics_on_what_a_bridge_delivers_fails_that_event_alone() {
    let panics = Upcasters::new().upcast(|old: RenamedV1| {
        assert!(old.name != "bad", "what is this");
        Renamed { user: old.user, name: old.name, times: 10 }
    });
    let on_bridge = subscription("onBridge", |_ctx: Context<()>, _event: Renamed| async { Ok(()) });
    let service = service().subscription(on_bridge.retry(purista::Retry::never())).build();
    let builder = TestHost::builder().services([service]).configure(|host| host.upcasters(panics));
    let host = builder.start().await;
    host.emit(old("bad")).await.unwrap();
    host.emit(old("Ada")).await.unwrap();
    assert_eq!(host.saw::<Renamed>("onBridge"), [renamed("Ada", 10)]);
    let letters = host.store().dead_letters(None, 10).await.unwrap();
    assert!(letters.len() == 1 && letters[0].reason.contains("what is this"), "{letters:?}");
}

#[tokio::test]
async fn an_upcaster_that_panics_on_what_the_log_holds_fails_that_event_alone_and_pauses_projections() {
    let panics = Upcasters::new().upcast(|old: RenamedV1| {
        assert!(old.name != "bad", "what is this");
        Renamed { user: old.user, name: old.name, times: 10 }
    });
    let store = left_by_an_older_program(vec![old("Ada"), old("bad"), old("Countess")]).await;
    let store = store.open_beside();
    let names = projection("names", 1).on(|rows: &Tables, event: Recorded<Renamed>| {
        rows.put("names", &event.body.name, true.into());
        Ok(())
    });
    let (from_log, projected) = (
        subscription("fromLog", |_ctx: Context<()>, _event: Renamed| async { Ok(()) }).durable().from_start(),
        store.projected(names),
    );
    let service = service().subscription(from_log.retry(purista::Retry::never())).build();
    let builder = TestHost::builder().store(store).services([service]);
    let host = builder.configure(|host| host.upcasters(panics).projection(projected)).start().await;
    host.settled().await;
    assert_eq!(host.saw::<Renamed>("fromLog"), [renamed("Ada", 10), renamed("Countess", 10)]);
    let letters = host.store().dead_letters(None, 10).await.unwrap();
    assert!(letters.len() == 1 && letters[0].reason.contains("what is this"), "{letters:?}");
    host.pass(std::time::Duration::from_secs(1)).await;
    let report = host.host().health().report();
    let part = report.parts.iter().find(|part| part.name == "projection names 1").unwrap();
    assert_eq!(part.condition, Condition::Degraded, "{part:?}");
    assert!(!report.parts.iter().any(|part| part.name.starts_with("task ")), "{report:?}");
}

#[tokio::test]
async fn a_success_event_of_a_later_version_says_so_on_its_response() {
    #[derive(Debug, Clone, serde::Serialize, serde::Deserialize, schemars::JsonSchema, garde::Validate)]
    #[garde(allow_unvalidated)]
    struct Give {}
    impl purista::Command for Give {
        const SERVICE: purista::ServiceId = crate::contracts::ACCOUNT;
        const NAME: &'static str = "give";
        type Output = Renamed;
    }
    let give = command(|_ctx: Context<()>, _: Give| async { Ok(renamed("Ada", 7)) });
    let (sender, mut received) = tokio::sync::mpsc::channel(1);
    let hear = subscription("hear", move |_ctx: Context<()>, event: Renamed| {
        let sender = sender.clone();
        async move { Ok(sender.send(event).await?) }
    });
    let service = service().command(give.success_event()).subscription(hear).build();
    let host = Host::builder().service(service).start().await.unwrap();
    host.client().invoke(Give {}).await.unwrap();
    assert_eq!(received.recv().await, Some(renamed("Ada", 7)), "without a store it comes on the response");
    host.stop().await;
}
