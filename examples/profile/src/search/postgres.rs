//! The search in Postgres: a `tsvector` of each name, with an index.
//!
//! What a word is, and that accents make no difference, is said here and not by a dictionary of the server: a search has the same
//! answers on every server, whatever its language, and the same as on SQLite.

use futures_util::future::BoxFuture;
use purista::HandlerError;
use purista_events::store::StoreError;
use purista_postgres::read_models::TableReader;
use purista_postgres::tx::Tx;
use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::is_combining_mark;

use super::{Names, NamesTables};
use crate::contracts::Hit;

impl NamesTables for Tx {
    fn make(&self) -> Result<(), HandlerError> {
        let columns =
            "user_id text PRIMARY KEY, entry bigint NOT NULL, name text NOT NULL, words tsvector NOT NULL";
        self.create_table("names", columns)?;
        self.execute_batch("CREATE INDEX ON {names} USING gin (words)")?;
        Ok(())
    }

    fn add(&self, entry: i64, user_id: &str, name: &str) -> Result<(), HandlerError> {
        let sql = "INSERT INTO {names} (user_id, entry, name, words) VALUES ($1, $2, $3, $4::text::tsvector)";
        self.execute(sql, &[&user_id, &entry, &shown(name), &vector(name)])?;
        Ok(())
    }

    fn rename(&self, user_id: &str, name: &str) -> Result<(), HandlerError> {
        let sql = "UPDATE {names} SET name = $2, words = $3::text::tsvector WHERE user_id = $1";
        self.execute(sql, &[&user_id, &shown(name), &vector(name)])?;
        Ok(())
    }
}

impl Names for TableReader {
    fn find(&self, words: Vec<String>, limit: u32) -> BoxFuture<'_, Result<Vec<Hit>, StoreError>> {
        Box::pin(async move {
            let sql =
                "SELECT user_id, name FROM names WHERE words @@ $1::text::tsquery ORDER BY entry LIMIT $2";
            let rows = self.query(sql, &[&beginnings(&words), &i64::from(limit)]).await?;
            Ok(rows.iter().map(|row| Hit { user_id: row.get(0), name: row.get(1) }).collect())
        })
    }
}

/// U+0000 is a character of JSON that a text of Postgres cannot hold.
fn shown(name: &str) -> String {
    name.replace('\0', "\u{fffd}")
}

/// The words of a text: letters and digits without accents, all of them small. Nothing in them needs quotation marks escaped.
fn lexemes(text: &str) -> Vec<String> {
    let plain: String = text.nfd().filter(|c| !is_combining_mark(*c)).flat_map(char::to_lowercase).collect();
    let words = plain.split(|c: char| !c.is_alphanumeric());
    words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// A text's words with their places, as Postgres writes them.
fn vector(text: &str) -> String {
    let words = (1..).zip(lexemes(text));
    let words: Vec<_> = words.map(|(place, word): (u32, _)| format!("'{word}':{place}")).collect();
    words.join(" ")
}

/// All words; what is several words to the index, as O'Brien, stands there one behind the other, and the last may go on.
fn beginnings(words: &[String]) -> String {
    let phrases = words.iter().map(|word| lexemes(word)).filter(|phrase| !phrase.is_empty());
    let phrases: Vec<_> = phrases.map(|phrase| format!("('{}':*)", phrase.join("' <-> '"))).collect();
    phrases.join(" & ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_its_words_without_accents() {
        assert_eq!(vector("Zoë  O'Brien-MÜLLER"), "'zoe':1 'o':2 'brien':3 'muller':4");
        assert_eq!(vector("ZOE\u{308}"), "'zoe':1");
        assert_eq!(vector(" -- "), "");
    }

    #[test]
    fn words_are_looked_for_as_they_are_and_never_as_operators() {
        let query =
            |words: &[&str]| beginnings(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert_eq!(query(&["Ada", "Löv"]), "('ada':*) & ('lov':*)");
        assert_eq!(query(&["o'br"]), "('o' <-> 'br':*)");
        assert_eq!(query(&["a'|!b\\:*&"]), "('a' <-> 'b':*)");
    }
}
