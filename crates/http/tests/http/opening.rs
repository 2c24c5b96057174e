//! What a gateway refuses to open with, and how it says so.

use garde::Validate;
use purista_core::address::ServiceId;
use purista_core::contract::Command;
use purista_core::route::Route;
use purista_http::gateway::Gateway;
use purista_http::limits::Limits;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::contracts::{FindUser, RemoveUser, SignUp, USER};
use crate::support::{Builder, gateway};

#[track_caller]
fn check(opened: Result<crate::support::Open, purista_core::door::DoorError>, told: &[&str]) {
    let error = opened.err().expect("it opened").to_string();
    for part in told {
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
}

macro_rules! command {
    ($name:ident { $($field:ident: $kind:ty),* }, $parameters:expr, $route:expr) => {
        #[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
        #[serde(rename_all = "camelCase")]
        #[garde(allow_unvalidated)]
        struct $name { $($field: $kind),* }
        impl Command for $name {
            const SERVICE: ServiceId = USER;
            const NAME: &'static str = stringify!($name);
            const PARAMETERS: &'static [&'static str] = $parameters;
            const HTTP: Option<Route> = $route;
            type Output = ();
        }
    };
}

command!(SameRoute { other_id: String }, &["otherId"], Some(Route::get("users/{otherId}").public()));
command!(NotAParameter { user_id: String }, &[], Some(Route::put("a/{userId}").public()));
command!(NotAField { user_id: String }, &["userId", "user_id"], Some(Route::put("a/{userId}").public()));
command!(NoTextField { user_id: String }, &["userId"], Some(Route::put("a/{userId}").text("note").public()));
command!(NeverComes { user_id: String, name: String }, &["userId"], Some(Route::get("a/{userId}").public()));
command!(BadPath { user_id: String }, &["userId"], Some(Route::get("/a/{userId}").public()));
command!(BadSegment { user_id: String }, &["userId"], Some(Route::get("a/{userId}.json").public()));
command!(TwiceNamed { user_id: String }, &["userId"], Some(Route::get("{userId}/{userId}").public()));
command!(Hidden { user_id: String }, &[], None);

#[tokio::test]
async fn a_route_that_is_taken_is_refused_whatever_its_parameters_are_called() {
    let opened = Builder::new().unserved::<FindUser>().unserved::<SameRoute>().try_open(gateway()).await;
    check(
        opened,
        &["GET /api/v1/users/{otherId} of User.1.SameRoute", "taken by User.1.findUser", "another path"],
    );
    let opened = Builder::new().unserved::<SignUp>().unserved::<SignUp>().try_open(gateway()).await;
    check(opened, &["POST /api/v1/sign-up"]);
    let opened = Builder::new().try_open(gateway().page("/healthz", "text/plain", "x")).await;
    check(opened, &["/healthz of a page", "taken by the health of the host"]);
}

#[tokio::test]
async fn a_route_without_an_authenticator_is_refused_unless_it_is_public() {
    let opened = Builder::new().unserved::<RemoveUser>().try_open(Gateway::listen("127.0.0.1:0")).await;
    check(
        opened,
        &["User.1.removeUser (DELETE /api/v1/users/{userId})", "Gateway::authenticator", "Route::public"],
    );
    assert!(Builder::new().unserved::<SignUp>().try_open(Gateway::listen("127.0.0.1:0")).await.is_ok());
}

#[tokio::test]
async fn what_could_never_be_served_is_refused_with_its_remedy() {
    let opened = Builder::new().unserved::<NotAParameter>().try_open(gateway()).await;
    check(opened, &["User.1.NotAParameter (PUT /api/v1/a/{userId})", "{userId}", "PARAMETERS: add it there"]);
    let opened = Builder::new().unserved::<NotAField>().try_open(gateway()).await;
    check(opened, &["`user_id`", "no such field"]);
    let opened = Builder::new().unserved::<NoTextField>().try_open(gateway()).await;
    check(opened, &["the field `note`", "no such field"]);
    let opened = Builder::new().unserved::<NeverComes>().try_open(gateway()).await;
    check(opened, &["`name` is required", "GET has no body", "add it to PARAMETERS"]);
    let opened = Builder::new().unserved::<BadPath>().try_open(gateway()).await;
    check(opened, &["no segment", "no slash before the first"]);
    let opened = Builder::new().unserved::<BadSegment>().try_open(gateway()).await;
    check(opened, &["`{userId}.json` is no segment"]);
    let opened = Builder::new().unserved::<TwiceNamed>().try_open(gateway()).await;
    check(opened, &["{userId} twice"]);
    let opened = Builder::new().try_open(gateway().command::<Hidden>()).await;
    check(opened, &["User.1.Hidden has no route"]);
}

#[tokio::test]
async fn a_place_that_is_taken_or_none_is_refused() {
    let open = Builder::new().open(gateway()).await;
    let place = open.address.to_string();
    let opened = Builder::new().try_open(Gateway::listen(&place)).await;
    check(opened, &[&place, "another program listens there", "choose another port"]);
    check(Builder::new().try_open(Gateway::listen("nowhere")).await, &["`nowhere`", "127.0.0.1:3000"]);
}

#[tokio::test]
async fn pages_and_limits_that_make_no_sense_are_refused() {
    check(Builder::new().try_open(gateway().page("about", "text/html", "x")).await, &["`about`", "slash"]);
    check(Builder::new().try_open(gateway().page("/about", "text\n", "x")).await, &["media type", "/about"]);
    check(Builder::new().try_open(gateway().page_policy("a\nb")).await, &["page policy"]);
    check(
        Builder::new().try_open(gateway().limits(Limits::default().connections(0))).await,
        &["connections is zero"],
    );
}

#[tokio::test]
async fn a_gateway_for_a_host_does_not_serve_by_itself() {
    let served = gateway().serve("127.0.0.1:0", tokio_util::sync::CancellationToken::new()).await;
    assert!(served.err().unwrap().to_string().contains("Gateway::new"));
}
