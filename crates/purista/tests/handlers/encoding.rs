//! What a contract's values must survive: equal inputs under one key, numbers that JSON cannot say, bounds, in the process as
//! over a broker.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use garde::Validate;
use purista::testing::TestHost;
use purista::{
    Command, Context, Event, HandlerError, Host, Retry, Service, ServiceId, Tags, command, subscription,
};
use purista_core::invoke_error::InvokeErrorKind;
use purista_core::payload::{EVENT_BYTES_MAX, PAYLOAD_BYTES_MAX};
use purista_core::store::STATE_BYTES_MAX;
use purista_events::store::EventStore;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::contracts::TRY;

macro_rules! contract {
    ($name:ident { $($(#[$inner:meta])* $field:ident: $type:ty),* }) => {
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Validate)]
        #[garde(allow_unvalidated)]
        struct $name { $($(#[$inner])* $field: $type),* }
    };
}

macro_rules! command {
    ($name:ident $wire:literal -> $output:ty) => {
        impl Command for $name {
            const SERVICE: ServiceId = TRY;
            const NAME: &'static str = $wire;
            type Output = $output;
        }
    };
}

contract!(Order { options: HashMap<String, u32> });
contract!(Ordered { nth: u32 });
command!(Order "order" -> Ordered);
impl Event for Ordered {
    const NAME: &'static str = "ordered";
}

fn five() -> Order {
    Order { options: (0..5).map(|nth| (format!("option{nth}"), nth)).collect() }
}

/// Counts its effects, and keeps each in the state.
fn ordering(effects: &Arc<AtomicU32>) -> purista::CommandDef<(), Order> {
    let effects = Arc::clone(effects);
    command(move |ctx: Context<()>, _input: Order| {
        let nth = effects.fetch_add(1, Ordering::SeqCst);
        async move {
            ctx.state().set("effects", &nth)?;
            Ok(Ordered { nth })
        }
    })
}

#[tokio::test]
async fn a_map_under_one_key_is_the_same_input_in_whatever_order_it_iterates() {
    let effects = Arc::new(AtomicU32::new(0));
    let host = TestHost::start([crate::service(ordering(&effects))]).await;
    for _ in 0..8 {
        assert_eq!(host.invoke_with_key(five(), "k").await.unwrap(), Ordered { nth: 0 });
    }
    assert_eq!(effects.load(Ordering::SeqCst), 1);
    let mut other = five();
    other.options.insert("option0".to_owned(), 9);
    assert_eq!(host.invoke_with_key(other, "k").await.unwrap_err().status().code(), 422);
}

contract!(Begun { key: String });
impl Event for Begun {
    const NAME: &'static str = "begun";
    fn tags(&self) -> Tags {
        Tags::new().with("key", &self.key)
    }
}
contract!(Begin { key: String });
command!(Begin "begin" -> ());

#[tokio::test]
async fn a_subscription_that_calls_with_a_map_and_fails_twice_has_one_effect() {
    let effects = Arc::new(AtomicU32::new(0));
    let failures = AtomicU32::new(2);
    let begin = command(async |ctx: Context<()>, input: Begin| Ok(ctx.emit(Begun { key: input.key })?))
        .emits::<Begun>();
    let failures = Arc::new(failures);
    let follow = subscription("follow", move |ctx: Context<()>, _event: Begun| {
        let failures = Arc::clone(&failures);
        async move {
            ctx.invoke(five()).await?;
            match failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)) {
                Ok(_) => Err(HandlerError::failed("not yet")),
                Err(_) => Ok(()),
            }
        }
    })
    .durable()
    .retry(Retry::exponential(5))
    .invokes::<Order>();
    let service =
        Service::builder(TRY, "Tries", ()).command(ordering(&effects)).command(begin).subscription(follow);
    let host = TestHost::start([service.build()]).await;
    host.invoke(Begin { key: "a".to_owned() }).await.unwrap();
    assert_eq!(host.handled("follow").len(), 3);
    assert_eq!(effects.load(Ordering::SeqCst), 1);
}

contract!(Measure { values: Vec<f64> });
contract!(Measured { mean: f64 });
command!(Measure "measure" -> Measured);
impl Event for Measured {
    const NAME: &'static str = "measured";
    fn tags(&self) -> Tags {
        Tags::new().with("all", "1")
    }
}

/// The mean of nothing is NaN.
fn mean(input: &Measure) -> Measured {
    #[expect(clippy::cast_precision_loss, reason = "there are few")]
    let count = input.values.len() as f64;
    Measured { mean: input.values.iter().sum::<f64>() / count }
}

#[tokio::test]
async fn a_number_that_json_cannot_say_is_refused_before_the_commit_in_the_process_as_over_a_broker() {
    for encodes in [false, true] {
        let def = command(async |ctx: Context<()>, input: Measure| {
            ctx.state().set("done", &true)?;
            Ok(mean(&input))
        });
        let builder = TestHost::builder().services([crate::service(def)]);
        let host = if encodes { builder.always_encoding() } else { builder }.start().await;
        assert_eq!(
            host.invoke(Measure { values: vec![1.0, 2.0] }).await.unwrap().mean.to_bits(),
            1.5_f64.to_bits()
        );
        let head = *host.store().head().borrow();
        for values in [vec![f64::NAN], vec![f64::INFINITY]] {
            let error = host.invoke(Measure { values }).await.unwrap_err();
            assert!(!error.may_have_happened(), "{error}");
        }
        if !encodes {
            let refused = host.invoke(Measure { values: vec![f64::NAN] }).await.unwrap_err();
            assert_eq!(refused.status().code(), 400);
            assert!(refused.message().contains("values.0"), "{refused}");
            let failed = host.invoke(Measure { values: vec![] }).await.unwrap_err();
            assert_eq!((failed.status().code(), failed.kind()), (500, InvokeErrorKind::Failed));
        }
        assert_eq!(*host.store().head().borrow(), head, "nothing was kept");
    }
}

#[tokio::test]
async fn an_event_that_its_own_type_cannot_read_is_not_recorded() {
    let emitting = command(async |ctx: Context<()>, input: Measure| {
        let measured = mean(&input);
        let refused = ctx.emit(measured.clone());
        if measured.mean.is_nan() {
            let error = refused.unwrap_err();
            let chain = purista_core::error::chain(&error);
            assert!(chain.contains("measured") && chain.contains("`mean`"), "{chain}");
            return Err(HandlerError::bad_request("no values"));
        }
        Ok(measured)
    })
    .emits::<Measured>();
    let host = TestHost::start([crate::service(emitting)]).await;
    assert_eq!(host.invoke(Measure { values: vec![] }).await.unwrap_err().status().code(), 400);
    host.invoke(Measure { values: vec![1.0] }).await.unwrap();
    assert_eq!(host.emitted::<Measured>(), [Measured { mean: 1.0 }]);
}

#[tokio::test]
async fn a_value_of_state_that_json_cannot_say_or_that_is_too_large_is_refused() {
    let def = command(async |ctx: Context<()>, input: Measure| {
        let text = |bytes: usize| "x".repeat(bytes - 2);
        ctx.state().set("largest", &text(STATE_BYTES_MAX))?;
        let error = ctx.state().set("large", &text(STATE_BYTES_MAX + 1)).unwrap_err();
        assert!(error.to_string().contains("large"), "{error}");
        let error = ctx.state().set("nan", &mean(&input)).unwrap_err();
        assert!(purista_core::error::chain(&error).contains("`mean`"), "{error}");
        Ok(Measured { mean: 0.0 })
    });
    let host = TestHost::start([crate::service(def)]).await;
    host.invoke(Measure { values: vec![] }).await.unwrap();
}

contract!(Repeat { text: String, times: usize });
contract!(Repeated { text: String });
command!(Repeat "repeat" -> Repeated);
impl Event for Repeated {
    const NAME: &'static str = "repeated";
    const RECORDED: bool = false;
}

fn repeating() -> Service {
    let def = command(async |ctx: Context<()>, input: Repeat| {
        ctx.state().set("done", &true)?;
        Ok(Repeated { text: input.text.repeat(input.times) })
    });
    crate::service(def)
}

#[tokio::test]
async fn inputs_and_outputs_in_the_process_have_the_bound_of_a_message() {
    let host = TestHost::start([repeating()]).await;
    let around = r#"{"text":"","times":1}"#.len();
    let ask = |bytes: usize| Repeat { text: "x".repeat(bytes - around), times: 1 };
    host.invoke(ask(PAYLOAD_BYTES_MAX)).await.unwrap();
    let error = host.invoke(ask(PAYLOAD_BYTES_MAX + 1)).await.unwrap_err();
    assert_eq!(error.status().code(), 413, "{error}");

    let around = r#"{"text":""}"#.len();
    host.invoke(Repeat { text: "x".to_owned(), times: PAYLOAD_BYTES_MAX - around }).await.unwrap();
    let head = *host.store().head().borrow();
    for key in [None, Some("k")] {
        let large = Repeat { text: "x".to_owned(), times: PAYLOAD_BYTES_MAX - around + 1 };
        let error = match key {
            None => host.invoke(large).await,
            Some(key) => host.invoke_with_key(large, key).await,
        };
        assert_eq!(error.unwrap_err().status().code(), 500);
        assert_eq!(*host.store().head().borrow(), head, "nothing was kept");
    }
}

#[tokio::test]
async fn an_event_that_is_not_recorded_has_the_bound_of_one_that_is() {
    let def = command(async |ctx: Context<()>, input: Repeat| {
        let event = Repeated { text: input.text.repeat(input.times) };
        match ctx.emit(event.clone()) {
            Ok(()) => Ok(Repeated { text: String::new() }),
            Err(error) => Err(HandlerError::bad_request(purista_core::error::chain(&error))),
        }
    })
    .emits::<Repeated>();
    let host = TestHost::start([crate::service(def)]).await;
    let around = r#"{"text":""}"#.len();
    let ask = |bytes: usize| Repeat { text: "x".to_owned(), times: bytes - around };
    host.invoke(ask(EVENT_BYTES_MAX)).await.unwrap();
    let error = host.invoke(ask(EVENT_BYTES_MAX + 1)).await.unwrap_err();
    assert!(error.message().contains("repeated") && error.message().contains("262144"), "{error}");
    let event = Repeated { text: "x".repeat(EVENT_BYTES_MAX) };
    assert_eq!(host.host().client().emit(event).await.unwrap_err().status().code(), 413);
}

#[tokio::test]
async fn without_a_store_a_key_works_within_the_process() {
    let effects = Arc::new(AtomicU32::new(0));
    let heard = Arc::new(AtomicU32::new(0));
    let counting = Arc::clone(&heard);
    let listen = subscription("hear", move |_ctx: Context<()>, _event: Ordered| {
        let heard = Arc::clone(&counting);
        async move {
            heard.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }
    });
    let service = Service::builder(TRY, "Tries", ()).command(ordering(&effects).success_event());
    let host = Host::builder().service(service.subscription(listen).build()).start().await.unwrap();
    let client = host.client();
    let calls = (0..20).map(|_| client.call(five()).idempotency_key("k").send());
    for answer in futures_util::future::join_all(calls).await {
        assert_eq!(answer.unwrap(), Ordered { nth: 0 });
    }
    let mut other = five();
    other.options.clear();
    let refused = client.call(other).idempotency_key("k").send().await.unwrap_err();
    assert_eq!(refused.status().code(), 422);
    let of_other_tenant = client.call(five()).idempotency_key("k").tenant("acme").send().await.unwrap();
    assert_eq!(of_other_tenant, Ordered { nth: 1 });
    host.stop().await;
    assert_eq!(effects.load(Ordering::SeqCst), 2);
    assert_eq!(
        heard.load(Ordering::SeqCst),
        2,
        "the event of an answer that is given again left with the first"
    );
}
