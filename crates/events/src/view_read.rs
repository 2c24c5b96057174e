//! Everything that a query selects, page by page, as it was at one moment.

use std::fmt;

use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _};

use crate::error::StoreError;
use crate::occurrence::Occurrences;
use crate::position::ReadToken;
use crate::recorded::Recorded;

/// What [`crate::store::EventStore::read_view`] reads: all pages are of the moment at which it began, whatever is recorded
/// meanwhile, and no more than a page or two of them is held at a time. Dropping it ends the read.
///
/// ```
/// # use purista_events::{memory::MemoryStore, position::Position, query::Query, store::{EventStore, StoreError}};
/// # async fn example(store: &MemoryStore) -> Result<(), StoreError> {
/// let query = Query::tag("user", "ada").of_tenant(None);
/// let mut view = store.read_view(&query, Position::START).await?;
/// let mut count = 0;
/// while let Some(page) = view.next_page().await? {
///     count += page.len();
/// }
/// // The decision holds as long as nothing was added: `Condition::Unless(query, view.token)`.
/// # Ok(())
/// # }
/// ```
pub struct ViewRead<P = Vec<Recorded>> {
    /// By which a decision on these events says "unless something was added". It is of the moment of all pages.
    pub token: ReadToken,
    first: P,
    rest: Option<BoxStream<'static, Result<P, StoreError>>>,
}

/// Several events in order: as they are recorded, or as far as a fold needs them.
pub trait Page: Default + Send + 'static {
    /// How many there are.
    fn count(&self) -> usize;
}

impl Page for Vec<Recorded> {
    fn count(&self) -> usize {
        self.len()
    }
}

impl Page for Occurrences {
    fn count(&self) -> usize {
        self.len()
    }
}

impl<P: Page> ViewRead<P> {
    /// A view of which the first page is read already. `rest` gives the others, of the same moment.
    pub fn new(token: ReadToken, first: P, rest: Option<BoxStream<'static, Result<P, StoreError>>>) -> Self {
        Self { token, first, rest }
    }

    /// The next page, in order; `None` after the last. No page is empty.
    ///
    /// After an error the view has ended, and what was read of it is not all. Not cancel safe: a page may be lost.
    pub async fn next_page(&mut self) -> Result<Option<P>, StoreError> {
        if self.first.count() > 0 {
            return Ok(Some(std::mem::take(&mut self.first)));
        }
        while let Some(rest) = &mut self.rest {
            match rest.next().await {
                Some(Ok(page)) if page.count() == 0 => {}
                Some(Ok(page)) => return Ok(Some(page)),
                Some(Err(error)) => {
                    self.rest = None;
                    return Err(error);
                }
                None => self.rest = None,
            }
        }
        Ok(None)
    }

    /// The same pages in another form.
    pub(crate) fn map<Q: Page>(self, form: fn(P) -> Q) -> ViewRead<Q> {
        let rest = self.rest.map(|rest| rest.map_ok(form).boxed());
        ViewRead { token: self.token, first: form(self.first), rest }
    }
}

impl ViewRead {
    /// The same pages without the events for which `keep` returns `false`.
    pub(crate) fn retain(mut self, keep: impl Fn(&Recorded) -> bool + Send + Sync + 'static) -> Self {
        self.first.retain(&keep);
        let drop_others = move |mut page: Vec<Recorded>| {
            page.retain(&keep);
            page
        };
        self.rest = self.rest.map(|rest| rest.map_ok(drop_others).boxed());
        self
    }

    /// All pages at once: for what is known to be small.
    pub async fn all(mut self) -> Result<(Vec<Recorded>, ReadToken), StoreError> {
        let mut events = self.next_page().await?.unwrap_or_default();
        while let Some(page) = self.next_page().await? {
            events.extend(page);
        }
        Ok((events, self.token))
    }
}

impl<P: Page> fmt::Debug for ViewRead<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ViewRead")
            .field("token", &self.token)
            .field("first", &self.first.count())
            .field("has_more", &self.rest.is_some())
            .finish()
    }
}
