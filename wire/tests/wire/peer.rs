//! The strict peer: a program in Python that behaves as PURISTA 2.0.5 does, and dies of what PURISTA dies of.

use std::collections::VecDeque;

use serde_json::{Value, json};

use crate::carrier::Carrier;
use crate::plain::Python;

pub(crate) struct Peer {
    pub(crate) python: Python,
    /// What it told of events while it was asked for something else.
    heard: VecDeque<Value>,
    /// How many commands it has told to have handled.
    pub(crate) served: usize,
    /// How many responses came too late for it, or for nobody.
    pub(crate) dropped: usize,
}

/// An address as messages bear it.
pub(crate) fn address(service: &str, target: &str) -> Value {
    json!({"serviceName": service, "serviceVersion": "1", "serviceTarget": target})
}

impl Peer {
    pub(crate) async fn on<C: Carrier>(carrier: &C, instance: &str) -> Self {
        let python = Python::start("strict_peer.py", &carrier.place(), &[instance]).await;
        Self { python, heard: VecDeque::new(), served: 0, dropped: 0 }
    }

    /// Serves a command in one of its ways.
    pub(crate) async fn serve(&mut self, service: &str, target: &str, way: &str) {
        self.order(json!({"serve": address(service, target), "as": way})).await;
    }

    /// Subscribes to an event.
    pub(crate) async fn hear(&mut self, service: &str, event: &str, durable: bool) {
        let order =
            json!({"hear": address(service, "hears"), "event": event, "shared": true, "durable": durable});
        self.order(order).await;
    }

    /// Calls a command and gives the response as it came.
    pub(crate) async fn invoke(&mut self, service: &str, target: &str, payload: Value) -> Value {
        self.order(json!({"invoke": address(service, target), "payload": payload})).await["answer"].take()
    }

    pub(crate) async fn emit(&mut self, event: &str, payload: Value) {
        self.order(json!({"emit": event, "payload": payload})).await;
    }

    /// Tells it to do something, and waits until it has done it.
    pub(crate) async fn order(&mut self, order: Value) -> Value {
        self.python.tell(&order).await;
        loop {
            let told = self.told().await;
            if told.get("done").is_some() {
                return told;
            }
        }
    }

    /// The next event that it hears.
    pub(crate) async fn next_heard(&mut self) -> Value {
        while self.heard.is_empty() {
            self.told().await;
        }
        self.heard.pop_front().unwrap()["message"].take()
    }

    /// Waits until it has handled as many commands.
    pub(crate) async fn until_served(&mut self, commands: usize) {
        while self.served < commands {
            self.told().await;
        }
    }

    async fn told(&mut self) -> Value {
        let mut told = self.python.told().await;
        self.served += usize::from(told.get("served").is_some());
        self.dropped += usize::from(told.get("dropped").is_some());
        if let Some(heard) = told.get_mut("heard") {
            self.heard.push_back(heard.take());
        }
        told
    }
}
