//! The way to the collector.

use std::sync::Arc;

use hyper::Uri;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanExporter as _;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::Traces;
use super::client::Client;
use crate::error::InitError;

/// What sends spans over HTTP.
pub(super) fn exporter(traces: &Traces, resource: &Resource) -> Result<SpanExporter, InitError> {
    let refused = "cannot be used: is it a URL as http://localhost:4318?";
    let endpoint: Uri = traces
        .endpoint
        .parse()
        .map_err(|error| InitError::traces(super::ENDPOINT_VARIABLE, refused).with_source(error))?;
    let client = Client::new(tls(traces)?, &endpoint);
    let mut exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(&traces.endpoint)
        .with_headers(traces.headers.clone())
        .with_timeout(traces.timeout)
        .build()
        .map_err(|_| InitError::traces(super::ENDPOINT_VARIABLE, refused))?;
    exporter.set_resource(resource);
    Ok(exporter)
}

/// TLS with a provider of its own, so that none has to be set for the process. It trusts the certificates of the machine, and
/// those that the environment names.
fn tls(traces: &Traces) -> Result<ClientConfig, InitError> {
    let variable = super::settings::CERTIFICATE;
    let mut trusted = RootCertStore::empty();
    trusted.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(pem) = &traces.certificates {
        let refused = || {
            InitError::traces(
                variable,
                "names a file that holds no certificates: write the path of a PEM file",
            )
        };
        let certificates = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| refused().with_source(error))?;
        let (added, ignored) = trusted.add_parsable_certificates(certificates);
        if added == 0 || ignored > 0 {
            return Err(refused());
        }
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| {
            InitError::traces(super::ENDPOINT_VARIABLE, "cannot be reached over TLS").with_source(error)
        })?;
    Ok(config.with_root_certificates(trusted).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_certificates_is_refused_by_the_name_of_its_variable() {
        let endpoint =
            |name: &str| (name == "OTEL_EXPORTER_OTLP_ENDPOINT").then(|| "https://localhost".to_owned());
        let mut traces = super::super::settings::read(endpoint).unwrap().unwrap();
        assert!(tls(&traces).is_ok());
        for pem in [&b""[..], b"no PEM", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            traces.certificates = Some(pem.to_vec());
            let text = tls(&traces).unwrap_err().to_string();
            assert!(text.starts_with("OTEL_EXPORTER_OTLP_CERTIFICATE"), "{text}");
        }
    }
}
