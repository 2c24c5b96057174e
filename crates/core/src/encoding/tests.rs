//! What is written of contract values, what is refused, and what is looked at only once.

use std::collections::{BTreeMap, HashMap, HashSet};

use garde::Validate;
use schemars::JsonSchema;
use serde_json::value::RawValue;

use super::*;
use crate::contract::Contract;

macro_rules! contract {
    ($(#[$attribute:meta])* struct $name:ident { $($(#[$inner:meta])* $field:ident: $type:ty),* $(,)? }) => {
        #[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
        #[garde(allow_unvalidated)]
        $(#[$attribute])*
        struct $name { $($(#[$inner])* $field: $type),* }
    };
}

fn text<T: Contract>(value: &T) -> String {
    String::from_utf8(value.encode().unwrap().to_vec()).unwrap()
}

fn error<T: Contract>(value: &T) -> String {
    value.encode().unwrap_err().to_string()
}

contract! {
    struct Readings {
        mean: f64,
        each: Vec<f32>,
        named: BTreeMap<String, f64>,
    }
}

#[test]
fn a_number_that_is_not_finite_is_refused_with_its_field() {
    let good = Readings { mean: 0.1, each: vec![1.5], named: BTreeMap::new() };
    assert_eq!(text(&good), r#"{"mean":0.1,"each":[1.5],"named":{}}"#);
    let nan = error(&Readings { mean: f64::NAN, ..good.clone() });
    assert!(nan.contains("Readings") && nan.contains("`mean`") && nan.contains("NaN"), "{nan}");
    let infinite = error(&Readings { each: vec![0.0, f32::INFINITY], ..good.clone() });
    assert!(infinite.contains("`each.1`"), "{infinite}");
    let named = BTreeMap::from([("a".to_owned(), f64::NEG_INFINITY)]);
    assert!(Readings { named, ..good }.encode().is_err());
}

contract! {
    struct Everything {
        text: String,
        none: Option<u8>,
        some: Option<u8>,
        list: Vec<Option<u8>>,
        map: HashMap<u8, Option<String>>,
        choice: Vec<Choice>,
        pair: (i64, char),
        unit: (),
        set: HashSet<u8>,
        raw: Value,
        wide: u128,
        last: Option<String>,
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
enum Choice {
    Unit,
    New(Option<u8>),
    Tuple(u8, Option<u8>),
    Struct { a: Option<u8>, b: u8 },
}

fn everything() -> Everything {
    Everything {
        text: "a\"\u{1}ä".to_owned(),
        none: None,
        some: Some(1),
        list: vec![None, Some(2)],
        map: HashMap::from([(7, None)]),
        choice: vec![
            Choice::Unit,
            Choice::New(None),
            Choice::Tuple(1, None),
            Choice::Struct { a: None, b: 2 },
        ],
        pair: (-1, 'x'),
        unit: (),
        set: HashSet::from([1]),
        raw: serde_json::json!({"a": null, "b": [1.0, {}, []]}),
        wide: u128::MAX,
        last: None,
    }
}

#[test]
fn only_members_of_structs_are_left_out_and_the_rest_is_as_serde_json_writes_it() {
    let mut expect = serde_json::to_string(&everything()).unwrap();
    for absent in [r#""none":null,"#, r#","last":null"#, r#""a":null,"b":2"#] {
        assert!(expect.contains(absent), "{expect}");
        expect = expect.replacen(absent, if absent.ends_with('2') { r#""b":2"# } else { "" }, 1);
    }
    assert_eq!(text(&everything()), expect);
}

#[test]
fn raw_json_is_written_as_it_is() {
    let raw = RawValue::from_string(r#"{ "a" : 1 }"#.to_owned()).unwrap();
    let mut json = Vec::new();
    write_unread(&vec![raw], &mut json).unwrap();
    assert_eq!(json, br#"[{ "a" : 1 }]"#);
}

#[test]
fn a_struct_with_a_flattened_map_leaves_out_its_members_and_keeps_those_of_the_map() {
    contract! {
        struct Flat {
            own: Option<u8>,
            #[serde(flatten)]
            rest: HashMap<String, Option<u8>>,
        }
    }
    assert_eq!(text(&Flat { own: None, rest: HashMap::from([("a".to_owned(), None)]) }), r#"{"a":null}"#);
    assert_eq!(text(&Flat { own: Some(1), rest: HashMap::new() }), r#"{"own":1}"#);
    assert_eq!(text(&Flat { own: None, rest: HashMap::new() }), "{}");
}

mod by_module {
    use super::*;

    #[expect(clippy::ref_option, clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    pub(super) fn serialize<S: serde::Serializer>(value: &Option<u8>, to: S) -> Result<S::Ok, S::Error> {
        value.serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u8>, D::Error> {
        Option::deserialize(from)
    }
}

#[test]
fn a_type_that_does_not_read_itself_without_its_null_is_written_with_it() {
    contract! {
        struct WithModule {
            #[serde(with = "by_module")]
            #[schemars(with = "Option<u8>")]
            field: Option<u8>,
            other: Option<u8>,
        }
    }
    for _ in 0..2 {
        assert_eq!(text(&WithModule { field: None, other: None }), r#"{"field":null,"other":null}"#);
        assert_eq!(text(&WithModule { field: Some(1), other: None }), r#"{"field":1}"#);
    }
}

#[test]
fn what_is_written_one_way_and_read_another_is_refused() {
    contract! {
        struct Renamed {
            #[serde(rename(serialize = "written", deserialize = "read"))]
            field: u8,
        }
    }
    contract! {
        struct LostSilently {
            #[serde(rename(serialize = "written", deserialize = "read"), default)]
            field: Option<u8>,
        }
    }
    contract! {
        struct Skipped {
            #[serde(skip_serializing)]
            field: u8,
        }
    }
    #[expect(clippy::option_option, reason = "without `nullable`, its null is lost")]
    #[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
    #[garde(allow_unvalidated)]
    struct Null {
        field: Option<Option<u8>>,
    }
    #[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
    #[garde(allow_unvalidated)]
    #[serde(untagged)]
    enum Mistaken {
        Small { a: u8 },
        Large { a: u8, b: u8 },
    }
    let refused = error(&Renamed { field: 1 });
    assert!(refused.contains("Renamed") && refused.contains("read"), "{refused}");
    assert!(error(&LostSilently { field: Some(1) }).contains("`written`"));
    let skipped = Skipped { field: 1 };
    assert!(error(&skipped).contains("field") && skipped.field == 1);
    assert!(error(&Null { field: Some(None) }).contains("`field`"));
    assert_eq!(text(&Null { field: None }), "{}");
    assert_eq!(text(&Mistaken::Small { a: 1 }), r#"{"a":1}"#);
    assert!(error(&Mistaken::Large { a: 1, b: 2 }).contains("`b`"));
}

#[test]
fn a_new_shape_is_looked_at_even_when_others_of_the_type_are_known() {
    #[derive(Debug, Clone, Serialize, JsonSchema)]
    struct NotZero(u32);
    impl<'de> Deserialize<'de> for NotZero {
        fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            match u32::deserialize(from)? {
                0 => Err(serde::de::Error::custom("it is zero")),
                number => Ok(Self(number)),
            }
        }
    }
    contract! {
        struct Numbers {
            numbers: Vec<NotZero>,
        }
    }
    assert!(Numbers { numbers: vec![] }.encode().is_ok());
    assert!(Numbers { numbers: vec![NotZero(1), NotZero(2)] }.encode().is_ok());
    assert!(error(&Numbers { numbers: vec![NotZero(1), NotZero(0)] }).contains("it is zero"));
}

#[test]
fn a_known_shape_is_not_decoded_again() {
    use std::sync::atomic::{AtomicU32, Ordering};
    static DECODED: AtomicU32 = AtomicU32::new(0);
    #[derive(Debug, Clone, Serialize, JsonSchema)]
    struct Counted(u32);
    impl<'de> Deserialize<'de> for Counted {
        fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            DECODED.fetch_add(1, Ordering::Relaxed);
            u32::deserialize(from).map(Self)
        }
    }
    contract! {
        struct Event {
            count: Counted,
            note: Option<String>,
        }
    }
    for nth in 1..1_000 {
        Event { count: Counted(nth), note: None }.encode().unwrap();
    }
    assert_eq!(DECODED.load(Ordering::Relaxed), 1);
    Event { count: Counted(1), note: Some("a".to_owned()) }.encode().unwrap();
    assert_eq!(DECODED.load(Ordering::Relaxed), 2);
}

#[test]
fn a_thread_remembers_a_bounded_number_of_shapes() {
    let mut known = Known::default();
    for nth in 0..10_000 {
        remember(&mut known, nth, false, vec![nth + 100_000]);
        assert!(known.len() <= SHAPES_MAX);
    }
}

#[test]
fn a_number_is_read_back_to_the_last_bit() {
    // Without serde_json's `float_roundtrip` this reads as its neighbour.
    for number in [0.1 + 0.2, 1.0e-310, 2.002_802_665_3e-80, 9.007_199_254_740_994e25, 5e-324] {
        let json = serde_json::to_string(&number).unwrap();
        let read: f64 = serde_json::from_str(&json).unwrap();
        assert_eq!(read.to_bits(), f64::to_bits(number), "{json}");
    }
    let manifest = include_str!("../../../../Cargo.toml");
    let line = manifest.lines().find(|line| line.starts_with("serde_json ")).unwrap();
    assert!(line.contains("float_roundtrip"), "our own manifest asks for it: {line}");
}
