//! Which types need a look at each value, and where the bound lies.

use std::collections::HashMap;

use garde::Validate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::*;

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
struct Bounded {
    #[garde(length(max = 10))]
    name: String,
    #[garde(length(max = 3), inner(length(max = 2)))]
    codes: Vec<String>,
    #[garde(skip)]
    count: Option<u64>,
    #[garde(skip)]
    kind: Kind,
    #[garde(skip)]
    at: jiff::Timestamp,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
enum Kind {
    Plain,
    Named(bool),
}

#[test]
fn a_type_whose_schema_bounds_everything_needs_no_look() {
    let outline = Outline::of::<Bounded>();
    assert!(!outline.may_hold_floats);
    assert!(outline.bytes_max.is_some_and(|most| (100..1_000).contains(&most)), "{:?}", outline.bytes_max);
    assert!(!UnencodedBounds::new::<Bounded>(1_000).is_needed);
    assert!(UnencodedBounds::new::<Bounded>(100).is_needed);
}

#[test]
fn what_is_open_is_looked_at() {
    macro_rules! is_open {
        ($($field:ty),+) => { $({
            #[derive(Clone, Serialize, Deserialize, JsonSchema, Validate)]
            #[garde(allow_unvalidated)]
            struct Open {
                field: $field,
            }
            assert!(UnencodedBounds::new::<Open>(1_000).is_needed, stringify!($field));
        })+ };
    }
    is_open!(String, Vec<u8>, HashMap<String, u8>, f32, Option<f64>, [f64; 2], (u8, f32), Value, Option<Box<Kind2>>);
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
struct Kind2 {
    next: Option<Box<Kind2>>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[garde(allow_unvalidated)]
struct Text {
    text: String,
}

#[test]
fn the_bound_is_that_of_the_encoding_to_the_byte() {
    let bounds = UnencodedBounds::new::<Text>(100);
    let around = r#"{"text":""}"#.len();
    assert!(bounds.check(&Text { text: "a".repeat(100 - around) }).is_ok());
    let error = bounds.check(&Text { text: "a".repeat(101 - around) }).unwrap_err();
    assert!(error.is_too_large() && error.to_string().contains("101 bytes"), "{error}");
    // An escape takes six bytes.

    assert!(bounds.check(&Text { text: "\u{1}".repeat(14) }).is_ok());
    assert!(bounds.check(&Text { text: "\u{1}".repeat(15) }).is_err());
}
