//! Small contracts of one service, made to go wrong in every way.

use garde::Validate;
use purista::{Command, Event, ServiceId, Tags};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(crate) const TRY: ServiceId = ServiceId::new("Try", "1");

macro_rules! commands {
    ($($name:ident $wire:literal { $($field:ident: $type:ty),* } -> $output:ty;)+) => { $(
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Validate)]
        #[garde(allow_unvalidated)]
        pub(crate) struct $name { $(pub(crate) $field: $type),* }
        impl Command for $name {
            const SERVICE: ServiceId = TRY;
            const NAME: &'static str = $wire;
            type Output = $output;
        }
    )+ };
}

commands! {
    Ask "ask" { text: String } -> Told;
    Inner "inner" { text: String } -> Told;
    Count "count" { key: String } -> Told;
    Emit "emit" { key: String, how: String } -> ();
}

/// An answer that must not be empty.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Validate)]
pub(crate) struct Told {
    #[garde(length(min = 1, max = 40))]
    pub(crate) text: String,
}

impl Event for Told {
    const NAME: &'static str = "told";
}

macro_rules! events {
    ($($name:ident $wire:literal $recorded:literal;)+) => { $(
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Validate)]
        #[garde(allow_unvalidated)]
        pub(crate) struct $name { pub(crate) key: String, pub(crate) how: String }
        impl Event for $name {
            const NAME: &'static str = $wire;
            const RECORDED: bool = $recorded;
            fn tags(&self) -> Tags {
                Tags::new().with("key", &self.key)
            }
        }
    )+ };
}

events! {
    Happened "happened" true;
    Passed "passed" false;
    Followed "followed" true;
}

pub(crate) fn told(text: &str) -> Told {
    Told { text: text.to_owned() }
}

pub(crate) fn ask(text: &str) -> Ask {
    Ask { text: text.to_owned() }
}
