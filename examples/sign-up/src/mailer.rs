//! Where mails go: into a folder, to be looked at, or to a mail server.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use lettre::Message;
use lettre::message::Mailbox;
use purista::HandlerError;

use crate::smtp::SmtpServer;

/// Sends mails from one address.
pub(crate) struct Mailer {
    from: Mailbox,
    way: Way,
}

enum Way {
    Folder(PathBuf),
    Smtp(SmtpServer),
}

impl Mailer {
    /// Writes each mail as a file, which mail programs open.
    pub(crate) fn into_folder(folder: PathBuf, from: Mailbox) -> anyhow::Result<Self> {
        fs::create_dir_all(&folder).with_context(|| format!("make the folder `{}`", folder.display()))?;
        Ok(Self { from, way: Way::Folder(folder) })
    }

    /// Hands each mail to a server. The URL may hold a password, so no error repeats it.
    pub(crate) fn over_smtp(url: &str, from: Mailbox) -> anyhow::Result<Self> {
        const FORM: &str = "write it as smtp://host:port, or smtps://user:password@host";
        let host = url.split_once("://").map_or(url, |(_, rest)| rest);
        if url.starts_with("smtp://") && host.contains('@') && !url.contains("tls=required") {
            bail!("--smtp would send its password unencrypted: write smtps://.., or add ?tls=required");
        }
        let smtp = SmtpServer::from_url(url)
            .with_context(|| format!("--smtp is no URL of a mail server: {FORM}"))?;
        Ok(Self { from, way: Way::Smtp(smtp) })
    }

    /// From whom mails are.
    pub(crate) fn from(&self) -> &Mailbox {
        &self.from
    }

    /// The name by which mail programs know a mail again.
    pub(crate) fn message_id(&self, id: &str) -> String {
        format!("<{id}@{}>", self.from.email.domain())
    }

    /// Sends a mail; the same `id` is the same mail.
    pub(crate) async fn send(&self, id: &str, mail: Message) -> Result<(), HandlerError> {
        match &self.way {
            Way::Folder(folder) => {
                let (folder, id) = (folder.clone(), id.to_owned());
                tokio::task::spawn_blocking(move || write(&folder, &id, &mail.formatted())).await??;
                Ok(())
            }
            Way::Smtp(smtp) => smtp.send(&mail).await,
        }
    }
}

/// Writes a file that is there as a whole or not at all, also after a crash.
fn write(folder: &Path, id: &str, mail: &[u8]) -> io::Result<()> {
    // An id of a peer may be any text, a path for one.
    let name = id.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    let unfinished = folder.join(format!(".{name}.unfinished"));
    let mut file = File::create(&unfinished)?;
    file.write_all(mail)?;
    file.sync_all()?;
    fs::rename(&unfinished, folder.join(format!("{name}.eml")))?;
    // The new name lasts only when the folder is flushed, too; Windows has no such call.
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

impl fmt::Display for Mailer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.way {
            Way::Folder(folder) => write!(f, "{} (one .eml file each)", folder.display()),
            Way::Smtp(_) => f.write_str("by SMTP"),
        }
    }
}
