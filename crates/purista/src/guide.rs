//! The chapters in `docs/` whose examples are compiled and run.

#![doc = include_str!("../../../docs/event-sourcing.md")]
