//! What no code can read is named, with a place and a remedy.

use super::*;
use crate::memory::MemoryStore;
use crate::samples::{Joined, Renamed, RenamedV1, append, joined, new_event, renamed, renamed_v1};

async fn stored() -> MemoryStore {
    let store = MemoryStore::default();
    let events = vec![
        new_event(&joined("ada")),
        new_event(&renamed_v1("ada", "Ada")),
        new_event(&renamed("ada", &["A"])),
    ];
    append(&store, None, events).await;
    store
}

async fn unread(store: &MemoryStore, upcasters: &Upcasters, readers: Readers) -> Vec<String> {
    let found = check(store, upcasters, &readers).await.unwrap();
    found.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn every_stored_form_that_no_code_reads_is_named() {
    let store = stored().await;
    let all = Readers::new().event::<Joined>().event::<Renamed>();
    let found = unread(&store, &Upcasters::new(), all.clone()).await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("renamed v1 at position 2") && found[0].contains(".upcast("), "{found:?}");

    let upcasters =
        Upcasters::new().upcast(|old: RenamedV1| Renamed { user: old.user, full: vec![old.name] });
    assert!(unread(&store, &upcasters, all).await.is_empty());
    let found = unread(&store, &upcasters, Readers::new().event::<Renamed>()).await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("nothing reads the event joined v1, as at position 1"), "{found:?}");
}

#[tokio::test]
async fn the_oldest_and_the_newest_of_a_form_are_both_read() {
    for broken in [0, 2] {
        let store = MemoryStore::default();
        let mut events: Vec<_> = (0..3).map(|_| new_event(&joined("ada"))).collect();
        events[broken].body = "{}".into();
        append(&store, None, events).await;
        let found = check(&store, &Upcasters::new(), &Readers::new().event::<Joined>()).await.unwrap();
        assert_eq!(found[0].position, Position::new(broken as u64 + 1));
    }
}
