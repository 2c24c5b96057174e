//! Read models of the memory engine: rows by table and key.

use std::cell::RefCell;
use std::collections::BTreeMap;

use serde_json::Value;

/// A table and a key.
type Place = (String, String);

type Rows = BTreeMap<Place, Value>;

/// The rows of one build of a projection; the transaction of the memory engine. What a step changed is taken back when it
/// fails.
#[derive(Debug, Default)]
pub struct Tables {
    rows: RefCell<Rows>,
    /// What was there before, for each change since the step began.
    undo: RefCell<Vec<(Place, Option<Value>)>>,
}

impl Tables {
    /// Writes a row.
    pub fn put(&self, table: &str, key: &str, row: Value) {
        self.change(table, key, Some(row));
    }

    /// Removes a row.
    pub fn remove(&self, table: &str, key: &str) {
        self.change(table, key, None);
    }

    /// A row.
    pub fn get(&self, table: &str, key: &str) -> Option<Value> {
        self.rows.borrow().get(&(table.to_owned(), key.to_owned())).cloned()
    }

    /// All rows of a table.
    pub fn rows(&self, table: &str) -> BTreeMap<String, Value> {
        let rows = self.rows.borrow();
        let of_table = rows.iter().filter(|((of, _), _)| of == table);
        of_table.map(|((_, key), row)| (key.clone(), row.clone())).collect()
    }

    fn change(&self, table: &str, key: &str, row: Option<Value>) {
        let place = (table.to_owned(), key.to_owned());
        let mut rows = self.rows.borrow_mut();
        let before = match row {
            Some(row) => rows.insert(place.clone(), row),
            None => rows.remove(&place),
        };
        self.undo.borrow_mut().push((place, before));
    }

    pub(super) fn keep(&self) {
        self.undo.borrow_mut().clear();
    }

    pub(super) fn take_back(&self) {
        let mut rows = self.rows.borrow_mut();
        for (place, before) in self.undo.borrow_mut().drain(..).rev() {
            match before {
                Some(before) => rows.insert(place, before),
                None => rows.remove(&place),
            };
        }
    }
}
