//! What every [`EventBridge`] owes to those who use it, one test a duty.
//!
//! ```
//! use std::sync::Arc;
//! use futures_util::future::BoxFuture;
//! use purista_conformance::bridge::BridgeSystem;
//! use purista_core::bridge::EventBridge;
//! use purista_core::in_process::InProcessBridge;
//!
//! struct InProcess(InProcessBridge);
//!
//! impl BridgeSystem for InProcess {
//!     fn bridge(&self) -> BoxFuture<'_, Arc<dyn EventBridge>> {
//!         let bridge: Arc<dyn EventBridge> = Arc::new(self.0.clone());
//!         Box::pin(std::future::ready(bridge))
//!     }
//! }
//!
//! async fn system() -> InProcess {
//!     InProcess(InProcessBridge::new())
//! }
//!
//! purista_conformance::bridge_suite!(system());
//! # fn main() {}
//! ```
//!
//! With `bridge_suite!(ignore = "needs nats-server: cargo xtask test", system())` every test is ignored for that reason.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use purista_core::bridge::EventBridge;
use purista_core::subscription::Subscription;

pub mod backlog;
pub mod commands;
pub mod consumers;
pub mod content;
pub mod durable;
pub mod endings;
pub mod events;
pub mod faults;
pub mod filters;
pub mod flow;
pub mod kills;
pub mod network;
pub mod remains;
pub mod world;

use world::World;

/// How long one duty may take before it counts as failed: some of them wait for a broker to start, several times.
const DUTY_TIMEOUT: Duration = Duration::from_secs(180);
/// The same of a soak test, which moves very much.
const SOAK_TIMEOUT: Duration = Duration::from_secs(900);

/// One system of bridges that reach one another, fresh for each duty. What it started ends when it is dropped.
pub trait BridgeSystem: Send + Sync + 'static {
    /// One more process of the system. A bridge that has only one process gives clones of itself.
    fn bridge(&self) -> BoxFuture<'_, Arc<dyn EventBridge>>;

    /// One more process that may have durable subscriptions, and is the same as the one before it of this name: where a
    /// broker keeps what is missed under the name of a process, that is its name.
    fn durable_bridge(&self, _name: &str) -> BoxFuture<'_, Arc<dyn EventBridge>> {
        self.bridge()
    }

    /// Takes the process of this bridge away without a word, as a power cut would. Gives the bridge back where it cannot be
    /// done.
    fn lose(&self, bridge: Arc<dyn EventBridge>) -> BoxFuture<'_, Option<Arc<dyn EventBridge>>> {
        Box::pin(std::future::ready(Some(bridge)))
    }

    /// What a duty needs to come between the processes of this system and their server. `None` says that there is no server,
    /// and so nothing to lose: all peers are in one process.
    fn outages(&self) -> BoxFuture<'_, Option<Arc<dyn Outages>>> {
        Box::pin(std::future::ready(None))
    }

    /// The same with a server that nobody else uses: it is killed.
    fn outages_alone(&self) -> BoxFuture<'_, Option<Arc<dyn Outages>>> {
        self.outages()
    }

    /// Takes the next dead letter of a subscription, puts it back to be handled once more as an operator would, and says what it
    /// bore. `None` where the bridge keeps none.
    fn replay<'s>(&'s self, _subscription: &'s Subscription) -> Option<BoxFuture<'s, DeadLetter>> {
        None
    }

    /// Sends the event `userRegistered` as a peer does that names no id. `None` where every message has one.
    fn send_without_id(&self) -> Option<BoxFuture<'_, ()>> {
        None
    }

    /// Sends bytes that are no message to whoever is fed by `subscription`. `None` where nothing but messages can be sent.
    fn send_rubbish<'s>(&'s self, _subscription: &'s Subscription) -> Option<BoxFuture<'s, ()>> {
        None
    }
}

/// What a dead letter bears at a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Why it was given up.
    pub reason: String,
    /// How often it was tried.
    pub attempts: u32,
    /// The message as it came.
    pub body: Vec<u8>,
}

/// A server that a duty stands in front of with a [`crate::proxy::Proxy`], or kills.
pub trait Outages: Send + Sync + 'static {
    /// Where it listens on this machine.
    fn port(&self) -> u16;

    /// One more process of the system, of this name, that speaks to the server through this port. It lives in the runtime of
    /// its caller.
    fn bridge(&self, port: u16, name: &str) -> BoxFuture<'_, Arc<dyn EventBridge>>;

    /// The same, which may have durable subscriptions that lose nothing when the server is killed.
    fn durable_bridge(&self, port: u16, name: &str) -> BoxFuture<'_, Arc<dyn EventBridge>> {
        self.bridge(port, name)
    }

    /// Ends the server as a power cut would, and returns when it is gone.
    fn kill(&self) -> BoxFuture<'_, ()>;

    /// Starts it again, with what it has kept, and returns when it takes connections.
    fn restart(&self) -> BoxFuture<'_, ()>;

    /// Whether a restart takes seconds, so that twenty of them in a row are too many for a test.
    fn starts_slowly(&self) -> bool {
        false
    }

    /// Whether the server confirms before it keeps, so that what it confirmed last may be lost with it.
    fn confirms_before_it_keeps(&self) -> bool {
        false
    }
}

/// Runs one duty on a fresh system, within its time, and closes what it opened; called by the tests that the macro makes.
pub async fn run<S, F>(system: F, duty: for<'w> fn(&'w World) -> BoxFuture<'w, ()>)
where
    S: BridgeSystem,
    F: Future<Output = S>,
{
    run_within(DUTY_TIMEOUT, system, duty).await;
}

/// The same for a soak test, such as [`backlog::memory_stays_flat_with_100_000_waiting`], which an adapter calls by itself.
pub async fn soak<S, F>(system: F, duty: for<'w> fn(&'w World) -> BoxFuture<'w, ()>)
where
    S: BridgeSystem,
    F: Future<Output = S>,
{
    run_within(SOAK_TIMEOUT, system, duty).await;
}

async fn run_within<S, F>(time: Duration, system: F, duty: for<'w> fn(&'w World) -> BoxFuture<'w, ()>)
where
    S: BridgeSystem,
    F: Future<Output = S>,
{
    let world = World::new(Box::new(system.await));
    let ended = tokio::time::timeout(time, async {
        duty(&world).await;
        world.close().await;
    });
    ended.boxed().await.expect("a duty ends in time");
}

/// Gives an adapter one named test for every duty of a bridge; see [`crate::bridge`].
///
/// The expression is a future of a [`crate::bridge::BridgeSystem`] and is evaluated anew in each test. The crate that
/// calls it has `tokio` with the feature `macros` among its dependencies.
#[macro_export]
macro_rules! bridge_suite {
    (ignore = $reason:literal, $system:expr) => {
        $crate::bridge_suite!(@duties (#[ignore = $reason]) ($system));
    };
    (@duties $attributes:tt $system:tt) => {
        $crate::bridge_suite!(@tests $attributes $system commands:
            request_reaches_the_server_and_brings_its_reply
            reply_pairs_with_its_request_under_64_concurrent_calls
            several_consumers_of_one_command_share_its_calls
            served_commands_make_room_for_the_next
            unserved_command_is_unroutable_at_once
            request_ends_at_its_deadline
            error_response_comes_back_as_it_was
            dropped_caller_changes_nothing_for_the_handler
            command_settled_without_a_reply_ends_before_its_deadline
            commands_with_colliding_names_are_told_apart
        );
        $crate::bridge_suite!(@tests $attributes $system events:
            event_reaches_every_subscription_once
            shared_subscription_gets_an_event_once_over_two_processes
            every_instance_subscription_gets_it_in_each_process
            subscription_to_several_events_gets_each_once
            response_marked_with_an_event_reaches_event_subscriptions
            response_of_an_unrecorded_later_version_is_routed_too
            response_whose_event_was_recorded_is_not_routed_by_its_name
        );
        $crate::bridge_suite!(@tests $attributes $system filters:
            filter_by_kind
            filter_by_event_name
            filter_by_principal
            filter_by_tenant
            filter_by_sender
            filter_by_sending_process
            filter_by_receiver
            all_criteria_must_hold
            set_criterion_never_matches_an_absent_field
            names_that_collide_in_topics_are_told_apart
        );
        $crate::bridge_suite!(@tests $attributes $system content:
            command_survives_the_way_unchanged
            reply_survives_the_way_unchanged
            event_survives_the_way_unchanged
            absent_parts_stay_absent
            large_payload_survives_the_way
            message_above_the_limit_is_too_large_and_the_bridge_works_on
            message_that_is_no_message_changes_nothing
        );
        $crate::bridge_suite!(@tests $attributes $system flow:
            retry_comes_back_with_the_next_attempt
            message_without_an_id_has_the_same_at_each_attempt
            pause_stops_and_resume_goes_on
            in_flight_is_bounded
            one_in_flight_keeps_the_order
            consumer_panic_does_not_stop_the_feed
            server_panic_does_not_stop_the_feed
        );
        $crate::bridge_suite!(@tests $attributes $system durable:
            durable_subscription_gets_what_it_missed_in_order
            durable_subscriptions_have_places_of_their_own
            durable_message_that_fails_comes_back_until_it_is_given_up
            durable_message_that_is_given_up_is_kept_with_its_past_and_can_be_replayed
            durable_message_in_hand_of_a_lost_process_comes_again
            durable_subscription_on_every_instance_is_refused
            durable_subscription_from_the_start_gets_what_was_kept_or_is_refused
        );
        $crate::bridge_suite!(@tests $attributes $system endings:
            state_is_connected
            stopped_registration_gets_nothing_more_and_waits_for_what_is_in_flight
            stopped_server_gets_nothing_more_and_answers_what_is_in_flight
            close_waits_for_what_is_in_flight
            close_waits_for_commands_in_flight
            close_ends_a_paused_subscription
            closed_bridge_rejects
        );
        $crate::bridge_suite!(@tests $attributes $system remains:
            close_leaves_no_task_behind
            close_while_the_server_is_away_leaves_no_task_behind
            close_with_a_reply_under_way_while_the_server_is_away_ends_in_time
            close_on_a_silent_connection_leaves_no_task_behind
            dropped_bridge_leaves_no_task_behind
        );
        $crate::bridge_suite!(@tests $attributes $system faults:
            lost_connection_comes_back_by_itself_and_subscriptions_with_it
            request_in_flight_at_a_cut_ends_as_unknown
            what_is_asked_while_the_server_is_away_waits_for_it_or_never_happened
            publish_tells_the_truth_when_the_connection_is_cut
            silent_connection_is_noticed_and_healed
            flapping_connection_makes_no_storm
            connection_that_is_cut_as_soon_as_it_is_made_makes_no_storm
            delay_only_delays
        );
        $crate::bridge_suite!(@tests $attributes $system kills:
            everything_goes_on_by_itself_after_the_server_was_killed
            no_confirmed_event_is_lost_when_the_server_is_killed
            twenty_losses_leave_neither_tasks_nor_connections_behind
        );
    };
    (@tests $attributes:tt $system:tt $module:ident: $($duty:ident)+) => {
        $( $crate::bridge_suite!(@test $attributes $system $module $duty); )+
    };
    (@test ($($attribute:tt)*) ($system:expr) $module:ident $duty:ident) => {
        #[::tokio::test(flavor = "multi_thread", worker_threads = 2)]
        $($attribute)*
        async fn $duty() {
            $crate::bridge::run($system, |world| Box::pin($crate::bridge::$module::$duty(world))).await;
        }
    };
    ($system:expr) => {
        $crate::bridge_suite!(@duties () ($system));
    };
}
