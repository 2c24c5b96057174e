//! Damage of the data file and its write-ahead log: an answer is right, or an error.

use std::path::Path;

use purista_core::store::{Expect, StateChange};
use purista_events::batch::{Batch, ReplyKey, StoredReply};
use purista_events::fingerprint::Fingerprint;
use purista_events::position::Position;
use purista_events::query::Query;
use purista_events::store::{Direction, EventStore as _, StoreError, StoreErrorKind};
use purista_events::subscriptions::{ProgressChange, SubscriptionId};
use purista_sqlite::store::SqliteStore;
use serde_json::json;

use crate::folder::Folder;
use crate::given::batch;

const ADDRESSES: u64 = 60;
const FLIPS: u64 = 120;

fn address(number: u64) -> String {
    format!("user-{number}@example.org")
}

fn key(number: u64) -> ReplyKey {
    ReplyKey { scope: "sign-up".into(), key: format!("key-{number}").into() }
}

/// A sign-up: an event with a tag, a value of state, a reply, and progress.
fn sign_up(number: u64) -> Batch {
    let mut batch = batch(&address(number));
    batch.state.push(StateChange {
        key: address(number),
        value: Some(json!({ "number": number })),
        expect: Expect::Any,
        time_to_live: None,
    });
    batch.reply = Some(StoredReply {
        key: key(number),
        fingerprint: Fingerprint([7; 16]),
        body: Some(format!("{number}").into()),
        event_name: None,
    });
    let done = Some(Position::new(2 * number + 5));
    batch.progress.push(ProgressChange { subscription: welcome(), up_to: None, done });
    batch
}

fn welcome() -> SubscriptionId {
    SubscriptionId::new("Email.1.welcome")
}

/// Everything that is asked, one answer after the other.
async fn answers(store: &SqliteStore) -> Vec<Result<String, StoreError>> {
    let mut found = Vec::new();
    for number in 0..ADDRESSES {
        let query = Query::tag("thing", address(number)).of_tenant(None);
        let view = async { store.read_view(&query, Position::START).await?.all().await };
        found.push(view.await.map(|view| format!("{view:?}")));
        found.push(store.state(None, &[address(number)]).await.map(|state| format!("{state:?}")));
        found.push(store.reply(None, &key(number)).await.map(|reply| format!("{reply:?}")));
    }
    let log = store.read(&Query::all(), Position::START, Direction::Forwards, 1_000).await;
    found.push(log.map(|events| format!("{events:?}")));
    found.push(store.subscription(&welcome()).await.map(|record| format!("{record:?}")));
    found
}

/// Copies the files of a store, as a crash of its process would leave them.
fn copy(from: &Path, to: &Path) {
    for ending in ["", "-wal", ".sums"] {
        let name = |file: &Path| format!("{}{ending}", file.display());
        if std::fs::exists(name(from)).unwrap() {
            std::fs::copy(name(from), name(to)).unwrap();
        }
    }
}

/// A store whose older half lies in the data file and whose newer half lies in the write-ahead log; and a copy of it.
async fn crashed() -> (Folder, Vec<String>) {
    let folder = Folder::new();
    let original = folder.path().join("original.db");
    for half in [0..ADDRESSES / 2, ADDRESSES / 2..ADDRESSES] {
        let store = SqliteStore::open(&original).unwrap();
        for number in half {
            store.commit(sign_up(number)).await.unwrap();
        }
        copy(&original, &folder.file());
        store.close().await.unwrap();
    }
    let copy_of = folder.path().join("undamaged.db");
    copy(&folder.file(), &copy_of);
    let store = SqliteStore::open(&copy_of).unwrap();
    let right = answers(&store).await.into_iter().map(Result::unwrap).collect();
    store.close().await.unwrap();
    (folder, right)
}

/// The same numbers each time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

fn flip(file: &Path, numbers: &mut Numbers) -> String {
    let mut bytes = std::fs::read(file).unwrap();
    let at = numbers.below(bytes.len() as u64);
    let bit = numbers.below(8);
    bytes[usize::try_from(at).unwrap()] ^= 1 << bit;
    std::fs::write(file, bytes).unwrap();
    format!("bit {bit} of byte {at} of {}", file.display())
}

#[tokio::test]
async fn a_flipped_bit_gives_an_error_and_never_a_wrong_answer() {
    let (folder, right) = crashed().await;
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let (mut errors, mut wrong) = (0, Vec::new());
    for round in 0..FLIPS {
        let damaged = folder.path().join(format!("damaged-{round}.db"));
        copy(&folder.file(), &damaged);
        let log = format!("{}-wal", damaged.display());
        let what = flip(if round % 2 == 0 { &damaged } else { Path::new(&log) }, &mut numbers);
        let checked = {
            let reader = SqliteStore::open_read_only(&damaged);
            match reader {
                Ok(reader) => {
                    let found = reader.check().await;
                    reader.close().await.unwrap();
                    found.is_err_and(|error| error.kind() == StoreErrorKind::Corrupt)
                        || SqliteStore::open_read_only(&damaged)
                            .unwrap()
                            .check()
                            .await
                            .is_ok_and(|found| !found.is_empty())
                }
                Err(_) => true,
            }
        };
        let store = match SqliteStore::open(&damaged) {
            Ok(store) => store,
            Err(error) => {
                assert!(checked, "{what}: an opening fails, and a check finds nothing: {error}");
                errors += 1;
                continue;
            }
        };
        for (answer, right) in answers(&store).await.into_iter().zip(&right) {
            match answer {
                Ok(answer) if answer != *right => wrong.push(format!("{what}: {answer} is not {right}")),
                _ => {}
            }
        }
        store.close().await.unwrap();
    }
    assert!(wrong.is_empty(), "{} wrong answers:\n{}", wrong.len(), wrong.join("\n"));
    assert!(errors > FLIPS / 4, "the flips met {errors} times what matters");
}

#[tokio::test]
async fn a_lost_end_of_the_log_is_found_by_the_opening_and_the_check() {
    let (folder, _) = crashed().await;
    let log = format!("{}-wal", folder.file().display());
    let bytes = std::fs::read(&log).unwrap();
    for left in [0, 32, bytes.len() / 2] {
        std::fs::write(&log, &bytes[..left]).unwrap();
        let before = std::fs::read(folder.file()).unwrap();
        let reader = SqliteStore::open_read_only(folder.file()).unwrap();
        let found = reader.check().await.unwrap();
        reader.close().await.unwrap();
        assert!(found.iter().any(|line| line.contains("were acknowledged")), "{left}: {found:?}");
        let error = SqliteStore::open(folder.file()).unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{error}");
        assert!(error.to_string().contains("purista store restore"), "{error}");
        assert!(std::fs::read(folder.file()).unwrap() == before, "a refused file is left as it is");
        assert!(std::fs::read(&log).unwrap() == bytes[..left], "and so is its log");
    }
    std::fs::write(&log, &bytes).unwrap();
    let store = SqliteStore::open(folder.file()).unwrap();
    assert_eq!(store.head().borrow().number(), ADDRESSES);
}

#[tokio::test]
async fn a_missing_data_file_does_not_become_a_new_store() {
    let folder = Folder::new();
    SqliteStore::open(folder.file()).unwrap().close().await.unwrap();
    std::fs::remove_file(folder.file()).unwrap();
    let error = SqliteStore::open(folder.file()).unwrap_err();
    assert!(error.to_string().contains("the data file is missing"), "{error}");
    assert!(!folder.file().exists());
    folder.forget_sums();
    SqliteStore::open(folder.file()).unwrap();
}

/// Checkpoints of every kind, with commits between them, and each state of the files as a crash would leave it.
#[tokio::test]
async fn what_a_crash_leaves_at_any_commit_opens() {
    let folder = Folder::new();
    let store = SqliteStore::builder(folder.file()).checkpoint_pages(3).open().unwrap();
    let reader = rusqlite::Connection::open(folder.file()).unwrap();
    for number in 0..60 {
        // For a while a reader holds the log back.
        match number {
            20 => reader.execute_batch("BEGIN; SELECT count(*) FROM events").unwrap(),
            40 => reader.execute_batch("COMMIT").unwrap(),
            _ => {}
        }
        store.commit(sign_up(number)).await.unwrap();
        let left = folder.path().join(format!("left-{number}.db"));
        copy(&folder.file(), &left);
        // A checkpoint may run while its files are copied, which no crash does to them.
        let opened = SqliteStore::open(&left);
        if let Ok(opened) = opened {
            assert_eq!(opened.head().borrow().number(), number + 1);
            assert_eq!(opened.check().await.unwrap(), [""; 0]);
            opened.close().await.unwrap();
        } else {
            std::thread::yield_now();
            copy(&folder.file(), &left);
            SqliteStore::open(&left).unwrap().close().await.unwrap();
        }
    }
    drop(reader);
    store.close().await.unwrap();
    let store = SqliteStore::open(folder.file()).unwrap();
    assert_eq!(store.check().await.unwrap(), [""; 0]);
}
