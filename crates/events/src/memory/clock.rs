//! A clock that a test moves, for what paused time cannot do: engines with threads, and a clock that runs back.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use purista_core::clock::{Clock, Source};

/// A clock that stands still until its test moves it. It begins at 2025-01-01 00:00 UTC. Clones are the same clock.
///
/// ```
/// # use std::time::Duration;
/// use purista_events::memory::{MemoryStore, clock::TestClock};
///
/// let clock = TestClock::new();
/// let store = MemoryStore::new(clock.clock());
/// clock.advance(Duration::from_secs(3600));
/// ```
#[derive(Debug, Clone)]
pub struct TestClock {
    now: Arc<Mutex<Timestamp>>,
    /// How much time has really passed.
    passed: Arc<Mutex<Duration>>,
    random: Clock,
}

impl TestClock {
    /// A clock with a time of its own, and random bits from the machine.
    #[expect(clippy::new_without_default, reason = "each is another clock, which `default` would hide")]
    pub fn new() -> Self {
        let now = Arc::new(Mutex::new(Timestamp::constant(1_735_689_600, 0)));
        Self { now, passed: Arc::default(), random: Clock::system() }
    }

    /// This clock, as stores and hosts take it.
    pub fn clock(&self) -> Clock {
        Clock::new(self.clone())
    }

    /// What it shows.
    pub fn time(&self) -> Timestamp {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        let mut passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
        *passed = passed.saturating_add(by);
        self.jump_ahead(by);
    }

    /// Moves it forward although no time has passed, as a machine's clock that is set wrong.
    pub fn jump_ahead(&self, by: Duration) {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        *now = now.saturating_add(by).unwrap_or(Timestamp::MAX);
    }

    /// Moves it back, as a machine's clock that is corrected.
    pub fn turn_back(&self, by: Duration) {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        *now = now.saturating_sub(by).unwrap_or(Timestamp::MIN);
    }
}

impl Source for TestClock {
    fn now(&self) -> Timestamp {
        self.time()
    }

    fn uptime(&self) -> Duration {
        *self.passed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn random(&self) -> u128 {
        self.random.random()
    }
}
