//! What handlers may do, and what becomes of what they should not: commands.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod advancing;
mod beginning;
#[path = "../support/captured.rs"]
mod captured;
mod contracts;
mod encoding;
mod forwarding;
mod keys;
mod lagging;
mod listening;
mod order_of_start;
mod relaying;
mod spans;
mod starting;
mod store_peers;
mod taking_over;
mod test_host;
mod trying_again;
mod waiting;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use contracts::{Ask, Count, Followed, Happened, Inner, TRY, Told, ask, told};
use purista::observation::Ending;
use purista::testing::TestHost;
use purista::{CommandDef, Context, HandlerError, Service, command};
use purista_core::invoke_error::{InvokeError, InvokeErrorKind};
use purista_events::store::EventStore;

pub(crate) fn service<C: purista::Command>(def: CommandDef<(), C>) -> Service {
    Service::builder(TRY, "Tries", ()).command(def).build()
}

async fn asked(def: CommandDef<(), Ask>, text: &str) -> (TestHost, Result<Told, InvokeError>) {
    let host = TestHost::start([service(def)]).await;
    let answer = host.invoke(ask(text)).await;
    (host, answer)
}

#[track_caller]
fn failed_with(answer: Result<Told, InvokeError>, status: u16, kind: InvokeErrorKind) -> InvokeError {
    let error = answer.unwrap_err();
    assert_eq!((error.status().code(), error.kind()), (status, kind), "{error}");
    error
}

async fn echo(_ctx: Context<()>, input: Ask) -> Result<Told, HandlerError> {
    Ok(told(&input.text))
}

#[tokio::test]
async fn transforms_change_what_goes_in_and_what_comes_out() {
    let def = command(echo)
        .transform_input(|input: Ask| Ok(Ask { text: input.text.trim().to_owned() }))
        .transform_output(|output: Told| Ok(Told { text: format!("<{}>", output.text) }));
    assert_eq!(asked(def, " a ").await.1.unwrap(), told("<a>"));
}

#[tokio::test]
async fn the_success_event_is_what_was_before_the_output_transform() {
    let def = command(echo).success_event().transform_output(|_| Ok(told("hidden")));
    let (host, answer) = asked(def, "open").await;
    assert_eq!((answer.unwrap(), host.emitted::<Told>()), (told("hidden"), vec![told("open")]));
}

#[tokio::test]
async fn guards_run_side_by_side_and_the_first_that_refuses_decides() {
    let ran = Arc::new(AtomicU32::new(0));
    let counting = Arc::clone(&ran);
    let def = command(move |_ctx, input: Ask| {
        let counting = Arc::clone(&counting);
        async move {
            counting.fetch_add(1, Ordering::SeqCst);
            Ok(told(&input.text))
        }
    })
    .guard("slow", async |_ctx, _input| {
        tokio::time::sleep(Duration::from_secs(5)).await; // real time: paused, it passes at once
        Err(HandlerError::forbidden("slow"))
    })
    .guard("fast", async |_ctx, input: Arc<Ask>| match input.text.as_str() {
        "no" => Err(HandlerError::forbidden("fast")),
        _ => Ok(()),
    });
    let (_, answer) = asked(def, "no").await;
    assert_eq!(failed_with(answer, 403, InvokeErrorKind::Handled).message(), "fast");
    assert_eq!(ran.load(Ordering::SeqCst), 0, "the handler never ran");
}

#[tokio::test]
async fn an_output_guard_that_refuses_leaves_nothing_of_the_unit() {
    let def = command(async |ctx: Context<()>, input: Ask| {
        ctx.emit(Happened { key: "k".into(), how: input.text })?;
        ctx.state().set("k", &1)?;
        Ok(told("done"))
    })
    .emits::<Happened>()
    .guard_output("never", async |_ctx, _output| Err(HandlerError::conflict("no")));
    let (host, answer) = asked(def, "x").await;
    failed_with(answer, 409, InvokeErrorKind::Handled);
    assert!(host.emitted::<Happened>().is_empty());
    assert!(host.store().state(None, &["@Try/k".to_owned()]).await.unwrap().is_empty());
}

#[tokio::test]
async fn an_output_that_breaks_its_rules_is_500_and_told_to_the_log_only() {
    let (host, answer) = asked(command(echo), "").await;
    let error = failed_with(answer, 500, InvokeErrorKind::Failed);
    assert_eq!(error.message(), "Internal Server Error");
    let [Ending::Failed(report)] = &host.endings("ask")[..] else { panic!("it failed") };
    assert!(report.contains("the output breaks its own rules: text"), "{report}");
}

#[tokio::test]
async fn a_panic_is_500_without_its_text_and_the_next_call_works() {
    let def = command(async |_ctx, input: Ask| {
        assert!(input.text != "boom", "CANARY");
        Ok(told(&input.text))
    });
    let (host, answer) = asked(def, "boom").await;
    let error = failed_with(answer, 500, InvokeErrorKind::Failed);
    assert!(!format!("{error:?}").contains("CANARY"), "{error:?}");
    assert_eq!(host.invoke(ask("on")).await.unwrap(), told("on"));
}

#[tokio::test]
async fn an_error_by_question_mark_is_hidden_and_a_handled_one_is_told() {
    let def = command(async |_ctx, input: Ask| match input.text.parse::<u32>()? {
        0 => Err(HandlerError::handled(418, "tea").with_data(serde_json::json!({"pot": 1}))),
        n => Ok(told(&n.to_string())),
    });
    let (host, answer) = asked(def, "CANARY").await;
    let error = failed_with(answer, 500, InvokeErrorKind::Failed);
    assert!(
        error.trace_id().is_some()
            && !error.to_string().contains("CANARY")
            && !error.to_string().contains("digit")
    );
    let error = failed_with(host.invoke(ask("0")).await, 418, InvokeErrorKind::Handled);
    assert_eq!((error.message(), error.data()), ("tea", Some(&serde_json::json!({"pot": 1}))));
}

#[tokio::test]
async fn a_handler_is_cut_off_at_its_deadline_and_nothing_of_it_is_kept() {
    let def = command(async |ctx: Context<()>, _input: Ask| {
        ctx.emit(Happened { key: "k".into(), how: "x".into() })?;
        std::future::pending::<()>().await;
        Ok(told("never"))
    })
    .emits::<Happened>();
    let (host, answer) = asked(def, "x").await;
    let error = failed_with(answer, 504, InvokeErrorKind::Timeout);
    assert!(error.may_have_happened());
    assert!(host.emitted::<Happened>().is_empty());
}

#[tokio::test]
async fn what_is_not_declared_fails_with_the_line_to_add() {
    let def = command(async |ctx: Context<()>, _input: Ask| {
        ctx.emit(Happened { key: "k".into(), how: "x".into() })?;
        Ok(told("never"))
    });
    let (host, answer) = asked(def, "x").await;
    failed_with(answer, 500, InvokeErrorKind::Failed);
    let [Ending::Failed(report)] = &host.endings("ask")[..] else { panic!("it failed") };
    assert!(report.contains("add `.emits::<Happened>()`"), "{report}");

    let def =
        command(async |ctx: Context<()>, _input: Ask| Ok(ctx.invoke(Inner { text: "x".into() }).await?));
    let (host, answer) = asked(def, "x").await;
    failed_with(answer, 500, InvokeErrorKind::Failed);
    let [Ending::Failed(report)] = &host.endings("ask")[..] else { panic!("it failed") };
    assert!(report.contains("add `.invokes::<Inner>()`"), "{report}");
}

#[tokio::test]
async fn a_context_that_outlives_its_handler_changes_nothing() {
    let (send, receive) = tokio::sync::oneshot::channel();
    let send = Arc::new(std::sync::Mutex::new(Some(send)));
    let def = command(move |ctx: Context<()>, _input: Ask| {
        let send = Arc::clone(&send);
        async move {
            drop(send.lock().unwrap().take().unwrap().send(ctx));
            Ok(told("done"))
        }
    })
    .emits::<Happened>();
    let (_host, answer) = asked(def, "x").await;
    answer.unwrap();
    let error = receive.await.unwrap().emit(Happened { key: "k".into(), how: "x".into() }).unwrap_err();
    assert_eq!(error.to_string(), "the unit of work is closed: the handler has returned");
}

/// A service whose `ask` asks its own `inner`.
fn nested(outer: CommandDef<(), Ask>, inner: CommandDef<(), Inner>) -> Service {
    Service::builder(TRY, "Tries", ()).command(outer.invokes::<Inner>()).command(inner).build()
}

#[tokio::test]
async fn a_nested_call_is_a_unit_of_its_own_and_hands_trace_and_time_down() {
    let outer = command(async |ctx: Context<()>, input: Ask| {
        let inner = ctx.invoke_for(Inner { text: input.text }, Duration::from_secs(99)).await?;
        assert_eq!(inner.text, ctx.trace_id().to_string());
        Err::<Told, _>(HandlerError::conflict("after it"))
    });
    let inner = command(async |ctx: Context<()>, _input: Inner| {
        ctx.emit(Followed { key: "k".into(), how: "x".into() })?;
        assert!(
            ctx.deadline() - tokio::time::Instant::now() <= Duration::from_secs(30),
            "never more than is left"
        );
        Ok(told(&ctx.trace_id().to_string()))
    })
    .emits::<Followed>();
    let host = TestHost::start([nested(outer, inner)]).await;
    failed_with(host.invoke(ask("x")).await, 409, InvokeErrorKind::Handled);
    assert_eq!(host.emitted::<Followed>().len(), 1, "it stays when its caller fails");
}

#[tokio::test]
async fn a_callees_refusal_is_hidden_unless_it_is_forwarded() {
    let inner = || command(async |_ctx, _input: Inner| Err::<Told, _>(HandlerError::not_found("inside")));
    let outer =
        command(async |ctx: Context<()>, input: Ask| Ok(ctx.invoke(Inner { text: input.text }).await?));
    let host = TestHost::start([nested(outer, inner())]).await;
    failed_with(host.invoke(ask("x")).await, 500, InvokeErrorKind::Failed);
    let outer = command(async |ctx: Context<()>, input: Ask| {
        ctx.invoke(Inner { text: input.text }).await.map_err(InvokeError::forward)
    });
    let host = TestHost::start([nested(outer, inner())]).await;
    assert_eq!(failed_with(host.invoke(ask("x")).await, 404, InvokeErrorKind::Handled).message(), "inside");
}

#[tokio::test]
async fn calls_without_an_end_are_cut_after_32_hops() {
    let deep = Arc::new(AtomicU32::new(0));
    let counting = Arc::clone(&deep);
    let def = command(move |ctx: Context<()>, input: Ask| {
        let counting = Arc::clone(&counting);
        async move {
            counting.fetch_add(1, Ordering::SeqCst);
            ctx.invoke(input).await.map_err(InvokeError::forward)
        }
    })
    .invokes::<Ask>();
    let (_, answer) = asked(def, "x").await;
    failed_with(answer, 500, InvokeErrorKind::Failed);
    assert_eq!(deep.load(Ordering::SeqCst), 33, "the first and 32 that it caused");
}

#[tokio::test]
async fn a_caller_that_runs_again_gets_the_first_answers_of_those_it_asked() {
    // The outer command fails after it asked; under the same key it is tried again and must not ask twice in effect.
    let tries = Arc::new(AtomicU32::new(0));
    let counting = Arc::clone(&tries);
    let outer = command(move |ctx: Context<()>, input: Ask| {
        let counting = Arc::clone(&counting);
        async move {
            let first = ctx.invoke(Inner { text: input.text.clone() }).await?;
            let second = ctx.invoke(Inner { text: input.text }).await?;
            assert_ne!(first, second, "two calls with one input are two calls");
            if counting.fetch_add(1, Ordering::SeqCst) == 0 {
                return Err(HandlerError::failed("the first time"));
            }
            Ok(told(&format!("{} {}", first.text, second.text)))
        }
    });
    let calls = Arc::new(AtomicU32::new(0));
    let inner = command(move |ctx: Context<()>, _input: Inner| {
        let calls = Arc::clone(&calls);
        async move {
            let n = calls.fetch_add(1, Ordering::SeqCst);
            ctx.state().set(&format!("call/{n}"), &n)?;
            Ok(told(&n.to_string()))
        }
    });
    let host = TestHost::start([nested(outer, inner)]).await;
    failed_with(host.invoke_with_key(ask("x"), "key").await, 500, InvokeErrorKind::Unknown);
    assert_eq!(host.invoke_with_key(ask("x"), "key").await.unwrap(), told("0 1"));
}

#[tokio::test]
async fn a_lost_race_on_state_is_409_and_never_the_last_writer() {
    let def = command(async |ctx: Context<()>, input: Count| {
        let n = ctx.state().get::<u32>(&input.key).await?.unwrap_or(0);
        tokio::task::yield_now().await;
        ctx.state().set(&input.key, &(n + 1))?;
        assert_eq!(ctx.state().get::<u32>(&input.key).await?, Some(n + 1), "it sees its own writes");
        Ok(told(&(n + 1).to_string()))
    });
    let host = TestHost::start([service(def)]).await;
    let calls = (0..20).map(|_| {
        let client = host.host().client();
        async move { client.invoke(Count { key: "k".into() }).await }
    });
    let answers = futures_util::future::join_all(calls).await;
    let won = answers.iter().filter(|answer| answer.is_ok()).count();
    assert!(
        won >= 1
            && answers
                .iter()
                .filter_map(|answer| answer.as_ref().err())
                .all(|error| error.status().code() == 409)
    );
    let last = host.invoke(Count { key: "k".into() }).await.unwrap();
    assert_eq!(last, told(&(won + 1).to_string()), "each that won counts");
}

#[tokio::test]
async fn a_handler_whose_store_is_away_answers_503_and_so_does_its_caller() {
    let inner = command(async |ctx: Context<()>, input: Inner| {
        let _: Option<u32> = ctx.state().get("count").await?;
        Ok(told(&input.text))
    });
    let outer =
        command(async |ctx: Context<()>, input: Ask| Ok(ctx.invoke(Inner { text: input.text }).await?));
    let outer = outer.invokes::<Inner>();
    let service = Service::builder(TRY, "Tries", ()).command(inner).command(outer).build();
    let host = TestHost::start([service]).await;
    for _ in 0..2 {
        host.store().fail_next_reads(1);
        let error = host.invoke(Inner { text: "x".into() }).await.unwrap_err();
        assert_eq!((error.status().code(), error.may_have_happened()), (503, false), "{error}");
    }
    host.store().fail_next_reads(1);
    let error = host.invoke(ask("x")).await.unwrap_err();
    assert_eq!((error.status().code(), error.may_have_happened()), (503, false), "{error}");
    host.invoke(ask("x")).await.unwrap();
}
