//! Page checksums: a file next to the data file with a CRC-32 of each of its pages, and the end of the log.
//!
//! The checksum of a row says whether the row is what was written. It cannot say that a row is missing: a flipped bit in a key of
//! an index hides an event, a reply or a value. So each page of the data file has a checksum outside of it, and an opening
//! compares all of them before SQLite reads or changes anything. It reads the whole file once: about a second for a gigabyte.
//!
//! Pages change only in a checkpoint, and only the writer does one. It reads the pages of the write-ahead log, lets SQLite copy
//! them, writes their checksums and flushes them, all before the next commit can overwrite the log. So at any moment each page
//! either has its checksum here or lies in the log, whose frames have checksums of their own.
//!
//! After each group of commits the end of the log is written here, without a flush of its own. It is never later than what the
//! disk holds, so a data file whose log ends earlier has lost acknowledged commits.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use purista_events::store::{StoreError, StoreErrorKind};

use crate::private_file::{private, sync_folder};
use crate::wal::{self, Scan};

const MAGIC: [u8; 8] = *b"PURSUMS1";
/// Where the two slots of the head lie; the newer one that is whole counts.
const SLOTS: [u64; 2] = [0, 512];
const SLOT_BYTES: usize = 48;
/// Where the checksums begin.
const SUMS_AT: u64 = 4_096;
/// The most damaged pages that an error names.
const NAMED_MAX: usize = 5;
/// How much of the data file is read at once.
const CHUNK_BYTES: usize = 1024 * 1024;

/// The end of the log: its last position and the number of its last batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Head {
    pub(crate) position: i64,
    pub(crate) batch: i64,
}

/// The open file of checksums.
#[derive(Debug)]
pub(crate) struct Sums {
    file: File,
    sequence: u64,
    page_bytes: u32,
    /// One a page, from page 1 on; 0 for a page of which nothing is recorded.
    pages: Vec<u32>,
    /// What the first page was before the write-ahead log began: it lies in the data file until a checkpoint copies its newer one.
    first_before: u32,
    head: Head,
    scan: Scan,
}

/// The file of checksums of a data file.
pub(crate) fn path_of(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".sums");
    name.into()
}

impl Sums {
    /// Reads the checksums of a data file; `None` where there are none yet.
    pub(crate) fn load(path: &Path, for_writing: bool) -> Result<Option<Self>, StoreError> {
        let beside = path_of(path);
        let failed = |error| unreadable(&beside).with_source(error);
        let file = match OpenOptions::new().read(true).write(for_writing).open(&beside) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let found = SLOTS.iter().filter_map(|at| read_slot(&file, *at));
        let Some(slot) = found.max_by_key(|slot| slot.sequence) else {
            return if file.metadata().map_err(failed)?.len() == 0 {
                Ok(None)
            } else {
                Err(unreadable(&beside))
            };
        };
        let mut bytes = vec![0; slot.pages as usize * 4];
        read_at(&file, &mut bytes, SUMS_AT).map_err(failed)?;
        let (numbers, _) = bytes.as_chunks::<4>();
        let pages = numbers.iter().map(|number| u32::from_le_bytes(*number)).collect();
        let Slot { sequence, page_bytes, first_before, head, .. } = slot;
        Ok(Some(Self { file, sequence, page_bytes, pages, first_before, head, scan: Scan::default() }))
    }

    /// Records the checksums of a data file as it is now, whose write-ahead log is empty.
    pub(crate) fn adopt(path: &Path, data: &File, head: Head) -> io::Result<Self> {
        // It gets its name when it is whole.
        let beside = path_of(path);
        let part = beside.with_added_extension("part");
        let file = private().read(true).write(true).create(true).truncate(true).open(&part)?;
        let page_bytes = page_bytes_of(data)?;
        let mut pages = Vec::new();
        each_page(data, page_bytes, |_, sum| pages.push(sum))?;
        let first_before = pages.first().copied().unwrap_or_default();
        let scan = Scan::default();
        let mut adopted = Self { file, sequence: 0, page_bytes, pages, first_before, head, scan };
        let bytes: Vec<u8> = adopted.pages.iter().flat_map(|sum| sum.to_le_bytes()).collect();
        write_at(&adopted.file, &bytes, SUMS_AT)?;
        adopted.write_slot()?;
        adopted.file.sync_all()?;
        std::fs::rename(part, beside)?;
        path.parent().map_or(Ok(()), sync_folder)?;
        Ok(adopted)
    }

    /// The end of the log as of the last commit that was acknowledged.
    pub(crate) fn head(&self) -> Head {
        self.head
    }

    /// Says what is wrong with the pages of the data file, as it lies on the disk. It changes no file.
    pub(crate) fn compare(&mut self, path: &Path, data: &File) -> io::Result<Vec<String>> {
        self.scan.read_on(&wal::path_of(path))?;
        let (logged, recorded) = (self.scan.pages(), &self.pages);
        let mut damaged = Vec::new();
        let (mut count, mut first) = (0, self.first_before);
        each_page(data, self.page_bytes, |page, sum| {
            count = page;
            if page == 1 {
                first = sum;
            }
            let recorded = recorded.get(page as usize - 1).copied().unwrap_or(0);
            let is_known = match logged.get(&page) {
                // What lies in the log is copied from there. A crash may have left the page in part, but for the first one,
                // by which a copy of another moment is noticed.
                Some(logged) => {
                    page != 1
                        || recorded == 0
                        || self.first_before == sum
                        || logged.newest == sum
                        || logged.older.contains(&sum)
                }
                None => recorded == 0,
            };
            if !is_known && recorded != sum {
                damaged.push(page);
            }
        })?;
        let missing = (count + 1..=u32::try_from(self.pages.len()).unwrap_or(u32::MAX))
            .filter(|page| !logged.contains_key(page))
            .count();
        let mut found = Vec::new();
        if !damaged.is_empty() {
            let named: Vec<String> = damaged.iter().take(NAMED_MAX).map(u32::to_string).collect();
            let more = if damaged.len() > NAMED_MAX { ", ..." } else { "" };
            found.push(format!(
                "{} of {count} pages are not what was written: {}{more}",
                damaged.len(),
                named.join(", ")
            ));
        }
        if missing > 0 {
            found.push(format!("{missing} pages at the end of the file are missing"));
        }
        self.first_before = first;
        Ok(found)
    }

    /// Records the pages that the next checkpoint copies, and those that it has copied. Before the next commit.
    pub(crate) fn take_in(&mut self, path: &Path) -> io::Result<()> {
        if self.scan.read_on(&wal::path_of(path))? {
            // A log begins again when all of the one before it was copied.
            self.first_before = self.pages.first().copied().unwrap_or_default();
        }
        let mut changed: Vec<(u32, u32)> = Vec::new();
        for (page, logged) in self.scan.pages() {
            let at = *page as usize - 1;
            if self.pages.len() <= at {
                self.pages.resize(at + 1, 0);
            }
            if let Some(sum) = self.pages.get_mut(at)
                && *sum != logged.newest
            {
                *sum = logged.newest;
                changed.push((*page, *sum));
            }
        }
        if changed.is_empty() {
            return Ok(());
        }
        changed.sort_unstable();
        // Pages that follow one another are written at once.
        for run in changed.chunk_by(|(before, _), (after, _)| before + 1 == *after) {
            let Some((first, _)) = run.first() else { continue };
            let bytes: Vec<u8> = run.iter().flat_map(|(_, sum)| sum.to_le_bytes()).collect();
            write_at(&self.file, &bytes, SUMS_AT + u64::from(first - 1) * 4)?;
        }
        self.write_slot()?;
        self.file.sync_data()
    }

    /// Writes down the end of the log, after the commit that made it.
    pub(crate) fn committed(&mut self, head: Head) -> io::Result<()> {
        self.head = head;
        self.write_slot()
    }

    /// Makes everything durable.
    pub(crate) fn flush(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn write_slot(&mut self) -> io::Result<()> {
        self.sequence += 1;
        let mut bytes = Vec::with_capacity(SLOT_BYTES);
        bytes.extend(MAGIC);
        bytes.extend(self.sequence.to_le_bytes());
        bytes.extend(self.page_bytes.to_le_bytes());
        bytes.extend(u32::try_from(self.pages.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend(self.first_before.to_le_bytes());
        bytes.extend(self.head.position.to_le_bytes());
        bytes.extend(self.head.batch.to_le_bytes());
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        let at = SLOTS.get((self.sequence % 2) as usize).copied().unwrap_or_default();
        write_at(&self.file, &bytes, at)
    }
}

fn read_at(mut file: &File, into: &mut [u8], at: u64) -> io::Result<()> {
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(into)
}

fn write_at(mut file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    file.seek(SeekFrom::Start(at))?;
    file.write_all(bytes)
}

struct Slot {
    sequence: u64,
    page_bytes: u32,
    pages: u32,
    first_before: u32,
    head: Head,
}

fn read_slot(file: &File, at: u64) -> Option<Slot> {
    let mut bytes = [0; SLOT_BYTES];
    read_at(file, &mut bytes, at).ok()?;
    let (content, sum) = bytes.split_at(SLOT_BYTES - 4);
    let sum = u32::from_le_bytes(sum.try_into().ok()?);
    if content.get(..8)? != MAGIC || crc32fast::hash(content) != sum {
        return None;
    }
    let long = |at: usize| Some(u64::from_le_bytes(content.get(at..at + 8)?.try_into().ok()?));
    let short = |at: usize| Some(u32::from_le_bytes(content.get(at..at + 4)?.try_into().ok()?));
    let head = Head { position: long(28)?.cast_signed(), batch: long(36)?.cast_signed() };
    Some(Slot {
        sequence: long(8)?,
        page_bytes: short(16)?,
        pages: short(20)?,
        first_before: short(24)?,
        head,
    })
}

/// How large the pages of a data file are: SQLite writes it into the header, 1 for 65,536.
fn page_bytes_of(data: &File) -> io::Result<u32> {
    let mut bytes = [0; 2];
    read_at(data, &mut bytes, 16)?;
    Ok(match u16::from_be_bytes(bytes) {
        1 => 65_536,
        bytes => bytes.max(512).into(),
    })
}

/// Hands over each whole page of a data file with its checksum, in order.
fn each_page(data: &File, page_bytes: u32, mut found: impl FnMut(u32, u32)) -> io::Result<()> {
    let page_bytes = page_bytes.max(512) as usize;
    let mut chunk = vec![0; CHUNK_BYTES.next_multiple_of(page_bytes)];
    let mut page = 0;
    let mut data = data;
    data.seek(SeekFrom::Start(0))?;
    loop {
        let read = read_chunk(data, &mut chunk)?;
        for content in chunk.get(..read).unwrap_or_default().chunks_exact(page_bytes) {
            page += 1;
            found(page, wal::page_sum(content));
        }
        if read < chunk.len() {
            return Ok(());
        }
    }
}

fn read_chunk(mut data: &File, chunk: &mut [u8]) -> io::Result<usize> {
    let mut read = 0;
    while let Some(rest) = chunk.get_mut(read..).filter(|rest| !rest.is_empty()) {
        match data.read(rest) {
            Ok(0) => break,
            Ok(bytes) => read += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

fn unreadable(beside: &Path) -> StoreError {
    let what = format!(
        "the page checksums in `{}` cannot be read; if `purista store check` finds the store sound, remove that file: the next \
         opening makes it again",
        beside.display()
    );
    StoreError::new(StoreErrorKind::Corrupt, what)
}
