//! Events that were decided, checked and encoded, and not yet recorded.

use std::error::Error;
use std::fmt;

use bytes::Bytes;

use crate::address::name_is_valid;
use crate::bounds::BoundError;
use crate::contract::ContractError;
use crate::event::{Event, TAGS_MAX, Tags};
use crate::fault::Fault;
use crate::outline::UnencodedBounds;
use crate::payload::EVENT_BYTES_MAX;

/// The events of one decision, in order: each keeps the rules of its type and the bounds of an event.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Recording {
    events: Vec<CheckedEvent>,
}

/// An event whose rules and bounds were checked, as it will be stored.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckedEvent {
    /// Its type.
    pub name: &'static str,
    /// The version of its form.
    pub version: u32,
    /// By what it is found.
    pub tags: Tags,
    /// Its content, JSON.
    pub body: Bytes,
    /// Whether a host with a store records it, see [`Event::RECORDED`].
    pub is_recorded: bool,
}

impl Recording {
    /// Adds an event, unless it breaks a rule or a bound.
    pub fn push<E: Event>(&mut self, event: &E) -> Result<(), RecordError> {
        self.events.push(CheckedEvent::of(event)?);
        Ok(())
    }

    /// The events, in order.
    pub fn events(&self) -> &[CheckedEvent] {
        &self.events
    }

    /// The events, in order.
    pub fn into_events(self) -> Vec<CheckedEvent> {
        self.events
    }
}

impl CheckedEvent {
    /// Checks an event and encodes it.
    pub fn of<E: Event>(event: &E) -> Result<Self, RecordError> {
        const {
            assert!(
                name_is_valid(E::NAME),
                "an event's name is a letter, then letters, digits, `-` and `_`, at most 128"
            );
        };
        event.check().map_err(|faults| RecordError::broken::<E>(faults))?;
        let body = event.encode().map_err(|source| RecordError::not_encodable::<E>(source))?;
        let tags = event.tags();
        RecordError::check_bounds(E::NAME, body.len(), &tags)?;
        Ok(Self { name: E::NAME, version: E::VERSION, tags, body, is_recorded: E::RECORDED })
    }
}

/// An event cannot be recorded as it is.
#[derive(Debug)]
pub struct RecordError {
    event: &'static str,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    BreaksRules(Vec<Fault>),
    NotEncodable(ContractError),
    TooLarge(usize),
    TooManyTags(usize),
    TagTooLong(BoundError),
    NotCarried { bytes: usize, most: usize, bridge: &'static str },
}

impl RecordError {
    /// Its message would be larger than this bridge carries now.
    pub fn not_carried(event: &'static str, bytes: usize, most: usize, bridge: &'static str) -> Self {
        Self { event, kind: Kind::NotCarried { bytes, most, bridge } }
    }

    /// It breaks the rules of its type.
    pub fn broken<E: Event>(faults: Vec<Fault>) -> Self {
        Self { event: E::NAME, kind: Kind::BreaksRules(faults) }
    }

    /// It cannot be written as JSON.
    pub fn not_encodable<E: Event>(source: ContractError) -> Self {
        Self { event: E::NAME, kind: Kind::NotEncodable(source) }
    }

    /// Refuses an event that no broker would carry: larger than [`EVENT_BYTES_MAX`], or with what JSON cannot say. It is not
    /// encoded for that, unless it may be too large.
    ///
    /// # Errors
    ///
    /// Returns the reason, with the field as its source.
    pub fn check_unencoded<E: Event>(event: &E) -> Result<(), Self> {
        UnencodedBounds::new::<E>(EVENT_BYTES_MAX).check(event).map_err(Self::not_encodable::<E>)
    }

    /// Rejects an event that is larger than [`EVENT_BYTES_MAX`], has more than [`TAGS_MAX`] tags, or one that is longer than
    /// [`TAG_BYTES_MAX`](crate::bounds::TAG_BYTES_MAX).
    ///
    /// # Errors
    ///
    /// Returns the first bound that is exceeded. A tag that is too long is 400 as the error of a handler.
    pub fn check_bounds(event: &'static str, bytes: usize, tags: &Tags) -> Result<(), Self> {
        if bytes > EVENT_BYTES_MAX {
            return Err(Self { event, kind: Kind::TooLarge(bytes) });
        }
        if tags.len() > TAGS_MAX {
            return Err(Self { event, kind: Kind::TooManyTags(tags.len()) });
        }
        BoundError::check_tags(tags).map_err(|bound| Self { event, kind: Kind::TagTooLong(bound) })
    }
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let event = self.event;
        match &self.kind {
            Kind::BreaksRules(faults) => {
                write!(f, "the event {event} breaks its own rules")?;
                faults.iter().try_for_each(|fault| write!(f, "; {fault}"))
            }
            Kind::NotEncodable(_) => write!(f, "the event {event} cannot be encoded"),
            Kind::TooLarge(bytes) => {
                write!(f, "the event {event} has {bytes} bytes, at most {EVENT_BYTES_MAX} are allowed")
            }
            Kind::NotCarried { bytes, most, bridge } => write!(
                f,
                "the event {event} has {bytes} bytes, and the {bridge} bridge carries messages of at most {most} bytes; make \
                 the event smaller, or raise the broker's limit"
            ),
            Kind::TooManyTags(tags) => {
                write!(f, "the event {event} bears {tags} tags, at most {TAGS_MAX} are allowed")
            }
            Kind::TagTooLong(bound) => write!(f, "the event {event} cannot be recorded: {bound}"),
        }
    }
}

impl Error for RecordError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.kind {
            Kind::NotEncodable(source) => Some(source),
            Kind::TagTooLong(bound) => Some(bound),
            _ => None,
        }
    }
}
