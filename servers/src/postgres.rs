//! A PostgreSQL.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::port;

/// Where Debian keeps the server's programs, which are on nobody's path.
const VERSIONS: &str = "/usr/lib/postgresql";

/// Waits until the test's process has ended, and then ends the server.
const KEEPER: &str = r#"trap "" TERM INT HUP; read -r _; "$1/pg_ctl" -D "$2/data" -m immediate stop >/dev/null 2>&1; rm -rf "$2""#;

/// Two authorities, of which one has signed the server's certificate. Whoever tests may read them.
const CERTIFICATES: &str = r#"
cd "$1"; chmod 755 .
for authority in ca other; do
    openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=$authority" -keyout $authority.key -out $authority.pem
done
openssl req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout server.key -out server.csr
printf 'subjectAltName=DNS:localhost' >server.names
openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile server.names -out server.pem
chmod 600 server.key; chmod 644 ca.pem other.pem
"#;

/// A PostgreSQL with a port and a folder of its own; it ends with the test's process, however that ends.
#[derive(Debug)]
pub struct Postgres {
    programs: PathBuf,
    folder: PathBuf,
    port: u16,
    options: &'static str,
    /// Its standard input is closed when this process ends.
    _keeper: Child,
}

impl Postgres {
    /// The one that most tests share; each has a schema of its own.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// Starts one that lets everybody in, without TLS, and forgets the synchronising of files: no test crashes the machine.
    pub fn start() -> Self {
        Self::start_with("", |_| ())
    }

    /// One with these options more, as `-c max_prepared_transactions=10`.
    pub fn start_with_options(options: &'static str) -> Self {
        Self::start_with(options, |_| ())
    }

    /// One that speaks TLS, with a certificate for `localhost`.
    pub fn start_under_tls() -> Self {
        Self::start_with("-c ssl=on -c ssl_cert_file=../server.pem -c ssl_key_file=../server.key", |folder| {
            output(as_its_user("sh").args(["-ec", CERTIFICATES, "sh"]).arg(folder));
        })
    }

    fn start_with(options: &'static str, prepare: impl FnOnce(&Path)) -> Self {
        let programs = programs();
        let folder = output(as_its_user("mktemp").args(["-d", "-t", "purista-postgres-XXXXXXXX"]));
        let folder = PathBuf::from(folder.trim());
        let mut keeper = as_its_user("sh");
        keeper.args(["-c", KEEPER, "sh"]).arg(&programs).arg(&folder);
        let keeper = keeper.stdin(Stdio::piped()).spawn().expect("a shell starts");
        let data = folder.join("data");
        let mut initdb = as_its_user(programs.join("initdb"));
        output(initdb.arg("-D").arg(&data).args(["-U", "purista", "-A", "trust", "-E", "UTF8", "--no-sync"]));
        let [port] = port::free();
        prepare(&folder);
        let server = Self { programs, folder, port, options, _keeper: keeper };
        server.restart();
        server
    }

    /// Starts it again in its folder and on its port, and waits until it takes connections.
    pub fn restart(&self) {
        // A test's server may lose what a machine's crash would take: no test crashes the machine.
        let options = format!(
            "-c port={} -c listen_addresses=127.0.0.1 -c unix_socket_directories={} -c fsync=off \
             -c max_connections=300 {}",
            self.port,
            self.folder.display(),
            self.options
        );
        output(self.pg_ctl().args(["-w", "-l"]).arg(self.folder.join("log")).args(["-o", &options, "start"]));
    }

    /// Ends it as a crash would: nobody is asked, and the next start recovers.
    pub fn crash(&self) {
        output(self.pg_ctl().args(["-m", "immediate", "stop"]));
    }

    fn pg_ctl(&self) -> Command {
        let mut command = as_its_user(self.programs.join("pg_ctl"));
        command.arg("-D").arg(self.folder.join("data"));
        command
    }

    /// The certificate of an authority: `ca` has signed the server's, `other` has not.
    pub fn certificate(&self, authority: &str) -> PathBuf {
        self.folder.join(format!("{authority}.pem"))
    }

    /// The port that it listens at, at 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its address.
    pub fn url(&self) -> String {
        Self::url_at(self.port)
    }

    /// The address by way of another port, behind which somebody passes it on.
    pub fn url_at(port: u16) -> String {
        format!("postgres://purista@127.0.0.1:{port}/postgres")
    }

    /// Makes a database in it, and gives its name, which no other has.
    pub fn database(&self) -> String {
        self.database_with(&[])
    }

    /// The same with these options of `createdb` more.
    pub fn database_with(&self, options: &[&str]) -> String {
        let name = fresh_name();
        let mut createdb = as_its_user(self.programs.join("createdb"));
        createdb.args(options);
        output(createdb.args(["-h", "127.0.0.1", "-U", "purista", "-p", &self.port.to_string(), &name]));
        name
    }
}

/// A name for a schema or a database that nothing else in a test's servers has.
pub fn fresh_name() -> String {
    static NAMES: AtomicU32 = AtomicU32::new(0);
    format!("t{}_{}", std::process::id(), NAMES.fetch_add(1, Ordering::Relaxed))
}

fn programs() -> PathBuf {
    let mut versions: Vec<PathBuf> = std::fs::read_dir(VERSIONS)
        .map(|entries| entries.flatten().map(|entry| entry.path().join("bin")).collect())
        .unwrap_or_default();
    versions.retain(|folder| folder.join("initdb").exists());
    versions.sort_by_key(|folder| version(folder));
    versions.pop().expect("PostgreSQL is installed: cargo xtask test")
}

fn version(folder: &Path) -> u32 {
    let name = folder.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    name.and_then(|name| name.parse().ok()).unwrap_or(0)
}

/// The server refuses to run as root: then it runs as the user that its package made.
pub(crate) fn as_its_user(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let is_root = output(Command::new("id").arg("-u")).trim() == "0";
    let mut command = if is_root {
        let user = Command::new("id").args(["-u", "postgres"]).output();
        assert!(
            user.is_ok_and(|user| user.status.success()),
            "Postgres does not run as root, and there is no user `postgres`: run the tests as another user"
        );
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    command.current_dir("/").stdin(Stdio::null());
    command
}

fn output(command: &mut Command) -> String {
    let output = command.output().expect("the program starts");
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?} failed: {}{}", said(&output.stdout), said(&output.stderr));
    said(&output.stdout)
}
