//! Callers known by a key in a header.

use std::fmt;

use futures_util::future::{BoxFuture, ready};
use secrecy::{ExposeSecret, SecretString};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use crate::authenticator::{AuthenticationError, Authenticator, Identity, RequestHead, SecurityScheme};

/// The header that bears the key, unless another one is named.
pub const HEADER: &str = "x-api-key";
/// The shortest key that is accepted, in bytes. A shorter one can be guessed.
pub const KEY_BYTES_MIN: usize = 16;

/// Knows callers by their keys. How long a look takes does not tell how much of a key was right.
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
    keys: Vec<(SecretString, Identity)>,
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
    /// When the key is shorter than [`KEY_BYTES_MIN`] bytes.
    #[must_use]
    pub fn key(mut self, key: SecretString, identity: Identity) -> Self {
        assert!(key.expose_secret().len() >= KEY_BYTES_MIN, "an API key has at least {KEY_BYTES_MIN} bytes");
        self.keys.push((key, identity));
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
        // Every key is compared, so that the time tells nothing of which one was right.
        let mut found = 0_u64;
        for (number, (key, _)) in (1..).zip(&self.keys) {
            let is_equal: Choice = key.expose_secret().as_bytes().ct_eq(told.as_bytes());
            found.conditional_assign(&number, is_equal);
        }
        let place = usize::try_from(found).ok().and_then(|found| found.checked_sub(1));
        let known = place.and_then(|place| self.keys.get(place));
        known.map(|(_, identity)| identity.clone()).ok_or_else(|| AuthenticationError::refused("unknown key"))
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
    #[should_panic(expected = "at least 16 bytes")]
    fn a_short_key_is_refused() {
        let _ = ApiKeys::new().key("short".into(), Identity::of("a"));
    }
}
