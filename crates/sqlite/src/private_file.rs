//! Files that belong to the user of the process, and names that survive a crash of the machine.

use std::fs;
use std::path::Path;

/// Opens files that only the user of the process may read and write. Set what it is opened for.
pub(crate) fn private() -> fs::OpenOptions {
    #[cfg_attr(not(unix), expect(unused_mut, reason = "there are no modes"))]
    let mut options = fs::OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// A new name in a folder survives a crash of the machine only when the folder itself is flushed.
pub(crate) fn sync_folder(folder: &Path) -> std::io::Result<()> {
    if cfg!(unix) { fs::File::open(folder)?.sync_all() } else { Ok(()) }
}
