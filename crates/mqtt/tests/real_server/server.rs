//! A mosquitto of the test's own, on a free port, with a folder of its own; it ends with the test.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use purista_core::bridge::EventBridge;
use purista_mqtt::bridge::MqttBridge;
use rumqttc::{
    AsyncClient, Broker, Event, MqttOptions, Packet, Publish, PublishOptions, PublishProperties, QoS,
};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// How long a broker may take to take connections.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// What is lost on the way to a mosquitto that is killed is what it had not written: it writes after each change.
const KEEPING: &str = "persistence true\nautosave_interval 1\nautosave_on_changes true\n\
                       set_tcp_nodelay true\nmax_queued_messages 100000\nmax_inflight_messages 1000\n";

static FOLDERS: AtomicU32 = AtomicU32::new(0);

pub(crate) struct Server {
    child: Child,
    port: u16,
    folder: PathBuf,
}

/// A folder for a broker that is about to start.
pub(crate) fn folder() -> PathBuf {
    let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("purista-mqtt-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_with("allow_anonymous true\n", folder()).await
    }

    /// Starts one with these lines in its configuration, behind that of its listener.
    pub(crate) async fn start_with(lines: &str, folder: PathBuf) -> Self {
        let until = Instant::now() + START_TIMEOUT;
        loop {
            // It cannot choose a port itself; who takes this one in between makes it end, and then it is another.
            let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let place = folder.display();
            let port = free.port();
            let configuration = format!(
                "user root\nlistener {port} 127.0.0.1\n{lines}{KEEPING}persistence_location {place}/\n"
            );
            std::fs::write(folder.join("mosquitto.conf"), configuration).unwrap();
            let mut server = Self { child: spawn(&folder), port, folder: folder.clone() };
            if server.is_there(until).await {
                return server;
            }
            // The folder is used once more.
            server.folder = PathBuf::new();
        }
    }

    /// Waits until it takes connections; `false` when it has ended.
    async fn is_there(&mut self, until: Instant) -> bool {
        loop {
            if self.child.try_wait().unwrap().is_some() {
                assert!(Instant::now() < until, "mosquitto did not start");
                return false;
            }
            if tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_ok() {
                return true;
            }
            assert!(Instant::now() < until, "mosquitto takes no connections");
            tokio::time::sleep(Duration::from_millis(5)).await; // real time: another program starts
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        self.url_as("")
    }

    /// The address with something before the host.
    pub(crate) fn url_as(&self, user: &str) -> String {
        format!("mqtt://{user}127.0.0.1:{}", self.port)
    }

    pub(crate) async fn bridge(&self, instance: &str) -> Arc<dyn EventBridge> {
        Arc::new(MqttBridge::builder(self.url()).instance(instance).connect().await.unwrap())
    }

    /// A bridge with a client id, for durable subscriptions.
    pub(crate) async fn durable(&self, client_id: &str) -> Arc<dyn EventBridge> {
        Arc::new(MqttBridge::builder(self.url()).client_id(client_id).connect().await.unwrap())
    }

    /// The same for a process that shares its durable subscriptions with no other.
    pub(crate) async fn durable_alone(&self, client_id: &str) -> Arc<dyn EventBridge> {
        let builder = MqttBridge::builder(self.url()).client_id(client_id).durable_in_one_process();
        Arc::new(builder.connect().await.unwrap())
    }

    /// A client that knows nothing of bridges, and hears this filter from now on.
    pub(crate) async fn client(&self, filter: &str) -> Client {
        Client::connect(self.port, filter).await
    }

    /// Waits until what it has confirmed is written: it confirms first, and writes before it reads the next packet.
    pub(crate) async fn written(&self) {
        self.client("nothing").await.publish("nothing", "").await;
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again on the same port, with what it has kept.
    pub(crate) async fn restart(&mut self) {
        self.child = spawn(&self.folder);
        assert!(self.is_there(Instant::now() + START_TIMEOUT).await, "mosquitto did not come back");
    }
}

fn spawn(folder: &Path) -> Child {
    Command::new("mosquitto")
        .arg("-c")
        .arg(folder.join("mosquitto.conf"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("mosquitto is installed: cargo xtask test")
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

/// A client that knows nothing of bridges.
pub(crate) struct Client {
    sender: AsyncClient,
    heard: mpsc::Receiver<Publish>,
    /// Ends its task.
    _stop: DropGuard,
}

impl Client {
    async fn connect(port: u16, filter: &str) -> Self {
        static NUMBERS: AtomicU32 = AtomicU32::new(0);
        let name = format!("peer-{}", NUMBERS.fetch_add(1, Ordering::Relaxed));
        let mut options = MqttOptions::new(name, Broker::tcp("127.0.0.1", port));
        options.set_max_packet_size(Some(64 << 20));
        let (client, mut events) = AsyncClient::builder(options).capacity(64).build();
        let (to_test, heard) = mpsc::channel(10_000);
        let pumping = async move {
            while let Ok(event) = events.poll().await {
                if let Event::Incoming(Packet::Publish(raw)) = event {
                    to_test.try_send(raw).expect("the test reads what it hears");
                }
            }
        };
        let stop = CancellationToken::new();
        TaskTracker::new().spawn(stop.clone().run_until_cancelled_owned(pumping));
        let granted = client.subscribe_tracked(filter.to_owned(), QoS::AtLeastOnce).await.unwrap();
        granted.wait_async().await.unwrap();
        Self { sender: client, heard, _stop: stop.drop_guard() }
    }

    /// Publishes, and waits until the broker has it.
    pub(crate) async fn publish(&self, topic: &str, body: impl Into<Vec<u8>>) {
        self.publish_paired(topic, body, None).await;
    }

    /// The same with correlation data.
    pub(crate) async fn publish_paired(
        &self,
        topic: &str,
        body: impl Into<Vec<u8>>,
        correlation_data: Option<bytes::Bytes>,
    ) {
        let properties = PublishProperties { correlation_data, ..PublishProperties::default() };
        let options = PublishOptions::at_least_once().properties(properties);
        let sent = self.sender.publish_tracked(topic.to_owned(), body.into(), options).await.unwrap();
        sent.wait_async().await.unwrap();
    }

    pub(crate) async fn next(&mut self) -> Publish {
        let hearing = tokio::time::timeout(Duration::from_secs(10), self.heard.recv());
        hearing.await.expect("something is heard").unwrap()
    }
}
