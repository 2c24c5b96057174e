//! `cargo xtask floors`: crates use only what the table of floors permits.
//!
//! Without a test a layered house becomes a tangle one convenient import at a time. The table says what is
//! permitted and why; this file compares it with the manifests, and [`imports`] with the sources.

mod table;
#[cfg(test)]
mod tests;

use std::path::Path;

use anyhow::Result;

use crate::finding::{self, Finding, counted};
use crate::metadata::{Dependency, Package, Workspace};
use crate::{imports, source};

use table::{Arrow, EVERYWHERE, Floor, Guests, ROOMS, Room};

const TABLE: &str = "xtask/src/floors/table.rs";
/// The suite that every adapter's tests run.
const SUITE: &str = "purista-conformance";
/// The crate of services and their host.
const HOST: &str = "purista";

/// Checks the manifests of the workspace and the imports of its crates.
pub(crate) fn check(root: &Path) -> Result<()> {
    let workspace = Workspace::load(root)?;
    let sources = source::sources(root)?;
    let mut findings = violations(&workspace.packages);
    findings.extend(imports::from_the_crate_root(&sources));
    finding::conclude("floors", &counted(workspace.packages.len(), "crate"), &findings)
}

/// Every dependency that the table does not permit.
fn violations(packages: &[Package]) -> Vec<Finding> {
    let is_ours = |name: &str| {
        packages.iter().any(|package| package.name == name) || ROOMS.iter().any(|room| room.name == name)
    };
    let mut findings = Vec::new();
    for package in packages {
        let Some(room) = room(&package.name) else {
            findings.push(Finding::in_file(
                TABLE,
                format!("crate {} has no floor", package.name),
                format!("add it to ROOMS in {TABLE}, with the crates that it may use and why"),
            ));
            continue;
        };
        for dependency in &package.dependencies {
            let refusal = if is_ours(&dependency.name) {
                refusal_of_own(room, dependency)
            } else {
                refusal_of_guest(room, dependency)
            };
            findings.extend(refusal.map(|why| finding(room, dependency, &why)));
        }
    }
    findings
}

fn room(name: &str) -> Option<&'static Room> {
    ROOMS.iter().find(|room| room.name == name)
}

/// Why a crate may not use another of ours, if it may not.
fn refusal_of_own(room: &Room, dependency: &Dependency) -> Option<String> {
    let name = dependency.name.as_str();
    if permits(room.own, name) {
        return None;
    }
    if !dependency.is_for_tests() {
        return Some(match room.own {
            [] => "it may use none of our crates".to_owned(),
            own => format!("it may use only {}", listed(own)),
        });
    }
    let is_other_adapter = self::room(name).is_some_and(|other| other.is_adapter);
    if room.is_adapter && name != SUITE && (is_other_adapter || name == HOST) {
        return Some(format!("an adapter's tests use neither another adapter nor {HOST}, only {SUITE}"));
    }
    // What is shown or measured is at the top of the house, also for tests.
    let is_application = self::room(name)
        .is_some_and(|other| other.floor == Floor::Apart || matches!(other.guests, Guests::Any));
    is_application.then(|| "nothing depends on a program".to_owned())
}

/// Why a crate may not use somebody else's, if it may not.
fn refusal_of_guest(room: &Room, dependency: &Dependency) -> Option<String> {
    let name = dependency.name.as_str();
    match room.guests {
        _ if dependency.is_for_tests() || EVERYWHERE.contains(&name) => None,
        Guests::Any => None,
        Guests::Only(guests) if permits(guests, name) => None,
        Guests::Only([]) => Some("beyond the guests of every room it has none".to_owned()),
        Guests::Only(guests) => {
            Some(format!("beyond the guests of every room it may use only {}", listed(guests)))
        }
    }
}

fn finding(room: &Room, dependency: &Dependency, why: &str) -> Finding {
    let kind = if dependency.is_for_tests() { "dev-dependencies" } else { "dependencies" };
    Finding::in_file(
        TABLE,
        format!("crate {} has {} among its {kind}, but {why}", room.name, dependency.name),
        format!(
            "take {} out of the manifest of {}; or, if it is to stay, give it a line with its reason in ROOMS, in a commit of its own",
            dependency.name, room.name
        ),
    )
}

fn permits(arrows: &[Arrow], name: &str) -> bool {
    arrows.iter().any(|arrow| match arrow.to.strip_suffix('*') {
        Some(family) => name.starts_with(family),
        None => name == arrow.to,
    })
}

fn listed(arrows: &[Arrow]) -> String {
    arrows.iter().map(|arrow| format!("{} ({})", arrow.to, arrow.because)).collect::<Vec<_>>().join(", ")
}
