//! Warnings at the start about string rules that count bytes, where the schema that callers read counts characters.

use purista_core::length_unit::ByteRule;

use crate::service::Service;

/// The most rules that are named by one start; a count stands for the rest.
const WARNINGS_MAX: usize = 20;

/// Logs each string rule that counts bytes, of the inputs of commands and of the events that services emit.
pub(super) fn warn(services: &[Service]) {
    let mut found = services.iter().flat_map(|service| {
        let inputs = service.commands.iter().flat_map(|part| {
            let of = part.entry.address.to_string();
            part.entry.input_byte_rules().into_iter().map(move |rule| (of.clone(), rule))
        });
        let events = service.entry.events.iter();
        inputs.chain(
            events.flat_map(|event| event.byte_rules().into_iter().map(|rule| (event.name.to_owned(), rule))),
        )
    });
    for (of, ByteRule { path, .. }) in found.by_ref().take(WARNINGS_MAX) {
        tracing::warn!(
            r#type = of,
            field = path.join("."),
            "a length rule counts bytes, its schema counts characters; write `length(chars, ..)`"
        );
    }
    let more = found.count();
    if more > 0 {
        tracing::warn!(more, "more length rules count bytes");
    }
}
