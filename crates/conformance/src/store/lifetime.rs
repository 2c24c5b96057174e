//! Duties of a store's life: what is kept comes back as it was, after closing and opening too.

use std::sync::Arc;

use purista_core::address::{Address, AddressParts};
use purista_core::id::Id;
use purista_core::message::{HOPS_MAX, Party};
use purista_core::payload::EVENT_BYTES_MAX;
use purista_core::trace::TraceContext;
use purista_events::batch::{Append, Batch};
use purista_events::query::Query;
use purista_events::recorded::{Cause, NewEvent, Recorded};
use purista_events::store::StoreErrorKind::Closed;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::given::{self, always, event, stream};
use super::stage::Stage;

/// Everything that was committed is there when the store was closed and opened again, and it goes on where it was.
pub async fn everything_survives_closing_and_opening(stage: &mut Stage) {
    for number in 1..=4 {
        stage.commit(given::everything(&stage.clock, number)).await;
    }
    for tenant in ["north", "south"] {
        let batch = Batch { tenant: Some(tenant.into()), ..given::everything(&stage.clock, 1) };
        let batch = Batch { consumed: None, progress: Vec::new(), ..batch };
        stage.commit(batch).await;
    }
    let (contents, origin) = (stage.contents().await, stage.store.origin());
    for _ in 0..2 {
        stage.reopen().await;
        assert_eq!(stage.contents().await, contents);
        assert_eq!(stage.store.origin(), origin, "the origin names the log for ever");
        assert_eq!(Some(stage.settled().await), contents.events.last().map(|event| event.position));
        assert_eq!(stage.store.poisoned(), None);
    }
    let receipt = stage.append(vec![event("went on", &[("order", "1")])]).await;
    assert!(Some(receipt.position) > contents.events.last().map(|event| event.position));
    let last = stage.events().await.pop().expect("it was recorded");
    assert_eq!(last.stream_version, Some(3));
    assert_ne!(stage.another().await.store.origin(), origin, "another log has another name");
}

/// A closed store rejects commits, and writes nothing of them; closing it again is no fault.
pub async fn a_closed_store_rejects_commits(stage: &mut Stage) {
    stage.append(vec![event("moved", &[])]).await;
    for _ in 0..2 {
        stage.store.close().await.expect("a store closes");
        let late = given::everything(&stage.clock, 1);
        let error = stage.store.commit(late).await.expect_err("the store is closed");
        assert_eq!(error.kind(), Closed, "{error}");
        assert!(!error.may_have_happened());
    }
    stage.reopen().await;
    assert_eq!(stage.events().await.len(), 1);
    stage.commit(given::everything(&stage.clock, 1)).await;
}

/// Closing waits for what was handed over: a commit that returned `Ok` is kept, and one that was rejected never happened.
pub async fn closing_loses_nothing_that_was_committed(stage: &mut Stage) {
    let committed = Arc::new(Semaphore::new(0));
    let mut writers = JoinSet::new();
    for _ in 0..16 {
        let (store, committed) = (Arc::clone(&stage.store), Arc::clone(&committed));
        writers.spawn(async move {
            let mut kept = Vec::new();
            loop {
                let event = event("counted", &[("counter", "1")]);
                let id = event.id.clone();
                let batch = Batch { appends: vec![always(vec![event])], ..given::batch() };
                match store.commit(batch).await {
                    Ok(_) => kept.push(id),
                    Err(error) => {
                        assert_eq!(error.kind(), Closed, "{error}");
                        return kept;
                    }
                }
                committed.add_permits(1);
                tokio::task::yield_now().await;
            }
        });
    }
    // The store is closed while they write, not before.
    drop(committed.acquire_many(100).await.expect("the semaphore is open"));
    stage.store.close().await.expect("a store closes");
    let mut kept: Vec<Id> = writers.join_all().await.into_iter().flatten().collect();
    stage.reopen().await;
    let mut found: Vec<Id> = stage.events().await.into_iter().map(|event| event.id).collect();
    kept.sort();
    found.sort();
    assert_eq!(found, kept);
}

/// An event comes back as it was given, with its cause and its body byte for byte, also from another opening.
pub async fn events_come_back_as_they_were(stage: &mut Stage) {
    let sent = [
        event("plain", &[]),
        with_everything(),
        with_foreign_names(),
        given::event_of_bytes(EVENT_BYTES_MAX),
    ];
    let batch = Batch { tenant: Some("nörd ✗".into()), ..given::appends(sent.to_vec()) };
    let receipt = stage.commit(batch).await;
    for _ in 0..2 {
        let found = stage.events().await;
        let expected: Vec<Recorded> = sent
            .iter()
            .zip(&receipt.positions)
            .map(|(event, position)| Recorded {
                position: *position,
                id: event.id.clone(),
                name: event.name.clone(),
                version: event.version,
                tags: event.tags.clone(),
                stream_version: (!event.tags.is_empty()).then_some(1),
                recorded_at: receipt.recorded_at,
                tenant_id: Some("nörd ✗".into()),
                cause: event.cause.clone(),
                body: event.body.clone(),
            })
            .collect();
        assert_eq!(found, expected);
        let (view, _) = stage.view(&Query::all()).await;
        assert_eq!(view, expected);
        stage.reopen().await;
    }
}

fn with_everything() -> NewEvent {
    let party = Party {
        address: Address::from(AddressParts {
            service: "Größe.1".into(),
            version: "123456789".into(),
            target: "".into(),
        }),
        instance: Id::parse("instance-✗").ok(),
    };
    let cause = Cause {
        sender: party,
        principal_id: Some("ada@example.com".into()),
        trace_id: foreign("0AF7651916CD43DD8448EB211C80319C"),
        trace: TraceContext::parse(
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
            Some("vendor=1"),
        )
        .map(Box::new),
        correlation_id: Some(foreign(&"x".repeat(128))),
        causation_id: Some(given::id()),
        hops: HOPS_MAX,
    };
    let body = "{ \"b\" :1,\"a\":[ 1.10, 1e3, \"\\u00e4ä\u{1f980}\" ], \"b\":2 }\n".into();
    NewEvent {
        version: u32::MAX,
        body,
        cause,
        ..event("full", &[("user", "ada"), ("user", "ada"), ("", "")])
    }
}

fn with_foreign_names() -> NewEvent {
    let long = "ä".repeat(64);
    let tags =
        [(long.as_str(), "✗ \u{1f980}"), ("'; DROP TABLE events; --", "\\ \" ' % _ \n\t"), ("e\u{301}", "é")];
    NewEvent { id: foreign("Ünïcode ✗ id"), ..event(&"n".repeat(128), &tags) }
}

fn foreign(text: &str) -> Id {
    Id::parse(text).expect("it is printable and short enough")
}

/// Names of 128 bytes, of any script, name what they name and nothing else: two that differ in one character, in case,
/// or only in how an accent is written, are two.
pub async fn names_of_any_script_are_told_apart(stage: &mut Stage) {
    let long = "ä".repeat(64);
    let names = ["é", "e\u{301}", "É", "ß", "ss", "ı", "i", "I", "ﬁ", "fi", "１", "1", "", " "];
    let names = names.iter().map(|name| (*name).to_owned()).chain([long.clone(), format!("{long}b")]);
    let names: Vec<String> = names.collect();
    for (number, name) in names.iter().enumerate() {
        let batch = Batch {
            id: foreign(&format!("batch {name}").replace(&long, "long")),
            appends: vec![Append {
                events: vec![event("named", &[("name", name)])],
                condition: stream("name", name, 0),
            }],
            consumed: Some((
                given::subscription(),
                foreign(&format!("message {name}").replace(&long, "long")),
            )),
            ..given::batch()
        };
        assert!(!stage.commit(batch).await.is_repeated, "{name:?}");
        let (found, _) = stage.view(&Query::tag("name", name.as_str())).await;
        assert_eq!((found.len(), stage.events().await.len()), (1, number + 1), "{name:?}");
    }
    let upper = foreign("0AF7651916CD43DD8448EB211C80319C");
    let own = foreign("0af7651916cd43dd8448eb211c80319c");
    for id in [upper, own] {
        assert!(!stage.commit(Batch { id, ..given::batch() }).await.is_repeated);
    }
}
