//! The store on Postgres beside SQL by hand: one event a commit on a condition, from 64 callers and from one; the same with
//! followers beside it; and a replay of what was written beside a binary COPY.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bytes::Bytes;
use purista_benches::callers::{CALLERS, runtime, together};
use purista_benches::harness::{self, Spread, amount, rounds_asked, work};
use purista_benches::postgres::{Raw, Way, connect, copied};
use purista_core::address::{Address, AddressParts, ServiceId};
use purista_core::clock::Clock;
use purista_core::event::Tags;
use purista_core::message::Party;
use purista_core::text::Text;
use purista_events::batch::{Append, Batch, Condition};
use purista_events::position::{Position, ReadToken};
use purista_events::query::Query;
use purista_events::recorded::{Cause, NewEvent};
use purista_events::store::{EventStore as _, PAGE_MAX};
use purista_postgres::builder::WRITERS;
use purista_postgres::store::PostgresStore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A database in which everybody may make schemas.
const URL: &str = "postgres://postgres@127.0.0.1:5432/test?sslmode=disable";
const SCHEMAS: [&str; 2] = ["purista_bench", "purista_bench_raw"];
/// Commits in a round of 64 callers, and in a round of one.
const MANY: u64 = 12_800;
const FEW: u64 = 400;
const FOLLOWERS: usize = 4;
/// How long a body is, in bytes.
const BODY_BYTES: usize = 256;

static SENDER: AddressParts = AddressParts::known(ServiceId::new("Account", "1"), "open");

/// A server, and two stores on it of which one is written by hand.
struct Bench {
    store: PostgresStore,
    raw: Vec<Arc<Raw>>,
    watch: tokio_postgres::Client,
    tasks: TaskTracker,
    body: Bytes,
    next: Arc<AtomicU64>,
}

impl Bench {
    async fn new(url: &str) -> Result<Self> {
        let tasks = TaskTracker::new();
        let watch = connect(url, SCHEMAS[0], &tasks).await?;
        for schema in SCHEMAS {
            watch.batch_execute(&format!("DROP SCHEMA IF EXISTS {schema} CASCADE")).await?;
        }
        let store = PostgresStore::builder(url).schema(SCHEMAS[0]).connect().await?;
        PostgresStore::builder(url).schema(SCHEMAS[1]).connect().await?.close().await?;
        let mut raw = Vec::new();
        for _ in 0..WRITERS {
            raw.push(Arc::new(Raw::connect(url, SCHEMAS[1], &tasks).await?));
        }
        let body = format!("{{\"note\":\"{}\"}}", "n".repeat(BODY_BYTES - 11)).into();
        Ok(Self { store, raw, watch, tasks, body, next: Arc::new(AtomicU64::new(0)) })
    }

    /// Commits a second of as many callers, and how many of them came into one transaction.
    async fn ours(&self, commits: u64, callers: u64) -> Result<(f64, f64)> {
        let token = self.store.read_view(&Query::all(), Position::new(u64::MAX >> 1)).await?.token;
        let (first, each) = (self.next.fetch_add(commits, Ordering::Relaxed), commits / callers);
        let (store, body, turn) = (self.store.clone(), self.body.clone(), Arc::new(AtomicU64::new(0)));
        let start = Instant::now();
        let caller = move || {
            let (store, token, body) = (store.clone(), token.clone(), body.clone());
            let from = first + turn.fetch_add(1, Ordering::Relaxed) * each;
            async move {
                let clock = Clock::system();
                for nth in from..from + each {
                    store.commit(opened(&clock, nth, &token, &body)).await?;
                }
                Ok(())
            }
        };
        if callers == CALLERS {
            together(caller).await?;
        } else {
            // A task like those of the other side: what waits in `block_on` is woken from another thread each time.
            self.tasks.spawn(caller()).await??;
        }
        let rate = amount(commits) / start.elapsed().as_secs_f64();
        Ok((rate, amount(commits) / amount(self.transactions(commits).await?)))
    }

    /// In how many transactions the last commits were made.
    async fn transactions(&self, commits: u64) -> Result<u64> {
        let count = "SELECT count(DISTINCT position >> 14) FROM \
                     (SELECT position FROM events ORDER BY position DESC LIMIT $1) last";
        let row = self.watch.query_one(count, &[&commits.cast_signed()]).await?;
        Ok(row.try_get::<_, i64>(0)?.cast_unsigned())
    }

    /// The same by hand, on as many connections.
    async fn by_hand(&self, way: Way, commits: u64, group: f64, connections: usize) -> Result<f64> {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a group is small")]
        let group = group.round().max(1.0) as u64;
        let each = commits / connections as u64;
        let start = Instant::now();
        let mut running = Vec::new();
        for raw in self.raw.iter().take(connections) {
            let (raw, body) = (Arc::clone(raw), self.body.clone());
            let from = self.next.fetch_add(each, Ordering::Relaxed);
            running
                .push(self.tasks.spawn(async move { raw.write(way, from, from + each, group, &body).await }));
        }
        for one in running {
            one.await??;
        }
        Ok(amount(commits) / start.elapsed().as_secs_f64())
    }

    /// Follows the log from its end until it is stopped.
    fn follow(&self, stop: &CancellationToken) {
        let (store, stop) = (self.store.clone(), stop.clone());
        self.tasks.spawn(async move {
            let mut head = store.head();
            let mut at = *head.borrow_and_update();
            while let Some(Ok(())) = stop.run_until_cancelled(head.changed()).await {
                while let Ok(page) = store.follow(&Query::all(), at, PAGE_MAX).await {
                    at = page.looked_up_to;
                    if page.is_caught_up {
                        break;
                    }
                }
            }
        });
    }

    /// Reads the log from its first event to its end, and gives how many there are.
    async fn replay(&self) -> Result<(u64, Duration)> {
        let start = Instant::now();
        let (mut at, mut events) = (Position::START, 0);
        loop {
            let page = self.store.follow(&Query::all(), at, PAGE_MAX).await?;
            events += page.events.len() as u64;
            at = page.looked_up_to;
            if page.is_caught_up {
                return Ok((events, start.elapsed()));
            }
        }
    }
}

/// An account is opened, unless there is one of this number.
fn opened(clock: &Clock, nth: u64, token: &ReadToken, body: &Bytes) -> Batch {
    let cause = Cause {
        sender: Party::anywhere(Address::known(&SENDER)),
        principal_id: None,
        trace_id: clock.id(),
        trace: None,
        correlation_id: None,
        causation_id: None,
        hops: 0,
    };
    let event = NewEvent {
        id: clock.id(),
        name: Text::from("opened"),
        version: 1,
        tags: Tags::new().with("account", nth),
        body: body.clone(),
        cause,
    };
    let query = Query::tag("account", nth.to_string()).of_tenant(None);
    let mut batch = Batch::new(clock.id(), None);
    batch.appends.push(Append { events: vec![event], condition: Condition::Unless(query, token.clone()) });
    batch
}

fn show(name: &str, figures: &[f64], places: usize) -> Result<()> {
    harness::show(name, Spread::of(figures.iter().copied()), places)
}

fn ratios(ours: &[f64], others: &[f64]) -> Vec<f64> {
    ours.iter().zip(others).map(|(one, other)| one / other).collect()
}

fn main() -> Result<()> {
    let rounds = rounds_asked(7)?;
    let mut arguments = std::env::args().skip_while(|argument| argument != "--server").skip(1);
    let url = arguments.next().unwrap_or_else(|| URL.to_owned());
    runtime()?.block_on(async {
        let bench = Bench::new(&url).await?;
        commits(&bench, rounds, work(MANY), CALLERS, WRITERS).await?;
        commits(&bench, rounds, work(FEW), 1, 1).await?;
        followers(&bench, rounds).await?;
        replays(&bench, rounds).await?;
        bench.store.close().await?;
        for schema in SCHEMAS {
            bench.watch.batch_execute(&format!("DROP SCHEMA {schema} CASCADE")).await?;
        }
        Ok(())
    })
}

async fn commits(bench: &Bench, rounds: usize, commits: u64, callers: u64, connections: usize) -> Result<()> {
    let mut group = bench.ours(commits, callers).await?.1;
    bench.by_hand(Way::Checked, commits, group, connections).await?;
    let (mut ours, mut checked, mut unchecked, mut groups) = (vec![], vec![], vec![], vec![]);
    for round in 0..rounds {
        for turn in 0..3 {
            match (turn + round) % 3 {
                0 => {
                    let (rate, of) = bench.ours(commits, callers).await?;
                    ours.push(rate);
                    group = of;
                    groups.push(of);
                }
                1 => checked.push(bench.by_hand(Way::Checked, commits, group, connections).await?),
                _ => unchecked.push(bench.by_hand(Way::Unchecked, commits, group, connections).await?),
            }
        }
    }
    println!("{commits} commits on a condition, {callers} callers, {rounds} rounds: median (min to max)");
    show("purista, a second", &ours, 0)?;
    show("batches a transaction", &groups, 1)?;
    show("by hand, same rows, check and grouping", &checked, 0)?;
    show("ratio", &ratios(&ours, &checked), 2)?;
    show("by hand, unnest without the check", &unchecked, 0)?;
    show("ratio", &ratios(&ours, &unchecked), 2)?;
    Ok(())
}

async fn followers(bench: &Bench, rounds: usize) -> Result<()> {
    let (mut alone, mut followed) = (vec![], vec![]);
    for round in 0..rounds * 2 {
        let stop = CancellationToken::new();
        let is_followed = (round + round / 2) % 2 == 0;
        if is_followed {
            (0..FOLLOWERS).for_each(|_| bench.follow(&stop));
        }
        let (rate, _) = bench.ours(work(MANY), CALLERS).await?;
        if is_followed {
            followed.push(rate);
        } else {
            alone.push(rate);
        }
        stop.cancel();
    }
    println!("the same with {FOLLOWERS} who follow, {rounds} rounds: median (min to max)");
    show("ratio to nobody following", &ratios(&followed, &alone), 2)?;
    Ok(())
}

async fn replays(bench: &Bench, rounds: usize) -> Result<()> {
    let (mut ours, mut by_copy) = (vec![], vec![]);
    let (events, _) = bench.replay().await?;
    ensure!(events > 0, "nothing was replayed");
    for round in 0..rounds {
        for turn in 0..2 {
            if (turn + round) % 2 == 0 {
                let (found, took) = bench.replay().await?;
                ensure!(found == events, "{found} events were replayed of {events}");
                ours.push(amount(found) / took.as_secs_f64());
            } else {
                by_copy.push(amount(events) / copied(&bench.watch).await?.as_secs_f64());
            }
        }
    }
    println!("{events} events replayed, undecoded, {rounds} rounds: median (min to max)");
    show("purista, a second", &ours, 0)?;
    show("binary COPY, a second", &by_copy, 0)?;
    show("ratio", &ratios(&ours, &by_copy), 2)?;
    Ok(())
}
