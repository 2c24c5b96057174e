//! What can be found at one place: a command, a page, a document, the host's health.

use std::sync::Arc;

use bytes::Bytes;
use hyper::header::HeaderValue;

use crate::endpoint::Endpoint;

/// What is found at one place by one method.
#[derive(Debug, Clone)]
pub(crate) enum Served {
    Command(Arc<Endpoint>),
    Page(Arc<Page>),
    /// The OpenAPI document.
    Document(Bytes),
    /// Whether the process shall live on.
    Alive,
    /// Whether it takes work.
    Ready,
    /// How far those who follow the log are behind.
    Metrics,
}

impl Served {
    /// How it is called in errors.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Command(endpoint) => endpoint.address.to_string(),
            Self::Page(_) => "a page".to_owned(),
            Self::Document(_) => "the OpenAPI document".to_owned(),
            Self::Metrics => "the metrics".to_owned(),
            Self::Alive | Self::Ready => "the health of the host".to_owned(),
        }
    }
}

/// Something that does not change.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) media_type: HeaderValue,
    pub(crate) policy: HeaderValue,
    pub(crate) body: Bytes,
}
