//! Service `Email`: writes to users. It knows the event, not who sends it.

use std::time::{Duration, UNIX_EPOCH};

use lettre::Message;
use lettre::message::header::ContentType;
use lettre::message::{Mailbox, MessageBuilder};
use purista::{Context, HandlerError, Retry, Service, subscription};

use crate::address::deliverable;
use crate::contracts::{EMAIL, NewUserRegistered};
use crate::mailer::Mailer;

/// Over about a day, so that a mail server may be down for a night.
const RETRY: Retry = Retry::exponential(40).between(Duration::from_secs(1), Duration::from_secs(60 * 60));

/// Shorter than the 25 s in which a host drains, so that a mail server that hangs does not hang the end, too.
const ATTEMPT_TIME: Duration = Duration::from_secs(20);

/// More connections at a time than this few mail servers take from one client.
const MAILS_IN_FLIGHT: usize = 16;

/// The service, ready for a host.
pub(crate) fn email_service(mailer: Mailer) -> Service {
    let welcome = subscription("sendWelcomeEmail", send_welcome_email)
        .durable()
        .in_flight(MAILS_IN_FLIGHT)
        .timeout(ATTEMPT_TIME)
        .retry(RETRY);
    Service::builder(EMAIL, "Mail to users", mailer).subscription(welcome).build()
}

/// An event comes at least once, and so does a mail: the id of the event makes a second one known as the same.
async fn send_welcome_email(ctx: Context<Mailer>, event: NewUserRegistered) -> Result<(), HandlerError> {
    let id = ctx.message().id.to_string();
    let mail = Message::builder()
        .message_id(Some(ctx.resources().message_id(&id)))
        .date(UNIX_EPOCH + Duration::from_millis(ctx.message().timestamp_ms))
        .from(ctx.resources().from().clone());
    ctx.resources().send(&id, welcome(mail, &event)?).await?;
    tracing::info!(user_id = event.user_id, "the welcome mail is on its way");
    Ok(())
}

fn welcome(mail: MessageBuilder, event: &NewUserRegistered) -> Result<Message, HandlerError> {
    // In a mail, line breaks and other controls in a name could pass for something of ours.
    let words =
        event.name.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    let name = words.collect::<Vec<_>>().join(" ");
    let text = format!("Welcome, {name}!\n\nYour account is ready. Your user id is {}.\n", event.user_id);
    // An internationalized domain in its ASCII form: every mail server takes that.
    let email = deliverable(&event.email).unwrap_or_else(|| event.email.clone());
    let to = Mailbox::new((!name.is_empty()).then_some(name), email.parse()?);
    Ok(mail.to(to).subject("Welcome").header(ContentType::TEXT_PLAIN).body(text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_within_its_line_whatever_it_is() {
        let every_char = ('\0'..='\u{ff}').chain("\u{202e}\u{2028}\u{feff}\u{1f600}".chars());
        let names =
            every_char.flat_map(|c| [c.to_string(), format!("A{c}b"), format!("\"{c}\\ <{c}>,").repeat(9)]);
        for name in names {
            let event = NewUserRegistered { user_id: "7".into(), email: "a@b.example".into(), name };
            let mail = Message::builder().from("x@y.example".parse().unwrap());
            let mail = welcome(mail, &event).unwrap().formatted();
            let mail = String::from_utf8(mail).unwrap();
            let (head, _) = mail.split_once("\r\n\r\n").unwrap();
            let names = head.replace("\r\n ", " ");
            let names: Vec<&str> =
                names.split("\r\n").filter_map(|line| Some(line.split_once(':')?.0)).collect();
            let expect = ["From", "To", "Subject", "Content-Type", "Content-Transfer-Encoding", "Date"];
            assert_eq!(names, expect, "{:?}: {mail}", event.name);
            assert!(head.is_ascii() && head.contains("a@b.example"), "{:?}: {mail}", event.name);
        }
    }

    #[test]
    fn every_address_that_may_sign_up_can_be_written_to() {
        use garde::Validate as _;
        let long = format!("a@{}.example", "ü".repeat(40));
        for email in [
            "ada@example.com",
            "a.b.c@d.e",
            "!#$%&'*+/=?^_`{|}~-@x.example",
            "ada@bücher.example",
            "ada@xn--bcher-kva.example",
            "ada@例え.テスト",
            long.as_str(),
        ] {
            let sign_up = crate::contracts::SignUp { email: email.into(), name: "Ada".into() };
            assert!(sign_up.validate().is_ok(), "{email}");
            let event = NewUserRegistered { user_id: "7".into(), email: email.into(), name: "Ada".into() };
            let mail = welcome(Message::builder().from("x@y.example".parse().unwrap()), &event).unwrap();
            let to: &str = mail.envelope().to()[0].as_ref();
            assert!(to.is_ascii(), "{to}");
            assert!(mail.formatted().is_ascii(), "{email}");
        }
        let too_long = format!("a@{}.example", "ü".repeat(70));
        for email in [
            "a..b@example.com",
            ".a@example.com",
            "a.@example.com",
            "a b@example.com",
            "a@b\n.example",
            "a@b",
            "a@[127.0.0.1]",
            "a@bü cher.example",
            "a@xn--a.example",
            too_long.as_str(),
        ] {
            let sign_up = crate::contracts::SignUp { email: email.into(), name: "Ada".into() };
            assert!(sign_up.validate().is_err(), "{email}");
        }
    }
}
