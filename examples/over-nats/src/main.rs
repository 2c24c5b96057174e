//! Two services in two processes over NATS, and a third process that asks.
//!
//! ```sh
//! cargo run -p over-nats -- user
//! cargo run -p over-nats -- email
//! cargo run -p over-nats -- sign-up ada@example.com Ada
//! ```

use clap::{Parser, Subcommand};
use purista::{Address, CALLS_IN_FLIGHT_DEFAULT, Client, Clock, EventBridge, Host, Id, Service, ServiceId};
use purista_nats::bridge::NatsBridge;
use purista_telemetry::telemetry::{self, Telemetry};

mod services;

const CALLER: ServiceId = ServiceId::new("Caller", "1");

/// Two services in two processes over NATS, and a third process that asks.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where the NATS server listens.
    #[arg(long, default_value = "nats://127.0.0.1:4222", global = true)]
    nats: String,
    /// How this process calls itself among the others; a random name when absent.
    #[arg(long, global = true)]
    instance: Option<String>,
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Runs the service User, which answers.
    User,
    /// Runs the service Email, which listens.
    Email,
    /// Asks for an account and prints the answer.
    SignUp {
        /// The e-mail address.
        email: String,
        /// The name.
        name: String,
        /// The flow that it belongs to; a new one when absent.
        #[arg(long)]
        trace_id: Option<String>,
    },
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let _telemetry = telemetry::init(Telemetry::from_env()?.service("over-nats"))?;
    let mut bridge = NatsBridge::builder(&arguments.nats);
    if let Some(instance) = arguments.instance {
        bridge = bridge.instance(instance);
    }
    let bridge = bridge.connect().await?;
    match arguments.role {
        Role::User => run(bridge, services::user()).await,
        Role::Email => run(bridge, services::email()).await,
        Role::SignUp { email, name, trace_id } => {
            ask(bridge, services::SignUp { email, name }, trace_id).await
        }
    }
}

async fn run(bridge: NatsBridge, service: Service) -> anyhow::Result<()> {
    let name = service.id();
    let host = Host::builder().bridge(bridge).service(service).start().await?;
    println!("{name} is ready");
    Ok(host.run().await?)
}

async fn ask(bridge: NatsBridge, command: services::SignUp, trace_id: Option<String>) -> anyhow::Result<()> {
    let bridge = std::sync::Arc::new(bridge);
    let sender = Address::of(CALLER, "main");
    let client = Client::new(bridge.clone(), sender, Clock::system(), CALLS_IN_FLIGHT_DEFAULT);
    let mut call = client.call(command);
    if let Some(trace_id) = trace_id {
        call = call.trace_id(Id::parse(&trace_id)?);
    }
    println!("{}", call.send().await?.user_id);
    bridge.close().await?;
    Ok(())
}
