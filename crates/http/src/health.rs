//! What probes ask: shall the process live on, and does it take work?

use std::sync::Arc;

use hyper::StatusCode;
use hyper::header;
use purista_core::bridge::BridgeState;
use purista_core::client::Client;
use purista_core::health::{Condition, Health, HealthReport, PartHealth};
use serde::Serialize;

use crate::response::{self, Answer, Flow, JSON};

/// Where the process is asked whether it lives.
pub(crate) const ALIVE_PATH: &str = "/healthz";
/// Where it is asked whether it takes work.
pub(crate) const READY_PATH: &str = "/readyz";

#[derive(Serialize)]
struct Report<'a> {
    status: &'static str,
    ready: bool,
    parts: Vec<Part<'a>>,
}

#[derive(Serialize)]
struct Part<'a> {
    name: &'a str,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    #[serde(rename = "eventsBehind", skip_serializing_if = "Option::is_none")]
    events_behind: Option<u64>,
}

/// 200 as long as no part is down.
pub(crate) async fn alive(health: &Health, flow: &Flow) -> Answer {
    let report = health.current().await;
    answer(&report, report.is_ready, report.condition() != Condition::Down, flow)
}

/// 200 while the host takes work: not while it starts, and not once it has begun to stop.
pub(crate) async fn ready(health: &Health, is_stopping: bool, flow: &Flow) -> Answer {
    let report = health.current().await;
    let is_ready = report.is_ready && !is_stopping;
    answer(&report, is_ready, is_ready, flow)
}

fn answer(report: &HealthReport, ready: bool, is_well: bool, flow: &Flow) -> Answer {
    let parts = report.parts.iter().map(|part| Part {
        name: &part.name,
        status: part.condition.as_str(),
        detail: part.detail.as_deref(),
        events_behind: part.events_behind,
    });
    let shown = Report { status: report.condition().as_str(), ready, parts: parts.collect() };
    let json = serde_json::to_vec(&shown).unwrap_or_default();
    let status = if is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut answer = response::api_answer(status, flow, Some(JSON), json.into());
    if status == StatusCode::SERVICE_UNAVAILABLE {
        answer.headers_mut().insert(header::RETRY_AFTER, response::RETRY_AFTER);
    }
    answer
}

/// The health of a process that holds nothing but a gateway: that of its bridge.
pub(crate) fn of_bridge(client: &Client) -> Health {
    let (bridge, state) = (Arc::clone(client.bridge()), client.bridge().state());
    let name = bridge.capabilities().name;
    Health::new(move || {
        let state = *state.borrow();
        let part = PartHealth::of_bridge(name, state).with_alarm(bridge.alarm());
        HealthReport { is_ready: state == BridgeState::Connected, parts: vec![part] }
    })
}
