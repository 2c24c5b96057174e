//! What every bridge asks of its broker's address, and how it comes back to one that was lost.

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

/// How long the second attempt to connect waits, at most.
const RECONNECT_DELAY_MIN: Duration = Duration::from_millis(50);
/// How long any attempt waits, at most.
pub const RECONNECT_DELAY_MAX: Duration = Duration::from_secs(4);

/// How long to wait before an attempt to connect again, counted from 0. The first is made at once, later ones after a doubling
/// time of up to 4 s, of which half is left to chance, a `fraction` of 0 to 1, so that a broker that comes back is not met by
/// all its clients together.
pub fn reconnect_delay(attempt: u32, fraction: f64) -> Duration {
    let Some(doublings) = attempt.checked_sub(1) else { return Duration::ZERO };
    let delay = RECONNECT_DELAY_MIN.saturating_mul(2_u32.saturating_pow(doublings)).min(RECONNECT_DELAY_MAX);
    delay.div_f64(2.0) + delay.div_f64(2.0).mul_f64(fraction.clamp(0.0, 1.0))
}

/// How long a connection has to live so that its loss is a new one, and not one more failure of the attempt that made it,
/// unless the adapter says otherwise.
pub const GOOD_AFTER: Duration = Duration::from_secs(1);

/// The attempts to connect since there was a connection that lived. A broker that takes connections and cuts them at once is so
/// asked as seldom as one that takes none.
#[derive(Debug)]
pub struct Attempts {
    made: u32,
    up_since: Option<Instant>,
    good_after: Duration,
}

impl Default for Attempts {
    fn default() -> Self {
        Self::good_after(GOOD_AFTER)
    }
}

impl Attempts {
    /// None so far; a connection is a good one that has lived so long.
    pub const fn good_after(good_after: Duration) -> Self {
        Self { made: 0, up_since: None, good_after }
    }

    /// There is a connection.
    pub fn connected(&mut self) {
        self.up_since = Some(Instant::now());
    }

    /// How long to wait before the next attempt, by [`reconnect_delay`].
    pub fn next_delay(&mut self, fraction: f64) -> Duration {
        if self.up_since.take().is_some_and(|since| since.elapsed() >= self.good_after) {
            self.made = 0;
        }
        let delay = reconnect_delay(self.made, fraction);
        self.made = self.made.saturating_add(1);
        delay
    }
}

/// Whether what is said to this host stays on this machine. A name but `localhost` may lead anywhere; brackets around an
/// address of IP 6 are not part of it.
///
/// ```
/// use purista_core::broker::is_this_machine;
/// assert!(is_this_machine("127.0.0.1") && !is_this_machine("localhost.example.com"));
/// ```
pub fn is_this_machine(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

/// Reads the `%41` of addresses (RFC 3986, section 2.1); what is not well formed stays as it is.
pub fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, tail @ ..] = rest {
        let escaped = tail.get(..2).filter(|_| *byte == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        if let Some(escaped) = escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            bytes.push(escaped);
            rest = tail.get(2..).unwrap_or_default();
        } else {
            bytes.push(*byte);
            rest = tail;
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_doubles_up_to_its_bound_and_half_of_it_is_chance() {
        assert_eq!(reconnect_delay(0, 0.5), Duration::ZERO);
        assert_eq!(reconnect_delay(1, 0.0), Duration::from_millis(25));
        assert_eq!(reconnect_delay(1, 1.0), Duration::from_millis(50));
        assert_eq!(reconnect_delay(3, 1.0), Duration::from_millis(200));
        for attempt in [20, 40, u32::MAX] {
            assert_eq!(reconnect_delay(attempt, 1.0), RECONNECT_DELAY_MAX);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_are_counted_until_a_connection_has_lived() {
        let mut attempts = Attempts::default();
        for (lived, counted) in [(None, 0..3), (Some(GOOD_AFTER / 2), 3..5), (Some(GOOD_AFTER), 0..2)] {
            if let Some(lived) = lived {
                attempts.connected();
                tokio::time::advance(lived).await;
            }
            for nth in counted {
                assert_eq!(attempts.next_delay(1.0), reconnect_delay(nth, 1.0), "{lived:?}, {nth}");
            }
        }
    }

    #[test]
    fn this_machine_is_loopback_and_nothing_else() {
        for (host, is_here) in [
            ("localhost", true),
            ("LOCALHOST", true),
            ("127.0.0.1", true),
            ("127.9.9.9", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("10.0.0.1", false),
            ("0.0.0.0", false),
            ("::", false),
            ("", false),
            ("localhost.example.com", false),
            ("127.0.0.1.example.com", false),
        ] {
            assert_eq!(is_this_machine(host), is_here, "{host:?}");
        }
    }

    #[test]
    fn what_is_escaped_is_read_and_what_is_not_well_formed_stays() {
        for (escaped, text) in [("a%40b%2F%C3%A4", "a@b/ä"), ("100%", "100%"), ("%zz%4", "%zz%4"), ("", "")]
        {
            assert_eq!(unescaped(escaped), text.as_bytes());
        }
    }
}
