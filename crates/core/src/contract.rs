//! What may travel in a message, and what a command is.

use std::cell::Cell;
use std::fmt;

use bytes::Bytes;
use garde::Validate;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::address::{AddressParts, ServiceId};
use crate::encoding;
use crate::fault::Fault;
use crate::route::Route;

/// A type that may travel: it can be encoded, decoded, checked, and described by a JSON schema.
///
/// Nobody implements it by hand. It holds for every type with
/// `#[derive(Clone, Serialize, Deserialize, JsonSchema, Validate)]`, so a type whose validation was forgotten does not
/// compile. `Clone` is asked for because fan-out, retries and guards hand a value on more than once.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot travel in a message",
    label = "not a contract type",
    note = "add `#[derive(Clone, Serialize, Deserialize, JsonSchema, Validate)]` to `{Self}`",
    note = "a type without rules also takes `#[garde(allow_unvalidated)]`; a bare `String` or number goes into a named struct"
)]
pub trait Contract: Clone + Send + Sync + 'static {
    /// The value as JSON. A member that is `None` is left out; a value that its own type would not read back is an error, see
    /// [`crate::encoding`].
    fn encode(&self) -> Result<Bytes, ContractError> {
        json_of(|json| self.write_into(json))
    }
    /// Appends the value as JSON to what is there; an error may leave a part of it.
    fn write_into(&self, json: &mut Vec<u8>) -> Result<(), ContractError>;
    /// Appends the value as JSON, without asking whether its type reads it back: for readers that are no such type.
    fn write_unread(&self, json: &mut Vec<u8>) -> Result<(), ContractError>;
    /// Refuses a value whose JSON has more bytes than this; only what may be too large is encoded.
    fn check_size(&self, bytes_max: usize) -> Result<(), ContractError>;
    /// Reads the value from JSON. It is not checked yet.
    fn decode(json: &[u8]) -> Result<Self, ContractError>;
    /// Checks the rules of the type, and names every field that breaks one.
    fn check(&self) -> Result<(), Vec<Fault>>;
    /// The JSON schema (draft 2020-12), rules included.
    fn schema() -> schemars::Schema;
}

#[diagnostic::do_not_recommend]
impl<T> Contract for T
where
    T: Serialize + DeserializeOwned + JsonSchema + Validate<Context = ()> + Clone + Send + Sync + 'static,
{
    fn write_into(&self, json: &mut Vec<u8>) -> Result<(), ContractError> {
        encoding::write(self, json)
    }

    fn write_unread(&self, json: &mut Vec<u8>) -> Result<(), ContractError> {
        encoding::write_unread(self, json)
    }

    fn check_size(&self, bytes_max: usize) -> Result<(), ContractError> {
        encoding::check_size(self, bytes_max)
    }

    fn decode(json: &[u8]) -> Result<Self, ContractError> {
        Ok(serde_json::from_slice(json)?)
    }

    #[inline]
    fn check(&self) -> Result<(), Vec<Fault>> {
        self.validate().map_err(|report| Fault::of_report(&report))
    }

    fn schema() -> schemars::Schema {
        schemars::generate::SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>()
    }
}

/// The most that a thread keeps of what it wrote JSON into.
const SCRATCH_BYTES_MAX: usize = 64 * 1024;

thread_local! {
    /// JSON is written here and copied to where it just fits: cheaper than to grow and to trim.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// What is written, in as much memory as it takes.
pub(crate) fn json_of(
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), ContractError>,
) -> Result<Bytes, ContractError> {
    let mut scratch = SCRATCH.take();
    scratch.clear();
    write(&mut scratch)?;
    let bytes = Bytes::copy_from_slice(&scratch);
    if scratch.capacity() <= SCRATCH_BYTES_MAX {
        SCRATCH.set(scratch);
    }
    Ok(bytes)
}

/// A value cannot be written as JSON that gives it back, or JSON is not this value.
#[derive(Debug)]
pub struct ContractError(Box<Kind>);

#[derive(Debug)]
enum Kind {
    NotDecodable(serde_json::Error),
    NotEncodable { type_name: &'static str, field: String, what: String },
    Lost { type_name: &'static str, what: String },
    TooLarge { type_name: &'static str, bytes: usize, bytes_max: usize },
}

impl ContractError {
    pub(crate) fn not_encodable<T>(field: &str, what: &str) -> Self {
        let type_name = std::any::type_name::<T>();
        Self(Box::new(Kind::NotEncodable { type_name, field: field.to_owned(), what: what.to_owned() }))
    }

    pub(crate) fn lost<T>(what: String) -> Self {
        Self(Box::new(Kind::Lost { type_name: std::any::type_name::<T>(), what }))
    }

    pub(crate) fn too_large<T>(bytes: usize, bytes_max: usize) -> Self {
        Self(Box::new(Kind::TooLarge { type_name: std::any::type_name::<T>(), bytes, bytes_max }))
    }

    /// Whether the value is larger than its bound.
    pub fn is_too_large(&self) -> bool {
        matches!(*self.0, Kind::TooLarge { .. })
    }
}

impl fmt::Display for ContractError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            Kind::NotDecodable(_) => f.write_str("not the JSON of this type"),
            Kind::NotEncodable { type_name, field, what } if field.is_empty() => {
                write!(f, "a value of `{type_name}` cannot be encoded: {what}")
            }
            Kind::NotEncodable { type_name, field, what } => {
                write!(f, "a value of `{type_name}` cannot be encoded: `{field}`: {what}")
            }
            Kind::Lost { type_name, what } => {
                write!(f, "a value of `{type_name}` is not read back from its own JSON: {what}")
            }
            Kind::TooLarge { type_name, bytes, bytes_max } => {
                write!(
                    f,
                    "a value of `{type_name}` has {bytes} bytes as JSON, at most {bytes_max} are allowed"
                )
            }
        }
    }
}

impl std::error::Error for ContractError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &*self.0 {
            Kind::NotDecodable(source) => Some(source),
            _ => None,
        }
    }
}

impl From<serde_json::Error> for ContractError {
    fn from(error: serde_json::Error) -> Self {
        Self(Box::new(Kind::NotDecodable(error)))
    }
}

/// Something one service asks of another, and the answer it gets.
///
/// The type is the contract: it gives the address, the validation, the schema and the typed call.
///
/// ```
/// use purista_core::address::ServiceId;
/// use purista_core::contract::Command;
/// use purista_core::route::Route;
/// # use garde::Validate; use schemars::JsonSchema; use serde::{Deserialize, Serialize};
///
/// const USER: ServiceId = ServiceId::new("User", "1");
///
/// #[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Validate)]
/// #[serde(rename_all = "camelCase")]
/// pub struct RenameUser {
///     #[garde(length(min = 1, max = 64))]
///     user_id: String,
///     #[garde(length(min = 1, max = 80))]
///     name: String,
/// }
///
/// impl Command for RenameUser {
///     const SERVICE: ServiceId = USER;
///     const NAME: &'static str = "renameUser";
///     const PARAMETERS: &'static [&'static str] = &["userId"];
///     const HTTP: Option<Route> = Some(Route::patch("users/{userId}").public());
///     type Output = ();
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a command",
    label = "the handler's second argument must be a command",
    note = "write `impl Command for {Self} {{ const SERVICE: ServiceId = ..; const NAME: &'static str = \"..\"; type Output = ..; }}`"
)]
pub trait Command: Contract {
    /// The service that answers it.
    const SERVICE: ServiceId;
    /// Its name in that service: a letter, then letters, digits, `-` and `_`.
    const NAME: &'static str;
    /// The fields (by their JSON names) that travel as PURISTA's separate `parameter` object; over HTTP they are values
    /// of the path or the query.
    const PARAMETERS: &'static [&'static str] = &[];
    /// Where HTTP finds it; `None` keeps it inside.
    const HTTP: Option<Route> = None;
    /// One sentence for people, shown in OpenAPI.
    const SUMMARY: &'static str = "";
    /// The errors that it answers with on purpose, as status and meaning; shown in OpenAPI.
    const ERRORS: &'static [(u16, &'static str)] = &[];
    /// What it answers with.
    type Output: Contract;

    #[doc(hidden)]
    const ADDRESS: &'static AddressParts = &AddressParts::known(Self::SERVICE, Self::NAME);
}
