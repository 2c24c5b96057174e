//! Duties towards those who ask and those who answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use purista_core::bridge::{BridgeErrorKind, Delivery, Outcome};
use purista_core::invoke_error::{InvokeError, InvokeErrorKind};
use purista_core::message::{ErrorPayload, MessageType};
use purista_core::status::Status;
use purista_core::subscription::Subscription;
use tokio::sync::{Barrier, Notify, Semaphore};
use tokio::time::Instant;

use super::consumers::{Recorder, consumer, echo, reply};
use super::world::{PATIENCE, World, address, number, request, serve, subscribe, text};

/// What must be said at once is said within this time: far below any deadline, far above a round trip.
const AT_ONCE: Duration = Duration::from_secs(5);

/// A command reaches the one who serves it, once, and nobody else; the reply reaches the caller.
pub async fn request_reaches_the_server_and_brings_its_reply(world: &World) {
    let (server, caller) = (world.bridge().await, world.bridge().await);
    let (kept, other) = (Recorder::default(), Recorder::default());
    serve(&server, "User", "signUp", kept.consumer()).await;
    serve(&server, "User", "signOut", other.consumer()).await;
    serve(&server, "Account", "signUp", other.consumer()).await;

    let command = world.command("User", "signUp", r#"{"name":"Ada"}"#);
    let answer = request(&caller, command.clone()).await;

    assert_eq!(answer.kind, MessageType::CommandSuccessResponse);
    assert_eq!(answer.correlation_id, command.correlation_id);
    assert_eq!(text(&answer), r#"{"name":"Ada"}"#);
    let delivery = kept.next().await;
    assert_eq!(delivery.message.id, command.id);
    assert_eq!(delivery.attempt, 1);
    world.close().await;
    kept.expect_nothing_more().await;
    other.expect_nothing_more().await;
}

/// Each of 64 calls that are under way together gets its own reply.
pub async fn reply_pairs_with_its_request_under_64_concurrent_calls(world: &World) {
    let (server, caller) = (world.bridge().await, world.bridge().await);
    let all = Arc::new(Barrier::new(64));
    let serving = consumer(move |delivery: Delivery| {
        let all = Arc::clone(&all);
        async move {
            all.wait().await;
            Outcome::Reply(Box::new(reply(&delivery.message, text(&delivery.message))))
        }
    });
    serve(&server, "User", "signUp", serving).await;
    let calls = (0..64).map(|n| {
        let command = world.command("User", "signUp", &n.to_string());
        let caller = &caller;
        async move { (n, request(caller, command).await) }
    });
    for (asked, answer) in join_all(calls).await {
        assert_eq!(number(&answer), asked);
    }
}

/// Two processes that serve one command share its calls: each call runs once, and neither process has all.
pub async fn several_consumers_of_one_command_share_its_calls(world: &World) {
    let (first, second, caller) = (world.bridge().await, world.bridge().await, world.bridge().await);
    let (by_first, by_second) = (Recorder::default(), Recorder::default());
    serve(&first, "User", "signUp", by_first.consumer()).await;
    serve(&second, "User", "signUp", by_second.consumer()).await;
    for n in 0..64 {
        request(&caller, world.command("User", "signUp", &n.to_string())).await;
    }
    world.close().await;
    let (one, two) = (by_first.rest().await, by_second.rest().await);
    assert_eq!(one.len() + two.len(), 64, "each call runs once");
    assert!(!one.is_empty() && !two.is_empty(), "{} and {}", one.len(), two.len());
}

/// A server with few commands in flight serves as many as come: each that is done makes room.
pub async fn served_commands_make_room_for_the_next(world: &World) {
    let (server, caller) = (world.bridge().await, world.bridge().await);
    subscribe(&server, Subscription::command(address("User", "signUp"), 2), echo()).await;
    for n in 0..20 {
        assert_eq!(number(&request(&caller, world.command("User", "signUp", &n.to_string())).await), n);
    }
}

/// A command that nobody serves never happened, and its caller hears so: at once where that is promised.
pub async fn unserved_command_is_unroutable_at_once(world: &World) {
    let caller = world.bridge().await;
    let promised = caller.capabilities().unroutable_at_once;
    let mut command = world.command("User", "signUp", "{}");
    let began = Instant::now();
    command.deadline = Some(began + if promised { PATIENCE } else { Duration::from_millis(300) });
    let error = caller.request(Box::new(command)).await.expect_err("nobody serves it");
    if promised {
        assert_eq!(error.kind(), BridgeErrorKind::Unroutable);
        assert!(!error.may_have_happened());
    } else {
        assert!(matches!(error.kind(), BridgeErrorKind::Unroutable | BridgeErrorKind::Timeout));
    }
    assert!(began.elapsed() < AT_ONCE, "it took {:?}", began.elapsed());
}

/// Without a reply a request ends at its deadline, not before and not much later; the late reply troubles nobody.
pub async fn request_ends_at_its_deadline(world: &World) {
    let (server, caller) = (world.bridge().await, world.bridge().await);
    let gate = Arc::new(Semaphore::new(0));
    let waits = Arc::clone(&gate);
    let slow = consumer(move |delivery: Delivery| {
        let gate = Arc::clone(&waits);
        async move {
            gate.acquire().await.expect("the gate stays").forget();
            Outcome::Reply(Box::new(reply(&delivery.message, text(&delivery.message))))
        }
    });
    serve(&server, "User", "signUp", slow).await;
    let mut command = world.command("User", "signUp", "1");
    let began = Instant::now();
    let deadline = began + Duration::from_millis(300);
    command.deadline = Some(deadline);
    let error = caller.request(Box::new(command)).await.expect_err("no reply comes");
    assert_eq!(error.kind(), BridgeErrorKind::Timeout);
    assert!(error.may_have_happened());
    assert!(Instant::now() >= deadline && began.elapsed() < AT_ONCE, "it took {:?}", began.elapsed());

    gate.add_permits(2);
    let next = request(&caller, world.command("User", "signUp", "2")).await;
    assert_eq!(number(&next), 2, "the late reply is not taken for the next one's");
}

/// An error response is a reply like any other: its status, text, details and handledness come back.
pub async fn error_response_comes_back_as_it_was(world: &World) {
    let (server, caller) = (world.bridge().await, world.bridge().await);
    let failing = consumer(|delivery: Delivery| async move {
        let command = delivery.message;
        let told = ErrorPayload {
            data: Some(serde_json::json!({"seat": 7})),
            trace_id: Some(command.trace_id.clone()),
            // What was kept is said by the one who knows: the bridge carries it.
            nothing_kept: text(&command) == "true",
            ..ErrorPayload::new(Status::CONFLICT, "the seat is taken")
        };
        let sender = command.receiver.clone().expect("a command has a receiver");
        let is_handled = text(&command) == "true";
        Outcome::Reply(Box::new(command.error_response(command.timestamp_ms, sender, &told, is_handled)))
    });
    serve(&server, "Seat", "take", failing).await;
    for is_handled in [true, false] {
        let command = world.command("Seat", "take", &is_handled.to_string());
        let answer = request(&caller, command.clone()).await;
        assert_eq!(answer.kind, MessageType::CommandErrorResponse);
        assert_eq!(answer.is_handled_error, is_handled);
        let told: ErrorPayload = serde_json::from_str(&text(&answer)).expect("an error payload");
        assert_eq!(told.status, Status::CONFLICT);
        assert_eq!(told.message, "the seat is taken");
        assert_eq!(told.data, Some(serde_json::json!({"seat": 7})));
        assert_eq!(told.trace_id, Some(command.trace_id));
        let error = InvokeError::of_response(&answer).expect("an error response");
        let kind = if is_handled { InvokeErrorKind::Handled } else { InvokeErrorKind::Unknown };
        assert_eq!((error.kind(), error.may_have_happened()), (kind, !is_handled), "{error}");
    }
}

/// A handler whose caller goes away runs to its own end.
pub async fn dropped_caller_changes_nothing_for_the_handler(world: &World) {
    let (server, caller) = (world.bridge().await, world.bridge().await);
    let (began, goes_on, done) = (Arc::new(Notify::new()), Arc::new(Notify::new()), Arc::new(Notify::new()));
    let handles = (Arc::clone(&began), Arc::clone(&goes_on), Arc::clone(&done));
    let serving = consumer(move |delivery: Delivery| {
        let (began, goes_on, done) = handles.clone();
        async move {
            began.notify_one();
            goes_on.notified().await;
            done.notify_one();
            Outcome::Reply(Box::new(reply(&delivery.message, "1")))
        }
    });
    serve(&server, "User", "signUp", serving).await;
    {
        let call = caller.request(Box::new(world.command("User", "signUp", "{}")));
        tokio::select! {
            answer = call => panic!("the handler waits, and yet: {answer:?}"),
            () = began.notified() => {}
        }
    }
    goes_on.notify_one();
    tokio::time::timeout(PATIENCE, done.notified()).await.expect("the handler runs to its end");
}

/// A command that a consumer settles without an answer does not leave its caller waiting until the deadline.
pub async fn command_settled_without_a_reply_ends_before_its_deadline(world: &World) {
    let (server, caller) = (world.bridge().await, world.bridge().await);
    let seen = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&seen);
    let silent = consumer(move |_: Delivery| {
        counting.fetch_add(1, Ordering::Relaxed);
        async { Outcome::DeadLetter { reason: "no answer is known".to_owned() } }
    });
    serve(&server, "User", "signUp", silent).await;
    let began = Instant::now();
    match caller.request(Box::new(world.command("User", "signUp", "{}"))).await {
        Ok(answer) => assert_eq!(answer.kind, MessageType::CommandErrorResponse),
        Err(error) => assert!(error.may_have_happened(), "it ran: {error}"),
    }
    assert!(began.elapsed() < AT_ONCE, "it took {:?}", began.elapsed());
    assert_eq!(seen.load(Ordering::Relaxed), 1);
}

/// Topics of brokers are lossy: a call of `a-b` is not answered by the one who serves `aB`.
pub async fn commands_with_colliding_names_are_told_apart(world: &World) {
    let (server, caller) = (world.bridge().await, world.bridge().await);
    let (dashed, camel) = (Recorder::default(), Recorder::default());
    serve(&server, "User", "a-b", dashed.consumer()).await;
    serve(&server, "User", "aB", camel.consumer()).await;
    serve(&server, "User", "other", echo()).await;
    for target in ["a-b", "aB", "aB", "other"] {
        request(&caller, world.command("User", target, "{}")).await;
    }
    world.close().await;
    let targets = |deliveries: Vec<Delivery>| -> Vec<String> {
        let of = |delivery: &Delivery| {
            delivery.message.receiver.as_ref().map(|party| party.address.target().to_owned())
        };
        deliveries.iter().filter_map(of).collect()
    };
    assert_eq!(targets(dashed.rest().await), ["a-b"]);
    assert_eq!(targets(camel.rest().await), ["aB", "aB"]);
}
