//! Where a server keeps its data.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

static FOLDERS: AtomicU32 = AtomicU32::new(0);

/// Makes a folder that no other server has.
pub(crate) fn fresh(server: &str) -> PathBuf {
    let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("purista-{server}-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("the folder for temporary files takes one more");
    folder
}
