//! How far the tables of a store are, before it is opened; and making them, for installations in which programs may not.

use jiff::Timestamp;
use purista_events::store::StoreError;
use tokio_postgres::{Client, Error};

use crate::builder::Builder;
use crate::copy_state::{self, CopyState};
use crate::error::read_failed;
use crate::migrations::{self, MIGRATIONS, Migration};
use crate::{codec, connect};

/// How far a store is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// Which server, database and schema; neither user nor password are in it.
    pub place: String,
    /// Every step that this program knows, and when it was made.
    pub migrations: Vec<(Migration, Option<Timestamp>)>,
    /// How many steps were made that this program does not know: it is older than the store.
    pub unknown: u32,
    /// The copy of another store, where one was begun.
    pub copy: Option<CopyState>,
}

impl Builder {
    /// Looks at the store, and changes nothing; there need not be any. Errors are those of [`Builder::connect`]. Cancel safe.
    pub async fn status(self) -> Result<Status, StoreError> {
        let server = self.checked()?.server()?;
        let client = server.open().await?;
        let place = connect::place(&server.config, &server.schema);
        let known = || MIGRATIONS.into_iter();
        let made = migrations::made(&client, &server.schema).await?;
        if made == 0 {
            let migrations = known().map(|step| (step, None)).collect();
            return Ok(Status { place, migrations, unknown: 0, copy: None });
        }
        let times = times(&client).await.map_err(read_failed("read of the store's version"))?;
        let time =
            |step: &Migration| times.iter().find(|(number, _)| *number == step.number).map(|(_, at)| *at);
        let unknown = times.iter().filter(|(number, _)| known().all(|step| step.number != *number)).count();
        // The table of copies came with the second step.
        let has_copies = times.iter().any(|(number, _)| *number == 2);
        let copy = if has_copies { copy_state::state(&client).await? } else { None };
        Ok(Status {
            place,
            migrations: known().map(|step| (step, time(&step))).collect(),
            unknown: u32::try_from(unknown).unwrap_or(u32::MAX),
            copy,
        })
    }

    /// Makes the tables where they are missing or older than this program, and returns the steps that were made: none, where all is
    /// there. Whoever is interrupted goes on where he was. Errors are those of [`Builder::connect`].
    pub async fn migrate(self) -> Result<Vec<Migration>, StoreError> {
        let (server, mut client) = self.checked()?.connect().await?;
        let before = u32::try_from(migrations::made(&client, &server.schema).await?).unwrap_or(0);
        migrations::migrate(&mut client, &server.schema).await?;
        Ok(MIGRATIONS.into_iter().filter(|step| step.number > before).collect())
    }
}

async fn times(client: &Client) -> Result<Vec<(u32, Timestamp)>, Error> {
    let sql = "SELECT number, (extract(epoch FROM made_at) * 1000000000)::bigint FROM migrations";
    let rows = client.query(sql, &[]).await?;
    let step = |row: &tokio_postgres::Row| -> Result<(u32, Timestamp), Error> {
        let number: i32 = row.try_get(0)?;
        Ok((u32::try_from(number).unwrap_or(0), codec::timestamp(row.try_get(1)?)))
    };
    rows.iter().map(step).collect()
}
