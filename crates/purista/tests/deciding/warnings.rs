//! Mistakes that no type shows are logged when the host starts.

use garde::Validate;
use purista::{Command, Context, HandlerError, Host, command, decide, subscription, view};
use purista_events::memory::MemoryStore;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::captured::Warnings;
use crate::contracts::{
    ACCOUNT, Pinged, Register, Registered, Renamed, names, register, registered, rename, service, unique,
};

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[garde(allow_unvalidated)]
struct Note {}

impl Command for Note {
    const SERVICE: purista::ServiceId = ACCOUNT;
    const NAME: &'static str = "note";
    type Output = Noted;
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[garde(allow_unvalidated)]
struct Noted {}

impl purista::Event for Noted {
    const NAME: &'static str = "noted";
}

async fn plain(_: Context<()>, command: Register) -> Result<Registered, HandlerError> {
    Ok(registered(&command.user, &command.email))
}

async fn emitting(ctx: Context<()>, command: Register) -> Result<Registered, HandlerError> {
    let event = registered(&command.user, &command.email);
    ctx.emit(event.clone())?;
    Ok(event)
}

async fn heard(_: Context<()>, _: Registered) -> Result<(), HandlerError> {
    Ok(())
}

async fn started_with(warnings: &Warnings, host: purista::HostBuilder) {
    let _guard = tracing::subscriber::set_default(warnings.clone());
    host.start().await.unwrap().stop().await;
}

#[tokio::test]
async fn a_command_that_answers_with_an_event_and_does_not_emit_it_is_named() {
    let check = async |def: purista::CommandDef<(), Register>, expected: usize| {
        let warnings = Warnings::default();
        let service = service().command(def).subscription(subscription("welcome", heard));
        started_with(&warnings, Host::builder().store(MemoryStore::default()).service(service.build())).await;
        let named = warnings.with("call `.success_event()`");
        assert_eq!(named.len(), expected, "{:?}", warnings.lines());
        assert!(named.iter().all(|line| line.contains("Account.1.register") && line.contains("registered")));
    };
    check(command(plain), 1).await;
    check(command(plain).success_event(), 0).await;
    check(command(emitting).emits::<Registered>(), 0).await;
    check(decide(unique, register), 0).await;
}

/// A store with one event of each of two types, of which one has no tags.
async fn filled() -> MemoryStore {
    let store = MemoryStore::default();
    let services = service().command(decide(unique, register)).command(command(noting).success_event());
    let host = Host::builder().store(store.open_beside()).service(services.build()).start().await.unwrap();
    let client = host.client();
    client.invoke(crate::to_register("ada", "a@x")).await.unwrap();
    client.invoke(Note {}).await.unwrap();
    host.stop().await;
    store
}

async fn noting(_: Context<()>, _: Note) -> Result<Noted, HandlerError> {
    Ok(Noted {})
}

#[tokio::test]
async fn a_stored_event_type_that_nothing_reads_is_named_unless_it_is_declared() {
    let check = async |host: purista::HostBuilder, expected: &[&str]| {
        let warnings = Warnings::default();
        started_with(&warnings, host).await;
        let named = warnings.with("a stored event type cannot be read");
        assert_eq!(named.len(), expected.len(), "{:?}", warnings.lines());
        for event in expected {
            assert!(named.iter().any(|line| line.contains(event)), "{event} is not in {named:?}");
        }
    };
    let store = filled().await;
    let empty = || Host::builder().store(store.open_beside());
    check(empty(), &["registered v1", "noted v1"]).await;
    check(empty().service(service().subscription(subscription("welcome", heard)).build()), &["noted v1"])
        .await;
    check(empty().reads::<Registered>().reads::<Noted>(), &[]).await;
    check(empty().skip_event_type_check(), &[]).await;
    check(Host::builder().store(MemoryStore::default()).reads::<Pinged>(), &[]).await;
}

#[tokio::test]
async fn an_event_of_a_decision_that_is_stored_without_tags_is_named() {
    let store = filled().await;
    let warnings = Warnings::default();
    let deciding_note = decide(|_: &Note| view(()).on(|(), _: Noted| ()), |_, ()| Ok(Noted {}));
    let deciding = service().command(decide(names, rename)).command(deciding_note).build();
    let host =
        Host::builder().store(store.open_beside()).reads::<Registered>().reads::<Renamed>().service(deciding);
    started_with(&warnings, host).await;
    let named = warnings.with("has no tags");
    assert_eq!(named.len(), 1, "{:?}", warnings.lines());
    assert!(named[0].contains("noted"), "{named:?}");
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
struct Tag {
    #[garde(length(min = 1, max = 80))]
    bytes: String,
    #[garde(length(chars, min = 1, max = 80))]
    chars: String,
}

impl Command for Tag {
    const SERVICE: purista::ServiceId = ACCOUNT;
    const NAME: &'static str = "tag";
    type Output = ();
}

async fn tagging(_: Context<()>, _: Tag) -> Result<(), HandlerError> {
    Ok(())
}

#[tokio::test]
async fn a_rule_that_counts_bytes_where_its_schema_counts_characters_is_named() {
    let warnings = Warnings::default();
    started_with(&warnings, Host::builder().service(service().command(command(tagging)).build())).await;
    let named = warnings.with("a length rule counts bytes");
    assert_eq!(named.len(), 1, "{:?}", warnings.lines());
    assert!(named[0].contains("Account.1.tag") && named[0].contains("bytes"), "{named:?}");
}
