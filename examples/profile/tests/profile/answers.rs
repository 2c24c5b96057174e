//! What is answered to questions that are wrong, or look like it.

use serde_json::json;

use crate::server::{Folder, Server};

#[tokio::test]
async fn a_time_is_refused_that_is_none_or_is_still_to_come() {
    a_time_is_refused_that_is_none_or_is_still_to_come_in(Folder::new()).await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn a_time_is_refused_that_is_none_or_is_still_to_come_on_postgres() {
    a_time_is_refused_that_is_none_or_is_still_to_come_in(Folder::with_postgres().await).await;
}

async fn a_time_is_refused_that_is_none_or_is_still_to_come_in(folder: Folder) {
    let server = Server::start(&folder).await;
    let user = server.connect().await.sign_up("ada@example.com", "Ada").await.good();
    let path = format!("/api/v1/users/{}", user["userId"].as_str().unwrap());
    for (as_of, status, part) in [
        ("2026-03-01T00:00:00Z", 404, "there was no such user at 2026-03-01T00:00:00Z"),
        ("2026-03-01T01:00:00%2B01:00", 404, "there was no such user at 2026-03-01T00:00:00Z"),
        ("2999-01-01T00:00:00Z", 400, "is in the future"),
        ("2026-03-01", 400, "date-time"),
        ("yesterday", 400, "date-time"),
        ("", 400, "date-time"),
        ("2026-02-30T00:00:00Z", 400, "date-time"),
    ] {
        let answer = server.get(&format!("{path}?asOf={as_of}")).await;
        assert_eq!(answer.status, status, "{as_of}: {answer:?}");
        assert!(answer.json().to_string().contains(part), "{as_of}: {}", answer.json());
    }
    server.stop().await;
}

#[tokio::test]
async fn nobody_and_nothing_are_told_apart() {
    nobody_and_nothing_are_told_apart_in(Folder::new()).await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn nobody_and_nothing_are_told_apart_on_postgres() {
    nobody_and_nothing_are_told_apart_in(Folder::with_postgres().await).await;
}

async fn nobody_and_nothing_are_told_apart_in(folder: Folder) {
    let server = Server::start(&folder).await;
    let mut connection = server.connect().await;
    for path in
        ["/api/v1/users/nobody", "/api/v1/users/nobody/history", "/api/v1/users/nobody/history?after=7"]
    {
        let answer = connection.get(path).await;
        assert_eq!(
            (answer.status, &answer.json()["detail"]),
            (404, &json!("there is no such user")),
            "{path}"
        );
    }
    assert_eq!(connection.rename("nobody", "Bea").await.status, 404);
    let ada = connection.sign_up("ada@example.com", "Ada").await.good();
    let user_id = ada["userId"].as_str().unwrap();
    // The name that he has already: the same answer as to a change, and nothing is recorded.
    let same = connection.rename(user_id, "Ada").await.good();
    assert_eq!(same, json!({ "userId": user_id, "email": "ada@example.com", "name": "Ada" }));
    let history = connection.get(&format!("/api/v1/users/{user_id}/history")).await.good();
    assert_eq!(history["entries"].as_array().unwrap().len(), 1);
    for name in [json!(""), json!("A".repeat(81)), json!(7), json!(null)] {
        let path = format!("/api/v1/users/{user_id}");
        let answer = connection.ask("PATCH", &path, Some(&json!({ "name": name }))).await.unwrap();
        assert_eq!((answer.status, &answer.json()["errors"][0]["path"]), (400, &json!(["name"])), "{name}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_search_takes_anything_as_words_and_never_as_operators() {
    a_search_takes_anything_as_words_and_never_as_operators_in(Folder::new()).await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn a_search_takes_anything_as_words_and_never_as_operators_on_postgres() {
    a_search_takes_anything_as_words_and_never_as_operators_in(Folder::with_postgres().await).await;
}

async fn a_search_takes_anything_as_words_and_never_as_operators_in(folder: Folder) {
    let server = Server::start(&folder).await;
    let mut connection = server.connect().await;
    for (email, name) in
        [("1@x.example", "Ada Lovelace"), ("2@x.example", "Zoë O'Brien"), ("3@x.example", "OR NOT")]
    {
        connection.sign_up(email, name).await.good();
    }
    server.search_until("not", 1).await;
    for (question, names) in [
        ("ada", vec!["Ada Lovelace"]),
        ("a", vec!["Ada Lovelace"]),
        ("lo%20AD", vec!["Ada Lovelace"]),
        ("lace", vec![]),
        ("zoe", vec!["Zoë O'Brien"]),
        ("o%27br", vec!["Zoë O'Brien"]),
        ("o", vec!["Zoë O'Brien", "OR NOT"]),
        ("or", vec!["OR NOT"]),
        ("ada%20OR%20zoe", vec![]),
        ("ada%20NOT%20zoe", vec![]),
        ("NEAR(ada,2)", vec![]),
        ("name:ada", vec![]),
        ("user_id:*", vec![]),
        ("%22ada%22", vec!["Ada Lovelace"]),
        ("%22ada", vec!["Ada Lovelace"]),
        ("ada%00", vec!["Ada Lovelace"]),
        ("*", vec![]),
        ("%5E%7B%7D()-%2B%3B%27--", vec![]),
        ("%C2%B2", vec![]),
        ("%F0%9F%98%80", vec![]),
        ("%20", vec![]),
    ] {
        let found = connection.get(&format!("/api/v1/users?q={question}")).await.good();
        let hits: Vec<_> = found["users"].as_array().unwrap().iter().map(|hit| hit["name"].clone()).collect();
        assert_eq!(
            (hits, &found["hasMore"]),
            (names.into_iter().map(Into::into).collect(), &json!(false)),
            "{question}"
        );
    }
    let first = connection.get("/api/v1/users?q=o&limit=1").await.good();
    assert_eq!((first["users"].as_array().unwrap().len(), &first["hasMore"]), (1, &json!(true)));
    for (path, field) in [
        ("?q=", "q"),
        ("", "q"),
        ("?q=a&limit=0", "limit"),
        ("?q=a&limit=101", "limit"),
        ("?q=a&limit=x", "limit"),
    ] {
        let answer = connection.get(&format!("/api/v1/users{path}")).await;
        assert_eq!((answer.status, &answer.json()["errors"][0]["path"]), (400, &json!([field])), "{path}");
    }
    server.stop().await;
}
