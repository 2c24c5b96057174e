//! Settings of a host and configuration of its handlers, from a file and the environment.
//!
//! ```toml
//! [host]
//! drain_seconds = 10
//!
//! [values]                       # what handlers read by `ctx.config().get("greeting")`
//! greeting = "hello"
//! ```
//!
//! The environment goes before the file: `PURISTA__HOST__DRAIN_SECONDS=5`, `PURISTA__VALUES__GREETING=moin`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use config::{Config, Environment, File, FileFormat};
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::Value;

use crate::memory::{MemoryConfigStore, MemorySecretStore};

/// What a file and the environment say. What they do not say stays as the host's builder has it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The host itself.
    pub host: HostSettings,
    /// What handlers read as configuration.
    pub values: BTreeMap<String, Value>,
}

/// The host's part of the settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HostSettings {
    /// See [`crate::host::HostBuilder::drain_timeout`]; in seconds.
    pub drain_seconds: Option<u64>,
    /// See [`crate::host::HostBuilder::calls_in_flight`].
    pub calls_in_flight: Option<usize>,
    /// See [`crate::host::HostBuilder::commands_in_flight`].
    pub commands_in_flight: Option<usize>,
    /// See [`crate::host::HostBuilder::require_durable`].
    pub require_durable: bool,
}

/// A file or a variable that cannot be understood. It names the key.
#[derive(Debug, thiserror::Error)]
#[error("the settings cannot be read")]
pub struct SettingsError(#[source] config::ConfigError);

impl Settings {
    /// Reads a TOML file, when one is given, and the variables that begin with `prefix` and two underscores.
    ///
    /// A file that is not there, an unknown key and a value of the wrong form are errors.
    pub fn load(file: Option<&Path>, prefix: &str) -> Result<Self, SettingsError> {
        let mut sources = Config::builder();
        if let Some(file) = file {
            sources = sources.add_source(File::from(file).format(FileFormat::Toml));
        }
        let environment =
            Environment::with_prefix(prefix).prefix_separator("__").separator("__").try_parsing(true);
        let settings = sources.add_source(environment).build().map_err(SettingsError)?;
        settings.try_deserialize().map_err(SettingsError)
    }

    /// How long the host may drain.
    pub fn drain_timeout(&self) -> Option<Duration> {
        self.host.drain_seconds.map(Duration::from_secs)
    }

    /// The configuration of handlers.
    pub fn config_store(&self) -> MemoryConfigStore {
        MemoryConfigStore::of(self.values.clone())
    }
}

/// The variables that begin with `prefix`, as secrets: `APP_SECRET_SMTP` under the prefix `APP_SECRET_` is `smtp`.
pub fn secrets_from_environment(prefix: &str) -> MemorySecretStore {
    let variables = std::env::vars().filter_map(|(name, value)| {
        let key = name.strip_prefix(prefix).filter(|key| !key.is_empty())?.to_lowercase();
        Some((key, SecretString::from(value)))
    });
    MemorySecretStore::of(variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(toml: &str) -> Result<Settings, SettingsError> {
        let source = File::from_str(toml, FileFormat::Toml);
        let settings = Config::builder().add_source(source).build().map_err(SettingsError)?;
        settings.try_deserialize().map_err(SettingsError)
    }

    #[test]
    fn a_file_sets_what_it_says_and_leaves_the_rest() {
        let settings = of("[host]\ndrain_seconds = 10\n[values]\ngreeting = \"hello\"\nlimit = 3").unwrap();
        assert_eq!(settings.drain_timeout(), Some(Duration::from_secs(10)));
        assert_eq!(settings.host.calls_in_flight, None);
        assert_eq!(settings.values["limit"], 3);
    }

    #[test]
    fn an_unknown_key_is_named() {
        let error = of("[host]\ndrain_secs = 10").unwrap_err();
        assert!(purista_core::error::chain(&error).contains("drain_secs"), "{error:?}");
    }

    #[test]
    fn a_file_that_is_not_there_is_an_error() {
        assert!(Settings::load(Some(Path::new("/nowhere/purista.toml")), "NOBODY").is_err());
        assert_eq!(Settings::load(None, "NOBODY").unwrap(), Settings::default());
    }
}
