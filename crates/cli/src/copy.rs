//! `purista store copy`: the log of a file and everything that is kept beside it, moved into a database.
//!
//! Events come in pieces and stay when the copy is interrupted; the rest comes at once. Then both sides are read and compared, and
//! only when they are equal the database can be used.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::future::{join, try_join};
use purista_events::kept::{Kept, Part};
use purista_events::position::Position;
use purista_events::query::Query;
use purista_events::read_models::ReadModels as _;
use purista_events::recorded::Recorded;
use purista_events::store::{Direction, EventStore as _, PAGE_MAX, StoreError, StoreErrorKind};
use purista_postgres::copying::CopyInto;
use purista_sqlite::store::SqliteStore;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::checksum::Checksum;
use crate::opening::{self, Database};
use crate::progress::Line;
use crate::refusal::Refusal;
use crate::screen::{Screen, counted, duration, number};
use crate::table::{Column, Table};

/// How many events are written together at most, and how many bytes of their bodies from which on no more are added.
const PIECE_EVENTS_MAX: usize = 8 * PAGE_MAX;
const PIECE_BYTES: usize = 4 * 1024 * 1024;
/// How many events are read at once while it is not known how large they are.
const FIRST: usize = 64;
/// How many ranges of events are compared, and how many events one has at least.
const RANGES: u64 = 20;
const RANGE_MIN: u64 = 1_000;
/// How many pages of what is kept beside the events are on their way.
const PAGES_MAX: usize = 4;

/// Copies; whether both sides are equal.
pub(crate) async fn run(
    file: &Path,
    database: Option<Database>,
    screen: &mut Screen,
) -> anyhow::Result<bool> {
    let Some(database) = database else {
        let remedy =
            "name an empty database with `--store postgres://user@host/database` or in PURISTA_STORE";
        return Err(Refusal::error("it is not said where to copy to", remedy));
    };
    let what = "copy it: what it records meanwhile would be missing";
    let within = "try it with the file that `purista store backup` makes";
    // Owned to the end, so that no program begins to write in between.
    let source = opening::own_file(file, what, within).await?;
    let began = Instant::now();
    let mut copy = Copy { head: *source.head().borrow(), target: open(&source, &database).await?, source };
    copy.check_fits()?;
    let mut line = Line::new();
    let come = copy.events(&mut line).await?;
    let ranges = copy.compare_events(&mut line).await?;
    line.show("copying and comparing what is kept beside the events", false);
    let parts = copy.rest().await?;
    line.end();
    let compared = Compared { ranges, parts };
    let is_equal = compared.is_equal();
    if is_equal {
        copy.target.finish().await?;
    }
    let anew = projections(&copy.source).await?;
    let told = Told { file, place: copy.target.place(), come, took: began.elapsed(), anew };
    told.print(&compared, &copy, screen)?;
    copy.target.close().await;
    copy.source.close().await?;
    if is_equal {
        return Ok(true);
    }
    screen.flush()?;
    Err(Refusal::error(
        "the database does not hold what the file holds, and is not used",
        format!(
            "look at the file with `purista store check`; then `DROP SCHEMA \"{}\" CASCADE` and copy again",
            database.schema
        ),
    ))
}

async fn open(source: &SqliteStore, database: &Database) -> anyhow::Result<CopyInto> {
    let opened = database.migrating().copy_into(&source.origin()).await;
    opened.map_err(|error| match error.kind() {
        StoreErrorKind::InUse => Refusal::error(error.to_string(), "wait until it has ended"),
        StoreErrorKind::Invalid if error.to_string().starts_with("in the store lies") => Refusal::error(
            error.to_string(),
            format!(
                "name an empty database, or another schema of it with `--schema NAME`; `DROP SCHEMA \"{}\" CASCADE` empties this \
                 one, if nobody needs it",
                database.schema
            ),
        ),
        _ => opening::not_connected(error),
    })
}

struct Copy {
    source: SqliteStore,
    target: CopyInto,
    /// Where the source's log ends.
    head: Position,
}

/// Both sides of one range or part.
struct Sides {
    source: Checksum,
    target: Checksum,
}

struct Compared {
    ranges: Vec<([Position; 2], Sides)>,
    parts: BTreeMap<Part, Sides>,
}

impl Copy {
    fn check_fits(&self) -> anyhow::Result<()> {
        let reached = self.target.reached();
        if self.target.is_finished() {
            return Err(Refusal::error(
                format!(
                    "this log was copied before, up to position {reached}, and the database has gone on since"
                ),
                "use the database; to copy again name an empty one, or another schema with `--schema NAME`",
            ));
        }
        if reached > self.head {
            return Err(Refusal::error(
                format!("the database holds this log up to {reached}, and the file ends at {}", self.head),
                "name the file that the copy was begun with; or empty the database and begin anew",
            ));
        }
        Ok(())
    }

    /// Brings the events that are missing, and returns how many these were. The next piece is read while one is written.
    async fn events(&mut self, line: &mut Line) -> anyhow::Result<u64> {
        let Self { source, target, head } = self;
        let (began, first) = (Instant::now(), target.reached().number());
        let mut come = 0;
        let mut next = piece(source, target.reached(), FIRST).await.map_err(unread)?;
        while let Some(last) = next.last().map(|event| event.position) {
            let piece_read = next;
            let fitting = fitting(&piece_read);
            let (written, read) = join(target.add_events(&piece_read), piece(source, last, fitting)).await;
            written?;
            come += u64::try_from(piece_read.len()).unwrap_or(0);
            next = read.map_err(unread)?;
            let taken = last.number() - first;
            let share = line.share(last.number(), head.number(), (taken, began.elapsed()));
            line.show(&format!("copying events: {share}"), true);
        }
        Ok(come)
    }

    /// Reads all events of both sides again, range by range.
    async fn compare_events(&self, line: &mut Line) -> anyhow::Result<Vec<([Position; 2], Sides)>> {
        let (began, end) = (Instant::now(), self.head.number());
        let size = end.div_ceil(RANGES).max(RANGE_MIN);
        let mut ranges = Vec::new();
        let mut before = Position::START;
        while before < self.head {
            let up_to = Position::new((before.number() + size).min(end));
            let everything = Query::all();
            let of_source =
                async |after, most| self.source.read(&everything, after, Direction::Forwards, most).await;
            let of_target = async |after, most| self.target.events(after, most).await;
            let both = try_join(checksum(of_source, [before, up_to]), checksum(of_target, [before, up_to]));
            let (source, target) = both.await?;
            ranges.push(([before.next(), up_to], Sides { source, target }));
            before = up_to;
            let share = line.share(up_to.number(), end, (up_to.number(), began.elapsed()));
            line.show(&format!("comparing events: {share}"), true);
        }
        Ok(ranges)
    }

    /// Brings what is kept beside the events, and compares it.
    async fn rest(&mut self) -> anyhow::Result<BTreeMap<Part, Sides>> {
        let (pages, coming) = mpsc::channel(PAGES_MAX);
        let (read, written) = join(self.source.kept(pages), self.target.add_kept(coming)).await;
        // Whoever cannot write goes away first, and the reader learns of it.
        written?;
        read.map_err(unread)?;
        let (source, target) =
            try_join(sums(|pages| self.source.kept(pages)), sums(|pages| self.target.kept(pages))).await?;
        let sides = |part: Part| {
            let of = |sums: &BTreeMap<Part, Checksum>| sums.get(&part).copied().unwrap_or_default();
            (part, Sides { source: of(&source), target: of(&target) })
        };
        Ok(Part::ALL.into_iter().map(sides).collect())
    }
}

fn unread(error: StoreError) -> anyhow::Error {
    if error.kind() == StoreErrorKind::Corrupt {
        let remedy = "see `purista store check`, and copy a backup that it finds sound";
        return anyhow::Error::from(error).context(Refusal::new("the file is damaged", remedy));
    }
    error.into()
}

/// How many events to read at once, by the size of those before, so that a piece of large ones has its bound, too.
fn fitting(before: &[Recorded]) -> usize {
    let bytes: usize = before.iter().map(|event| event.body.len()).sum();
    let of_one = bytes / before.len().max(1);
    (PIECE_BYTES / of_one.max(1)).clamp(16, PAGE_MAX)
}

/// The events after a position, as many as are written together.
async fn piece(
    source: &SqliteStore,
    mut after: Position,
    mut at_once: usize,
) -> Result<Vec<Recorded>, StoreError> {
    let (mut events, mut bytes, everything) = (Vec::new(), 0, Query::all());
    while events.len() < PIECE_EVENTS_MAX && bytes < PIECE_BYTES {
        let page = source.read(&everything, after, Direction::Forwards, at_once).await?;
        let Some(last) = page.last() else { break };
        (after, at_once) = (last.position, fitting(&page));
        bytes += page.iter().map(|event| event.body.len()).sum::<usize>();
        events.extend(page);
    }
    Ok(events)
}

/// The checksum of the events behind one position and up to another.
async fn checksum(
    read: impl AsyncFn(Position, usize) -> Result<Vec<Recorded>, StoreError>,
    [mut after, up_to]: [Position; 2],
) -> Result<Checksum, StoreError> {
    let mut sum = Checksum::default();
    let mut at_once = FIRST;
    while after < up_to {
        let page = read(after, at_once).await?;
        let Some(last) = page.last() else { break };
        at_once = fitting(&page);
        after = last.position;
        page.iter().filter(|event| event.position <= up_to).for_each(|event| sum.add_event(event));
    }
    Ok(sum)
}

/// The checksums of what one side keeps beside the events.
async fn sums<F>(
    kept: impl FnOnce(mpsc::Sender<Vec<Kept>>) -> F,
) -> Result<BTreeMap<Part, Checksum>, StoreError>
where
    F: Future<Output = Result<(), StoreError>>,
{
    let (pages, mut coming) = mpsc::channel::<Vec<Kept>>(PAGES_MAX);
    let adding = async {
        let mut sums: BTreeMap<Part, Checksum> = BTreeMap::new();
        while let Some(page) = coming.recv().await {
            for row in &page {
                sums.entry(row.part()).or_default().add_row(row);
            }
        }
        sums
    };
    let (read, sums) = join(kept(pages), adding).await;
    read.map(|()| sums)
}

/// The projections whose read models are tables of the file: they are written in its SQL, and made anew from the events.
async fn projections(source: &SqliteStore) -> anyhow::Result<Vec<String>> {
    let builds = source.builds().await.context("read of projections failed")?;
    let mut names: Vec<String> =
        builds.iter().map(|record| format!("{} {}", record.build.name, record.build.version)).collect();
    names.dedup();
    Ok(names)
}

impl Sides {
    fn is_equal(&self) -> bool {
        self.source == self.target
    }

    fn json(&self) -> Value {
        json!({
            "count": self.source.count,
            "checksum": self.source.to_string(),
            "inDatabase": { "count": self.target.count, "checksum": self.target.to_string() },
            "isEqual": self.is_equal(),
        })
    }

    fn row(&self, what: String) -> [String; 4] {
        let found = if self.is_equal() {
            "equal".to_owned()
        } else {
            format!("{}, {}", number(self.target.count), self.target)
        };
        [what, number(self.source.count), self.source.to_string(), found]
    }
}

impl Compared {
    fn is_equal(&self) -> bool {
        let ranges = self.ranges.iter().map(|(_, sides)| sides);
        ranges.chain(self.parts.values()).all(Sides::is_equal)
    }
}

/// What is said in the end.
struct Told<'t> {
    file: &'t Path,
    place: String,
    /// How many events came this time.
    come: u64,
    took: Duration,
    anew: Vec<String>,
}

impl Told<'_> {
    fn print(&self, compared: &Compared, copy: &Copy, screen: &mut Screen) -> anyhow::Result<()> {
        let Self { file, place, come, took, anew } = self;
        let is_equal = compared.is_equal();
        if screen.is_json() {
            let with = |name: &str, key: Value, sides: &Sides| {
                let mut value = sides.json();
                if let Some(fields) = value.as_object_mut() {
                    fields.insert(name.to_owned(), key);
                }
                value
            };
            let ranges = compared.ranges.iter();
            let parts = compared.parts.iter();
            return screen.json(&json!({
                "file": file.display().to_string(),
                "database": place,
                "origin": copy.source.origin().as_ref(),
                "upTo": copy.head,
                "eventsCopiedNow": come,
                "events": ranges.map(|([from, to], sides)| with("range", json!([from, to]), sides)).collect::<Vec<_>>(),
                "kept": parts.map(|(part, sides)| with("what", part.to_string().into(), sides)).collect::<Vec<_>>(),
                "isEqual": is_equal,
                "seconds": took.as_secs_f64(),
                "projectionsMadeAnew": anew,
            }));
        }
        let mut table = Table::new([
            Column::Left("WHAT"),
            Column::Right("COUNT"),
            Column::Left("CHECKSUM"),
            Column::Left("IN THE DATABASE"),
        ]);
        for ([from, to], sides) in &compared.ranges {
            let range = format!("events {} to {}", number(from.number()), number(to.number()));
            table.row(sides.row(range));
        }
        for (part, sides) in &compared.parts {
            table.row(sides.row(part.to_string()));
        }
        table.print(screen)?;
        if !is_equal {
            return Ok(());
        }
        screen.line(&format!(
            "{} copied in {}, from `{}` to {place}: counts and checksums are equal",
            counted(*come, "event", "events"),
            duration(*took),
            file.display()
        ))?;
        if !anew.is_empty() {
            screen.line(&format!(
                "read models in tables are made anew by their program: {}",
                anew.join(", ")
            ))?;
        }
        Ok(screen.line("start the program with the database; it uses the file no more")?)
    }
}
