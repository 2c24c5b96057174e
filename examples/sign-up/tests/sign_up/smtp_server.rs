//! A real mail server, in Python.

use std::net::TcpListener;
use std::process::Stdio;

use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::mails::Mail;
use crate::soon;

/// A mail as the server took it.
#[derive(Debug, Deserialize)]
pub(crate) struct Received {
    pub(crate) to: Vec<String>,
    pub(crate) from: String,
    content: String,
}

impl Received {
    pub(crate) fn mail(&self) -> Mail {
        Mail::parse(&self.content)
    }
}

pub(crate) struct SmtpServer {
    lines: Lines<BufReader<ChildStdout>>,
    _process: Child,
}

impl SmtpServer {
    pub(crate) async fn start(port: u16) -> Self {
        let python = std::env::var_os("PURISTA_PYTHON")
            .expect("PURISTA_PYTHON names a python3 with aiosmtpd; `cargo xtask test` sets it");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sign_up/smtp_server.py");
        let mut process = Command::new(python)
            .args([script, &port.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let ready = soon("the mail server", lines.next_line()).await.unwrap();
        assert_eq!(ready, Some(format!("ready {port}")));
        Self { lines, _process: process }
    }

    pub(crate) async fn next(&mut self) -> Received {
        let line = soon("a mail", self.lines.next_line()).await.unwrap().unwrap();
        serde_json::from_str(&line).unwrap()
    }
}

/// A port that nobody listens at now.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
