//! The forms that events have: a type and a version each. They are not counted here: one row that every writer changes would
//! make all of them wait for one another.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use purista_core::text::Text;
use purista_events::form::Form;
use tokio_postgres::{Error, Row};

use crate::codec;

/// The most forms that a process keeps in mind; of more it asks the server each time.
const KNOWN_MAX: usize = 10_000;

/// The forms that are in the table for certain, so that nobody writes them again.
#[derive(Debug, Default)]
pub(crate) struct KnownForms(Mutex<BTreeSet<(String, i64)>>);

impl KnownForms {
    /// Those that are not known.
    pub(crate) fn unknown(&self, forms: BTreeSet<(String, i64)>) -> BTreeSet<(String, i64)> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        forms.into_iter().filter(|form| !known.contains(form)).collect()
    }

    /// Learns of those that were committed.
    pub(crate) fn add(&self, forms: BTreeSet<(String, i64)>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() < KNOWN_MAX {
            known.extend(forms);
        }
    }
}

/// All of them, in order, each with its first and its last place.
pub(crate) const SELECT: &str = "SELECT f.name, f.version, o.position, n.position FROM forms f \
     CROSS JOIN LATERAL (SELECT position FROM events e WHERE e.name = f.name AND e.version = f.version \
     ORDER BY position LIMIT 1) o \
     CROSS JOIN LATERAL (SELECT position FROM events e WHERE e.name = f.name AND e.version = f.version \
     ORDER BY position DESC LIMIT 1) n \
     ORDER BY f.name, f.version";

/// One row of [`SELECT`].
pub(crate) fn decode(row: &Row) -> Result<Form, Error> {
    Ok(Form {
        name: Text::from(&*codec::text_of(row.try_get(0)?)),
        version: codec::unsigned(row.try_get(1)?),
        count: None,
        oldest: codec::position(row.try_get(2)?),
        newest: codec::position(row.try_get(3)?),
    })
}
