//! Sign-up, end to end: a page, a command, an event, and a mail that no crash loses.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use lettre::message::Mailbox;
use purista::{Host, Upcasters};
use purista_events::readers::{self, Readers, UnreadForm};
use purista_events::store::{EventStore, StoreError};
use purista_http::gateway::{DOCUMENT_PATH, Gateway};
use purista_postgres::store::PostgresStore;
use purista_sqlite::store::SqliteStore;
use purista_telemetry::logging::{self, Logging};

mod contracts;
mod email;
mod mailer;
mod page;
mod user;

use contracts::NewUserRegistered;
use email::email_service;
use mailer::Mailer;
use user::user_service;

/// Serves a page where people sign up, and sends each of them a welcome mail.
#[derive(Parser)]
#[command(
    version,
    after_help = "RUST_LOG=debug shows more; PURISTA_LOG_FORMAT=json logs JSON lines.\n\
                  SIGTERM and Ctrl-C finish what is under way; a second one stops at once."
)]
struct Options {
    /// Address and port to serve at; port 0 is any that is free
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:3000")]
    listen: String,
    /// Folder for accounts, events and mails; made when it is missing, used by one process at a time
    #[arg(long, value_name = "FOLDER", default_value = "./data")]
    data: PathBuf,
    /// Database for accounts and events instead of the folder, as postgres://user:password@host/database; mails go on as before
    #[arg(long, value_name = "URL", env = "PURISTA_STORE", hide_env_values = true)]
    store: Option<String>,
    /// Mail server, as smtp://host:port or smtps://user:password@host; without it mails become files in FOLDER/mail
    #[arg(long, value_name = "URL", env = "SIGN_UP_SMTP", hide_env_values = true)]
    smtp: Option<String>,
    /// Whom mails are from
    #[arg(long, value_name = "ADDRESS", default_value = "Sign-up <sign-up@localhost>")]
    from: Mailbox,
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
    let _logs = logging::init(Logging::from_env()?)?;
    let file = options.data.join("sign-up.db");
    if options.check {
        return match &options.store {
            Some(url) => check(&PostgresStore::builder(url).without_migrations().connect().await?).await,
            None => check(&SqliteStore::open_read_only(file)?).await,
        };
    }
    let mailer = match &options.smtp {
        Some(url) => Mailer::over_smtp(url, options.from)?,
        None => Mailer::into_folder(options.data.join("mail"), options.from)?,
    };
    if let Some(url) = &options.store {
        let store = PostgresStore::connect(url).await?;
        let place = store.place();
        return serve(store, place, mailer, options.listen).await;
    }
    let store = SqliteStore::open(&file)?;
    serve(store, file.display().to_string(), mailer, options.listen).await
}

/// Serves on any engine.
async fn serve(
    store: impl EventStore,
    kept_in: String,
    mailer: Mailer,
    listen: String,
) -> anyhow::Result<()> {
    let mails = mailer.to_string();
    // Only what reads such an event stands still; the rest serves.
    for unread in unread(&store).await? {
        tracing::error!("{unread}");
    }
    let gateway = page::add_to(Gateway::listen(listen).title("Sign-up"));
    let host = Host::builder()
        .store(store)
        .service(user_service())
        .service(email_service(mailer))
        .door(gateway)
        .start()
        .await?;
    let place = host.places().first().context("the gateway has no place")?.clone();
    let running = host.run(); // SIGTERM and Ctrl-C are heard from here on
    // Whoever started it may have closed the output; that is no reason to stop.
    let _ = writeln!(
        io::stdout(),
        "page     {place}/\n\
         API      {place}/api/v1/sign-up\n\
         OpenAPI  {place}{DOCUMENT_PATH}\n\
         health   {place}/healthz {place}/readyz\n\
         store    {kept_in}\n\
         mails    {mails}"
    );
    running.await?;
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
