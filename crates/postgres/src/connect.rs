//! Connections: where to, how safely, and what each session is told first.

use std::fmt::Write as _;
use std::time::Duration;

use futures_util::future::poll_fn;
use purista_events::store::{StoreError, StoreErrorKind};
use tokio::sync::mpsc;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::error::SqlState;
use tokio_postgres::{AsyncMessage, Client, Config};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::tls::Tls;

/// How long a connection may take to come about.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// After how long without a word the server takes a process for frozen: a session with leases ends then, and a writer's open
/// transaction, between whose statements there are milliseconds.
pub(crate) const FROZEN_AFTER: Duration = Duration::from_secs(8);

/// Where Postgres listens unless it is told otherwise.
const PORT: u16 = 5432;

/// The server and how it is spoken to.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) config: Config,
    pub(crate) tls: Tls,
    pub(crate) schema: String,
    pub(crate) timeouts: Timeouts,
    /// Runs what drives each connection.
    pub(crate) tasks: TaskTracker,
}

/// How long the server lets a statement run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timeouts {
    pub(crate) statement: Duration,
    pub(crate) lock: Duration,
}

/// Reads the address of a server, and refuses to speak in the clear to another machine unless the address says so itself.
pub(crate) fn config(url: &str) -> Result<Config, StoreError> {
    let invalid = |what: &str| StoreError::new(StoreErrorKind::Invalid, what);
    // The client's own error may repeat the address, password and all.
    let mut config: Config = url.parse().map_err(|_| {
        invalid(
            "the address of the store is none of Postgres: write postgres://user:password@host:5432/database",
        )
    })?;
    if config.get_hosts().is_empty() {
        return Err(invalid("the address of the store names no host: write postgres://user@host/database"));
    }
    let is_near = config.get_hosts().iter().all(is_of_this_machine);
    if !is_near && config.get_ssl_mode() == SslMode::Prefer {
        config.ssl_mode(SslMode::Require);
    }
    if !is_near && config.get_ssl_mode() == SslMode::Disable {
        tracing::warn!(
            hosts = hosts(&config),
            "events and passwords go to the store in the clear, as its address wants it"
        );
    }
    if config.get_application_name().is_none() {
        config.application_name("purista");
    }
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT_TIMEOUT);
    }
    // A connection whose other end is gone is noticed, also while nothing is said.
    config.keepalives_idle(Duration::from_secs(10));
    config.keepalives_interval(Duration::from_secs(5));
    config.keepalives_retries(3);
    config.tcp_user_timeout(Duration::from_secs(30));
    Ok(config)
}

fn is_of_this_machine(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
    }
}

/// The hosts of an address, and nothing else of it.
pub(crate) fn hosts(config: &Config) -> String {
    let mut hosts = String::new();
    for host in config.get_hosts() {
        let _ = match host {
            Host::Tcp(name) => write!(hosts, "{name} "),
            Host::Unix(path) => write!(hosts, "{} ", path.display()),
        };
    }
    hosts.trim_end().to_owned()
}

impl Server {
    /// What every session is told first. An index leads to everything that the store looks for; plans that read whole tables
    /// come from statistics that are not there yet. Nothing here runs for so long that compiling it would pay.
    pub(crate) fn greeting(&self) -> String {
        let Timeouts { statement, lock } = self.timeouts;
        format!(
            "SET search_path TO \"{}\", public; SET statement_timeout TO {}; SET lock_timeout TO {}; \
             SET idle_in_transaction_session_timeout TO {}; SET synchronous_commit TO on; \
             SET default_transaction_isolation TO 'read committed'; SET client_min_messages TO warning; \
             SET jit TO off; SET enable_seqscan TO off; SET enable_bitmapscan TO off; SET enable_hashjoin TO off; \
             SET enable_mergejoin TO off",
            self.schema,
            statement.as_millis(),
            lock.as_millis(),
            // Nobody of ours is idle inside a transaction for longer than a statement may take.
            statement.as_millis(),
        )
    }

    /// A connection of its own, with its session's settings. The senders of notifications go to
    /// `notified`, as far as there is room.
    pub(crate) async fn connect(
        &self,
        notified: Option<mpsc::Sender<i32>>,
    ) -> Result<Client, tokio_postgres::Error> {
        self.connect_until(CancellationToken::new(), notified).await
    }

    /// One that ends when it is told so, whoever still holds it.
    pub(crate) async fn connect_until(
        &self,
        end: CancellationToken,
        notified: Option<mpsc::Sender<i32>>,
    ) -> Result<Client, tokio_postgres::Error> {
        let (client, mut connection) = self.config.connect(self.tls.clone()).await?;
        self.tasks.spawn(async move {
            loop {
                let message = end.run_until_cancelled(poll_fn(|context| connection.poll_message(context)));
                match message.await.flatten() {
                    Some(Ok(AsyncMessage::Notification(word))) => {
                        if let Some(notified) = &notified {
                            // Those that wait already say the same.
                            let _ = notified.try_send(word.process_id());
                        }
                    }
                    Some(Ok(_)) => {}
                    Some(Err(error)) => {
                        // Whoever waits on it is told so himself.
                        tracing::debug!(%error, "a connection to the store has ended");
                        break;
                    }
                    None => break,
                }
            }
        });
        client.batch_execute(&self.greeting()).await?;
        Ok(client)
    }

    /// The same, saying what went wrong to whoever opens the store.
    pub(crate) async fn open(&self) -> Result<Client, StoreError> {
        let opened = tokio::time::timeout(CONNECT_TIMEOUT * 2, self.connect(None)).await;
        let hosts = hosts(&self.config);
        match opened {
            Ok(Ok(client)) => Ok(client),
            Ok(Err(error)) => {
                let what = self.unconnected(&error, &hosts);
                Err(StoreError::new(StoreErrorKind::ReadFailed, what).with_source(error))
            }
            Err(_) => {
                let what = format!("Postgres at {hosts} did not answer within {CONNECT_TIMEOUT:?}");
                Err(StoreError::new(StoreErrorKind::ReadFailed, what))
            }
        }
    }

    /// What was tried and what helps, without anything that is secret.
    fn unconnected(&self, error: &tokio_postgres::Error, hosts: &str) -> String {
        let database = database(&self.config);
        match error.code() {
            Some(&SqlState::INVALID_CATALOG_NAME) => format!(
                "there is no database `{database}` at {hosts}: make it with `createdb {database}`, or name another one \
                 behind the host"
            ),
            Some(&SqlState::INVALID_PASSWORD | &SqlState::INVALID_AUTHORIZATION_SPECIFICATION) => format!(
                "Postgres at {hosts} does not let this user in: write postgres://user:password@host/{database} with the \
                 user and password that it knows"
            ),
            None if speaks_no_tls(error) => format!(
                "Postgres at {hosts} does not speak TLS, and is not spoken to in the clear: switch its `ssl` on, or say that \
                 everybody on the way may listen by adding ?sslmode=disable to the address"
            ),
            None if is_untrusted(error) => format!(
                "the certificate of Postgres at {hosts} is not trusted for that name: name its authority with \
                 `root_certificates`; a server on this machine may be reached with ?sslmode=prefer, which checks none"
            ),
            _ => {
                format!("no connection to Postgres at {hosts}: is it there, and are user and password right?")
            }
        }
    }
}

/// The database that is meant: without a name that of the user.
fn database(config: &Config) -> &str {
    config.get_dbname().or(config.get_user()).unwrap_or_default()
}

/// Which server, database and schema, for people: no user and no password.
pub(crate) fn place(config: &Config, schema: &str) -> String {
    let ports = config.get_ports();
    let mut hosts = Vec::new();
    for (index, host) in config.get_hosts().iter().enumerate() {
        // One port stands for all hosts.
        let port = ports.get(index).or(ports.first()).copied().unwrap_or(PORT);
        hosts.push(match host {
            Host::Tcp(name) => format!("{name}:{port}"),
            Host::Unix(path) => path.display().to_string(),
        });
    }
    format!("Postgres at {}, database {}, schema {schema}", hosts.join(","), database(config))
}

/// A server that was asked for TLS and answered no. The client has no code for it.
fn speaks_no_tls(error: &tokio_postgres::Error) -> bool {
    std::error::Error::source(error).is_some_and(|cause| cause.to_string().contains("does not support TLS"))
}

fn is_untrusted(error: &tokio_postgres::Error) -> bool {
    std::error::Error::source(error)
        .is_some_and(|cause| cause.to_string().contains("invalid peer certificate"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_told_without_its_password() {
        let shown = |url: &str| place(&config(url).unwrap(), "purista");
        assert_eq!(
            shown("postgres://ada:s3cret@db.example.com:5433/app?sslmode=disable"),
            "Postgres at db.example.com:5433, database app, schema purista"
        );
        assert_eq!(
            shown("postgres://ada:s3cret@localhost"),
            "Postgres at localhost:5432, database ada, schema purista"
        );
    }

    fn mode(url: &str) -> SslMode {
        config(url).unwrap().get_ssl_mode()
    }

    #[test]
    fn another_machine_is_spoken_to_under_tls_unless_the_address_says_otherwise() {
        assert_eq!(mode("postgres://localhost/app"), SslMode::Prefer);
        assert_eq!(mode("postgres://127.0.0.1,[::1]/app"), SslMode::Prefer);
        assert_eq!(mode("postgres://db.example.com/app"), SslMode::Require);
        assert_eq!(mode("postgres://127.0.0.1,db.example.com/app"), SslMode::Require);
        assert_eq!(mode("postgres://db.example.com/app?sslmode=disable"), SslMode::Disable);
    }

    #[test]
    fn no_error_repeats_a_password() {
        for url in [
            "postgres://ada:s3cret@host:nonsense/app",
            "ada:s3cret@host",
            "postgres://ada:s3cret@/app?x=s3cret",
        ] {
            let error = config(url).unwrap_err();
            assert!(!format!("{error:?} {error}").contains("s3cret"), "{error:?}");
        }
    }
}
