//! The suite is worth what it notices: for each duty there is an engine that is wrong in one way, and the duty must fail on
//! it. An engine that is wrong in no way passes, so that it is the fault that is noticed.
#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

use std::future::{Future, ready};
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;
use purista_conformance::{read_models, store};

mod commits;
mod faulty;
mod horizon;
mod keeping;
mod logs;
mod tables;
mod way;

use faulty::System;
use way::{Fault, Way};

const DOCS: &str = include_str!("../../../../docs/adding-a-store.md");

fn faults() -> impl Iterator<Item = &'static Fault> {
    [commits::FAULTS, logs::FAULTS, keeping::FAULTS, tables::FAULTS].into_iter().flatten()
}

/// The fault that this duty guards against.
fn against(duty: &str) -> &'static Fault {
    let found = faults().find(|fault| fault.duty == duty);
    found
        .unwrap_or_else(|| panic!("no fault is known that {duty} notices: add one to the lists of this test"))
}

async fn is_noticed(fault: &Fault, played: impl Future<Output = ()>) {
    let Fault { duty, wrong, .. } = fault;
    let Err(panic) = AssertUnwindSafe(played).catch_unwind().await else {
        panic!("{duty} passes on an engine where {wrong}");
    };
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default();
    println!("{duty}, where {wrong}: {text}");
    assert!(!text.contains("a duty ends in time"), "{duty} hangs where {wrong}");
}

macro_rules! noticed {
    (read_models $duty:ident) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $duty() {
            let fault = against(stringify!($duty));
            is_noticed(fault, read_models::$duty(System::new((fault.way)()))).await;
        }
    };
    ($module:ident $duty:ident) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
        async fn $duty() {
            let fault = against(stringify!($duty));
            let system = || ready(System::new((fault.way)()));
            is_noticed(fault, store::run(system, |stage| Box::pin(store::$module::$duty(stage)))).await;
        }
    };
}

purista_conformance::store_suite!(each = noticed);
purista_conformance::read_model_suite!(each = noticed);

mod without_a_fault {
    use super::*;

    purista_conformance::store_suite!(ready(System::new(Way::Right)));
    purista_conformance::read_model_suite!(System::new(Way::Right));
}

#[test]
fn every_fault_is_of_a_duty_and_there_is_one_for_each() {
    let mut duties: Vec<&str> = Vec::new();
    macro_rules! named {
        ($module:ident $duty:ident) => {
            duties.push(stringify!($duty));
        };
    }
    purista_conformance::store_suite!(each = named);
    purista_conformance::read_model_suite!(each = named);
    let mut named: Vec<&str> = faults().map(|fault| fault.duty).collect();
    duties.sort_unstable();
    named.sort_unstable();
    assert_eq!(named, duties);
}

#[test]
fn the_docs_list_every_fault() {
    let rows = faults().map(|fault| format!("| `{}` | {} |", fault.duty, fault.wrong));
    let listed: Vec<&str> = DOCS.lines().filter(|line| line.starts_with("| `")).collect();
    assert_eq!(
        listed,
        rows.collect::<Vec<_>>(),
        "the table of docs/adding-a-store.md is not that of this test"
    );
}
