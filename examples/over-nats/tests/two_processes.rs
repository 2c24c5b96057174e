//! The sign-up between two processes over a real server, seen by a third party: PURISTA's subjects and bodies.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test ends where something is not as it should be"
)]

use std::process::Stdio;
use std::time::Duration;

use async_nats::{Client, Message, Subscriber};
use futures_util::StreamExt;
use purista_servers::nats::NatsServer;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

const PATIENCE: Duration = Duration::from_secs(20);

/// Runs the example in one role.
fn role(url: &str, instance: &str, role: &[&str]) -> (Child, Lines<BufReader<ChildStdout>>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_over-nats"));
    command.args(["--nats", url, "--instance", instance]).args(role);
    let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    (child, lines)
}

async fn line(lines: &mut Lines<BufReader<ChildStdout>>) -> String {
    tokio::time::timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().unwrap()
}

/// What goes over the server from now on.
async fn capture(url: &str) -> (Client, Subscriber) {
    let client = async_nats::connect(url).await.unwrap();
    let captured = client.subscribe(">").await.unwrap();
    client.flush().await.unwrap();
    (client, captured)
}

/// The next message of a type that the flow is about.
async fn next(captured: &mut Subscriber) -> (Message, Value) {
    loop {
        let raw = tokio::time::timeout(PATIENCE, captured.next()).await.unwrap().unwrap();
        let Ok(body) = serde_json::from_slice::<Value>(&raw.payload) else { continue };
        let kind = body["messageType"].as_str().unwrap_or_default();
        if kind == "command" || kind == "commandSuccessResponse" {
            return (raw, body);
        }
    }
}

/// A body without ids, times, `otp`, and the extra keys that peers ignore.
fn settled(mut body: Value) -> Value {
    let fields = body.as_object_mut().unwrap();
    for varying in ["id", "correlationId", "timestamp", "otp"] {
        assert!(fields.remove(varying).is_some(), "PURISTA sends {varying}");
    }
    for extra in ["ttl", "hops", "origin", "idempotencyKey", "causationId", "eventVersion"] {
        fields.remove(extra);
    }
    body
}

fn party(service: &str, target: &str, instance: &str) -> Value {
    json!({"serviceName": service, "serviceVersion": "1", "serviceTarget": target, "instanceId": instance})
}

#[tokio::test]
#[ignore = "needs nats-server: cargo xtask test"]
async fn command_reply_and_event_look_as_puristas_do() {
    let server = NatsServer::start().await;
    let url = server.url();
    let (_user, mut user) = role(&url, "userInstance1", &["user"]);
    let (_email, mut email) = role(&url, "emailInstance1", &["email"]);
    assert_eq!(
        (line(&mut user).await, line(&mut email).await),
        ("User.1 is ready".into(), "Email.1 is ready".into())
    );
    let (_client, mut captured) = capture(&url).await;

    let asked = ["sign-up", "ada@example.com", "Ada", "--trace-id", "s01-signUp"];
    let (_caller, mut caller) = role(&url, "callerInstance1", &asked);
    assert_eq!(line(&mut caller).await, "id-of-Ada");
    assert_eq!(line(&mut email).await, "welcome, id-of-Ada");

    let (command, body) = next(&mut captured).await;
    let subject =
        "purista.command.empty.empty.caller_instance1.caller.1.main.empty.empty.user.1.user_sign_up";
    assert_eq!(command.subject.as_str(), subject);
    let expected = json!({
        "messageType": "command", "traceId": "s01-signUp", "contentType": "application/json", "contentEncoding": "utf-8",
        "sender": party("Caller", "main", "callerInstance1"),
        "receiver": {"serviceName": "User", "serviceVersion": "1", "serviceTarget": "userSignUp"},
        "payload": {"payload": {"email": "ada@example.com", "name": "Ada"}, "parameter": {}}
    });
    assert_eq!(settled(body), expected);

    let (reply, reply_body) = next(&mut captured).await;
    assert_eq!(Some(&reply.subject), command.reply.as_ref(), "the reply goes to the inbox of its command");
    let expected = json!({
        "messageType": "commandSuccessResponse", "traceId": "s01-signUp", "contentType": "application/json",
        "contentEncoding": "utf-8", "eventName": "newUserRegistered",
        "sender": party("User", "userSignUp", "userInstance1"),
        "receiver": party("Caller", "main", "callerInstance1"),
        "payload": {"userId": "id-of-Ada"}
    });
    assert_eq!(settled(reply_body.clone()), expected);

    let (event, event_body) = next(&mut captured).await;
    let subject = "purista.command_success_response.empty.empty.user_instance1.user.1.user_sign_up.new_user_registered.\
                   caller_instance1.caller.1.main";
    assert_eq!(event.subject.as_str(), subject);
    assert_eq!(event_body, reply_body, "the same bytes, a second time");
}

#[tokio::test]
#[ignore = "needs nats-server: cargo xtask test"]
async fn a_command_that_nobody_serves_is_said_at_once() {
    let server = NatsServer::start().await;
    let url = server.url();
    let mut command = Command::new(env!("CARGO_BIN_EXE_over-nats"));
    command.args(["--nats", &url, "sign-up", "ada@example.com", "Ada"]);
    let output = tokio::time::timeout(PATIENCE, command.output()).await.unwrap().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && told.contains("502"), "{told}");
}
