//! How the end of a host is told.

/// What a stop left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DrainReport {
    /// Whether everything under way was finished in time.
    pub is_complete: bool,
    /// What was not; recorded events among it are delivered after the next start.
    pub unfinished: Vec<&'static str>,
}

/// A host did not run to an orderly end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The process cannot listen to signals.
    #[error("the process cannot listen to signals")]
    Signals(#[source] std::io::Error),
    /// The drain time-out passed.
    #[error("the host stopped before everything was finished: {}", .0.unfinished.join(", "))]
    Unfinished(DrainReport),
    /// A second signal came while the host drained.
    #[error("a second signal stopped the host at once")]
    SecondSignal,
}
