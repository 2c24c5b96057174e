//! The page in a browser, as a person uses it.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::apart::{Apart, Broker, Folders, Kind};
use crate::devtools::Browser;
use crate::server::{Folder, Server};
use crate::{beside_others, mails, soon};

const SUBMIT: &str = "document.querySelector('#submit')";

/// Pictures stay after the test, to be looked at.
fn pictures() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sign-up-pictures");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

async fn fill(browser: &mut Browser, email: &str, name: &str) {
    browser.type_into("#email", email).await;
    browser.type_into("#name", name).await;
}

#[tokio::test]
#[ignore = "needs chromium: cargo xtask test"]
async fn somebody_signs_up_in_the_browser() {
    let _cores = beside_others().await;
    let (folder, pictures) = (Folder::new(), pictures());
    let server = Server::start(&folder).await;
    let mut browser = Browser::start(&folder.path().join("profile")).await;
    browser.look(1000, 760, false).await;
    browser.open(&format!("http://{}/", server.place)).await;
    browser.picture(&pictures.join("1-empty.png")).await;

    // A bad address and no name: each fault stands beside its field, and the first one has the focus.
    fill(&mut browser, "ada@", "").await;
    browser.press_enter().await;
    browser.until("document.querySelector('#email-error').textContent !== ''").await;
    browser.picture(&pictures.join("2-faults.png")).await;
    assert!(browser.text("#email-error").await.starts_with("Not a valid email"));
    assert_eq!(browser.text("#name-error").await, "Please fill this in.");
    assert_eq!(browser.value("document.activeElement.id").await, "email");
    assert_eq!(browser.value("document.querySelector('#email').getAttribute('aria-invalid')").await, "true");
    let beside = "(() => { const below = (id) => document.querySelector(id).getBoundingClientRect(); \
        return below('#email-error').top >= below('#email').bottom && below('#email-error').bottom <= below('#name').top; })()";
    assert_eq!(browser.value(beside).await, true);

    // A good one: the id is shown.
    fill(&mut browser, "ada@example.com", "Ada").await;
    browser.click("#submit").await;
    browser.until("!document.querySelector('#done').hidden").await;
    browser.picture(&pictures.join("3-done.png")).await;
    let user_id = browser.text("#user-id").await;
    assert_eq!((user_id.len(), browser.value("document.activeElement.id").await), (32, json!("done")));
    assert_eq!(browser.text("#done-email").await, "ada@example.com");
    let mails = soon("the mail", mails::until_written(&folder, &["ada@example.com"])).await;
    assert!(mails[0].body.contains(&user_id));

    // The same address once more: it is taken. In the dark, on a small screen.
    browser.look(360, 640, true).await;
    browser.click("#again").await;
    fill(&mut browser, "ADA@example.com", "Eve").await;
    browser.press_enter().await;
    browser.until("document.querySelector('#email-error').textContent !== ''").await;
    browser.picture(&pictures.join("4-taken-dark.png")).await;
    assert_eq!(browser.text("#email-error").await, "This e-mail address is taken.");
    assert_eq!(browser.text("#name-error").await, "");
    assert_eq!(browser.value("document.documentElement.scrollWidth <= innerWidth").await, true);
    assert_eq!(browser.complaints(), Vec::<String>::new());
    server.stop().await;
}

#[tokio::test]
#[ignore = "needs chromium and nats-server: cargo xtask test"]
async fn a_sign_up_through_three_processes_without_a_store_is_an_account_and_a_mail() {
    let _cores = beside_others().await;
    let (broker, folders) = (Broker::start(Kind::Nats).await, Folders::new());
    let apart = Apart::start(&broker, &folders, &["--no-store"]).await;
    let mut browser = Browser::start(&folders.http.path().join("profile")).await;
    browser.open(&format!("http://{}/", apart.http.place)).await;
    fill(&mut browser, "ada@example.com", "Ada").await;
    browser.click("#submit").await;
    browser.until("!document.querySelector('#done').hidden").await;
    let user_id = browser.text("#user-id").await;
    let mails = soon("the mail", mails::until_written(&folders.email, &["ada@example.com"])).await;
    assert!(mails[0].body.contains(&user_id), "{mails:?}");
    assert_eq!(browser.complaints(), Vec::<String>::new());
    apart.stop().await;
}

#[tokio::test]
#[ignore = "needs chromium: cargo xtask test"]
async fn an_internationalized_address_signs_up_in_the_browser() {
    let _cores = beside_others().await;
    let folder = Folder::new();
    let server = Server::start(&folder).await;
    let mut browser = Browser::start(&folder.path().join("profile")).await;
    browser.open(&format!("http://{}/", server.place)).await;
    fill(&mut browser, "ada@bücher.example", "Ada").await;
    browser.click("#submit").await;
    browser.until("!document.querySelector('#done').hidden").await;
    soon("the mail", mails::until_written(&folder, &["ada@xn--bcher-kva.example"])).await;
    assert_eq!(browser.complaints(), Vec::<String>::new());
    server.stop().await;
}

#[tokio::test]
#[ignore = "needs chromium: cargo xtask test"]
async fn a_form_that_got_no_answer_is_sent_again_under_its_key() {
    let _cores = beside_others().await;
    let (folder, pictures) = (Folder::new(), pictures());
    let server = Server::start(&folder).await;
    let mut browser = Browser::start(&folder.path().join("profile")).await;
    browser.look(1000, 760, true).await;
    browser.open(&format!("http://{}/", server.place)).await;
    browser.is_offline(true).await;
    fill(&mut browser, "ada@example.com", "Ada").await;
    browser.press_enter().await;
    browser.until("!document.querySelector('#problem').hidden").await;
    browser.picture(&pictures.join("5-no-answer-dark.png")).await;
    assert!(browser.text("#problem").await.contains("did not answer"));
    assert_eq!(browser.value(&format!("{SUBMIT}.disabled")).await, false);

    // The answer of the second try is lost after the server gave it; the third gets the same one.
    browser.is_offline(false).await;
    let pattern = json!({ "patterns": [{ "urlPattern": "*/api/v1/sign-up", "requestStage": "Response" }] });
    browser.call("Fetch.enable", pattern).await;
    browser.click("#submit").await;
    let lost = browser.event("Fetch.requestPaused").await;
    assert_eq!(browser.value(&format!("{SUBMIT}.disabled")).await, true, "it waits for the answer");
    assert_eq!(lost["responseStatusCode"], 200);
    browser.picture(&pictures.join("6-sending-dark.png")).await;
    let abort = json!({ "requestId": lost["requestId"], "errorReason": "ConnectionReset" });
    browser.call("Fetch.failRequest", abort).await;
    browser.until(&format!("!{SUBMIT}.disabled")).await;
    browser.click("#submit").await;
    let answered = browser.event("Fetch.requestPaused").await;
    browser.call("Fetch.continueRequest", json!({ "requestId": answered["requestId"] })).await;
    browser.until("!document.querySelector('#done').hidden").await;
    let key = |paused: &Value| {
        let headers = paused["request"]["headers"].as_object().unwrap();
        let key = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("idempotency-key"));
        key.unwrap().1.clone()
    };
    assert_eq!(key(&lost), key(&answered));
    assert_eq!(browser.text("#user-id").await.len(), 32);
    assert_eq!(browser.complaints(), Vec::<String>::new());
    server.stop().await;
}
