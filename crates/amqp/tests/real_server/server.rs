//! A RabbitMQ of the test's own, on free ports, with a folder of its own; it ends with the test, however the test ends.

use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use lapin::{Channel, Connection, ConnectionProperties};
use purista_amqp::bridge::AmqpBridge;
use purista_amqp::connect::Builder;
use purista_core::bridge::EventBridge;
use tokio::sync::OnceCell;
use tokio::time::Instant;

/// How long a broker may take to take connections: it is a virtual machine that starts on a machine with other work.
const START_TIMEOUT: Duration = Duration::from_secs(120);

static FOLDERS: AtomicU32 = AtomicU32::new(0);
static SYSTEMS: AtomicU32 = AtomicU32::new(0);
static SHARED: OnceCell<Server> = OnceCell::const_new();

/// Starts the broker and the daemon that its Erlang asks for names, each in the foreground; ends both when its own input
/// ends, which it does with the test in any case, and at the line `kill`. After that line `start` starts them again. Each is
/// the first of a group of processes, and it is the group that is ended.
const KEEPER: &str = r#"
begin() {
    setsid epmd -port "$ERL_EPMD_PORT" -address 127.0.0.1 >/dev/null 2>&1 &
    epmd=$!
    setsid "$RABBITMQ_SERVER" >>"$FOLDER/out" 2>&1 </dev/null &
    broker=$!
}
end() {
    kill -s KILL -- "-$broker" 2>/dev/null
    kill -s KILL -- "-$epmd" 2>/dev/null
    wait 2>/dev/null
}
begin
while read -r line; do
    case "$line" in
        kill) end; echo killed ;;
        start) begin ;;
    esac
done
end
rm -rf "$FOLDER"
"#;

pub(crate) struct Server {
    keeper: Child,
    port: u16,
    pub(crate) tls_port: u16,
    user: String,
    folder: PathBuf,
}

/// One system of bridges on a broker: its exchange and its queues have names that no other system has.
#[derive(Clone)]
pub(crate) struct System {
    url: String,
    pub(crate) name: String,
}

impl Server {
    /// The broker that all tests share that neither stop it nor configure it.
    pub(crate) async fn shared() -> &'static Self {
        SHARED.get_or_init(Self::start).await
    }

    pub(crate) async fn start() -> Self {
        Self::start_with("", "", |_| ()).await
    }

    /// A broker with more lines in its configuration, which call a free port `TLS_PORT` and the broker's folder `FOLDER`; who
    /// is let in is named before the host of its address. The folder may be prepared.
    pub(crate) async fn start_with(configuration: &str, user: &str, prepare: impl FnOnce(&Path)) -> Self {
        let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("purista-amqp-{}-{number}", std::process::id()));
        std::fs::create_dir_all(folder.join("home")).unwrap();
        prepare(&folder);
        let [port, distribution, epmd, tls] = free_ports();
        let lines =
            configuration.replace("TLS_PORT", &tls.to_string()).replace("FOLDER", folder.to_str().unwrap());
        let plain = format!("listeners.tcp.1 = 127.0.0.1:{port}\nlog.file.level = warning\n{lines}\n");
        std::fs::write(folder.join("rabbitmq.conf"), plain).unwrap();
        std::fs::write(folder.join("plugins"), "[].\n").unwrap();
        std::fs::write(folder.join("environment"), "").unwrap();
        let keeper = Command::new("sh")
            .args(["-c", KEEPER])
            .env("RABBITMQ_SERVER", program())
            .env("FOLDER", &folder)
            .env("HOME", folder.join("home"))
            .env("RABBITMQ_NODENAME", format!("purista-{port}@localhost"))
            .env("RABBITMQ_CONF_ENV_FILE", folder.join("environment"))
            .env("RABBITMQ_CONFIG_FILE", folder.join("rabbitmq.conf"))
            .env("RABBITMQ_MNESIA_BASE", folder.join("mnesia"))
            .env("RABBITMQ_LOG_BASE", folder.join("log"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", folder.join("plugins"))
            .env("RABBITMQ_DIST_PORT", distribution.to_string())
            .env("ERL_EPMD_PORT", epmd.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            // Nothing but this machine reaches the node, and a test needs no scheduler for each of its processors.
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1} +S 2:2")
            // Not in the test's group: who ends that would end it before it has put away what it started.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { keeper, port, tls_port: tls, user: user.to_owned(), folder };
        server.until_up().await;
        server
    }

    /// Waits until a client is let in.
    async fn until_up(&self) {
        let until = Instant::now() + START_TIMEOUT;
        while Connection::connect(&self.url(), ConnectionProperties::default()).await.is_err() {
            let told = || std::fs::read_to_string(self.folder.join("out")).unwrap_or_default();
            assert!(
                Instant::now() < until,
                "RabbitMQ did not start, is it installed? cargo xtask test: {}",
                told()
            );
            tokio::time::sleep(Duration::from_millis(50)).await; // real time: another program starts
        }
    }

    pub(crate) fn url(&self) -> String {
        self.url_as(&self.user)
    }

    /// The address with something before the host.
    pub(crate) fn url_as(&self, user: &str) -> String {
        format!("amqp://{user}127.0.0.1:{}", self.port)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// One more system on this broker.
    pub(crate) fn system(&self) -> System {
        let number = SYSTEMS.fetch_add(1, Ordering::Relaxed);
        System { url: self.url(), name: format!("system-{number}") }
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(&mut self) {
        self.tell("kill");
        let mut killed = [0; 7];
        std::io::Read::read_exact(self.keeper.stdout.as_mut().unwrap(), &mut killed).unwrap();
    }

    /// Starts it again on the same ports with the same data.
    pub(crate) async fn restart(&mut self) {
        self.tell("start");
        self.until_up().await;
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.keeper.stdin.as_mut().unwrap(), "{line}").unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

impl System {
    pub(crate) fn builder(&self) -> Builder {
        AmqpBridge::builder(&self.url).exchange(&self.name).prefix(&self.name)
    }

    pub(crate) async fn bridge(&self, instance: &str) -> Arc<dyn EventBridge> {
        Arc::new(self.builder().instance(instance).connect().await.unwrap())
    }

    /// A client that knows nothing of bridges; its connection lives as long as the channel.
    pub(crate) async fn client(&self) -> Channel {
        let connection = Connection::connect(&self.url, ConnectionProperties::default()).await.unwrap();
        connection.create_channel().await.unwrap()
    }
}

/// The server's own script: the one on the `PATH` would change to another user.
fn program() -> &'static str {
    "/usr/lib/rabbitmq/bin/rabbitmq-server"
}

/// Ports that were free a moment ago.
fn free_ports() -> [u16; 4] {
    let listeners = [(); 4].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}
