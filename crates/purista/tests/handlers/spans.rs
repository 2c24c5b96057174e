//! Every step has a span with PURISTA's name.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use purista::testing::TestHost;
use purista::{Context, HandlerError, command};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::contracts::{Ask, Inner, Told, ask, told};
use crate::nested;

/// Keeps the names of the spans that were opened.
#[derive(Clone, Default)]
struct Names {
    names: Arc<Mutex<Vec<String>>>,
    next: Arc<AtomicU64>,
}

/// The name that tracing backends show in place of the span's own.
#[derive(Default)]
struct Shown(Option<String>);

impl Visit for Shown {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "otel.name" {
            self.0 = Some(format!("{value:?}").trim_matches('"').to_owned());
        }
    }
}

impl Subscriber for Names {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("purista")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut shown = Shown::default();
        span.record(&mut shown);
        let name = shown.0.unwrap_or_else(|| span.metadata().name().to_owned());
        self.names.lock().unwrap().push(name);
        Id::from_u64(self.next.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

async fn busy(ctx: Context<()>, input: Ask) -> Result<Told, HandlerError> {
    ctx.state().get::<String>("a").await?;
    ctx.config().get::<String>("b").await?;
    ctx.secrets().get("c").await?;
    ctx.invoke(Inner { text: input.text }).await?;
    Ok(told("done"))
}

async fn inner(_ctx: Context<()>, _input: Inner) -> Result<Told, HandlerError> {
    Ok(told("inner"))
}

#[test]
fn every_step_has_a_span_with_puristas_name() {
    let names = Names::default();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    tracing::subscriber::with_default(names.clone(), || {
        runtime.block_on(async {
            let def = command(busy)
                .transform_input(Ok)
                .transform_output(Ok)
                .guard("isFriend", async |_ctx, _input| Ok(()))
                .guard_output("isKind", async |_ctx, _output| Ok(()))
                .success_event();
            let host = TestHost::start([nested(def, command(inner))]).await;
            host.invoke(ask("hello")).await.unwrap();
        });
    });
    let names = names.names.lock().unwrap();
    for expected in [
        "purista.start",
        "ask",
        "inputTransformation",
        "validatePayload",
        "beforeGuardHook.isFriend",
        "functionExecution",
        "purista.stateStore.getValue",
        "purista.configStore.getValue",
        "purista.secretStore.getValue",
        "Try.1.ask.invoke",
        "outputValidation",
        "afterGuardHook.isKind",
        "purista.emitEvent",
        "outputTransformation",
    ] {
        assert!(names.iter().any(|name| name == expected), "{expected} is not in {names:?}");
    }
}
