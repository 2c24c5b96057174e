//! Events as a fold needs them: what happened, and where in the log; not when, nor why, nor on whose behalf.

use std::fmt;

use purista_core::event::Tags;
use purista_core::text::Text;

use crate::position::Position;
use crate::recorded::Recorded;

/// How many events a page of occurrences has at most.
pub const OCCURRENCES_MAX: usize = 2_048;

/// From how many bytes on a page of occurrences takes no more.
pub const OCCURRENCE_BYTES_MAX: usize = 512 * 1024;

/// An event as it lies in a page, for who reads it and lets go of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Occurrence<'p> {
    /// Its place in the whole log.
    pub position: Position,
    /// Its type.
    pub name: &'p str,
    /// The version of its form.
    pub version: u32,
    /// By what it is found, as a JSON list of pairs; empty where nobody asked for it.
    pub tags: &'p [u8],
    /// Its content, JSON.
    pub body: &'p [u8],
}

/// A page of occurrences, in one piece of memory: reading it allocates nothing an event. Emptied, it is filled again.
#[derive(Default)]
pub struct Occurrences {
    /// Tags and body of each, end to end.
    bytes: Vec<u8>,
    names: Vec<Text>,
    places: Vec<Place>,
}

/// Where an event lies in the page.
#[derive(Clone, Copy)]
struct Place {
    position: Position,
    /// Which of the names.
    name: usize,
    version: u32,
    /// Where its tags end in the bytes, and where its body does.
    ends: [usize; 2],
}

impl Occurrences {
    /// An event more, which comes behind those that are there.
    pub fn push(&mut self, event: Occurrence<'_>) {
        if self.places.capacity() == 0 {
            // Most views fit in it, and growing from nothing copies several times.
            self.places.reserve(128);
            self.bytes.reserve(16 * 1024);
        }
        let is_same = |known: &Text| known.as_str() == event.name;
        // Nearly always it is the name of the one before.
        let before = self.places.last().map(|place| place.name);
        let known = before.filter(|name| self.names.get(*name).is_some_and(is_same));
        let name = known.or_else(|| self.names.iter().position(is_same)).unwrap_or_else(|| {
            self.names.push(Text::from(event.name));
            self.names.len() - 1
        });
        self.bytes.extend_from_slice(event.tags);
        let tags = self.bytes.len();
        self.bytes.extend_from_slice(event.body);
        let ends = [tags, self.bytes.len()];
        self.places.push(Place { position: event.position, name, version: event.version, ends });
    }

    /// An event with all that is known of it, as far as a fold needs it.
    pub fn push_recorded(&mut self, event: &Recorded) {
        let tags: Vec<(&str, &str)> = event.tags.iter().collect();
        let Recorded { position, name, version, body, .. } = event;
        // A list of texts is JSON.
        let tags = serde_json::to_vec(&tags).unwrap_or_default();
        self.push(Occurrence { position: *position, name, version: *version, tags: &tags, body });
    }

    /// Whether it has room for no more.
    pub fn is_full(&self) -> bool {
        self.places.len() >= OCCURRENCES_MAX || self.bytes.len() >= OCCURRENCE_BYTES_MAX
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Where the last one lies.
    pub fn last(&self) -> Option<Position> {
        self.places.last().map(|place| place.position)
    }

    /// Lets go of the events and keeps their memory; not that of a body far beyond the others.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(2 * OCCURRENCE_BYTES_MAX);
        self.places.clear();
        self.names.clear();
    }

    /// The events, in order.
    pub fn iter(&self) -> impl Iterator<Item = Occurrence<'_>> {
        let mut begin = 0;
        self.places.iter().map(move |place| {
            let [tags, body] = place.ends;
            let part = |from: usize, to: usize| self.bytes.get(from..to).unwrap_or_default();
            let event = Occurrence {
                position: place.position,
                name: self.names.get(place.name).map_or("", Text::as_str),
                version: place.version,
                tags: part(begin, tags),
                body: part(tags, body),
            };
            begin = body;
            event
        })
    }
}

impl Occurrence<'_> {
    /// Its tags, taken apart when somebody asks for them.
    pub fn tags(&self) -> Tags {
        Tags::stored(self.tags.to_vec().into())
    }
}

impl fmt::Debug for Occurrences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl FromIterator<Recorded> for Occurrences {
    fn from_iter<I: IntoIterator<Item = Recorded>>(events: I) -> Self {
        let mut page = Self::default();
        events.into_iter().for_each(|event| page.push_recorded(&event));
        page
    }
}

/// A page of what is followed, as a fold needs it.
#[derive(Debug, Default)]
pub struct OccurrencePage {
    /// The events, in order.
    pub events: Occurrences,
    /// Everything up to here was looked at: the next page begins after it.
    pub looked_up_to: Position,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{joined, left, recorded};

    #[test]
    fn a_page_gives_what_was_put_in_and_is_filled_again() {
        let mut page = Occurrences::default();
        for _ in 0..2 {
            assert!(page.is_empty() && page.last().is_none());
            page.push_recorded(&recorded(3, &joined("ada")));
            page.push_recorded(&recorded(5, &left("bob")));
            page.push_recorded(&recorded(6, &joined("eve")));
            let found: Vec<_> = page.iter().collect();
            assert_eq!(found.len(), page.len());
            assert_eq!(found[1].name, "left");
            assert_eq!((found[2].name, found[2].version, found[2].position), ("joined", 1, Position::new(6)));
            assert_eq!(found[2].body, br#"{"user":"eve"}"#);
            assert_eq!(found[0].tags(), Tags::new().with("user", "ada"));
            assert_eq!(page.last(), Some(Position::new(6)));
            page.clear();
        }
    }

    #[test]
    fn a_page_is_full_by_number_and_by_size() {
        let mut page = Occurrences::default();
        let event = |body| Occurrence { position: Position::new(1), name: "e", version: 1, tags: b"", body };
        (1..OCCURRENCES_MAX).for_each(|_| page.push(event(b"{}")));
        assert!(!page.is_full());
        page.push(event(b"{}"));
        assert!(page.is_full());
        page.clear();
        page.push(event(&vec![b' '; OCCURRENCE_BYTES_MAX]));
        assert!(page.is_full());
    }
}
