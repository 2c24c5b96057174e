//! What every [`EventStore`] owes to those who use it, one test a duty.
//!
//! ```
//! use std::sync::Arc;
//! use futures_util::future::BoxFuture;
//! use purista_conformance::store::StoreSystem;
//! use purista_core::clock::Clock;
//! use purista_events::memory::MemoryStore;
//! use purista_events::store::EventStore;
//!
//! struct Memory(std::sync::OnceLock<MemoryStore>);
//!
//! impl StoreSystem for Memory {
//!     fn open(&self, clock: Clock) -> BoxFuture<'_, Arc<dyn EventStore>> {
//!         Box::pin(async move {
//!             let store: Arc<dyn EventStore> = Arc::new(self.0.get_or_init(|| MemoryStore::new(clock)).reopen());
//!             store
//!         })
//!     }
//! }
//!
//! async fn system() -> Memory {
//!     Memory(std::sync::OnceLock::new())
//! }
//!
//! purista_conformance::store_suite!(system());
//! # fn main() {}
//! ```
//!
//! With `store_suite!(ignore = "needs postgres: cargo xtask test", system())` every test is ignored for that reason. With
//! `store_suite!(each = duty)` each duty is handed to a macro of yours, as `duty!(module name)`: the suite's own tests play
//! each against an engine that is wrong in one way, and fail where the duty does not notice.
//!
//! The time of day is the suite's own clock, which stands still until a duty moves it. Waiting is real, since an engine
//! with threads does not run under paused time.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use purista_core::clock::Clock;
use purista_events::store::EventStore;

pub mod atomicity;
pub mod clock;
pub mod conditions;
mod given;
pub mod lifetime;
pub mod model;
pub mod order;
pub mod progress;
pub mod query;
pub mod repetition;
pub mod snapshots;
mod stage;
pub mod state;
pub mod survey;
pub mod tenants;
#[cfg(test)]
mod tests;

pub use stage::Stage;

/// How long one duty may take before it counts as failed. A disk that syncs slowly needs some of it.
const DUTY_TIMEOUT: Duration = Duration::from_secs(600);

/// One set of data, empty at first, that can be opened again and again. What it needs goes away when it is dropped.
pub trait StoreSystem: Send + Sync + 'static {
    /// Opens the data with the time of this clock. The suite closes what was opened before.
    fn open(&self, clock: Clock) -> BoxFuture<'_, Arc<dyn EventStore>>;

    /// How many random histories the model duty tries, unless `PROPTEST_CASES` says otherwise. An engine behind a network takes
    /// its time for each.
    fn histories(&self) -> u32 {
        256
    }
}

/// Runs one duty on a fresh system, within its time, and closes what it opened; called by the tests that the macro makes.
pub async fn run<S, F>(
    new_system: impl Fn() -> F + Send + Sync + 'static,
    duty: for<'s> fn(&'s mut Stage) -> BoxFuture<'s, ()>,
) where
    S: StoreSystem,
    F: Future<Output = S> + Send + 'static,
{
    let new_system: stage::NewSystem = Box::new(move || {
        let system = new_system();
        async move { Box::new(system.await) as Box<dyn StoreSystem> }.boxed()
    });
    let ended = tokio::time::timeout(DUTY_TIMEOUT, async {
        let mut stage = Stage::begin(Arc::new(new_system)).await;
        duty(&mut stage).await;
        stage.store.close().await.expect("a store closes");
    });
    ended.boxed().await.expect("a duty ends in time");
}

/// Gives an engine one named test for every duty of a store; see [`crate::store`].
///
/// The expression is a future of a [`crate::store::StoreSystem`] and is evaluated anew in each test. The crate that
/// calls it has `tokio` with the features `macros` and `rt-multi-thread` among its dependencies.
#[macro_export]
macro_rules! store_suite {
    (ignore = $reason:literal, $system:expr) => {
        $crate::store_suite!(@duties (#[ignore = $reason]) ($system));
    };
    (each = $each:ident) => {
        $crate::store_suite!(@duties (each $each) ());
    };
    (@duties $attributes:tt $system:tt) => {
        $crate::store_suite!(@tests $attributes $system atomicity:
            a_batch_commits_all_its_parts
            a_batch_that_fails_leaves_nothing_of_its_parts
            a_refused_batch_is_not_remembered
            each_of_many_batches_has_its_own_end
            a_passed_deadline_refuses_the_batch
            bounds_hold
            names_have_a_bound
            a_value_of_state_has_a_bound
            a_stored_reply_has_a_bound
        );
        $crate::store_suite!(@tests $attributes $system repetition:
            a_repeated_batch_returns_the_first_receipt
            a_batch_committed_many_times_at_once_happens_once
            a_commit_whose_answer_is_lost_is_recovered
            ids_of_batches_are_kept_for_seven_days
            a_key_holds_one_reply
            of_many_with_one_key_one_wins
            what_is_done_is_said_before_a_conflict
            a_reply_expires_after_seven_days
            a_message_is_consumed_once
        );
        $crate::store_suite!(@tests $attributes $system conditions:
            a_stream_has_the_version_that_was_expected
            a_query_selects_nothing_new
            a_condition_asks_for_tag_and_type_of_each_alternative
            a_condition_sees_the_tenants_of_its_query
            a_condition_without_events_guards_the_batch
            conditions_look_at_the_log_before_the_batch
            of_many_deciders_on_one_boundary_one_wins
            of_many_writers_of_one_version_one_wins
            deciders_on_different_boundaries_all_win
            deciders_that_decide_again_never_sell_too_much
        );
        $crate::store_suite!(@tests $attributes $system order:
            positions_grow_in_commit_order
            no_event_arrives_late
            following_says_how_far_it_looked
            versions_of_a_stream_are_gapless
            an_event_without_tags_has_no_stream
            recorded_times_never_run_back
            position_at_finds_the_last_before_a_time
            the_head_wakes_those_who_wait
            the_last_position_is_that_of_the_last_commit
            what_is_committed_is_seen_at_once
        );
        $crate::store_suite!(@tests $attributes $system clock:
            a_clock_that_jumps_ahead_moves_no_time
            a_clock_behind_the_log_is_reported
        );
        $crate::store_suite!(@tests $attributes $system query:
            a_query_selects_what_it_says
            pages_go_in_both_directions
            a_page_has_a_bound_and_a_view_has_none
            a_view_is_of_one_moment
        );
        $crate::store_suite!(@tests $attributes $system state:
            state_is_compared_and_set
            state_is_removed
            versions_of_state_never_come_again
            state_expires_after_its_time
            changes_of_one_key_follow_one_another
            values_of_state_come_back_as_they_were
            many_keys_are_read_at_once
            of_many_writers_of_one_key_one_wins
        );
        $crate::store_suite!(@tests $attributes $system tenants:
            tenants_see_nothing_of_each_other
            tenants_do_not_stand_in_each_others_way
            names_that_read_the_same_are_told_apart
        );
        $crate::store_suite!(@tests $attributes $system progress:
            a_subscription_is_registered_by_its_first_progress
            changes_of_progress_commute
            the_low_mark_never_goes_back
            a_finished_position_is_not_finished_again
            many_positions_are_finished_at_once
            what_is_parked_is_kept_until_it_is_forgotten
            parked_events_are_kept_apart_from_progress
            a_pause_is_kept_until_it_ends
            dead_letters_are_kept_with_their_history
            dead_letters_are_read_within_a_limit
        );
        $crate::store_suite!(@tests $attributes $system lifetime:
            everything_survives_closing_and_opening
            a_closed_store_rejects_commits
            closing_loses_nothing_that_was_committed
            events_come_back_as_they_were
            names_of_any_script_are_told_apart
        );
        $crate::store_suite!(@tests $attributes $system snapshots:
            a_snapshot_is_found_by_its_whole_key
            a_snapshot_never_goes_back
            a_view_begins_behind_its_snapshots
            each_item_of_a_view_begins_behind_its_own_snapshot
            snapshots_are_counted_and_forgotten
            a_snapshot_has_a_bound
        );
        $crate::store_suite!(@tests $attributes $system survey:
            a_long_view_is_of_one_moment
            a_view_begins_after_a_position
            forms_name_what_is_stored
            counting_has_a_bound
            a_place_has_a_time
            a_dead_letter_is_taken_up_once
        );
        $crate::store_suite!(@tests $attributes $system model:
            model_agrees
        );
    };
    (@tests $attributes:tt $system:tt $module:ident: $($duty:ident)+) => {
        $( $crate::store_suite!(@test $attributes $system $module $duty); )+
    };
    (@test (each $each:ident) () $module:ident $duty:ident) => {
        $each!($module $duty);
    };
    (@test ($($attribute:tt)*) ($system:expr) $module:ident $duty:ident) => {
        #[::tokio::test(flavor = "multi_thread", worker_threads = 4)]
        $($attribute)*
        async fn $duty() {
            $crate::store::run(|| $system, |stage| Box::pin($crate::store::$module::$duty(stage))).await;
        }
    };
    ($system:expr) => {
        $crate::store_suite!(@duties () ($system));
    };
}
