//! Sign-up, end to end: a page, a command, an event, and a mail that no crash loses. In one process, or in three with a broker
//! between them.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::ExitCode;

use clap::Parser as _;
use purista::host::{HostBuilder, RunningHost};
use purista::{Host, Upcasters};
use purista_events::readers::{self, Readers, UnreadForm};
use purista_events::store::{EventStore, StoreError};
use purista_http::gateway::{DOCUMENT_PATH, Gateway};
use purista_http::limits::Limits;
use purista_postgres::store::PostgresStore;
use purista_sqlite::store::SqliteStore;
use purista_telemetry::telemetry::{self, Telemetry};

mod address;
mod broker;
mod contracts;
mod email;
mod mailer;
mod options;
mod page;
mod parts;
mod smtp;
mod user;

use contracts::{NewUserRegistered, SignUp};
use email::email_service;
use mailer::Mailer;
use options::{Keeping, Options};
use parts::{Part, Parts};
use user::{user_service, user_service_without_store};

#[tokio::main]
async fn main() -> ExitCode {
    match run(Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Not by `Result`: it would print a backtrace, too.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> anyhow::Result<()> {
    let _telemetry = telemetry::init(Telemetry::from_env()?.service("sign-up"))?;
    let (parts, broker) = (options.parts(), options.broker()?);
    if options.check {
        return match options.keeping() {
            Keeping::Nothing => anyhow::bail!("--check reads a store, and this process has none"),
            Keeping::Database(url) => {
                check(&PostgresStore::builder(&url).without_migrations().connect().await?).await
            }
            Keeping::File(file) => check(&SqliteStore::open_read_only(file)?).await,
        };
    }
    let mut places = String::new();
    if let Some(broker) = &broker {
        writeln!(places, "bridge   {broker}: {}", broker.promise())?;
    }
    let (mut host, kept_in) = keep(Host::builder(), &options).await?;
    if parts.run(Part::User) {
        let has_store = !matches!(options.keeping(), Keeping::Nothing);
        host = host.service(if has_store { user_service() } else { user_service_without_store() });
    }
    writeln!(places, "store    {kept_in}")?;
    if parts.run(Part::Email) {
        let mailer = mailer(&options)?;
        writeln!(places, "mails    {mailer}")?;
        host = host.service(email_service(mailer));
    }
    if parts.run(Part::Http) {
        host = host.door(gateway(options.listen.clone()));
    }
    if let Some(broker) = &broker {
        host = broker.carry(host, options.appearance(broker)).await?;
    }
    serve(host.start().await?, &parts, &places).await
}

/// The page and the API. The command is listed here, since it may be served in another process.
fn gateway(listen: String) -> Gateway {
    // A reverse proxy on this machine brings the connections of many callers.
    let limits =
        Limits::default().trusted_proxy(Ipv4Addr::LOCALHOST.into()).trusted_proxy(Ipv6Addr::LOCALHOST.into());
    page::add_to(Gateway::listen(listen).title("Sign-up").limits(limits).command::<SignUp>())
}

fn mailer(options: &Options) -> anyhow::Result<Mailer> {
    match &options.smtp {
        Some(url) => Mailer::over_smtp(url, options.from.clone()),
        None => Mailer::into_folder(options.mails(), options.from.clone()),
    }
}

/// Gives the host its store, on any engine, and says where everything is kept.
async fn keep(host: HostBuilder, options: &Options) -> anyhow::Result<(HostBuilder, String)> {
    match options.keeping() {
        Keeping::Nothing => Ok((host, without_store(&options.parts()))),
        Keeping::Database(url) => {
            let store = PostgresStore::connect(&url).await?;
            let place = store.place();
            tell_unread(&store).await?;
            Ok((host.store(store), place))
        }
        Keeping::File(file) => {
            let store = SqliteStore::open(&file)?;
            tell_unread(&store).await?;
            Ok((host.store(store), file.display().to_string()))
        }
    }
}

/// What it means that this process keeps nothing.
fn without_store(parts: &Parts) -> String {
    let mut means = Vec::new();
    if parts.run(Part::User) {
        means.push(
            "accounts end with this process, and an event is with the broker before its sign-up is answered",
        );
    }
    if parts.run(Part::Email) {
        means.push("what waits is with the broker, and a mail may be written twice");
    }
    if means.is_empty() {
        "none, there is nothing to keep".to_owned()
    } else {
        format!("none: {}", means.join("; "))
    }
}

async fn serve(host: RunningHost, parts: &Parts, places: &str) -> anyhow::Result<()> {
    let place = host.places().first().cloned();
    anyhow::ensure!(place.is_some() || !parts.run(Part::Http), "the gateway has no place");
    let running = host.run(); // SIGTERM and Ctrl-C are heard from here on
    let mut output = io::stdout();
    // Whoever started it may have closed the output; that is no reason to stop.
    if let Some(place) = place {
        let _ = writeln!(
            output,
            "page     {place}/\n\
             API      {place}/api/v1/sign-up\n\
             OpenAPI  {place}{DOCUMENT_PATH}\n\
             health   {place}/healthz {place}/readyz"
        );
    }
    let _ = writeln!(output, "{places}runs     {parts}");
    running.await?;
    Ok(())
}

/// Says what is stored and no code reads. Only what reads such an event stands still; the rest serves.
async fn tell_unread(store: &impl EventStore) -> Result<(), StoreError> {
    for unread in unread(store).await? {
        tracing::error!("{unread}");
    }
    Ok(())
}

/// What is stored and no code reads. Events of older forms would be read through upcasters, if there were any yet.
async fn unread(store: &impl EventStore) -> Result<Vec<UnreadForm>, StoreError> {
    readers::check(store, &Upcasters::new(), &Readers::new().event::<NewUserRegistered>()).await
}

async fn check(store: &impl EventStore) -> anyhow::Result<()> {
    let (forms, unread) = (store.forms().await?.len(), unread(store).await?);
    store.close().await?;
    for unread in &unread {
        eprintln!("unread: {unread}");
    }
    anyhow::ensure!(unread.is_empty(), "no code reads {} of {forms} stored forms of events", unread.len());
    let _ = writeln!(io::stdout(), "stored forms of events: {forms}, all of them read");
    Ok(())
}
