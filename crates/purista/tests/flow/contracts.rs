//! The contracts of the flow under test.

use garde::Validate;
use purista::{Command, Event, Route, ServiceId, Tags};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub const USER: ServiceId = ServiceId::new("User", "1");
pub const EMAIL: ServiceId = ServiceId::new("Email", "1");

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase")]
pub struct SignUp {
    #[garde(email)]
    pub email: String,
    #[garde(length(min = 1, max = 80))]
    pub name: String,
}

impl Command for SignUp {
    const SERVICE: ServiceId = USER;
    const NAME: &'static str = "userSignUp";
    const HTTP: Option<Route> = Some(Route::post("sign-up").public());
    type Output = NewUserRegistered;
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase")]
#[garde(allow_unvalidated)]
pub struct NewUserRegistered {
    pub user_id: String,
    #[garde(email)]
    pub email: String,
    pub name: String,
}

impl Event for NewUserRegistered {
    const NAME: &'static str = "newUserRegistered";
    fn tags(&self) -> Tags {
        Tags::new().with("user", &self.user_id)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase")]
#[garde(allow_unvalidated)]
pub struct WelcomeEmailSent {
    pub user_id: String,
}

impl Event for WelcomeEmailSent {
    const NAME: &'static str = "welcomeEmailSent";
    fn tags(&self) -> Tags {
        Tags::new().with("user", &self.user_id)
    }
}

/// Seen by whoever listens, never recorded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Validate)]
#[garde(allow_unvalidated)]
pub struct Glimpsed {
    pub what: String,
}

impl Event for Glimpsed {
    const NAME: &'static str = "glimpsed";
    const RECORDED: bool = false;
}
