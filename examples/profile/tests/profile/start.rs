//! How it starts, and what it says when it cannot.

use crate::server::{Folder, Server, program};
use crate::soon;

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
    for part in ["--listen <ADDRESS>", "127.0.0.1:3000", "--data <FOLDER>", "asOf=", "/history", "SIGTERM"] {
        assert!(help.contains(part), "{help}");
    }
}
