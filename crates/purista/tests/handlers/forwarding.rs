//! Subscriptions that hand their events on to commands: a conflict that the framework raises is retried, not final.

use std::time::Duration;

use purista::observation::Ending;
use purista::testing::TestHost;
use purista::{Context, HandlerError, Service, command, subscription};
use purista_core::invoke_error::{InvokeError, InvokeErrorKind};
use purista_events::store::EventStore;

use crate::contracts::{Ask, Count, Emit, Happened, TRY, Told, told};

const EVENTS: usize = 20;

/// Counts in one state, slowly: of two at a time one finds that the other has changed it.
async fn count(ctx: Context<()>, input: Count) -> Result<Told, HandlerError> {
    let before: usize = ctx.state().get(&input.key).await?.unwrap_or(0);
    tokio::time::sleep(Duration::from_millis(1)).await; // real time: paused, it lets the others in between
    ctx.state().set(&input.key, &(before + 1))?;
    Ok(told(&(before + 1).to_string()))
}

/// One event for each key, all of which lead to the same command.
fn emitting() -> purista::ServiceBuilder<()> {
    let emit = command(async |ctx: Context<()>, input: Emit| {
        for number in 0..EVENTS {
            ctx.emit(Happened { key: format!("k{number}"), how: input.how.clone() })?;
        }
        Ok(())
    });
    Service::builder(TRY, "Tries", ()).command(emit.emits::<Happened>())
}

async fn emit(host: &TestHost) {
    host.invoke(Emit { key: String::new(), how: "x".into() }).await.unwrap();
    host.pass(Duration::from_secs(600)).await;
}

async fn every_event_is_done_once(host: &TestHost, name: &str) {
    let endings = host.endings(name);
    let done = endings.iter().filter(|ending| **ending == Ending::Done).count();
    assert_eq!(done, EVENTS, "{endings:?}");
    let retried = endings.iter().filter(|ending| matches!(ending, Ending::Retried(_))).count();
    assert!(retried > 0, "there was no conflict to retry: {endings:?}");
    assert_eq!(endings.len(), done + retried, "nothing else happened: {endings:?}");
    assert!(host.store().dead_letters(None, 99).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_conflict_of_the_called_command_is_retried_whether_it_is_passed_on_or_not() {
    for (forwards, encodes) in [(true, false), (true, true), (false, false)] {
        let call = move |ctx: Context<()>, _: Happened| async move {
            let called = ctx.invoke(Count { key: "all".into() }).await;
            if forwards {
                called.map_err(InvokeError::forward)?;
            } else {
                called?;
            }
            Ok(())
        };
        let def = subscription("call", call).invokes::<Count>().durable();
        let builder = TestHost::builder();
        let builder = if encodes { builder.always_encoding() } else { builder };
        let host =
            builder.services([emitting().command(command(count)).subscription(def).build()]).start().await;
        emit(&host).await;
        every_event_is_done_once(&host, "call").await;
        let after = host.invoke(Count { key: "all".into() }).await.unwrap();
        assert_eq!(after, told(&(EVENTS + 1).to_string()), "each event counted once");
    }
}

#[tokio::test]
async fn a_conflict_of_the_own_unit_of_work_is_retried() {
    let call = async |ctx: Context<()>, _: Happened| count(ctx, Count { key: "all".into() }).await.map(drop);
    let def = subscription("own", call).durable();
    let host = TestHost::start([emitting().subscription(def).build()]).await;
    emit(&host).await;
    every_event_is_done_once(&host, "own").await;
}

#[tokio::test]
async fn a_conflict_that_a_handler_raises_on_purpose_stays_final() {
    let refusing = async |_: Context<()>, _: Count| Err::<Told, _>(HandlerError::conflict("taken"));
    let call = async |ctx: Context<()>, _: Happened| {
        ctx.invoke(Count { key: "all".into() }).await.map_err(InvokeError::forward).map(drop)
    };
    let def = subscription("call", call).invokes::<Count>().durable();
    let host = TestHost::start([emitting().command(command(refusing)).subscription(def).build()]).await;
    emit(&host).await;
    assert_eq!(host.endings("call"), vec![Ending::Refused(409, "taken".into()); EVENTS]);
}

#[tokio::test]
async fn an_error_after_an_invoke_may_have_happened() {
    let nested = |fails: bool| {
        let outer = move |ctx: Context<()>, input: Ask| async move {
            if input.text == "invoke" {
                ctx.invoke(Count { key: "all".into() }).await?;
            }
            if fails { Err(HandlerError::failed("boom")) } else { Ok(told("ok")) }
        };
        let outer = command(outer).invokes::<Count>();
        Service::builder(TRY, "Tries", ()).command(outer).command(command(count)).build()
    };
    let host = TestHost::start([nested(true)]).await;
    let ask = |text: &str| host.invoke(Ask { text: text.into() });
    let error = ask("invoke").await.unwrap_err();
    assert_eq!((error.kind(), error.may_have_happened()), (InvokeErrorKind::Unknown, true), "{error}");
    let error = ask("alone").await.unwrap_err();
    assert_eq!((error.kind(), error.may_have_happened()), (InvokeErrorKind::Failed, false), "{error}");
}
