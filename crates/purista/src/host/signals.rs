//! What the operating system asks of a host.

use super::drain::RunError;

/// SIGTERM and Ctrl-C, heard from when it is made: no signal is missed between two waits.
pub(super) struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    pub(super) fn listen() -> Result<Self, RunError> {
        use tokio::signal::unix::{SignalKind, signal};
        let listen = |kind| signal(kind).map_err(RunError::Signals);
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    pub(super) async fn next(&mut self) -> Result<(), RunError> {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
        Ok(())
    }
}

#[cfg(not(unix))]
impl Signals {
    pub(super) fn listen() -> Result<Self, RunError> {
        Ok(Self {})
    }

    pub(super) async fn next(&mut self) -> Result<(), RunError> {
        tokio::signal::ctrl_c().await.map_err(RunError::Signals)
    }
}
