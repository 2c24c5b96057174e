//! A log that is taken over from elsewhere.

use purista_core::clock::{Clock, Source};
use purista_events::position::Position;
use purista_events::query::Query;
use purista_events::recorded::{NewEvent, Recorded};
use purista_events::store::{Direction, EventStore, StoreErrorKind};
use tokio::sync::mpsc;

use crate::given::{event, followed, reached, written};
use crate::server::{Server, schema};

/// An event as another log has it.
fn recorded(position: u64, stream_version: u64, at: &str) -> Recorded {
    let NewEvent { id, name, version, tags, body, cause } = event("user", "ada");
    Recorded {
        position: Position::new(position),
        id,
        name,
        version,
        tags,
        stream_version: Some(stream_version),
        recorded_at: at.parse().expect("a time"),
        tenant_id: None,
        cause,
        body,
    }
}

/// A clock that is late.
struct Late;

impl Source for Late {
    fn now(&self) -> jiff::Timestamp {
        "2020-01-01T00:00:00Z".parse().expect("a time")
    }

    fn random(&self) -> u128 {
        Clock::system().random()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn what_is_committed_after_a_copy_lies_behind_all_of_it() {
    // Further than any number that this server has given so far.
    const FAR: u64 = 1 << 50;
    let (server, schema) = (Server::start(), schema());
    let copied = [recorded(1, 1, "2026-03-01T00:00:00Z"), recorded(FAR, 2, "2026-03-02T00:00:00.000000001Z")];
    let late = || server.store(&schema).clock(Clock::new(Late)).own_time();
    let mut copy = late().copy_into("a log").await.expect("it begins");
    copy.add_events(&copied).await.expect("events are copied");
    assert_eq!(copy.events(Position::START, 10).await.expect("they are read"), copied);
    let behind = copy.add_events(&copied[..1]).await.expect_err("it is there");
    assert_eq!(behind.kind(), StoreErrorKind::Invalid);
    copy.finish().await.expect("it is finished");
    copy.close().await;

    let store = late().connect().await.expect("the store opens");
    assert_eq!(&*store.origin(), "a log");
    let receipt = store.commit(written("user", "ada")).await.expect("committed");
    assert!(receipt.position > Position::new(FAR), "{receipt:?}");
    assert!(receipt.recorded_at >= copied[1].recorded_at, "{receipt:?}: no time runs back");
    reached(&store, receipt.position).await;
    let (found, _) = followed(&store, Position::START).await;
    assert_eq!(
        found.iter().map(|event| event.stream_version).collect::<Vec<_>>(),
        [Some(1), Some(2), Some(3)]
    );
    assert_eq!(found[..2], copied);
    let backwards =
        store.read(&Query::tag("user", "ada"), Position::new(u64::MAX), Direction::Backwards, 1).await;
    assert_eq!(backwards.expect("a page is read")[0].position, receipt.position);
    store.close().await.expect("a store closes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn nobody_opens_a_store_before_its_copy_is_finished_and_one_process_copies() {
    let (server, schema) = (Server::shared(), schema());
    let mut copy = server.store(&schema).copy_into("a log").await.expect("it begins");
    copy.add_events(&[recorded(1, 1, "2026-03-01T00:00:00Z")]).await.expect("events are copied");
    let refused = server.store(&schema).connect().await.expect_err("it is not finished");
    assert_eq!(refused.kind(), StoreErrorKind::Invalid);
    let second = server.store(&schema).copy_into("a log").await.expect_err("somebody copies");
    assert_eq!(second.kind(), StoreErrorKind::InUse, "{second}");
    let status = server.store(&schema).status().await.expect("a status is read");
    let state = status.copy.expect("a copy is begun");
    assert_eq!((state.reached, state.is_finished), (Position::new(1), false));
    copy.close().await;

    let other = server.store(&schema).copy_into("another log").await.expect_err("it is of another log");
    assert_eq!(other.kind(), StoreErrorKind::Invalid, "{other}");
    let mut copy = server.store(&schema).copy_into("a log").await.expect("it goes on");
    assert_eq!(copy.reached(), Position::new(1));
    let (pages, coming) = mpsc::channel(1);
    drop(pages);
    copy.add_kept(coming).await.expect("there is nothing");
    copy.finish().await.expect("it is finished");
    let done = copy.add_events(&[recorded(2, 2, "2026-03-01T00:00:00Z")]).await.expect_err("it is finished");
    assert_eq!(done.kind(), StoreErrorKind::Invalid, "{done}");
    copy.close().await;
    server.store(&schema).connect().await.expect("the store opens").close().await.expect("a store closes");
}
