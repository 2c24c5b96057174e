//! What may travel in a message, and what a command is.

use std::cell::Cell;

use bytes::Bytes;
use garde::Validate;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::address::{AddressParts, ServiceId};
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
    /// The value as JSON.
    fn encode(&self) -> Result<Bytes, ContractError> {
        json_of(|json| self.write_into(json))
    }
    /// Appends the value as JSON to what is there; an error may leave a part of it.
    fn write_into(&self, json: &mut Vec<u8>) -> Result<(), ContractError>;
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
        Ok(serde_json::to_writer(json, self)?)
    }

    fn decode(json: &[u8]) -> Result<Self, ContractError> {
        serde_json::from_slice(json).map_err(ContractError)
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

/// A value could not be written as JSON, or JSON is not this value.
#[derive(Debug, thiserror::Error)]
#[error("not the JSON of this type")]
pub struct ContractError(#[source] serde_json::Error);

impl From<serde_json::Error> for ContractError {
    fn from(error: serde_json::Error) -> Self {
        Self(error)
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
