//! Which rules are found to count bytes, in types of every shape.

use garde::Validate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::*;
use crate::schema::Inspector;

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase")]
struct Place {
    #[garde(length(max = 20))]
    city_name: String,
    #[garde(length(chars, max = 20))]
    street_name: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(tag = "kind", rename_all = "camelCase")]
#[garde(allow_unvalidated)]
enum Contact {
    Phone { number: String },
    None,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase")]
struct Everything {
    #[garde(email, length(max = 254))]
    email: String,
    #[garde(length(chars, min = 1, max = 80))]
    name: String,
    #[garde(length(bytes, max = 8))]
    #[serde(default)]
    nick: Option<String>,
    #[garde(length(min = 4))]
    secret: String,
    #[garde(length(min = 1))]
    not_empty: String,
    #[garde(length(min = 1, max = 3))]
    numbers: Vec<u32>,
    #[garde(inner(length(max = 5)))]
    tags: Vec<String>,
    #[garde(dive)]
    home: Place,
    #[garde(dive)]
    work: Option<Place>,
    #[garde(range(min = 18))]
    age: u8,
    #[garde(skip)]
    at: jiff::Timestamp,
    #[garde(skip)]
    contact: Contact,
}

fn found<C: Contract>() -> Vec<String> {
    let mut found: Vec<_> = byte_rules::<C>().iter().map(|rule| rule.path.join(".")).collect();
    found.sort();
    found.dedup();
    found
}

#[test]
fn rules_that_count_bytes_are_found_and_others_are_not() {
    assert_eq!(found::<Everything>(), ["email", "home.city_name", "nick", "secret", "tags.0"]);
}

#[test]
fn a_type_of_which_no_value_can_be_made_is_left_alone() {
    #[derive(Debug, Clone, Serialize, JsonSchema, Validate)]
    struct Picky {
        #[garde(length(max = 3))]
        name: String,
    }
    impl<'de> Deserialize<'de> for Picky {
        fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
            panic!("a value that the code of a program never saw")
        }
    }
    assert!(found::<Picky>().is_empty());
    assert!(found::<()>().is_empty());
}

#[test]
fn the_schema_and_a_refusal_name_the_unit() {
    let rules = byte_rules::<Place>();
    let mut schema = Place::schema().to_value();
    annotate(&mut schema, &rules);
    let noted = |name: &str| schema["properties"][name]["description"].as_str().map(ToOwned::to_owned);
    assert_eq!(noted("cityName").as_deref(), Some("Its length is counted in bytes of UTF-8."));
    assert_eq!(noted("streetName"), None);
    let wide = "é".repeat(15);
    let place = Place { city_name: wide.clone(), street_name: wide };
    let faults = Inspector::of::<Place>().inspect(&place.encode().unwrap(), place.check().unwrap_err());
    let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
    assert_eq!(faults, ["city_name: length is greater than 20 bytes of UTF-8"]);
}
