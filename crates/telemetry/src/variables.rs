//! Names of the environment's variables that errors name, too.

/// The variable that says what is logged, as in `RUST_LOG=info,purista=debug`.
pub const FILTER_VARIABLE: &str = "RUST_LOG";
/// The variable that says in which form: `text` or `json`.
pub const FORMAT_VARIABLE: &str = "PURISTA_LOG_FORMAT";
