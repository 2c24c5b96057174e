//! A mosquitto.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::time::Instant;

use crate::folder::Folder;
use crate::port;

/// How long a broker may take to take connections.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// How often it is asked whether it does.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// What is lost on the way to a mosquitto that is killed is what it had not written: it writes after each change.
const KEEPING: &str = "persistence true\nautosave_interval 1\nautosave_on_changes true\n\
                       set_tcp_nodelay true\nmax_queued_messages 100000\nmax_inflight_messages 1000\n";

/// Everything in memory: with much in it, the one above would write for hours.
const IN_MEMORY: &str = "set_tcp_nodelay true\nmax_queued_messages 1000000\nmax_inflight_messages 1000\n";

/// A mosquitto with a port and a folder of its own, which keeps what it has confirmed.
#[derive(Debug)]
pub struct Mosquitto {
    child: Child,
    port: u16,
    folder: Folder,
}

impl Mosquitto {
    /// Starts one that lets everybody in.
    pub async fn start() -> Self {
        Self::start_with("allow_anonymous true\n", |_| ()).await
    }

    /// Starts one that lets everybody in and keeps what waits in its memory only, as much as comes.
    pub async fn start_in_memory() -> Self {
        Self::start_keeping(IN_MEMORY, "allow_anonymous true\n", |_| ()).await
    }

    /// Starts one that lets everybody in and stores at most so many messages for a client that is away.
    pub async fn start_storing(queued_max: usize) -> Self {
        let keeping = format!("set_tcp_nodelay true\nmax_queued_messages {queued_max}\n");
        Self::start_keeping(&keeping, "allow_anonymous true\n", |_| ()).await
    }

    /// Starts one with these lines in its configuration, behind that of its listener, which call the broker's folder `FOLDER`.
    /// The folder may be prepared.
    pub async fn start_with(configuration: &str, prepare: impl FnOnce(&Path)) -> Self {
        Self::start_keeping(KEEPING, configuration, prepare).await
    }

    async fn start_keeping(keeping: &str, configuration: &str, prepare: impl FnOnce(&Path)) -> Self {
        let folder = Folder::fresh("mosquitto");
        prepare(&folder);
        let lines = configuration.replace("FOLDER", &folder.display().to_string());
        let lines = format!("{lines}{keeping}persistence_location {}/\n", folder.display());
        let until = Instant::now() + START_TIMEOUT;
        let port = configure(&folder, &lines);
        let mut server = Self { child: spawn(&folder), port, folder };
        while !server.is_there(until).await {
            server.port = configure(&server.folder, &lines);
            server.child = spawn(&server.folder);
        }
        server
    }

    /// Waits until it takes connections; `false` when it has ended.
    async fn is_there(&mut self, until: Instant) -> bool {
        loop {
            if self.child.try_wait().expect("its own child can be asked").is_some() {
                assert!(Instant::now() < until, "mosquitto did not start");
                return false;
            }
            if tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_ok() {
                return true;
            }
            assert!(Instant::now() < until, "mosquitto takes no connections");
            tokio::time::sleep(LOOK_EVERY).await; // real time: another program starts
        }
    }

    /// The port that it listens at, at 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its address.
    pub fn url(&self) -> String {
        self.url_as("")
    }

    /// The address with something before the host, such as `user:password@`.
    pub fn url_as(&self, user: &str) -> String {
        format!("mqtt://{user}127.0.0.1:{}", self.port)
    }

    /// Where its data and its configuration lie.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        // It may have been killed already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again, on the same port with what it has kept.
    pub async fn restart(&mut self) {
        self.child = spawn(&self.folder);
        assert!(self.is_there(Instant::now() + START_TIMEOUT).await, "mosquitto did not come back");
    }
}

/// Writes its configuration, and gives its port. It cannot choose one itself; who takes this one in between makes it end, and
/// then it is another.
fn configure(folder: &Path, lines: &str) -> u16 {
    let [port] = port::free();
    let configuration = format!("user root\nlistener {port} 127.0.0.1\n{lines}");
    std::fs::write(folder.join("mosquitto.conf"), configuration).expect("its folder takes a file");
    port
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

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.kill();
    }
}
