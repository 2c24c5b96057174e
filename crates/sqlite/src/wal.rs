//! Reads SQLite's write-ahead log: which pages its committed frames hold, and with which checksums.
//!
//! The writer reads it before each checkpoint, and an opening reads it before SQLite does. A frame counts when it bears the salts
//! of the log's header, its checksum continues that of the frame before it, and a commit follows: the rule by which SQLite
//! recovers, see <https://www.sqlite.org/fileformat2.html#the_write_ahead_log>.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

const HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;
/// The magic number; its lowest bit says that checksums read numbers big-endian.
const MAGIC: u32 = 0x377f_0682;
/// The largest page that SQLite knows.
const PAGE_BYTES_MAX: u32 = 65_536;

/// A page as a frame holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Logged {
    /// CRC-32 of the newest committed version.
    pub(crate) newest: u32,
    /// The same of the versions before it.
    pub(crate) older: Vec<u32>,
}

/// How far a write-ahead log was read. Reading continues where it ended, for as long as the log grows.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    header: [u8; HEADER_BYTES],
    page_bytes: usize,
    is_big_endian: bool,
    /// Behind the last frame that was read.
    offset: u64,
    sum: [u32; 2],
    /// What no commit follows yet.
    open: Vec<(u32, u32)>,
    pages: HashMap<u32, Logged>,
}

/// The CRC-32 of a page; never 0, which stands for "not recorded".
pub(crate) fn page_sum(content: &[u8]) -> u32 {
    crc32fast::hash(content).max(1)
}

/// The log of a file.
pub(crate) fn path_of(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

impl Scan {
    /// The pages of committed frames, by their numbers.
    pub(crate) fn pages(&self) -> &HashMap<u32, Logged> {
        &self.pages
    }

    /// Reads on, up to the end of the log or the first frame that does not count. A log that began again is read from its start; a
    /// log that is missing holds nothing. Returns whether it is another log than before.
    pub(crate) fn read_on(&mut self, path: &Path) -> io::Result<bool> {
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                *self = Self::default();
                return Ok(true);
            }
            Err(error) => return Err(error),
        };
        let mut header = [0; HEADER_BYTES];
        if !fill(&mut file, &mut header)? {
            *self = Self::default();
            return Ok(true);
        }
        let is_other = header != self.header;
        if header != self.header || self.page_bytes == 0 {
            let Some(begun) = Self::begin(header) else {
                *self = Self::default();
                return Ok(true);
            };
            *self = begun;
        }
        file.seek(SeekFrom::Start(self.offset))?;
        let mut file = io::BufReader::with_capacity(256 * 1024, file);
        let mut frame = vec![0; FRAME_HEADER_BYTES + self.page_bytes];
        while fill(&mut file, &mut frame)? {
            let Some((page, is_commit)) = self.accepts(&frame) else { break };
            let content = frame.get(FRAME_HEADER_BYTES..).unwrap_or_default();
            self.open.push((page, page_sum(content)));
            self.offset += frame.len() as u64;
            if is_commit {
                for (page, sum) in self.open.drain(..) {
                    self.pages
                        .entry(page)
                        .and_modify(|logged| logged.older.push(std::mem::replace(&mut logged.newest, sum)))
                        .or_insert(Logged { newest: sum, older: Vec::new() });
                }
            }
        }
        Ok(is_other)
    }

    fn begin(header: [u8; HEADER_BYTES]) -> Option<Self> {
        let magic = number(&header, 0);
        let page_bytes = number(&header, 8);
        let is_page = page_bytes.is_power_of_two() && (512..=PAGE_BYTES_MAX).contains(&page_bytes);
        if magic & !1 != MAGIC || !is_page {
            return None;
        }
        let is_big_endian = magic & 1 == 1;
        let sum = checksum([0, 0], header.get(..24)?, is_big_endian);
        (sum == [number(&header, 24), number(&header, 28)]).then(|| Self {
            header,
            page_bytes: page_bytes as usize,
            is_big_endian,
            offset: HEADER_BYTES as u64,
            sum,
            ..Self::default()
        })
    }

    /// The page of a frame that counts, and whether it commits.
    fn accepts(&mut self, frame: &[u8]) -> Option<(u32, bool)> {
        if frame.get(8..16) != self.header.get(16..24) {
            return None;
        }
        let sum = checksum(self.sum, frame.get(..8)?, self.is_big_endian);
        let sum = checksum(sum, frame.get(FRAME_HEADER_BYTES..)?, self.is_big_endian);
        let page = number(frame, 0);
        if page == 0 || sum != [number(frame, 16), number(frame, 20)] {
            return None;
        }
        self.sum = sum;
        Some((page, number(frame, 4) != 0))
    }
}

/// Fills the buffer. `false` when the file ends before.
fn fill(file: &mut impl io::Read, buffer: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// A big-endian number. What lies beyond the bytes is 0.
fn number(bytes: &[u8], at: usize) -> u32 {
    let found = bytes.get(at..at + 4).and_then(|found| found.try_into().ok());
    found.map_or(0, u32::from_be_bytes)
}

/// SQLite's running checksum over pairs of numbers.
fn checksum([mut first, mut second]: [u32; 2], bytes: &[u8], is_big_endian: bool) -> [u32; 2] {
    let read = if is_big_endian { u32::from_be_bytes } else { u32::from_le_bytes };
    let (pairs, _) = bytes.as_chunks::<8>();
    for &[a, b, c, d, e, f, g, h] in pairs {
        first = first.wrapping_add(read([a, b, c, d])).wrapping_add(second);
        second = second.wrapping_add(read([e, f, g, h])).wrapping_add(first);
    }
    [first, second]
}
