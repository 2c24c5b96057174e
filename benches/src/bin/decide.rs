//! Decisions on SQLite, 64 callers, each about something of its own: the boundary is read, the event recorded on the
//! condition that nothing was added; beside raw rusqlite that looks, checks and writes the same rows in groups of the same
//! size.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::Result;
use garde::Validate;
use purista::decide::decide;
use purista::host::Host;
use purista::service::Service;
use purista_benches::callers::{CALLERS, runtime, together};
use purista_benches::folder::Folder;
use purista_benches::harness::{Spread, amount, rounds_asked, show, work};
use purista_benches::raw::Rows;
use purista_core::address::ServiceId;
use purista_core::contract::Command;
use purista_core::error::HandlerError;
use purista_core::event::{Event, Tags};
use purista_events::store::EventStore as _;
use purista_events::view::{View, view};
use purista_sqlite::statistics::Statistics;
use purista_sqlite::store::SqliteStore;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const ACCOUNT: ServiceId = ServiceId::new("Account", "1");
/// How many decisions each caller asks for in one round.
const DECISIONS: u64 = 200;

fn all() -> u64 {
    CALLERS * work(DECISIONS)
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
struct Register {
    #[garde(length(min = 3, max = 120))]
    email: String,
    #[garde(length(min = 1, max = 80))]
    name: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
struct Registered {
    #[garde(length(min = 3, max = 120))]
    email: String,
    #[garde(length(min = 1, max = 80))]
    name: String,
}

impl Command for Register {
    const SERVICE: ServiceId = ACCOUNT;
    const NAME: &'static str = "register";
    type Output = Registered;
}

impl Event for Registered {
    const NAME: &'static str = "registered";

    fn tags(&self) -> Tags {
        Tags::new().with("email", &self.email)
    }
}

fn is_taken(command: &Register) -> View<bool> {
    view(false).tagged("email", &command.email).on(|is_taken, _: Registered| *is_taken = true)
}

fn register(Register { email, name }: Register, is_taken: bool) -> Result<Registered, HandlerError> {
    if is_taken {
        return Err(HandlerError::conflict("the e-mail is taken"));
    }
    Ok(Registered { email, name })
}

async fn decisions(file: &Path) -> Result<(f64, Statistics)> {
    let store = SqliteStore::open(file)?;
    let service = Service::builder(ACCOUNT, "Accounts", ()).command(decide(is_taken, register)).build();
    let host = Host::builder().store(store.clone()).service(service).start().await?;
    let client = host.client();
    let next = std::sync::Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    together(|| {
        let (client, next) = (client.clone(), next.clone());
        async move {
            for _ in 0..work(DECISIONS) {
                let email = format!("ada{}@example.com", next.fetch_add(1, Ordering::Relaxed));
                client.invoke(Register { email, name: "Ada Lovelace".to_owned() }).await?;
            }
            Ok(())
        }
    })
    .await?;
    let rate = amount(all()) / start.elapsed().as_secs_f64();
    let statistics = store.statistics();
    host.stop().await;
    Ok((rate, statistics))
}

fn main() -> Result<()> {
    let rounds = rounds_asked(9)?;
    runtime()?.block_on(measure(rounds))
}

async fn measure(rounds: usize) -> Result<()> {
    let folder = Folder::new("first")?;
    let (_, mut statistics) = decisions(&folder.file()).await?;
    let rows = Rows::of(&folder.file())?;
    drop(folder);
    let (mut ours, mut raw) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let (one, other) = (Folder::new("purista")?, Folder::new("raw")?);
        SqliteStore::open(other.file())?.close().await?;
        #[expect(clippy::cast_possible_truncation, reason = "the size of a group is small")]
        let group = (statistics.commits / statistics.groups.max(1)) as usize;
        let write = || -> Result<f64> {
            let took = rows.write(&other.file(), group, true)?;
            Ok(amount(all()) / took.as_secs_f64())
        };
        if round % 2 == 1 {
            raw.push(write()?);
        }
        let decided = decisions(&one.file()).await?;
        ours.push(decided.0);
        statistics = decided.1;
        if round % 2 == 0 {
            raw.push(write()?);
        }
    }
    let ratio = Spread::of(ours.iter().zip(&raw).map(|(one, other)| one / other));
    println!("{} decisions, {CALLERS} callers, {rounds} rounds: median (min to max)", all());
    for (name, spread, places) in [
        ("purista, decided and answered, a second", Spread::of(ours.into_iter()), 0),
        ("raw rusqlite, same rows, checks, grouping", Spread::of(raw.into_iter()), 0),
        ("ratio", ratio, 2),
    ] {
        show(name, spread, places)?;
    }
    println!("{statistics:?}");
    Ok(())
}
