//! How it starts, and what it says when it cannot.

use std::net::TcpListener;

use purista_core::address::{Address, ServiceId};
use purista_core::clock::Clock;
use purista_core::event::Tags;
use purista_core::message::Party;
use purista_core::text::Text;
use purista_events::batch::{Append, Batch, Condition};
use purista_events::recorded::{Cause, NewEvent};
use purista_events::store::EventStore as _;
use purista_sqlite::store::SqliteStore;

use crate::server::{Folder, Server, program};
use crate::{beside_others, soon};

/// What it says when it is started with these arguments and ends at once.
async fn refusal(folder: &Folder, arguments: &[&str], code: i32) -> String {
    let output = program(folder, arguments).env("RUST_BACKTRACE", "1").output();
    let output = soon("the end of a start that fails", output).await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(!said.contains("backtrace") && !said.contains("panicked"), "{said}");
    assert!(output.stdout.is_empty(), "it says nowhere that it serves");
    said.lines().last().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn it_says_where_everything_is() {
    let _cores = beside_others().await;
    let folder = Folder::new();
    let server = Server::start(&folder).await;
    let place = &server.place;
    let expect = [
        format!("page     http://{place}/"),
        format!("API      http://{place}/api/v1/sign-up"),
        format!("OpenAPI  http://{place}/api/openapi.json"),
        format!("health   http://{place}/healthz http://{place}/readyz"),
        format!("store    {}", folder.data().join("sign-up.db").display()),
        format!("mails    {} (one .eml file each)", folder.mails().display()),
        "runs     http, user, email".to_owned(),
    ];
    assert_eq!(server.said, expect);
    server.stop().await;
}

#[tokio::test]
async fn a_second_process_on_the_folder_is_refused_with_the_reason() {
    let _cores = beside_others().await;
    let folder = Folder::new();
    let server = Server::start(&folder).await;
    let said = refusal(&folder, &[], 1).await;
    assert!(
        said.starts_with("error: ") && said.contains("has it open") && said.contains("sign-up.db"),
        "{said}"
    );
    server.sign_up("ada@example.com", "Ada").await.user_id();
    server.stop().await;
}

#[tokio::test]
async fn a_port_in_use_is_said_once_with_the_remedy() {
    let _cores = beside_others().await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = taken.local_addr().unwrap().to_string();
    let said = refusal(&Folder::new(), &["--listen", &place], 1).await;
    assert!(said.starts_with("error: ") && said.contains("choose another port"), "{said}");
    assert_eq!(said.matches(&place).count(), 1, "{said}");
    let said = refusal(&Folder::new(), &["--listen", "nowhere"], 1).await;
    assert!(said.contains("as `127.0.0.1:3000`"), "{said}");
}

#[tokio::test]
async fn a_mail_server_that_cannot_be_meant_is_refused_without_its_password() {
    let _cores = beside_others().await;
    for (url, part) in [
        ("mail.example.com", "smtp://host:port"),
        ("http://u:geheim@mail.example.com", "smtp://host:port"),
        ("smtp://", "smtp://host:port"),
        ("smtp://u:geheim@mail.example.com:99999", "unencrypted"),
        ("smtps://u:geheim@mail.example.com:99999", "smtp://host:port"),
        ("smtp://u:geheim@mail.example.com", "unencrypted"),
    ] {
        let said = refusal(&Folder::new(), &["--smtp", url], 1).await;
        assert!(said.starts_with("error: --smtp ") && said.contains(part), "{url}: {said}");
        assert!(!said.contains("geheim"), "{said}");
    }
}

#[tokio::test]
async fn parts_that_would_be_alone_are_refused_with_what_leads_to_the_others() {
    let _cores = beside_others().await;
    for (arguments, part) in [
        (&["--run", "email"][..], "without it nobody could sign up"),
        (&["--run", "http"], "without it nobody would answer a sign-up"),
        (&["--run", "http,user"], "without it nobody would write the mails"),
        (&["--run", "user", "--no-store"], "needs --bridge"),
        (&["--no-store"], "--no-store needs --bridge"),
    ] {
        let said = refusal(&Folder::new(), arguments, 1).await;
        assert!(said.starts_with("error: --") && said.contains(part), "{arguments:?}: {said}");
    }
    let output = program(&Folder::new(), &["--run", "mail"]).output().await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("http, user, email"), "{said}");
}

#[tokio::test]
async fn a_broker_that_cannot_be_used_is_named_without_its_password() {
    let _cores = beside_others().await;
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (scheme, remedy) in
        [("nats", "`nats-server --jetstream`"), ("amqp", "`rabbitmq-server`"), ("mqtt", "`mosquitto`")]
    {
        let url = format!("{scheme}://ada:geheim@{nobody}");
        let folder = Folder::new();
        let said = refusal(&folder, &["--run", "user", "--bridge", &url], 1).await;
        assert!(said.contains(&format!("{scheme}://{nobody} cannot be used")), "{said}");
        assert!(said.contains(remedy) && said.contains("Connection refused"), "{said}");
        assert!(!said.contains("geheim") && !said.contains("ada"), "{said}");

        // A name that is never resolved, so that nothing leaves this machine.
        let url = format!("{scheme}://ada:geheim@broker.invalid");
        let said = refusal(&folder, &["--run", "user", "--bridge", &url], 1).await;
        assert!(said.contains("unencrypted_to_other_machines") && !said.contains("geheim"), "{said}");
        let anyway = ["--run", "user", "--bridge", &url, "--unencrypted-to-other-machines"];
        let said = refusal(&folder, &anyway, 1).await;
        assert!(said.contains(remedy) && !said.contains("geheim"), "{said}");
    }
    for url in ["redis://ada:geheim@host", "geheim"] {
        let said = refusal(&Folder::new(), &["--bridge", url], 1).await;
        let names_all = ["nats://", "amqp://", "mqtt://"].iter().all(|scheme| said.contains(scheme));
        assert!(names_all && !said.contains("geheim"), "{said}");
    }
}

#[tokio::test]
#[ignore = "needs nats-server: cargo xtask test"]
async fn a_nats_server_that_keeps_nothing_is_refused_with_the_remedy() {
    let _cores = beside_others().await;
    let server = purista_servers::nats::NatsServer::start().await;
    let said = refusal(&Folder::new(), &["--run", "email", "--bridge", &server.url()], 1).await;
    assert!(said.contains("no JetStream: start it with `--jetstream`"), "{said}");
}

#[tokio::test]
async fn a_data_folder_that_cannot_be_is_refused() {
    let _cores = beside_others().await;
    let folder = Folder::new();
    std::fs::write(folder.data(), "a file").unwrap();
    let said = refusal(&folder, &[], 1).await;
    assert!(said.starts_with("error: ") && said.contains(folder.data().to_str().unwrap()), "{said}");
}

#[tokio::test]
async fn help_tells_every_option() {
    let output = program(&Folder::new(), &["--help"]).output().await.unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    for part in [
        "--listen <ADDRESS>",
        "127.0.0.1:3000",
        "--data <FOLDER>",
        "--store <URL>",
        "--smtp <URL>",
        "--run <PARTS>",
        "--bridge <URL>",
        "--name <NAME>",
        "--no-store",
        "--check",
        "RUST_LOG",
        "SIGTERM",
    ] {
        assert!(help.contains(part), "{help}");
    }
}

/// Adds an event as a program of tomorrow would store it.
async fn add_newer(folder: &Folder) {
    let store = SqliteStore::open(folder.data().join("sign-up.db")).unwrap();
    let clock = Clock::system();
    let cause = Cause {
        sender: Party::anywhere(Address::of(ServiceId::new("User", "2"), "signUp")),
        principal_id: None,
        trace_id: clock.id(),
        trace: None,
        correlation_id: None,
        causation_id: None,
        hops: 0,
    };
    let (name, tags) = (Text::known("newUserRegistered"), Tags::new().with("user", "1"));
    let event = NewEvent { id: clock.id(), name, version: 2, tags, body: "{}".into(), cause };
    let mut batch = Batch::new(clock.id(), None);
    batch.appends.push(Append { events: vec![event], condition: Condition::Always });
    store.commit(batch).await.unwrap();
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_check_names_what_no_code_reads_and_so_does_the_start() {
    let _cores = beside_others().await;
    let folder = Folder::new();
    let server = Server::start(&folder).await;
    server.sign_up("ada@example.com", "Ada").await.user_id();
    let checked = program(&folder, &["--check"]).output().await.unwrap();
    let said = String::from_utf8(checked.stdout).unwrap();
    assert_eq!(
        (checked.status.code(), said.as_str()),
        (Some(0), "stored forms of events: 1, all of them read\n")
    );
    server.stop().await;

    add_newer(&folder).await;
    let checked = program(&folder, &["--check"]).output().await.unwrap();
    let said = String::from_utf8(checked.stderr).unwrap();
    assert_eq!((checked.status.code(), checked.stdout.is_empty()), (Some(1), true), "{said}");
    assert!(said.ends_with("error: no code reads 1 of 2 stored forms of events\n"), "{said}");
    let unread = "the event newUserRegistered v2 at position 2 cannot be read";
    assert!(said.contains(unread) && said.contains("run the newer program"), "{said}");
    let server = Server::start(&folder).await;
    server.logs(unread).await;
    server.sign_up("bob@example.com", "Bob").await.user_id();
    server.stop().await;
}
