//! Why logs or traces cannot begin.

use std::error::Error;
use std::io;

use tracing_subscriber::filter::ParseError;

use crate::variables::{FILTER_VARIABLE, FORMAT_VARIABLE};

/// Logs or traces cannot flow as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InitError {
    /// The filter has another form.
    #[error("`{text}` is no filter of logs: write {FILTER_VARIABLE} as `info` or `info,purista=debug`")]
    NoFilter {
        /// What it was.
        text: String,
        /// What is wrong with it.
        #[source]
        source: ParseError,
    },
    /// There is no such form of lines.
    #[error("`{0}` is no format of logs: {FORMAT_VARIABLE} is `text` or `json`")]
    UnknownFormat(String),
    /// The program has a subscriber of `tracing` already.
    #[error("logs are set up twice")]
    Twice,
    /// No thread could be started.
    #[error("the thread that writes logs, or the one that sends spans, cannot be started")]
    Thread(#[source] io::Error),
    /// A variable that says where traces go, or which, cannot be understood. It does not show a value that may be a secret.
    #[error("{variable} {problem}")]
    Traces {
        /// The variable.
        variable: &'static str,
        /// What is wrong, and what to write instead.
        problem: String,
        /// What is behind it.
        #[source]
        source: Option<Box<dyn Error + Send + Sync>>,
    },
}

impl InitError {
    pub(crate) fn traces(variable: &'static str, problem: impl Into<String>) -> Self {
        Self::Traces { variable, problem: problem.into(), source: None }
    }

    pub(crate) fn with_source(self, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        match self {
            Self::Traces { variable, problem, .. } => {
                Self::Traces { variable, problem, source: Some(cause.into()) }
            }
            other => other,
        }
    }
}
