//! Frames that fit no packet: split into `FRAGMENT`s at one end, put together at the other.
//!
//! Two kinds need it: an inner datagram larger than a sealed packet, and a KCP packet made for a path that has become
//! smaller since. Pieces are not repeated: what loses one is lost whole, as with IP's own fragments (RFC 8900), and KCP
//! sends it again.
//!
//! ```text
//!  0        4        8      9
//!  | id u32 | offset | more | bytes ...        the body of a FRAGMENT; integers little-endian
//! ```
//!
//! `offset` counts from the first byte of the encoded frame, its type included; `more` is 0 in the last piece, else 1.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// A piece of one encoded frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Names the frame.
    pub id: u32,
    /// Where the bytes stand in the frame.
    pub offset: u32,
    /// Whether others stand behind them.
    pub more: bool,
    /// At least one.
    pub bytes: &'a [u8],
}

impl<'a> Piece<'a> {
    /// Reads the body of a `FRAGMENT` frame; `None` if it is none, or a piece of no frame that there can be.
    pub fn decode(body: &'a [u8]) -> Option<Self> {
        let (id, rest) = body.split_first_chunk()?;
        let (offset, rest) = rest.split_first_chunk()?;
        let (&more, bytes) = rest.split_first()?;
        let piece =
            Self { id: u32::from_le_bytes(*id), offset: u32::from_le_bytes(*offset), more: more != 0, bytes };
        (more <= 1 && !bytes.is_empty() && piece.end()? <= FRAME_MAX).then_some(piece)
    }

    /// Appends the body of a `FRAGMENT` frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id.to_le_bytes());
        out.extend_from_slice(&self.offset.to_le_bytes());
        out.push(u8::from(self.more));
        out.extend_from_slice(self.bytes);
    }

    fn end(&self) -> Option<usize> {
        usize::try_from(self.offset).ok()?.checked_add(self.bytes.len())
    }
}

/// Cuts one frame at a time into pieces.
#[derive(Debug)]
pub struct Splitter {
    next_id: u32,
    frame: Vec<u8>,
    taken: usize,
}

impl Splitter {
    /// Two of them at the same end are of different `parity`, and never name two frames alike.
    pub fn new(parity: bool) -> Self {
        Self { next_id: u32::from(parity), frame: Vec::new(), taken: 0 }
    }

    /// Whether every piece was taken.
    pub fn is_idle(&self) -> bool {
        self.taken == self.frame.len()
    }

    /// Begins with an encoded frame; the rest of the one before is forgotten.
    pub fn start(&mut self, frame: Vec<u8>) {
        self.next_id = self.next_id.wrapping_add(2);
        (self.frame, self.taken) = (frame, 0);
    }

    /// Forgets what was not taken.
    pub fn stop(&mut self) {
        self.frame.clear();
        self.taken = 0;
    }

    /// The next piece, of at most `room` bytes without the header; `None` when there is none, or no room that is worth it.
    pub fn next_piece(&mut self, room: usize) -> Option<Piece<'_>> {
        let rest = self.frame.get(self.taken..).filter(|rest| !rest.is_empty())?;
        let length = rest.len().min(room);
        if length < rest.len().min(LEAST_PIECE) {
            return None;
        }
        let offset = u32::try_from(self.taken).ok()?;
        self.taken += length;
        Some(Piece { id: self.next_id, offset, more: length < rest.len(), bytes: rest.get(..length)? })
    }
}

/// What became of pieces and of the frames they are of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FragmentStats {
    /// Pieces received.
    pub pieces: u64,
    /// Frames put together.
    pub whole: u64,
    /// Frames given up because a piece is missing for too long, or others needed the room.
    pub incomplete: u64,
    /// Pieces and frames that contradict one another, and pieces beyond the bounds.
    pub refused: u64,
    /// Bytes that wait for others, [`PIECE_OVERHEAD`] for each piece included, now.
    pub held: usize,
}

/// Puts frames together, within bounds on memory and time.
///
/// Pieces may come in any order. Those that overlap, or differ about where the frame ends, discard it (RFC 5722 does so
/// with IPv6's); what is held is at most [`HELD_MAX`] bytes in [`PARTIALS_MAX`] frames, of which the oldest goes first, and
/// none waits longer than [`WAITS_AT_MOST`].
#[derive(Debug, Default)]
pub struct Reassembler {
    /// In the order of their first pieces.
    partials: VecDeque<Partial>,
    stats: FragmentStats,
}

#[derive(Debug)]
struct Partial {
    id: u32,
    since: Instant,
    pieces: BTreeMap<u32, Vec<u8>>,
    /// Bytes in `pieces`, which do not overlap.
    received: usize,
    /// Of the whole, once the last piece is there.
    total: Option<usize>,
}

impl Reassembler {
    /// Takes a piece; returns the encoded frame if it was the last that was missing.
    pub fn handle_piece(&mut self, piece: Piece<'_>, now: Instant) -> Option<Vec<u8>> {
        self.expire(now);
        self.stats.pieces += 1;
        let at = match self.partials.iter().position(|partial| partial.id == piece.id) {
            Some(at) => at,
            None => self.begin(piece.id, now),
        };
        let held = cost(piece.bytes.len());
        match self.partials.get_mut(at)?.add(piece) {
            Added::Waits => {
                self.stats.held += held;
                self.make_room();
                None
            }
            Added::Whole => {
                self.stats.held += held;
                self.stats.whole += 1;
                self.remove(at).map(Partial::into_frame)
            }
            Added::Contradiction => {
                self.stats.refused += 1;
                self.remove(at);
                None
            }
        }
    }

    /// Gives up what waited too long.
    pub fn expire(&mut self, now: Instant) {
        let is_late = |partial: &Partial| now.saturating_duration_since(partial.since) >= WAITS_AT_MOST;
        while self.partials.front().is_some_and(is_late) {
            self.give_up();
        }
    }

    /// What became of pieces so far.
    pub fn stats(&self) -> FragmentStats {
        self.stats
    }

    /// How many frames wait for pieces.
    pub fn waiting(&self) -> usize {
        self.partials.len()
    }

    /// A new frame; returns where it stands.
    fn begin(&mut self, id: u32, now: Instant) -> usize {
        if self.partials.len() == PARTIALS_MAX {
            self.give_up();
        }
        let partial = Partial { id, since: now, pieces: BTreeMap::new(), received: 0, total: None };
        self.partials.push_back(partial);
        self.partials.len() - 1
    }

    fn make_room(&mut self) {
        while self.stats.held > HELD_MAX {
            self.give_up();
        }
    }

    fn give_up(&mut self) {
        self.stats.incomplete += 1;
        self.remove(0);
    }

    fn remove(&mut self, at: usize) -> Option<Partial> {
        let partial = self.partials.remove(at)?;
        self.stats.held -= partial.held();
        Some(partial)
    }
}

/// What a piece did to its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Added {
    Waits,
    Whole,
    Contradiction,
}

impl Partial {
    fn add(&mut self, piece: Piece<'_>) -> Added {
        let Some(end) = piece.end().filter(|_| self.admits(&piece)) else { return Added::Contradiction };
        if !piece.more {
            self.total = Some(end);
        }
        self.received += piece.bytes.len();
        self.pieces.insert(piece.offset, piece.bytes.to_vec());
        if self.total == Some(self.received) { Added::Whole } else { Added::Waits }
    }

    /// Whether the piece overlaps none that is here, and agrees with them about where the frame ends.
    fn admits(&self, piece: &Piece<'_>) -> bool {
        let Some(end) = piece.end() else { return false };
        let before = self.pieces.range(..=piece.offset).next_back();
        let is_behind = before.is_none_or(|(&offset, bytes)| {
            usize::try_from(offset).is_ok_and(|offset| offset + bytes.len() <= end - piece.bytes.len())
        });
        let after = self.pieces.range(piece.offset..).next();
        let is_before =
            after.is_none_or(|(&offset, _)| usize::try_from(offset).is_ok_and(|offset| end <= offset));
        let agrees = match self.total {
            Some(total) => piece.more && end < total,
            None => piece.more || after.is_none(),
        };
        is_behind && is_before && agrees
    }

    fn held(&self) -> usize {
        self.received + PIECE_OVERHEAD * self.pieces.len()
    }

    fn into_frame(self) -> Vec<u8> {
        let mut frame = Vec::with_capacity(self.received);
        self.pieces.into_values().for_each(|bytes| frame.extend_from_slice(&bytes));
        frame
    }
}

fn cost(bytes: usize) -> usize {
    bytes + PIECE_OVERHEAD
}

/// Bytes of a `FRAGMENT`'s body before those of the frame.
pub(crate) const PIECE_HEADER: usize = 9;

/// The longest frame: its header, and a body that 16 bits count.
pub(crate) const FRAME_MAX: usize = super::frame::FRAME_HEADER + u16::MAX as usize;

/// Our choice: bytes of one session that wait for others; four of the largest datagrams.
pub const HELD_MAX: usize = 4 * 68 * 1024;

/// Our choice: frames of one session that wait for pieces.
pub const PARTIALS_MAX: usize = 64;

/// What a piece costs beside its bytes, so that a flood of tiny ones is bounded too: its node, and the allocator's header.
/// Our estimate.
pub const PIECE_OVERHEAD: usize = 96;

/// Our choice: pieces leave one behind the other, so the last comes soon after the first or never; on the slowest line worth
/// using the largest frame takes a few seconds.
pub const WAITS_AT_MOST: Duration = Duration::from_secs(5);

/// Our choice: less than this is left free at the end of a packet rather than filled with a piece.
const LEAST_PIECE: usize = 128;

// The largest frame can be put together from pieces of the smallest packets.
const _: () = assert!(FRAME_MAX + FRAME_MAX.div_ceil(1024) * PIECE_OVERHEAD < HELD_MAX);

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "some instant must be the first")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn piece(id: u32, offset: u32, more: bool, bytes: &[u8]) -> Piece<'_> {
        Piece { id, offset, more, bytes }
    }

    fn pieces(splitter: &mut Splitter, rooms: &[usize]) -> Vec<(u32, u32, bool, Vec<u8>)> {
        let mut rooms = rooms.iter().cycle();
        let mut pieces = Vec::new();
        while !splitter.is_idle() {
            let Some(piece) = splitter.next_piece(*rooms.next().unwrap()) else { continue };
            pieces.push((piece.id, piece.offset, piece.more, piece.bytes.to_vec()));
        }
        pieces
    }

    #[test]
    fn encodes_the_documented_bytes_and_decodes_them() {
        let mut bytes = Vec::new();
        let sent = piece(0x0102_0304, 0x0506, true, b"piece");
        sent.encode(&mut bytes);
        assert_eq!(bytes, [4, 3, 2, 1, 6, 5, 0, 0, 1, b'p', b'i', b'e', b'c', b'e']);
        assert_eq!(bytes.len(), PIECE_HEADER + 5);
        assert_eq!(Piece::decode(&bytes), Some(sent));
    }

    #[test]
    fn refuses_a_piece_of_a_frame_that_cannot_be() {
        let encoded = |offset: u32, more: u8, bytes: &[u8]| {
            [7_u32.to_le_bytes().as_slice(), &offset.to_le_bytes(), &[more], bytes].concat()
        };
        let last = u32::try_from(FRAME_MAX).unwrap() - 1;
        assert!(Piece::decode(&encoded(last, 0, &[1])).is_some());
        assert_eq!(Piece::decode(&encoded(last, 0, &[1, 2])), None, "beyond the longest frame");
        assert_eq!(Piece::decode(&encoded(u32::MAX, 0, &[1])), None);
        assert_eq!(Piece::decode(&encoded(0, 2, &[1])), None, "neither the last nor another");
        assert_eq!(Piece::decode(&encoded(0, 0, &[])), None, "nothing in it");
        assert_eq!(Piece::decode(&[0; 8]), None);
    }

    #[test]
    fn puts_together_what_comes_in_any_order() {
        let now = Instant::now();
        let mut all = Reassembler::default();
        assert_eq!(all.handle_piece(piece(1, 4, false, b"ef"), now), None);
        assert_eq!(all.handle_piece(piece(2, 0, true, b"xy"), now), None);
        assert_eq!(all.handle_piece(piece(1, 0, true, b"ab"), now), None);
        assert_eq!(all.handle_piece(piece(1, 2, true, b"cd"), now).unwrap(), b"abcdef");
        assert_eq!(all.handle_piece(piece(2, 2, false, b"z"), now).unwrap(), b"xyz");
        assert_eq!((all.stats().whole, all.stats().held, all.waiting()), (2, 0, 0));
    }

    #[test]
    fn a_contradiction_discards_the_frame() {
        let now = Instant::now();
        let first = piece(1, 10, true, b"0123456789");
        for (why, second) in [
            ("the same again", first),
            ("overlaps its end", piece(1, 19, true, b"xx")),
            ("overlaps its beginning", piece(1, 5, true, b"xxxxxx")),
            ("covers it", piece(1, 0, true, &[0; 40])),
            ("lies within it", piece(1, 12, true, b"x")),
            ("ends the frame before it", piece(1, 0, false, b"x")),
        ] {
            let mut all = Reassembler::default();
            assert_eq!(all.handle_piece(first, now), None);
            assert_eq!(all.handle_piece(second, now), None, "{why}");
            assert_eq!((all.stats().refused, all.stats().held, all.waiting()), (1, 0, 0), "{why}");
        }
        let mut all = Reassembler::default();
        all.handle_piece(piece(1, 10, false, b"end"), now);
        all.handle_piece(piece(1, 13, true, b"behind the end"), now);
        assert_eq!((all.stats().refused, all.waiting()), (1, 0));
    }

    #[test]
    fn gives_up_what_waits_too_long() {
        let now = Instant::now();
        let mut all = Reassembler::default();
        all.handle_piece(piece(1, 0, true, b"a"), now);
        all.expire(now + WAITS_AT_MOST - Duration::from_millis(1));
        assert_eq!(all.waiting(), 1);
        all.expire(now + WAITS_AT_MOST);
        assert_eq!((all.waiting(), all.stats().incomplete, all.stats().held), (0, 1, 0));
    }

    #[test]
    fn the_oldest_makes_room() {
        let now = Instant::now();
        let mut all = Reassembler::default();
        for id in 0..=u32::try_from(PARTIALS_MAX).unwrap() {
            all.handle_piece(piece(id, 0, true, b"a"), now);
        }
        assert_eq!((all.waiting(), all.stats().incomplete), (PARTIALS_MAX, 1));
        assert_eq!(all.handle_piece(piece(1, 1, false, b"b"), now).unwrap(), b"ab");
    }

    #[test]
    fn a_splitter_leaves_a_small_rest_of_a_packet_free() {
        let mut splitter = Splitter::new(true);
        assert!(splitter.is_idle() && splitter.next_piece(1000).is_none());
        splitter.start(vec![1; 1000]);
        assert_eq!(splitter.next_piece(LEAST_PIECE - 1), None);
        assert_eq!(splitter.next_piece(990).map(|piece| piece.bytes.len()), Some(990));
        assert_eq!(splitter.next_piece(10).map(|piece| (piece.offset, piece.more)), Some((990, false)));
        assert!(splitter.is_idle());
    }

    #[test]
    fn two_splitters_never_use_the_same_id() {
        let (mut one, mut other) = (Splitter::new(false), Splitter::new(true));
        for _ in 0..100 {
            one.start(vec![0; 200]);
            other.start(vec![0; 200]);
            let (one, other) = (one.next_piece(200).unwrap(), other.next_piece(200).unwrap());
            assert_ne!(one.id % 2, other.id % 2);
        }
    }

    proptest! {
        #[test]
        fn what_is_split_is_put_together_whatever_the_order(
            frames in proptest::collection::vec(1..FRAME_MAX, 1..4),
            rooms in proptest::collection::vec(128_usize..1500, 1..5),
            order in any::<u64>(),
        ) {
            let now = Instant::now();
            let (mut splitter, mut all) = (Splitter::new(false), Reassembler::default());
            for length in frames {
                let frame: Vec<u8> = (0..length).map(|at| at.to_le_bytes()[0] ^ at.to_le_bytes()[1]).collect();
                splitter.start(frame.clone());
                let mut pieces = pieces(&mut splitter, &rooms);
                pieces.sort_by_key(|(_, offset, ..)| (u64::from(*offset) + 1).wrapping_mul(order | 1));
                let mut frames = pieces.iter().filter_map(|(id, offset, more, bytes)| {
                    all.handle_piece(piece(*id, *offset, *more, bytes), now)
                });
                let whole = frames.next();
                prop_assert_eq!(whole, Some(frame));
                prop_assert!(frames.next().is_none());
            }
            prop_assert_eq!(all.stats().held, 0);
        }

        #[test]
        fn hostile_pieces_never_hold_more_than_the_bounds(
            hostile in proptest::collection::vec(
                (0_u32..80, 0_u32..70_000, any::<bool>(), 1_usize..1400, 0_u64..200), 1..400,
            ),
        ) {
            let mut now = Instant::now();
            let mut all = Reassembler::default();
            let bytes = [7; 1400];
            for (id, offset, more, length, wait) in hostile {
                now += Duration::from_millis(wait);
                let mut body = Vec::new();
                piece(id, offset, more, &bytes[..length]).encode(&mut body);
                let Some(piece) = Piece::decode(&body) else { continue };
                if let Some(frame) = all.handle_piece(piece, now) {
                    prop_assert!(frame.len() <= FRAME_MAX);
                }
                let held: usize = all.partials.iter().map(Partial::held).sum();
                prop_assert_eq!(held, all.stats().held);
                prop_assert!(held <= HELD_MAX && all.waiting() <= PARTIALS_MAX);
            }
        }
    }
}
