//! A decision whose own events its boundary does not select: two of them at the same time would not conflict.

use garde::Validate;
use purista::testing::{TestHost, given};
use purista::{Command, Event, HandlerError, Tags, View, decide, view};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::captured::Warnings;
use crate::contracts::{ACCOUNT, service};
use crate::{log, refused};

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[garde(allow_unvalidated)]
struct Claim {
    coupon: String,
    user: String,
}

impl Command for Claim {
    const SERVICE: purista::ServiceId = ACCOUNT;
    const NAME: &'static str = "claim";
    type Output = ();
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Validate)]
#[garde(allow_unvalidated)]
struct Claimed {
    coupon: String,
    user: String,
    /// The names of its tags; their values are the fields.
    tagged: Vec<String>,
}

impl Event for Claimed {
    const NAME: &'static str = "claimed";
    fn tags(&self) -> Tags {
        let value = |name: &str| if name == "user" { &self.user } else { &self.coupon };
        self.tagged.iter().fold(Tags::new(), |tags, name| match name.as_str() {
            "user" => tags.with("user", value("user")),
            _ => tags.with("coupon", value("coupon")),
        })
    }
}

fn claims(command: &Claim) -> View<u32> {
    view(0).tagged("coupon", &command.coupon).on(|count: &mut u32, _: Claimed| *count += 1)
}

fn of_user(command: &Claim) -> View<u32> {
    view(0).tagged("user", &command.user).on(|count: &mut u32, _: Claimed| *count += 1)
}

fn both(command: &Claim) -> (View<u32>, View<u32>) {
    (claims(command), of_user(command))
}

/// Depends on what it never records.
fn elsewhere(command: &Claim) -> View<u32> {
    view(0).tagged("coupon", &command.coupon).on(|count: &mut u32, _: crate::contracts::Pinged| *count += 1)
}

fn tagged<S>(names: &'static [&'static str]) -> impl Fn(Claim, S) -> Result<Claimed, HandlerError> {
    move |command, _| {
        let tagged = names.iter().map(ToString::to_string).collect();
        Ok(Claimed { coupon: command.coupon, user: command.user, tagged })
    }
}

fn to_claim() -> Claim {
    Claim { coupon: "c1".to_owned(), user: "ada".to_owned() }
}

#[tokio::test]
async fn a_decision_whose_events_its_boundary_never_selects_is_rejected() {
    for names in [&[][..], &["user"]] {
        let host = TestHost::start([service().command(decide(claims, tagged(names))).build()]).await;
        refused(host.invoke(to_claim()).await, 500, "");
        assert!(log(host.store()).await.is_empty(), "nothing is recorded");
        let then = given().when(to_claim(), claims, tagged(names));
        let text = then.refusal().report();
        assert!(text.contains("give claimed the tag `coupon`"), "{text}");
    }
    let host = TestHost::start([service().command(decide(elsewhere, tagged(&["coupon"]))).build()]).await;
    refused(host.invoke(to_claim()).await, 500, "");
    let then = given().when(to_claim(), elsewhere, tagged(&["coupon"]));
    let text = then.refusal().report();
    assert!(text.contains("read claimed in a view") && text.contains("allow_unselected_events"), "{text}");
}

#[tokio::test]
async fn it_can_be_allowed() {
    let def = decide(elsewhere, tagged(&["coupon"])).allow_unselected_events();
    let host = TestHost::start([service().command(def).build()]).await;
    host.invoke(to_claim()).await.unwrap();
    host.invoke(to_claim()).await.unwrap();
    assert_eq!(log(host.store()).await.len(), 2);
    let () = *given().allow_unselected_events().when(to_claim(), elsewhere, tagged(&["coupon"])).reply();
}

#[tokio::test]
async fn an_event_that_one_view_selects_is_recorded_and_a_missing_tag_of_another_is_logged_once() {
    let warnings = Warnings::default();
    let _guard = tracing::subscriber::set_default(warnings.clone());
    let host = TestHost::start([service().command(decide(both, tagged(&["coupon"]))).build()]).await;
    host.invoke(to_claim()).await.unwrap();
    host.invoke(to_claim()).await.unwrap();
    assert_eq!(warnings.with("by a tag that the event does not have").len(), 1);
    assert!(warnings.lines()[0].contains("user"), "{:?}", warnings.lines());
}

#[tokio::test]
async fn an_event_with_every_tag_of_its_views_is_recorded_without_a_warning() {
    let warnings = Warnings::default();
    let _guard = tracing::subscriber::set_default(warnings.clone());
    let host = TestHost::start([service().command(decide(both, tagged(&["coupon", "user"]))).build()]).await;
    host.invoke(to_claim()).await.unwrap();
    assert_eq!(warnings.lines(), Vec::<String>::new());
}
