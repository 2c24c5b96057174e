//! Decisions on the real dispatch path: what they record, what they answer, and what they are refused for.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

#[path = "../support/captured.rs"]
mod captured;
mod contracts;
mod expectations;
mod older_forms;
mod racing;
mod reading;
mod stored_forms;
mod unselected;
mod warnings;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use contracts::{
    Open, Opened, Pinged, Registered, by_email, kept_name, names, open, register, registered, rename,
    service, to_register, to_rename, unique,
};
use purista::testing::{TEST_BEGINS, TestHost};
use purista::{Context, HandlerError, Host, decide, decide_with, subscription};
use purista_core::invoke_error::InvokeError;
use purista_events::position::Position;
use purista_events::query::Query;
use purista_events::recorded::Recorded;
use purista_events::store::{Direction, EventStore, PAGE_MAX};

pub(crate) async fn log(store: &dyn EventStore) -> Vec<Recorded> {
    store.read(&Query::all(), Position::START, Direction::Forwards, PAGE_MAX).await.unwrap()
}

#[track_caller]
pub(crate) fn refused<O: std::fmt::Debug>(answer: Result<O, InvokeError>, status: u16, text: &str) {
    let error = answer.unwrap_err();
    assert_eq!(error.status().code(), status, "{error}");
    assert!(error.to_string().contains(text), "{text} is not in: {error}");
}

#[tokio::test]
async fn a_tuple_of_views_keeps_an_e_mail_unique() {
    let host = TestHost::start([service().command(decide(unique, register)).build()]).await;
    assert_eq!(host.invoke(to_register("ada", "a@x")).await.unwrap(), registered("ada", "a@x"));
    refused(host.invoke(to_register("bob", "a@x")).await, 409, "the e-mail is taken");
    refused(host.invoke(to_register("ada", "b@x")).await, 409, "the account exists");
    assert_eq!(host.emitted::<Registered>(), [registered("ada", "a@x")]);
    assert_eq!(log(host.store()).await.len(), 1);
}

#[tokio::test]
async fn validation_comes_first_and_the_rest_of_a_command_is_as_ever() {
    let decided = Arc::new(AtomicU32::new(0));
    let counting = Arc::clone(&decided);
    let def = decide(unique, move |command, state| {
        counting.fetch_add(1, Ordering::Relaxed);
        register(command, state)
    });
    let def = def
        .transform_input(|mut command: contracts::Register| {
            command.email = command.email.trim().to_owned();
            Ok(command)
        })
        .guard("noMallory", |_ctx: Context<()>, command: Arc<contracts::Register>| async move {
            if command.user == "mallory" { Err(HandlerError::forbidden("no")) } else { Ok(()) }
        })
        .guard_output("noEve", |_ctx: Context<()>, output: Arc<Registered>| async move {
            if output.user == "eve" { Err(HandlerError::forbidden("nor you")) } else { Ok(()) }
        })
        .transform_output(|output| Ok(Registered { email: "hidden".to_owned(), ..output }));
    let host = TestHost::start([service().command(def).build()]).await;
    refused(host.invoke(to_register("ada", " x ")).await, 400, "");
    refused(host.invoke(to_register("mallory", "a@x")).await, 403, "no");
    assert_eq!(decided.load(Ordering::Relaxed), 0);
    refused(host.invoke(to_register("eve", "a@x")).await, 403, "nor you");
    assert!(log(host.store()).await.is_empty(), "what an output guard refuses is not recorded");
    assert_eq!(host.invoke(to_register("ada", " a@x ")).await.unwrap(), registered("ada", "hidden"));
    assert_eq!(host.emitted::<Registered>(), [registered("ada", "a@x")]);
}

#[tokio::test]
async fn a_decision_that_records_an_invalid_event_records_nothing() {
    let host = TestHost::start([service().command(decide(names, rename)).build()]).await;
    refused(host.invoke(to_rename("ada", &"x".repeat(21))).await, 500, "");
    assert!(log(host.store()).await.is_empty());
}

#[tokio::test]
async fn a_decision_that_records_nothing_answers_all_the_same() {
    let host = TestHost::start([service().command(decide(names, rename)).build()]).await;
    host.invoke(to_rename("ada", "Ada")).await.unwrap();
    host.invoke(to_rename("ada", "Ada")).await.unwrap();
    assert_eq!(log(host.store()).await.len(), 1);
}

#[tokio::test]
async fn facts_are_the_hosts_time_and_a_new_id() {
    let host = TestHost::start([service().command(decide_with(by_email, open)).build()]).await;
    let ask = || Open { email: "a@x".to_owned() };
    let Opened { user, at_second } = host.invoke(ask()).await.unwrap();
    assert!(at_second >= TEST_BEGINS.as_second());
    assert_ne!(host.invoke(ask()).await.unwrap().user, user);
    // An event that is not recorded leaves all the same.
    assert_eq!(host.emitted::<Pinged>().len(), 2);
    assert_eq!(log(host.store()).await.len(), 2);
}

#[tokio::test]
async fn a_success_event_that_the_decision_recorded_leaves_once() {
    let heard = subscription("welcome", |_ctx: Context<()>, _event: Registered| async { Ok(()) });
    let service = service().command(decide(unique, register).success_event()).subscription(heard).build();
    let host = TestHost::start([service]).await;
    host.invoke(to_register("ada", "a@x")).await.unwrap();
    assert_eq!(log(host.store()).await.len(), 1);
    assert_eq!(host.handled("welcome").len(), 1);
}

#[tokio::test]
async fn what_a_decision_records_is_in_the_catalogue_and_heard() {
    let service =
        service().command(decide_with(by_email, open)).command(decide(unique, register).success_event());
    let service = service.build();
    let catalogue = TestHost::start([service]).await;
    let names: Vec<_> =
        catalogue.host().catalogue().services[0].events.iter().map(|event| event.name).collect();
    assert_eq!(names, ["registered", "pinged", "registered"]);
}

#[tokio::test]
async fn the_first_answer_comes_again_under_its_key() {
    let host = TestHost::start([service().command(decide_with(by_email, open)).build()]).await;
    let ask = || host.invoke_with_key(Open { email: "a@x".to_owned() }, "k1");
    let first = ask().await.unwrap();
    assert_eq!(ask().await.unwrap(), first);
    assert_eq!(log(host.store()).await.len(), 1);
}

#[tokio::test]
async fn a_boundary_is_read_in_the_messages_tenant_only() {
    let host = TestHost::start([service().command(decide(unique, register)).build()]).await;
    let client = host.host().client();
    let ask = |tenant: &str| client.call(to_register("ada", "a@x")).tenant(tenant).send();
    ask("acme").await.unwrap();
    refused(ask("acme").await, 409, "exists");
    ask("other").await.unwrap();
    host.invoke(to_register("ada", "a@x")).await.unwrap();
    let tenants: Vec<_> = log(host.store()).await.into_iter().map(|event| event.tenant_id).collect();
    assert_eq!(tenants, [Some("acme".into()), Some("other".into()), None]);
}

#[tokio::test]
async fn a_decision_without_a_store_is_refused_at_the_start() {
    let service = service().command(decide(names, rename)).build();
    let text = Host::builder().service(service).start().await.err().unwrap().to_string();
    assert!(text.contains("Account.1.rename decides") && text.contains("`.store(..)`"), "{text}");
}

#[tokio::test]
async fn snapshots_change_nothing_but_the_number_of_events_read() {
    let host = TestHost::start([service().command(decide(names, rename)).build()]).await;
    for name in ["a", "b", "c", "d", "e"] {
        host.invoke(to_rename("ada", name)).await.unwrap();
        tokio::task::yield_now().await;
    }
    let kept = host.store().snapshots().await.unwrap();
    assert_eq!(
        kept.iter().map(|group| (group.name.as_str(), group.count)).collect::<Vec<_>>(),
        [("name", 1)]
    );
    let read = |view| {
        let store = host.store().clone();
        async move {
            purista_events::reading::Reader::new(&store)
                .read(view, purista_events::reading::Moment::Now)
                .await
                .unwrap()
        }
    };
    let (with, without) = (read(kept_name("ada")).await, read(contracts::name("ada")).await);
    assert_eq!((&with.state, &with.state), (&without.state, &("e".to_owned(), 5)));
    assert!(with.events_read < without.events_read && without.events_read == 5, "{with:?}");
    // Decisions go on from it, and from the start when it is gone.
    host.invoke(to_rename("ada", "f")).await.unwrap();
    host.store().forget_snapshots(None).await.unwrap();
    host.invoke(to_rename("ada", "g")).await.unwrap();
    assert_eq!(read(contracts::name("ada")).await.state, ("g".to_owned(), 7));
}
