//! Reads ahead of whoever follows the log: while a page is handled, the server already sends the next.
//!
//! Only full pages are given this way. What was selected below the horizon stays as it was for ever, so such a page says the same
//! whenever it was read; that nothing comes after it is said by a look of its own.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deadpool_postgres::Client;
use futures_util::StreamExt as _;
use purista_events::position::Position;
use purista_events::query::Query;
use purista_events::store::{FollowPage, StoreError};
use tokio::sync::mpsc;

use crate::error::read_failed;
use crate::event::{self, COLUMNS};
use crate::fetch;
use crate::selection::{Range, Select};

/// The most who are read ahead of, where there are connections for more.
const READERS_MAX: usize = 4;
/// How many pages one statement sends.
const PAGES_A_STATEMENT: usize = 16;
/// How many pages wait for whoever follows.
const PAGES_MAX: usize = 2;
/// How many bytes a page may have that waits: longer ones are read when they are asked for.
const PAGE_BYTES_MAX: usize = 2 << 20;
/// How long a page waits until the server is let go: longer than a page takes that is applied, and shorter than what a
/// statement may take.
const WAITS_MAX: Duration = Duration::from_secs(1);

/// Pages on their way, by what they follow.
#[derive(Debug)]
pub(crate) struct ReadAhead {
    readers: Mutex<VecDeque<Reader>>,
    /// Each holds a connection while it reads.
    readers_max: usize,
}

/// Where somebody will go on.
#[derive(Debug)]
struct Reader {
    place: Place,
    pages: mpsc::Receiver<FollowPage>,
}

/// What is asked next.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Place {
    pub(crate) query: Query,
    pub(crate) from: Position,
    pub(crate) limit: usize,
}

impl ReadAhead {
    /// Nobody is read ahead of yet. At least half of the connections stay with those who wait for what they ask.
    pub(crate) fn new(connections: usize) -> Self {
        Self { readers: Mutex::default(), readers_max: READERS_MAX.min(connections / 2) }
    }

    /// The page from here, if it was read ahead. Cancel safe: it is read again then.
    pub(crate) async fn page(&self, query: &Query, from: Position, limit: usize) -> Option<FollowPage> {
        let is_it = |Place { query: q, from: f, limit: l }: &Place| *f == from && *l == limit && q == query;
        let mut reader = {
            let mut readers = self.lock();
            let index = readers.iter().position(|reader| is_it(&reader.place))?;
            readers.remove(index)?
        };
        let page = reader.pages.recv().await?;
        reader.place.from = page.looked_up_to;
        self.lock().push_back(reader);
        Some(page)
    }

    /// Where the pages of one more reader go, if there may be one. The one that nobody asked for the longest makes room.
    pub(crate) fn reader(&self, place: Place) -> Option<mpsc::Sender<FollowPage>> {
        let (sender, pages) = mpsc::channel(PAGES_MAX);
        let mut readers = self.lock();
        if readers.len() >= self.readers_max {
            readers.pop_front()?;
        }
        readers.push_back(Reader { place, pages });
        Some(sender)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Reader>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads page after page until nobody takes them, or there is no full one.
pub(crate) async fn read(client: Client, mut place: Place, pages: mpsc::Sender<FollowPage>) {
    loop {
        match statement(&client, &mut place, &pages).await {
            Ok(true) => {}
            Ok(false) => return,
            // Whoever follows asks for the page himself, and is told.
            Err(error) => return tracing::debug!(%error, "reading ahead failed"),
        }
    }
}

/// Sends the pages of one statement. Says whether there may be more.
async fn statement(
    client: &Client,
    place: &mut Place,
    pages: &mpsc::Sender<FollowPage>,
) -> Result<bool, StoreError> {
    let what = "reading ahead";
    let range = Range::followed(place.from, place.limit.saturating_mul(PAGES_A_STATEMENT));
    let select = Select::events(&place.query, range, COLUMNS);
    let mut rows = pin!(fetch::stream(client, &select, what).await?);
    for _ in 0..PAGES_A_STATEMENT {
        let (mut events, mut bytes) = (Vec::with_capacity(place.limit), 0);
        while events.len() < place.limit {
            let Some(row) = rows.next().await else { return Ok(false) };
            event::decode_next(&row.map_err(read_failed(what))?, 0, &mut events)?;
            bytes += events.last().map_or(0, |event| event.body.len());
            if bytes > PAGE_BYTES_MAX {
                return Ok(false);
            }
        }
        let Some(last) = events.last() else { return Ok(false) };
        let page = FollowPage { looked_up_to: last.position, is_caught_up: false, events };
        place.from = page.looked_up_to;
        if pages.send_timeout(page, WAITS_MAX).await.is_err() {
            return Ok(false);
        }
    }
    Ok(true)
}
