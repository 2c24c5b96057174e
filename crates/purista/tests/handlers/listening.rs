//! What handlers may do, and what becomes of what they should not: subscriptions.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use purista::observation::Ending;
use purista::testing::{TEST_BEGINS, TestHost};
use purista::{
    Context, Filter, HandlerError, Retry, Service, SubscriptionDef, command, listen, subscription,
};
use purista_core::message::MessageType;
use purista_core::subscription::PartyFilter;
use purista_events::store::EventStore;

use crate::contracts::{Ask, Emit, Followed, Happened, Passed, TRY, Told, ask, told};

/// A service that emits what it is asked to, and hears it.
fn hearing<T: purista::Contract, R: purista::Contract>(def: SubscriptionDef<(), T, R>) -> Service {
    let emit = command(async |ctx: Context<()>, input: Emit| {
        ctx.emit(Happened { key: input.key.clone(), how: input.how.clone() })?;
        ctx.emit(Passed { key: input.key, how: input.how })?;
        Ok(())
    });
    Service::builder(TRY, "Tries", ())
        .command(emit.emits::<Happened>().emits::<Passed>())
        .subscription(def)
        .build()
}

fn emit(key: &str, how: &str) -> Emit {
    Emit { key: key.into(), how: how.into() }
}

/// Does what its event says.
async fn obey(ctx: Context<()>, event: Happened) -> Result<(), HandlerError> {
    match event.how.as_str() {
        "refuse" => Err(HandlerError::conflict("no")),
        "drop" => Err(HandlerError::drop("not wanted")),
        "dead" => Err(HandlerError::dead_letter("poison")),
        "later" if ctx.attempt() == 1 => {
            Err(HandlerError::retry_after(Duration::from_secs(600), "in ten minutes"))
        }
        "panic" => panic!("as told"),
        "hang" => std::future::pending().await,
        _ => Ok(()),
    }
}

async fn endings(how: &str, is_durable: bool) -> (TestHost, Vec<Ending>) {
    let def = subscription("obey", obey).retry(Retry::exponential(2));
    let host = TestHost::start([hearing(if is_durable { def.durable() } else { def })]).await;
    host.invoke(emit("k", how)).await.unwrap();
    let endings = host.endings("obey");
    (host, endings)
}

#[tokio::test]
async fn each_outcome_is_the_same_from_the_log_and_from_the_bridge() {
    for is_durable in [true, false] {
        let check = async |how: &str, expected: &[Ending], letters: usize| {
            let (host, endings) = endings(how, is_durable).await;
            assert_eq!(endings, expected, "{how}, durable: {is_durable}");
            assert_eq!(
                host.store().dead_letters(None, 9).await.unwrap().len(),
                letters,
                "{how}, durable: {is_durable}"
            );
        };
        let retried = |reason: &str| Ending::Retried(reason.to_owned());
        let dead = |reason: &str| Ending::DeadLettered(reason.to_owned());
        check("well", &[Ending::Done], 0).await;
        check("refuse", &[Ending::Refused(409, "no".into())], 0).await;
        check("drop", &[Ending::Dropped("not wanted".into())], 0).await;
        check("dead", &[dead("poison")], 1).await;
        check("later", &[retried("in ten minutes"), Ending::Done], 0).await;
        let panicked = "the handler panicked: as told";
        check("panic", &[retried(panicked), dead(panicked)], 1).await;
        let hung = "the handler did not end before the deadline";
        check("hang", &[retried(hung), dead(hung)], 1).await;
    }
}

#[tokio::test]
async fn a_retry_in_ten_minutes_passes_at_once_and_takes_ten_minutes() {
    let (host, _) = endings("later", true).await;
    assert!(host.now().duration_since(TEST_BEGINS).as_secs() >= 600);
}

#[tokio::test]
async fn a_paused_subscription_goes_on_with_the_same_event_when_it_is_resumed_also_after_a_restart() {
    let broken = Arc::new(AtomicU32::new(1));
    let service = |broken: &Arc<AtomicU32>| {
        let broken = Arc::clone(broken);
        hearing(
            subscription("careful", move |_ctx: Context<()>, _event: Happened| {
                let broken = Arc::clone(&broken);
                async move {
                    match broken.load(Ordering::SeqCst) {
                        0 => Ok(()),
                        _ => Err(HandlerError::pause("look at me")),
                    }
                }
            })
            .durable(),
        )
    };
    let host = TestHost::start([service(&broken)]).await;
    host.invoke(emit("k", "1")).await.unwrap();
    host.invoke(emit("k", "2")).await.unwrap();
    assert_eq!(host.endings("careful"), [Ending::Paused("look at me".into())], "the second one waits");
    assert_eq!(host.host().health().report().condition(), purista_core::health::Condition::Degraded);
    let (_, store) = host.stop().await;
    let host = TestHost::builder().services([service(&broken)]).store(store).start().await;
    host.settled().await;
    assert!(host.endings("careful").is_empty(), "it stays paused over a restart");
    broken.store(0, Ordering::SeqCst);
    assert!(host.host().resume("Try.1.careful"));
    assert!(!host.host().resume("Try.1.nobody"));
    tokio::task::yield_now().await;
    host.settled().await;
    assert_eq!(
        host.saw::<Happened>("careful").iter().map(|event| event.how.clone()).collect::<Vec<_>>(),
        ["1", "2"]
    );
}

#[tokio::test]
async fn events_of_one_key_are_handled_in_order_and_those_of_others_do_not_wait() {
    let order = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&order);
    let def = subscription("ordered", move |ctx: Context<()>, event: Happened| {
        let seen = Arc::clone(&seen);
        async move {
            if event.how == "1" && ctx.attempt() < 3 {
                return Err(HandlerError::failed("not yet"));
            }
            seen.lock().unwrap().push(format!("{}{}", event.key, event.how));
            Ok(())
        }
    })
    .durable();
    let host = TestHost::start([hearing(def)]).await;
    let client = host.host().client();
    for (key, how) in [("a", "1"), ("a", "2"), ("b", "3"), ("a", "4")] {
        client.invoke(emit(key, how)).await.unwrap();
    }
    host.settled().await;
    assert_eq!(*order.lock().unwrap(), ["b3", "a1", "a2", "a4"]);
}

#[tokio::test]
async fn a_result_that_is_an_event_bears_trace_principal_and_tenant() {
    let follow = subscription("follow", async |_ctx, event: Happened| {
        Ok(Followed { key: event.key, how: "then".into() })
    });
    let last = subscription("last", async |ctx: Context<()>, _event: Followed| {
        let facts =
            (ctx.principal().map(ToOwned::to_owned), ctx.tenant().map(ToOwned::to_owned), ctx.message().hops);
        assert_eq!(facts, (Some("ada".into()), Some("acme".into()), 2));
        Err::<(), _>(HandlerError::conflict(ctx.trace_id().to_string()))
    });
    let service = hearing(follow.durable().result_event());
    let other = Service::builder(purista::ServiceId::new("Other", "1"), "Other", ())
        .subscription(last.durable())
        .build();
    let host = TestHost::start([service, other]).await;
    let trace = purista_core::id::Id::parse("the-flow").unwrap();
    let call = host
        .host()
        .client()
        .call(emit("k", "x"))
        .principal("ada")
        .tenant("acme")
        .trace_id(trace)
        .send()
        .await;
    call.unwrap();
    host.settled().await;
    assert_eq!(host.endings("last"), [Ending::Refused(409, "the-flow".into())]);
}

#[tokio::test]
async fn what_is_not_recorded_comes_over_the_bridge_once() {
    let host = TestHost::start([hearing(subscription("glimpse", async |_ctx, _event: Passed| Ok(())))]).await;
    host.invoke(emit("k", "x")).await.unwrap();
    assert_eq!(host.saw::<Passed>("glimpse").len(), 1);
    host.emit(Passed { key: "k".into(), how: "from outside".into() }).await.unwrap();
    assert_eq!(host.saw::<Passed>("glimpse").len(), 2);
}

#[tokio::test]
async fn a_success_event_reaches_those_who_listen_once_with_and_without_a_store() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let service = |heard: &Arc<Mutex<Vec<Told>>>| {
        let heard = Arc::clone(heard);
        let echo = command(async |_ctx, input: Ask| Ok(told(&input.text))).success_event();
        let hear = subscription("hear", move |_ctx: Context<()>, event: Told| {
            let heard = Arc::clone(&heard);
            async move {
                heard.lock().unwrap().push(event);
                Ok(())
            }
        });
        Service::builder(TRY, "Tries", ()).command(echo).subscription(hear).build()
    };
    let host = TestHost::start([service(&heard)]).await;
    host.invoke(ask("recorded")).await.unwrap();
    assert_eq!(*heard.lock().unwrap(), [told("recorded")]);
    let without = purista::Host::builder().service(service(&heard)).start().await.unwrap();
    without.client().invoke(ask("on the response")).await.unwrap();
    without.stop().await;
    assert_eq!(*heard.lock().unwrap(), [told("recorded"), told("on the response")]);
}

#[tokio::test]
async fn one_can_listen_to_commands_and_to_responses() {
    let commands = Filter { kind: Some(MessageType::Command), ..Filter::default() };
    let hears_commands = listen("commands", commands, async |_ctx: Context<()>, _input: Emit| Ok(()));
    let host = TestHost::start([hearing(hears_commands)]).await;
    host.invoke(emit("k", "x")).await.unwrap();
    assert_eq!(host.saw::<Emit>("commands"), [emit("k", "x")]);
}

#[tokio::test]
async fn a_tenants_subscription_hears_its_tenant_alone_whatever_else_it_asks_for() {
    let from_try = || {
        let sender = PartyFilter { service: Some("Try".into()), ..PartyFilter::default() };
        Filter { sender, ..Filter::default() }
    };
    for is_durable in [true, false] {
        let def = subscription("theirs", async |_ctx: Context<()>, _event: Happened| Ok(()));
        let def = if is_durable { def.durable() } else { def };
        let host =
            TestHost::start([hearing(def.of_tenant("acme").of_principal("ada").filter(from_try()))]).await;
        for (tenant, principal) in [("acme", "ada"), ("other", "ada"), ("acme", "bob")] {
            let client = host.host().client();
            client.call(emit(tenant, principal)).tenant(tenant).principal(principal).send().await.unwrap();
        }
        host.settled().await;
        let seen = host.saw::<Happened>("theirs").into_iter();
        let seen: Vec<_> = seen.map(|event| (event.key, event.how)).collect();
        assert_eq!(seen, [("acme".to_owned(), "ada".to_owned())], "durable: {is_durable}");
    }
}

#[tokio::test]
async fn a_new_durable_subscription_begins_at_the_head_unless_it_says_from_start() {
    let host = TestHost::start([hearing(subscription("first", obey).durable())]).await;
    host.invoke(emit("k", "old")).await.unwrap();
    let (_, store) = host.stop().await;
    let from_head =
        TestHost::builder().services([hearing(subscription("second", obey).durable())]).store(store);
    let host = from_head.start().await;
    host.invoke(emit("k", "new")).await.unwrap();
    assert_eq!(host.saw::<Happened>("second").len(), 1);
    let (_, store) = host.stop().await;
    let from_start = hearing(subscription("third", obey).durable().from_start());
    let host = TestHost::builder().services([from_start]).store(store).start().await;
    host.settled().await;
    assert_eq!(host.saw::<Happened>("third").len(), 2);
}

#[tokio::test]
async fn what_cannot_be_read_is_a_dead_letter_at_once() {
    // Another version of the event, without a field that this one needs.
    #[derive(Debug, Clone, serde::Serialize, serde::Deserialize, schemars::JsonSchema, garde::Validate)]
    #[garde(allow_unvalidated)]
    struct Needs {
        missing: String,
    }
    impl purista::Event for Needs {
        const NAME: &'static str = "happened";
    }
    let host =
        TestHost::start([hearing(subscription("reader", async |_ctx, _event: Needs| Ok(())).durable())])
            .await;
    host.invoke(emit("k", "x")).await.unwrap();
    let letters = host.store().dead_letters(None, 9).await.unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].reason, "the message is not of the documented form: missing: required");
    assert_eq!(letters[0].attempts, 1);
}

#[tokio::test]
async fn an_event_that_is_emitted_from_outside_is_recorded_and_reaches_durable_subscriptions() {
    let def = subscription("kept", async |ctx: Context<()>, _event: Happened| {
        let facts = (ctx.tenant().map(ToOwned::to_owned), ctx.principal().map(ToOwned::to_owned));
        Err::<(), _>(HandlerError::conflict(format!("{facts:?} {}", ctx.trace_id())))
    });
    let host = TestHost::start([hearing(def.durable())]).await;
    let happened = |how: &str| Happened { key: "k".into(), how: how.into() };
    host.emit(happened("alone")).await.unwrap();
    assert_eq!(host.store().head().borrow().number(), 1);
    host.emit(happened("for somebody")).tenant("acme").principal("ada").await.unwrap();
    let trace = purista_core::id::Id::parse("the-trace").unwrap();
    host.host().client().emit(happened("in a trace")).trace_id(trace).send().await.unwrap();
    host.settled().await;
    let endings: Vec<_> = host.endings("kept").into_iter().map(|ending| format!("{ending:?}")).collect();
    assert_eq!(endings.len(), 3, "{endings:?}");
    assert!(endings[0].contains("(None, None)"), "{endings:?}");
    assert!(endings[1].contains(r#"Some(\"acme\"), Some(\"ada\")"#), "{endings:?}");
    assert!(endings[2].contains("the-trace"), "{endings:?}");

    // Without a store there is nothing to record it in: whoever listens gets it.
    let client = purista::Host::builder().start().await.unwrap();
    client.client().emit(happened("into the void")).await.unwrap();
    client.stop().await;
}

#[tokio::test]
async fn an_event_from_outside_that_breaks_its_rules_is_not_recorded() {
    let host = TestHost::start([hearing(subscription("any", obey).durable())]).await;
    let error = host.emit(Told { text: String::new() }).await.unwrap_err();
    assert_eq!(error.status().code(), 400);
    assert_eq!(host.store().head().borrow().number(), 0);
}
