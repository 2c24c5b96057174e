//! The mails in a folder.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use std::time::Duration;

use crate::server::Folder;

/// A mail as it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mail {
    head: String,
    pub(crate) body: String,
}

impl Mail {
    pub(crate) fn parse(text: &str) -> Self {
        let text = text.replace("\r\n", "\n");
        let (head, body) = text.split_once("\n\n").unwrap_or((&text, ""));
        // A long header goes on in the next line.
        Self { head: head.replace("\n ", " "), body: body.to_owned() }
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value)
    }

    /// The address alone.
    pub(crate) fn to(&self) -> &str {
        let to = self.header("to");
        to.rsplit_once('<').map_or(to, |(_, address)| address.trim_end_matches('>'))
    }
}

/// What is there now.
pub(crate) fn all(folder: &Folder) -> Vec<Mail> {
    files(folder).iter().map(|path| read(path)).collect()
}

/// Those that are finished.
fn files(folder: &Folder) -> Vec<PathBuf> {
    let files = fs::read_dir(folder.mails()).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|ending| ending == "eml")).collect()
}

fn read(path: &Path) -> Mail {
    Mail::parse(&fs::read_to_string(path).unwrap())
}

/// All mails, as soon as there is one to each of these.
pub(crate) async fn until_written(folder: &Folder, to: &[&str]) -> Vec<Mail> {
    let mut missing: HashSet<&str> = to.iter().copied().collect();
    let mut known: HashMap<PathBuf, Mail> = HashMap::new();
    loop {
        for path in files(folder) {
            let mail = known.entry(path).or_insert_with_key(|path| read(path));
            missing.remove(mail.to());
        }
        if missing.is_empty() {
            return known.into_values().collect();
        }
        let pause =
            Duration::from_millis(20) + Duration::from_micros(10) * u32::try_from(known.len()).unwrap();
        tokio::time::sleep(pause).await; // real time: a folder tells nobody of its new files
    }
}
