//! The command that is measured everywhere: a sign-up with a rule on every field, and the service that answers it.

use std::sync::atomic::{AtomicU64, Ordering};

use garde::Validate;
use purista::command::command;
use purista::context::Context;
use purista::service::Service;
use purista_core::address::ServiceId;
use purista_core::contract::Command;
use purista_core::error::HandlerError;
use purista_core::route::Route;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The service.
pub const USER: ServiceId = ServiceId::new("User", "1");

/// What is asked.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase")]
pub struct SignUp {
    /// A text with a rule on its length.
    #[garde(length(min = 3, max = 120))]
    pub email: String,
    /// Another one.
    #[garde(length(min = 1, max = 80))]
    pub name: String,
}

impl SignUp {
    /// A valid sign-up, made anew as every caller makes its own.
    pub fn sample() -> Self {
        Self { email: "ada@example.com".to_owned(), name: "Ada Lovelace".to_owned() }
    }
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase")]
pub struct SignedUp {
    /// Counted up, so that nobody can answer without the handler.
    #[garde(range(min = 1))]
    pub user_id: u64,
    /// The name that was given.
    #[garde(length(min = 1, max = 80))]
    pub name: String,
}

impl Command for SignUp {
    const SERVICE: ServiceId = USER;
    const NAME: &'static str = "userSignUp";
    const HTTP: Option<Route> = Some(Route::post("sign-up").public());
    type Output = SignedUp;
}

/// What the handler needs: the number of the last user.
#[derive(Debug, Default)]
pub struct Accounts(AtomicU64);

impl Accounts {
    /// The business of a sign-up, the same in everything that is compared.
    pub fn sign_up(&self, input: SignUp) -> SignedUp {
        SignedUp { user_id: self.0.fetch_add(1, Ordering::Relaxed) + 1, name: input.name }
    }
}

async fn user_sign_up(ctx: Context<Accounts>, input: SignUp) -> Result<SignedUp, HandlerError> {
    Ok(ctx.resources().sign_up(input))
}

/// The service that answers it.
pub fn user_service() -> Service {
    Service::builder(USER, "Accounts and sign-up", Accounts::default()).command(command(user_sign_up)).build()
}
