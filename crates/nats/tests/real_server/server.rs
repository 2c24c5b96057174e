//! A nats-server of the test's own, on a free port, with a folder of its own; it ends with the test.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use purista_core::bridge::EventBridge;
use purista_nats::bridge::NatsBridge;
use tokio::time::Instant;

/// How long a server may take to take connections.
const START_TIMEOUT: Duration = Duration::from_secs(20);

static FOLDERS: AtomicU32 = AtomicU32::new(0);

pub(crate) struct Server {
    child: Child,
    port: u16,
    folder: PathBuf,
    arguments: &'static [&'static str],
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    pub(crate) async fn start_with(arguments: &'static [&'static str]) -> Self {
        let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("purista-nats-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        // The server finds a free port itself, and writes down which.
        let child = spawn("-1", &folder, arguments);
        let mut server = Self { child, port: 0, folder, arguments };
        server.port = server.until_some(Self::written_port).await;
        server
    }

    /// Waits until the server shows that it is there.
    async fn until_some<T>(&mut self, look: impl Fn(&Self) -> Option<T>) -> T {
        let until = Instant::now() + START_TIMEOUT;
        loop {
            if let Some(shown) = look(self) {
                return shown;
            }
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < until, "nats-server did not start: {ended:?}");
            tokio::time::sleep(Duration::from_millis(5)).await; // real time: another program starts
        }
    }

    fn written_port(&self) -> Option<u16> {
        let file = self.folder.join(format!("nats-server_{}.ports", self.child.id()));
        let ports: serde_json::Value = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
        ports.pointer("/nats/0")?.as_str()?.rsplit(':').next()?.parse().ok()
    }

    pub(crate) fn url(&self) -> String {
        self.url_as("")
    }

    /// The address with something before the host.
    pub(crate) fn url_as(&self, user: &str) -> String {
        format!("nats://{user}127.0.0.1:{}", self.port)
    }

    pub(crate) async fn bridge(&self, instance: &str) -> Arc<dyn EventBridge> {
        Arc::new(NatsBridge::builder(self.url()).instance(instance).connect().await.unwrap())
    }

    /// A client that knows nothing of bridges.
    pub(crate) async fn client(&self) -> async_nats::Client {
        async_nats::connect(self.url()).await.unwrap()
    }

    /// What a client that knows nothing of bridges sees on a subject, from now on.
    pub(crate) async fn captured(
        &self,
        client: &async_nats::Client,
        subject: &'static str,
    ) -> async_nats::Subscriber {
        let captured = client.subscribe(subject).await.unwrap();
        // The server reads a connection in order: when the echo is back, it has read the subscription.
        let inbox = client.new_inbox();
        let mut echo = client.subscribe(inbox.clone()).await.unwrap();
        client.publish(inbox, Vec::new().into()).await.unwrap();
        echo.next().await.unwrap();
        captured
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again on the same port.
    pub(crate) async fn restart(&mut self) {
        self.child = spawn(&self.port.to_string(), &self.folder, self.arguments);
        self.until_some(Self::written_port).await;
    }
}

fn spawn(port: &str, folder: &std::path::Path, arguments: &[&str]) -> Child {
    Command::new("nats-server")
        .args(["--addr", "127.0.0.1", "--port", port, "--store_dir"])
        .arg(folder)
        .arg("--ports_file_dir")
        .arg(folder)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("nats-server is installed: cargo xtask test")
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have been killed by the test already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !self.folder.as_os_str().is_empty() {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}
