//! JSON on several lines, its fields in the order in which they are stored.

/// Lays out a JSON text. Its values stay as they are written.
pub(crate) fn json(text: &str) -> String {
    let (mut laid_out, mut depth) = (String::with_capacity(text.len() * 2), 0_usize);
    let mut rest = text.chars().filter_outside_strings().peekable();
    while let Some((c, is_in_string)) = rest.next() {
        if is_in_string {
            laid_out.push(c);
            continue;
        }
        match c {
            '{' | '[' => {
                laid_out.push(c);
                // Empty ones stay on their line.
                if let Some((end, _)) =
                    rest.next_if(|(next, is_in_string)| !is_in_string && "}]".contains(*next))
                {
                    laid_out.push(end);
                    continue;
                }
                depth += 1;
                break_line(&mut laid_out, depth);
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                break_line(&mut laid_out, depth);
                laid_out.push(c);
            }
            ',' => {
                laid_out.push(c);
                break_line(&mut laid_out, depth);
            }
            ':' => laid_out.push_str(": "),
            c => laid_out.push(c),
        }
    }
    laid_out
}

fn break_line(text: &mut String, depth: usize) {
    text.push('\n');
    text.push_str(&"  ".repeat(depth));
}

trait OutsideStrings: Iterator<Item = char> + Sized {
    /// Each character with whether it belongs to a string; what is white outside of strings is left out.
    fn filter_outside_strings(self) -> impl Iterator<Item = (char, bool)> {
        let (mut is_in_string, mut is_escaped) = (false, false);
        self.filter_map(move |c| {
            let was_in_string = is_in_string;
            match c {
                '"' if !is_escaped => is_in_string = !is_in_string,
                '\\' if is_in_string && !is_escaped => {
                    is_escaped = true;
                    return Some((c, true));
                }
                _ => {}
            }
            is_escaped = false;
            let is_of_string = was_in_string || is_in_string;
            (is_of_string || !c.is_ascii_whitespace()).then_some((c, is_of_string))
        })
    }
}

impl<I: Iterator<Item = char>> OutsideStrings for I {}

#[cfg(test)]
mod tests {
    use super::json;

    #[test]
    fn fields_stay_in_their_order_and_values_as_they_are_written() {
        let text = r#"{"b":1.50,"a":{"x":[],"y":[1, {}]},"s":"a\"{,:} \\"}"#;
        let expect = r#"{
  "b": 1.50,
  "a": {
    "x": [],
    "y": [
      1,
      {}
    ]
  },
  "s": "a\"{,:} \\"
}"#;
        assert_eq!(json(text), expect);
        for plain in ["1", "\"a b\"", "null", "{}", "[]"] {
            assert_eq!(json(plain), plain);
        }
    }
}
