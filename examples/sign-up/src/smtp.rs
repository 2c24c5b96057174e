//! One mail over SMTP, command by command: the step at which a server rejects it decides whether it is retried.
//!
//! A server that rejects the connection, the credentials or the sender says nothing about this recipient: an operator can
//! repair it, so the mail is retried. From `RCPT TO` on, a reply of 5xx is about this recipient or this mail, and final.

use std::time::Duration;

use anyhow::{Context as _, bail};
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{AsyncSmtpConnection, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::{ClientId, Extension, MailBodyParameter, MailParameter};
use lettre::{Address, Message};
use percent_encoding::percent_decode_str;
use purista::HandlerError;
use url::Url;

/// The longest time that a connection may take to be made; the time limit of an attempt bounds the rest.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A mail server, and how to connect to it.
pub(crate) struct SmtpServer {
    host: String,
    port: u16,
    encryption: Encryption,
    credentials: Option<Credentials>,
    hello: ClientId,
}

/// When a connection is encrypted.
enum Encryption {
    Never,
    FromTheStart(TlsParameters),
    ByStartTls(TlsParameters),
    IfOffered(TlsParameters),
}

impl SmtpServer {
    /// Reads `smtp://host:port` or `smtps://user:password@host`, with `?tls=required` or `?tls=opportunistic` for STARTTLS.
    /// No error contains the URL, which may contain a password.
    pub(crate) fn from_url(url: &str) -> anyhow::Result<Self> {
        let url = Url::parse(url).context("it is not a URL")?;
        let host = url.host_str().filter(|host| !host.is_empty()).context("it names no host")?;
        // An IPv6 address has brackets in a URL and nowhere else.
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let tls = url.query_pairs().find(|(name, _)| name == "tls").map(|(_, value)| value.into_owned());
        let parameters = || TlsParameters::new(host.clone()).context("prepare TLS");
        let (port, encryption) = match (url.scheme(), tls.as_deref()) {
            ("smtps", _) => (465, Encryption::FromTheStart(parameters()?)),
            ("smtp", None) => (25, Encryption::Never),
            ("smtp", Some("required")) => (587, Encryption::ByStartTls(parameters()?)),
            ("smtp", Some("opportunistic")) => (587, Encryption::IfOffered(parameters()?)),
            ("smtp", Some(_)) => bail!("tls is `required` or `opportunistic`"),
            _ => bail!("its scheme is neither smtp nor smtps"),
        };
        let decoded = |text: &str| anyhow::Ok(percent_decode_str(text).decode_utf8()?.into_owned());
        let credentials = match url.password() {
            Some(password) => Some(Credentials::new(decoded(url.username())?, decoded(password)?)),
            None => None,
        };
        let name = url.path().trim_matches('/');
        let hello = if name.is_empty() { ClientId::default() } else { ClientId::Domain(name.to_owned()) };
        Ok(Self { port: url.port().unwrap_or(port), host, encryption, credentials, hello })
    }

    /// Sends a mail over a connection of its own.
    pub(crate) async fn send(&self, mail: &Message) -> Result<(), HandlerError> {
        let mut connection = self.connect().await?;
        let sent = deliver(&mut connection, mail).await;
        // Says QUIT; the reply to the mail came before, so it changes nothing.
        connection.abort().await;
        sent
    }

    async fn connect(&self) -> Result<AsyncSmtpConnection, Error> {
        let from_the_start = match &self.encryption {
            Encryption::FromTheStart(tls) => Some(tls.clone()),
            _ => None,
        };
        let (server, timeout) = ((self.host.as_str(), self.port), Some(CONNECT_TIMEOUT));
        let mut connection =
            AsyncSmtpConnection::connect_tokio1(server, timeout, &self.hello, from_the_start, None).await?;
        match &self.encryption {
            Encryption::ByStartTls(tls) => connection.starttls(tls.clone(), &self.hello).await?,
            Encryption::IfOffered(tls) if connection.can_starttls() => {
                connection.starttls(tls.clone(), &self.hello).await?;
            }
            _ => {}
        }
        if let Some(credentials) = &self.credentials {
            connection.auth(DEFAULT_MECHANISMS, credentials).await?;
        }
        Ok(connection)
    }
}

/// The conversation about one mail.
async fn deliver(connection: &mut AsyncSmtpConnection, mail: &Message) -> Result<(), HandlerError> {
    let (envelope, content) = (mail.envelope(), mail.formatted());
    let addresses = || envelope.from().into_iter().chain(envelope.to());
    let mut parameters = Vec::new();
    if !addresses().all(|address| AsRef::<str>::as_ref(address).is_ascii()) {
        if !connection.server_info().supports_feature(Extension::SmtpUtfEight) {
            return Err(HandlerError::from(Lacks("SMTPUTF8")));
        }
        parameters.push(MailParameter::SmtpUtfEight);
    }
    if !content.is_ascii() {
        if !connection.server_info().supports_feature(Extension::EightBitMime) {
            return Err(HandlerError::from(Lacks("8BITMIME")));
        }
        parameters.push(MailParameter::Body(MailBodyParameter::EightBitMime));
    }
    connection.command(Mail::new(envelope.from().cloned(), parameters)).await?;
    for recipient in envelope.to() {
        connection
            .command(Rcpt::new(Address::clone(recipient), Vec::new()))
            .await
            .map_err(final_if_permanent)?;
    }
    connection.command(Data).await.map_err(final_if_permanent)?;
    connection.message(&content).await.map_err(final_if_permanent)?;
    Ok(())
}

/// A reply of 5xx to a command about the recipient or the mail: it would be the same at each attempt.
fn final_if_permanent(error: Error) -> HandlerError {
    if error.is_permanent() { HandlerError::dead_letter(error.to_string()) } else { error.into() }
}

/// An extension that the mail needs and the server does not offer: another server may, after a change of `--smtp`.
#[derive(Debug)]
struct Lacks(&'static str);

impl std::fmt::Display for Lacks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the mail server does not offer {}", self.0)
    }
}

impl std::error::Error for Lacks {}

#[cfg(test)]
mod tests {
    use purista_core::error::Settlement;
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
    use tokio_util::task::TaskTracker;

    use super::*;

    fn read(url: &str) -> Result<SmtpServer, String> {
        SmtpServer::from_url(url).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn a_url_names_host_port_and_encryption() {
        let plain = read("smtp://127.0.0.1:2525").unwrap();
        assert_eq!((plain.host.as_str(), plain.port), ("127.0.0.1", 2525));
        assert!(matches!(plain.encryption, Encryption::Never) && plain.credentials.is_none());
        let six = read("smtp://[::1]").unwrap();
        assert_eq!((six.host.as_str(), six.port), ("::1", 25));
        let tls = read("smtps://ada:p%40ss@mail.example/me.example").unwrap();
        assert_eq!((tls.port, tls.hello.to_string().as_str()), (465, "me.example"));
        assert!(tls.credentials == Some(Credentials::new("ada".into(), "p@ss".into())));
        assert!(matches!(tls.encryption, Encryption::FromTheStart(_)));
        let start = read("smtp://mail.example?tls=required").unwrap();
        assert!(matches!(start.encryption, Encryption::ByStartTls(_)) && start.port == 587);
    }

    /// Answers each command with 250 or what it needs, and this one with `reply`.
    async fn reply_at(step: &'static str, reply: &'static str) -> SmtpServer {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("smtp://ada:secret@{}", listener.local_addr().unwrap());
        let serving = async move {
            let (stream, _) = listener.accept().await.unwrap();
            let (reader, mut writer) = stream.into_split();
            let (mut lines, mut command) = (BufReader::new(reader).lines(), "greeting".to_owned());
            loop {
                let usual = match command.split(' ').next().unwrap_or_default() {
                    "greeting" => "220 ready",
                    "EHLO" => "250-test\r\n250 AUTH PLAIN",
                    "AUTH" => "235 welcome",
                    "DATA" => "354 go ahead",
                    _ => "250 fine",
                };
                let reply = if command.starts_with(step) { reply } else { usual };
                writer.write_all(format!("{reply}\r\n").as_bytes()).await.unwrap();
                let Ok(Some(next)) = lines.next_line().await else { return };
                command = next;
                while reply.starts_with("354") && command != "." {
                    let Ok(Some(next)) = lines.next_line().await else { return };
                    command = next;
                }
            }
        };
        TASKS.with(|tasks| tasks.spawn(serving));
        read(&url).unwrap()
    }

    thread_local! {
        static TASKS: TaskTracker = TaskTracker::new();
    }

    #[tokio::test]
    async fn only_a_rejected_recipient_or_mail_is_final() {
        let mail = || {
            let mail = Message::builder().from("x@y.example".parse().unwrap());
            mail.to("ada@example.com".parse().unwrap()).body("Welcome".to_owned()).unwrap()
        };
        let refused = "550 no";
        for (step, reply, is_final) in [
            ("greeting", "554 too busy for you", false),
            ("EHLO", refused, false),
            ("AUTH", "535 wrong password", false),
            ("MAIL FROM", refused, false),
            ("RCPT TO", "450 later", false),
            ("RCPT TO", refused, true),
            ("DATA", "451 later", false),
            ("DATA", "554 no valid recipients", true),
            (".", "452 full", false),
            (".", "554 spam", true),
        ] {
            let server = reply_at(step, reply).await;
            let error = server.send(&mail()).await.unwrap_err();
            let expect = is_final.then_some(Settlement::DeadLetter);
            assert_eq!(error.settlement(), expect, "{reply} to {step}: {error:?}");
            assert!(error.report().contains(&reply[..3]), "{reply} to {step}: {error:?}");
        }
        reply_at("NOOP", "250 fine").await.send(&mail()).await.unwrap();
    }

    #[test]
    fn a_url_that_cannot_be_used_is_rejected_without_its_password() {
        for url in [
            "mail.example",
            "http://ada:secret@mail.example",
            "smtp://ada:secret@mail.example?tls=maybe",
            "smtp://",
        ] {
            let error = read(url).err().unwrap_or_else(|| panic!("{url} is accepted"));
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
