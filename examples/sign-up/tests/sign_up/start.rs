//! How it starts, and what it says when it cannot.

use std::net::TcpListener;

use crate::server::{Folder, Server, program};
use crate::{beside_others, soon};

/// What it says when it is started with these arguments and ends at once.
async fn refusal(folder: &Folder, arguments: &[&str], code: i32) -> String {
    let output = program(folder, arguments).env("RUST_BACKTRACE", "1").output();
    let output = soon("the end of a start that fails", output).await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(!said.contains("backtrace") && !said.contains("panicked"), "{said}");
    assert!(output.stdout.is_empty(), "it says nowhere that it serves");
    said.lines().last().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn it_says_where_everything_is() {
    let _cores = beside_others().await;
    let folder = Folder::new();
    let server = Server::start(&folder).await;
    let place = &server.place;
    let expect = [
        format!("page     http://{place}/"),
        format!("API      http://{place}/api/v1/sign-up"),
        format!("OpenAPI  http://{place}/api/openapi.json"),
        format!("health   http://{place}/healthz http://{place}/readyz"),
        format!("mails    {} (one .eml file each)", folder.mails().display()),
    ];
    assert_eq!(server.said, expect);
    server.stop().await;
}

#[tokio::test]
async fn a_second_process_on_the_folder_is_refused_with_the_reason() {
    let _cores = beside_others().await;
    let folder = Folder::new();
    let server = Server::start(&folder).await;
    let said = refusal(&folder, &[], 1).await;
    assert!(
        said.starts_with("error: ") && said.contains("has it open") && said.contains("sign-up.db"),
        "{said}"
    );
    server.sign_up("ada@example.com", "Ada").await.user_id();
    server.stop().await;
}

#[tokio::test]
async fn a_port_in_use_is_said_once_with_the_remedy() {
    let _cores = beside_others().await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = taken.local_addr().unwrap().to_string();
    let said = refusal(&Folder::new(), &["--listen", &place], 1).await;
    assert!(said.starts_with("error: ") && said.contains("choose another port"), "{said}");
    assert_eq!(said.matches(&place).count(), 1, "{said}");
    let said = refusal(&Folder::new(), &["--listen", "nowhere"], 1).await;
    assert!(said.contains("as `127.0.0.1:3000`"), "{said}");
}

#[tokio::test]
async fn a_mail_server_that_cannot_be_meant_is_refused_without_its_password() {
    let _cores = beside_others().await;
    for (url, part) in [
        ("mail.example.com", "smtp://host:port"),
        ("http://u:geheim@mail.example.com", "smtp://host:port"),
        ("smtp://", "smtp://host:port"),
        ("smtp://u:geheim@mail.example.com:99999", "unencrypted"),
        ("smtps://u:geheim@mail.example.com:99999", "smtp://host:port"),
        ("smtp://u:geheim@mail.example.com", "unencrypted"),
    ] {
        let said = refusal(&Folder::new(), &["--smtp", url], 1).await;
        assert!(said.starts_with("error: --smtp ") && said.contains(part), "{url}: {said}");
        assert!(!said.contains("geheim"), "{said}");
    }
}

#[tokio::test]
async fn a_data_folder_that_cannot_be_is_refused() {
    let _cores = beside_others().await;
    let folder = Folder::new();
    std::fs::write(folder.data(), "a file").unwrap();
    let said = refusal(&folder, &[], 1).await;
    assert!(said.starts_with("error: ") && said.contains(folder.data().to_str().unwrap()), "{said}");
}

#[tokio::test]
async fn help_tells_every_option() {
    let output = program(&Folder::new(), &["--help"]).output().await.unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    for part in
        ["--listen <ADDRESS>", "127.0.0.1:3000", "--data <FOLDER>", "--smtp <URL>", "RUST_LOG", "SIGTERM"]
    {
        assert!(help.contains(part), "{help}");
    }
}
