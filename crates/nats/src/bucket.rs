//! A bucket of keys and values on the server's JetStream.

use std::fmt::Write as _;
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration;

use async_nats::jetstream::context::ContextBuilder;
use async_nats::jetstream::kv::{DeleteErrorKind, Entry, Operation, Store, UpdateErrorKind};
use async_nats::jetstream::stream::{Config, DiscardPolicy, StorageType};
use bytes::Bytes;
use futures_util::future::try_join_all;
use purista_core::bridge::BridgeError;
use purista_core::store::{KeyValueError, KeyValueErrorKind};
use tokio::time::Instant;

use crate::link::{Link, closed, rejected};

/// How long the server may take to answer, with the wait for a connection that is lost.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How many keys are asked for at a time.
const READS_IN_FLIGHT: usize = 16;
/// What of the server's limit for a message is left to its subject and headers.
const AROUND_A_VALUE_BYTES: usize = 4 * 1024;

/// What a bucket lets go of when its bridge ends: the client's context behind it has a task.
type Held = RwLock<Option<Arc<Store>>>;

/// The end of a bucket, for its bridge; it holds nothing.
pub(crate) struct Ending(Weak<Held>);

impl Ending {
    /// Whether the bucket is gone already.
    pub(crate) fn is_over(&self) -> bool {
        self.0.strong_count() == 0
    }

    pub(crate) fn end(&self) {
        if let Some(held) = self.0.upgrade() {
            *held.write().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }
}

/// One bucket.
#[derive(Clone)]
pub(crate) struct Bucket {
    link: Link,
    name: Arc<str>,
    held: Arc<Held>,
}

impl Bucket {
    /// Finds the bucket, or makes it: on disk, with the last value of each key.
    pub(crate) async fn open(link: &Link, name: &str, replicas: usize) -> Result<Self, BridgeError> {
        if !link.client.server_info().jetstream {
            return Err(rejected(
                "the NATS server has no JetStream, which keeps buckets: start it with `--jetstream`",
            ));
        }
        let context = ContextBuilder::new().timeout(ANSWER_TIMEOUT).build(link.client.clone());
        let cannot = |error: Box<dyn std::error::Error + Send + Sync>| {
            rejected(format!("the bucket `{name}` cannot be had on the NATS server")).with_source(error)
        };
        let store = if let Ok(store) = context.get_key_value(name).await {
            store
        } else {
            context
                .get_or_create_stream(stream_of(name, replicas))
                .await
                .map_err(|error| cannot(error.into()))?;
            context.get_key_value(name).await.map_err(|error| cannot(error.into()))?
        };
        let held = Arc::new(RwLock::new(Some(Arc::new(store))));
        Ok(Self { link: link.clone(), name: name.into(), held })
    }

    pub(crate) fn ending(&self) -> Ending {
        Ending(Arc::downgrade(&self.held))
    }

    /// Milliseconds since 1970.
    pub(crate) fn now_ms(&self) -> i64 {
        i64::try_from(self.link.clock.now_ms()).unwrap_or(i64::MAX)
    }

    /// What lies under a key, a removal's mark too: its revision is what a new value follows.
    pub(crate) async fn entry(&self, key: &str) -> Result<Option<Entry>, KeyValueError> {
        let store = self.ready().await?;
        store.entry(key).await.map_err(|error| self.failed(KeyValueErrorKind::Rejected, "read", error))
    }

    /// The same of several keys; those of which nothing is known are left out.
    pub(crate) async fn entries(
        &self,
        tenant: Option<&str>,
        keys: &[String],
    ) -> Result<Vec<(String, Entry)>, KeyValueError> {
        let mut found = Vec::with_capacity(keys.len());
        for keys in keys.chunks(READS_IN_FLIGHT) {
            let reads = keys.iter().map(|key| async move {
                let entry = self.entry(&key_of(tenant, key)?).await?;
                Ok::<_, KeyValueError>(entry.map(|entry| (key.clone(), entry)))
            });
            found.extend(try_join_all(reads).await?.into_iter().flatten());
        }
        Ok(found)
    }

    /// Sets a value, if the last revision of its key is this; 0 when there was none. Returns the new one.
    pub(crate) async fn update(&self, key: &str, value: Bytes, revision: u64) -> Result<u64, KeyValueError> {
        self.check_size(&value)?;
        self.ready().await?.update(key, value, revision).await.map_err(|error| {
            let kind = match error.kind() {
                UpdateErrorKind::WrongLastRevision => KeyValueErrorKind::Conflict,
                UpdateErrorKind::InvalidKey => KeyValueErrorKind::InvalidKey,
                _ => KeyValueErrorKind::Unknown,
            };
            self.failed(kind, "write", error)
        })
    }

    /// Sets a value, whatever is there.
    pub(crate) async fn put(&self, key: &str, value: Bytes) -> Result<u64, KeyValueError> {
        self.check_size(&value)?;
        let store = self.ready().await?;
        store.put(key, value).await.map_err(|error| self.failed(KeyValueErrorKind::Unknown, "write", error))
    }

    /// Removes a key, if its last revision is this.
    pub(crate) async fn delete(&self, key: &str, revision: Option<u64>) -> Result<(), KeyValueError> {
        self.ready().await?.delete_expect_revision(key, revision).await.map_err(|error| {
            // The client has no kind of its own for it.
            let is_conflict = revision.is_some() && error.to_string().contains("wrong last sequence");
            let kind = match error.kind() {
                _ if is_conflict => KeyValueErrorKind::Conflict,
                DeleteErrorKind::InvalidKey => KeyValueErrorKind::InvalidKey,
                _ => KeyValueErrorKind::Unknown,
            };
            self.failed(kind, "removal", error)
        })
    }

    /// The store, as soon as the connection is there.
    async fn ready(&self) -> Result<Arc<Store>, KeyValueError> {
        let refused = |error| self.failed(KeyValueErrorKind::Rejected, "use", error);
        self.link.watch.up_until(Instant::now() + ANSWER_TIMEOUT).await.map_err(refused)?;
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner).clone();
        held.ok_or_else(|| refused(closed()))
    }

    fn check_size(&self, value: &Bytes) -> Result<(), KeyValueError> {
        let most = self.link.client.max_payload().saturating_sub(AROUND_A_VALUE_BYTES);
        if value.len() <= most {
            return Ok(());
        }
        let what = format!("a value has {} bytes, and the NATS server takes {most}", value.len());
        Err(KeyValueError::new(KeyValueErrorKind::Rejected, what))
    }

    fn failed(
        &self,
        kind: KeyValueErrorKind,
        what: &str,
        error: impl std::error::Error + Send + Sync + 'static,
    ) -> KeyValueError {
        KeyValueError::new(kind, format!("{what} in the bucket `{}` failed", self.name)).with_source(error)
    }
}

/// A bucket as the server knows it, see ADR-8 of NATS' architecture. The client's own way to make one asks for an account first,
/// which it cannot read from servers before 2.10. Reads come from the leader alone, so that whoever has written reads it.
fn stream_of(bucket: &str, replicas: usize) -> Config {
    Config {
        name: format!("KV_{bucket}"),
        subjects: vec![format!("$KV.{bucket}.>")],
        max_messages_per_subject: 1,
        storage: StorageType::File,
        num_replicas: replicas.max(1),
        discard: DiscardPolicy::New,
        allow_rollup: true,
        deny_delete: true,
        ..Config::default()
    }
}

/// Whether an entry holds a value.
pub(crate) fn is_value(entry: &Entry) -> bool {
    entry.operation == Operation::Put
}

/// A key as the server takes it: letters, digits and `-`, `_`, `/`, and dots between others. Every other byte is `=` and its two
/// hexadecimal digits, so that no two keys are one. A key of a tenant stands behind `=t.` and its tenant, in which dots are written
/// so too; `t` and `e`, which stands for the tenant without a name, are no such digits.
pub(crate) fn key_of(tenant: Option<&str>, key: &str) -> Result<String, KeyValueError> {
    KeyValueError::check_stored_key(key)?;
    let mut name = String::with_capacity(key.len());
    if let Some(tenant) = tenant {
        name.push_str(if tenant.is_empty() { "=t.=e" } else { "=t." });
        tenant.split('.').enumerate().for_each(|(index, part)| {
            name.push_str(if index > 0 { "=2E" } else { "" });
            escape(part, &mut name);
        });
        name.push('.');
    }
    escape(key, &mut name);
    Ok(name)
}

fn escape(text: &str, into: &mut String) {
    let start = into.len();
    for (index, byte) in text.bytes().enumerate() {
        let is_last = index + 1 == text.len();
        let is_dot_between = byte == b'.' && into.len() > start && !into.ends_with('.') && !is_last;
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'/') || is_dot_between {
            into.push(char::from(byte));
        } else {
            // Writing into a text cannot fail.
            let _ = write!(into, "={byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use purista_core::store::STORED_KEY_BYTES_MAX;

    use super::*;

    fn key(tenant: Option<&str>, key: &str) -> String {
        key_of(tenant, key).expect("a key")
    }

    #[test]
    fn plain_keys_stay_as_they_are() {
        for plain in ["theme", "user.42", "a/b-c_D", "a.b.c"] {
            assert_eq!(key(None, plain), plain);
        }
    }

    #[test]
    fn no_two_keys_are_one() {
        let keys = ["a b", "a=20b", ".a", "a.", "a..b", "a.=2Eb", "ü", "=t.x.a", "t.x.a", "a*", "a>", "\0"];
        let mut names: Vec<String> = keys.into_iter().map(|name| key(None, name)).collect();
        names.extend(keys.into_iter().map(|name| key(Some("x"), name)));
        names.extend([
            key(Some("x.a"), "b"),
            key(Some("x"), "a.b"),
            key(Some(""), "a.b"),
            key(Some("e"), "a.b"),
        ]);
        let valid = |name: &String| {
            name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_/=.".contains(&byte))
                && !name.starts_with('.')
                && !name.ends_with('.')
                && !name.contains("..")
        };
        assert!(names.iter().all(valid), "{names:?}");
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count, "{names:?}");
    }

    #[test]
    fn a_key_has_its_bounds() {
        assert_eq!(key_of(None, "").map_err(|error| error.kind()), Err(KeyValueErrorKind::InvalidKey));
        assert_eq!(
            key_of(None, &"k".repeat(STORED_KEY_BYTES_MAX + 1)).map_err(|error| error.kind()),
            Err(KeyValueErrorKind::InvalidKey)
        );
    }
}
