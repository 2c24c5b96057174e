//! The contracts of a small system, as its gateway sees them.

use garde::Validate;
use purista_core::address::ServiceId;
use purista_core::contract::Command;
use purista_core::route::Route;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(crate) const USER: ServiceId = ServiceId::new("User", "1");

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
    const SUMMARY: &'static str = "Signs a user up.";
    const ERRORS: &'static [(u16, &'static str)] = &[(409, "The e-mail is taken.")];
    type Output = Registered;
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase")]
#[garde(allow_unvalidated)]
pub(crate) struct Registered {
    pub(crate) user_id: String,
    pub(crate) seen: Seen,
}

/// What the command's consumer saw of its message.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase")]
#[garde(allow_unvalidated)]
pub(crate) struct Seen {
    pub(crate) sender: String,
    pub(crate) trace_id: String,
    pub(crate) trace: Option<String>,
    pub(crate) principal: Option<String>,
    pub(crate) tenant: Option<String>,
    pub(crate) idempotency_key: Option<String>,
    pub(crate) input: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase")]
#[garde(allow_unvalidated)]
pub(crate) struct FindUser {
    pub(crate) user_id: String,
    #[serde(default)]
    pub(crate) page: Option<u32>,
    #[serde(default)]
    pub(crate) tags: Vec<String>,
}
impl Command for FindUser {
    const SERVICE: ServiceId = USER;
    const NAME: &'static str = "findUser";
    const HTTP: Option<Route> = Some(Route::get("users/{userId}").public());
    const PARAMETERS: &'static [&'static str] = &["userId", "page", "tags"];
    type Output = Registered;
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase")]
#[garde(allow_unvalidated)]
pub(crate) struct RenameUser {
    pub(crate) user_id: String,
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) address: Option<Place>,
}
/// Part of a contract, by reference.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[garde(allow_unvalidated)]
pub(crate) struct Place {
    pub(crate) city: String,
    #[serde(default)]
    pub(crate) within: Option<Box<Place>>,
}
impl Command for RenameUser {
    const SERVICE: ServiceId = USER;
    const NAME: &'static str = "renameUser";
    const HTTP: Option<Route> = Some(Route::patch("users/{userId}"));
    const PARAMETERS: &'static [&'static str] = &["userId"];
    type Output = Registered;
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase")]
#[garde(allow_unvalidated)]
pub(crate) struct RemoveUser {
    pub(crate) user_id: String,
}
impl Command for RemoveUser {
    const SERVICE: ServiceId = USER;
    const NAME: &'static str = "removeUser";
    const HTTP: Option<Route> = Some(Route::delete("users/{userId}"));
    const PARAMETERS: &'static [&'static str] = &["userId"];
    type Output = ();
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[garde(allow_unvalidated)]
pub(crate) struct Subscribe {
    pub(crate) email: String,
    pub(crate) age: Option<u8>,
    #[serde(default)]
    pub(crate) weekly: bool,
}
impl Command for Subscribe {
    const SERVICE: ServiceId = USER;
    const NAME: &'static str = "subscribe";
    const HTTP: Option<Route> = Some(Route::post("subscriptions").form().public());
    type Output = Registered;
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase")]
#[garde(allow_unvalidated)]
pub(crate) struct WriteNote {
    pub(crate) user_id: String,
    pub(crate) note: String,
}
impl Command for WriteNote {
    const SERVICE: ServiceId = USER;
    const NAME: &'static str = "writeNote";
    const HTTP: Option<Route> = Some(Route::put("users/{userId}/note").text("note").public());
    const PARAMETERS: &'static [&'static str] = &["userId"];
    type Output = Registered;
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase")]
#[garde(allow_unvalidated)]
pub(crate) struct Configure {
    pub(crate) user_id: String,
    #[serde(flatten)]
    pub(crate) settings: std::collections::BTreeMap<String, String>,
}
impl Command for Configure {
    const SERVICE: ServiceId = USER;
    const NAME: &'static str = "configure";
    const HTTP: Option<Route> = Some(Route::put("users/{userId}/settings").public());
    const PARAMETERS: &'static [&'static str] = &["userId"];
    type Output = Registered;
}
