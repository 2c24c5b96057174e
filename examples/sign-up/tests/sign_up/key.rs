//! The same request again, under the key that says so.

use crate::http::sign_up;
use crate::server::{Folder, Server};
use crate::{beside_others, mails, soon};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_at_once_under_one_key_are_one_account_and_fifty_equal_answers() {
    let _cores = beside_others().await;
    let folder = Folder::new();
    let server = Server::start(&folder).await;
    let ada = sign_up("ada@example.com", "Ada", Some("one-form"));
    let answers = futures_util::future::join_all((0..50).map(|_| server.ask(&ada))).await;
    let user_id = answers[0].user_id();
    assert!(answers.iter().all(|answer| answer.user_id() == user_id), "{answers:?}");
    assert!(answers.iter().all(|answer| answer.body == answers[0].body), "{answers:?}");

    let other = server.ask(&sign_up("ada@example.com", "Bea", Some("one-form"))).await;
    assert_eq!(other.status, 422, "{other:?}");
    assert_eq!(server.ask(&sign_up("ada@example.com", "Ada", Some("another-form"))).await.status, 409);

    // What comes later is written later, so nothing else is on its way when the last one is there.
    server.sign_up("last@example.com", "Last").await.user_id();
    let written = soon("the mails", mails::until_written(&folder, &["ada@example.com", "last@example.com"]));
    assert_eq!(written.await.len(), 2);
    server.stop().await;

    let server = Server::start(&folder).await;
    assert_eq!(server.ask(&ada).await.body, answers[0].body, "a restart forgets no answer");
    server.stop().await;
}
