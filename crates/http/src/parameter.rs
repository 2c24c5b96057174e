//! Values of path and query, as the JSON object of texts that a message carries beside its payload.

use std::borrow::Cow;

use bytes::Bytes;
use percent_encoding::percent_decode_str;

/// A percent sign without two hex digits behind it, or bytes that are no UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// The JSON object of the values of a path (all of them) and of a query (those among `query_names`); `None` when it would
/// be empty. A name that comes twice in a query becomes a list; what else a query holds is ignored.
pub(crate) fn object(
    path: &[(&'static str, &str)],
    query: Option<&str>,
    query_names: &[&'static str],
) -> Result<Option<Bytes>, Malformed> {
    let mut fields: Vec<(&str, Vec<Cow<'_, str>>)> = Vec::new();
    for (name, value) in path {
        fields.push((name, vec![decoded(value, false)?]));
    }
    if let Some(query) = query.filter(|_| !query_names.is_empty()) {
        for pair in pairs(query) {
            let (name, value) = pair?;
            let Some(name) = query_names.iter().find(|known| **known == name) else { continue };
            match fields.iter_mut().find(|(known, _)| known == name) {
                Some((_, values)) => values.push(value),
                None => fields.push((name, vec![value])),
            }
        }
    }
    Ok((!fields.is_empty()).then(|| written(&fields)))
}

/// Names and values of a query or a form, decoded.
pub(crate) fn pairs(encoded: &str) -> impl Iterator<Item = Result<(Cow<'_, str>, Cow<'_, str>), Malformed>> {
    encoded.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Ok((decoded(name, true)?, decoded(value, true)?))
    })
}

fn written(fields: &[(&str, Vec<Cow<'_, str>>)]) -> Bytes {
    let mut json = Vec::with_capacity(64);
    json.push(b'{');
    for (index, (name, values)) in fields.iter().enumerate() {
        if index > 0 {
            json.push(b',');
        }
        push_text(&mut json, name);
        json.push(b':');
        match values.as_slice() {
            [only] => push_text(&mut json, only),
            several => {
                for (index, value) in several.iter().enumerate() {
                    json.push(if index == 0 { b'[' } else { b',' });
                    push_text(&mut json, value);
                }
                json.push(b']');
            }
        }
    }
    json.push(b'}');
    json.into()
}

/// Writes a text as JSON.
pub(crate) fn push_text(json: &mut Vec<u8>, text: &str) {
    // Writing a text into memory cannot fail.
    let _ = serde_json::to_writer(json, text);
}

/// Undoes percent-encoding; in a form (and a query) a plus is a space. The library passes over a percent sign without two hex
/// digits behind it; here it is refused, so that no two readers of a URL understand it differently.
pub(crate) fn decoded(text: &str, in_form: bool) -> Result<Cow<'_, str>, Malformed> {
    let is_escape =
        |after: &str| after.as_bytes().get(..2).is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit));
    if !text.split('%').skip(1).all(is_escape) {
        return Err(Malformed);
    }
    if in_form && text.contains('+') {
        let spaced = text.replace('+', " ");
        let decoded = percent_decode_str(&spaced).decode_utf8().map_err(|_| Malformed)?;
        return Ok(Cow::Owned(decoded.into_owned()));
    }
    percent_decode_str(text).decode_utf8().map_err(|_| Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &[(&'static str, &str)], query: &str, expect: Result<Option<&str>, Malformed>) {
        let made = object(path, Some(query), &["page", "tag"]);
        assert_eq!(
            made,
            expect.map(|json| json.map(|json| Bytes::copy_from_slice(json.as_bytes()))),
            "{query}"
        );
    }

    #[test]
    fn known_names_become_texts_and_lists_and_others_nothing() {
        check(&[], "", Ok(None));
        check(&[], "other=1&&=", Ok(None));
        check(&[("id", "a%2Fb+c")], "page=2", Ok(Some(r#"{"id":"a/b+c","page":"2"}"#)));
        check(&[], "tag=a&tag=b+c&tag", Ok(Some(r#"{"tag":["a","b c",""]}"#)));
        check(&[], "p%61ge=%C3%A4%22", Ok(Some(r#"{"page":"ä\""}"#)));
        check(&[], "page=a%2Bb+c%20%2541", Ok(Some(r#"{"page":"a+b c %41"}"#)));
    }

    #[test]
    fn what_is_wrongly_encoded_is_refused() {
        for query in [
            "page=%",
            "page=%4",
            "page=%zz",
            "page=%ff",
            "%ff=1",
            "page=%+1",
            "page=a%+1b",
            "page=%%41",
            "page=%4é",
        ] {
            check(&[], query, Err(Malformed));
        }
        check(&[("id", "%c3")], "", Err(Malformed));
    }
}
