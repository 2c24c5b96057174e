//! A plain client in Python: somebody else's library, and a command made by hand.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::carrier::{Carrier, PATIENCE};

/// A program of ours in Python that is told what to do in lines of JSON, and tells what happened in such.
pub(crate) struct Python {
    to: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    pub(crate) process: Child,
}

impl Python {
    /// Starts a script of the folder `python` at this place, and waits until it is ready.
    pub(crate) async fn start(script: &str, place: &Value, more: &[&str]) -> Self {
        let python = std::env::var_os("PURISTA_PYTHON").expect(
            "PURISTA_PYTHON names a python3 with nats-py, pika and paho-mqtt; `cargo xtask test` sets it",
        );
        let script = format!("{}/python/{script}", env!("CARGO_MANIFEST_DIR"));
        let (port, text) = (place["port"].to_string(), |name: &str| place[name].as_str().unwrap().to_owned());
        let mut process = Command::new(python)
            .args(["-B", &script, &text("carrier"), &port, &text("prefix")])
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut started = Self { to: process.stdin.take().unwrap(), lines, process };
        assert_eq!(started.line().await.as_deref(), Some("ready"));
        started
    }

    pub(crate) async fn tell(&mut self, what: &Value) {
        self.to.write_all(format!("{what}\n").as_bytes()).await.unwrap();
    }

    /// The next thing that it tells.
    pub(crate) async fn told(&mut self) -> Value {
        serde_json::from_str(&self.line().await.expect("the program in Python lives")).unwrap()
    }

    async fn line(&mut self) -> Option<String> {
        tokio::time::timeout(PATIENCE, self.lines.next_line()).await.expect("it answers").unwrap()
    }
}

/// The plain client, asking `User.1`.
pub(crate) struct Plain {
    client: Python,
    calls: u32,
}

impl Plain {
    pub(crate) async fn on<C: Carrier>(carrier: &C) -> Self {
        Self { client: Python::start("plain_client.py", &carrier.place(), &[]).await, calls: 0 }
    }

    /// The least that a command needs on every carrier.
    pub(crate) fn minimal(&mut self) -> Value {
        self.calls += 1;
        json!({
            "messageType": "command",
            "correlationId": format!("call-{}", self.calls),
            "sender": {
                "serviceName": "Peer", "serviceVersion": "1", "serviceTarget": "main", "instanceId": "plainClient1"
            },
            "receiver": {"serviceName": "User", "serviceVersion": "1", "serviceTarget": "userSignUp"},
            "payload": {"payload": {"email": "ada@example.com", "name": "Ada"}, "parameter": {}}
        })
    }

    /// Sends a command and gives the answers to it, as many as there shall be. Where there shall be none, they are what came
    /// before the answer to a good command behind it.
    pub(crate) async fn call(&mut self, mut call: Value, answers: usize) -> Vec<Value> {
        call["answers"] = answers.into();
        if call.get("target").is_none() {
            call["target"] = "userSignUp".into();
        }
        if answers == 0 {
            let good = self.minimal();
            call["then"] = json!({
                "target": "userSignUp", "body": good.to_string(), "correlationId": good["correlationId"]
            });
        }
        self.client.tell(&call).await;
        self.client.told().await.as_array().unwrap().clone()
    }

    /// Sends a command, and does not wait for what comes of it.
    pub(crate) async fn send(&mut self, call: &Value) {
        self.client.tell(call).await;
    }

    /// The service lives: a good command gets its answer.
    pub(crate) async fn good_call(&mut self) {
        let good = self.minimal();
        let answer = self.call(json!({"body": good.to_string()}), 1).await.remove(0);
        assert_eq!(answer["messageType"], "commandSuccessResponse", "{answer}");
        assert_eq!(answer["payload"], json!({"userId": "id-of-Ada"}));
        assert_eq!(answer["correlationId"], good["correlationId"]);
    }
}

/// What an answer says, in short: `ok`, or the status of its error.
pub(crate) fn verdict(answer: &Value) -> String {
    if let Some(status) = answer["transport"].as_str() {
        return format!("transport {status}");
    }
    match answer["messageType"].as_str() {
        Some("commandSuccessResponse") => "ok".to_owned(),
        Some("commandErrorResponse") => answer["payload"]["status"].to_string(),
        _ => answer.to_string(),
    }
}
