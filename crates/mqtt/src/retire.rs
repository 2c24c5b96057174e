//! Ends the session of a durable subscription whose process does not come back.
//!
//! A session outlives its process for up to [`session_expiry`](crate::connect::Builder::session_expiry). Until then the broker
//! stores events for it, and where several processes share the subscription it gives the session its share of them, which no
//! other process then gets.

use purista_core::address::Address;
use purista_core::bridge::BridgeError;

use crate::address::session_of;
use crate::bridge::MqttBridge;
use crate::dial::{Dial, Keeping};

impl MqttBridge {
    /// Ends the session that the broker stores for a durable subscription of the process with this client id.
    ///
    /// A connection with a clean start takes the session's place and ends at once. The broker discards what it stored for the
    /// session; where several processes share the subscription, the others get all events from now on. Of events that a host
    /// recorded, what was discarded can be sent again from its log: `purista relay resend`. If the process still runs, it loses
    /// its connection, and continues in a new, empty session.
    ///
    /// `subscription` is the address of the subscription, as `Email`, `1`, `sendWelcomeEmail`.
    ///
    /// # Errors
    ///
    /// Returns an error if the broker cannot be reached or refuses the connection; it may be retried.
    ///
    /// # Cancel safety
    ///
    /// This method is cancel safe: if the future is dropped, the session may have ended or not, and the call can be repeated.
    pub async fn retire_session(&self, client_id: &str, subscription: &Address) -> Result<(), BridgeError> {
        let session = session_of(client_id, subscription);
        Dial::new(self.place(), session.clone(), Keeping::Retired).dial().await?.disconnect().await;
        tracing::info!(session, "the session of a durable subscription is retired");
        Ok(())
    }
}
