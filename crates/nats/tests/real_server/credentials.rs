//! Who may connect, and that secrets stay where they are.

use purista_core::bridge::{BridgeError, BridgeState, EventBridge};
use purista_nats::bridge::NatsBridge;

use crate::server::Server;

const SECRET: &str = "s3cr@t/ü";
const ESCAPED: &str = "s3cr%40t%2F%C3%BC";

async fn connects(connecting: impl Future<Output = Result<NatsBridge, BridgeError>>) {
    let bridge = connecting.await.unwrap();
    assert_eq!(*bridge.state().borrow(), BridgeState::Connected);
    assert!(!format!("{bridge:?}").contains("s3cr"));
    bridge.close().await.unwrap();
}

#[tokio::test]
#[ignore = "needs nats-server: cargo xtask test"]
async fn a_password_in_the_address_or_beside_it_opens_the_door() {
    let server = Server::start_with(&["--user", "ada", "--pass", SECRET]).await;
    connects(NatsBridge::connect(server.url_as(&format!("ada:{ESCAPED}@")))).await;
    connects(NatsBridge::builder(server.url()).user_and_password("ada", SECRET).connect()).await;
}

#[tokio::test]
#[ignore = "needs nats-server: cargo xtask test"]
async fn a_token_in_the_address_or_beside_it_opens_the_door() {
    let server = Server::start_with(&["--auth", SECRET]).await;
    connects(NatsBridge::connect(server.url_as(&format!("{ESCAPED}@")))).await;
    connects(NatsBridge::builder(server.url()).token(SECRET).connect()).await;
}

#[tokio::test]
#[ignore = "needs nats-server: cargo xtask test"]
async fn a_wrong_password_is_an_error_that_repeats_nothing_secret() {
    let server = Server::start_with(&["--user", "ada", "--pass", SECRET]).await;
    for url in [server.url(), server.url_as("ada:wr0ng@")] {
        let error = NatsBridge::connect(url).await.unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(!error.may_have_happened());
        assert!(!shown.contains("wr0ng") && !shown.contains("ada"), "{shown}");
    }
}
