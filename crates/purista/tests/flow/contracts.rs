//! The contracts of the flow under test.

use garde::Validate;
use purista::{Command, Event, Route, ServiceId, Tags};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(crate) const USER: ServiceId = ServiceId::new("User", "1");
pub(crate) const EMAIL: ServiceId = ServiceId::new("Email", "1");

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SignUp {
    #[garde(email)]
    pub(crate) email: String,
    #[garde(length(min = 1, max = 80))]
    pub(crate) name: String,
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
pub(crate) struct NewUserRegistered {
    pub(crate) user_id: String,
    #[garde(email)]
    pub(crate) email: String,
    pub(crate) name: String,
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
pub(crate) struct WelcomeEmailSent {
    pub(crate) user_id: String,
}

impl Event for WelcomeEmailSent {
    const NAME: &'static str = "welcomeEmailSent";
    fn tags(&self) -> Tags {
        Tags::new().with("user", &self.user_id)
    }
}

/// Tags its event with what it was given.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[garde(allow_unvalidated)]
pub(crate) struct Label {
    pub(crate) label: String,
}

impl Command for Label {
    const SERVICE: ServiceId = USER;
    const NAME: &'static str = "label";
    type Output = ();
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Validate)]
#[garde(allow_unvalidated)]
pub(crate) struct Labelled {
    pub(crate) label: String,
}

impl Event for Labelled {
    const NAME: &'static str = "labelled";
    fn tags(&self) -> Tags {
        Tags::new().with("label", &self.label)
    }
}
