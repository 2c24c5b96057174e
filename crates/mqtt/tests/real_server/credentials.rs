//! Who may connect, over TLS too, and that secrets stay where they are.

use std::path::{Path, PathBuf};
use std::process::Command;

use purista_core::bridge::{BridgeError, BridgeState, EventBridge};
use purista_mqtt::bridge::MqttBridge;

use crate::messages::event;
use crate::server::Server;

const SECRET: &str = "s3cr@t/ü";
const ESCAPED: &str = "s3cr%40t%2F%C3%BC";

async fn connects(connecting: impl Future<Output = Result<MqttBridge, BridgeError>>) {
    let bridge = connecting.await.unwrap();
    assert_eq!(*bridge.state().borrow(), BridgeState::Connected);
    assert!(!format!("{bridge:?}").contains("s3cr"));
    bridge.close().await.unwrap();
}

async fn with_password() -> Server {
    Server::start_with("allow_anonymous false\npassword_file FOLDER/passwords\n", |folder| {
        let file = folder.join("passwords");
        std::fs::write(&file, format!("ada:{SECRET}\n")).unwrap();
        run(Command::new("mosquitto_passwd").arg("-U").arg(&file));
    })
    .await
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Makes two authorities, and for the first of them a certificate of the broker and one of ours.
const CERTIFICATES: &str = r#"
set -e
for authority in ca other; do
    openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=$authority" -keyout $authority.key -out $authority.pem
done
echo subjectAltName=DNS:localhost > broker.names
echo subjectAltName=DNS:ada > ada.names
for who in broker ada; do
    openssl req -newkey rsa:2048 -nodes -subj /CN=$who -keyout $who.key -out $who.csr
    openssl x509 -req -in $who.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile $who.names -out $who.pem
done
"#;

/// A broker that speaks TLS only, and its folder of certificates.
async fn with_tls(lines: &str) -> (Server, PathBuf) {
    let lines =
        format!("certfile FOLDER/broker.pem\nkeyfile FOLDER/broker.key\ncafile FOLDER/ca.pem\n{lines}");
    let certify = |folder: &Path| run(Command::new("sh").arg("-c").arg(CERTIFICATES).current_dir(folder));
    let server = Server::start_with(&lines, certify).await;
    let folder = server.folder().to_owned();
    (server, folder)
}

/// What an error shows, with all its causes.
fn shown(error: &BridgeError) -> String {
    let mut shown = vec![format!("{error:?}")];
    let mut next: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = next {
        shown.push(error.to_string());
        next = error.source();
    }
    shown.join(" ")
}

#[tokio::test]
#[ignore = "needs mosquitto: cargo xtask test"]
async fn a_password_in_the_address_or_beside_it_opens_the_door() {
    let server = with_password().await;
    connects(MqttBridge::connect(server.url_as(&format!("ada:{ESCAPED}@")))).await;
    connects(MqttBridge::builder(server.url()).user_and_password("ada", SECRET).connect()).await;
}

#[tokio::test]
#[ignore = "needs mosquitto: cargo xtask test"]
async fn a_wrong_password_is_an_error_that_repeats_nothing_secret() {
    let server = with_password().await;
    for url in [server.url(), server.url_as("ada:wr0ng@")] {
        let error = MqttBridge::connect(url).await.unwrap_err();
        assert!(!error.may_have_happened());
        let shown = shown(&error);
        assert!(shown.contains("NotAuthorized"), "{shown}");
        assert!(!shown.contains("wr0ng") && !shown.contains("ada"), "{shown}");
    }
}

fn tls(server: &Server, folder: &Path, authority: &str) -> purista_mqtt::connect::Builder {
    let url = format!("mqtts://localhost:{}", server.port());
    MqttBridge::builder(url).root_certificates(folder.join(authority))
}

#[tokio::test]
#[ignore = "needs mosquitto: cargo xtask test"]
async fn over_tls_the_brokers_certificate_and_name_are_checked() {
    let (server, folder) = with_tls("allow_anonymous true\n").await;
    connects(tls(&server, &folder, "ca.pem").connect()).await;
    let unknown = tls(&server, &folder, "other.pem").connect().await.unwrap_err();
    assert!(shown(&unknown).contains("UnknownIssuer"), "{}", shown(&unknown));
    let url = format!("mqtts://127.0.0.1:{}", server.port());
    let misnamed =
        MqttBridge::builder(url).root_certificates(folder.join("ca.pem")).connect().await.unwrap_err();
    assert!(shown(&misnamed).to_lowercase().contains("name"), "{}", shown(&misnamed));
    let plain = MqttBridge::connect(server.url()).await.unwrap_err();
    assert!(!plain.may_have_happened(), "nothing falls back to plain text");
}

#[tokio::test]
#[ignore = "needs mosquitto: cargo xtask test"]
async fn over_mutual_tls_we_are_known_by_our_certificate() {
    let (server, folder) =
        with_tls("allow_anonymous false\nrequire_certificate true\nuse_identity_as_username true\n").await;
    let ours = |name: &str| folder.join(name);
    connects(tls(&server, &folder, "ca.pem").client_certificate(ours("ada.pem"), ours("ada.key")).connect())
        .await;
    let nobody = tls(&server, &folder, "ca.pem").connect().await.unwrap_err();
    assert!(!nobody.may_have_happened());
    let mixed = tls(&server, &folder, "ca.pem")
        .client_certificate(ours("ada.pem"), ours("broker.key"))
        .connect()
        .await
        .unwrap_err();
    assert!(!shown(&mixed).contains("PRIVATE KEY"), "{}", shown(&mixed));
    let no_key =
        tls(&server, &folder, "ca.pem").client_certificate(ours("ada.pem"), ours("ada.pem")).connect().await;
    assert!(shown(&no_key.unwrap_err()).contains("ada.pem cannot be read"));
}

#[tokio::test]
#[ignore = "needs mosquitto: cargo xtask test"]
async fn what_the_brokers_lists_do_not_allow_is_said_at_once() {
    let server = Server::start_with("allow_anonymous true\nacl_file FOLDER/lists\n", |folder| {
        std::fs::write(folder.join("lists"), "topic write purista/#\ntopic read purista/#\n").unwrap();
    })
    .await;
    let allowed = MqttBridge::builder(server.url()).client_id("email-1").connect().await.unwrap();
    allowed.publish(event(1)).await.unwrap();
    allowed.close().await.unwrap();
    let elsewhere = MqttBridge::builder(server.url()).prefix("other").client_id("email-2").connect().await;
    match elsewhere {
        Err(error) => assert!(!error.may_have_happened(), "{error}"),
        Ok(bridge) => {
            let error = bridge.publish(event(1)).await.unwrap_err();
            assert!(!error.may_have_happened() && shown(&error).contains("NotAuthorized"), "{error}");
        }
    }
}
