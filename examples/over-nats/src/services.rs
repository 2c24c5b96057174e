//! The two services and what they agree on: the same code runs in one process or in two.

use garde::Validate;
use purista::{Command, Context, Event, HandlerError, Service, ServiceId, command, subscription};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const USER: ServiceId = ServiceId::new("User", "1");
const EMAIL: ServiceId = ServiceId::new("Email", "1");

/// Asks for an account.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SignUp {
    /// Where the welcome goes.
    #[garde(email)]
    pub(crate) email: String,
    /// How to address the person.
    #[garde(length(chars, min = 1, max = 80))]
    pub(crate) name: String,
}

impl Command for SignUp {
    const SERVICE: ServiceId = USER;
    const NAME: &'static str = "userSignUp";
    type Output = NewUserRegistered;
}

/// Somebody has an account.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase")]
#[garde(allow_unvalidated)]
pub(crate) struct NewUserRegistered {
    /// The new account.
    pub(crate) user_id: String,
}

impl Event for NewUserRegistered {
    const NAME: &'static str = "newUserRegistered";
}

async fn user_sign_up(_ctx: Context<()>, input: SignUp) -> Result<NewUserRegistered, HandlerError> {
    Ok(NewUserRegistered { user_id: format!("id-of-{}", input.name) })
}

async fn send_welcome_email(_ctx: Context<()>, event: NewUserRegistered) -> Result<(), HandlerError> {
    println!("welcome, {}", event.user_id);
    Ok(())
}

/// The service that answers.
pub(crate) fn user() -> Service {
    Service::builder(USER, "Accounts and sign-up", ()).command(command(user_sign_up).success_event()).build()
}

/// The service that listens; it does not know who answers.
pub(crate) fn email() -> Service {
    Service::builder(EMAIL, "Mail to users", ())
        .subscription(subscription("sendWelcomeEmail", send_welcome_email))
        .build()
}
