//! What a fold takes of an event: its content, or all that is recorded of it.

use purista_core::contract::ContractError;
use purista_core::event::Event;

use crate::occurrence::Occurrence;
use crate::recorded::Recorded;
use crate::upcast::{EventForm, UnreadableEvent, Upcasters};

/// What a fold takes of an event: its content `E`, or the whole [`Recorded<E>`] with time, tenant and cause. Where all folds of
/// a value take the content, no more than that is read from the log, which is several times as fast.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is nothing that a fold takes",
    label = "neither an event, nor a `Recorded<..>` of one"
)]
pub trait Taken: Sized + 'static {
    /// The event.
    type Event: Event;
    /// From all that is recorded.
    fn of(event: Recorded<Self::Event>) -> Self;
    /// A fold that is content with the content; `None` for one that is not.
    #[doc(hidden)]
    fn by_content<S: 'static>(fold: impl Fn(&mut S, Self) + Send + Sync + 'static) -> Option<ContentFold<S>>;
}

impl<E: Event> Taken for E {
    type Event = E;

    fn of(event: Recorded<E>) -> Self {
        event.body
    }

    fn by_content<S: 'static>(fold: impl Fn(&mut S, E) + Send + Sync + 'static) -> Option<ContentFold<S>> {
        Some(ContentFold {
            form: EventForm::of::<E>(),
            check: |json| E::decode(json).map(drop),
            apply: Box::new(move |state, json| {
                fold(state, E::decode(json)?);
                Ok(())
            }),
        })
    }
}

impl<E: Event> Taken for Recorded<E> {
    type Event = E;

    fn of(event: Self) -> Self {
        event
    }

    fn by_content<S: 'static>(_: impl Fn(&mut S, Self) + Send + Sync + 'static) -> Option<ContentFold<S>> {
        None
    }
}

type Apply<S> = dyn Fn(&mut S, &[u8]) -> Result<(), ContractError> + Send + Sync;

/// What the content of one type of event does to a value.
#[doc(hidden)]
pub struct ContentFold<S> {
    pub(super) form: EventForm,
    check: fn(&[u8]) -> Result<(), ContractError>,
    apply: Box<Apply<S>>,
}

impl<S> std::fmt::Debug for ContentFold<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ContentFold").field(&self.form).finish()
    }
}

/// Takes an event into a value, as it is stored or as what it has become; all of it or nothing.
pub(super) fn take_in<S>(
    folds: &[ContentFold<S>],
    value: &mut S,
    event: &Occurrence<'_>,
    upcasters: &Upcasters,
) -> Result<(), UnreadableEvent> {
    let fold = |name: &str| folds.iter().find(|fold| fold.form.name.as_str() == name);
    let unreadable = |form, error| UnreadableEvent::of_occurrence(event, form, error);
    if let Some(fold) = fold(event.name)
        && fold.form.version == event.version
    {
        return (fold.apply)(value, event.body).map_err(|error| unreadable(fold.form.clone(), error));
    }
    let wanted = |name: &str| fold(name).map(|fold| fold.form.version);
    let mut parts = Vec::new();
    upcasters.read_occurrence(event, wanted, |name, _, body| {
        let Some(fold) = fold(name) else { return Ok(()) };
        (fold.check)(body).map_err(|error| unreadable(fold.form.clone(), error))?;
        parts.push((fold, body.to_vec()));
        Ok::<_, UnreadableEvent>(())
    })?;
    parts.into_iter().try_for_each(|(fold, body)| {
        (fold.apply)(value, &body).map_err(|error| unreadable(fold.form.clone(), error))
    })
}
