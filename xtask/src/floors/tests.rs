//! The table is sound in itself, and breaking it is noticed, with made-up manifests.

use super::*;

/// Packages as `cargo metadata` shows them: a name, and dependencies as `name` or `dev:name`.
fn workspace(packages: &[(&str, &[&str])]) -> Vec<Package> {
    let packages: Vec<_> = packages
        .iter()
        .map(|(name, dependencies)| {
            let dependencies: Vec<_> = dependencies
                .iter()
                .map(|declared| match declared.split_once(':') {
                    Some((kind, name)) => serde_json::json!({"name": name, "kind": kind}),
                    None => serde_json::json!({"name": declared, "kind": null}),
                })
                .collect();
            serde_json::json!({"name": name, "dependencies": dependencies})
        })
        .collect();
    let json = serde_json::json!({"packages": packages, "target_directory": "/target"});
    Workspace::parse(&json.to_string()).unwrap().packages
}

#[track_caller]
fn check_permitted(name: &str, dependencies: &[&str]) {
    assert_eq!(violations(&workspace(&[(name, dependencies)])), []);
}

#[track_caller]
fn check_refused(name: &str, dependency: &str, why: &str) {
    let findings = violations(&workspace(&[(name, &[dependency])]));
    let [finding] = findings.as_slice() else { panic!("one finding expected, not {findings:?}") };
    let finding = finding.to_string();
    let dependency = dependency.rsplit(':').next().unwrap();
    for part in [name, dependency, why, "Remedy: "] {
        assert!(finding.contains(part), "{part:?} is not in {finding:?}");
    }
}

#[test]
fn the_documented_arrows_are_permitted() {
    check_permitted("purista-core", &["serde", "bytes", "schemars", "garde", "jsonschema", "regex", "jiff"]);
    check_permitted("purista-events", &["purista-core", "tokio", "jiff", "dev:proptest"]);
    check_permitted("purista", &["purista-core", "purista-events", "secrecy", "config", "dev:trybuild"]);
    check_permitted(
        "purista-telemetry",
        &["purista-core", "opentelemetry_sdk", "metrics-exporter-prometheus"],
    );
    check_permitted("purista-http", &["purista-core", "hyper", "hyper-util", "jsonwebtoken", "subtle"]);
    check_permitted("purista-nats", &["purista-core", "async-nats", "dev:purista-conformance"]);
    check_permitted("purista-amqp", &["purista-core", "lapin", "tokio-rustls", "dev:purista-conformance"]);
    check_permitted("purista-sqlite", &["purista-core", "purista-events", "rusqlite", "jiff"]);
    check_permitted("purista-conformance", &["purista-core", "purista-events", "proptest"]);
    check_permitted("sign-up", &["purista", "purista-nats", "purista-sqlite", "lettre"]);
    check_permitted("purista-benches", &["purista", "criterion"]);
    check_permitted("xtask", &["anyhow", "clap", "serde_json"]);
}

#[test]
fn a_crate_does_not_use_a_higher_floor() {
    check_refused("purista-core", "purista-events", "it may use none of our crates");
    check_refused("purista-events", "purista", "it may use only purista-core");
    check_refused(
        "purista-conformance",
        "purista",
        "it may use only purista-core (messages and contracts are its language), purista-events (",
    );
    check_refused("purista-nats", "build:purista-events", "it may use only purista-core");
}

#[test]
fn adapters_use_neither_each_other_nor_the_host_not_even_in_tests() {
    check_refused("purista-nats", "purista", "it may use only purista-core");
    check_refused("purista-http", "purista-nats", "it may use only purista-core");
    check_refused("purista-amqp", "dev:purista-nats", "neither another adapter nor purista");
    check_refused("purista-http", "dev:purista-nats", "neither another adapter nor purista");
    check_refused("purista-sqlite", "dev:purista", "neither another adapter nor purista");
}

#[test]
fn tests_may_use_the_suite_and_crates_below() {
    check_permitted("purista-nats", &["dev:purista-conformance", "dev:purista-events"]);
    check_permitted("purista-core", &["dev:purista-conformance"]);
    check_permitted("purista", &["dev:purista-sqlite"]);
    check_refused(
        "purista",
        "purista-sqlite",
        "it may use only purista-core (messages and contracts are its language), purista-events (",
    );
}

#[test]
fn nothing_depends_on_a_program() {
    check_refused("purista", "dev:sign-up", "nothing depends on a program");
    check_refused("purista", "dev:xtask", "nothing depends on a program");
    check_refused("sign-up", "purista-benches", "it may use only");
}

#[test]
fn a_guest_stays_in_its_room() {
    check_refused(
        "purista-core",
        "axum",
        "it may use only schemars (the schema of a contract comes from its Rust type), garde (",
    );
    check_refused("purista-events", "reqwest", "it may use only jiff");
    check_refused("purista-nats", "jiff", "it may use only async-nats");
    check_refused("purista", "build:cc", "it may use only");
    check_permitted("purista-nats", &["dev:jiff"]);
}

#[test]
fn an_unknown_crate_is_told_where_to_be_added() {
    let findings = violations(&workspace(&[("purista-redis", &["redis"])]));
    let [finding] = findings.as_slice() else { panic!("one finding expected, not {findings:?}") };
    assert_eq!(
        finding.to_string(),
        "xtask/src/floors/table.rs: crate purista-redis has no floor. Remedy: \
         add it to ROOMS in xtask/src/floors/table.rs, with the crates that it may use and why"
    );
}

#[test]
fn a_crate_of_the_workspace_is_ours_even_without_a_floor() {
    let packages = workspace(&[("purista", &["purista-redis"]), ("purista-redis", &[])]);
    let findings = violations(&packages);
    assert!(findings.iter().any(|finding| finding.to_string().contains("it may use only purista-core")));
}

#[test]
fn arrows_point_down_and_bear_a_reason() {
    for from in &ROOMS {
        for arrow in from.own {
            let target = room(arrow.to).unwrap();
            assert!(target.floor < from.floor, "{} → {} does not point down", from.name, arrow.to);
            assert!(!arrow.because.is_empty());
        }
        if let Guests::Only(guests) = from.guests {
            assert!(guests.iter().all(|guest| !guest.because.is_empty()));
        }
    }
}
