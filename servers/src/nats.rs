//! A nats-server.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::time::Instant;

use crate::folder::Folder;

/// How long a server may take to take connections.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// How often it is asked whether it does.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A nats-server with a port and a folder of its own.
#[derive(Debug)]
pub struct NatsServer {
    child: Child,
    program: PathBuf,
    port: u16,
    folder: Folder,
    arguments: Vec<String>,
}

impl NatsServer {
    /// Starts the one on the `PATH`, without JetStream.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The same with more arguments: `&["--jetstream"]` keeps streams in the server's folder.
    pub async fn start_with(arguments: &[&str]) -> Self {
        Self::start_program(Path::new("nats-server"), arguments).await
    }

    /// Starts this program, which is a nats-server of another version.
    pub async fn start_program(program: &Path, arguments: &[&str]) -> Self {
        let folder = Folder::fresh("nats");
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        // The server finds a free port itself, and writes down which.
        let child = spawn(program, "-1", &folder, &arguments);
        let mut server = Self { child, program: program.to_owned(), port: 0, folder, arguments };
        server.port = server.until_up().await;
        server
    }

    /// Waits until the server has written down its port.
    async fn until_up(&mut self) -> u16 {
        let until = Instant::now() + START_TIMEOUT;
        loop {
            if let Some(port) = self.written_port() {
                return port;
            }
            let ended = self.child.try_wait().expect("its own child can be asked");
            assert!(ended.is_none() && Instant::now() < until, "nats-server did not start: {ended:?}");
            tokio::time::sleep(LOOK_EVERY).await; // real time: another program starts
        }
    }

    /// The port in a file such as `{"nats":["nats://127.0.0.1:4222"]}`.
    fn written_port(&self) -> Option<u16> {
        let file = self.folder.join(format!("nats-server_{}.ports", self.child.id()));
        let written = std::fs::read_to_string(file).ok()?;
        let (_, behind) = written.split_once("nats://127.0.0.1:")?;
        let (port, _) = behind.split_once('"')?;
        port.parse().ok()
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
        format!("nats://{user}127.0.0.1:{}", self.port)
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        // It may have been killed already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again, on the same port with the same data.
    pub async fn restart(&mut self) {
        self.child = spawn(&self.program, &self.port.to_string(), &self.folder, &self.arguments);
        self.until_up().await;
    }
}

fn spawn(program: &Path, port: &str, folder: &Path, arguments: &[String]) -> Child {
    Command::new(program)
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

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.kill();
    }
}
