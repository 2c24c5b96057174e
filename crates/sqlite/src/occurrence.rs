//! How a fold reads the row of an event: the columns that it needs, straight into its page.

use std::cell::RefCell;

use purista_events::occurrence::{Occurrence, Occurrences};
use purista_events::store::{StoreError, StoreErrorKind};
use rusqlite::Connection;
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::{FromSql as _, FromSqlResult, ValueRef};

use crate::checksum::Folded;
use crate::codec;

/// A condition that shows each row to a function of ours, where the table of events is `e` and `table` finds the position. It
/// is false for as long as there is room for more: so SQLite goes through all rows of a page in one step.
pub(crate) fn read(table: &str, with_tags: bool) -> String {
    let tags = if with_tags { ", e.tags" } else { "" };
    format!("purista_occurrence({table}.position, e.name, e.version, e.fold_checksum, e.body{tags})")
}

/// Why a page ended before its range did.
#[derive(Debug)]
pub(crate) enum End {
    /// It holds no more.
    Full,
    /// The event that comes then is not what was written, or is not there.
    Damaged(StoreError),
    /// The event at this position was recorded by an earlier form of the file: only its whole checksum is known.
    BeforeFolds(i64),
}

thread_local! {
    /// What is being read on this thread.
    static READING: RefCell<Reading> = RefCell::default();
}

#[derive(Debug, Default)]
struct Reading {
    page: Occurrences,
    with_tags: bool,
    end: Option<End>,
}

/// Makes the function of [`read`] known to a connection.
pub(crate) fn make_readable(connection: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DIRECTONLY;
    for arguments in [5, 6] {
        connection.create_scalar_function("purista_occurrence", arguments, flags, |row| {
            Ok(READING.with_borrow_mut(|reading| reading.read(row)))
        })?;
    }
    Ok(())
}

/// Begins to read into a page on this thread.
pub(crate) fn begin(page: Occurrences, with_tags: bool) {
    READING.set(Reading { page, with_tags, end: None });
}

/// What was read on this thread.
pub(crate) fn taken() -> (Occurrences, Option<End>) {
    let Reading { page, end, .. } = READING.take();
    (page, end)
}

impl Reading {
    /// Reads one event's row. Whether that was all.
    fn read(&mut self, row: &Context<'_>) -> bool {
        let [position, name, version, checksum, body] = std::array::from_fn(|index| row.get_raw(index));
        let number = position.as_i64().unwrap_or_default();
        let tags = self.with_tags.then(|| row.get_raw(5));
        let damaged = |what: &str| {
            let what = format!("the event at {number} is {what}");
            StoreError::new(StoreErrorKind::Corrupt, what)
        };
        self.end = match checksum {
            _ if name == ValueRef::Null => {
                Some(End::Damaged(damaged("missing, although the index names it")))
            }
            ValueRef::Null => Some(End::BeforeFolds(number)),
            ValueRef::Integer(checksum)
                if Folded::of([position, name, version, body], tags.map(|tags| [position, tags]))
                    .is_that_of(checksum, self.with_tags) =>
            {
                let pushed = self.push(number, [name, version, body], tags);
                let broken = |error| End::Damaged(damaged("not what was written there").with_source(error));
                pushed.map_or_else(|error| Some(broken(error)), |()| self.page.is_full().then_some(End::Full))
            }
            _ => Some(End::Damaged(damaged("not what was written there"))),
        };
        self.end.is_some()
    }

    fn push(
        &mut self,
        position: i64,
        [name, version, body]: [ValueRef<'_>; 3],
        tags: Option<ValueRef<'_>>,
    ) -> FromSqlResult<()> {
        self.page.push(Occurrence {
            position: codec::position(position),
            name: name.as_str()?,
            version: u32::column_result(version)?,
            tags: tags.map_or(Ok(&[][..]), |tags| tags.as_bytes())?,
            body: body.as_bytes()?,
        });
        Ok(())
    }
}
