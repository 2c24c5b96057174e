//! Duties towards tenants: what belongs to one is not seen, counted or taken by another, nor by what belongs to none.

use purista_core::store::Expect;
use purista_core::text::Text;
use purista_events::batch::{Append, Batch, ReplyKey, StoredReply};
use purista_events::query::Query;
use purista_events::store::StoreErrorKind::{Conflict, KeyTaken, StateConflict};
use serde_json::json;

use super::given::{self, event, set_if, stream};
use super::stage::Stage;

/// Streams, events, state and keys of replies of one name are as many as there are tenants.
pub async fn tenants_see_nothing_of_each_other(stage: &mut Stage) {
    for (number, tenant) in given::tenants().into_iter().enumerate() {
        let events = given::events(number + 1, "moved", &[("user", "ada")]);
        let reply = StoredReply { body: Some(number.to_string().into()), ..given::reply(1) };
        let batch = Batch {
            tenant,
            appends: vec![Append { events, condition: stream("user", "ada", 0) }],
            state: vec![set_if(Expect::Absent, "alpha", json!(number))],
            reply: Some(reply),
            ..given::batch()
        };
        stage.commit(batch).await;
    }
    stage.reopen().await;
    for (number, tenant) in given::tenants().into_iter().enumerate() {
        let scope = tenant.as_deref().map(Text::from);
        let (events, _) = stage.view(&Query::tag("user", "ada").of_tenant(scope)).await;
        assert!(events.iter().all(|event| event.tenant_id == tenant));
        let versions: Vec<_> = events.iter().filter_map(|event| event.stream_version).collect();
        assert_eq!(versions, (1..).take(number + 1).collect::<Vec<u64>>());
        let found = stage.state(tenant.as_deref()).await;
        assert_eq!(found.get("alpha").map(|found| &found.value), Some(&json!(number)));
        let reply = stage.reply(tenant.as_deref(), &given::reply_key(1)).await.expect("it is kept");
        assert_eq!(reply.body, Some(number.to_string().into()));
    }
    let (all, _) = stage.view(&Query::tag("user", "ada")).await;
    assert_eq!(all.len(), 6);
    assert!(stage.state(Some("west")).await.is_empty());
    let (events, _) = stage.view(&Query::all().of_tenant(Some("west".into()))).await;
    assert!(events.is_empty());
}

/// What a tenant may do is decided by what it has itself, and by nothing that another has.
pub async fn tenants_do_not_stand_in_each_others_way(stage: &mut Stage) {
    let batch = |tenant: Option<&str>| Batch {
        tenant: tenant.map(Into::into),
        appends: vec![Append {
            events: vec![event("moved", &[("user", "ada")])],
            condition: stream("user", "ada", 0),
        }],
        ..given::batch()
    };
    let keyed = |tenant: Option<&str>| Batch {
        tenant: tenant.map(Into::into),
        reply: Some(given::reply(1)),
        ..given::batch()
    };
    let valued = |tenant: Option<&str>| Batch {
        tenant: tenant.map(Into::into),
        state: vec![set_if(Expect::Absent, "alpha", json!(1))],
        ..given::batch()
    };
    for tenant in [None, Some("north"), Some("North"), Some("north "), Some("n%"), Some("null"), Some("nörd")]
    {
        stage.commit(batch(tenant)).await;
        stage.commit(keyed(tenant)).await;
        stage.commit(valued(tenant)).await;
        stage.refuse(batch(tenant), Conflict).await;
        stage.refuse(keyed(tenant), KeyTaken).await;
        stage.refuse(valued(tenant), StateConflict).await;
    }
}

/// Names that together read the same are told apart: in tags, in tenants with their keys, in scopes with theirs.
pub async fn names_that_read_the_same_are_told_apart(stage: &mut Stage) {
    for separator in [":", "=", "/", ".", "|", ",", ";", " ", "-", "_", "\u{1}", "\u{1f}", "\n", "'", "\""] {
        let inner = format!("b{separator}c");
        let outer = format!("a{separator}b");
        for (name, value) in [("a", inner.as_str()), (outer.as_str(), "c")] {
            let append =
                Append { events: vec![event("moved", &[(name, value)])], condition: stream(name, value, 0) };
            stage.commit(Batch { appends: vec![append], ..given::batch() }).await;
            let (found, _) = stage.view(&Query::tag(name, value)).await;
            assert_eq!(found.len(), 1, "{name:?} {value:?}");

            let key = ReplyKey { scope: name.into(), key: value.into() };
            let reply = StoredReply { key: key.clone(), ..given::reply(1) };
            stage.commit(Batch { reply: Some(reply), ..given::batch() }).await;
            assert!(stage.reply(None, &key).await.is_some());

            let change = set_if(Expect::Absent, value, json!(1));
            stage.commit(Batch { state: vec![change], ..given::batch_of(name) }).await;
        }
    }
}
