//! What a message says beside its body, for brokers with headers or properties.

use super::Message;
use crate::id::ID_DIGITS;
use crate::trace::{PARENT_BYTES, TraceContext};

/// The header with the technical trace context.
const TRACEPARENT: &str = "traceparent";
/// The header with what vendors add to the trace.
const TRACESTATE: &str = "tracestate";

impl Message {
    /// Hands out the headers that PURISTA writes, in its order and under its names. They repeat the body for who looks at
    /// the broker; what is absent is left out, and so is a text with control characters, which no header can hold. The target
    /// of who speaks for a whole service is there, and empty.
    pub fn headers(&self, mut put: impl FnMut(&'static str, &str)) {
        let mut put = |name: &'static str, value: Option<&str>| {
            if let Some(value) = value.filter(|value| is_printable(value)) {
                put(name, value);
            }
        };
        let (sender, mut digits) = (&self.sender, [0; ID_DIGITS]);
        put("messageType", Some(self.kind.as_str()));
        put("senderServiceName", Some(sender.address.service()));
        put("senderServiceVersion", Some(sender.address.version()));
        put("senderServiceTarget", Some(sender.address.target()));
        put("senderInstanceId", sender.instance.as_ref().map(|id| id.text_in(&mut digits)));
        if let Some(receiver) = &self.receiver {
            put("receiverServiceName", Some(receiver.address.service()));
            put("receiverServiceVersion", Some(receiver.address.version()));
            put("receiverServiceTarget", Some(receiver.address.target()));
            put("receiverInstanceId", receiver.instance.as_ref().map(|id| id.text_in(&mut digits)));
        }
        if let Some(trace) = self.trace_context() {
            put(TRACEPARENT, Some(trace.parent_in(&mut [0; PARENT_BYTES])));
            put(TRACESTATE, trace.state());
        }
        put("eventName", self.routed_event());
        put("principalId", named(self.principal_id.as_deref()));
        put("tenantId", named(self.tenant_id.as_deref()));
    }
}

/// The technical trace context of the headers, where there is one.
pub(super) fn trace_of<'h>(header: impl Fn(&str) -> Option<&'h str>) -> Option<TraceContext> {
    TraceContext::parse(header(TRACEPARENT)?, header(TRACESTATE))
}

/// Whether no character is one of control, which is seen at once where all are ASCII.
fn is_printable(text: &str) -> bool {
    text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) || !text.contains(char::is_control)
}

fn named(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}
