//! All captured steps, message by message.

use std::collections::BTreeSet;
use std::time::Duration;

use purista_core::address::Address;
use purista_core::bridge::{Answer, EventBridge as _};
use purista_core::client::Request;
use purista_core::clock::Clock;
use purista_core::id::Id;
use purista_core::invoke_error::InvokeError;
use purista_core::message::{Message, MessageType, Party};
use purista_core::payload::Payload;
use purista_core::text::Text;
use purista_events::memory::MemoryStore;
use purista_servers::folder::Folder;
use purista_sqlite::store::SqliteStore;
use serde_json::Value;

use crate::carrier::Carrier;
use crate::compared::{Comparison, trace_of_body};
use crate::fixtures::Fixtures;
use crate::running::Running;
use crate::services::{Ping, SECRET, Slow, TouchUser, USER, UserSignUp};

/// How long the caller of the captured steps waits for an answer that comes too late, or never.
const SHORT: Duration = Duration::from_secs(1);

fn sign_up(email: &str, name: &str) -> UserSignUp {
    UserSignUp { email: email.to_owned(), name: name.to_owned() }
}

fn trace(id: &str) -> Id {
    Id::parse(id).unwrap()
}

/// Asks with nothing to say, as the captured caller does.
fn nothing(target: &'static str, trace_id: &str) -> Request {
    let mut request = Request::new(Address::of(USER, target), Payload::empty());
    request.trace_id = Some(trace(trace_id));
    request
}

/// The status of the error that comes back, and whether it is meant for the caller.
fn refusal(answer: Answer) -> (u16, bool) {
    let answer = answer.unwrap();
    let error = InvokeError::of_response(&answer).expect("an error comes back");
    let told = format!("{error:?} {error} {:?}", answer.payload.bytes());
    assert!(!told.contains(SECRET), "what happened inside stays there: {told}");
    (error.status().code(), answer.is_handled_error)
}

/// The messages of a step, which ends with the one that PURISTA sends last.
async fn heard<C: Carrier>(running: &mut Running<C>, theirs: &[Value]) -> Vec<Value> {
    let mut ours = Vec::new();
    for _ in theirs {
        ours.push(running.tap.next().await);
    }
    ours
}

/// What services tell when they start. PURISTA adds its functions in no order; each message stands for itself.
fn compare_start(comparison: &mut Comparison, theirs: &[Value], ours: &[Value]) {
    let of = |message: &Value| {
        let (body, sender) = (&message["body"], &message["body"]["sender"]);
        [&body["messageType"], &sender["serviceName"], &sender["serviceTarget"]].map(Value::clone)
    };
    for message in theirs {
        let ours: Vec<_> = ours.iter().filter(|ours| of(ours) == of(message)).cloned().collect();
        comparison.step("start", std::slice::from_ref(message), &ours);
    }
    assert_eq!(ours.len(), theirs.len());
    let kinds = |service: &str| {
        let of_service = ours.iter().filter(|message| message["body"]["sender"]["serviceName"] == service);
        of_service.map(|message| message["body"]["messageType"].clone()).collect::<Vec<_>>()
    };
    for service in ["User", "Email"] {
        let kinds = kinds(service);
        assert_eq!(
            (&kinds[0], &kinds[kinds.len() - 1]),
            (&"infoServiceInit".into(), &"infoServiceReady".into())
        );
    }
}

async fn all_steps_look_as_puristas_do<C: Carrier>() {
    let theirs = Fixtures::parse(C::FIXTURES);
    let mut running = Running::<C>::start().await;
    let mut comparison = Comparison::on(C::NAME);

    let told = running.told_at_start().await;
    compare_start(&mut comparison, &theirs.of("start"), &told);
    let client = running.client.clone();
    macro_rules! step {
        ($step:literal, $asking:expr) => {{
            let answer = $asking.await;
            let theirs = theirs.of($step);
            let ours = heard(&mut running, &theirs).await;
            comparison.step($step, &theirs, &ours);
            answer
        }};
    }
    let call = client.call(sign_up("ada@example.com", "Ada")).trace_id(trace("s01-signUp"));
    assert_eq!(step!("s01", call.send()).unwrap().user_id, "id-of-Ada");
    let call = client.call(sign_up("bob@example.com", "Bob Ünïcode €"));
    let call =
        call.principal("principalOne").tenant("tenant-Two").trace_id(trace("s02-signUp-principal-tenant"));
    assert_eq!(step!("s02", call.send()).unwrap().user_id, "id-of-Bob Ünïcode €");

    let invalid = Payload::encoded(r#"{"email":"nope"}"#.into());
    let mut request = Request::new(Address::of(USER, "userSignUp"), invalid);
    request.trace_id = Some(trace("s03-signUp-invalid-payload"));
    assert_eq!(refusal(step!("s03", client.request(request))), (400, true));
    let request = nothing("throwHandled", "s04-throwHandled");
    assert_eq!(refusal(step!("s04", client.request(request))), (404, true));
    let request = nothing("throwPlain", "s05-throwPlain");
    assert_eq!(refusal(step!("s05", client.request(request))), (500, false));
    let request = nothing("throwUnhandled", "s06-throwUnhandled");
    assert_eq!(refusal(step!("s06", client.request(request))), (500, false));
    let request = nothing("badOutput", "s07-badOutput");
    assert_eq!(refusal(step!("s07", client.request(request))), (500, false));
    let answer = step!("s08", client.request(nothing("noResult", "s08-noResult"))).unwrap();
    assert_eq!(answer.kind, MessageType::CommandSuccessResponse);
    let touching = client.call(TouchUser { user_id: "u-1".to_owned() });
    assert!(step!("s09", touching.trace_id(trace("s09-touchUser-emit")).send()).unwrap().ok);

    let slow = client.call(Slow { ms: 1500 }).trace_id(trace("s10-slow-timeout")).timeout(SHORT);
    // Between two of ours the handler is told how long the caller waits, and ends with it.
    slow.send().await.unwrap_err();
    let messages = theirs.of("s10");
    let ours = heard(&mut running, &messages).await;
    comparison.step("s10", &messages[..1], &ours[..1]);
    assert_eq!(ours[1]["body"]["messageType"], "commandErrorResponse");
    assert_eq!(ours[1]["body"]["payload"]["status"], 504);
    assert_eq!(ours[1]["body"]["correlationId"], ours[0]["body"]["correlationId"]);
    let unknown = Payload::encoded("{}".into());
    let mut request = Request::new(Address::of(USER, "doesNotExist"), unknown);
    request.trace_id = Some(trace("s11-unknown-command"));
    request.timeout = Some(SHORT);
    step!("s11", client.request(request)).unwrap_err();
    let pong = step!("s12", client.call(Ping { msg: "x".to_owned(), n: 1 }).send()).unwrap();
    assert_eq!((pong.msg.as_str(), pong.n), ("x", 1));
    step!("s13", running.caller.publish(registered("from-custom"))).unwrap();

    recorded::<C>(&theirs, &mut comparison).await;
    comparison.conclude();
}

/// The sign-up once more, where both services have a store: the event leaves from the log, once.
async fn recorded<C: Carrier>(theirs: &Fixtures, comparison: &mut Comparison) {
    let folder = Folder::fresh("wire");
    let store = SqliteStore::open(folder.join("user.db")).unwrap();
    let mut running = Running::<C>::start_with(
        |user| user.store(store),
        |email| email.store(MemoryStore::new(Clock::system())),
    )
    .await;
    running.told_at_start().await;
    let call = running.client.call(sign_up("ada@example.com", "Ada")).trace_id(trace("s01-signUp"));
    assert_eq!(call.send().await.unwrap().user_id, "id-of-Ada");
    let theirs = theirs.of("s01-recorded");
    let mut ours = heard(&mut running, &theirs).await;
    // Between the response and the event that the log gives out there is no order.
    let place = |message: &Value| {
        let of = |message: &Value| {
            let body = &message["body"];
            [&body["messageType"], &body["sender"]["serviceTarget"]].map(Value::clone)
        };
        theirs.iter().position(|theirs| of(theirs) == of(message))
    };
    ours.sort_by_key(place);
    comparison.step("s01-recorded", &theirs, &ours);
    // Nothing comes after what belongs to it: what is sent now is the next that is heard.
    running.client.call(Ping { msg: "y".to_owned(), n: 2 }).send().await.unwrap();
    assert_eq!(running.tap.next().await["body"]["receiver"]["serviceTarget"], "ping");
    running.user.stop().await;
    running.email.stop().await;
}

/// The event of User, as somebody else emits it.
fn registered(user_id: &str) -> Message {
    let clock = Clock::system();
    let sender = Party {
        address: Address::of(purista::ServiceId::new("Caller", "1"), "main"),
        instance: Id::parse("callerInstance1").ok(),
    };
    Message {
        event_name: Some(Text::known("newUserRegistered")),
        payload: Payload::encoded(format!(r#"{{"userId":"{user_id}"}}"#).into()),
        ..Message::new(
            clock.id(),
            MessageType::CustomMessage,
            clock.now_ms(),
            sender,
            trace("s13-emit-foreign-event"),
        )
    }
}

/// What PURISTA's caller sends is sent as it stands in the fixtures; what comes of it is ours.
async fn what_purista_sends_is_answered_as_purista_answers<C: Carrier>() {
    let theirs = Fixtures::parse(C::FIXTURES);
    let mut running = Running::<C>::ready().await;
    let mut comparison = Comparison::on(C::NAME);
    for (number, step) in
        (1_u32..).zip(["s01", "s02", "s03", "s04", "s05", "s06", "s07", "s08", "s09", "s10", "s12", "s13"])
    {
        let messages = theirs.of(step);
        running.carrier.send(&messages[0], number).await;
        let ours = heard(&mut running, &messages).await;
        comparison.step(step, &messages[1..], &ours[1..]);
        // One trace, from what the peer sent to whatever comes of it.
        let traces: BTreeSet<_> = ours.iter().map(trace_of_body).collect();
        assert!(traces.len() == 1 && !traces.contains(&None), "{step}: {traces:?}");
    }
    comparison.conclude_in_part();
}

/// What a slow peer sends after the caller has given up.
async fn a_response_that_comes_too_late_is_dropped_and_counted<C: Carrier>() {
    let theirs = Fixtures::parse(C::FIXTURES).of("s10");
    let mut running = Running::<C>::ready().await;
    let slow = running.client.call(Slow { ms: 1500 }).timeout(SHORT).send();
    slow.await.unwrap_err();
    let ours = heard(&mut running, &theirs).await;
    let mut late = theirs[1].clone();
    C::answer(&mut late, &ours[0]);
    let ping = || running.client.call(Ping { msg: "x".to_owned(), n: 1 }).send();
    // What came before it has been counted when a later call is answered.
    ping().await.unwrap();
    let before = (running.caller.unclaimed)();
    running.carrier.send(&late, 1).await;
    assert_eq!(ping().await.unwrap().n, 1);
    assert_eq!((running.caller.unclaimed)(), before + 1);
    assert_eq!((running.caller.dropped)(), 0, "it is no message that anybody misses");
}

crate::carrier::everywhere!(
    all_steps_look_as_puristas_do,
    a_response_that_comes_too_late_is_dropped_and_counted,
    what_purista_sends_is_answered_as_purista_answers
);
