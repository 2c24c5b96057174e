//! Views of any length, page by page, as they were at one moment.

use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use purista_events::occurrence::Occurrences;
use purista_events::position::Position;
use purista_events::query::Query;
use purista_events::snapshot::{SnapshotKey, Snapshots};
use purista_events::store::{PAGE_MAX, StoreError};
use purista_events::view_read::ViewRead;

use crate::fetch;
use crate::folding::{self, Found};
use crate::store::SqliteStore;

/// The lower bound of each item, where they differ.
fn each_of(query: &Query, snapshots: &Snapshots) -> Arc<[i64]> {
    fetch::bounds(query, snapshots).1.into()
}

impl SqliteStore {
    pub(crate) async fn read_view_from(
        &self,
        query: Query,
        after: Position,
        keys: Vec<Option<SnapshotKey>>,
    ) -> Result<(Snapshots, ViewRead), StoreError> {
        let read = {
            let query = query.clone();
            move |connection: &mut _| fetch::view(connection, &query, after, &keys)
        };
        let (snapshots, first, token) = self.handle().read(read).await?;
        let last = first.last().map(|event| event.position).filter(|_| first.len() == PAGE_MAX);
        // What is recorded stays as it is: everything up to the head is of that moment, whenever it is read. So a long view
        // holds neither a thread nor the write-ahead log between its pages.
        let (store, head, each) = (self.clone(), token.position(), each_of(&query, &snapshots));
        let rest = last.map(|last| {
            stream::try_unfold(last, move |last| {
                let (store, query, each) = (store.clone(), query.clone(), Arc::clone(&each));
                async move {
                    let read = move |connection: &mut _| fetch::rest(connection, &query, [last, head], &each);
                    let page = store.handle().read(read).await?;
                    Ok(page.last().map(|event| event.position).map(|last| (page, last)))
                }
            })
            .boxed()
        });
        Ok((snapshots, ViewRead::new(token, first, rest)))
    }

    pub(crate) async fn occurrences_from(
        &self,
        query: Query,
        after: Position,
        keys: Vec<Option<SnapshotKey>>,
        with_tags: bool,
    ) -> Result<(Snapshots, ViewRead<Occurrences>), StoreError> {
        let read = {
            let query = query.clone();
            move |connection: &mut _| folding::view(connection, &query, after, &keys, with_tags)
        };
        let (snapshots, first, token) = self.handle().read(read).await?;
        let next = |found: &Found| found.events.last().filter(|_| found.is_full);
        // As for whole events: everything up to the head is of that moment, whenever it is read.
        let (store, head, each) = (self.clone(), token.position(), each_of(&query, &snapshots));
        let rest = next(&first).map(|last| {
            stream::try_unfold(Some(last), move |last| {
                let (store, query, each) = (store.clone(), query.clone(), Arc::clone(&each));
                async move {
                    let Some(last) = last else { return Ok(None) };
                    let read = move |connection: &mut _| {
                        folding::rest(connection, &query, [last, head], &each, with_tags)
                    };
                    let page = store.handle().read(read).await?;
                    let last = next(&page);
                    Ok(Some((page.events, last)))
                }
            })
            .boxed()
        });
        Ok((snapshots, ViewRead::new(token, first.events, rest)))
    }
}
