//! Mails by SMTP: received, tried again while the server is down, and not forgotten by a restart.

use crate::beside_others;
use crate::server::{Folder, Server};
use crate::smtp_server::{SmtpServer, free_port};

#[tokio::test]
#[ignore = "needs python3 with aiosmtpd: cargo xtask test"]
async fn a_mail_server_receives_the_mail() {
    let _cores = beside_others().await;
    let (folder, port) = (Folder::new(), free_port());
    let mut mails = SmtpServer::start(port).await;
    let url = format!("smtp://127.0.0.1:{port}");
    let arguments = ["--smtp", &url, "--from", "Acme <hello@acme.example>"];
    let server = Server::start_with(&folder, &arguments).await;
    assert!(server.said.contains(&"mails    by SMTP".to_owned()), "{:?}", server.said);
    let user_id = server.sign_up("ada@example.com", "Ada Lovelace").await.user_id();
    let received = mails.next().await;
    assert_eq!(received.to, ["ada@example.com"]);
    assert_eq!(received.from, "hello@acme.example");
    let mail = received.mail();
    assert_eq!(mail.header("to"), "\"Ada Lovelace\" <ada@example.com>");
    assert!(mail.body.contains(&user_id));
    let (id, domain) = mail.header("message-id").trim_matches(['<', '>']).split_once('@').unwrap();
    assert_eq!((id.len(), domain), (32, "acme.example"), "the id is that of the event");
    assert!(!folder.mails().exists());
    server.stop().await;
}

#[tokio::test]
#[ignore = "needs python3 with aiosmtpd: cargo xtask test"]
async fn a_mail_server_that_is_down_delays_the_mail_and_not_the_sign_up() {
    let _cores = beside_others().await;
    let (folder, port) = (Folder::new(), free_port());
    let url = format!("smtp://127.0.0.1:{port}");
    let server = Server::start_with(&folder, &["--smtp", &url]).await;
    server.sign_up("ada@example.com", "Ada").await.user_id();
    server.logs("a message is tried again").await;
    let mut mails = SmtpServer::start(port).await;
    assert_eq!(mails.next().await.to, ["ada@example.com"]);
    server.stop().await;
}

#[tokio::test]
#[ignore = "needs python3 with aiosmtpd: cargo xtask test"]
async fn a_restart_goes_on_where_it_was() {
    let _cores = beside_others().await;
    let (folder, port) = (Folder::new(), free_port());
    let url = format!("smtp://127.0.0.1:{port}");
    let server = Server::start_with(&folder, &["--smtp", &url]).await;
    server.sign_up("one@example.com", "One").await.user_id();
    server.logs("a message is tried again").await;
    server.stop().await;

    let mut mails = SmtpServer::start(port).await;
    let server = Server::start_with(&folder, &["--smtp", &url]).await;
    assert_eq!(mails.next().await.to, ["one@example.com"]);
    server.sign_up("two@example.com", "Two").await.user_id();
    assert_eq!(mails.next().await.to, ["two@example.com"]);
    server.stop().await;

    let server = Server::start_with(&folder, &["--smtp", &url]).await;
    server.sign_up("three@example.com", "Three").await.user_id();
    assert_eq!(mails.next().await.to, ["three@example.com"], "what was sent is not sent again");
    server.stop().await;
}

#[tokio::test]
#[ignore = "needs python3 with aiosmtpd: cargo xtask test"]
async fn a_mailbox_that_does_not_exist_is_not_tried_again() {
    let _cores = beside_others().await;
    let (folder, port) = (Folder::new(), free_port());
    let mut mails = SmtpServer::start(port).await;
    let url = format!("smtp://127.0.0.1:{port}");
    let server = Server::start_with(&folder, &["--smtp", &url]).await;
    server.sign_up("nobody@example.com", "Nobody").await.user_id();
    assert_eq!(mails.next().await.to, ["nobody@example.com"]);
    server.logs("a message became a dead letter").await;
    server.logs("no such mailbox").await;
    server.stop().await;
}

#[tokio::test]
#[ignore = "needs python3 with aiosmtpd: cargo xtask test"]
async fn an_internationalized_address_gets_its_mail() {
    let _cores = beside_others().await;
    let (folder, port) = (Folder::new(), free_port());
    let mut mails = SmtpServer::start(port).await;
    let url = format!("smtp://127.0.0.1:{port}");
    let server = Server::start_with(&folder, &["--smtp", &url]).await;
    server.sign_up("Ada@Bücher.example", "Ada Lovelace").await.user_id();
    let received = mails.next().await;
    assert_eq!(received.to, ["Ada@xn--bcher-kva.example"], "the domain in the form that every server takes");
    assert_eq!(received.mail().header("to"), "\"Ada Lovelace\" <Ada@xn--bcher-kva.example>");
    let taken = server.sign_up("ada@xn--bcher-kva.example", "Ada").await;
    assert_eq!(taken.status, 409, "the same address in its other spelling: {taken:?}");
    server.stop().await;
}

#[tokio::test]
async fn an_address_that_can_never_work_is_rejected_at_the_sign_up() {
    let _cores = beside_others().await;
    let folder = Folder::new();
    let server = Server::start(&folder).await;
    for email in ["ada@localhost", "ada@example", "ada@mail.invalid", "ada@[127.0.0.1]", "ada@127.0.0.1"] {
        let answer = server.sign_up(email, "Ada").await;
        assert_eq!(answer.status, 400, "{email}: {answer:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_mail_server_that_hangs_does_not_hang_the_end() {
    let _cores = beside_others().await;
    let (folder, mute) = (Folder::new(), tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap());
    let url = format!("smtp://{}", mute.local_addr().unwrap());
    let server = Server::start_with(&folder, &["--smtp", &url]).await;
    server.sign_up("ada@example.com", "Ada").await.user_id();
    let _connection = crate::soon("a connection for the mail", mute.accept()).await.unwrap();
    server.stop().await;
}
