//! The same program with a database: accounts and events are there, mails go on as before.

use std::time::Duration;

use crate::server::{Folder, Server};
use crate::{PATIENCE, beside_others, mails, within};

#[tokio::test]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn no_kill_loses_an_answered_sign_up_or_its_mail_on_postgres() {
    let _cores = beside_others().await;
    let folder = Folder::with_postgres().await;
    let mut expect: Vec<(String, String)> = Vec::new();
    for round in 0..4_u64 {
        let server = Server::start(&folder).await;
        assert!(server.said.iter().any(|line| line.starts_with("store    Postgres at 127.0.0.1:")));
        for (email, _) in &expect {
            assert_eq!(server.sign_up(email, "Ada").await.status, 409, "{email} was answered and is free");
        }
        for user in 0..8 {
            let email = format!("ada{round}-{user}@example.com");
            let user_id = server.sign_up(&email, "Ada").await.user_id();
            expect.push((email, user_id));
        }
        tokio::time::sleep(Duration::from_millis(7 * round)).await; // real time: some mails are written, others are not
        server.kill().await;
    }
    let server = Server::start(&folder).await;
    let addresses: Vec<&str> = expect.iter().map(|(email, _)| email.as_str()).collect();
    let written = within(PATIENCE, "all mails", mails::until_written(&folder, &addresses)).await;
    for (email, user_id) in &expect {
        assert!(written.iter().any(|mail| mail.to() == email && mail.body.contains(user_id)), "{email}");
    }
    assert!(!folder.data().join("sign-up.db").exists(), "there is no file beside the database");
    server.stop().await;
}
