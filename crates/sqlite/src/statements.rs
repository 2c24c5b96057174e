//! The statements that every batch needs, prepared once: finding them by their text each time costs an eighth of a commit.

use std::rc::Rc;

use rusqlite::{Connection, Statement};

use crate::forms::Added;
use crate::{event, receipts};

/// The writer's connection with its statements.
pub(crate) struct Statements<'c> {
    /// For statements that few batches need.
    pub(crate) connection: &'c Rc<Connection>,
    /// What the open transaction adds to the forms of events.
    pub(crate) forms_added: Added,
    pub(crate) select_receipt: Statement<'c>,
    pub(crate) insert_receipt: Statement<'c>,
    pub(crate) insert_event: Statement<'c>,
    pub(crate) insert_tag: Statement<'c>,
    pub(crate) select_stream: Statement<'c>,
    pub(crate) insert_stream: Statement<'c>,
    pub(crate) update_stream: Statement<'c>,
}

impl<'c> Statements<'c> {
    pub(crate) fn prepare(connection: &'c Rc<Connection>) -> rusqlite::Result<Self> {
        Ok(Self {
            connection,
            forms_added: Added::default(),
            select_receipt: connection.prepare(receipts::SELECT)?,
            insert_receipt: connection.prepare(receipts::INSERT)?,
            insert_event: connection.prepare(event::INSERT)?,
            // An event may name one tag twice.
            insert_tag: connection.prepare(
                "INSERT OR IGNORE INTO tags (name, value, tenant, position) VALUES (?1, ?2, ?3, ?4)",
            )?,
            select_stream: connection
                .prepare("SELECT count FROM streams WHERE tenant = ?1 AND name = ?2 AND value = ?3")?,
            insert_stream: connection
                .prepare("INSERT INTO streams (tenant, name, value, count) VALUES (?1, ?2, ?3, ?4)")?,
            update_stream: connection
                .prepare("UPDATE streams SET count = ?4 WHERE tenant = ?1 AND name = ?2 AND value = ?3")?,
        })
    }
}
