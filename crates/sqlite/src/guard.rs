//! Keeps the SQL of projections to their own tables, and out of the writer's transaction.

use std::sync::{Arc, Mutex, PoisonError};

use purista_core::error::HandlerError;
use purista_events::read_models::caught;
use rusqlite::Connection;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};

use crate::tx::{FULL_TEXT, Tx};

/// What stands behind the names of the tables in which a full-text table keeps what it knows.
const FULL_TEXT_PARTS: [&str; 5] = ["data", "idx", "content", "docsize", "config"];

/// What the writer's connection lets pass, while the code of a projection runs on it.
#[derive(Debug, Clone)]
pub(crate) struct Guard(Arc<Mutex<Option<Allowed>>>);

#[derive(Debug)]
struct Allowed {
    /// Stands behind the names of its tables, and behind those of other projections that were made as often.
    suffix: String,
    /// The names of the latter, without it.
    of_others: Vec<String>,
    is_making: bool,
}

impl Guard {
    /// Asked for each statement when it is prepared, from now on.
    pub(crate) fn set(connection: &mut Connection) -> rusqlite::Result<Self> {
        let guard = Self(Arc::default());
        let asked = guard.clone();
        connection.authorizer(Some(move |context: AuthContext<'_>| asked.ask(&context)))?;
        Ok(guard)
    }

    /// A guard of a store that never writes.
    pub(crate) fn idle() -> Self {
        Self(Arc::default())
    }

    /// Runs the code of a projection under guard.
    pub(crate) fn for_build<T>(
        &self,
        tx: &Tx,
        of_others: Vec<String>,
        is_making: bool,
        code: impl FnOnce() -> Result<T, HandlerError>,
    ) -> Result<T, HandlerError> {
        self.say(Some(Allowed { suffix: tx.suffix().to_owned(), of_others, is_making }));
        let done = caught(code);
        self.say(None);
        done
    }

    fn say(&self, allowed: Option<Allowed>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = allowed;
    }

    fn ask(&self, context: &AuthContext<'_>) -> Authorization {
        match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(allowed) if !allowed.passes(context.action) => Authorization::Deny,
            _ => Authorization::Allow,
        }
    }
}

impl Allowed {
    fn passes(&self, action: AuthAction<'_>) -> bool {
        use AuthAction::{
            AlterTable, CreateIndex, CreateTable, CreateVtable, Delete, DropIndex, Function, Insert, Pragma,
            Read, Recursive, Reindex, Select, Update,
        };
        match action {
            Select | Read { .. } | Function { .. } | Recursive => true,
            Insert { table_name } | Delete { table_name } | Update { table_name, .. } => {
                self.is_own(table_name) || (self.is_making && table_name.starts_with("sqlite_"))
            }
            CreateTable { table_name }
            | CreateIndex { table_name, .. }
            | DropIndex { table_name, .. }
            | AlterTable { table_name, .. } => self.is_making && self.is_own(table_name),
            CreateVtable { table_name, module_name } => {
                self.is_making && module_name.eq_ignore_ascii_case(FULL_TEXT) && self.is_own(table_name)
            }
            // A full-text table asks by itself whether somebody else has changed the file.
            Pragma { pragma_name, pragma_value: None } => pragma_name == "data_version",
            Reindex { .. } => self.is_making,
            _ => false,
        }
    }

    fn is_own(&self, table: &str) -> bool {
        let is_own = |table: &str| {
            let name = table.strip_suffix(&self.suffix);
            name.is_some_and(|name| !self.of_others.iter().any(|other| other == name))
        };
        // What a full-text table keeps lies in tables of its own.
        let kept = || table.rsplit_once('_').filter(|(_, part)| FULL_TEXT_PARTS.contains(part));
        is_own(table) || kept().is_some_and(|(table, _)| is_own(table))
    }
}
