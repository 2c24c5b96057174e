//! A RabbitMQ.

use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::{folder, port};

/// How long a broker may take to take connections: it is a virtual machine that starts on a machine with other work.
const START_TIMEOUT: Duration = Duration::from_secs(120);
/// How often it is asked whether it does.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The server's own script: the one on the `PATH` would change to another user.
const PROGRAM: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
/// What a client says first (AMQP 0-9-1, 4.2.2), and what the server answers with: a frame of a method.
const PROTOCOL: &[u8] = b"AMQP\0\0\x09\x01";
const METHOD_FRAME: u8 = 1;

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

/// A RabbitMQ with ports and a folder of its own; it ends with the test's process, however that ends.
#[derive(Debug)]
pub struct RabbitMq {
    keeper: Child,
    port: u16,
    tls_port: u16,
    user: String,
    folder: PathBuf,
}

impl RabbitMq {
    /// Starts one that knows `guest` only.
    pub async fn start() -> Self {
        Self::start_with("", "", |_| ()).await
    }

    /// Starts one with more lines in its configuration, which call a free port `TLS_PORT` and the broker's folder `FOLDER`;
    /// who is let in is named before the host of its address. The folder may be prepared.
    pub async fn start_with(configuration: &str, user: &str, prepare: impl FnOnce(&Path)) -> Self {
        let folder = folder::fresh("rabbitmq");
        prepare(&folder);
        let [port, distribution, epmd, tls_port] = port::free();
        let lines = configuration
            .replace("TLS_PORT", &tls_port.to_string())
            .replace("FOLDER", &folder.display().to_string());
        let plain = format!("listeners.tcp.1 = 127.0.0.1:{port}\nlog.file.level = warning\n{lines}\n");
        for (name, content) in [("rabbitmq.conf", plain.as_str()), ("plugins", "[].\n"), ("environment", "")]
        {
            std::fs::write(folder.join(name), content).expect("its folder takes a file");
        }
        let keeper = keeper(&folder, port, distribution, epmd);
        let server = Self { keeper, port, tls_port, user: user.to_owned(), folder };
        server.until_up().await;
        server
    }

    /// Waits until a client is spoken to.
    async fn until_up(&self) {
        let until = Instant::now() + START_TIMEOUT;
        while self.greet().await.is_err() {
            let told = || std::fs::read_to_string(self.folder.join("out")).unwrap_or_default();
            assert!(
                Instant::now() < until,
                "RabbitMQ did not start, is it installed? cargo xtask test: {}",
                told()
            );
            tokio::time::sleep(LOOK_EVERY).await; // real time: another program starts
        }
    }

    async fn greet(&self) -> std::io::Result<()> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        stream.write_all(PROTOCOL).await?;
        match stream.read_u8().await? {
            METHOD_FRAME => Ok(()),
            other => Err(std::io::Error::other(format!("a frame of kind {other}"))),
        }
    }

    /// The port that it listens at, at 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The port that its configuration calls `TLS_PORT`.
    pub fn tls_port(&self) -> u16 {
        self.tls_port
    }

    /// Its address, with who is let in.
    pub fn url(&self) -> String {
        self.url_as(&self.user)
    }

    /// The address with something else before the host, such as `user:password@`.
    pub fn url_as(&self, user: &str) -> String {
        format!("amqp://{user}127.0.0.1:{}", self.port)
    }

    /// Where its data and its log lie.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        self.tell("kill");
        let mut killed = [0; "killed\n".len()];
        let told = self.keeper.stdout.as_mut().expect("its output is ours");
        told.read_exact(&mut killed).expect("it tells when it has ended them");
    }

    /// Starts it again, on the same ports with the same data.
    pub async fn restart(&mut self) {
        self.tell("start");
        self.until_up().await;
    }

    fn tell(&mut self, line: &str) {
        let orders = self.keeper.stdin.as_mut().expect("its input is ours");
        writeln!(orders, "{line}").expect("it reads its orders");
    }
}

fn keeper(folder: &Path, port: u16, distribution: u16, epmd: u16) -> Child {
    let home = folder.join("home");
    std::fs::create_dir_all(&home).expect("its folder takes one more");
    Command::new("sh")
        .args(["-c", KEEPER])
        .env("RABBITMQ_SERVER", PROGRAM)
        .env("FOLDER", folder)
        .env("HOME", home)
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
        .expect("a shell starts")
}

impl Drop for RabbitMq {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}
