//! A folder of its own for each round.

use std::path::PathBuf;

use anyhow::Result;

/// A folder of its own, removed with everything in it.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// An empty one.
    pub fn new(name: &str) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("purista-benches-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        Ok(Self(folder))
    }

    /// The file of the store in it.
    pub fn file(&self) -> PathBuf {
        self.0.join("app.db")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What stays behind lies among temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
