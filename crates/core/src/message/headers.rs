//! What a message says beside its body, for brokers with headers or properties.

use super::Message;
use crate::id::Id;
use crate::trace::TraceContext;

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
            if let Some(value) = value.filter(|value| !value.contains(char::is_control)) {
                put(name, value);
            }
        };
        let sender = &self.sender;
        put("messageType", Some(self.kind.as_str()));
        put("senderServiceName", Some(sender.address.service()));
        put("senderServiceVersion", Some(sender.address.version()));
        put("senderServiceTarget", Some(sender.address.target()));
        put("senderInstanceId", sender.instance.as_ref().map(Id::text).as_deref());
        if let Some(receiver) = &self.receiver {
            put("receiverServiceName", Some(receiver.address.service()));
            put("receiverServiceVersion", Some(receiver.address.version()));
            put("receiverServiceTarget", Some(receiver.address.target()));
            put("receiverInstanceId", receiver.instance.as_ref().map(Id::text).as_deref());
        }
        if let Some(trace) = self.trace_context() {
            put(TRACEPARENT, Some(&trace.to_string()));
            put(TRACESTATE, trace.state());
        }
        put("eventName", self.routed_event());
        put("principalId", named(self.principal_id.as_deref()));
        put("tenantId", named(self.tenant_id.as_deref()));
    }

    /// Takes the technical trace context of the headers, where there is one: it goes before the body's, as at PURISTA.
    pub fn trace_by_headers<'h>(&mut self, header: impl Fn(&str) -> Option<&'h str>) {
        let trace = header(TRACEPARENT).and_then(|parent| TraceContext::parse(parent, header(TRACESTATE)));
        if let Some(trace) = trace {
            self.trace = Some(trace);
        }
    }
}

fn named(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}
