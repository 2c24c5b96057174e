//! Ends the session of a durable subscription whose process does not come back, so that it takes no share of the events:
//! `cargo run -p purista-mqtt --example retire_session -- mqtt://127.0.0.1:1883 email-1 Email 1 sendWelcomeEmail`.

use std::process::ExitCode;

use purista_core::address::{Address, AddressParts};
use purista_mqtt::bridge::MqttBridge;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, client_id, service, version, target] = arguments.as_slice() else {
        eprintln!("usage: retire_session URL CLIENT_ID SERVICE VERSION SUBSCRIPTION");
        return ExitCode::from(2);
    };
    let [service, version, target] = [service, version, target].map(|part| part.clone().into());
    let subscription = Address::from(AddressParts { service, version, target });
    let retired = async {
        let bridge = MqttBridge::connect(url.as_str()).await?;
        bridge.retire_session(client_id, &subscription).await
    };
    match retired.await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
