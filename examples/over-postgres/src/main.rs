//! Any number of processes on one Postgres, which share the work.
//!
//! ```sh
//! cargo run -p over-postgres -- work
//! cargo run -p over-postgres -- work
//! cargo run -p over-postgres -- order 100
//! ```
//!
//! One of those that work mails, one counts, and it may be the same. End it with `kill -9`, and the other goes on.

use std::time::Duration;

use clap::{Parser, Subcommand};
use purista::Host;
use purista_events::position::Position;
use purista_events::query::Query;
use purista_events::store::{Direction, EventStore as _};
use purista_postgres::store::PostgresStore;
use purista_telemetry::telemetry::{self, Telemetry};

mod orders;

use orders::Order;

/// Behind everything that is recorded.
const END: Position = Position::new(i64::MAX as u64);
/// How long a process waits until its own order is counted, wherever that is done.
const COUNTED_WITHIN: Duration = Duration::from_secs(30);

/// Any number of processes on one Postgres, which share the work.
#[derive(Debug, Parser)]
struct Arguments {
    /// The database.
    #[arg(long, default_value = "postgres://postgres@localhost/postgres", global = true)]
    store: String,
    /// The schema in it.
    #[arg(long, default_value = "orders", global = true)]
    schema: String,
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Mails and counts, whenever it is this process's turn.
    Work,
    /// Takes so many orders, one after another.
    Order {
        /// How many.
        count: u32,
    },
    /// Takes one order, asked for many times at once under one key, and prints each answer.
    OrderOnce {
        /// The key.
        key: String,
        /// How many ask.
        callers: u32,
    },
    /// Takes one order and waits until it is counted.
    OrderAndLook,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Arguments { store, schema, role } = Arguments::parse();
    let _telemetry = telemetry::init(Telemetry::from_env()?.service("over-postgres"))?;
    let store = PostgresStore::builder(&store).schema(&schema).connect().await?;
    let host = Host::builder().store(store.clone());
    match role {
        Role::Work => {
            let host = host.service(orders::service()).service(orders::mail());
            let host = host.projection(store.projected(orders::counted())).start().await?;
            println!("ready");
            Ok(host.run().await?)
        }
        Role::Order { count } => {
            // It serves the command, and leaves the rest to those that work.
            let host = host.service(orders::service()).start().await?;
            for _ in 0..count {
                host.client().invoke(Order { thing: "book".to_owned() }).await?;
            }
            host.stop().await;
            Ok(())
        }
        Role::OrderOnce { key, callers } => {
            let host = host.service(orders::service()).start().await?;
            let client = host.client();
            let asking = (0..callers).map(|_| {
                let order = Order { thing: "book".to_owned() };
                client.call(order).idempotency_key(key.as_str()).send()
            });
            for taken in futures_util::future::try_join_all(asking).await? {
                println!("{}", taken.order);
            }
            host.stop().await;
            Ok(())
        }
        Role::OrderAndLook => {
            let host = host.service(orders::service());
            let host = host.projection(store.projected(orders::counted())).start().await?;
            host.client().invoke(Order { thing: "lamp".to_owned() }).await?;
            let last = store.read(&Query::all(), END, Direction::Backwards, 1).await?;
            let head = last.first().map_or(Position::START, |event| event.position);
            if let Some(counted) = host.projection("counted") {
                counted.reached(head, COUNTED_WITHIN).await?;
                let rows =
                    store.read_models().query("SELECT count FROM counted WHERE thing = 'lamp'", &[]).await?;
                let counts = rows.iter().map(|row| row.get::<_, i64>(0).to_string());
                println!("{} by another: {}", counts.collect::<String>(), counted.state().is_elsewhere);
            }
            host.stop().await;
            Ok(())
        }
    }
}
