//! The way to the collector.

use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanExporter as _;
use tokio_rustls::rustls::crypto::ring;

use super::Traces;
use crate::error::InitError;

/// What sends spans over HTTP.
pub(super) fn exporter(traces: &Traces, resource: &Resource) -> Result<SpanExporter, InitError> {
    // The client of HTTP asks for the process's own; whoever has set one already keeps it.
    let _ = ring::default_provider().install_default();
    let mut client =
        reqwest::Client::builder().timeout(traces.timeout).redirect(reqwest::redirect::Policy::none());
    if let Some(pem) = &traces.certificates {
        let variable = super::settings::CERTIFICATE;
        let certificates = reqwest::Certificate::from_pem_bundle(pem).map_err(|error| {
            InitError::traces(
                variable,
                "names a file that holds no certificates: write the path of a PEM file",
            )
            .with_source(error)
        })?;
        client = client.tls_certs_merge(certificates);
    }
    let refused = "cannot be used: is it a URL as http://localhost:4318?";
    let client = client.build().map_err(|error| {
        InitError::traces(super::ENDPOINT_VARIABLE, refused).with_source(error.without_url())
    })?;
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
