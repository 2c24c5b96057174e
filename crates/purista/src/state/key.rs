//! Keys of state as stores have them: behind the name of their service, so that two services never meet in one.
//!
//! `@<service>/<key>` is a key of a service, `@/<key>` one that all share. Names of services hold neither `@` nor `/`, so
//! each stored key has one reading. Keys of no such form are from before, see [`super::State`].

use purista_core::address::name_is_valid;

/// Stands for all services.
pub(crate) const SHARED: &str = "";

/// The key as the store has it.
pub(super) fn stored_key(service: &str, key: &str) -> String {
    let mut stored = String::with_capacity(service.len() + key.len() + 2);
    stored.push('@');
    stored.push_str(service);
    stored.push('/');
    stored.push_str(key);
    stored
}

/// Under which name a handler's key may lie from before; `None` for one that reads as the key of a service, which it must never
/// reach.
pub(super) fn old_key(key: &str) -> Option<&str> {
    (!is_stored(key)).then_some(key)
}

/// Under which name a stored key may lie from before.
pub(super) fn old_of(stored: &str) -> Option<&str> {
    let (_, key) = stored.strip_prefix('@')?.split_once('/')?;
    old_key(key)
}

fn is_stored(key: &str) -> bool {
    let service = key.strip_prefix('@').and_then(|rest| rest.split_once('/'));
    service.is_some_and(|(service, _)| service == SHARED || name_is_valid(service))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_one_service_is_never_that_of_another() {
        assert_eq!(stored_key("User", "a/b"), "@User/a/b");
        assert_eq!(stored_key(SHARED, "a"), "@/a");
        assert_eq!(old_of("@User/a/b"), Some("a/b"));
        assert_eq!(old_key("email/ada@example.com"), Some("email/ada@example.com"));
        assert_eq!(old_key("@ada"), Some("@ada"));
        for other in ["@User/a", "@/a"] {
            assert_eq!(old_key(other), None, "{other} is a key of somebody else");
            assert_eq!(old_of(&stored_key("Email", other)), None);
        }
    }
}
