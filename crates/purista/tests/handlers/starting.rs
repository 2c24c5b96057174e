//! What a host refuses at its start, with place and remedy.

use purista::{Context, Filter, HandlerError, Host, Service, ServiceId, command, listen, subscription};
use purista_core::message::MessageType;
use purista_events::memory::MemoryStore;

use crate::contracts::{Ask, Happened, Passed, TRY, Told, told};

async fn echo(_ctx: Context<()>, input: Ask) -> Result<Told, HandlerError> {
    Ok(told(&input.text))
}

async fn heard(_ctx: Context<()>, _event: Happened) -> Result<(), HandlerError> {
    Ok(())
}

#[track_caller]
fn check(refusal: &str, parts: &[&str]) {
    for part in parts {
        assert!(refusal.contains(part), "{part} is not in: {refusal}");
    }
}

async fn refusal(host: purista::HostBuilder) -> String {
    host.start().await.err().unwrap().to_string()
}

fn builder() -> purista::ServiceBuilder<()> {
    Service::builder(TRY, "Tries", ())
}

#[tokio::test]
async fn every_problem_is_named_at_once_with_its_remedy() {
    let service = builder()
        .command(command(echo))
        .command(command(echo))
        .subscription(subscription("a b", heard).durable());
    let text = refusal(Host::builder().service(service.build())).await;
    check(
        &text,
        &[
            "Try.1.ask is there 2 times",
            "`a b`",
            "Try.1.a b is durable, but the host has no store",
            "`.store(..)`",
        ],
    );
}

#[tokio::test]
async fn a_command_of_another_service_is_refused() {
    let other = Service::builder(ServiceId::new("Other", "1"), "Other", ()).command(command(echo)).build();
    check(
        &refusal(Host::builder().service(other)).await,
        &["Try.1.ask was added to the service Other.1", "SERVICE"],
    );
}

#[tokio::test]
async fn what_a_durable_subscription_cannot_have_is_refused() {
    let with_store = || Host::builder().store(MemoryStore::default());
    let every = builder().subscription(subscription("every", heard).durable().on_every_instance()).build();
    check(&refusal(with_store().service(every)).await, &["Try.1.every", "every instance"]);
    let commands = Filter { kind: Some(MessageType::Command), ..Filter::default() };
    let tap = listen("tap", commands, async |_ctx: Context<()>, _input: Ask| Ok(())).durable();
    check(
        &refusal(with_store().service(builder().subscription(tap).build())).await,
        &["Try.1.tap", "not recorded"],
    );
    let passing = subscription("passing", async |_ctx: Context<()>, _event: Passed| Ok(())).durable();
    check(
        &refusal(with_store().service(builder().subscription(passing).build())).await,
        &["Try.1.passing", "RECORDED = false"],
    );
    let twice =
        builder().subscription(subscription("same", heard)).subscription(subscription("Same", heard)).build();
    check(&refusal(with_store().service(twice)).await, &["subscription Try.1.same is there 2 times"]);
}

#[tokio::test]
async fn criteria_of_a_subscription_that_contradict_are_refused_with_both() {
    let other = Filter { tenant_id: Some("other".into()), ..Filter::default() };
    let torn = builder().subscription(subscription("torn", heard).of_tenant("acme").filter(other)).build();
    check(
        &refusal(Host::builder().service(torn)).await,
        &["Try.1.torn asks for the tenant `acme` and the tenant `other`", "leave out one"],
    );
}

#[tokio::test]
async fn a_foreign_state_store_beside_a_store_is_refused() {
    let host = Host::builder()
        .store(MemoryStore::default())
        .state_store(purista::memory::MemoryStateStore::default());
    check(&refusal(host).await, &["state store", "leave out `.state_store(..)`"]);
}

#[tokio::test]
async fn a_host_that_starts_is_ready_and_says_what_it_serves_and_stops_whole() {
    let service =
        builder().command(command(echo).success_event()).subscription(subscription("heard", heard)).build();
    let host = Host::builder().service(service).start().await.unwrap();
    assert!(host.health().report().is_ready);
    assert_eq!(host.catalogue().commands().count(), 1);
    let health = host.health();
    let report = host.stop().await;
    assert!(report.is_complete, "{report:?}");
    assert!(!health.report().is_ready);
}
