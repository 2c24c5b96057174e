//! TLS by rustls: the broker's certificate and name are always checked.

use std::path::Path;
use std::sync::Arc;

use purista_core::bridge::BridgeError;
use rumqttc::tokio_rustls::rustls::crypto::ring;
use rumqttc::tokio_rustls::rustls::pki_types::pem::PemObject as _;
use rumqttc::tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rumqttc::tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::link::rejected;

/// Trusts the certificates in the PEM file `roots`, or those of the machine; shows the certificate and key of `identity`
/// where the broker asks who we are. Errors name files, never what is in them.
pub(crate) fn config(
    roots: Option<&Path>,
    identity: Option<(&Path, &Path)>,
) -> Result<Arc<ClientConfig>, BridgeError> {
    let mut trusted = RootCertStore::empty();
    if let Some(path) = roots {
        for certificate in certificates(path)? {
            trusted.add(certificate).map_err(|error| unreadable(path, error))?;
        }
        if trusted.is_empty() {
            return Err(rejected(format!("no certificate is in {}", path.display())));
        }
    } else {
        // What the machine has and cannot be read is left out: a broker that needs it is refused, which says so.
        trusted.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    let failed = |error| rejected("TLS cannot be set up").with_source(error);
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .with_root_certificates(trusted);
    let config = match identity {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = certificates(certificate)?;
            let key = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, error))?;
            config.with_client_auth_cert(chain, key).map_err(failed)?
        }
    };
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, BridgeError> {
    let found = CertificateDer::pem_file_iter(path).map_err(|error| unreadable(path, error))?;
    found.collect::<Result<_, _>>().map_err(|error| unreadable(path, error))
}

fn unreadable(path: &Path, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> BridgeError {
    rejected(format!("{} cannot be read", path.display())).with_source(error)
}
