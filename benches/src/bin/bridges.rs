//! Our bridges between two processes beside the bare client of each broker: a command from 64 callers and from one, an event
//! for three subscriptions, and publications that a stream keeps.
//!
//! The second process is this program once more: `--serve ours|bare --at URL --events N`.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::FutureExt as _;
use purista_benches::bare::{amqp, mqtt, nats};
use purista_benches::between::{self, Caller, Ours, Second, say, until_left};
use purista_benches::callers::{CALLERS, runtime, so_many};
use purista_benches::harness::{Contestant, Spread, compare, rounds_asked, work};
use purista_benches::registered::{Heard, UserRegistered};
use purista_benches::sign_up::SignUp;
use purista_servers::mosquitto::Mosquitto;
use purista_servers::nats::NatsServer;
use purista_servers::rabbitmq::RabbitMq;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;

const BROKERS: [&str; 3] = ["nats", "amqp", "mqtt"];
/// How many events may be on their way while they are told: as many as there are callers.
const WINDOW: u64 = CALLERS;
/// How long a round may take.
const ROUND_MAX: Duration = Duration::from_secs(60);

/// How much is done in a round, so that one takes about half a second.
#[derive(Debug, Clone, Copy)]
struct Amounts {
    /// By each of 64 callers.
    together: u64,
    /// By one caller.
    alone: u64,
    /// By each of 64 who tell; fewer in all than wait for one subscription.
    told: u64,
}

impl Amounts {
    /// These, or a hundredth of them in a smoke run.
    fn asked(self) -> Self {
        Self { together: work(self.together), alone: work(self.alone), told: work(self.told) }
    }
}

const NATS: Amounts = Amounts { together: 150, alone: 2_000, told: 100 };
const AMQP: Amounts = Amounts { together: 40, alone: 400, told: 50 };
const MQTT: Amounts = Amounts { together: 80, alone: 1_000, told: 80 };

/// A client, and the process that answers it.
struct Pair<C> {
    name: &'static str,
    caller: C,
    second: Arc<Mutex<Second>>,
}

impl<C: Caller> Pair<C> {
    async fn start(side: &str, name: &'static str, url: &str, caller: C, amounts: Amounts) -> Result<Self> {
        let events = (amounts.told * WINDOW).to_string();
        let second = Second::start(&["--serve", side, "--at", url, "--events", &events]).await;
        let second = second.with_context(|| format!("the second process of {name}"))?;
        Ok(Self { name, caller, second: Arc::new(Mutex::new(second)) })
    }

    /// So many callers that ask so often each.
    fn asking(&self, callers: u64, questions: u64) -> Contestant<'static> {
        let caller = self.caller.clone();
        Contestant::new(self.name, callers * questions, move || {
            let caller = caller.clone();
            let asking = move || {
                let caller = caller.clone();
                async move {
                    for _ in 0..questions {
                        ensure!(caller.ask(SignUp::sample()).await?.user_id > 0, "an answer of nobody");
                    }
                    Ok(())
                }
            };
            in_time(so_many(callers, asking)).boxed()
        })
    }

    /// Events told by many at a time, until the other process has heard them three times each.
    fn telling(&self, events_each: u64) -> Contestant<'static> {
        let (caller, second) = (self.caller.clone(), Arc::clone(&self.second));
        self.heard(events_each, move || telling(caller.clone(), events_each).boxed(), second)
    }

    fn heard(
        &self,
        events_each: u64,
        tell: impl Fn() -> futures_util::future::BoxFuture<'static, Result<()>> + Send + Sync + 'static,
        second: Arc<Mutex<Second>>,
    ) -> Contestant<'static> {
        let tell = Arc::new(tell);
        Contestant::new(self.name, events_each * WINDOW, move || {
            let (tell, second) = (Arc::clone(&tell), Arc::clone(&second));
            async move {
                in_time(tell()).await?;
                second.lock().await.says("heard").await
            }
            .boxed()
        })
    }
}

/// A bare client waits for ever for what was lost.
async fn in_time(round: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::time::timeout(ROUND_MAX, round).await.context("something was lost: the round does not end")?
}

async fn telling(caller: impl Caller, events_each: u64) -> Result<()> {
    let telling = move || {
        let caller = caller.clone();
        async move {
            for _ in 0..events_each {
                caller.tell(UserRegistered::sample()).await?;
            }
            Ok(())
        }
    };
    so_many(WINDOW, telling).await
}

/// A table, and whether the goal is reached by the ratio to the last contestant.
async fn shown(title: &str, goal: f64, rounds: usize, contestants: Vec<Contestant<'_>>) -> Result<()> {
    let count = contestants.len();
    let comparison = compare(rounds, contestants).await.with_context(|| format!("not measured: {title}"))?;
    println!("{}", comparison.table(title, 0));
    for other in 1..count {
        let Spread { min, median, max } = comparison.ratio(0, other);
        let is_reached = if median >= goal { "reached" } else { "not reached" };
        println!("goal {goal}: {is_reached}, {median:.2} ({min:.2} to {max:.2})\n");
    }
    Ok(())
}

/// Commands at 64 callers and at one, and events for three subscriptions.
async fn shown_of<B: Caller>(
    broker: &str,
    goals: [f64; 2],
    amounts: Amounts,
    rounds: usize,
    ours: &Pair<Ours>,
    bare: &Pair<B>,
) -> Result<()> {
    let Amounts { together, alone, .. } = amounts;
    let asking = |callers, each| vec![ours.asking(callers, each), bare.asking(callers, each)];
    let title = format!("{broker}: a command to another process, {CALLERS} callers");
    shown(&title, goals[0], rounds, asking(CALLERS, together)).await?;
    let title = format!("{broker}: a command to another process, one caller");
    shown(&title, goals[1], rounds, asking(1, alone)).await
}

fn events_title(broker: &str) -> String {
    format!("{broker}: an event for 3 subscriptions in another process")
}

async fn nats(rounds: usize) -> Result<()> {
    let server = started(NatsServer::start_with(&["--jetstream"])).await?;
    let (url, amounts) = (server.url(), NATS.asked());
    let ours = Pair::start("ours", "purista-nats", &url, Ours::at(&url).await?, amounts).await?;
    let caller = nats::Bare::connect(&url).await?;
    let bare = Pair::start("bare", "async-nats", &url, caller.clone(), amounts).await?;
    shown_of("NATS", [0.85, 0.95], amounts, rounds, &ours, &bare).await?;
    let second = Arc::clone(&bare.second);
    let by_echo = move || {
        let caller = caller.clone();
        async move { caller.tell_by_echo(amounts.told * WINDOW, WINDOW).await }.boxed()
    };
    let flushed = Pair {
        name: "async-nats, each only flushed",
        caller: bare.caller.clone(),
        second: Arc::clone(&second),
    };
    let echoed = Pair { name: "async-nats, an echo behind every 64", ..bare };
    let contestants = vec![
        ours.telling(amounts.told),
        flushed.telling(amounts.told),
        echoed.heard(amounts.told, by_echo, second),
    ];
    shown(&events_title("NATS"), 0.6, rounds, contestants).await?;

    let (kept, bare) = (Ours::with_streams(&url).await?, nats::WithStream::connect(&url).await?);
    let publishing = |name, tell: Box<dyn Fn() -> _>| Contestant::new(name, amounts.told * WINDOW, tell);
    let contestants = vec![
        publishing(
            "purista-nats with JetStream",
            Box::new(|| in_time(telling(kept.clone(), amounts.told)).boxed()),
        ),
        publishing(
            "async-nats, publish and its ack",
            Box::new(|| in_time(telling(bare.clone(), amounts.told)).boxed()),
        ),
    ];
    shown("NATS: a publication that a stream keeps, 64 under way", 0.8, rounds, contestants).await?;
    kept.close().await?;
    ours.caller.close().await
}

async fn amqp(rounds: usize) -> Result<()> {
    let server = started(RabbitMq::start()).await?;
    let (url, amounts, tasks) = (server.url(), AMQP.asked(), TaskTracker::new());
    let ours = Pair::start("ours", "purista-amqp", &url, Ours::at(&url).await?, amounts).await?;
    let bare = Pair::start("bare", "lapin", &url, amqp::Bare::connect(&url, &tasks).await?, amounts).await?;
    shown_of("AMQP", [0.9, 0.9], amounts, rounds, &ours, &bare).await?;
    let contestants = vec![ours.telling(amounts.told), bare.telling(amounts.told)];
    shown(&events_title("AMQP"), 0.6, rounds, contestants).await?;
    ours.caller.close().await
}

async fn mqtt(rounds: usize) -> Result<()> {
    let server = started(Mosquitto::start_in_memory()).await?;
    let (url, amounts, tasks) = (server.url(), MQTT.asked(), TaskTracker::new());
    let ours = Pair::start("ours", "purista-mqtt", &url, Ours::at(&url).await?, amounts).await?;
    let bare =
        Pair::start("bare", "rumqttc", &url, mqtt::Bare::connect(&url, &tasks).await?, amounts).await?;
    shown_of("MQTT", [0.9, 0.9], amounts, rounds, &ours, &bare).await?;
    let contestants = vec![ours.telling(amounts.told), bare.telling(amounts.told)];
    shown(&events_title("MQTT"), 0.6, rounds, contestants).await?;
    ours.caller.close().await
}

/// Starts a server; one that does not come up ends what is measured on it, and says why.
async fn started<S: Send + 'static>(starting: impl Future<Output = S> + Send + 'static) -> Result<S> {
    let mut task = JoinSet::new();
    task.spawn(starting);
    let server = task.join_next().await.context("nothing was started")?;
    server.context("the server did not start: is it installed? see `cargo xtask test`")
}

/// The second process: answers and hears until the first goes away.
async fn serve(side: &str, url: &str, events: u64) -> Result<()> {
    let heard = Heard::new(events, || say("heard"));
    if side == "ours" {
        let host = between::serve(url, &heard).await?;
        say("ready");
        until_left().await?;
        host.stop().await;
        return Ok(());
    }
    let serving = match url.split(':').next() {
        Some("nats") => nats::serve(url, &heard).await,
        Some("amqp") => amqp::serve(url, &heard).await,
        Some("mqtt") => mqtt::serve(url, &heard).await,
        _ => bail!("{url} is no broker's address"),
    };
    let mut serving = serving?;
    say("ready");
    tokio::select! {
        left = until_left() => left,
        Some(ended) = serving.join_next() => ended?.context("the bare side has ended"),
    }
}

fn argument(name: &str) -> Option<String> {
    std::env::args().skip_while(|argument| argument != name).nth(1)
}

async fn measure(rounds: usize, only: Option<&str>) -> Result<()> {
    let mut failed = 0;
    for broker in BROKERS {
        if only.is_some_and(|only| only != broker) {
            println!("{broker} is not measured: `--only` names another\n");
            continue;
        }
        let measured = match broker {
            "nats" => nats(rounds).await,
            "amqp" => amqp(rounds).await,
            _ => mqtt(rounds).await,
        };
        if let Err(error) = measured {
            println!("{broker} is not measured to its end: {error:#}\n");
            failed += 1;
        }
    }
    ensure!(failed == 0, "{failed} of {} brokers could not be measured", BROKERS.len());
    Ok(())
}

fn main() -> Result<()> {
    let runtime = runtime()?;
    let done = if let Some(side) = argument("--serve") {
        let url = argument("--at").context("`--serve` needs `--at URL`")?;
        let events = argument("--events").context("`--serve` needs `--events N`")?.parse()?;
        runtime.block_on(serve(&side, &url, events))
    } else {
        let (rounds, only) = (rounds_asked(11)?, argument("--only"));
        if let Some(only) = only.as_deref().filter(|only| !BROKERS.contains(only)) {
            bail!("`--only {only}`: it is one of {BROKERS:?}");
        }
        runtime.block_on(measure(rounds, only.as_deref()))
    };
    // Connections of bare clients have no other end.
    runtime.shutdown_background();
    done
}
