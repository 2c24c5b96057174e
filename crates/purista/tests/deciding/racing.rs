//! Many who decide at the same time: exactly those succeed who may, and nobody tries for ever.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use purista::testing::TestHost;
use purista::{CommandDef, Context, Host, InProcessBridge, decide, decide_with};
use purista_core::id::Id;
use purista_events::batch::{Append, Batch, Condition};
use purista_events::memory::MemoryStore;
use purista_events::recorded::{Cause, NewEvent};
use purista_events::store::EventStore;

use crate::contracts::{
    Open, Opened, Register, Registered, by_email, open, register, registered, service, to_register, unique,
};
use crate::{log, refused};

/// Lets others in between the decision and its commit.
fn slowed(def: CommandDef<(), Register>) -> CommandDef<(), Register> {
    def.guard_output("slowly", |_ctx: Context<()>, _: Arc<Registered>| async {
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        Ok(())
    })
}

fn sixty_four() -> impl Iterator<Item = Register> {
    (0..64).map(|n| to_register(&format!("user{n}"), &format!("{}@x", n % 10)))
}

async fn each_e_mail_has_one_user(store: &dyn EventStore) {
    let events = log(store).await;
    let emails: HashSet<String> =
        events.iter().map(|event| event.tags.iter().nth(1).unwrap().1.to_owned()).collect();
    assert_eq!((events.len(), emails.len()), (10, 10));
}

#[tokio::test]
async fn of_sixty_four_callers_exactly_ten_get_the_ten_e_mails() {
    let decisions = Arc::new(AtomicU32::new(0));
    let counting = Arc::clone(&decisions);
    let def = decide(unique, move |command, state| {
        counting.fetch_add(1, Ordering::Relaxed);
        register(command, state)
    });
    let host = TestHost::start([service().command(slowed(def)).build()]).await;
    let client = host.host().client();
    let answers = join_all(sixty_four().map(|command| client.invoke(command))).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 10);
    for answer in answers.into_iter().filter(Result::is_err) {
        refused(answer, 409, "the e-mail is taken");
    }
    each_e_mail_has_one_user(host.store()).await;
    assert!(decisions.load(Ordering::Relaxed) > 64, "without a race this test says nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn also_where_they_run_on_several_threads() {
    let store = MemoryStore::default();
    let service = service().command(slowed(decide(unique, register))).build();
    let host =
        Host::builder().bridge(InProcessBridge::always_encoding()).store(store.clone()).service(service);
    let host = host.start().await.unwrap();
    let tasks = tokio_util::task::TaskTracker::new();
    let calls = sixty_four().map(|command| {
        let client = host.client().clone();
        tasks.spawn(async move { client.invoke(command).await.is_ok() })
    });
    let answers = join_all(calls).await;
    assert_eq!(answers.into_iter().filter(|answer| *answer.as_ref().unwrap()).count(), 10);
    each_e_mail_has_one_user(&store).await;
    host.stop().await;
}

/// Records, between decision and commit, another account with the e-mail that was decided on.
fn overtaken(times: u32, store: MemoryStore, def: CommandDef<(), Open>) -> CommandDef<(), Open> {
    let left = Arc::new(AtomicU32::new(times));
    def.guard_output("overtaken", move |ctx: Context<()>, _: Arc<Opened>| {
        let (store, left) = (store.clone(), Arc::clone(&left));
        async move {
            if left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                record(&store, &ctx, registered("other", "a@x")).await;
            }
            Ok(())
        }
    })
}

pub(crate) async fn record(store: &MemoryStore, ctx: &Context<()>, event: impl purista::Event) {
    let cause = Cause {
        sender: purista_core::message::Party::anywhere(purista_core::address::Address::of(
            crate::contracts::ACCOUNT,
            "test",
        )),
        principal_id: None,
        trace_id: ctx.trace_id().clone(),
        trace: None,
        correlation_id: None,
        causation_id: None,
        hops: 0,
    };
    let mut batch = Batch::new(ctx.new_id(), ctx.tenant().map(Into::into));
    let events = vec![NewEvent::of(&event, ctx.new_id(), cause).unwrap()];
    batch.appends.push(Append { events, condition: Condition::Always });
    store.commit(batch).await.unwrap();
}

/// The ids that the decisions were given, and the host.
async fn overtaken_host(times: u32) -> (TestHost, Arc<Mutex<Vec<(u32, Id)>>>) {
    let store = MemoryStore::new(purista_core::clock::Clock::system());
    let seen: Arc<Mutex<Vec<(u32, Id)>>> = Arc::default();
    let noting = Arc::clone(&seen);
    let def = decide_with(by_email, move |command, count, facts| {
        noting.lock().unwrap().push((count, facts.id.clone()));
        open(command, count, facts)
    });
    let service = service().command(overtaken(times, store.clone(), def)).build();
    (TestHost::builder().services([service]).store(store).start().await, seen)
}

fn ask() -> Open {
    Open { email: "a@x".to_owned() }
}

#[tokio::test]
async fn who_was_overtaken_decides_again_on_the_new_state_with_a_new_id_and_unit() {
    let (host, seen) = overtaken_host(3).await;
    let answer = host.invoke(ask()).await.unwrap();
    let seen = seen.lock().unwrap().clone();
    assert_eq!(seen.iter().map(|(count, _)| *count).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert_eq!(seen.iter().map(|(_, id)| id).collect::<HashSet<_>>().len(), 4);
    assert_eq!(answer.user, seen[3].1.to_string());
    let events = log(host.store()).await;
    assert_eq!(events.len(), 4, "three of others, and one of the attempt that won");
    assert_eq!(host.handled("open").len(), 1);
}

#[tokio::test]
async fn after_eight_decisions_the_caller_gets_409() {
    let (host, seen) = overtaken_host(u32::MAX).await;
    refused(host.invoke(ask()).await, 409, "somebody else changed the same thing");
    assert_eq!(seen.lock().unwrap().len(), 8);
    assert_eq!(log(host.store()).await.len(), 8, "all of others");
}

#[tokio::test]
async fn at_the_deadline_the_caller_gets_409_earlier() {
    let (host, seen) = overtaken_host(u32::MAX).await;
    let client = host.host().client();
    let call = client.call(ask()).timeout(Duration::from_millis(6));
    refused(call.send().await, 409, "somebody else changed the same thing");
    let decisions = seen.lock().unwrap().len();
    assert!((2..8).contains(&decisions), "{decisions}");
}

#[tokio::test]
async fn a_key_holds_through_all_decisions() {
    let (host, seen) = overtaken_host(2).await;
    let first = host.invoke_with_key(ask(), "k1").await.unwrap();
    assert_eq!(host.invoke_with_key(ask(), "k1").await.unwrap(), first);
    assert_eq!(seen.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn what_does_not_concern_the_boundary_is_no_reason_to_decide_again() {
    let decisions = Arc::new(AtomicU32::new(0));
    let counting = Arc::clone(&decisions);
    let def = decide(unique, move |command, state| {
        counting.fetch_add(1, Ordering::Relaxed);
        register(command, state)
    });
    let host = TestHost::start([service().command(slowed(def)).build()]).await;
    let client = host.host().client();
    let calls = (0..20).map(|n| client.invoke(to_register(&format!("u{n}"), &format!("{n}@x"))));
    assert!(join_all(calls).await.iter().all(Result::is_ok));
    assert_eq!(decisions.load(Ordering::Relaxed), 20);
}
