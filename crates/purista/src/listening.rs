//! What a subscription listens to, and how: all of it but its types.

use std::time::Duration;

use purista_core::address::Address;
use purista_core::bridge::COMMAND_TIMEOUT;
use purista_core::subscription::{Contradiction, Filter, IN_FLIGHT_DEFAULT, Sharing};

use crate::retry::Retry;

/// How a subscription is fed.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    pub(crate) name: &'static str,
    pub(crate) filter: Filter,
    /// Criteria that no message can meet together; the host refuses to start with any.
    pub(crate) contradictions: Vec<Contradiction>,
    pub(crate) sharing: Sharing,
    pub(crate) is_durable: bool,
    pub(crate) from_start: bool,
    pub(crate) in_flight: usize,
    pub(crate) retry: Retry,
    pub(crate) timeout: Duration,
    /// Whether hosts with a store record what it listens to.
    pub(crate) hears_recorded: bool,
    /// The version of the form that it reads; `None` reads every event as it is stored.
    pub(crate) version: Option<u32>,
}

impl Terms {
    pub(crate) fn new(
        name: &'static str,
        filter: Filter,
        hears_recorded: bool,
        version: Option<u32>,
    ) -> Self {
        Self {
            name,
            filter,
            contradictions: Vec::new(),
            sharing: Sharing::Shared,
            is_durable: false,
            from_start: false,
            in_flight: IN_FLIGHT_DEFAULT,
            retry: Retry::default(),
            timeout: COMMAND_TIMEOUT,
            hears_recorded,
            version,
        }
    }

    /// Adds criteria: a message must meet them and all that were set before, in whichever order they were set.
    pub(crate) fn narrow(&mut self, criteria: Filter) {
        match self.filter.clone().and(criteria) {
            Ok(filter) => self.filter = filter,
            Err(contradiction) => self.contradictions.push(contradiction),
        }
        if self.version.is_none() {
            // What it listens to is known by its filter alone.
            self.hears_recorded = !self.filter.event_names.is_empty();
        }
    }
}

/// What is listened to, and how: a subscription of a running host, without its types.
#[derive(Debug, Clone)]
pub(crate) struct Listening {
    pub(crate) address: Address,
    pub(crate) terms: Terms,
}
