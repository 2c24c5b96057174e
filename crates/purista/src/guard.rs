//! Named checks before and after a handler, run side by side.

use std::sync::Arc;

use futures_util::future::{BoxFuture, try_join_all};
use purista_core::error::HandlerError;
use tracing::Instrument;

use crate::context::Context;

type Check<S, T> =
    Arc<dyn Fn(Context<S>, Arc<T>) -> BoxFuture<'static, Result<(), HandlerError>> + Send + Sync>;

/// One named check of a value.
pub(crate) struct Guard<S, T> {
    /// The name of its span, as PURISTA's `beforeGuardHook.isAdmin`.
    span: String,
    check: Check<S, T>,
}

impl<S, T> Guard<S, T> {
    /// A check before a handler.
    pub(crate) fn before<F, Fut>(name: &str, check: F) -> Self
    where
        F: Fn(Context<S>, Arc<T>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        Self::new(format!("beforeGuardHook.{name}"), check)
    }

    /// A check after a handler.
    pub(crate) fn after<F, Fut>(name: &str, check: F) -> Self
    where
        F: Fn(Context<S>, Arc<T>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        Self::new(format!("afterGuardHook.{name}"), check)
    }

    fn new<F, Fut>(span: String, check: F) -> Self
    where
        F: Fn(Context<S>, Arc<T>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        Self { span, check: Arc::new(move |context, value| Box::pin(check(context, value))) }
    }
}

/// Runs all guards at once; the first that refuses decides, and the others are dropped. Without guards the value is handed
/// through untouched.
pub(crate) async fn pass<S, T: Clone>(
    guards: &[Guard<S, T>],
    context: &Context<S>,
    value: T,
) -> Result<T, HandlerError> {
    if guards.is_empty() {
        return Ok(value);
    }
    let shared = Arc::new(value);
    let checks = guards.iter().map(|guard| {
        let span = tracing::debug_span!("guardHook", otel.name = guard.span);
        (guard.check)(context.clone(), Arc::clone(&shared)).instrument(span)
    });
    try_join_all(checks).await?;
    Ok(Arc::try_unwrap(shared).unwrap_or_else(|shared| T::clone(&shared)))
}
