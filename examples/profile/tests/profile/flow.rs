//! The whole of it once: a sign-up, two other names, now, before and between, the search, the history, after a restart.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use crate::server::{Folder, Server};

/// A time that lies apart from what is recorded before and after it: both are written down by the millisecond.
#[expect(clippy::disallowed_methods, reason = "the time of day is what is asked for")]
async fn a_moment() -> Timestamp {
    let apart = Duration::from_millis(20);
    tokio::time::sleep(apart).await; // real time: the past is told by the clock
    let moment = Timestamp::now();
    tokio::time::sleep(apart).await; // real time: as before
    moment
}

#[tokio::test]
async fn somebody_signs_up_is_renamed_twice_and_is_seen_now_and_as_he_was() {
    somebody_signs_up_is_renamed_twice_and_is_seen_now_and_as_he_was_in(Folder::new()).await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn somebody_signs_up_is_renamed_twice_and_is_seen_now_and_as_he_was_on_postgres() {
    somebody_signs_up_is_renamed_twice_and_is_seen_now_and_as_he_was_in(Folder::with_postgres().await).await;
}

async fn somebody_signs_up_is_renamed_twice_and_is_seen_now_and_as_he_was_in(folder: Folder) {
    let server = Server::start(&folder).await;
    let mut ada = server.connect().await;
    let before_all = a_moment().await;
    let signed_up = ada.sign_up("Ada@example.com", "Ada Byron").await.good();
    let user_id = signed_up["userId"].as_str().unwrap().to_owned();
    assert_eq!(signed_up, json!({ "userId": user_id, "email": "Ada@example.com", "name": "Ada Byron" }));
    let before = a_moment().await;
    let first = ada.rename(&user_id, "Ada King").await;
    let between = a_moment().await;
    let second = ada.rename(&user_id, "Ada Lovelace").await.good();
    assert_eq!(second["name"], "Ada Lovelace");

    let path = format!("/api/v1/users/{user_id}");
    let mut server = server;
    for has_restarted in [false, true] {
        if has_restarted {
            server.stop().await;
            server = Server::start(&folder).await;
        }
        assert_eq!(server.get(&path).await.good(), second);
        for (time, name) in [(before, "Ada Byron"), (between, "Ada King")] {
            let then = server.get(&format!("{path}?asOf={time}")).await.good();
            assert_eq!((&then["name"], &then["email"]), (&json!(name), &json!("Ada@example.com")), "{time}");
        }
        let not_yet = server.get(&format!("{path}?asOf={before_all}")).await;
        assert_eq!(not_yet.status, 404);
        assert_eq!(not_yet.json()["detail"], format!("there was no such user at {before_all}"));

        let hit = (user_id.clone(), "Ada Lovelace".to_owned());
        assert_eq!(server.search_until("love", 1).await, std::slice::from_ref(&hit));
        assert_eq!(server.search_until("ADA%20L%C3%B6v", 1).await, [hit]);
        for old in ["byron", "king"] {
            assert!(server.search_until(old, 0).await.is_empty());
        }

        let history = server.get(&format!("{path}/history")).await.good();
        let entries = history["entries"].as_array().unwrap();
        let told: Vec<_> = entries.iter().map(|entry| (entry["event"].clone(), &entry["why"])).collect();
        let [(registered, _), (updated, why), (updated_again, _)] = &told[..] else { panic!("{history}") };
        assert_eq!((registered, updated, updated_again), (&json!("newUserRegistered"), updated, updated));
        assert_eq!(updated, "profileUpdated");
        assert_eq!(why["command"], "User.1.updateProfile");
        assert_eq!(why["traceId"], first.header("x-trace-id").unwrap(), "the caller was told this one");
        assert!(why["correlationId"].is_string() && why["causationId"].is_string(), "{why}");
        assert_eq!(entries[1]["who"], json!({}), "no principal, and no tenant");
        let what = &entries[2]["what"];
        assert_eq!((&what["oldName"], &what["newName"]), (&json!("Ada King"), &json!("Ada Lovelace")));
        assert_eq!(what["at"], second["renamedAt"]);
        let at: Timestamp = entries[1]["at"].as_str().unwrap().parse().unwrap();
        assert!(before < at && at < between, "{history}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_history_comes_in_pages() {
    a_history_comes_in_pages_in(Folder::new()).await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn a_history_comes_in_pages_on_postgres() {
    a_history_comes_in_pages_in(Folder::with_postgres().await).await;
}

async fn a_history_comes_in_pages_in(folder: Folder) {
    let server = Server::start(&folder).await;
    let mut connection = server.connect().await;
    let user = connection.sign_up("ada@example.com", "0").await.good();
    let path = format!("/api/v1/users/{}", user["userId"].as_str().unwrap());
    for name in 1..=24 {
        connection.rename(user["userId"].as_str().unwrap(), &name.to_string()).await.good();
        connection.sign_up(&format!("{name}@example.com"), "somebody else").await.good();
    }
    let (mut names, mut after, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let page = connection.get(&format!("{path}/history?limit=10{after}")).await.good();
        let what = page["entries"].as_array().unwrap().iter().map(|entry| &entry["what"]);
        names.extend(what.map(|what| what.get("newName").unwrap_or(&what["name"]).clone()));
        pages += 1;
        let Some(next) = page.get("next") else { break };
        after = format!("&after={next}");
    }
    assert_eq!(pages, 3);
    assert_eq!(names, (0..=24).map(|name| json!(name.to_string())).collect::<Vec<_>>());
    let page = connection.get(&format!("{path}/history")).await.good();
    assert_eq!((page["entries"].as_array().unwrap().len(), page["next"].is_number()), (20, true));
    server.stop().await;
}
