//! The search in SQLite: a full-text table.

use futures_util::future::BoxFuture;
use purista::HandlerError;
use purista_events::store::StoreError;
use purista_sqlite::read_models::TableReader;
use purista_sqlite::tx::Tx;

use super::{Names, NamesTables};
use crate::contracts::Hit;

impl NamesTables for Tx {
    fn make(&self) -> Result<(), HandlerError> {
        // Accents make no difference; beginnings of two and three letters have an index of their own.
        let options = "tokenize = 'unicode61 remove_diacritics 2', prefix = '2 3'";
        self.create_search_table("names", &format!("name, user_id UNINDEXED, {options}"))?;
        self.create_table("accounts", "user_id TEXT PRIMARY KEY, entry INTEGER NOT NULL")
    }

    fn add(&self, entry: i64, user_id: &str, name: &str) -> Result<(), HandlerError> {
        self.execute("INSERT INTO {accounts} (user_id, entry) VALUES (?1, ?2)", (user_id, entry))?;
        self.execute(
            "INSERT INTO {names} (rowid, name, user_id) VALUES (?1, ?2, ?3)",
            (entry, name, user_id),
        )?;
        Ok(())
    }

    fn rename(&self, user_id: &str, name: &str) -> Result<(), HandlerError> {
        let sql =
            "UPDATE {names} SET name = ?2 WHERE rowid = (SELECT entry FROM {accounts} WHERE user_id = ?1)";
        self.execute(sql, (user_id, name))?;
        Ok(())
    }
}

impl Names for TableReader {
    fn find(&self, words: Vec<String>, limit: u32) -> BoxFuture<'_, Result<Vec<Hit>, StoreError>> {
        Box::pin(self.read(move |tables| {
            let sql = "SELECT user_id, name FROM names WHERE names MATCH ?1 ORDER BY rowid LIMIT ?2";
            let mut hits = tables.prepare_cached(sql)?;
            let hits = hits.query_map((beginnings(&words), limit), |row| {
                Ok(Hit { user_id: row.get(0)?, name: row.get(1)? })
            })?;
            hits.collect()
        }))
    }
}

/// The words in the language of FTS5: each stands in quotation marks, so that nothing in it is an operator.
fn beginnings(words: &[String]) -> String {
    let words: Vec<_> = words.iter().map(|word| format!("\"{word}\"*")).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_is_the_beginning_of_one() {
        assert_eq!(beginnings(&["ada".to_owned(), "NEAR(a".to_owned()]), r#""ada"* "NEAR(a"*"#);
    }
}
