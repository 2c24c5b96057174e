//! Under TLS the server's certificate and its name are checked.

use purista_events::store::{EventStore, StoreErrorKind};
use purista_postgres::store::PostgresStore;

use crate::given::written;
use crate::server::Server;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn a_server_is_believed_for_its_certificate_and_its_name() {
    let server = Server::start_under_tls();
    let url =
        |host: &str| format!("postgres://purista:CANARY@{host}:{}/postgres?sslmode=require", server.port());
    // Its certificate is for `localhost`.
    let good = PostgresStore::builder(&url("localhost")).root_certificates(server.certificate("ca"));
    let store = good.connect().await.expect("the store opens");
    store.commit(written("user", "ada")).await.expect("committed");
    store.close().await.expect("a store closes");

    for (host, trusted) in [("127.0.0.1", "ca"), ("localhost", "other")] {
        let builder = PostgresStore::builder(&url(host)).root_certificates(server.certificate(trusted));
        let refused = builder.connect().await.expect_err("it is not the server that was meant");
        assert_eq!(refused.kind(), StoreErrorKind::ReadFailed, "{refused}");
        let said = format!("{refused:?} {}", purista_core::error::chain(&refused));
        assert!(said.contains("certificate") && !said.contains("CANARY"), "{said}");
    }
    let machine = PostgresStore::connect(&url("localhost")).await;
    assert!(machine.is_err(), "the machine does not know this authority");
    let missing =
        PostgresStore::builder(&url("localhost")).root_certificates("/no/such/file").connect().await;
    let error = missing.expect_err("there is no such file");
    assert!(
        error.kind() == StoreErrorKind::Invalid && error.to_string().contains("/no/such/file"),
        "{error}"
    );
}

/// A server on this machine is spoken to under TLS where it speaks it, as psql does, whoever has signed its certificate.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn where_tls_is_only_preferred_a_server_on_this_machine_is_believed() {
    let server = Server::start_under_tls();
    for mode in ["", "?sslmode=prefer"] {
        let url = format!("postgres://purista@127.0.0.1:{}/postgres{mode}", server.port());
        let store = PostgresStore::connect(&url).await.expect("the store opens");
        store.commit(written("user", "ada")).await.expect("committed");
        let client = server.client().await;
        let sessions = "SELECT bool_and(s.ssl), count(*) FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid) \
                        WHERE a.application_name = 'purista'";
        let row = client.query_one(sessions, &[]).await.expect("the sessions are read");
        let (are_under_tls, sessions): (bool, i64) = (row.get(0), row.get(1));
        assert!(are_under_tls && sessions > 0);
        store.close().await.expect("a store closes");
    }
    let url = format!("postgres://purista@localhost:{}/postgres?sslmode=require", server.port());
    let error = PostgresStore::connect(&url).await.expect_err("nobody knows this authority");
    assert!(error.to_string().contains("sslmode=prefer"), "{error}");
}
