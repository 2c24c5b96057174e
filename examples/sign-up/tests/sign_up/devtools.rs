//! A headless Chromium, driven by its DevTools protocol over two pipes: messages of JSON, each ended by a zero byte.

use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::soon;

/// Chromium reads what it is told from file 3 and answers on file 4.
const START: &str = r#"exec "$0" "$@" 3<&0 4>&1 0</dev/null 1>/dev/null 2>&1"#;

pub(crate) struct Browser {
    told: ChildStdin,
    tells: BufReader<ChildStdout>,
    next: u64,
    session: Value,
    /// What happened while an answer was awaited.
    events: Vec<Value>,
    _process: Child,
}

impl Browser {
    /// Starts with an empty profile in a folder of its own, and opens an empty page.
    pub(crate) async fn start(profile: &Path) -> Self {
        let program = std::env::var_os("CHROMIUM").unwrap_or_else(|| "chromium".into());
        let mut process = Command::new("sh")
            .args(["-c", START])
            .arg(program)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--disable-dev-shm-usage", "--remote-debugging-pipe", "about:blank"])
            .arg(format!("--user-data-dir={}", profile.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let told = process.stdin.take().unwrap();
        let tells = BufReader::new(process.stdout.take().unwrap());
        let mut browser =
            Self { told, tells, next: 0, session: Value::Null, events: Vec::new(), _process: process };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" })).await;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        browser.session = browser.call("Target.attachToTarget", attach).await["sessionId"].take();
        for domain in ["Page.enable", "Runtime.enable", "Log.enable", "Network.enable"] {
            browser.call(domain, json!({})).await;
        }
        browser
    }

    /// Calls a method of the protocol and waits for its result.
    pub(crate) async fn call(&mut self, method: &str, params: Value) -> Value {
        self.next += 1;
        let id = self.next;
        let mut message = json!({ "id": id, "method": method, "params": params });
        if !self.session.is_null() {
            message["sessionId"] = self.session.clone();
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.told.write_all(&bytes).await.unwrap();
        soon(method, async {
            loop {
                let mut message = self.message().await;
                if message["id"] == id {
                    assert!(message["error"].is_null(), "{method}: {}", message["error"]);
                    return message["result"].take();
                }
                self.events.push(message);
            }
        })
        .await
    }

    async fn message(&mut self) -> Value {
        let mut bytes = Vec::new();
        self.tells.read_until(0, &mut bytes).await.unwrap();
        assert_eq!(bytes.pop(), Some(0), "the browser has ended");
        serde_json::from_slice(&bytes).unwrap()
    }

    /// Waits for an event.
    pub(crate) async fn event(&mut self, method: &str) -> Value {
        if let Some(at) = self.events.iter().position(|event| event["method"] == method) {
            return self.events.remove(at)["params"].take();
        }
        soon(method, async {
            loop {
                let mut message = self.message().await;
                if message["method"] == method {
                    return message["params"].take();
                }
                self.events.push(message);
            }
        })
        .await
    }

    pub(crate) async fn open(&mut self, url: &str) {
        self.call("Page.navigate", json!({ "url": url })).await;
        self.event("Page.loadEventFired").await;
    }

    /// The value of an expression in the page; a promise is awaited.
    pub(crate) async fn value(&mut self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let mut answer = self.call("Runtime.evaluate", params).await;
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].take()
    }

    /// Waits until an expression is true.
    pub(crate) async fn until(&mut self, expression: &str) {
        let look = format!(
            "new Promise((done) => {{ const look = () => ({expression}) ? done(true) : setTimeout(look, 5); look(); }})"
        );
        self.value(&look).await;
    }

    /// What a person reads at a place of the page.
    pub(crate) async fn text(&mut self, selector: &str) -> String {
        let text = self.value(&format!("document.querySelector({selector:?}).innerText")).await;
        text.as_str().unwrap().to_owned()
    }

    /// Puts the focus into a field and types over what is there.
    pub(crate) async fn type_into(&mut self, selector: &str, text: &str) {
        self.value(&format!("document.querySelector({selector:?}).select()")).await;
        if text.is_empty() {
            self.key("Delete", "").await;
        } else {
            self.call("Input.insertText", json!({ "text": text })).await;
        }
    }

    pub(crate) async fn press_enter(&mut self) {
        self.key("Enter", "\r").await;
    }

    async fn key(&mut self, name: &str, text: &str) {
        let code = if name == "Enter" { 13 } else { 46 };
        let key = json!({ "key": name, "code": name, "windowsVirtualKeyCode": code });
        let with = |kind: &str, text: &str| {
            let mut event = key.clone();
            event["type"] = kind.into();
            if !text.is_empty() {
                event["text"] = text.into();
            }
            event
        };
        self.call("Input.dispatchKeyEvent", with("keyDown", text)).await;
        self.call("Input.dispatchKeyEvent", with("keyUp", "")).await;
    }

    /// Clicks with the mouse in the middle of something.
    pub(crate) async fn click(&mut self, selector: &str) {
        let middle = format!(
            "(() => {{ const box = document.querySelector({selector:?}).getBoundingClientRect(); \
             return [box.x + box.width / 2, box.y + box.height / 2]; }})()"
        );
        let middle = self.value(&middle).await;
        for kind in ["mousePressed", "mouseReleased"] {
            let event =
                json!({ "type": kind, "x": middle[0], "y": middle[1], "button": "left", "clickCount": 1 });
            self.call("Input.dispatchMouseEvent", event).await;
        }
    }

    /// How wide the page is shown, and whether in the dark.
    pub(crate) async fn look(&mut self, width: u32, height: u32, is_dark: bool) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", size).await;
        let scheme = if is_dark { "dark" } else { "light" };
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.call("Emulation.setEmulatedMedia", media).await;
    }

    pub(crate) async fn is_offline(&mut self, offline: bool) {
        let network =
            json!({ "offline": offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1 });
        self.call("Network.emulateNetworkConditions", network).await;
    }

    /// Keeps a picture of the page to be looked at.
    pub(crate) async fn picture(&mut self, file: &Path) {
        let picture = self.call("Page.captureScreenshot", json!({ "format": "png" })).await;
        std::fs::write(file, decoded(picture["data"].as_str().unwrap())).unwrap();
    }

    /// What the page's script threw and what the browser refused to load or to run.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let complaints = self.events.iter().filter(|event| {
            let entry = &event["params"]["entry"];
            event["method"] == "Runtime.exceptionThrown"
                || (event["method"] == "Log.entryAdded"
                    && entry["level"] == "error"
                    && entry["source"] != "network")
        });
        complaints.map(ToString::to_string).collect()
    }
}

/// Base64 as the protocol writes it.
fn decoded(text: &str) -> Vec<u8> {
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let (mut bytes, mut bits, mut count) = (Vec::with_capacity(text.len()), 0_u32, 0);
    for byte in text.bytes().filter(|byte| *byte != b'=') {
        bits = bits << 6 | u32::from(value(byte));
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 0xff).unwrap());
        }
    }
    bytes
}
