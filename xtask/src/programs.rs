//! The programs that the tests run against, and how a missing one is installed.
//!
//! A test that needs a broker or a browser must not pass by skipping itself, so the test command sees to it
//! that they are there. What it cannot install itself it asks for, with the line to type.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::process;

/// A program that some test or check cannot do without.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Need {
    program: &'static str,
    /// The Debian package that brings it.
    package: &'static str,
    because: &'static str,
}

pub(crate) const VALGRIND: Need =
    Need { program: "valgrind", package: "valgrind", because: "counts the instructions of a command" };

/// What `cargo xtask test` needs.
pub(crate) const OF_THE_TESTS: [Need; 12] = [
    Need {
        program: "nats-server",
        package: "nats-server",
        because: "the NATS bridge is tested against a real server",
    },
    Need {
        program: "mosquitto",
        package: "mosquitto",
        because: "the MQTT bridge is tested against a real broker",
    },
    Need {
        program: "rabbitmq-server",
        package: "rabbitmq-server",
        because: "the AMQP bridge is tested against a real broker",
    },
    // Its server's programs are on nobody's path; this one comes with them.
    Need {
        program: "pg_ctlcluster",
        package: "postgresql",
        because: "the store for several processes is tested against a real server",
    },
    Need {
        program: "pgbouncer",
        package: "pgbouncer",
        because: "a store behind a pool of sessions is tested against a real one",
    },
    Need { program: "openssl", package: "openssl", because: "makes certificates for the tests of TLS" },
    Need { program: "chromium", package: "chromium", because: "the example's pages are tested in a browser" },
    Need { program: "strace", package: "strace", because: "durability tests watch the store's system calls" },
    Need { program: "wrk", package: "wrk", because: "a benchmark asks the gateway with it" },
    VALGRIND,
    Need {
        program: "curl",
        package: "curl",
        because: "the gateway is tested with somebody else's HTTP client",
    },
    Need {
        program: "python3",
        package: "python3",
        because: "runs the SMTP server, the OpenAPI validator and the plain clients of brokers",
    },
];

/// Folders of servers that are not on every user's `PATH`.
const ALSO_LOOKED_AT: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// How this user may install packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Privilege {
    Root,
    Sudo,
    /// Only after typing a password, which nobody is there to type.
    None,
    /// There is no `apt-get` here.
    NoApt,
}

/// Installs whichever of these programs is missing.
pub(crate) fn provide(root: &Path, needs: &[Need]) -> Result<()> {
    let missing: Vec<Need> = needs.iter().copied().filter(|need| find(need.program).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for need in &missing {
        println!("{} is missing: {}", need.program, need.because);
    }
    let packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
    install(root, &packages)?;
    match missing.iter().find(|need| find(need.program).is_none()) {
        Some(need) => bail!("package {} is installed, but brought no program {}", need.package, need.program),
        None => Ok(()),
    }
}

/// Installs Debian packages, or says what the user has to type.
pub(crate) fn install(root: &Path, packages: &[&str]) -> Result<()> {
    let privilege = privilege(root);
    let by_hand = by_hand(privilege, packages);
    for mut command in installation(root, privilege, packages).with_context(|| by_hand.clone())? {
        process::run(&mut command).with_context(|| by_hand.clone())?;
    }
    Ok(())
}

/// Where a program is, if it is anywhere on the search path.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&search_path()).map(|folder| folder.join(program)).find(|file| is_executable(file))
}

/// The `PATH` that the tests are given: the user's, and the folders of servers behind it.
pub(crate) fn search_path() -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    extended(&path)
}

fn extended(path: &OsStr) -> OsString {
    let mut folders: Vec<PathBuf> = std::env::split_paths(path).collect();
    for folder in ALSO_LOOKED_AT {
        if !folders.iter().any(|known| known == Path::new(folder)) {
            folders.push(folder.into());
        }
    }
    std::env::join_paths(folders).unwrap_or_else(|_| path.to_owned())
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

fn privilege(root: &Path) -> Privilege {
    if find("apt-get").is_none() {
        return Privilege::NoApt;
    }
    let user = process::output(process::program("id", root).arg("-u")).unwrap_or_default();
    if user.trim() == "0" {
        Privilege::Root
    } else if process::succeeds(process::program("sudo", root).args(["-n", "true"])) {
        Privilege::Sudo
    } else {
        Privilege::None
    }
}

/// The commands that install `packages`, in order.
fn installation(root: &Path, privilege: Privilege, packages: &[&str]) -> Result<Vec<Command>> {
    let apt = |arguments: &[&str]| {
        let mut command = match privilege {
            Privilege::Sudo => process::program("sudo", root),
            _ => process::program("env", root),
        };
        if privilege == Privilege::Sudo {
            command.args(["-n", "env"]);
        }
        command
            .args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-o", "Acquire::Retries=3"])
            .args(arguments);
        command
    };
    match privilege {
        Privilege::NoApt => bail!("there is no apt-get here"),
        Privilege::None => bail!("not root, and sudo asks for a password"),
        Privilege::Root | Privilege::Sudo => {
            let mut install = vec!["install", "-y", "--no-install-recommends"];
            install.extend(packages);
            Ok(vec![apt(&["update"]), apt(&install)])
        }
    }
}

/// What the user has to do where we cannot.
fn by_hand(privilege: Privilege, packages: &[&str]) -> String {
    let packages = packages.join(" ");
    let install = |sudo: &str| {
        format!(
            "install the missing programs with `{sudo}apt-get update && \
             {sudo}apt-get install -y --no-install-recommends {packages}`, then try again"
        )
    };
    match privilege {
        Privilege::NoApt => format!(
            "install the missing programs with this system's package manager (Debian calls the packages: {packages}), then try again"
        ),
        Privilege::Root => install(""),
        Privilege::Sudo | Privilege::None => install("sudo "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(privilege: Privilege) -> Vec<String> {
        let commands = installation(Path::new("."), privilege, &["strace", "curl"]).unwrap();
        commands.iter().map(process::line).collect()
    }

    #[test]
    fn the_package_lists_are_fetched_once_then_all_packages_are_installed() {
        let apt = "env DEBIAN_FRONTEND=noninteractive apt-get -o Acquire::Retries=3";
        assert_eq!(
            lines(Privilege::Root),
            [format!("{apt} update"), format!("{apt} install -y --no-install-recommends strace curl")]
        );
        assert!(lines(Privilege::Sudo).iter().all(|line| line.starts_with("sudo -n env ")));
    }

    #[test]
    fn without_privilege_nothing_is_run_and_the_line_to_type_is_told() {
        assert!(installation(Path::new("."), Privilege::None, &["curl"]).is_err());
        assert!(installation(Path::new("."), Privilege::NoApt, &["curl"]).is_err());
        let told = by_hand(Privilege::None, &["strace", "curl"]);
        assert!(told.contains(
            "`sudo apt-get update && sudo apt-get install -y --no-install-recommends strace curl`"
        ));
        assert!(by_hand(Privilege::Root, &["curl"]).contains("`apt-get update && apt-get install"));
    }

    #[test]
    fn the_folders_of_servers_are_searched_last_and_once() {
        assert_eq!(
            extended(OsStr::new("/usr/bin:/usr/sbin")),
            OsString::from("/usr/bin:/usr/sbin:/usr/local/sbin:/sbin")
        );
    }

    #[test]
    fn a_folder_is_no_program() {
        assert!(is_executable(Path::new("/bin/sh")));
        assert!(!is_executable(Path::new("/bin")));
        assert!(!is_executable(Path::new("/no/such/file")));
    }
}
