//! A view of 100 events on SQLite, without and with a snapshot, beside a raw select whose bodies serde decodes.

use anyhow::{Context as _, Result, ensure};
use garde::Validate;
use purista_benches::callers::runtime;
use purista_benches::folder::Folder;
use purista_benches::given::recorded;
use purista_benches::harness::{Contestant, compare, rounds_asked, work};
use purista_core::address::{AddressParts, ServiceId};
use purista_core::event::{Event, Tags};
use purista_events::reading::{Moment, Reader, keep};
use purista_events::view::{View, every, view};
use purista_sqlite::store::SqliteStore;
use rusqlite::{Connection, OpenFlags};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How many events the view has.
const EVENTS: u64 = 100;
/// How many streams there are beside each other.
const STREAMS: u64 = 64;
/// How often it is read in one round.
const LOADS: u64 = 2_000;

static SENDER: AddressParts = AddressParts::known(ServiceId::new("Account", "1"), "book");

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[garde(allow_unvalidated)]
struct Booked {
    account: u64,
    amount: i64,
    text: String,
}

impl Event for Booked {
    const NAME: &'static str = "booked";

    fn tags(&self) -> Tags {
        Tags::new().with("account", self.account)
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Balance {
    amount: i64,
    bookings: u64,
}

impl Balance {
    fn book(&mut self, booked: &Booked) {
        self.amount += booked.amount;
        self.bookings += 1;
    }
}

fn balance(account: u64) -> View<Balance> {
    view(Balance::default()).tagged("account", account).on(|balance, booked: Booked| balance.book(&booked))
}

async fn fill(store: &SqliteStore) -> Result<()> {
    for nth in 0..EVENTS {
        let text = || format!("the booking with the number {nth}");
        let booked = (0..STREAMS).map(|account| Ok(Booked { account, amount: 7, text: text() }));
        recorded(store, &SENDER, booked).await?;
    }
    Ok(())
}

fn raw(connection: &Connection, account: u64) -> Result<Balance> {
    let select = "SELECT e.body FROM tags t JOIN events e ON e.position = t.position \
                  WHERE t.name = 'account' AND t.value = ?1 AND t.tenant = '' ORDER BY t.position";
    let mut statement = connection.prepare_cached(select)?;
    let mut rows = statement.query([account.to_string()])?;
    let mut balance = Balance::default();
    while let Some(row) = rows.next()? {
        let body = row.get_ref(0)?.as_bytes()?;
        balance.book(&serde_json::from_slice(body)?);
    }
    Ok(balance)
}

fn main() -> Result<()> {
    let rounds = rounds_asked(9)?;
    runtime()?.block_on(async {
        let folder = Folder::new("load")?;
        let store = SqliteStore::open(folder.file())?;
        fill(&store).await?;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(folder.file(), flags)?;
        let named = |account| balance(account).snapshot("balance", 1, every(10));
        for account in 0..STREAMS {
            let seen = Reader::new(&store).read(named(account), Moment::Now).await?;
            keep(&store, seen.due_snapshots).await;
        }
        let again = Reader::new(&store).read(named(1), Moment::Now).await?;
        ensure!(again.events_read == 0, "a snapshot was not used");
        let (store, loads) = (&store, work(LOADS));
        let contestants = vec![
            Contestant::new("purista, a view of 100 events", loads, move || {
                Box::pin(async move {
                    for nth in 0..loads {
                        check(&Reader::new(store).read(balance(nth % STREAMS), Moment::Now).await?.state)?;
                    }
                    Ok(())
                })
            }),
            Contestant::new("the same, with a snapshot", loads, move || {
                Box::pin(async move {
                    for nth in 0..loads {
                        check(&Reader::new(store).read(named(nth % STREAMS), Moment::Now).await?.state)?;
                    }
                    Ok(())
                })
            }),
            // A connection stays with its thread, so its work is done before the future.
            Contestant::new("raw select, serde_json", loads, move || {
                let read = (0..loads).try_for_each(|nth| check(&raw(&connection, nth % STREAMS)?));
                Box::pin(std::future::ready(read))
            }),
        ];
        let comparison = compare(rounds, contestants).await?;
        println!("{}", comparison.table("A view of 100 events on SQLite, read by one", 0));
        let gain = comparison.ratio(1, 0);
        println!("with a snapshot, beside without: {:.1} ({:.1} to {:.1})", gain.median, gain.min, gain.max);
        Ok(())
    })
}

fn check(found: &Balance) -> Result<()> {
    (found.bookings == EVENTS).then_some(()).context("a view without some of its events")
}
