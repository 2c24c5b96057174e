//! Time of day and randomness, injected so that tests own them.
//!
//! Waiting is `tokio::time`, which tests pause; this trait is what tokio does not give: the time that is written down,
//! and random bits for ids and jitter.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;

use crate::id::Id;

/// Where the time of day and random bits come from.
pub trait Source: Send + Sync + 'static {
    /// The time of day.
    fn now(&self) -> Timestamp;
    /// The time of day in milliseconds since 1970; up to 10 ms late where that is cheaper.
    fn now_ms(&self) -> u64 {
        u64::try_from(self.now().as_millisecond()).unwrap_or(0)
    }
    /// How much time has passed since some moment that stays the same. No correction of the time of day moves it, so that a clock
    /// that jumps is noticed. A source without such a time is taken at its word.
    fn uptime(&self) -> Duration {
        Duration::try_from(self.now().duration_since(Timestamp::UNIX_EPOCH)).unwrap_or_default()
    }
    /// 128 random bits, of which at least 122 cannot be told from what was drawn before or is drawn later.
    fn random(&self) -> u128;
}

/// The clock that a host, its client and its stores share. Cheap to clone.
#[derive(Clone)]
pub struct Clock(Arc<dyn Source>);

impl Clock {
    /// The machine's clock, and random bits of a cryptographically secure generator.
    pub fn system() -> Self {
        Self(Arc::new(SystemSource))
    }

    /// A clock that shows `start` plus what `tokio::time` has counted since, and draws from `seed`: under paused time a
    /// test owns both.
    pub fn follows_tokio(start: Timestamp, seed: u64) -> Self {
        Self(Arc::new(TokioSource { start, began: tokio::time::Instant::now(), state: AtomicU64::new(seed) }))
    }

    /// A clock of the caller's own making.
    pub fn new(source: impl Source) -> Self {
        Self(Arc::new(source))
    }

    /// The time of day.
    pub fn now(&self) -> Timestamp {
        self.0.now()
    }

    /// The time of day in milliseconds since 1970, as messages bear it; up to 10 ms late where that is cheaper.
    pub fn now_ms(&self) -> u64 {
        self.0.now_ms()
    }

    /// How much time has passed since some moment that stays the same, whatever becomes of the time of day.
    pub fn uptime(&self) -> Duration {
        self.0.uptime()
    }

    /// 128 random bits; those of the machine's clock cannot be told from others of it.
    pub fn random(&self) -> u128 {
        self.0.random()
    }

    /// A new id.
    pub fn id(&self) -> Id {
        Id::from_random(self.0.random())
    }

    /// A number in `0.0..1.0`, for jitter.
    pub fn fraction(&self) -> f64 {
        // 53 bits are what an f64 holds exactly.
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit the mantissa")]
        let (bits, whole) = ((self.0.random() >> 75) as f64, (1_u64 << 53) as f64);
        bits / whole
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Clock").field(&self.now()).finish()
    }
}

struct SystemSource;

/// What the kernel noted at its last tick, a few milliseconds ago: asking the clock itself costs as much as a tenth of a
/// command.
#[cfg(target_os = "linux")]
fn coarse_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    let (seconds, nanoseconds) = (u64::try_from(now.tv_sec), u64::try_from(now.tv_nsec));
    seconds.unwrap_or(0) * 1_000 + nanoseconds.unwrap_or(0) / 1_000_000
}

#[cfg(not(target_os = "linux"))]
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the machine's clock")]
fn coarse_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    since.as_secs() * 1_000 + u64::from(since.subsec_millis())
}

impl Source for SystemSource {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the machine's clock")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    /// Counted also while the machine sleeps.
    #[cfg(target_os = "linux")]
    fn uptime(&self) -> Duration {
        let passed = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let (seconds, nanoseconds) = (u64::try_from(passed.tv_sec), u32::try_from(passed.tv_nsec));
        Duration::new(seconds.unwrap_or(0), nanoseconds.unwrap_or(0))
    }

    fn now_ms(&self) -> u64 {
        // Every message bears it, and some bear two: it goes the short way.
        coarse_ms()
    }

    fn random(&self) -> u128 {
        // A cryptographically secure generator (ChaCha, seeded by the operating system), buffered per thread: the feature
        // `fast-rng` of uuid. A call to the operating system for every id costs more than a whole validated command; a generator
        // that is faster shows its state by what it gave, and ids that callers see (traces) would tell those that they must
        // not know. Measured in instructions an id: 19 with wyrand, 88 so.
        uuid::Uuid::new_v4().as_u128()
    }
}

/// One step of wyrand (Wang Yi, wyhash final version 4, public domain): the next state, and 64 random bits.
fn wyrand(state: u64) -> (u64, u64) {
    let state = state.wrapping_add(0xa076_1d64_78bd_642f);
    let product = u128::from(state).wrapping_mul(u128::from(state ^ 0xe703_7ed1_a0b4_28db));
    #[expect(clippy::cast_possible_truncation, reason = "the lower half is wanted")]
    (state, (product >> 64) as u64 ^ product as u64)
}

struct TokioSource {
    start: Timestamp,
    began: tokio::time::Instant,
    state: AtomicU64,
}

impl Source for TokioSource {
    fn now(&self) -> Timestamp {
        self.start.saturating_add(self.began.elapsed()).unwrap_or(Timestamp::MAX)
    }

    fn uptime(&self) -> Duration {
        self.began.elapsed()
    }

    fn random(&self) -> u128 {
        let mut bits = 0;
        for _ in 0..2 {
            let state = self.state.fetch_add(0xa076_1d64_78bd_642f, Ordering::Relaxed);
            bits = bits << 64 | u128::from(wyrand(state).1);
        }
        bits
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_million_ids_differ() {
        let clock = Clock::system();
        let ids: HashSet<u128> = (0..1_000_000).map(|_| clock.random()).collect();
        assert_eq!(ids.len(), 1_000_000);
    }

    #[test]
    fn what_the_system_clock_draws_comes_from_the_secure_generator_of_random_uuids() {
        let clock = Clock::system();
        for _ in 0..1_000 {
            let drawn = uuid::Uuid::from_u128(clock.random());
            assert_eq!(drawn.get_version(), Some(uuid::Version::Random), "{drawn}");
        }
        let manifest = include_str!("../../../Cargo.toml");
        let line = manifest.lines().find(|line| line.starts_with("uuid ")).unwrap();
        assert!(line.contains("fast-rng"), "buffered per thread: {line}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_clock_of_a_test_moves_with_paused_time_and_repeats_by_seed() {
        let clock = Clock::follows_tokio(Timestamp::UNIX_EPOCH, 7);
        tokio::time::advance(Duration::from_secs(600)).await;
        assert_eq!(clock.now(), Timestamp::from_second(600).unwrap());
        assert_eq!(clock.id(), Clock::follows_tokio(Timestamp::UNIX_EPOCH, 7).id());
        assert!((0.0..1.0).contains(&clock.fraction()));
    }
}
