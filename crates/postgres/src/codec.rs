//! How texts, ids, times, tenants and failures lie in columns.

use std::borrow::Cow;

use jiff::Timestamp;
use purista_core::id::{Id, InvalidId};
use purista_events::batch::Receipt;
use purista_events::position::Position;
use purista_events::subscriptions::Failure;

/// Stands before what is written otherwise: U+0000, which a text of Postgres cannot hold, this character itself, and a tenant
/// whose name would be taken for "none" or for an escaped one.
const ESCAPE: char = '\u{1}';

/// A text as a column holds it. Order and equality stay what they were.
pub(crate) fn text(text: &str) -> Cow<'_, str> {
    if !text.contains(['\0', ESCAPE]) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.replace(ESCAPE, "\u{1}1").replace('\0', "\u{1}0"))
}

/// The text of a column.
pub(crate) fn text_of(column: &str) -> Cow<'_, str> {
    if !column.contains(ESCAPE) {
        return Cow::Borrowed(column);
    }
    Cow::Owned(column.replace("\u{1}0", "\0").replace("\u{1}1", "\u{1}"))
}

/// A tenant as a part of keys, where `None` is the empty text.
pub(crate) fn tenant_key(tenant: Option<&str>) -> Cow<'_, str> {
    match tenant {
        None => Cow::Borrowed(""),
        Some(name) if name.is_empty() || name.starts_with(ESCAPE) => {
            Cow::Owned(text(&format!("{ESCAPE}{name}")).into_owned())
        }
        Some(name) => text(name),
    }
}

/// The tenant of a key.
pub(crate) fn tenant_of(column: &str) -> Option<String> {
    let key = text_of(column);
    match key.as_ref() {
        "" => None,
        key => Some(key.strip_prefix(ESCAPE).unwrap_or(key).to_owned()),
    }
}

/// An id: 16 bytes when it is ours; else a zero byte and its text, and a zero byte more where that would be 16.
pub(crate) fn id(id: &Id) -> Vec<u8> {
    if let Some(bytes) = id.bytes() {
        return bytes.to_vec();
    }
    let mut bytes = vec![0];
    bytes.extend_from_slice(id.text().as_bytes());
    if bytes.len() == 16 {
        bytes.push(0);
    }
    bytes
}

/// The id of a column.
pub(crate) fn id_of(column: &[u8]) -> Result<Id, InvalidId> {
    if let Ok(bytes) = column.try_into() {
        return Ok(Id::from_random(u128::from_be_bytes(bytes)));
    }
    let text = column.strip_prefix(&[0]).ok_or(InvalidId)?;
    let text = text.strip_suffix(&[0]).unwrap_or(text);
    Id::parse(std::str::from_utf8(text).map_err(|_| InvalidId)?)
}

/// Nanoseconds since 1970; years beyond 1677 and 2262 are cut to these.
pub(crate) fn nanoseconds(time: Timestamp) -> i64 {
    let number = time.as_nanosecond();
    i64::try_from(number).unwrap_or(if number < 0 { i64::MIN } else { i64::MAX })
}

/// The time that so many nanoseconds after 1970 are.
pub(crate) fn timestamp(nanoseconds: i64) -> Timestamp {
    // Every i64 of nanoseconds is a time that jiff has.
    Timestamp::from_nanosecond(nanoseconds.into()).unwrap_or(Timestamp::UNIX_EPOCH)
}

pub(crate) fn position(number: i64) -> Position {
    Position::new(u64::try_from(number).unwrap_or(0))
}

/// A number as Postgres has it. What lies beyond is cut: no log is that long.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A count as its type has it. What lies beyond was never written.
pub(crate) fn unsigned(number: i64) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

/// The failures of a message as JSON, which writes U+0000 as an escape.
pub(crate) fn history(failures: &[Failure]) -> String {
    // Times, numbers and texts have a JSON in any case.
    serde_json::to_string(failures).unwrap_or_else(|_| "[]".to_owned())
}

/// The versions of a receipt as its row holds them.
pub(crate) fn versions(receipt: &Receipt) -> Option<String> {
    let versions: Vec<String> = receipt.state_versions.iter().map(u64::to_string).collect();
    (!versions.is_empty()).then(|| versions.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_comes_back_and_keeps_its_place() {
        let texts = ["", "\0", "\0a", "\u{1}", "\u{1}0", "\u{1}1", "\u{2}", "a", "a\0b", "a\u{1}b", "ä"];
        for one in texts {
            assert_eq!(text_of(&text(one)), one);
            assert!(!text(one).contains('\0'));
            for other in texts {
                assert_eq!(
                    text(one).as_bytes().cmp(text(other).as_bytes()),
                    one.cmp(other),
                    "{one:?} {other:?}"
                );
            }
        }
    }

    #[test]
    fn tenants_and_none_are_told_apart() {
        let tenants = [None, Some(""), Some("a"), Some("\u{1}"), Some("\u{1}\u{1}a"), Some("\0")];
        for (index, tenant) in tenants.into_iter().enumerate() {
            assert_eq!(tenant_of(&tenant_key(tenant)).as_deref(), tenant);
            assert!(tenants.iter().skip(index + 1).all(|other| tenant_key(*other) != tenant_key(tenant)));
        }
    }

    #[test]
    fn ids_of_ours_and_of_peers_are_told_apart() {
        let foreign = |length: usize| Id::parse(&"x".repeat(length)).unwrap();
        for one in [Id::from_random(7), foreign(1), foreign(14), foreign(15), foreign(16), foreign(128)] {
            assert_eq!(id_of(&id(&one)).unwrap(), one);
        }
        assert!(id_of(b"no id").is_err());
    }
}
