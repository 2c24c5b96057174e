//! As much of an HTTP client as these tests need.

use std::io;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

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

    /// The JSON of an answer that is no refusal.
    #[track_caller]
    pub(crate) fn good(&self) -> Value {
        assert_eq!(self.status, 200, "{} {self:?}", String::from_utf8_lossy(&self.body));
        self.json()
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

    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        self.ask("GET", path, None).await.unwrap()
    }

    pub(crate) async fn sign_up(&mut self, email: &str, name: &str) -> Answer {
        let body = json!({ "email": email, "name": name });
        self.ask("POST", "/api/v1/sign-up", Some(&body)).await.unwrap()
    }

    pub(crate) async fn rename(&mut self, user_id: &str, name: &str) -> Answer {
        let body = json!({ "name": name });
        self.ask("PATCH", &format!("/api/v1/users/{user_id}"), Some(&body)).await.unwrap()
    }

    pub(crate) async fn change_email(&mut self, user_id: &str, email: &str) -> Answer {
        let body = json!({ "email": email });
        self.ask("PATCH", &format!("/api/v1/users/{user_id}/email"), Some(&body)).await.unwrap()
    }

    pub(crate) async fn ask(&mut self, method: &str, path: &str, body: Option<&Value>) -> io::Result<Answer> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let kind = if body.is_empty() { "" } else { "content-type: application/json\r\n" };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: test\r\n{kind}content-length: {}\r\n\r\n{body}",
            body.len()
        );
        self.stream.write_all(request.as_bytes()).await?;
        self.answer().await
    }

    async fn answer(&mut self) -> io::Result<Answer> {
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
