//! What cargo knows about the workspace: its packages, their targets and their declared dependencies.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::process;

/// The part of `cargo metadata` that the checks read.
#[derive(Debug, Deserialize)]
pub(crate) struct Workspace {
    pub(crate) packages: Vec<Package>,
    pub(crate) target_directory: PathBuf,
}

/// A member of the workspace.
#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) dependencies: Vec<Dependency>,
    #[serde(default)]
    pub(crate) targets: Vec<Target>,
}

/// A dependency as a manifest declares it.
#[derive(Debug, Deserialize)]
pub(crate) struct Dependency {
    /// The package's real name, also where the manifest renames it.
    pub(crate) name: String,
    #[serde(default)]
    kind: Option<String>,
}

/// A library, program or test of a package.
#[derive(Debug, Deserialize)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) kind: Vec<String>,
}

impl Workspace {
    /// Asks cargo about the workspace in `root`; its dependencies are not resolved, so this needs no network.
    pub(crate) fn load(root: &Path) -> Result<Self> {
        let mut command = process::cargo(root);
        command.args(["metadata", "--format-version", "1", "--no-deps"]);
        Self::parse(&process::output(&mut command)?)
    }

    /// Reads what `cargo metadata` printed.
    pub(crate) fn parse(json: &str) -> Result<Self> {
        serde_json::from_str(json).context("read the output of `cargo metadata`")
    }
}

impl Package {
    /// Whether the package has a library, and so doc-tests.
    pub(crate) fn has_library(&self) -> bool {
        self.targets.iter().any(|target| target.kind.iter().any(|kind| kind == "lib" || kind == "rlib"))
    }

    /// Whether the package builds a program of this name.
    pub(crate) fn has_program(&self, name: &str) -> bool {
        self.targets.iter().any(|target| target.name == name && target.kind.iter().any(|kind| kind == "bin"))
    }
}

impl Dependency {
    /// Whether only tests, examples and benches see it.
    pub(crate) fn is_for_tests(&self) -> bool {
        self.kind.as_deref() == Some("dev")
    }
}

/// The folder of the workspace.
pub(crate) fn root() -> PathBuf {
    // Asked of the environment first: a program built in one checkout may be started by the cargo of another
    // when both share a target folder.
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest.parent().map_or_else(|| manifest.clone(), Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_programs_and_dev_dependencies_are_told_apart() {
        let json = r#"{"target_directory": "/t", "packages": [{
            "name": "a",
            "dependencies": [{"name": "b", "kind": null}, {"name": "c", "kind": "dev"}],
            "targets": [{"name": "a", "kind": ["lib"]}, {"name": "tool", "kind": ["bin"]}]
        }]}"#;
        let workspace = Workspace::parse(json).unwrap();
        let package = &workspace.packages[0];
        assert!(package.has_library());
        assert!(package.has_program("tool"));
        assert!(!package.has_program("a"));
        assert_eq!(
            package.dependencies.iter().map(Dependency::is_for_tests).collect::<Vec<_>>(),
            [false, true]
        );
    }

    #[test]
    fn the_root_holds_the_workspace_manifest() {
        let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
        assert!(manifest.contains("[workspace]"));
    }
}
