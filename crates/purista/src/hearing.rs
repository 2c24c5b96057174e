//! One attempt of a subscription, without its types: what is given a message, and what it came to.

use purista_core::bridge::Carried;
use purista_core::error::HandlerError;
use tracing::Span;

use crate::listening::Terms;
use crate::observation::Ending;
use crate::unit_of_work::Changes;

/// Hears messages, each in an attempt of its own.
pub(crate) trait Hears: Send + Sync + 'static {
    fn terms(&self) -> &Terms;

    /// Runs the handler once. Nothing is committed yet; `begun` is what was changed before for the same delivery.
    fn hear(
        &self,
        message: Carried,
        attempt: u32,
        begun: Option<Box<Changes>>,
    ) -> impl Future<Output = Heard> + Send;
}

/// What one attempt came to.
pub(crate) struct Heard {
    pub(crate) message: Carried,
    /// What the handler did, when it succeeded; it may be nothing to commit.
    pub(crate) result: Result<Option<Box<Changes>>, HandlerError>,
    /// In which it was handled, and its commit is, too; none where no traces are sent.
    pub(crate) span: Span,
    report: Option<Box<dyn FnOnce(Ending) + Send + Sync>>,
}

impl Heard {
    /// An attempt that nobody watches.
    pub(crate) fn of(message: Carried, result: Result<Option<Box<Changes>>, HandlerError>) -> Self {
        Self { message, result, span: Span::none(), report: None }
    }

    /// How it is settled is told to an observer.
    pub(crate) fn reported_to(self, report: Box<dyn FnOnce(Ending) + Send + Sync>) -> Self {
        Self { report: Some(report), ..self }
    }

    /// A message that no handler can be given.
    pub(crate) fn unreadable(message: Carried) -> Self {
        Self::of(message, Ok(None))
    }

    /// Tells the observer how it was settled.
    pub(crate) fn settled(&mut self, ending: Ending) {
        if let Some(report) = self.report.take() {
            report(ending);
        }
    }
}
