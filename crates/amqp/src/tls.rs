//! TLS by rustls: the broker's certificate and name are always checked.

use std::error::Error;
use std::path::{Path, PathBuf};

use lapin::tcp::{RustlsConnector, RustlsConnectorConfig};
use purista_core::bridge::BridgeError;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::error::rejected;

/// Whom to trust, and how to name oneself.
#[derive(Debug, Clone, Default)]
pub(crate) struct Files {
    /// The roots to trust instead of the machine's.
    pub(crate) roots: Option<PathBuf>,
    /// This process's certificate with those that vouch for it, and its key.
    pub(crate) identity: Option<(PathBuf, PathBuf)>,
}

impl Files {
    pub(crate) fn connector(&self) -> Result<RustlsConnector, BridgeError> {
        let failed = |error| rejected("TLS cannot be set up").with_source(error);
        let config = match &self.roots {
            Some(path) => RustlsConnectorConfig::default().with_parsable_certificates(certificates(path)?),
            None => RustlsConnectorConfig::new_with_native_certs().map_err(failed)?,
        };
        match &self.identity {
            None => config.connector_with_no_client_auth().map_err(failed),
            Some((certificate, key)) => {
                let read =
                    PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable("key", key, error))?;
                config.connector_with_single_cert(certificates(certificate)?, read).map_err(failed)
            }
        }
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, BridgeError> {
    let unreadable = |error| unreadable("certificates", path, error);
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(unreadable)?.collect();
    let found = found.map_err(unreadable)?;
    if found.is_empty() {
        return Err(rejected(format!("there are no certificates in {}", path.display())));
    }
    Ok(found)
}

fn unreadable(what: &str, path: &Path, error: impl Error + Send + Sync + 'static) -> BridgeError {
    rejected(format!("no {what} can be read from {}", path.display())).with_source(error)
}
