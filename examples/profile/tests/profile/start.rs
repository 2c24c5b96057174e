//! How it starts, and what it says when it cannot.

use serde_json::json;

use crate::server::{Folder, Server, program};
use crate::{seed, soon};

/// How `--check` ends, and what it says.
async fn check(folder: &Folder) -> (Option<i32>, String) {
    let output = soon("the end of the check", program(folder, &["--check"]).output()).await.unwrap();
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

#[tokio::test]
async fn a_check_reads_each_stored_form_beside_a_program_that_runs() {
    let folder = Folder::new();
    let (code, said) = check(&folder).await;
    assert!(code == Some(1) && said.contains("profile.db"), "there is no file: {said}");
    let server = Server::start(&folder).await;
    let user = server.connect().await.sign_up("ada@example.com", "Ada").await.good();
    let user = user["userId"].as_str().unwrap();
    server.connect().await.rename(user, "Ada Lovelace").await.good();
    server.connect().await.change_email(user, "ada@example.org").await.good();
    assert_eq!(check(&folder).await, (Some(0), "stored forms of events: 3, all of them read\n".to_owned()));
    server.stop().await;
}

#[tokio::test]
async fn what_no_code_reads_is_named_by_the_check_and_at_the_start_and_stops_only_what_reads_it() {
    let folder = Folder::new();
    seed::add(&folder, 20).await;
    seed::add_stored(&folder, "profileUpdated", 7, &json!({ "userId": "seed0", "names": ["Grace"] })).await;
    seed::add_stored(&folder, "userLeft", 1, &json!({ "userId": "seed0" })).await;
    let (code, said) = check(&folder).await;
    assert_eq!(code, Some(1), "{said}");
    let unread =
        ["profileUpdated v7 at position 21", "nothing reads the event userLeft v1, as at position 22"];
    assert!(said.ends_with("error: no code reads 2 of 4 stored forms of events\n"), "{said}");
    assert!(unread.iter().all(|part| said.contains(part)) && !said.contains("newUserRegistered"), "{said}");

    let server = Server::start(&folder).await;
    for part in unread {
        server.logs(part).await;
    }
    let mut connection = server.connect().await;
    let state = soon("the search to pause", async {
        loop {
            let state = connection.get("/api/v1/admin/search").await.good();
            if state.get("trouble").is_some() {
                return state;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await; // real time: another process works
        }
    });
    let state = state.await;
    assert_eq!(
        (&state["trouble"], &state["position"]),
        (&"it is paused at 21: see the log".into(), &20.into())
    );
    assert_eq!(
        connection.get("/api/v1/users/seed0").await.status,
        500,
        "what is decided on it is not guessed"
    );
    connection.sign_up("new@example.com", "New").await.good();
    let found = connection.get("/api/v1/users?q=grace1").await.good();
    assert_eq!(found["users"][0]["name"], "Grace1 Hopper1", "what was there is found");
    server.stop().await;
}

#[tokio::test]
async fn it_says_where_everything_is() {
    let folder = Folder::new();
    let server = Server::start(&folder).await;
    let place = &server.place;
    let expect = [
        format!("sign-up  http://{place}/api/v1/sign-up"),
        format!("users    http://{place}/api/v1/users?q=ada"),
        format!("search   http://{place}/api/v1/admin/search"),
        format!("OpenAPI  http://{place}/api/openapi.json"),
        format!("health   http://{place}/healthz http://{place}/readyz"),
        format!("store    {}", folder.file().display()),
        format!("metrics  http://{place}/metrics"),
    ];
    assert_eq!(server.said, expect);
    let document = server.get("/api/openapi.json").await.good();
    for path in ["/api/v1/users/{userId}", "/api/v1/users/{userId}/history", "/api/v1/users"] {
        assert!(document["paths"][path]["get"].is_object(), "{path}");
    }
    let metrics = server.get("/metrics").await;
    let metrics = String::from_utf8(metrics.body).unwrap();
    let nothing_waits = "purista_lag_events{kind=\"projection\",name=\"profileSearch 1\"} 0\n";
    assert!(metrics.contains(nothing_waits), "{metrics}");
    let health = server.get("/healthz").await.good();
    let search = health["parts"].as_array().unwrap().last().unwrap();
    assert_eq!((&search["name"], &search["eventsBehind"]), (&"projection profileSearch 1".into(), &0.into()));
    server.stop().await;
}

#[tokio::test]
async fn a_second_process_on_the_folder_and_a_port_in_use_are_refused_with_the_reason() {
    let folder = Folder::new();
    let server = Server::start(&folder).await;
    let other = Folder::new();
    for (folder, arguments, part) in [
        (&folder, vec![], "has it open"),
        (&other, vec!["--listen", &server.place], "choose another port"),
        (&other, vec!["--listen", "nowhere"], "as `127.0.0.1:3000`"),
    ] {
        let output = soon("the end", program(folder, &arguments).output()).await.unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.is_empty()), (Some(1), true), "{said}");
        let last = said.lines().last().unwrap_or_default();
        assert!(last.starts_with("error: ") && last.contains(part), "{said}");
    }
    server.stop().await;
}

#[tokio::test]
async fn help_tells_every_option_and_how_to_try_it() {
    let output = program(&Folder::new(), &["--help"]).output().await.unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    for part in [
        "--listen <ADDRESS>",
        "127.0.0.1:3000",
        "--data <FOLDER>",
        "--store <URL>",
        "--check",
        "asOf=",
        "/history",
        "SIGTERM",
    ] {
        assert!(help.contains(part), "{help}");
    }
}

#[tokio::test]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn it_says_which_database_it_uses_and_no_password() {
    let folder = Folder::with_postgres().await;
    let (code, said) = check(&folder).await;
    assert!(code == Some(1) && said.contains("migrate them first"), "a check makes no tables: {said}");
    let server = Server::start(&folder).await;
    let (_, place) = folder.url().unwrap().split_once('@').unwrap();
    let (place, database) = place.split_once('/').unwrap();
    let expect = format!("store    Postgres at {place}, database {database}, schema purista");
    assert!(server.said.contains(&expect), "{:?}", server.said);
    assert!(!format!("{:?}{}", server.said, server.log()).contains("CANARY"));
    server.connect().await.sign_up("ada@example.com", "Ada").await.good();
    assert_eq!(check(&folder).await, (Some(0), "stored forms of events: 1, all of them read\n".to_owned()));
    server.stop().await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn a_store_that_cannot_be_used_is_refused_with_the_remedy_and_without_its_password() {
    let near = Folder::with_postgres().await;
    let url = near.url().unwrap();
    let (server, _) = url.rsplit_once('/').unwrap();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (url, part) in [
        ("mysql://ada:CANARY@localhost/app".to_owned(), "write postgres://user:password@host:5432/database"),
        ("postgres://ada:CANARY@/app".to_owned(), "names no host"),
        (format!("postgres://ada:CANARY@{nobody}/app"), "is it there"),
        (format!("{server}/nowhere"), "make it with `createdb nowhere`"),
        (format!("{url}?sslmode=require"), "does not speak TLS"),
    ] {
        let output = soon("the end", program(&Folder::new(), &["--store", &url]).output()).await.unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.is_empty()), (Some(1), true), "{said}");
        let last = said.lines().last().unwrap_or_default();
        assert!(last.starts_with("error: ") && last.contains(part), "{url}: {said}");
        assert!(!said.contains("CANARY"), "{said}");
    }
}
