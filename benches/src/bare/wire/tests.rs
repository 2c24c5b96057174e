use purista_core::message::Message as Purista;
use serde_json::Value;
use tokio::time::Instant;

use super::*;

/// What a bridge would write of the same message: every key and value must be there, and in as many bytes.
fn is_as_a_bridge_writes_it(written: &Written) {
    let now = Instant::now();
    let read = Purista::decode(&written.body, &Clock::system(), now).unwrap();
    let again = read.encode(now).unwrap();
    let json = |bytes: &Bytes| serde_json::from_slice::<Value>(bytes).unwrap();
    assert_eq!(json(&again), json(&written.body));
    assert_eq!(again.len(), written.body.len());
    let mut headers = Vec::new();
    read.headers(|name, value| headers.push((name, value.to_owned())));
    assert_eq!(headers, written.headers);
}

#[test]
fn messages_and_headers_are_those_of_a_bridge() {
    let (caller, server) = (Process::default(), Process::default());
    let command = caller.command(SignUp::sample()).unwrap();
    is_as_a_bridge_writes_it(&command);
    let traceparent = command.headers.iter().find(|(name, _)| *name == TRACEPARENT).unwrap();
    let done = |input: SignUp| SignedUp { user_id: 7, name: input.name };
    let answered = server.answered(&command.body, Some(&traceparent.1), done).unwrap();
    is_as_a_bridge_writes_it(&answered);
    assert_eq!(answered.correlation_id, command.correlation_id);
    assert_eq!(answer(&answered.body).unwrap(), SignedUp { user_id: 7, name: SignUp::sample().name });
    let told = caller.event(UserRegistered::sample()).unwrap();
    is_as_a_bridge_writes_it(&told);
    assert_eq!(event(&told.body).unwrap(), UserRegistered::sample());
}

#[test]
fn ids_are_given_once() {
    let process = Process::default();
    let ids: std::collections::HashSet<_> = (0..1000).map(|_| process.id()).collect();
    assert_eq!(ids.len(), 1000);
    assert!(ids.iter().all(|id| id.len() == 32));
}
