//! A pgbouncer, which stands before a PostgreSQL and hands out its sessions.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::folder::Folder;
use crate::port;
use crate::postgres::{Postgres, as_its_user};

/// How long it may take to take connections.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// How often it is asked whether it does.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A pgbouncer with a port and a folder of its own; it ends with the value.
#[derive(Debug)]
pub struct PgBouncer {
    child: Child,
    port: u16,
    _folder: Folder,
}

impl PgBouncer {
    /// Starts one that hands out sessions in this mode: `transaction`, `session`.
    pub fn start(before: &Postgres, pool_mode: &str) -> Self {
        let folder = Folder::fresh("pgbouncer");
        let [port] = port::free();
        let configuration = format!(
            "[databases]\n* = host=127.0.0.1 port={} user=purista\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = {pool_mode}\n",
            before.port()
        );
        let file = folder.join("pgbouncer.ini");
        std::fs::write(&file, configuration).expect("its folder takes a file");
        let mut command = as_its_user("pgbouncer");
        command.arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("pgbouncer is installed: cargo xtask test");
        let (mut bouncer, until) = (Self { child, port, _folder: folder }, Instant::now() + START_TIMEOUT);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            let ended = bouncer.child.try_wait().expect("its own child can be asked");
            assert!(ended.is_none() && Instant::now() < until, "pgbouncer takes no connections: {ended:?}");
            std::thread::sleep(LOOK_EVERY); // real time: another program starts
        }
        bouncer
    }

    /// The port that it listens at, at 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
