//! Accounts whose truth is their events: now and in the past, with a search and a history made of nothing else.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use purista::{Host, Upcasters};
use purista_events::projector::Projected;
use purista_events::read_models::ReadModels;
use purista_events::readers::{self, UnreadForm};
use purista_events::store::{EventStore, StoreError};
use purista_http::gateway::{DOCUMENT_PATH, Gateway};
use purista_postgres::store::PostgresStore;
use purista_sqlite::store::SqliteStore;
use purista_telemetry::telemetry::{self, Telemetry};

mod contracts;
mod history;
mod profile;
mod search;

use history::history_service;
use profile::user_service;
use search::{Names, NamesTables, profile_search, search_service};

/// Serves accounts over HTTP: sign-up, another name, search, history, and how it was.
#[derive(Parser)]
#[command(
    version,
    after_help = "To try, with A=http://127.0.0.1:3000/api/v1 and J='content-type: application/json':\n\
                  \x20 curl -H \"$J\" -d '{\"email\":\"ada@example.com\",\"name\":\"Ada\"}' $A/sign-up\n\
                  \x20 curl -H \"$J\" -X PATCH -d '{\"name\":\"Ada Lovelace\"}' $A/users/USER_ID\n\
                  \x20 curl -H \"$J\" -X PATCH -d '{\"email\":\"ada@example.org\"}' $A/users/USER_ID/email\n\
                  \x20 curl \"$A/users?q=love\"\n\
                  \x20 curl \"$A/users/USER_ID?asOf=2026-03-01T00:00:00Z\"\n\
                  \x20 curl $A/users/USER_ID/history\n\n\
                  RUST_LOG=debug shows more; PURISTA_LOG_FORMAT=json logs JSON lines.\n\
                  SIGTERM and Ctrl-C finish what is under way; a second one stops at once."
)]
struct Options {
    /// Address and port to serve at; port 0 is any that is free
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:3000")]
    listen: String,
    /// Folder for the events; made when it is missing, used by one process at a time
    #[arg(long, value_name = "FOLDER", default_value = "./data")]
    data: PathBuf,
    /// Database for the events instead of the folder, as postgres://user:password@host/database; several processes may use one
    #[arg(long, value_name = "URL", env = "PURISTA_STORE", hide_env_values = true)]
    store: Option<String>,
    /// Reads a sample of each form of events in the store, and ends: with 1 when no code reads one of them
    #[arg(long)]
    check: bool,
}

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
    let _telemetry = telemetry::init(Telemetry::from_env()?.service("profile"))?;
    let file = options.data.join("profile.db");
    if options.check {
        return match &options.store {
            Some(url) => check(&PostgresStore::builder(url).without_migrations().connect().await?).await,
            None => check(&SqliteStore::open_read_only(file)?).await,
        };
    }
    if let Some(url) = &options.store {
        let store = PostgresStore::connect(url).await?;
        let (names, place) = (store.read_models(), store.place());
        return serve(store, names, place, options.listen).await;
    }
    let store = SqliteStore::open(&file)?;
    let (names, place) = (store.read_models(), file.display().to_string());
    serve(store, names, place, options.listen).await
}

/// Serves on any engine that keeps read models, and for which the search has its SQL.
async fn serve<S>(store: S, names: impl Names, kept_in: String, listen: String) -> anyhow::Result<()>
where
    S: ReadModels<Tx: NamesTables> + Clone,
{
    // Only what reads such an event stands still; the rest serves.
    for unread in unread(&store).await? {
        tracing::error!("{unread}");
    }
    let search = Projected::of_tables(store.clone(), profile_search());
    let host = Host::builder()
        .store(store.clone())
        .service(user_service())
        .service(history_service(store.clone()))
        .service(search_service(names, search.handle()))
        .projection(search)
        .door(Gateway::listen(listen).title("Profiles").metrics())
        .start()
        .await?;
    let place = host.places().first().context("the gateway has no place")?.clone();
    let running = host.run(); // SIGTERM and Ctrl-C are heard from here on
    // Whoever started it may have closed the output; that is no reason to stop.
    let _ = writeln!(
        io::stdout(),
        "sign-up  {place}/api/v1/sign-up\n\
         users    {place}/api/v1/users?q=ada\n\
         search   {place}/api/v1/admin/search\n\
         OpenAPI  {place}{DOCUMENT_PATH}\n\
         health   {place}/healthz {place}/readyz\n\
         store    {kept_in}\n\
         metrics  {place}/metrics"
    );
    running.await?;
    Ok(())
}

/// What is stored and no code reads. Events of older forms would be read through upcasters, if there were any yet.
async fn unread(store: &impl EventStore) -> Result<Vec<UnreadForm>, StoreError> {
    readers::check(store, &Upcasters::new(), &contracts::readers()).await
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
