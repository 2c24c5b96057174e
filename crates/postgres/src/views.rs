//! Views of any length, page by page, as they were at one moment.

use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use purista_events::position::Position;
use purista_events::query::Query;
use purista_events::store::{PAGE_MAX, StoreError};
use purista_events::view_read::ViewRead;

use crate::fetch;
use crate::store::PostgresStore;

impl PostgresStore {
    /// Reads a view after a position, and each item of the query after one of its own.
    pub(crate) async fn view(
        &self,
        query: &Query,
        after: Position,
        each: &[Position],
    ) -> Result<ViewRead, StoreError> {
        let client = self.handle().client("read of a view").await?;
        let (first, token) = fetch::view(&client, query, after, each).await?;
        let last = first.last().map(|event| event.position).filter(|_| first.len() == PAGE_MAX);
        // No connection is held between the pages.
        let rest = last.map(|last| {
            let (store, query, token) = (self.clone(), query.clone(), token.clone());
            let each: Arc<[Position]> = each.into();
            let page = move |last| {
                let (store, query, token) = (store.clone(), query.clone(), token.clone());
                let each = Arc::clone(&each);
                async move {
                    let client = store.handle().client("read of a view").await?;
                    fetch::rest(&client, &query, last, &each, &token).await
                }
            };
            stream::try_unfold(last, page).boxed()
        });
        Ok(ViewRead::new(token, first, rest))
    }
}
