//! A folder that goes away with its test.

use std::path::{Path, PathBuf};

use purista_core::clock::Clock;

pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        let path = std::env::temp_dir().join(format!("purista-sqlite-{}", Clock::system().id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Removes the checksums of pages: the next opening takes the file as it is.
    pub(crate) fn forget_sums(&self) {
        std::fs::remove_file(self.0.join("store.db.sums")).unwrap();
    }

    /// The file of the test's store.
    pub(crate) fn file(&self) -> PathBuf {
        self.0.join("store.db")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
