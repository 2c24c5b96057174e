//! The services behind the captured messages, as somebody would write them with this framework.

use std::time::Duration;

use garde::Validate;
use purista::{Command, Context, Event, HandlerError, Route, Service, ServiceId, command, subscription};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

pub(crate) const USER: ServiceId = ServiceId::new("User", "1");
pub(crate) const EMAIL: ServiceId = ServiceId::new("Email", "1");

/// What must never reach a caller.
pub(crate) const SECRET: &str = "the password of the database is 1234";

macro_rules! contract {
    ($(#[$more:meta])* struct $name:ident { $($(#[$rule:meta])* $field:ident: $type:ty),* $(,)? }) => {
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Validate)]
        #[serde(rename_all = "camelCase")]
        $(#[$more])*
        pub(crate) struct $name { $($(#[$rule])* pub(crate) $field: $type),* }
    };
}

macro_rules! commands {
    ($($service:ident $name:literal: $input:ident -> $output:ty $(, $http:expr, $summary:literal)?;)*) => {
        $(impl Command for $input {
            const SERVICE: ServiceId = $service;
            const NAME: &'static str = $name;
            $(const HTTP: Option<Route> = Some($http); const SUMMARY: &'static str = $summary;)?
            type Output = $output;
        })*
    };
}

contract! { struct UserSignUp { #[garde(email)] email: String, #[garde(length(min = 1))] name: String } }
contract! { #[garde(allow_unvalidated)] struct NewUserRegistered { user_id: String } }
contract! { #[garde(allow_unvalidated)] struct ThrowHandled {} }
contract! { #[garde(allow_unvalidated)] struct ThrowPlain {} }
contract! { #[garde(allow_unvalidated)] struct ThrowUnhandled {} }
contract! { #[garde(allow_unvalidated)] struct BadOutput {} }
contract! { struct ShortUserId { #[garde(length(min = 3))] user_id: String } }
contract! { #[garde(allow_unvalidated)] struct NoResult {} }
contract! { #[garde(allow_unvalidated)] struct Slow { ms: u64 } }
contract! { #[garde(allow_unvalidated)] struct Slept { slept: u64 } }
contract! { #[garde(allow_unvalidated)] struct TouchUser { user_id: String } }
contract! { #[garde(allow_unvalidated)] struct UserTouched { user_id: String, at: u64 } }
contract! { #[garde(allow_unvalidated)] struct Touched { ok: bool } }
contract! { #[garde(allow_unvalidated)] struct Ping { msg: String, n: u64 } }
contract! { #[garde(allow_unvalidated)] struct Pong { msg: String, n: u64 } }
contract! { #[garde(allow_unvalidated)] struct SendMail { to: String, template: String } }
contract! { #[garde(allow_unvalidated)] struct MailSent { sent: bool } }
contract! { #[garde(allow_unvalidated)] struct WelcomeEmailSent { user_id: String, sent: bool } }

commands! {
    USER "userSignUp": UserSignUp -> NewUserRegistered, Route::post("user/signup"), "sign up a user";
    USER "throwHandled": ThrowHandled -> ();
    USER "throwPlain": ThrowPlain -> ();
    USER "throwUnhandled": ThrowUnhandled -> ();
    USER "slow": Slow -> Slept;
    USER "badOutput": BadOutput -> ShortUserId;
    USER "noResult": NoResult -> ();
    USER "touchUser": TouchUser -> Touched;
    USER "ping": Ping -> Pong, Route::post("user/ping"), "echo";
    EMAIL "sendMail": SendMail -> MailSent;
}

impl Event for NewUserRegistered {
    const NAME: &'static str = "newUserRegistered";
}
impl Event for UserTouched {
    const NAME: &'static str = "userTouched";
}
impl Event for WelcomeEmailSent {
    const NAME: &'static str = "welcomeEmailSent";
}

async fn user_sign_up(_: Context<()>, input: UserSignUp) -> Result<NewUserRegistered, HandlerError> {
    Ok(NewUserRegistered { user_id: format!("id-of-{}", input.name) })
}

async fn throw_handled(_: Context<()>, _: ThrowHandled) -> Result<(), HandlerError> {
    Err(HandlerError::not_found("user not found").with_data(json!({"hint": "extra data"})))
}

async fn throw_plain(_: Context<()>, _: ThrowPlain) -> Result<(), HandlerError> {
    Err(std::io::Error::other(SECRET).into())
}

async fn throw_unhandled(_: Context<()>, _: ThrowUnhandled) -> Result<(), HandlerError> {
    Err(HandlerError::failed(SECRET).with_data(json!({"secret": SECRET})))
}

async fn slow(_: Context<()>, input: Slow) -> Result<Slept, HandlerError> {
    tokio::time::sleep(Duration::from_millis(input.ms)).await; // real time: it is slower than its caller waits
    Ok(Slept { slept: input.ms })
}

async fn bad_output(_: Context<()>, _: BadOutput) -> Result<ShortUserId, HandlerError> {
    Ok(ShortUserId { user_id: String::new() })
}

async fn no_result(_: Context<()>, _: NoResult) -> Result<(), HandlerError> {
    Ok(())
}

async fn touch_user(ctx: Context<()>, input: TouchUser) -> Result<Touched, HandlerError> {
    ctx.emit(UserTouched { user_id: input.user_id, at: 1_700_000_000_000 })?;
    Ok(Touched { ok: true })
}

async fn ping(_: Context<()>, input: Ping) -> Result<Pong, HandlerError> {
    Ok(Pong { msg: input.msg, n: input.n })
}

async fn send_mail(_: Context<()>, _: SendMail) -> Result<MailSent, HandlerError> {
    Ok(MailSent { sent: true })
}

async fn send_welcome_email(
    ctx: Context<()>,
    event: NewUserRegistered,
) -> Result<WelcomeEmailSent, HandlerError> {
    let mail = SendMail { to: event.user_id.clone(), template: "welcome".to_owned() };
    let MailSent { sent } = ctx.invoke(mail).await?;
    Ok(WelcomeEmailSent { user_id: event.user_id, sent })
}

/// The service that answers.
pub(crate) fn user() -> Service {
    Service::builder(USER, "Accounts and sign-up", ())
        .command(command(user_sign_up).success_event())
        .command(command(throw_handled))
        .command(command(throw_plain))
        .command(command(throw_unhandled))
        .command(command(slow))
        .command(command(bad_output))
        .command(command(no_result))
        .command(command(touch_user).emits::<UserTouched>())
        .command(command(ping))
        .build()
}

/// The service that listens, asks itself, and tells.
pub(crate) fn email() -> Service {
    Service::builder(EMAIL, "Mail to users", ())
        .command(command(send_mail))
        .subscription(
            subscription("sendWelcomeEmail", send_welcome_email).invokes::<SendMail>().result_event(),
        )
        .build()
}
