//! Where a store cannot work it is not opened, and the error says what to change.

use purista_events::store::{EventStore, StoreErrorKind};
use purista_postgres::store::PostgresStore;
use purista_servers::pgbouncer::PgBouncer;

use crate::given::written;
use crate::server::{Server, schema};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn a_database_that_is_not_in_utf_8_is_rejected() {
    let server = Server::shared();
    let database = server.database_with(&["--encoding=LATIN1", "--template=template0", "--locale=C"]);
    let url = format!("postgres://purista@127.0.0.1:{}/{database}", server.port());
    let error = PostgresStore::connect(&url).await.expect_err("not every text can be stored there");
    assert_eq!(error.kind(), StoreErrorKind::Invalid);
    assert!(error.to_string().contains("LATIN1") && error.to_string().contains("--encoding=UTF8"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL and pgbouncer: cargo xtask test"]
async fn a_pool_that_hands_out_sessions_by_transaction_is_rejected_and_one_by_session_is_not() {
    let (server, schema) = (Server::shared(), schema());
    let by_transaction = PgBouncer::start(server, "transaction");
    let store = PostgresStore::builder(&Server::url_at(by_transaction.port())).schema(&schema);
    let error = store.connect().await.expect_err("leases belong to a session");
    assert_eq!(error.kind(), StoreErrorKind::Invalid, "{error}");
    assert!(error.to_string().contains("pool_mode=session"), "{error}");

    let by_session = PgBouncer::start(server, "session");
    let store = PostgresStore::builder(&Server::url_at(by_session.port())).schema(&schema);
    let store = store.connect().await.expect("the store opens");
    store.commit(written("user", "ada")).await.expect("committed");
    drop(store.lease("a lease").await.expect("a lease is free"));
    store.close().await.expect("a store closes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn control_characters_in_tags_are_no_damage_and_damage_beside_them_is_found() {
    let (server, schema) = (Server::shared(), schema());
    let store = server.store(&schema).connect().await.expect("the store opens");
    for value in ["\0", "\u{1}", "a\0b\u{1}c\u{1}0", "\\u0000", "\\\0", "\n\u{1f}", "ada"] {
        for _ in 0..2 {
            let mut new = crate::given::event("user", value);
            new.tags = new.tags.with("user", "ada").with("note", value);
            let batch = crate::given::batch(vec![new], purista_events::batch::Condition::Always);
            store.commit(batch).await.expect("committed");
        }
    }
    assert_eq!(store.check().await.expect("it is looked through"), [""; 0]);
    let client = server.client().await;
    let deleted = format!(
        "DELETE FROM \"{schema}\".tags WHERE value = 'a' || chr(1) || '0b' || chr(1) || '1c' || chr(1) || '10'"
    );
    assert_eq!(client.execute(&deleted, &[]).await.expect("rows are deleted"), 4);
    let found = store.check().await.expect("it is looked through");
    assert_eq!(found.len(), 4, "{found:?}");
    assert!(found.iter().all(|line| line.starts_with("an event's tag is not in the index")), "{found:?}");
    store.close().await.expect("a store closes");
}
