//! What the two ends of a conversation say to each other, and what they check of it.

use std::collections::VecDeque;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use vpn::kcp::{Piece, Source};

use super::{MSS, ms};

/// One end's application.
#[derive(Debug)]
pub(crate) enum App {
    /// Sends a stream of bytes and checks the one it receives.
    Stream(Stream),
    /// Sends messages of many lengths and checks that they arrive whole.
    Messages(Messages),
    /// Sends a message now and then, and measures how long its echo takes.
    Asker(Asker),
    /// Sends back every message it receives.
    Echoer(VecDeque<Vec<u8>>),
}

impl App {
    /// Sends nothing and takes a stream.
    pub(crate) fn listener() -> Self {
        Self::sender(0)
    }

    /// Sends `bytes` as fast as it may.
    pub(crate) fn sender(bytes: u64) -> Self {
        Self::Stream(Stream { left: bytes, ..Stream::default() })
    }

    /// Sends for ever.
    pub(crate) fn endless() -> Self {
        Self::sender(u64::MAX / 2)
    }

    /// Sends `bytes`, at most `at_once` in one message.
    pub(crate) fn in_pieces(bytes: u64, at_once: usize) -> Self {
        Self::Stream(Stream { left: bytes, at_once, ..Stream::default() })
    }

    /// Does what is due at `now`.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if let Self::Asker(asker) = self {
            asker.ask(now);
        }
    }

    /// When it has something to do by itself.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Asker(asker) => asker.poll_timeout(),
            Self::Stream(_) | Self::Messages(_) | Self::Echoer(_) => None,
        }
    }

    /// Bytes of the longest message it writes.
    pub(crate) fn longest(&self) -> usize {
        match self {
            Self::Stream(stream) if stream.at_once > 0 => stream.at_once,
            Self::Stream(_) => MSS,
            Self::Messages(messages) => messages.longest,
            Self::Asker(asker) => asker.size,
            Self::Echoer(waiting) => waiting.front().map_or(0, Vec::len),
        }
    }

    /// Writes the next message into `buffer`, which has room for the longest; 0 if there is none.
    pub(crate) fn write(&mut self, buffer: &mut [u8]) -> usize {
        match self {
            Self::Stream(stream) => stream.write(buffer),
            Self::Messages(messages) => messages.write(buffer),
            Self::Asker(asker) => pop(&mut asker.waiting, buffer),
            Self::Echoer(waiting) => pop(waiting, buffer),
        }
    }

    /// Takes a message that arrived at `now`.
    pub(crate) fn read(&mut self, message: &[u8], now: Instant) {
        match self {
            Self::Stream(stream) => stream.read(message),
            Self::Messages(messages) => messages.read(message),
            Self::Asker(asker) => asker.read(message, now),
            Self::Echoer(waiting) => waiting.push_back(message.to_vec()),
        }
    }

    /// Whether it has nothing more to send.
    pub(crate) fn is_silent(&self) -> bool {
        match self {
            Self::Stream(stream) => stream.left == 0,
            Self::Messages(messages) => messages.left == 0,
            Self::Asker(asker) => asker.is_done(),
            Self::Echoer(waiting) => waiting.is_empty(),
        }
    }

    /// Payload bytes that have arrived.
    pub(crate) fn received(&self) -> u64 {
        match self {
            Self::Stream(stream) => stream.received,
            Self::Messages(messages) => messages.received_bytes,
            Self::Asker(_) | Self::Echoer(_) => 0,
        }
    }

    /// Gives a stream `bytes` more to send.
    ///
    /// # Panics
    /// If it is no stream.
    pub(crate) fn add(&mut self, bytes: u64) {
        let Self::Stream(stream) = self else { panic!("{self:?} is no stream") };
        stream.left += bytes;
    }
}

impl Source for App {
    fn peek(&self) -> Option<Piece> {
        match self {
            Self::Stream(stream) => (stream.left > 0).then_some(Piece { room: stream.least_room(), frg: 0 }),
            Self::Messages(_) => panic!("messages of many fragments are pulled from nobody: {self:?}"),
            Self::Asker(asker) => whole(&asker.waiting),
            Self::Echoer(waiting) => whole(waiting),
        }
    }

    fn fill(&mut self, buffer: &mut [u8]) -> usize {
        self.write(buffer)
    }
}

fn whole(waiting: &VecDeque<Vec<u8>>) -> Option<Piece> {
    waiting.front().map(|message| Piece { room: message.len(), frg: 0 })
}

fn pop(waiting: &mut VecDeque<Vec<u8>>, buffer: &mut [u8]) -> usize {
    let Some(message) = waiting.front().filter(|message| message.len() <= buffer.len()) else { return 0 };
    let len = message.len();
    buffer[..len].copy_from_slice(message);
    waiting.pop_front();
    len
}

/// A stream of bytes each way, each byte of which says where it stands.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    left: u64,
    sent: u64,
    received: u64,
    /// The most bytes it sends at once; 0 = as many as fit.
    at_once: usize,
}

impl Stream {
    /// As the tunnel's streams: a segment is begun only where a header is a small part of it.
    fn least_room(&self) -> usize {
        let least = if self.at_once == 0 { LEAST_ROOM } else { self.at_once };
        usize::try_from(self.left).map_or(least, |left| left.min(least))
    }

    fn write(&mut self, buffer: &mut [u8]) -> usize {
        let most = if self.at_once == 0 { buffer.len() } else { buffer.len().min(self.at_once) };
        let len = usize::try_from(self.left).map_or(most, |left| left.min(most));
        buffer[..len].copy_from_slice(&pattern(self.sent)[..len]);
        self.sent += len as u64;
        self.left -= len as u64;
        len
    }

    fn read(&mut self, message: &[u8]) {
        for piece in message.chunks(LONGEST) {
            assert!(*piece == pattern(self.received)[..piece.len()], "at byte {}", self.received);
            self.received += piece.len() as u64;
        }
    }
}

/// Messages whose lengths and bytes follow from their number.
#[derive(Debug)]
pub(crate) struct Messages {
    /// How many are left to send.
    left: u64,
    sent: u64,
    received: u64,
    received_bytes: u64,
    /// Bytes of our longest, and of the peer's.
    longest: usize,
    peers_longest: usize,
}

impl Messages {
    /// `count` messages to send, none longer than `longest[0]`, as the peer's are than `longest[1]`.
    pub(crate) fn new(count: u64, longest: [usize; 2]) -> Self {
        let [longest, peers_longest] = longest;
        Self { left: count, sent: 0, received: 0, received_bytes: 0, longest, peers_longest }
    }

    /// How many arrived.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    fn write(&mut self, buffer: &mut [u8]) -> usize {
        if self.left == 0 {
            return 0;
        }
        let len = length(self.sent, self.longest);
        buffer[..len].copy_from_slice(&pattern(self.sent)[..len]);
        self.sent += 1;
        self.left -= 1;
        len
    }

    fn read(&mut self, message: &[u8]) {
        let number = self.received;
        assert_eq!(message.len(), length(number, self.peers_longest), "message {number}");
        assert!(*message == pattern(number)[..message.len()], "message {number}");
        self.received += 1;
        self.received_bytes += message.len() as u64;
    }
}

/// A length of 1 to `longest` for message `number`; a quarter is as long as may be.
fn length(number: u64, longest: usize) -> usize {
    let hash = usize::try_from(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40).unwrap_or(0);
    if hash % 4 == 0 { longest } else { 1 + (hash / 4) % longest }
}

/// Sends a message at fixed intervals and notes when its echo comes.
#[derive(Debug)]
pub(crate) struct Asker {
    interval: Duration,
    /// Bytes of a message, at least 8.
    size: usize,
    left: u64,
    next_at: Instant,
    waiting: VecDeque<Vec<u8>>,
    /// When those that have no echo yet were sent.
    asked: VecDeque<Instant>,
    answered: u64,
    /// How long each echo took, in order.
    pub(crate) round_trips: Vec<Duration>,
}

impl Asker {
    /// `count` messages of `size` bytes, one each 20 ms.
    pub(crate) fn new(count: u64, size: usize, now: Instant) -> Self {
        let interval = ms(20);
        Self {
            interval,
            size,
            left: count,
            next_at: now + interval,
            waiting: VecDeque::new(),
            asked: VecDeque::new(),
            answered: 0,
            round_trips: Vec::new(),
        }
    }

    fn ask(&mut self, now: Instant) {
        while self.left > 0 && self.next_at <= now {
            let number = self.answered + self.asked.len() as u64;
            self.waiting.push_back(question(number, self.size));
            self.asked.push_back(self.next_at);
            self.next_at += self.interval;
            self.left -= 1;
        }
    }

    fn read(&mut self, message: &[u8], now: Instant) {
        assert_eq!(message, question(self.answered, self.size), "echo {}", self.answered);
        let asked = self.asked.pop_front().expect("an echo of something");
        self.answered += 1;
        self.round_trips.push(now.saturating_duration_since(asked));
    }

    fn poll_timeout(&self) -> Option<Instant> {
        (self.left > 0).then_some(self.next_at)
    }

    fn is_done(&self) -> bool {
        self.left == 0 && self.asked.is_empty()
    }
}

fn question(number: u64, size: usize) -> Vec<u8> {
    let mut message = pattern(number)[..size].to_vec();
    message[..8].copy_from_slice(&number.to_le_bytes());
    message
}

/// The bytes that follow `position` in an endless pattern, [`LONGEST`] of them.
fn pattern(position: u64) -> &'static [u8] {
    static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let block = |n: u8| (0..251).map(move |at: u8| at ^ n);
        (0..=u8::MAX).flat_map(block).cycle().take(PERIOD + LONGEST).collect()
    });
    let at = usize::try_from(position % PERIOD as u64).unwrap_or(0);
    &PATTERN[at..at + LONGEST]
}

/// See the default of [`Source::peek`].
const LEAST_ROOM: usize = 256;

/// No multiple of any segment size.
const PERIOD: usize = 251 * 256;

/// The longest message: more than 255 full segments.
const LONGEST: usize = 512 * 1024;
