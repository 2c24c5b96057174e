//! What the operating system asks of a host.

use super::drain::RunError;

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
