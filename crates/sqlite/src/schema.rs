//! Which form a file has: made new, brought up to date, or refused.

use purista_core::clock::Clock;
use purista_events::store::{StoreError, StoreErrorKind};
use rusqlite::Connection;

/// Stands in the header of every file of ours: "PURS".
const APPLICATION_ID: i32 = 0x5055_5253;

/// The form that this version writes.
pub(crate) const VERSION: i32 = 4;

/// What leads from one form to the next: the first makes a file of version 1 out of an empty one.
const STEPS: [&str; VERSION as usize] = [
    include_str!("sql/schema.sql"),
    include_str!("sql/form-2.sql"),
    include_str!("sql/form-3.sql"),
    include_str!("sql/form-4.sql"),
];

/// Refuses a file that is none of ours, or of a newer form. Returns the version of its form, 0 for an empty file.
pub(crate) fn check(connection: &Connection, path: &str) -> Result<i32, StoreError> {
    let refused =
        |why: &str| StoreError::new(StoreErrorKind::Invalid, format!("open `{path}` failed: {why}"));
    let look = || -> rusqlite::Result<(i32, i32, i64)> {
        let application = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
        let version = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        let tables = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        Ok((application, version, tables))
    };
    match look() {
        Ok((0, 0, 0)) => Ok(0),
        Ok((APPLICATION_ID, version, _)) if version > VERSION => Err(refused(&format!(
            "it has form {version}, and this program knows forms up to {VERSION}; a newer version of it wrote the file"
        ))),
        Ok((APPLICATION_ID, version @ 1.., _)) => Ok(version),
        Ok(_) => Err(refused("it is a SQLite file, but no store of purista")),
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::NotADatabase) => {
            Err(refused("it is no SQLite file").with_source(error))
        }
        Err(error) => {
            let what = format!("read of the header of `{path}` failed");
            Err(StoreError::new(StoreErrorKind::ReadFailed, what).with_source(error))
        }
    }
}

/// Brings a file from `version` to today's form, all of it or nothing.
pub(crate) fn bring_up_to_date(
    connection: &mut Connection,
    version: i32,
    clock: &Clock,
) -> rusqlite::Result<()> {
    if version >= VERSION {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    for step in STEPS.iter().skip(usize::try_from(version).unwrap_or(0)) {
        transaction.execute_batch(step)?;
    }
    if version == 0 {
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.execute(
            "INSERT INTO meta (name, value) VALUES ('origin', ?1), ('state_versions_forgotten', 0)",
            [clock.id().to_string()],
        )?;
    }
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()
}
