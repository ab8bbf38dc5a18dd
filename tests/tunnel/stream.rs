//! One direction of a flow: bytes that anyone can compute, so that every received one is checked at once and none is kept.

use std::net::SocketAddr;

/// The bytes of one direction, by their position.
#[derive(Clone, Copy, Debug)]
struct Pattern(u64);

impl Pattern {
    fn bytes(self, from: u64, length: usize) -> Vec<u8> {
        let skipped = usize::try_from(from % 8).expect("less than 8");
        let words = (skipped + length).div_ceil(8) as u64;
        let mut bytes: Vec<u8> = (from / 8..from / 8 + words).flat_map(|word| self.word(word)).collect();
        bytes.drain(..skipped);
        bytes.truncate(length);
        bytes
    }

    /// SplitMix64 of the position.
    fn word(self, index: u64) -> [u8; 8] {
        let mut z = self.0.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).to_le_bytes()
    }
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Upload,
    Download,
}

fn pattern(target: SocketAddr, direction: Direction) -> Pattern {
    Pattern(u64::from(target.port()) << 8 | direction as u64)
}

/// The writing end of one direction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Writer {
    pattern: Pattern,
    /// Bytes that the connection has taken.
    pub(crate) written: u64,
    /// Bytes it is to write as things stand.
    pub(crate) length: u64,
    /// It ends behind the last of them.
    pub(crate) finishes: bool,
    /// It has ended.
    pub(crate) finished: bool,
}

impl Writer {
    pub(crate) fn new(target: SocketAddr, direction: Direction, length: u64, finishes: bool) -> Self {
        Self { pattern: pattern(target, direction), written: 0, length, finishes, finished: false }
    }

    /// What to offer next.
    pub(crate) fn next(&self) -> Vec<u8> {
        let left = usize::try_from(self.length - self.written).expect("a few megabytes");
        self.pattern.bytes(self.written, left.min(CHUNK))
    }

    /// Whether all was written and the end is to be said now.
    pub(crate) fn is_to_finish(&self) -> bool {
        self.finishes && !self.finished && self.written == self.length
    }
}

/// The reading end of one direction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader {
    pattern: Pattern,
    pub(crate) received: u64,
    /// It reads nothing for now.
    pub(crate) stopped: bool,
    /// It saw the end.
    pub(crate) finished: bool,
    /// The first thing that it should not have seen.
    pub(crate) wrong: Option<Wrong>,
}

/// What a reader must never see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// Bytes other than those that were written, somewhere behind this one.
    Bytes(u64),
    /// Bytes behind the end.
    BehindEnd(u64),
    /// Two ends.
    SecondEnd,
}

impl Reader {
    pub(crate) fn new(target: SocketAddr, direction: Direction) -> Self {
        Self {
            pattern: pattern(target, direction),
            received: 0,
            stopped: false,
            finished: false,
            wrong: None,
        }
    }

    pub(crate) fn take(&mut self, bytes: &[u8]) {
        if self.finished {
            self.wrong.get_or_insert(Wrong::BehindEnd(self.received));
        }
        if bytes != self.pattern.bytes(self.received, bytes.len()) {
            self.wrong.get_or_insert(Wrong::Bytes(self.received));
        }
        self.received += bytes.len() as u64;
    }

    pub(crate) fn end(&mut self) {
        if self.finished {
            self.wrong.get_or_insert(Wrong::SecondEnd);
        }
        self.finished = true;
    }
}

/// What is offered to a connection at once.
const CHUNK: usize = 64 * 1024;
