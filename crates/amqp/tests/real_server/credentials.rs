//! Who may connect, and that secrets stay where they are.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use purista_amqp::bridge::AmqpBridge;
use purista_amqp::connect::Builder;
use purista_conformance::bridge::world::address;
use purista_core::bridge::{BridgeError, BridgeErrorKind, BridgeState, EventBridge};
use purista_core::clock::Clock;
use purista_core::message::{Message, MessageType, Party};
use purista_core::payload::Payload;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id as SpanId, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::server::Server;

const SECRET: &str = "s3cr@t/x";
const ESCAPED: &str = "s3cr%40t%2Fx";

async fn connects(connecting: impl Future<Output = Result<AmqpBridge, BridgeError>>) {
    let bridge = connecting.await.unwrap();
    assert_eq!(*bridge.state().borrow(), BridgeState::Connected);
    assert!(!format!("{bridge:?}").contains("s3cr"));
    bridge.close().await.unwrap();
}

/// An authority, another one that nobody knows, and what each of them signs: the server for `localhost`, and the client.
const AUTHORITIES: &str = r#"
set -e
for authority in ca other; do
    openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=$authority" -keyout $authority.key -out $authority.pem
done
printf 'subjectAltName=DNS:localhost' >server.names
printf 'extendedKeyUsage=clientAuth' >client.names
for whom in server client; do
    openssl req -newkey rsa:2048 -nodes -subj "/CN=$whom" -keyout $whom.key -out $whom.csr
    openssl x509 -req -in $whom.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile $whom.names -out $whom.pem
done
chmod 644 *.key
"#;

fn certify(folder: &Path) {
    let made = Command::new("sh").args(["-c", AUTHORITIES]).current_dir(folder).output().unwrap();
    assert!(made.status.success(), "openssl makes certificates: {}", String::from_utf8_lossy(&made.stderr));
}

/// What every failed attempt must not show.
fn refused(connected: Result<AmqpBridge, BridgeError>) -> String {
    let error = connected.unwrap_err();
    assert_eq!(error.kind(), BridgeErrorKind::Rejected);
    let shown = format!("{error:?} {}", purista_core::error::chain(&error));
    assert!(!shown.contains("s3cr") && !shown.contains("ada"), "{shown}");
    shown
}

#[tokio::test]
#[ignore = "needs rabbitmq-server: cargo xtask test"]
async fn a_password_opens_the_door_and_a_wrong_one_is_not_repeated() {
    let server = Server::start_with(
        &format!("default_user = ada\ndefault_pass = {SECRET}"),
        &format!("ada:{ESCAPED}@"),
        |_| (),
    )
    .await;
    connects(AmqpBridge::connect(server.url())).await;
    connects(AmqpBridge::builder(server.url_as("")).user_and_password("ada", SECRET).connect()).await;
    for url in [server.url_as(""), server.url_as("ada:s3cret-wrong@"), server.url_as("nobody:s3cret-wrong@")]
    {
        let shown = refused(AmqpBridge::connect(url).await);
        assert!(shown.contains("ACCESS_REFUSED"), "{shown}");
    }
}

#[tokio::test]
#[ignore = "needs rabbitmq-server: cargo xtask test"]
async fn under_tls_both_sides_are_believed_for_their_certificates() {
    let lines = "listeners.ssl.1 = 127.0.0.1:TLS_PORT\nssl_options.cacertfile = FOLDER/ca.pem\n\
        ssl_options.certfile = FOLDER/server.pem\nssl_options.keyfile = FOLDER/server.key\n\
        ssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = true";
    let server = Server::start_with(lines, "", certify).await;
    let file = |name: &str| server.folder().join(name);
    let builder = |host: &str, roots: &str| -> Builder {
        AmqpBridge::builder(format!("amqps://{host}:{}", server.tls_port())).root_certificates(file(roots))
    };
    let named = |builder: Builder| builder.client_certificate(file("client.pem"), file("client.key"));
    connects(named(builder("localhost", "ca.pem")).connect()).await;

    let another = refused(named(builder("127.0.0.1", "ca.pem")).connect().await);
    let unknown = refused(named(builder("localhost", "other.pem")).connect().await);
    assert!(another.contains("certificate") && unknown.contains("certificate"), "{another} {unknown}");
    refused(builder("localhost", "ca.pem").connect().await);
    let machine = AmqpBridge::builder(format!("amqps://localhost:{}", server.tls_port()));
    refused(named(machine).connect().await);
    // Where TLS is spoken, nothing is said without it.
    refused(AmqpBridge::connect(format!("amqp://localhost:{}", server.tls_port())).await);
    let missing = builder("localhost", "ca.pem").client_certificate("/no/such/file", file("client.key"));
    assert!(refused(missing.connect().await).contains("/no/such/file"));
}

/// Keeps the text of everything that is logged, on every thread of the process.
#[derive(Clone, Default)]
struct Everything(Arc<Mutex<String>>);

impl Everything {
    fn add(&self, field: &Field, value: &dyn std::fmt::Debug) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        write!(all, "{field}={value:?} ").unwrap();
    }
}

impl Visit for Everything {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.add(field, value);
    }
}

impl Subscriber for Everything {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> SpanId {
        span.record(&mut self.clone());
        SpanId::from_u64(1)
    }

    fn record(&self, _: &SpanId, values: &Record<'_>) {
        values.record(&mut self.clone());
    }

    fn record_follows_from(&self, _: &SpanId, _: &SpanId) {}

    fn event(&self, event: &Event<'_>) {
        event.record(&mut self.clone());
    }

    fn enter(&self, _: &SpanId) {}

    fn exit(&self, _: &SpanId) {}
}

/// In a process of its own, since what is logged on other threads is seen only by a subscriber for the whole process.
#[test]
#[ignore = "needs rabbitmq-server: cargo xtask test"]
fn neither_credentials_nor_payloads_are_logged_at_any_level() {
    const INNER: &str = "PURISTA_AMQP_LOGS_EVERYTHING";
    if std::env::var_os(INNER).is_none() {
        let this = "credentials::neither_credentials_nor_payloads_are_logged_at_any_level";
        let run = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", this, "--include-ignored", "--nocapture"])
            .env(INNER, "1")
            .output()
            .unwrap();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        return;
    }
    let everything = Everything::default();
    tracing::subscriber::set_global_default(everything.clone()).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let server = Server::start_with(
            &format!("default_user = ada\ndefault_pass = {SECRET}"),
            &format!("ada:{ESCAPED}@"),
            |_| (),
        )
        .await;
        // A client of the test's own waited for the broker, and has no such scruples.
        everything.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let system = server.system();
        let bridge = system.bridge("user").await;
        let clock = Clock::system();
        let sender = Party::anywhere(address("Caller", "main"));
        let mut command = Message::new(clock.id(), MessageType::Command, 0, sender, clock.id());
        command.receiver = Some(Party::anywhere(address("User", "nobodyServesThis")));
        command.payload = Payload::encoded(r#""canary-of-the-payload""#.into());
        let error = bridge.request(Box::new(command)).await.unwrap_err();
        assert_eq!(error.kind(), BridgeErrorKind::Unroutable, "it came back, with its payload");
        bridge.close().await.unwrap();
    });
    let all = everything.0.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(all.contains("send_frames"), "the client's own log is seen");
    let bytes = format!("{:?}", b"canary-of-the-payload");
    for canary in [SECRET, "s3cr", "canary-of-the-payload", bytes.trim_matches(['[', ']'])] {
        assert!(!all.contains(canary), "{canary} was logged");
    }
}
