//! What a store is opened with, and the opening itself: the first connection, the tables, the store's name and its log's end.

use std::path::PathBuf;

use purista_core::clock::Clock;
use purista_events::log_time::LogTime;
use purista_events::store::{StoreError, StoreErrorKind};
use tokio_postgres::Client;
use tokio_postgres::config::SslMode;
use tokio_util::task::TaskTracker;

use crate::connect::{self, Server, Timeouts};
use crate::error::read_failed;
use crate::migrations::{self, Opened};
use crate::time::server_time;
use crate::tls::Tls;
use crate::{codec, copy_state, horizon, inspection};

/// What a store is opened with.
pub(crate) struct Opening {
    pub(crate) url: String,
    pub(crate) schema: String,
    pub(crate) clock: Clock,
    /// Whether times are those of this clock, and not of the server's.
    pub(crate) records_own_time: bool,
    pub(crate) root_certificates: Option<PathBuf>,
    pub(crate) group_max: usize,
    pub(crate) writers: usize,
    pub(crate) readers: usize,
    pub(crate) timeouts: Timeouts,
    pub(crate) migrates: bool,
    pub(crate) blocked_after: std::time::Duration,
}

/// A schema that is ready to be used.
pub(crate) struct OpenSchema {
    pub(crate) server: Server,
    pub(crate) time: LogTime,
    pub(crate) opened: Opened,
    /// Up to where the log can be followed.
    pub(crate) head: i64,
}

impl Opening {
    /// The server that is meant.
    pub(crate) fn server(&self) -> Result<Server, StoreError> {
        let config = connect::config(&self.url)?;
        // Another machine is spoken to under `Require` at least.
        let is_only_preferred = config.get_ssl_mode() == SslMode::Prefer;
        let tls = match &self.root_certificates {
            None if is_only_preferred => Tls::unchecked()?,
            roots => Tls::new(roots.as_deref())?,
        };
        Ok(Server {
            config,
            tls,
            schema: self.schema.clone(),
            timeouts: self.timeouts,
            tasks: TaskTracker::new(),
        })
    }

    /// Connects, and rejects a server on which a store would not work.
    pub(crate) async fn connect(&self) -> Result<(Server, Client), StoreError> {
        let server = self.server()?;
        let client = server.open().await?;
        inspection::inspect(&server, &client).await?;
        Ok((server, client))
    }

    /// Connects, and makes the tables where they are missing and that is wanted.
    pub(crate) async fn open(&self) -> Result<OpenSchema, StoreError> {
        let (server, mut client) = self.connect().await?;
        if self.migrates {
            migrations::migrate(&mut client, &server.schema).await?;
        }
        migrations::check_made(migrations::made(&client, &server.schema).await?)?;
        if copy_state::state(&client).await?.is_some_and(|copy| !copy.is_finished) {
            let what = "a copy into the store is not finished: `purista store copy` goes on with it";
            return Err(StoreError::new(StoreErrorKind::Invalid, what));
        }
        let now = self.now(&client).await?;
        let of_server = LogTime::of_server(self.clock.clone(), now);
        let name = self.clock.id().to_string();
        let opened = migrations::enter(&mut client, &name, now, &server.schema).await?;
        let head = client.query_one(&horizon::head(), &[]).await.map_err(read_failed("read of the head"))?;
        let head = head.try_get(0).map_err(read_failed("read of the head"))?;
        let time = if self.records_own_time {
            LogTime::new(self.clock.clone(), opened.latest)
        } else {
            of_server.at_least(opened.latest);
            of_server
        };
        Ok(OpenSchema { server, time, opened, head })
    }

    /// What the clock shows by which events are recorded.
    pub(crate) async fn now(&self, client: &Client) -> Result<i64, StoreError> {
        if self.records_own_time {
            return Ok(codec::nanoseconds(self.clock.now()));
        }
        server_time(client).await.map_err(read_failed("read of the server's clock"))
    }
}
