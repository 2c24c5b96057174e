//! The command line, and what follows from it.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::ensure;
use clap::Parser;
use lettre::message::Mailbox;

use crate::broker::{Appearance, Broker};
use crate::parts::{Part, Parts};

/// Serves a page where people sign up, and sends each of them a welcome mail.
#[derive(Parser)]
#[command(
    version,
    after_help = "In three processes, over any of the three brokers:\n  \
                  sign-up --run user  --bridge nats://127.0.0.1:4222\n  \
                  sign-up --run email --bridge nats://127.0.0.1:4222\n  \
                  sign-up --run http  --bridge nats://127.0.0.1:4222\n\n\
                  RUST_LOG=debug shows more; PURISTA_LOG_FORMAT=json logs JSON lines.\n\
                  SIGTERM and Ctrl-C finish what is under way; a second one stops at once."
)]
pub(crate) struct Options {
    /// What to run in this process; everything without it
    #[arg(long, value_name = "PARTS", value_delimiter = ',')]
    run: Vec<Part>,
    /// Broker between the parts, as nats://host:port, amqp://host:port or mqtt://host:port; needed when --run leaves a part out
    #[arg(long, value_name = "URL", env = "PURISTA_BRIDGE", hide_env_values = true)]
    bridge: Option<String>,
    /// Name of this process at the broker, unlike that of any other; over MQTT mails wait for it under `sign-up-` and its parts
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Speaks without TLS to a broker on another machine: whoever is in between reads everything, passwords too
    #[arg(long)]
    unencrypted_to_other_machines: bool,
    /// Address and port to serve at; port 0 is any that is free
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:3000")]
    pub(crate) listen: String,
    /// Folder for accounts, events and mails, used by one process at a time and made when it is missing; ./data, or ./data/PARTS
    /// with --run. The part http keeps nothing
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// Database for accounts and events instead of the folder, as postgres://user:password@host/database; mails go on as before
    #[arg(long, value_name = "URL", env = "PURISTA_STORE", hide_env_values = true)]
    store: Option<String>,
    /// Keeps nothing in this process but mails: accounts end with it, and what waits is with the broker
    #[arg(long, conflicts_with = "store")]
    no_store: bool,
    /// Mail server, as smtp://host:port or smtps://user:password@host; without it mails become files in FOLDER/mail
    #[arg(long, value_name = "URL", env = "SIGN_UP_SMTP", hide_env_values = true)]
    pub(crate) smtp: Option<String>,
    /// Whom mails are from
    #[arg(long, value_name = "ADDRESS", default_value = "Sign-up <sign-up@localhost>")]
    pub(crate) from: Mailbox,
    /// Reads a sample of each form of events in the store, and ends: with 1 when no code reads one of them
    #[arg(long)]
    pub(crate) check: bool,
}

/// Where this process keeps accounts and events.
pub(crate) enum Keeping {
    Nothing,
    File(PathBuf),
    Database(String),
}

impl Options {
    pub(crate) fn parts(&self) -> Parts {
        Parts::of(&self.run)
    }

    /// The broker, when there is one; refuses what nobody could reach or nothing would keep.
    pub(crate) fn broker(&self) -> anyhow::Result<Option<Broker>> {
        let Some(url) = &self.bridge else {
            self.parts().check_without_bridge()?;
            ensure!(
                !self.no_store,
                "--no-store needs --bridge: within one process nothing else would keep a mail that cannot be sent yet"
            );
            return Ok(None);
        };
        Broker::parse(url).map(Some)
    }

    /// How this process appears at that broker.
    pub(crate) fn appearance(&self, broker: &Broker) -> Appearance {
        let is_awaited = broker.awaits_by_name() && self.parts().run(Part::Email);
        let usual = || is_awaited.then(|| format!("sign-up-{}", self.parts().joined("-")));
        Appearance {
            name: self.name.clone().or_else(usual),
            is_awaited,
            unencrypted: self.unencrypted_to_other_machines,
        }
    }

    /// Where accounts and events are kept. The page and the API know neither.
    pub(crate) fn keeping(&self) -> Keeping {
        let parts = self.parts();
        let has_something = parts.run(Part::User) || parts.run(Part::Email);
        match &self.store {
            _ if self.no_store || !has_something => Keeping::Nothing,
            Some(url) => Keeping::Database(url.clone()),
            None => Keeping::File(self.folder().join("sign-up.db")),
        }
    }

    pub(crate) fn mails(&self) -> PathBuf {
        self.folder().join("mail")
    }

    /// Each process has a folder of its own, also where all are started in the same place.
    fn folder(&self) -> PathBuf {
        let parts = self.parts();
        let usual = Path::new("./data");
        self.data
            .clone()
            .unwrap_or_else(|| if parts.are_all() { usual.to_owned() } else { usual.join(parts.joined("-")) })
    }
}

/// For the lines at the start, without secrets: of a database its store knows the place.
impl fmt::Display for Keeping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("none"),
            Self::File(file) => write!(f, "{}", file.display()),
            Self::Database(_) => f.write_str("a database"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(arguments: &str) -> Options {
        let words = std::iter::once("sign-up").chain(arguments.split_whitespace());
        Options::try_parse_from(words).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn every_process_keeps_what_is_its_own() {
        for (arguments, store, mails) in [
            ("", "./data/sign-up.db", "./data/mail"),
            ("--run user --bridge nats://a", "./data/user/sign-up.db", "./data/user/mail"),
            ("--run email,user --bridge nats://a", "./data/user-email/sign-up.db", "./data/user-email/mail"),
            ("--run email --data here --bridge nats://a", "here/sign-up.db", "here/mail"),
            ("--run http --bridge nats://a", "none", "./data/http/mail"),
            ("--run http --data here --bridge nats://a", "none", "here/mail"),
            ("--run email --no-store --bridge nats://a", "none", "./data/email/mail"),
            ("--run user --store postgres://b --bridge nats://a", "a database", "./data/user/mail"),
        ] {
            let options = options(arguments);
            assert_eq!(options.keeping().to_string(), store, "{arguments}");
            assert_eq!(options.mails(), Path::new(mails), "{arguments}");
        }
    }

    #[test]
    fn a_name_is_needed_where_the_broker_waits_for_a_process_by_its_name() {
        for (arguments, name) in [
            ("--run email --bridge mqtt://a", Some("sign-up-email")),
            ("--bridge mqtt://a", Some("sign-up-http-user-email")),
            ("--run user --bridge mqtt://a", None),
            ("--run email --bridge nats://a", None),
            ("--run user --name mine --bridge mqtt://a", Some("mine")),
        ] {
            let options = options(arguments);
            let broker = options.broker().ok().flatten().unwrap_or_else(|| panic!("{arguments}"));
            assert_eq!(options.appearance(&broker).name.as_deref(), name, "{arguments}");
        }
    }

    #[test]
    fn without_a_store_something_else_has_to_keep_what_waits() {
        let error = options("--no-store").broker().err().map(|error| error.to_string());
        assert!(error.is_some_and(|error| error.contains("--no-store needs --bridge")));
        assert!(Options::try_parse_from(["sign-up", "--no-store", "--store", "postgres://a"]).is_err());
    }
}
