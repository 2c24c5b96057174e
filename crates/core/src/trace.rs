//! The W3C trace context that a message carries, and its form on PURISTA's wire.
//!
//! `traceId` of a message is the business trace and any text; this is the technical one (W3C Trace Context, level 1),
//! which travels as `otp`: a JSON object written as a JSON string.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::{Id, hex, unhex};

/// The longest `tracestate` that is carried on, in bytes (W3C asks for at least 512).
pub const TRACE_STATE_BYTES_MAX: usize = 512;

/// How long a `traceparent` of version 0 is, in bytes.
pub const PARENT_BYTES: usize = PARENT_FORM.len();
/// Its version and its dashes; zeros where trace, span and flags go.
const PARENT_FORM: &[u8; 55] = b"00-00000000000000000000000000000000-0000000000000000-00";

/// A position in a distributed trace: trace, span, flags, and the vendors' state.
#[derive(Clone, PartialEq, Eq)]
pub struct TraceContext {
    trace: [u8; 16],
    span: [u8; 8],
    flags: u8,
    state: Option<Arc<str>>,
}

impl TraceContext {
    /// Reads a `traceparent` header, and a `tracestate` where there is one; anything malformed is `None`, as W3C asks.
    pub fn parse(traceparent: &str, tracestate: Option<&str>) -> Option<Self> {
        let mut parts = traceparent.trim().as_bytes().split(|byte| *byte == b'-');
        let version = unhex::<1>(parts.next()?)?;
        let trace = unhex::<16>(parts.next()?)?;
        let span = unhex::<8>(parts.next()?)?;
        let [flags] = unhex::<1>(parts.next()?)?;
        // A later version may append parts; version 0 may not, and version 255 is forbidden.
        if version == [0xff] || (version == [0] && parts.next().is_some()) {
            return None;
        }
        Self::of_parts(trace, span, flags, tracestate)
    }

    /// The context of these ids; zeros are no ids.
    pub fn of_parts(trace: [u8; 16], span: [u8; 8], flags: u8, tracestate: Option<&str>) -> Option<Self> {
        let is_good = trace != [0; 16] && span != [0; 8];
        is_good.then(|| Self { trace, span, flags, state: carried(tracestate) })
    }

    /// The context of a message that carries none: its own ids, where they have the form of a trace's. So a trace needs
    /// no generator, and log lines, messages and spans show the same id.
    pub fn of_ids(trace: &Id, span: &Id) -> Option<Self> {
        let [span @ .., _, _, _, _, _, _, _, _] = *span.bytes()?;
        let trace = *trace.bytes()?;
        (trace != [0; 16] && span != [0; 8]).then_some(Self { trace, span, flags: 1, state: None })
    }

    /// The same trace, seen from a new span.
    #[must_use]
    pub fn child(&self, span: u64) -> Self {
        Self { span: span.max(1).to_be_bytes(), ..self.clone() }
    }

    /// The trace's id as 32 hex digits.
    pub fn trace_id(&self) -> Id {
        Id::from_random(u128::from_be_bytes(self.trace))
    }

    /// The ids of trace and span as bytes, and the flags.
    pub const fn parts(&self) -> ([u8; 16], [u8; 8], u8) {
        (self.trace, self.span, self.flags)
    }

    /// The header `tracestate`.
    pub fn state(&self) -> Option<&str> {
        self.state.as_deref()
    }

    /// The header `traceparent`, written into `characters` without any allocation.
    pub fn parent_in<'t>(&self, characters: &'t mut [u8; PARENT_BYTES]) -> &'t str {
        let parts: [(usize, &[u8]); 3] = [(3, &self.trace), (36, &self.span), (53, &[self.flags])];
        *characters = *PARENT_FORM;
        for (from, bytes) in parts {
            if let Some(place) = characters.get_mut(from..from + 2 * bytes.len()) {
                hex(bytes, place);
            }
        }
        std::str::from_utf8(characters).unwrap_or_default()
    }

    /// The value of `otp` on the wire: a carrier, written as JSON text.
    pub fn to_otp(&self) -> String {
        let mut characters = *PARENT_FORM;
        let traceparent = self.parent_in(&mut characters);
        let Some(state) = &self.state else { return format!(r#"{{"traceparent":"{traceparent}"}}"#) };
        let [traceparent, tracestate] = [traceparent, state].map(|text| Some(Words(Cow::Borrowed(text))));
        let carrier = Carrier { traceparent, tracestate };
        serde_json::to_string(&carrier).unwrap_or_else(|_| "{}".to_owned())
    }

    /// Reads `otp`; a carrier without a valid `traceparent` is no context.
    pub fn from_otp(otp: &str) -> Option<Self> {
        let carrier: Carrier<'_> = serde_json::from_str(otp).ok()?;
        Self::parse(&carrier.traceparent?.0, carrier.tracestate.as_ref().map(|state| &*state.0))
    }
}

/// A `tracestate` that may be carried on.
fn carried(tracestate: Option<&str>) -> Option<Arc<str>> {
    let is_good =
        |state: &&str| !state.is_empty() && state.len() <= TRACE_STATE_BYTES_MAX && state.is_ascii();
    tracestate.filter(is_good).map(Into::into)
}

#[derive(Serialize, Deserialize)]
struct Carrier<'a> {
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    traceparent: Option<Words<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    tracestate: Option<Words<'a>>,
}

/// A text that stays where it lies, unless an escape in it has to be read: an optional `Cow` would be copied always.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Words<'a>(#[serde(borrow)] pub(crate) Cow<'a, str>);

/// The form of the header `traceparent`.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.parent_in(&mut [0; PARENT_BYTES]))
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_traceparent_survives_the_way_through_otp() {
        let context = TraceContext::parse(PARENT, Some("vendor=1")).unwrap();
        assert_eq!(context.to_string(), PARENT);
        assert_eq!(context.to_otp(), format!(r#"{{"traceparent":"{PARENT}","tracestate":"vendor=1"}}"#));
        assert_eq!(TraceContext::from_otp(&context.to_otp()), Some(context));
    }

    #[test]
    fn what_is_malformed_is_no_context() {
        for bad in [
            "",
            "00-x-y-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            &PARENT.to_uppercase(),
        ] {
            assert_eq!(TraceContext::parse(bad, None), None, "{bad}");
        }
        assert_eq!(TraceContext::parse(&PARENT.replace("b7ad6b7169203331", "0000000000000000"), None), None);
        for bad in ["{}", "no json", "[]"] {
            assert_eq!(TraceContext::from_otp(bad), None, "{bad}");
        }
    }
}
