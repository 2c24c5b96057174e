//! Callers known by a key in a header.

use std::fmt;

use futures_util::future::{BoxFuture, ready};
use secrecy::{ExposeSecret, SecretBox, SecretString};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use crate::authenticator::{AuthenticationError, Authenticator, Identity, RequestHead, SecurityScheme};

/// The header that bears the key, unless another one is named.
pub const HEADER: &str = "x-api-key";
/// The shortest key that is accepted, in bytes. A shorter one can be guessed.
pub const KEY_BYTES_MIN: usize = 16;
/// The longest key that is accepted, in bytes. Every comparison takes as long as for a key of this length.
pub const KEY_BYTES_MAX: usize = 256;

/// Knows callers by their keys. How long a look takes tells neither how much of a key was right nor how long a key is.
///
/// ```
/// use purista_http::api_key::ApiKeys;
/// use purista_http::authenticator::Identity;
///
/// # fn key() -> secrecy::SecretString { "0123456789abcdef".into() }
/// let keys = ApiKeys::new().key(key(), Identity::of("billing").in_tenant("acme"));
/// ```
pub struct ApiKeys {
    header: &'static str,
    keys: Vec<(Padded, Identity)>,
}

impl ApiKeys {
    /// Knows nobody yet.
    #[expect(clippy::new_without_default, reason = "one way to write it is enough")]
    pub const fn new() -> Self {
        Self { header: HEADER, keys: Vec::new() }
    }

    /// Whoever has this key is this identity.
    ///
    /// # Panics
    ///
    /// When the key is shorter than [`KEY_BYTES_MIN`] bytes, or longer than [`KEY_BYTES_MAX`].
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "the caller gives its secret away, and it is wiped")]
    pub fn key(mut self, key: SecretString, identity: Identity) -> Self {
        let key = key.expose_secret();
        assert!(key.len() >= KEY_BYTES_MIN, "an API key has at least {KEY_BYTES_MIN} bytes");
        assert!(key.len() <= KEY_BYTES_MAX, "an API key has at most {KEY_BYTES_MAX} bytes");
        self.keys.extend(Padded::of(key).map(|padded| (padded, identity)));
        self
    }

    /// Looks into another header; its name is lower case.
    #[must_use]
    pub fn header(mut self, name: &'static str) -> Self {
        self.header = name;
        self
    }

    fn identify(&self, head: &RequestHead) -> Result<Identity, AuthenticationError> {
        let told = head.header(self.header).ok_or_else(|| AuthenticationError::refused("no key"))?;
        // How long a header is, its sender knows.
        let told = Padded::of(told).ok_or_else(|| AuthenticationError::refused("the key is too long"))?;
        // Every key is compared, so that the time tells nothing of which one was right.
        let mut found = 0_u64;
        for (number, (key, _)) in (1..).zip(&self.keys) {
            found.conditional_assign(&number, key.ct_eq(&told));
        }
        let place = usize::try_from(found).ok().and_then(|found| found.checked_sub(1));
        let known = place.and_then(|place| self.keys.get(place));
        known.map(|(_, identity)| identity.clone()).ok_or_else(|| AuthenticationError::refused("unknown key"))
    }
}

/// A key in a buffer of fixed length. Slices of different lengths are unequal at once, so the time of their comparison tells
/// the length of a key; buffers of one length are compared to their end.
struct Padded {
    bytes: SecretBox<[u8; KEY_BYTES_MAX]>,
    length: u64,
}

impl Padded {
    /// `None` for a text that fits no buffer.
    fn of(key: &str) -> Option<Self> {
        let mut bytes = Box::new([0; KEY_BYTES_MAX]);
        bytes.get_mut(..key.len())?.copy_from_slice(key.as_bytes());
        Some(Self { bytes: SecretBox::new(bytes), length: u64::try_from(key.len()).ok()? })
    }
}

impl ConstantTimeEq for Padded {
    fn ct_eq(&self, other: &Self) -> Choice {
        let is_alike = self.bytes.expose_secret()[..].ct_eq(&other.bytes.expose_secret()[..]);
        is_alike & self.length.ct_eq(&other.length)
    }
}

impl Authenticator for ApiKeys {
    fn authenticate<'a>(
        &'a self,
        head: &'a RequestHead,
    ) -> BoxFuture<'a, Result<Identity, AuthenticationError>> {
        Box::pin(ready(self.identify(head)))
    }

    fn scheme(&self) -> SecurityScheme {
        SecurityScheme::api_key(self.header)
    }
}

impl fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKeys").field("header", &self.header).field("keys", &self.keys.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authenticator::tests::head;

    fn keys() -> ApiKeys {
        ApiKeys::new()
            .key("CANARY-0123456789".into(), Identity::of("a"))
            .key("another-0123456789".into(), Identity::of("b").in_tenant("t"))
    }

    #[test]
    fn a_key_names_its_identity() {
        let identity = keys().identify(&head(&[(HEADER, "another-0123456789")])).unwrap();
        assert_eq!(identity, Identity::of("b").in_tenant("t"));
        assert_eq!(keys().identify(&head(&[(HEADER, "CANARY-0123456789")])).unwrap(), Identity::of("a"));
    }

    #[test]
    fn anything_else_is_refused() {
        for wrong in ["", "CANARY-012345678", "CANARY-01234567890", "canary-0123456789"] {
            assert!(keys().identify(&head(&[(HEADER, wrong)])).is_err(), "{wrong}");
        }
        assert!(keys().identify(&head(&[])).is_err());
        assert!(ApiKeys::new().identify(&head(&[(HEADER, "")])).is_err());
    }

    #[test]
    fn keys_are_never_printed() {
        let error = keys().identify(&head(&[(HEADER, "CANARY-x")])).unwrap_err();
        assert!(!format!("{:?} {error:?} {error}", keys()).contains("CANARY"));
    }

    #[test]
    fn keys_of_all_lengths_are_compared_in_buffers_of_one_length() {
        let longest = "k".repeat(KEY_BYTES_MAX);
        let keys = keys().key(longest.clone().into(), Identity::of("c"));
        assert!(keys.keys.iter().all(|(key, _)| key.bytes.expose_secret().len() == KEY_BYTES_MAX));
        assert_eq!(keys.identify(&head(&[(HEADER, &longest)])).unwrap(), Identity::of("c"));
        assert!(keys.identify(&head(&[(HEADER, &format!("{longest}k"))])).is_err());
        // The padding is no part of a key.
        let (short, padded) = (Padded::of("k").unwrap(), Padded::of("k\0").unwrap());
        assert!(bool::from(short.ct_eq(&Padded::of("k").unwrap())) && !bool::from(short.ct_eq(&padded)));
    }

    #[test]
    #[should_panic(expected = "at most 256 bytes")]
    fn a_key_that_fits_no_buffer_is_refused() {
        let _ = ApiKeys::new().key("k".repeat(KEY_BYTES_MAX + 1).into(), Identity::of("a"));
    }

    #[test]
    #[should_panic(expected = "at least 16 bytes")]
    fn a_short_key_is_refused() {
        let _ = ApiKeys::new().key("short".into(), Identity::of("a"));
    }
}
