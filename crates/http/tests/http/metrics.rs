//! Figures for Prometheus: of everybody, whatever his name, and only where the gateway was told to show them.

use std::time::Duration;

use purista_core::lag::{FollowerKind, FollowerLag, Holder, Lags, Measured, PutAside};

use crate::support::{Builder, gateway};

fn lag(kind: FollowerKind, name: &str, events: u64) -> FollowerLag {
    FollowerLag {
        kind,
        name: name.to_owned(),
        events,
        is_at_least: events >= 10_000,
        behind: Duration::from_millis(1_500) * u32::from(events > 0),
        per_second: 0.5,
        caught_up_in: (events < 10_000).then_some(Duration::from_secs(events)),
    }
}

fn told(found: Option<Vec<FollowerLag>>) -> Builder {
    measured(found.map(|followers| Measured { followers, ..Measured::default() }))
}

fn measured(found: Option<Measured>) -> Builder {
    let mut builder = Builder::new();
    builder.lags = Lags::new(move || {
        let found = found.clone();
        Box::pin(async { found })
    });
    builder
}

#[tokio::test]
async fn everybody_is_told_in_the_form_that_prometheus_reads() {
    let lags = vec![
        lag(FollowerKind::Projection, "names 1", 0),
        lag(FollowerKind::Subscription, "Email.1.welcome", 3),
        lag(FollowerKind::Relay, "purista.relay", 10_000),
        lag(FollowerKind::Rebuild, "a\\b\"c\nd{e}", 1),
    ];
    let open = told(Some(lags)).open(gateway().metrics()).await;
    let reply = open.get("/metrics").await;
    assert_eq!(
        (reply.status, reply.header("content-type")),
        (200, Some("text/plain; version=0.0.4; charset=utf-8"))
    );
    let text = String::from_utf8(reply.body.clone()).unwrap();
    let of = |metric: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| line.starts_with(&format!("{metric}{{")));
        lines.map(|line| line.strip_prefix(metric).unwrap().to_owned()).collect()
    };
    assert_eq!(
        of("purista_lag_events"),
        [
            "{kind=\"projection\",name=\"names 1\"} 0",
            "{kind=\"subscription\",name=\"Email.1.welcome\"} 3",
            "{kind=\"relay\",name=\"purista.relay\"} 10000",
            "{kind=\"rebuild\",name=\"a\\\\b\\\"c\\nd{e}\"} 1",
        ]
    );
    assert!(of("purista_lag_seconds")[1].ends_with(" 1.5"), "{text}");
    assert!(of("purista_lag_is_at_least")[2].ends_with(" 1"), "{text}");
    assert!(of("purista_lag_events_per_second")[0].ends_with(" 0.5"), "{text}");
    let ends: Vec<_> = of("purista_lag_caught_up_in_seconds");
    assert_eq!(ends.len(), 3, "what cannot be said is missing: {text}");
    // Each metric is described once, before its samples, and each line is of one of the three forms.
    for metric in ["purista_lag_events", "purista_lag_seconds"] {
        assert_eq!(text.matches(&format!("# TYPE {metric} gauge\n")).count(), 1);
    }
    assert!(text.ends_with('\n'));
    assert!(text.lines().all(|line| line.starts_with("# HELP ")
        || line.starts_with("# TYPE ")
        || line.starts_with("purista_")));
}

#[tokio::test]
async fn who_holds_everybody_back_is_named_with_the_age_of_his_transaction() {
    let holder = Holder {
        pid: 17,
        application: "psql of \"ada\"".to_owned(),
        database: "app".to_owned(),
        state: "idle in transaction".to_owned(),
        age: Duration::from_millis(62_500),
        ..Holder::default()
    };
    let prepared = Holder { pid: 0, prepared: Some("of 2".to_owned()), ..holder.clone() };
    let found = Measured { holders: vec![holder, prepared], ..Measured::default() };
    let open = measured(Some(found)).open(gateway().metrics()).await;
    let text = String::from_utf8(open.get("/metrics").await.body).unwrap();
    let line = "purista_held_back_seconds{pid=\"17\",application=\"psql of \\\"ada\\\"\",database=\"app\",state=\"idle in transaction\"} 62.5\n";
    assert!(text.contains(line), "{text}");
    assert!(text.contains("purista_held_back_seconds{prepared=\"of 2\",application="), "{text}");
}

#[tokio::test]
async fn what_is_put_aside_is_counted_for_each_subscription() {
    let aside =
        |name: &str, dead_letters, deferred| PutAside { name: name.to_owned(), dead_letters, deferred };
    let put_aside = vec![aside("Email.1.send", 2, 7), aside("purista.relay", 1, 0)];
    let found = Measured { put_aside, ..Measured::default() };
    let open = measured(Some(found)).open(gateway().metrics()).await;
    let text = String::from_utf8(open.get("/metrics").await.body).unwrap();
    for line in [
        "purista_dead_letters{name=\"Email.1.send\"} 2\n",
        "purista_dead_letters{name=\"purista.relay\"} 1\n",
        "purista_deferred_events{name=\"Email.1.send\"} 7\n",
    ] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
}

#[tokio::test]
async fn they_are_shown_only_where_the_gateway_was_told_to() {
    let open = told(Some(vec![lag(FollowerKind::Relay, "purista.relay", 1)])).open(gateway()).await;
    open.get("/metrics").await.problem(404);
    let shown = gateway().metrics().page("/metrics", "text/plain", "x");
    let refusal = Builder::new().try_open(shown).await.err().unwrap().to_string();
    assert!(refusal.contains("/metrics of a page") && refusal.contains("taken by the metrics"), "{refusal}");
}

#[tokio::test]
async fn a_store_that_does_not_tell_is_503() {
    let open = told(None).open(gateway().metrics()).await;
    open.get("/metrics").await.problem(503);
    assert_eq!(open.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn nobody_behind_a_log_is_no_line_but_the_descriptions() {
    let open = Builder::new().open(gateway().metrics()).await;
    let text = String::from_utf8(open.get("/metrics").await.body).unwrap();
    assert!(text.lines().all(|line| line.starts_with("# ")), "{text}");
    assert_eq!(open.ask("POST /metrics", &[], "").await.status, 405);
}
