//! Durable sign-ups on SQLite, 64 callers: each records its event and writes a state, and a durable subscription hears of
//! it; beside raw rusqlite that writes the same rows in groups of the same size. Then it counts how often the disk syncs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use garde::Validate;
use purista::command::command;
use purista::context::Context;
use purista::host::Host;
use purista::service::Service;
use purista::subscription::subscription;
use purista_benches::callers::{CALLERS, runtime, together};
use purista_benches::folder::Folder;
use purista_benches::harness::{SMOKE, Spread, amount, is_smoke, rounds_asked, show, work};
use purista_benches::raw::Rows;
use purista_core::address::ServiceId;
use purista_core::contract::Command as Asked;
use purista_core::error::HandlerError;
use purista_core::event::{Event, Tags};
use purista_sqlite::statistics::Statistics;
use purista_sqlite::store::SqliteStore;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

const USER: ServiceId = ServiceId::new("User", "1");
const EMAIL: ServiceId = ServiceId::new("Email", "1");

/// How many sign-ups each caller asks for in one round.
const SIGN_UPS: u64 = 200;

fn all() -> u64 {
    CALLERS * work(SIGN_UPS)
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
struct SignUp {
    #[garde(length(min = 3, max = 120))]
    email: String,
    #[garde(length(min = 1, max = 80))]
    name: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase")]
struct NewUserRegistered {
    #[garde(length(min = 32, max = 32))]
    user_id: String,
    #[garde(length(min = 1, max = 80))]
    name: String,
}

#[derive(Debug, Serialize)]
struct Account {
    email: String,
    name: String,
}

impl Asked for SignUp {
    const SERVICE: ServiceId = USER;
    const NAME: &'static str = "userSignUp";
    type Output = NewUserRegistered;
}

impl Event for NewUserRegistered {
    const NAME: &'static str = "newUserRegistered";

    fn tags(&self) -> Tags {
        Tags::new().with("user", &self.user_id)
    }
}

async fn user_sign_up(
    ctx: Context<()>,
    SignUp { email, name }: SignUp,
) -> Result<NewUserRegistered, HandlerError> {
    let user_id = ctx.new_id().to_string();
    ctx.state().set(&user_id, &Account { email, name: name.clone() })?;
    Ok(NewUserRegistered { user_id, name })
}

/// Counts what was heard.
#[derive(Debug, Default)]
struct Welcomed {
    users: AtomicU64,
    all: Notify,
}

async fn welcome(ctx: Context<Arc<Welcomed>>, _event: NewUserRegistered) -> Result<(), HandlerError> {
    if ctx.resources().users.fetch_add(1, Ordering::Relaxed) + 1 == all() {
        ctx.resources().all.notify_one();
    }
    Ok(())
}

/// What one round of purista showed.
struct Round {
    answered: Duration,
    heard: Duration,
    statistics: Statistics,
}

async fn sign_ups(file: &Path) -> Result<Round> {
    let store = SqliteStore::open(file)?;
    let welcomed = Arc::new(Welcomed::default());
    let users = Service::builder(USER, "Accounts", ()).command(command(user_sign_up).success_event());
    let mails = Service::builder(EMAIL, "Mails", Arc::clone(&welcomed))
        .subscription(subscription("welcome", welcome).durable());
    let host = Host::builder().store(store.clone()).service(users.build()).service(mails.build());
    let host = host.start().await?;
    let client = host.client();
    let start = Instant::now();
    together(|| {
        let client = client.clone();
        async move {
            for nth in 0..work(SIGN_UPS) {
                let email = format!("ada{nth}@example.com");
                client.invoke(SignUp { email, name: "Ada Lovelace".to_owned() }).await?;
            }
            Ok(())
        }
    })
    .await?;
    let answered = start.elapsed();
    welcomed.all.notified().await;
    let heard = start.elapsed();
    let statistics = store.statistics();
    host.stop().await;
    Ok(Round { answered, heard, statistics })
}

/// An empty file with all tables.
async fn empty(folder: &Folder) -> Result<PathBuf> {
    use purista_events::store::EventStore as _;
    SqliteStore::open(folder.file())?.close().await?;
    Ok(folder.file())
}

fn grouped(statistics: Statistics) -> f64 {
    amount(statistics.commits) / amount(statistics.groups)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a size of a group is small and positive"
)]
fn group_size(statistics: Statistics) -> usize {
    grouped(statistics).round() as usize
}

/// Runs both by turns.
async fn measure(rounds: usize) -> Result<()> {
    let folder = Folder::new("first")?;
    let mut statistics = sign_ups(&folder.file()).await?.statistics;
    let rows = Rows::of(&folder.file())?;
    drop(folder);
    let (mut ours, mut answered, mut raw, mut groups) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        let (one, other) = (Folder::new("purista")?, Folder::new("raw")?);
        let file = empty(&other).await?;
        let write = || -> Result<f64> {
            let took = rows.write(&file, group_size(statistics), false)?;
            Ok(amount(all()) / took.as_secs_f64())
        };
        if round % 2 == 1 {
            raw.push(write()?);
        }
        let signed_up = sign_ups(&one.file()).await?;
        ours.push(amount(all()) / signed_up.heard.as_secs_f64());
        answered.push(amount(all()) / signed_up.answered.as_secs_f64());
        groups.push(grouped(signed_up.statistics));
        if round % 2 == 0 {
            raw.push(write()?);
        }
        statistics = signed_up.statistics;
    }
    let ratio = Spread::of(ours.iter().zip(&raw).map(|(one, other)| one / other));
    let all = all();
    println!("{all} durable sign-ups, {CALLERS} callers, {rounds} rounds: median (min to max)");
    show("purista, answered and heard, a second", Spread::of(ours.into_iter()), 0)?;
    show("purista, answered, a second", Spread::of(answered.into_iter()), 0)?;
    show("raw rusqlite, same rows and grouping, a second", Spread::of(raw.into_iter()), 0)?;
    show("ratio (answered and heard)", ratio, 2)?;
    show("commits a group", Spread::of(groups.into_iter()), 1)?;
    println!("commits of progress: {} beside {all} of sign-ups", rows.batches() as u64 - all);
    Ok(())
}

/// Runs one round of this program under strace, and reads how often it synced.
fn count_syncs() -> Result<()> {
    let report = std::env::temp_dir().join(format!("purista-benches-{}.strace", std::process::id()));
    let mut strace = Command::new("strace");
    strace.args(["-f", "-c", "-e", "trace=fsync,fdatasync", "-o"]).arg(&report);
    strace.arg(std::env::current_exe()?).arg("--once");
    if is_smoke() {
        strace.arg(SMOKE);
    }
    let output = match strace.output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!("this needs the program strace: `apt-get install strace`")
        }
        output => output.context("start strace")?,
    };
    ensure!(output.status.success(), "strace failed: {}", String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(&report)?;
    std::fs::remove_file(&report)?;
    let calls = |name: &str| {
        let line = text.lines().find(|line| line.split_whitespace().last() == Some(name));
        line.and_then(|line| line.split_whitespace().nth(3)?.parse::<u64>().ok()).unwrap_or(0)
    };
    let (fsync, fdatasync) = (calls("fsync"), calls("fdatasync"));
    let per_sync = amount(all()) / amount(fsync + fdatasync);
    println!(
        "{} sign-ups under strace: {fsync} fsync and {fdatasync} fdatasync in the whole run, {per_sync:.1} sign-ups each; {}",
        all(),
        String::from_utf8_lossy(&output.stdout).trim()
    );
    Ok(())
}

fn main() -> Result<()> {
    let rounds = rounds_asked(9)?;
    if std::env::args().any(|argument| argument == "--once") {
        let folder = Folder::new("once")?;
        let round = runtime()?.block_on(sign_ups(&folder.file()))?;
        println!("{:?}", round.statistics);
        return Ok(());
    }
    runtime()?.block_on(measure(rounds))?;
    count_syncs()
}
