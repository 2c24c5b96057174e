//! The sign-up flow on a host under test: state, event and reply in one commit, the mail from the log.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use purista::observation::Ending;
use purista::testing::{TEST_BEGINS, TestHost};
use purista::{Context, HandlerError, Retry, Service, command, subscription};
use purista_core::invoke_error::InvokeErrorKind;
use purista_events::lost_answer::REPEATS_MAX;
use purista_events::memory::Fault;
use purista_events::store::{EventStore, StoreErrorKind};
use purista_events::subscriptions::SubscriptionId;

mod contracts;
use contracts::{EMAIL, Label, Labelled, NewUserRegistered, SignUp, USER, WelcomeEmailSent};

async fn user_sign_up(ctx: Context<()>, input: SignUp) -> Result<NewUserRegistered, HandlerError> {
    let key = format!("email/{}", input.email);
    if ctx.state().get::<String>(&key).await?.is_some() {
        return Err(HandlerError::conflict("this e-mail is taken"));
    }
    let user_id = ctx.new_id().to_string();
    ctx.state().set(&key, &user_id)?;
    Ok(NewUserRegistered { user_id, email: input.email, name: input.name })
}

fn users() -> Service {
    Service::builder(USER, "Accounts", ()).command(command(user_sign_up).success_event()).build()
}

/// A mail server that fails this often before it works.
struct Mailer {
    failures: AtomicU32,
}

async fn send_welcome_email(
    ctx: Context<Mailer>,
    event: NewUserRegistered,
) -> Result<WelcomeEmailSent, HandlerError> {
    let left = ctx.resources().failures.load(Ordering::SeqCst);
    if left > 0 {
        ctx.resources().failures.store(left - 1, Ordering::SeqCst);
        return Err(HandlerError::failed("the mail server is down"));
    }
    Ok(WelcomeEmailSent { user_id: event.user_id })
}

fn emails(failures: u32) -> Service {
    let mailer = Mailer { failures: AtomicU32::new(failures) };
    let mail = subscription("sendWelcomeEmail", send_welcome_email)
        .durable()
        .retry(Retry::exponential(5))
        .result_event();
    Service::builder(EMAIL, "Mail", mailer).subscription(mail).build()
}

fn ada() -> SignUp {
    SignUp { email: "ada@example.com".into(), name: "Ada".into() }
}

#[tokio::test]
async fn a_sign_up_is_answered_recorded_and_mailed_once() {
    let host = TestHost::start([users(), emails(0)]).await;
    let answer = host.invoke(ada()).await.unwrap();
    assert_eq!(host.saw::<NewUserRegistered>("sendWelcomeEmail"), std::slice::from_ref(&answer));
    assert_eq!(host.emitted::<NewUserRegistered>(), std::slice::from_ref(&answer));
    assert_eq!(host.emitted::<WelcomeEmailSent>(), [WelcomeEmailSent { user_id: answer.user_id }]);
    assert_eq!(host.endings("userSignUp"), [Ending::Done]);
}

#[tokio::test]
async fn a_taken_email_is_told_to_the_caller_and_nothing_else_happens() {
    let host = TestHost::start([users(), emails(0)]).await;
    host.invoke(ada()).await.unwrap();
    let error = host.invoke(ada()).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.status().code(), error.message()),
        (InvokeErrorKind::Handled, 409, "this e-mail is taken")
    );
    assert_eq!(host.handled("sendWelcomeEmail").len(), 1);
}

#[tokio::test]
async fn every_field_at_fault_is_named_and_the_handler_never_ran() {
    let host = TestHost::start([users()]).await;
    let error = host.invoke(SignUp { email: "x".into(), name: String::new() }).await.unwrap_err();
    assert_eq!(error.status().code(), 400);
    let paths: Vec<_> =
        error.data().unwrap().as_array().unwrap().iter().map(|fault| fault["path"][0].clone()).collect();
    assert_eq!(paths, ["email", "name"]);
    assert_eq!(*host.store().head().borrow(), purista_events::position::Position::START);
}

async fn label(ctx: Context<()>, input: Label) -> Result<(), HandlerError> {
    ctx.state().set("labelled", &true)?;
    Ok(ctx.emit(Labelled { label: input.label })?)
}

#[tokio::test]
async fn a_name_that_is_too_long_for_any_store_is_400_and_names_the_field() {
    let labels = Service::builder(USER, "Labels", ()).command(command(label).emits::<Labelled>()).build();
    let host = TestHost::start([labels]).await;
    let of = |length: usize| Label { label: "x".repeat(length) };
    let too_long = host.invoke(of(4_000)).await.unwrap_err();
    assert_eq!((too_long.kind(), too_long.status().code()), (InvokeErrorKind::Handled, 400), "{too_long:?}");
    assert_eq!(too_long.message(), "the tag `label` has 4005 bytes, at most 1024 are allowed");
    assert_eq!(too_long.data().unwrap()[0]["path"], serde_json::json!(["tags", "label"]));

    let client = host.host().client();
    for (field, call) in [
        ("tenant", client.call(of(1)).tenant("x".repeat(4_000))),
        ("principal", client.call(of(1)).principal("x".repeat(4_000))),
    ] {
        let too_long = call.send().await.unwrap_err();
        assert_eq!(
            (too_long.kind(), too_long.status().code()),
            (InvokeErrorKind::Handled, 400),
            "{too_long:?}"
        );
        assert!(too_long.message().contains(field), "{}", too_long.message());
    }
    assert_eq!(*host.store().head().borrow(), purista_events::position::Position::START);
    host.invoke(of(1_019)).await.unwrap();
}

#[tokio::test]
async fn a_mail_server_that_is_down_is_tried_again_and_time_passes_at_once() {
    let host = TestHost::start([users(), emails(3)]).await;
    host.invoke(ada()).await.unwrap();
    let endings = host.endings("sendWelcomeEmail");
    let down = Ending::Retried("the mail server is down".into());
    assert_eq!(endings, [down.clone(), down.clone(), down, Ending::Done]);
    assert!(host.now().duration_since(TEST_BEGINS).as_secs() >= 3, "1/2 + 2/2 + 4/2 seconds at least");
    let record =
        host.store().subscription(&SubscriptionId::new("Email.1.sendWelcomeEmail")).await.unwrap().unwrap();
    assert!(record.parked.is_empty());
}

#[tokio::test]
async fn what_fails_five_times_becomes_a_dead_letter_with_its_history() {
    let host = TestHost::start([users(), emails(99)]).await;
    let answer = host.invoke(ada()).await.unwrap();
    assert_eq!(host.handled("sendWelcomeEmail").len(), 5);
    let letters = host.store().dead_letters(None, 10).await.unwrap();
    let [letter] = &letters[..] else { panic!("one dead letter, not {letters:?}") };
    assert_eq!((letter.attempts, letter.reason.as_str()), (5, "the mail server is down"));
    assert_eq!(letter.history.iter().map(|failure| failure.attempt).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    assert!(host.emitted::<WelcomeEmailSent>().is_empty());
    assert!(!answer.user_id.is_empty(), "the sign-up itself succeeded");
}

#[tokio::test]
async fn a_key_gets_the_first_answer_again_and_another_input_422() {
    let host = TestHost::start([users(), emails(0)]).await;
    let first = host.invoke_with_key(ada(), "k").await.unwrap();
    assert_eq!(host.invoke_with_key(ada(), "k").await.unwrap(), first);
    assert_eq!(host.handled("sendWelcomeEmail").len(), 1);
    let other = SignUp { name: "Bea".into(), ..ada() };
    assert_eq!(host.invoke_with_key(other, "k").await.unwrap_err().status().code(), 422);
    assert_eq!(host.invoke_with_key(ada(), "other").await.unwrap_err().status().code(), 409);
}

#[tokio::test]
async fn fifty_at_once_under_one_key_are_one_account_and_fifty_equal_answers() {
    let host = TestHost::start([users(), emails(0)]).await;
    let calls = (0..50).map(|_| {
        let client = host.host().client();
        async move { client.call(ada()).idempotency_key("k").send().await.unwrap() }
    });
    let answers = futures_util::future::join_all(calls).await;
    host.settled().await;
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    assert_eq!(host.emitted::<NewUserRegistered>().len(), 1);
}

#[tokio::test]
async fn fifty_at_once_for_one_email_are_one_account_and_the_rest_409() {
    let host = TestHost::start([users(), emails(0)]).await;
    let calls = (0..50).map(|_| {
        let client = host.host().client();
        async move { client.invoke(ada()).await.map_err(|error| error.status().code()) }
    });
    let answers = futures_util::future::join_all(calls).await;
    host.settled().await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    assert!(answers.iter().all(|answer| matches!(answer, Ok(_) | Err(409))));
    assert_eq!(host.handled("sendWelcomeEmail").len(), 1);
}

#[tokio::test]
async fn an_answer_lost_by_the_store_is_asked_for_again_and_happens_once() {
    let host = TestHost::start([users(), emails(0)]).await;
    host.store().fail_next(1, StoreErrorKind::Unknown);
    let answer = host.invoke(ada()).await.unwrap();
    assert_eq!(host.saw::<NewUserRegistered>("sendWelcomeEmail"), [answer]);
}

#[tokio::test]
async fn a_commit_that_may_have_happened_is_never_reported_as_refused() {
    // Nobody else commits, so that what goes wrong is the command's.
    let host = TestHost::start([users()]).await;
    // The answer is lost, and then the store is away: for longer than the commit is repeated, and for less.
    host.store().fail_next(1, Fault::LoseAnswer);
    host.store().fail_next(REPEATS_MAX as usize, StoreErrorKind::Overloaded);
    let error = host.invoke(ada()).await.unwrap_err();
    assert!(error.may_have_happened() && error.status().code() == 504, "{error:?}");
    assert_eq!(host.store().head().borrow().number(), 1, "it has happened");

    host.store().fail_next(1, Fault::LoseAnswer);
    host.store().fail_next(REPEATS_MAX as usize - 1, StoreErrorKind::Overloaded);
    host.invoke(SignUp { email: "bob@example.org".to_owned(), ..ada() }).await.unwrap();
    assert_eq!(host.store().head().borrow().number(), 2, "the last repeat finds it");
}

#[tokio::test]
async fn a_store_that_refuses_leaves_nothing_behind() {
    let host = TestHost::start([users(), emails(0)]).await;
    host.store().fail_next(1, StoreErrorKind::NoSpace);
    let error = host.invoke(ada()).await.unwrap_err();
    assert_eq!((error.kind(), error.status().code()), (InvokeErrorKind::Rejected, 503));
    assert!(host.handled("sendWelcomeEmail").is_empty());
    host.invoke(ada()).await.unwrap();
}

#[tokio::test]
async fn a_restart_goes_on_where_it_was() {
    let host = TestHost::builder()
        .services([users(), emails(99)])
        .configure(|host| host.drain_timeout(Duration::from_secs(1)));
    let host = host.start().await;
    let answer = host.host().client().invoke(ada()).await.unwrap();
    let (_, store) = host.stop().await;
    let host = TestHost::builder().services([users(), emails(0)]).store(store).start().await;
    host.settled().await;
    assert_eq!(host.saw::<NewUserRegistered>("sendWelcomeEmail"), [answer]);
    assert_eq!(host.endings("sendWelcomeEmail"), [Ending::Done]);
}
