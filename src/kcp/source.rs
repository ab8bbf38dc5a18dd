//! Where fresh data comes from: pulled, a segment at a time, when it can leave.
//!
//! Two sources are ready-made: [`Messages`] keeps the bounds of what is written (ikcp's message mode), [`Stream`] does
//! not (`stream = 1`).

use std::collections::VecDeque;

use thiserror::Error;

use super::config::{Config, MIN_RECEIVE_WINDOW};

/// Where fresh data comes from.
pub trait Source {
    /// What the next segment needs; `None` = nothing to send.
    ///
    /// A source that cannot know it leaves this as it is: then it is asked to fill what room there is, as long as a
    /// header is under a tenth of it, and taken for one that waits while the peer's window is closed.
    fn peek(&self) -> Option<Piece> {
        Some(Piece::ANY)
    }

    /// Fills `buffer`, which has at least the room asked for and at most a full segment's, with whole frames of fresh data
    /// and returns how many bytes it wrote; 0 = nothing to send, unless [`Self::peek`] said that no room is needed.
    fn fill(&mut self, buffer: &mut [u8]) -> usize;
}

/// What the next segment of a [`Source`] needs and what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// The least room for its payload, in bytes; more than a full segment's counts as that. A packet with less left is
    /// closed, and the piece begins the next. 0 = an empty message.
    pub room: usize,
    /// How many fragments of the same message follow it.
    pub frg: u8,
}

impl Piece {
    /// Bytes that can be cut anywhere: what room there is, as long as a header is under a tenth of it.
    pub const ANY: Self = Self { room: LEAST_ROOM, frg: 0 };
}

/// A bounded queue of messages: each reaches the peer whole, in as many fragments as it needs.
#[derive(Debug)]
pub struct Messages {
    queue: VecDeque<Vec<u8>>,
    /// Bytes of the first message that are sent.
    taken: usize,
    queued: usize,
    segment: usize,
    limit: usize,
}

impl Messages {
    /// An empty queue of at most `limit` bytes for a [`super::Kcp`] set up by `config`.
    ///
    /// A message counts for 24 bytes more than it has, so that the number of empty ones is bounded as well.
    pub const fn new(config: &Config, limit: usize) -> Self {
        let segment = if config.mss == 0 { 1 } else { config.mss };
        Self { queue: VecDeque::new(), taken: 0, queued: 0, segment, limit }
    }

    /// Adds a message (`ikcp_send`).
    ///
    /// # Errors
    /// Says why not; nothing was added. `TooLong` is for ever: a message must fit the empty queue and, as in ikcp, the
    /// smallest receive window that a peer may have, which is 128 segments, with one to spare. `Full` passes.
    pub fn push(&mut self, message: &[u8]) -> Result<(), Refused> {
        let cost = cost(message);
        if message.len() > self.longest() || cost > self.limit {
            return Err(Refused::TooLong);
        }
        if self.queued + cost > self.limit {
            return Err(Refused::Full);
        }
        self.queued += cost;
        self.queue.push_back(message.to_vec());
        Ok(())
    }

    /// Bytes of the longest message that is ever taken; a queue of less than 24 bytes takes none.
    pub const fn longest(&self) -> usize {
        let (window, queue) = (MOST_FRAGMENTS * self.segment, self.limit.saturating_sub(COST_BESIDE));
        if window < queue { window } else { queue }
    }

    /// Messages that are not wholly sent.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether all was sent.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

impl Source for Messages {
    fn peek(&self) -> Option<Piece> {
        let left = self.queue.front()?.len() - self.taken;
        let follow = left.div_ceil(self.segment).saturating_sub(1);
        Some(Piece { room: left.min(self.segment), frg: u8::try_from(follow).unwrap_or(u8::MAX) })
    }

    fn fill(&mut self, buffer: &mut [u8]) -> usize {
        let Some(message) = self.queue.front() else {
            return 0;
        };
        let rest = &message[self.taken..];
        let piece = &rest[..rest.len().min(self.segment)];
        // Only a `Kcp` of another configuration asks for less than a fragment, whose `frg` would be wrong.
        let Some(room) = buffer.get_mut(..piece.len()) else {
            return 0;
        };
        room.copy_from_slice(piece);
        let (filled, is_last) = (piece.len(), piece.len() == rest.len());
        self.taken += filled;
        if is_last {
            self.queued -= cost(message);
            self.queue.pop_front();
            self.taken = 0;
        }
        filled
    }
}

/// A bounded queue of bytes: what is written later joins what has not left, and segments are as full as can be.
#[derive(Debug)]
pub struct Stream {
    bytes: VecDeque<u8>,
    limit: usize,
}

impl Stream {
    /// An empty queue of at most `limit` bytes.
    pub const fn new(limit: usize) -> Self {
        Self { bytes: VecDeque::new(), limit }
    }

    /// Adds the beginning of `bytes` that there is room for, and returns how many that are.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(self.limit - self.bytes.len());
        self.bytes.extend(&bytes[..taken]);
        taken
    }

    /// Bytes that are not sent.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether all was sent.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

impl Source for Stream {
    fn peek(&self) -> Option<Piece> {
        (!self.bytes.is_empty()).then_some(Piece { room: self.bytes.len(), frg: 0 })
    }

    fn fill(&mut self, buffer: &mut [u8]) -> usize {
        let filled = buffer.len().min(self.bytes.len());
        let (front, back) = self.bytes.as_slices();
        let split = filled.min(front.len());
        buffer[..split].copy_from_slice(&front[..split]);
        buffer[split..filled].copy_from_slice(&back[..filled - split]);
        self.bytes.drain(..filled);
        filled
    }
}

/// Why a message was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refused {
    /// There is no room now.
    #[error("the send queue is full")]
    Full,
    /// It has too many fragments for the window that any peer has, or does not fit the empty queue.
    #[error("the message is longer than {MOST_FRAGMENTS} segments or than the whole queue")]
    TooLong,
}

/// What a message takes of the bound.
fn cost(message: &[u8]) -> usize {
    message.len() + COST_BESIDE
}

/// What a message takes beside its bytes: also empty ones are bounded.
const COST_BESIDE: usize = size_of::<Vec<u8>>();

/// The default [`Source`] joins what is in a packet only if this much fits; our choice: a header should stay under a
/// tenth.
const LEAST_ROOM: usize = 256;
/// Fragments of the longest message (`ikcp_send` refuses `IKCP_WND_RCV`); `frg` would allow 256.
const MOST_FRAGMENTS: usize = MIN_RECEIVE_WINDOW as usize - 1;
const _: () = assert!(MOST_FRAGMENTS <= 256);

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(segment: usize, limit: usize) -> Messages {
        Messages::new(&Config { mss: segment, ..Config::ikcp() }, limit)
    }

    fn take(source: &mut dyn Source, room: usize) -> (u8, Vec<u8>) {
        let piece = source.peek().unwrap();
        let mut buffer = vec![0; room];
        let filled = source.fill(&mut buffer);
        buffer.truncate(filled);
        (piece.frg, buffer)
    }

    #[test]
    fn cuts_a_message_into_fragments_that_count_down() {
        let mut messages = messages(3, 1000);
        messages.push(b"abcdefgh").unwrap();
        messages.push(b"next").unwrap();
        let pieces: Vec<_> = (0..5).map(|_| take(&mut messages, 3)).collect();
        let expected: [(u8, &[u8]); 5] = [(2, b"abc"), (1, b"def"), (0, b"gh"), (1, b"nex"), (0, b"t")];
        assert_eq!(pieces, expected.map(|(frg, bytes)| (frg, bytes.to_vec())));
        assert_eq!((messages.peek(), messages.is_empty()), (None, true));
    }

    #[test]
    fn says_what_room_a_fragment_needs_and_takes_no_less() {
        let mut messages = messages(10, 1000);
        messages.push(&[7; 24]).unwrap();
        assert_eq!(messages.peek(), Some(Piece { room: 10, frg: 2 }));
        assert_eq!(messages.fill(&mut [0; 9]), 0);
        assert_eq!(messages.fill(&mut [0; 100]), 10);
        assert_eq!(messages.fill(&mut [0; 10]), 10);
        assert_eq!(messages.peek(), Some(Piece { room: 4, frg: 0 }));
    }

    #[test]
    fn refuses_a_message_that_no_default_window_holds() {
        let mut messages = messages(10, 10_000);
        assert_eq!(messages.push(&[0; 1271]), Err(Refused::TooLong));
        assert_eq!(messages.push(&[0; 1270]), Ok(()));
        assert_eq!(messages.peek(), Some(Piece { room: 10, frg: 126 }));
    }

    #[test]
    fn says_that_what_the_empty_queue_cannot_hold_never_passes() {
        let mut queue = messages(10, 100);
        assert_eq!((queue.longest(), queue.push(&[0; 77])), (76, Err(Refused::TooLong)));
        assert_eq!((queue.push(&[0; 76]), queue.push(&[])), (Ok(()), Err(Refused::Full)));
        let mut none = messages(10, 23);
        assert_eq!((none.longest(), none.push(&[])), (0, Err(Refused::TooLong)));
    }

    #[test]
    fn bounds_the_messages_it_holds_and_the_empty_ones_too() {
        let mut messages = messages(10, 100);
        assert_eq!(messages.push(&[0; 60]), Ok(()));
        assert_eq!(messages.push(&[0; 1]), Err(Refused::Full));
        for _ in 0..6 {
            messages.fill(&mut [0; 10]);
        }
        let empty = (0..10).filter(|_| messages.push(&[]).is_ok()).count();
        assert_eq!((empty, messages.peek()), (4, Some(Piece { room: 0, frg: 0 })));
        assert_eq!((messages.fill(&mut []), messages.len()), (0, 3));
    }

    #[test]
    fn joins_what_is_written_later_to_what_has_not_left() {
        let mut stream = Stream::new(8);
        assert_eq!(stream.write(b"abc"), 3);
        assert_eq!(stream.write(b"defghijk"), 5);
        assert_eq!((stream.write(b"l"), stream.peek().unwrap().room), (0, 8));
        assert_eq!(take(&mut stream, 5), (0, b"abcde".to_vec()));
        assert_eq!(stream.write(b"l"), 1);
        assert_eq!(take(&mut stream, 5), (0, b"fghl".to_vec()));
        assert!(stream.is_empty() && stream.peek().is_none());
    }

    #[test]
    fn keeps_the_order_of_a_stream_that_goes_around_its_buffer() {
        let (mut stream, mut taken, mut went_around) = (Stream::new(64), Vec::new(), false);
        let bytes: Vec<u8> = (0..=u8::MAX).collect();
        let mut rest = &bytes[..];
        while taken.len() < bytes.len() {
            rest = &rest[stream.write(rest)..];
            went_around |= !stream.bytes.as_slices().1.is_empty();
            taken.extend(take(&mut stream, 23).1);
        }
        assert!(went_around && taken == bytes, "{taken:?}");
    }
}
