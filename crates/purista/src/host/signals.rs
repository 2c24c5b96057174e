//! What the operating system asks of a host.

use super::running::DrainReport;

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

#[cfg(unix)]
pub(super) async fn until_signal() -> Result<(), RunError> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Signals)?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

#[cfg(not(unix))]
pub(super) async fn until_signal() -> Result<(), RunError> {
    tokio::signal::ctrl_c().await.map_err(RunError::Signals)
}
