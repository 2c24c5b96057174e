//! What can be asked, what is answered, and what happens: the commands and the events.
//!
//! All routes are public, so that the example can be tried with curl: a program of your own gives its gateway an
//! authenticator and leaves `.public()` out.

use garde::Validate;
use jiff::Timestamp;
use purista::{Command, Event, Route, ServiceId, Tags};
use purista_events::readers::Readers;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(crate) const USER: ServiceId = ServiceId::new("User", "1");
pub(crate) const HISTORY: ServiceId = ServiceId::new("History", "1");
pub(crate) const SEARCH: ServiceId = ServiceId::new("Search", "1");

/// How many hits or entries an answer has unless it was asked for another number, and how many at most.
pub(crate) const PAGE_DEFAULT: u32 = 20;
const PAGE_MAX: u32 = 100;

const NO_SUCH_USER: (u16, &str) = (404, "there is no such user");
const ADDRESS_TAKEN: (u16, &str) = (409, "the e-mail address is taken");

/// Asks for an account.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SignUp {
    #[garde(email, length(chars, max = 254))]
    pub(crate) email: String,
    #[garde(length(chars, min = 1, max = 80))]
    pub(crate) name: String,
}

impl Command for SignUp {
    const SERVICE: ServiceId = USER;
    const NAME: &'static str = "userSignUp";
    const HTTP: Option<Route> = Some(Route::post("sign-up").public()); // POST /api/v1/sign-up
    const SUMMARY: &'static str = "Makes an account.";
    const ERRORS: &'static [(u16, &'static str)] = &[ADDRESS_TAKEN];
    type Output = NewUserRegistered;
}

/// Gives a user another name. The name that he has already is answered in the same way, and nothing is recorded: a client
/// that repeats itself did nothing wrong.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UpdateProfile {
    #[garde(length(chars, min = 1, max = 64))]
    pub(crate) user_id: String,
    #[garde(length(chars, min = 1, max = 80))]
    pub(crate) name: String,
}

impl Command for UpdateProfile {
    const SERVICE: ServiceId = USER;
    const NAME: &'static str = "updateProfile";
    const PARAMETERS: &'static [&'static str] = &["userId"];
    const HTTP: Option<Route> = Some(Route::patch("users/{userId}").public());
    const SUMMARY: &'static str = "Gives a user another name.";
    const ERRORS: &'static [(u16, &'static str)] = &[NO_SUCH_USER];
    type Output = Profile;
}

/// Gives a user another e-mail address, which nobody else may have. The one that he gives up is free again.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ChangeEmail {
    #[garde(length(chars, min = 1, max = 64))]
    pub(crate) user_id: String,
    #[garde(email, length(chars, max = 254))]
    pub(crate) email: String,
}

impl Command for ChangeEmail {
    const SERVICE: ServiceId = USER;
    const NAME: &'static str = "changeEmail";
    const PARAMETERS: &'static [&'static str] = &["userId"];
    const HTTP: Option<Route> = Some(Route::patch("users/{userId}/email").public());
    const SUMMARY: &'static str = "Gives a user another e-mail address.";
    const ERRORS: &'static [(u16, &'static str)] = &[NO_SUCH_USER, ADDRESS_TAKEN];
    type Output = Profile;
}

/// Asks who a user is, or was.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GetProfile {
    #[garde(length(chars, min = 1, max = 64))]
    pub(crate) user_id: String,
    /// As of when, as `2026-03-01T00:00:00Z`; now, when it is left out.
    #[garde(skip)]
    pub(crate) as_of: Option<Timestamp>,
}

impl Command for GetProfile {
    const SERVICE: ServiceId = USER;
    const NAME: &'static str = "getProfile";
    const PARAMETERS: &'static [&'static str] = &["userId", "asOf"];
    const HTTP: Option<Route> = Some(Route::get("users/{userId}").public());
    const SUMMARY: &'static str = "Who a user is, or was at a time.";
    const ERRORS: &'static [(u16, &'static str)] = &[
        (400, "`asOf` is no time, or one that is still to come"),
        (404, "there is no such user, or was not yet"),
    ];
    type Output = Profile;
}

/// Who a user is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase")]
#[garde(allow_unvalidated)]
pub(crate) struct Profile {
    pub(crate) user_id: String,
    pub(crate) email: String,
    pub(crate) name: String,
    /// When the name was changed last; missing when it never was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) renamed_at: Option<Timestamp>,
}

/// Asks for everything that happened to a user, oldest first.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GetHistory {
    #[garde(length(chars, min = 1, max = 64))]
    pub(crate) user_id: String,
    /// Only what lies behind this position: `next` of the page before.
    #[garde(skip)]
    pub(crate) after: Option<u64>,
    #[garde(range(min = 1, max = PAGE_MAX))]
    pub(crate) limit: Option<u32>,
}

impl Command for GetHistory {
    const SERVICE: ServiceId = HISTORY;
    const NAME: &'static str = "getHistory";
    const PARAMETERS: &'static [&'static str] = &["userId", "after", "limit"];
    const HTTP: Option<Route> = Some(Route::get("users/{userId}/history").public());
    const SUMMARY: &'static str = "What happened to a user: who, when, why, and what changed.";
    const ERRORS: &'static [(u16, &'static str)] = &[NO_SUCH_USER];
    type Output = History;
}

/// A page of a history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase")]
#[garde(allow_unvalidated)]
pub(crate) struct History {
    pub(crate) user_id: String,
    pub(crate) entries: Vec<Entry>,
    /// What to ask for as `after` to get the next page; missing on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<u64>,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase")]
#[garde(allow_unvalidated)]
pub(crate) struct Entry {
    /// Its place in the whole log.
    pub(crate) position: u64,
    pub(crate) event_id: String,
    pub(crate) event: String,
    pub(crate) version: u32,
    /// When it was recorded.
    pub(crate) at: Timestamp,
    pub(crate) who: Who,
    pub(crate) why: Why,
    /// The event as it was recorded.
    pub(crate) what: Value,
}

/// On whose behalf; absent on routes that are public.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase")]
#[garde(allow_unvalidated)]
pub(crate) struct Who {
    pub(crate) principal: Option<String>,
    pub(crate) tenant: Option<String>,
}

/// What it came from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase")]
#[garde(allow_unvalidated)]
pub(crate) struct Why {
    /// The command that recorded it.
    pub(crate) command: String,
    /// The flow that it belongs to: what the caller was told as `x-trace-id`.
    pub(crate) trace_id: String,
    pub(crate) correlation_id: Option<String>,
    /// The message that caused it.
    pub(crate) causation_id: Option<String>,
}

/// Looks for users by the words of their names, or by how these begin.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FindUsers {
    #[garde(length(chars, min = 1, max = 100))]
    pub(crate) q: String,
    #[garde(range(min = 1, max = PAGE_MAX))]
    pub(crate) limit: Option<u32>,
}

impl Command for FindUsers {
    const SERVICE: ServiceId = SEARCH;
    const NAME: &'static str = "findUsers";
    const PARAMETERS: &'static [&'static str] = &["q", "limit"];
    const HTTP: Option<Route> = Some(Route::get("users").public());
    const SUMMARY: &'static str = "Users whose names have words that begin like these.";
    type Output = Found;
}

/// Who was found, oldest account first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase")]
#[garde(allow_unvalidated)]
pub(crate) struct Found {
    pub(crate) users: Vec<Hit>,
    /// Whether there are more than these.
    pub(crate) has_more: bool,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase")]
#[garde(allow_unvalidated)]
pub(crate) struct Hit {
    pub(crate) user_id: String,
    pub(crate) name: String,
}

/// Has what is searched made anew from the first event on, while it goes on being searched.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
pub(crate) struct RebuildSearch {}

impl Command for RebuildSearch {
    const SERVICE: ServiceId = SEARCH;
    const NAME: &'static str = "rebuildSearch";
    const HTTP: Option<Route> = Some(Route::post("admin/search/rebuild").public());
    const SUMMARY: &'static str =
        "Makes the search anew beside the one in use; one that is on its way begins again.";
    type Output = SearchState;
}

/// Asks how the search is.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
pub(crate) struct GetSearchState {}

impl Command for GetSearchState {
    const SERVICE: ServiceId = SEARCH;
    const NAME: &'static str = "getSearchState";
    const HTTP: Option<Route> = Some(Route::get("admin/search").public());
    const SUMMARY: &'static str = "How far the search is behind the events, and a rebuild of it.";
    type Output = SearchState;
}

/// How the search is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase")]
#[garde(allow_unvalidated)]
pub(crate) struct SearchState {
    /// How often it has been made, the build in use being the last that was finished.
    pub(crate) generation: u32,
    /// Up to where it sees everything.
    pub(crate) position: u64,
    /// How many of its events it does not see yet; at most 10,000 are counted.
    pub(crate) events_behind: u64,
    /// Why it stands, when it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) trouble: Option<String>,
    /// The build that is on its way to take its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rebuild: Option<Rebuild>,
}

/// A build on its way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase")]
#[garde(allow_unvalidated)]
pub(crate) struct Rebuild {
    pub(crate) position: u64,
    /// The end of the log.
    pub(crate) head: u64,
    pub(crate) events_per_second: f64,
    /// Missing while nobody can tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seconds_left: Option<f64>,
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
        Tags::new().with("user", &self.user_id).with("email", self.email.to_lowercase())
    }
}

/// Somebody has another name now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase")]
#[garde(allow_unvalidated)]
pub(crate) struct ProfileUpdated {
    pub(crate) user_id: String,
    pub(crate) old_name: String,
    pub(crate) new_name: String,
    pub(crate) at: Timestamp,
}

impl Event for ProfileUpdated {
    const NAME: &'static str = "profileUpdated";
    fn tags(&self) -> Tags {
        Tags::new().with("user", &self.user_id)
    }
}

/// Somebody has another e-mail address now. It is found by both of them: one is free, the other is taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase")]
#[garde(allow_unvalidated)]
pub(crate) struct EmailChanged {
    pub(crate) user_id: String,
    pub(crate) old_email: String,
    pub(crate) new_email: String,
}

impl Event for EmailChanged {
    const NAME: &'static str = "emailChanged";
    fn tags(&self) -> Tags {
        let [old, new] = [&self.old_email, &self.new_email].map(|email| email.to_lowercase());
        Tags::new().with("user", &self.user_id).with("email", old).with("email", new)
    }
}

/// Every event that this program records, in the form in which it reads it.
pub(crate) fn readers() -> Readers {
    Readers::new().event::<NewUserRegistered>().event::<ProfileUpdated>().event::<EmailChanged>()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bodies as they lie in logs that were written: a form that was ever recorded stays readable.
    #[test]
    fn a_stored_event_of_each_form_is_read_as_it_was_written() {
        fn same<E: Event>(file: &str) {
            let event = E::decode(file.as_bytes()).unwrap();
            let [stored, again] =
                [file.as_bytes(), &event.encode().unwrap()].map(serde_json::from_slice::<Value>);
            assert_eq!(stored.unwrap(), again.unwrap());
        }
        same::<NewUserRegistered>(include_str!("../tests/fixtures/newUserRegistered.v1.json"));
        same::<ProfileUpdated>(include_str!("../tests/fixtures/profileUpdated.v1.json"));
        same::<EmailChanged>(include_str!("../tests/fixtures/emailChanged.v1.json"));
    }
}
