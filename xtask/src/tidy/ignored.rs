//! Ignored tests: each says what it needs, and soak tests are told by their names.
//!
//! `cargo xtask test` runs ignored tests too, all but those whose names start with `soak_`. A soak test under
//! another name would run where it must not, and another test under such a name would never run.

use crate::finding::Finding;
use crate::source::Source;

const SOAK_REASON: &str = "soak:";
const SOAK_NAME: &str = "soak_";

pub(super) fn check(source: &Source) -> Vec<Finding> {
    attributed(source).iter().filter_map(|item| item.finding(source)).collect()
}

/// The attributes of one item that matter here.
#[derive(Debug, Default)]
struct Item {
    /// Where its last attribute ends.
    offset: usize,
    is_test: bool,
    ignored: Ignored,
    /// The name behind `fn`, if the item is a function.
    function: Option<String>,
}

/// Whether a test is ignored, and why.
#[derive(Debug, Default, PartialEq, Eq)]
enum Ignored {
    #[default]
    No,
    WithoutReason,
    /// The reason is put in by a macro.
    ByMacro,
    Because(String),
}

impl Item {
    fn finding(&self, source: &Source) -> Option<Finding> {
        let report = |what: String, remedy: &str| {
            Some(Finding::at_line(&source.path, source.line_of(self.offset), what, remedy))
        };
        let name = self.function.as_deref().unwrap_or("this test");
        let is_soak = match &self.ignored {
            Ignored::WithoutReason => {
                return report(
                    format!("{name} is ignored without a reason"),
                    "say what it needs, as in `#[ignore = \"needs nats-server: cargo xtask test\"]`",
                );
            }
            Ignored::ByMacro => return None,
            Ignored::No => false,
            Ignored::Because(reason) => reason.starts_with(SOAK_REASON),
        };
        let has_name = self.is_test && name.starts_with(SOAK_NAME);
        if is_soak && !has_name {
            return report(
                format!("{name} is ignored as a soak test, but would run with the others"),
                "start its name with `soak_`",
            );
        }
        if self.is_test && !is_soak && name.contains(SOAK_NAME) {
            return report(
                format!("{name} is left out of every run because of its name"),
                "take `soak_` out of its name, or ignore it with `#[ignore = \"soak: …\"]`",
            );
        }
        None
    }
}

/// Every item that bears attributes.
fn attributed(source: &Source) -> Vec<Item> {
    let mut items = Vec::new();
    let mut at = 0;
    while let Some(start) = source.code.get(at..).and_then(|code| code.find("#[")).map(|found| at + found) {
        let (item, end) = item(source, start);
        items.push(item);
        at = end;
    }
    items
}

/// The item whose first attribute starts here, and where its last attribute ends.
fn item(source: &Source, start: usize) -> (Item, usize) {
    let mut item = Item::default();
    let mut at = start;
    while let Some(inside) = source.code.get(at..).and_then(|code| code.trim_start().strip_prefix("#[")) {
        let opened = source.code.len() - inside.len();
        let closed = opened + length_inside(inside);
        // Where literals are blanked, so that a reason which speaks of tests makes no test.
        let code = source.code.get(opened..closed).unwrap_or_default().trim();
        item.is_test |= code == "test" || code.ends_with("::test") || code.contains("::test(");
        let text = source.text.get(opened..closed).unwrap_or_default().trim();
        if let Some(ignored) = ignored(code, text) {
            item.ignored = ignored;
        }
        at = (closed + 1).min(source.code.len());
        item.offset = closed;
    }
    let signature = source.code.get(at..).and_then(|code| code.split(['(', ';', '{', '}', '#']).next());
    item.function = signature.and_then(|words| {
        let mut words = words.split_whitespace().skip_while(|&word| word != "fn");
        words.nth(1).map(|name| name.split('<').next().unwrap_or(name).to_owned())
    });
    (item, at)
}

fn ignored(code: &str, text: &str) -> Option<Ignored> {
    if code.starts_with("cfg_attr") {
        let is_bare = code.split([',', ')']).any(|part| part.trim() == "ignore");
        return is_bare.then_some(Ignored::WithoutReason);
    }
    let rest = code.strip_prefix("ignore")?;
    if rest.starts_with(|c: char| c.is_alphanumeric() || c == '_') {
        return None;
    }
    let Some((_, reason)) = text.split_once('=') else { return Some(Ignored::WithoutReason) };
    let reason = reason.trim();
    if reason.starts_with('$') || reason.starts_with("concat!") {
        return Some(Ignored::ByMacro);
    }
    let reason = reason.trim_matches('"').trim();
    Some(if reason.is_empty() { Ignored::WithoutReason } else { Ignored::Because(reason.to_owned()) })
}

/// How long an attribute is, up to its closing bracket.
fn length_inside(code: &str) -> usize {
    let mut depth = 1_usize;
    for (at, c) in code.char_indices() {
        match c {
            '[' => depth += 1,
            ']' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    code.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expect: Option<&str>) {
        let findings: Vec<String> =
            super::check(&Source::new("a.rs", text)).iter().map(Finding::to_string).collect();
        match expect {
            None => assert!(findings.is_empty(), "{findings:?}"),
            Some(part) => assert!(findings.len() == 1 && findings[0].contains(part), "{findings:?}"),
        }
    }

    #[test]
    fn an_ignored_test_without_a_reason_is_refused() {
        check("#[test]\n#[ignore]\nfn it_works() {}", Some("a.rs:2: it_works is ignored without a reason"));
        check("#[ignore = \"\"]\n#[test]\nfn it_works() {}", Some("it_works is ignored without a reason"));
        check("#[cfg_attr(miri, ignore)]\n#[test]\nfn f() {}", Some("f is ignored without a reason"));
        check("#[test]\n#[ignore = \"needs a broker: cargo xtask test\"]\nasync fn f() {}", None);
        check("#[test]\n#[ignore = $reason]\nfn $name() {}", None);
    }

    #[test]
    fn a_test_of_endurance_is_told_by_its_name() {
        check("#[test]\n#[ignore = \"soak: an hour\"]\nfn soak_an_hour() {}", None);
        check(
            "#[tokio::test]\n#[ignore = \"soak: an hour\"]\nasync fn an_hour() {}",
            Some("an_hour is ignored as a soak"),
        );
    }

    #[test]
    fn a_name_that_would_hide_a_test_is_refused() {
        check("#[test]\nfn soak_a_while() {}", Some("soak_a_while is left out of every run"));
        check("#[tokio::test(start_paused = true)]\nasync fn f_soak_f() {}", Some("f_soak_f is left out"));
        check("fn soak_in_water() {}", None);
    }

    #[test]
    fn what_is_no_attribute_of_a_test_is_not_looked_at() {
        check("/// #[ignore]\n#[derive(Debug)]\nstruct S;", None);
        check("let a = \"#[ignore]\";", None);
        check("#[ignored_by_us]\nfn f() {}", None);
        check("#[doc = \"[\"]\n#[test]\nfn f() {}", None);
    }
}
