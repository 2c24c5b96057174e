//! Addresses: which service, which version, which command or subscription.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

/// The longest name of a service, command, subscription or event, in bytes.
pub const NAME_BYTES_MAX: usize = 128;

/// Whether `name` may name a service, command, subscription or event: a letter, then letters, digits, `-` and `_`,
/// at most [`NAME_BYTES_MAX`] bytes. Nothing in it can be mistaken for a part of a broker's topic.
pub const fn name_is_valid(name: &str) -> bool {
    let bytes = name.as_bytes();
    if bytes.is_empty() || bytes.len() > NAME_BYTES_MAX {
        return false;
    }
    let mut rest = bytes;
    let mut first = true;
    while let [byte, tail @ ..] = rest {
        let letter = byte.is_ascii_alphabetic();
        if !(letter || (!first && (byte.is_ascii_digit() || *byte == b'-' || *byte == b'_'))) {
            return false;
        }
        first = false;
        rest = tail;
    }
    true
}

const fn version_is_valid(version: &str) -> bool {
    let mut rest = version.as_bytes();
    if rest.is_empty() || rest.len() > 9 {
        return false;
    }
    while let [byte, tail @ ..] = rest {
        if !byte.is_ascii_digit() {
            return false;
        }
        rest = tail;
    }
    true
}

/// Names a service: a name and a version of digits. A bad name fails to compile where it is a constant.
///
/// ```
/// use purista_core::address::ServiceId;
/// pub const USER: ServiceId = ServiceId::new("User", "1");
/// assert_eq!(USER.to_string(), "User.1");
/// ```
///
/// ```compile_fail
/// # use purista_core::address::ServiceId;
/// pub const USER: ServiceId = ServiceId::new("User Service", "1");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceId {
    name: &'static str,
    version: &'static str,
}

impl ServiceId {
    /// Checks and makes the name of a service.
    ///
    /// # Panics
    ///
    /// When `name` is not a letter followed by letters, digits, `-` or `_`, or `version` is not 1 to 9 digits; in a
    /// constant this is an error of the compiler.
    pub const fn new(name: &'static str, version: &'static str) -> Self {
        assert!(
            name_is_valid(name),
            "a service name is a letter, then letters, digits, `-` and `_`, at most 128"
        );
        assert!(version_is_valid(version), "a service version is 1 to 9 digits");
        Self { name, version }
    }

    /// The service's name.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The service's version, digits only.
    pub const fn version(&self) -> &'static str {
        self.version
    }
}

impl fmt::Display for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.name, self.version)
    }
}

/// The three parts of an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AddressParts {
    /// Name of the service.
    pub service: Cow<'static, str>,
    /// Version of the service.
    pub version: Cow<'static, str>,
    /// Name of the command or subscription in it; empty when the service as a whole is meant.
    pub target: Cow<'static, str>,
}

impl AddressParts {
    /// Parts known to the compiler.
    pub const fn known(service: ServiceId, target: &'static str) -> Self {
        Self {
            service: Cow::Borrowed(service.name),
            version: Cow::Borrowed(service.version),
            target: Cow::Borrowed(target),
        }
    }
}

/// How many addresses a thread keeps of those that it has read.
const RECENT_MAX: usize = 8;

thread_local! {
    static RECENT: RefCell<[Option<Address>; RECENT_MAX]> =
        const { RefCell::new([const { None }; RECENT_MAX]) };
}

/// Where a message comes from or goes to. Cheap to clone.
#[derive(Clone)]
pub struct Address(Repr);

#[derive(Clone)]
enum Repr {
    Known(&'static AddressParts),
    Shared(Arc<AddressParts>),
}

impl Address {
    /// An address known to the compiler; copying it costs nothing.
    pub const fn known(parts: &'static AddressParts) -> Self {
        Self(Repr::Known(parts))
    }

    /// An address of a service of ours.
    pub fn of(service: ServiceId, target: &'static str) -> Self {
        Self::from(AddressParts::known(service, target))
    }

    /// One that was read. Messages come from few places and go to few, so that what a thread has just read is shared, and
    /// not made once more.
    pub(crate) fn read(service: &str, version: &str, target: &str) -> Self {
        let owned = |part: &str| Cow::Owned(part.to_owned());
        let make = || {
            Self::from(AddressParts {
                service: owned(service),
                version: owned(version),
                target: owned(target),
            })
        };
        if [service, version, target].iter().any(|part| part.len() > NAME_BYTES_MAX) {
            return make();
        }
        let shared = RECENT.try_with(|recent| {
            let mut recent = recent.borrow_mut();
            let place = recent.get_mut((service.len() + 3 * target.len()) % RECENT_MAX)?;
            let is_it = |known: &&Self| {
                known.target() == target && known.service() == service && known.version() == version
            };
            Some(match place.as_ref().filter(is_it) {
                Some(known) => known.clone(),
                None => place.insert(make()).clone(),
            })
        });
        // At the end of its thread nothing is kept any more.
        shared.ok().flatten().unwrap_or_else(make)
    }

    /// The three parts.
    pub fn parts(&self) -> &AddressParts {
        match &self.0 {
            Repr::Known(parts) => parts,
            Repr::Shared(parts) => parts,
        }
    }

    /// Name of the service.
    pub fn service(&self) -> &str {
        &self.parts().service
    }

    /// Version of the service.
    pub fn version(&self) -> &str {
        &self.parts().version
    }

    /// Name of the command or subscription.
    pub fn target(&self) -> &str {
        &self.parts().target
    }
}

impl From<AddressParts> for Address {
    fn from(parts: AddressParts) -> Self {
        Self(Repr::Shared(Arc::new(parts)))
    }
}

impl PartialEq for Address {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.parts(), other.parts()) || self.parts() == other.parts()
    }
}

impl Eq for Address {}

impl std::hash::Hash for Address {
    /// Equal addresses have equal targets and services; their versions add nothing that a table would be faster for.
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        let AddressParts { service, target, .. } = self.parts();
        target.hash(state);
        service.hash(state);
    }
}

impl PartialOrd for Address {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Address {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.parts().cmp(other.parts())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AddressParts { service, version, target } = self.parts();
        if target.is_empty() {
            write!(f, "{service}.{version}")
        } else {
            write!(f, "{service}.{version}.{target}")
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_hold_nothing_that_a_topic_would_read() {
        for good in ["User", "userSignUp", "a-b_c9", &"a".repeat(128)] {
            assert!(name_is_valid(good), "{good}");
        }
        for bad in ["", "9a", "_a", "a.b", "a b", "a/b", "a*", "ä", ">", &"a".repeat(129)] {
            assert!(!name_is_valid(bad), "{bad}");
        }
    }

    #[test]
    fn known_and_shared_addresses_are_equal() {
        static PARTS: AddressParts = AddressParts::known(ServiceId::new("User", "1"), "signUp");
        let known = Address::known(&PARTS);
        assert_eq!(known, Address::from(PARTS.clone()));
        assert_eq!(known.to_string(), "User.1.signUp");
    }

    #[test]
    fn what_is_read_again_is_shared_and_never_somebody_elses() {
        let (first, again) = (Address::read("User", "1", "signUp"), Address::read("User", "1", "signUp"));
        assert!(std::ptr::eq(first.parts(), again.parts()));
        // All of these would have its place.
        for parts in [["Resu", "1", "signUp"], ["User", "2", "signUp"], ["User", "1", "pUngis"]] {
            let [service, version, target] = parts;
            let other = Address::read(service, version, target);
            assert_eq!([other.service(), other.version(), other.target()], parts);
            assert_ne!(other, first);
        }
        assert_eq!(Address::read("User", "1", "signUp"), first);
        let long = "x".repeat(1 << 20);
        assert_eq!(Address::read(&long, "1", "").service(), long);
        assert!(RECENT.with_borrow(|recent| recent.iter().flatten().all(|one| one.service() != long)));
    }
}
