//! stub
use purista_core::catalogue::CommandEntry;
use serde_json::{Value, json};

use crate::authenticator::SecurityScheme;

pub(crate) struct Title<'a> {
    pub(crate) title: &'a str,
    pub(crate) version: &'a str,
}

pub(crate) fn document<'a>(
    title: &Title<'_>,
    _routed: impl Iterator<Item = (&'a CommandEntry, String)>,
    _described: impl Iterator<Item = (&'static str, &'static str)>,
    _scheme: Option<&SecurityScheme>,
) -> Value {
    json!({"openapi": "3.1.0", "info": {"title": title.title, "version": title.version}, "paths": {}})
}
