//! Reads in a handler: now, as it was, and with a promise.

use std::time::Duration;

use purista::testing::TestHost;
use purista::{CommandDef, Context, HandlerError, command, decide};
use purista_events::memory::MemoryStore;
use purista_events::position::Position;

use crate::contracts::{Look, Looked, Rename, Renamed, name, names, rename, renamed, service, to_rename};
use crate::{log, racing, refused};

async fn look(ctx: Context<()>, input: Look) -> Result<Looked, HandlerError> {
    let mut read = ctx.read(name(&input.user));
    if let Some(time) = input.as_of {
        read = read.as_of(time);
    }
    if let Some(position) = input.at {
        read = read.at(Position::new(position));
    }
    let ((name, _), position) = read.with_position().await?;
    Ok(Looked { name, position: position.number() })
}

fn ask(as_of: Option<jiff::Timestamp>, at: Option<u64>) -> Look {
    Look { user: "ada".to_owned(), as_of, at }
}

async fn host() -> TestHost {
    TestHost::start([service().command(decide(names, rename)).command(command(look)).build()]).await
}

fn looked(name: &str, position: u64) -> Looked {
    Looked { name: name.to_owned(), position }
}

#[tokio::test]
async fn the_past_is_read_by_time_and_by_position() {
    let host = host().await;
    let start = host.now();
    let second = Duration::from_secs(1);
    for name in ["Ada", "Countess"] {
        tokio::time::sleep(second).await;
        host.invoke(to_rename("ada", name)).await.unwrap();
    }
    tokio::time::sleep(second).await;
    assert_eq!(host.invoke(ask(None, None)).await.unwrap(), looked("Countess", 2));
    let after = |seconds: f64| start.saturating_add(second.mul_f64(seconds)).unwrap();
    assert_eq!(host.invoke(ask(Some(after(0.5)), None)).await.unwrap(), looked("", 0));
    assert_eq!(host.invoke(ask(Some(after(1.5)), None)).await.unwrap(), looked("Ada", 1));
    assert_eq!(host.invoke(ask(Some(after(2.9)), None)).await.unwrap(), looked("Countess", 2));
    assert_eq!(host.invoke(ask(None, Some(1))).await.unwrap(), looked("Ada", 1));
}

#[tokio::test]
async fn what_is_still_to_come_is_a_bad_request() {
    let host = host().await;
    let soon = host.now().saturating_add(Duration::from_secs(1)).unwrap();
    refused(host.invoke(ask(Some(soon), None)).await, 400, "is in the future");
    refused(host.invoke(ask(None, Some(7))).await, 400, "position 7 was not reached");
}

#[tokio::test]
async fn a_read_sees_its_own_tenant_only() {
    let host = host().await;
    host.invoke(to_rename("ada", "Ada")).await.unwrap();
    let answer = host.host().client().call(ask(None, None)).tenant("acme").send().await.unwrap();
    assert_eq!(answer.name, "");
}

/// Reads, is overtaken, then emits.
async fn overtaken(
    ctx: Context<()>,
    input: Rename,
    is_guarded: bool,
    store: MemoryStore,
) -> Result<(), HandlerError> {
    let view = name(&input.user);
    let (_, times) = if is_guarded { ctx.read(view).guarded().await? } else { ctx.read(view).await? };
    racing::record(&store, &ctx, renamed("Other", 1)).await;
    ctx.emit(Renamed { user: input.user, name: input.name, times: times + 1 })?;
    Ok(())
}

async fn overtaken_host(is_guarded: bool) -> TestHost {
    let store = MemoryStore::default();
    let inner = store.clone();
    let def: CommandDef<(), Rename> =
        command(move |ctx, input| overtaken(ctx, input, is_guarded, inner.clone()));
    let service = service().command(def.emits::<Renamed>()).build();
    TestHost::builder().services([service]).store(store).start().await
}

#[tokio::test]
async fn a_guarded_read_commits_only_if_it_still_holds() {
    let host = overtaken_host(true).await;
    refused(host.invoke(to_rename("ada", "Ada")).await, 409, "somebody else changed");
    assert_eq!(log(host.store()).await.len(), 1, "the event of the other");
}

#[tokio::test]
async fn a_plain_read_guards_nothing() {
    let host = overtaken_host(false).await;
    host.invoke(to_rename("ada", "Ada")).await.unwrap();
    assert_eq!(log(host.store()).await.len(), 2);
}

#[tokio::test]
async fn an_expected_version_of_a_stream_must_be_its_version() {
    let def = command(|ctx: Context<()>, input: Rename| async move {
        ctx.expect_stream("user", &input.user, input.name.parse()?)?;
        ctx.emit(Renamed { user: input.user, name: input.name, times: 1 })?;
        Ok(())
    });
    let host = TestHost::start([service().command(def.emits::<Renamed>()).build()]).await;
    refused(host.invoke(to_rename("ada", "1")).await, 409, "somebody else changed");
    host.invoke(to_rename("ada", "0")).await.unwrap();
    refused(host.invoke(to_rename("ada", "0")).await, 409, "somebody else changed");
    host.invoke(to_rename("ada", "1")).await.unwrap();
    host.invoke(to_rename("bob", "0")).await.unwrap();
    assert_eq!(log(host.store()).await.len(), 3);
}

#[tokio::test]
async fn without_a_store_a_read_says_what_to_do() {
    let service = service().command(command(look)).build();
    let host = purista::Host::builder().service(service).start().await.unwrap();
    refused(host.client().invoke(ask(None, None)).await, 500, "");
    host.stop().await;
}
