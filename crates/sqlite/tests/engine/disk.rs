//! A disk that fails or is full.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use crate::folder::Folder;
use crate::workload::{self, Said};

const TASKS: usize = 16;

/// Runs a writer whose syncs fail from the N-th of a thread on.
fn with_failing_sync(file: &Path, tasks: usize, fault: &str) -> Said {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null"]).arg(format!("-einject={fault}"));
    command.arg(workload::program()).args(workload::arguments(file, tasks, 40));
    workload::run(&mut command)
}

#[test]
#[ignore = "needs strace: cargo xtask test"]
fn after_a_failed_sync_nothing_is_acknowledged() {
    // The syncs of the writer's thread are counted by themselves: the first is that of its first group.
    for at in 1..=8 {
        for tasks in [1, TASKS] {
            let folder = Folder::new();
            // A file that is there, so that opening it syncs little.
            workload::verify(&folder.file(), 0, &Said::default().acknowledged);
            let said =
                with_failing_sync(&folder.file(), tasks, &format!("fsync,fdatasync:error=EIO:when={at}"));
            if said.failures.is_empty() && said.count == 0 {
                // It failed as early as in the opening.
                assert!(!said.is_unharmed);
                continue;
            }
            assert!(said.is_poisoned, "sync {at} failed, and {said:?}");
            assert_eq!(said.failures.len(), tasks, "every task ends");
            assert!(said.failures.iter().all(|kind| kind == "Unknown" || kind == "Closed"), "{said:?}");
            assert!(said.failures.iter().any(|kind| kind == "Unknown"), "{said:?}");
            // Of many tasks one may say late that it was acknowledged before; of one it is plain to see.
            assert!(tasks > 1 || !said.is_acknowledged_after_failure);
            workload::verify(&folder.file(), tasks, &said.acknowledged);
        }
    }
}

#[test]
#[ignore = "needs strace: cargo xtask test"]
fn after_a_failed_write_nothing_is_acknowledged() {
    for at in [1, 2, 3, 5, 9, 30, 100] {
        let folder = Folder::new();
        workload::verify(&folder.file(), 0, &Said::default().acknowledged);
        let said = with_failing_sync(&folder.file(), 1, &format!("pwrite64:error=EIO:when={at}"));
        if said.failures.is_empty() && said.count == 0 {
            assert!(!said.is_unharmed);
            continue;
        }
        assert!(said.is_poisoned && !said.is_acknowledged_after_failure, "write {at} failed, and {said:?}");
        workload::verify(&folder.file(), 1, &said.acknowledged);
    }
}

/// The largest file that the writer may make, in units of 1,024 bytes: a disk that is full, for everybody.
fn with_little_space(file: &Path, kib: usize) -> Said {
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("trap '' XFSZ; ulimit -f {kib}; exec \"$0\" \"$@\""));
    command.arg(workload::program()).args(workload::arguments(file, TASKS, 0));
    // A shell whose limit counts in 512 bytes allows half of it: no matter.
    command.process_group(0);
    workload::run(&mut command)
}

#[test]
fn a_file_that_may_not_grow_leaves_nothing_in_part() {
    for kib in [600, 1_000, 2_500] {
        let folder = Folder::new();
        let said = with_little_space(&folder.file(), kib);
        assert!(said.is_poisoned, "{said:?}");
        assert_eq!(said.failures.len(), TASKS);
        assert!(said.count > 0, "{kib} KiB were not enough for one batch");
        // With space again it goes on.
        workload::verify(&folder.file(), TASKS, &said.acknowledged);
    }
}

/// A file system of this size in memory. It needs the right to mount.
struct SmallDisk(Folder);

impl SmallDisk {
    fn new(size: &str) -> Self {
        let folder = Folder::new();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(folder.path());
        assert!(mount.status().unwrap().success(), "mounting needs root");
        Self(folder)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

#[test]
#[ignore = "needs the right to mount: cargo xtask test"]
fn a_full_disk_refuses_and_works_again_with_space() {
    let disk = SmallDisk::new("4m");
    let file = disk.0.file();
    let filler = disk.0.path().join("filler");
    std::fs::write(&filler, vec![7; 1024 * 1024]).unwrap();
    let said = workload::run(Command::new(workload::program()).args(workload::arguments(&file, TASKS, 0)));
    assert!(said.is_poisoned && said.count > 0, "{said:?}");
    assert_eq!(said.failures.len(), TASKS);
    let known = ["NoSpace", "Closed"];
    assert!(said.failures.iter().all(|kind| known.contains(&kind.as_str())), "{said:?}");
    assert!(said.failures.iter().any(|kind| kind == "NoSpace"), "{said:?}");
    std::fs::remove_file(&filler).unwrap();
    workload::verify(&file, TASKS, &said.acknowledged);
}
