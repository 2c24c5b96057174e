//! Queries that are larger than one statement, and those that no event can answer.

use purista_core::text::Text;
use purista_events::position::Position;
use purista_events::query::{Query, QueryItem};
use purista_events::store::{Direction, EventStore as _};
use purista_sqlite::store::SqliteStore;

use crate::folder::Folder;
use crate::given::{self, batch};

async fn store_of(events: usize) -> (Folder, SqliteStore) {
    let folder = Folder::new();
    let store = SqliteStore::open(folder.file()).unwrap();
    for number in 0..events {
        let mut batch = batch(&number.to_string());
        batch.appends[0].events[0].name = Text::from(format!("happened{}", number % 3));
        store.commit(batch).await.unwrap();
    }
    (folder, store)
}

#[tokio::test]
async fn a_query_of_a_thousand_types_finds_what_it_says() {
    let (_folder, store) = store_of(12).await;
    let names = (0..1_000).map(|number| Text::from(format!("happened{}", 999 - number)));
    let query = Query::types(names);
    let (view, _) = given::view(&store, &query).await.unwrap();
    let positions: Vec<u64> = view.iter().map(|event| event.position.number()).collect();
    assert_eq!(positions, (1..=12).collect::<Vec<_>>());
    let page = store.read(&query, Position::new(9), Direction::Backwards, 3).await.unwrap();
    assert_eq!(page.iter().map(|event| event.position.number()).collect::<Vec<_>>(), [8, 7, 6]);
    let page = store.follow(&query, Position::new(2), 4).await.unwrap();
    assert_eq!(page.looked_up_to, Position::new(6));
}

#[tokio::test]
async fn more_tags_than_an_event_bears_select_nothing() {
    let (_folder, store) = store_of(3).await;
    let tags = (0..40).map(|number| (Text::known("thing"), Text::from(number.to_string()))).collect();
    let query = Query::all().or(QueryItem { types: Vec::new(), tags });
    assert_eq!(given::view(&store, &query).await.unwrap().0, []);
    // The same tag many times is one.
    let tags = vec![(Text::known("thing"), Text::known("1")); 40];
    let query = Query::all().or(QueryItem { types: Vec::new(), tags });
    assert_eq!(given::view(&store, &query).await.unwrap().0.len(), 1);
}
