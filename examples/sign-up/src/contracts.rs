//! What the services agree on: a command, an event, and the rules that both keep.

use garde::Validate;
use purista::{Command, Event, Route, ServiceId, Tags};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::address::{can_be_delivered, canonical};

pub(crate) const USER: ServiceId = ServiceId::new("User", "1");
pub(crate) const EMAIL: ServiceId = ServiceId::new("Email", "1");

/// Asks for an account.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SignUp {
    #[garde(email, length(chars, max = 254), custom(can_be_delivered))]
    pub(crate) email: String,
    #[garde(length(chars, min = 1, max = 80))]
    pub(crate) name: String,
}

impl Command for SignUp {
    const SERVICE: ServiceId = USER;
    const NAME: &'static str = "userSignUp";
    const HTTP: Option<Route> = Some(Route::post("sign-up").public()); // POST /api/v1/sign-up
    type Output = NewUserRegistered;
}

/// Somebody has an account now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase")]
#[garde(allow_unvalidated)]
pub(crate) struct NewUserRegistered {
    pub(crate) user_id: String,
    pub(crate) email: String,
    pub(crate) name: String,
}

impl Event for NewUserRegistered {
    const NAME: &'static str = "newUserRegistered";
    fn tags(&self) -> Tags {
        Tags::new().with("user", &self.user_id).with("email", canonical(&self.email))
    }
}
