//! What the README promises: its commands are the ones that CI runs.

use std::path::Path;

use anyhow::{Context as _, Result, bail};

/// The one test command.
const TEST: &str = "cargo xtask test";
/// How a newcomer starts the example.
const EXAMPLE: &str = "cargo run -p sign-up";

/// The README's test command; fails if the README no longer tells it, or no longer tells how to start the example.
pub(crate) fn test_command(root: &Path) -> Result<String> {
    let readme = std::fs::read_to_string(root.join("README.md")).context("read README.md")?;
    promised(&readme)
}

fn promised(readme: &str) -> Result<String> {
    let Some(command) = lines_of("sh", readme).into_iter().find(|line| line.trim() == TEST) else {
        bail!("README.md has no ```sh block with the line `{TEST}`");
    };
    if !readme.contains(EXAMPLE) {
        bail!("README.md does not say how to start the example: `{EXAMPLE}`");
    }
    if let Some(hidden) =
        lines_of("rust", readme).into_iter().find(|line| line.trim() == "#" || line.trim().starts_with("# "))
    {
        bail!("README.md hides a line of Rust, which does not compile when it is copied: `{hidden}`");
    }
    Ok(command.trim().to_owned())
}

/// The lines inside fenced blocks of one language.
fn lines_of<'t>(wanted: &str, text: &'t str) -> Vec<&'t str> {
    let mut fence = None;
    let mut lines = Vec::new();
    for line in text.lines() {
        match (fence, line.trim().strip_prefix("```")) {
            (None, Some(language)) => {
                fence = Some(language.split(',').next().is_some_and(|name| name.trim() == wanted));
            }
            (Some(_), Some("")) => fence = None,
            (Some(true), None) => lines.push(line),
            _ => {}
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(readme: &str, expect: Result<&str, &str>) {
        match (promised(readme), expect) {
            (Ok(command), Ok(expected)) => assert_eq!(command, expected),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (got, expected) => panic!("{got:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn the_test_command_is_taken_from_a_shell_block() {
        check(
            "# p\n```sh\ncargo run -p sign-up\n```\ntext\n```sh\ncargo xtask test\n```\n",
            Ok("cargo xtask test"),
        );
    }

    #[test]
    fn a_readme_that_lost_a_command_is_refused() {
        check("`cargo run -p sign-up`, cargo xtask test", Err("no ```sh block"));
        check("```rust\ncargo xtask test\n```\ncargo run -p sign-up", Err("no ```sh block"));
        check("```sh\ncargo xtask test --fast\n```\ncargo run -p sign-up", Err("no ```sh block"));
        check("```sh\ncargo xtask test\n```", Err("cargo run -p sign-up"));
        let commands = "```sh\ncargo xtask test\n```\ncargo run -p sign-up\n";
        check(&format!("{commands}```rust,no_run\n# use a::B;\n```"), Err("hides a line of Rust"));
        check(&format!("{commands}```rust\n#[derive(A)]\n```\n```toml\n# a\n```"), Ok("cargo xtask test"));
    }
}
