//! The files of the repository as the checks see them, with code told apart from comments and literals.
//!
//! The checks look for words, and a word in a string or a comment is no code. A real parser would be a heavy
//! guest for that; a lexer that knows comments, strings and character literals is enough, and it keeps every
//! byte at its place, so that a match in the code is a line in the file.

use std::path::Path;

use anyhow::{Context as _, Result};

/// Folders that hold nothing written for this repository.
const NOT_OURS: [&str; 2] = ["target", "node_modules"];

/// A Rust source file.
#[derive(Debug)]
pub(crate) struct Source {
    /// Relative to the workspace, with `/` between the parts.
    pub(crate) path: String,
    /// The file as it is.
    pub(crate) text: String,
    /// The file with comments and the contents of literals blanked out.
    pub(crate) code: String,
    /// The file with the contents of literals blanked out.
    pub(crate) without_literals: String,
}

impl Source {
    /// A file with these contents.
    pub(crate) fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        let (path, text) = (path.into(), text.into());
        let (code, without_literals) = blanked(&text);
        Self { path, text, code, without_literals }
    }

    /// Whether the whole file is test code.
    pub(crate) fn is_test_file(&self) -> bool {
        self.path.split('/').any(|part| part == "tests" || part == "tests.rs")
    }

    /// How many lines stand before the tests of the file: all of them if it has none inside.
    pub(crate) fn lines_before_tests(&self) -> usize {
        let lines: Vec<&str> = self.code.lines().collect();
        let opens_tests = |start: usize| {
            // `#[cfg(test)] mod tests;` or a lone `#[cfg(test)] use` is followed by more of the program.
            let item = lines
                .iter()
                .skip(start + 1)
                .map(|line| line.trim())
                .find(|line| !line.is_empty() && !line.starts_with("#["));
            item.is_some_and(|item| item.contains("mod ") && item.ends_with('{'))
        };
        (0..lines.len())
            .find(|&number| {
                lines.get(number).is_some_and(|line| line.starts_with("#[cfg(test)]")) && opens_tests(number)
            })
            .unwrap_or(lines.len())
    }

    /// The line, counted from one, of a byte of the file.
    pub(crate) fn line_of(&self, offset: usize) -> usize {
        self.text.bytes().take(offset).filter(|&byte| byte == b'\n').count() + 1
    }
}

/// The paths of all files below `root` with this ending, relative to it, in order.
pub(crate) fn files(root: &Path, ending: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("list {}", folder.display()))?;
            let (name, kind) = (entry.file_name().to_string_lossy().into_owned(), entry.file_type()?);
            let is_hidden = name.starts_with('.') && name != ".ci" && name != ".github";
            if kind.is_dir() && !is_hidden && !NOT_OURS.contains(&name.as_str()) {
                folders.push(entry.path());
            } else if kind.is_file() && Path::new(&name).extension().is_some_and(|end| end == ending) {
                let path = entry.path();
                found.push(path.strip_prefix(root).unwrap_or(&path).to_string_lossy().replace('\\', "/"));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Every Rust file below `root`.
pub(crate) fn sources(root: &Path) -> Result<Vec<Source>> {
    files(root, "rs")?
        .into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(root.join(&path)).with_context(|| format!("read {path}"))?;
            Ok(Source::new(path, text))
        })
        .collect()
}

/// The text twice: without comments and literals, and without literals only.
fn blanked(text: &str) -> (String, String) {
    let (mut code, mut without_literals) = (String::with_capacity(text.len()), String::new());
    let mut rest = text;
    let mut before = ' ';
    while let Some(first) = rest.chars().next() {
        let piece = piece(rest, first, before);
        let (taken, left) = rest.split_at(piece.length());
        match piece {
            Piece::Code(_) => {
                code.push_str(taken);
                without_literals.push_str(taken);
            }
            Piece::Comment(_) => {
                blank(&mut code, taken);
                without_literals.push_str(taken);
            }
            Piece::Literal(_) => {
                for output in [&mut code, &mut without_literals] {
                    blank_inside(output, taken);
                }
            }
        }
        before = taken.chars().last().unwrap_or(before);
        rest = left;
    }
    (code, without_literals)
}

/// The next stretch of a file, with its length in bytes.
enum Piece {
    Code(usize),
    Comment(usize),
    Literal(usize),
}

impl Piece {
    fn length(&self) -> usize {
        let (Self::Code(length) | Self::Comment(length) | Self::Literal(length)) = self;
        *length
    }
}

fn piece(rest: &str, first: char, before: char) -> Piece {
    if rest.starts_with("//") {
        return Piece::Comment(rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return Piece::Comment(block_comment(rest));
    }
    let starts_a_word = !(before.is_alphanumeric() || before == '_');
    if starts_a_word && let Some(length) = raw_string(rest) {
        return Piece::Literal(length);
    }
    match first {
        '"' => Piece::Literal(quoted(rest, '"')),
        '\'' => character(rest).map_or(Piece::Code(1), Piece::Literal),
        other => Piece::Code(other.len_utf8()),
    }
}

/// Block comments nest.
fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(here) = rest.get(at..) {
        if here.starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if here.starts_with("*/") {
            (depth, at) = (depth.saturating_sub(1), at + 2);
            if depth == 0 {
                return at;
            }
        } else if let Some(next) = here.chars().next() {
            at += next.len_utf8();
        } else {
            break;
        }
    }
    rest.len()
}

/// `r"…"`, `br#"…"#` and their like.
fn raw_string(rest: &str) -> Option<usize> {
    let body = rest.strip_prefix('b').or_else(|| rest.strip_prefix('c')).unwrap_or(rest).strip_prefix('r')?;
    let hashes = body.chars().take_while(|&c| c == '#').count();
    let inside = body.trim_start_matches('#').strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    let end = inside.find(&close).map_or(inside.len(), |at| at + close.len());
    Some(rest.len() - inside.len() + end)
}

/// A literal between two equal quotes, in which a backslash hides the next character.
fn quoted(rest: &str, quote: char) -> usize {
    let mut is_hidden = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if is_hidden => is_hidden = false,
            '\\' => is_hidden = true,
            c if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    rest.len()
}

/// `'a'` and `'\n'` are literals; `'a` is a lifetime.
fn character(rest: &str) -> Option<usize> {
    let mut characters = rest.char_indices().skip(1);
    let (_, inside) = characters.next()?;
    let (_, after) = characters.next()?;
    (inside == '\\' || after == '\'').then(|| quoted(rest, '\''))
}

fn blank(output: &mut String, taken: &str) {
    for c in taken.chars() {
        if c == '\n' {
            output.push('\n');
        } else {
            output.extend(std::iter::repeat_n(' ', c.len_utf8()));
        }
    }
}

/// Keeps the quotes, so that an empty literal can be told from a full one.
fn blank_inside(output: &mut String, taken: &str) {
    let open = taken.find(['"', '\'']).map_or(taken.len(), |at| at + 1);
    let close = taken.rfind(['"', '\'']).filter(|&at| at >= open).unwrap_or(taken.len());
    output.push_str(taken.get(..open).unwrap_or_default());
    blank(output, taken.get(open..close).unwrap_or_default());
    output.push_str(taken.get(close..).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, code: &str) {
        let source = Source::new("a.rs", text);
        assert_eq!(source.code, code);
        assert_eq!(source.code.len(), text.len());
    }

    #[test]
    fn comments_and_literals_are_no_code() {
        check("a // b\nc", "a     \nc");
        check("a /* b /* c */ d */ e", "a                   e");
        check(r#"a("b\"c", d)"#, r#"a("    ", d)"#);
        check("r#\"x\"y\"# z", "r#\"   \"# z");
        check("b\"x\" br\"y\"", "b\" \" br\" \"");
        check("fn f<'a>(c: &'a str) { '\"' }", "fn f<'a>(c: &'a str) { ' ' }");
        check(r"['\'', '\n']", r"['  ', '  ']");
        check("\"ä\" // ü", "\"  \"      ");
        check("\"\"", "\"\"");
        check("\"never closed", "\"            ");
    }

    #[test]
    fn comments_stay_where_only_literals_are_blanked() {
        let source = Source::new("a.rs", "\"one\" // two");
        assert_eq!(source.without_literals, "\"   \" // two");
    }

    #[test]
    fn only_an_inline_test_module_ends_the_program() {
        let lines = |text: &str| Source::new("a.rs", text).lines_before_tests();
        assert_eq!(lines("a\nb\n#[cfg(test)]\nmod tests {\n}\n"), 2);
        assert_eq!(lines("a\n#[cfg(test)]\n#[allow(x)]\nmod tests {\n}\n"), 1);
        assert_eq!(lines("a\n#[cfg(test)]\nmod tests;\nb\n"), 4);
        assert_eq!(lines("#[cfg(test)]\nuse a;\nb\n"), 3);
        assert_eq!(lines("// #[cfg(test)]\nmod tests {\n}\n"), 3);
    }

    #[test]
    fn test_files_are_known_by_their_path() {
        assert!(Source::new("crates/core/src/bridge/tests.rs", "").is_test_file());
        assert!(Source::new("crates/core/tests/ui/a.rs", "").is_test_file());
        assert!(!Source::new("crates/core/src/testing.rs", "").is_test_file());
    }

    #[test]
    fn the_repositorys_files_are_found_without_the_build_output() {
        let files = files(&crate::metadata::root(), "rs").unwrap();
        assert!(files.contains(&"xtask/src/source.rs".to_owned()));
        assert!(!files.iter().any(|path| path.starts_with("target/")));
    }
}
