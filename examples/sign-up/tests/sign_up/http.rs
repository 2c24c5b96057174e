//! As much of an HTTP client as a test needs that wants to know when exactly a request has left.

use std::fmt::Write as _;
use std::io;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

pub(crate) const SIGN_UP: &str = "/api/v1/sign-up";

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn user_id(&self) -> String {
        assert_eq!(self.status, 200, "{self:?}");
        self.json()["userId"].as_str().unwrap().to_owned()
    }
}

/// A request with a body, as bytes.
pub(crate) fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

pub(crate) fn get(path: &str) -> Vec<u8> {
    request("GET", path, &[], b"")
}

pub(crate) fn post(body: &[u8]) -> Vec<u8> {
    request("POST", SIGN_UP, &[("content-type", "application/json")], body)
}

pub(crate) fn sign_up(email: &str, name: &str, key: Option<&str>) -> Vec<u8> {
    let mut headers = vec![("content-type", "application/json")];
    headers.extend(key.map(|key| ("idempotency-key", key)));
    request("POST", SIGN_UP, &headers, json!({ "email": email, "name": name }).to_string().as_bytes())
}

/// One question on a connection of its own.
pub(crate) async fn ask(place: &str, request: &[u8]) -> io::Result<Answer> {
    let mut connection = Connection::open(place).await?;
    // A server that refuses a large body at its head may close before it has all come.
    let sent = connection.send(request).await;
    match connection.answer().await {
        Ok(answer) => Ok(answer),
        Err(error) => sent.and(Err(error)),
    }
}

/// A connection that stays open.
pub(crate) struct Connection {
    stream: TcpStream,
    came: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(place: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(place).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, came: Vec::new() })
    }

    /// From its return on the whole request is with the server's system.
    pub(crate) async fn send(&mut self, request: &[u8]) -> io::Result<()> {
        self.stream.write_all(request).await
    }

    pub(crate) async fn answer(&mut self) -> io::Result<Answer> {
        let head_ends = loop {
            if let Some(at) = self.came.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break at;
            }
            self.read().await?;
        };
        let head = String::from_utf8(self.came.drain(..head_ends + 4).collect()).unwrap();
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).unwrap();
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let mut answer = Answer { status, headers, body: Vec::new() };
        let length = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
        while self.came.len() < length {
            self.read().await?;
        }
        answer.body = self.came.drain(..length).collect();
        Ok(answer)
    }

    async fn read(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.came).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}
