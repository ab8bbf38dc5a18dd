//! An end with the project's own KCP.

use std::time::Instant;

use vpn::kcp::{Config, HEADER_LEN, Kcp, Messages, Stats, Stream};

use super::app::App;

/// Our KCP and what is between it and the application.
#[derive(Debug)]
pub(crate) struct Ours {
    kcp: Kcp,
    room: usize,
    queue: Queue,
    buffer: Vec<u8>,
}

impl Ours {
    pub(crate) fn new(conv: u32, config: Config, sending: Sending, now: Instant) -> Self {
        let queue = match sending {
            Sending::Pulled => Queue::None,
            Sending::Messages => Queue::Messages(Messages::new(&config, usize::MAX)),
            Sending::Stream => Queue::Stream(Stream::new(STREAM_LIMIT)),
        };
        let room = config.mss + HEADER_LEN;
        Self { kcp: Kcp::new(conv, config, now), room, queue, buffer: Vec::new() }
    }

    pub(crate) fn handle_packet(&mut self, packet: &[u8], now: Instant) {
        self.kcp.handle_packet(packet, now).expect("a packet of KCP");
    }

    pub(crate) fn poll_message(&mut self) -> Option<Vec<u8>> {
        self.kcp.poll_message()
    }

    /// Appends the next packet to `packet`.
    pub(crate) fn poll_transmit(&mut self, app: &mut App, packet: &mut Vec<u8>, now: Instant) -> bool {
        self.take(app);
        let start = packet.len();
        let sent = match &mut self.queue {
            Queue::None => self.kcp.poll_transmit(self.room, app, packet, now),
            Queue::Messages(messages) => self.kcp.poll_transmit(self.room, messages, packet, now),
            Queue::Stream(stream) => self.kcp.poll_transmit(self.room, stream, packet, now),
        };
        assert!(packet.len() - start <= self.room);
        sent
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.kcp.poll_timeout()
    }

    pub(crate) fn is_idle(&self) -> bool {
        let waits = match &self.queue {
            Queue::None => false,
            Queue::Messages(messages) => !messages.is_empty(),
            Queue::Stream(stream) => !stream.is_empty(),
        };
        !waits && !self.kcp.has_unacked()
    }

    pub(crate) fn stats(&self) -> Stats {
        self.kcp.stats()
    }

    pub(crate) fn on_path_restored(&mut self, now: Instant) {
        self.kcp.on_path_restored(now);
    }

    /// Fills the queue with what the application has to send.
    fn take(&mut self, app: &mut App) {
        while self.queue.has_room(app.longest()) {
            self.buffer.resize(app.longest(), 0);
            let len = app.write(&mut self.buffer);
            if len == 0 {
                return;
            }
            self.queue.push(&self.buffer[..len]);
        }
    }
}

/// How an application's data reaches our KCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sending {
    /// It is the source itself, as MUX is in the tunnel; what it writes at once fits a segment.
    Pulled,
    /// Through [`Messages`].
    Messages,
    /// Through [`Stream`]: the bounds of what it writes are not kept.
    Stream,
}

#[derive(Debug)]
enum Queue {
    None,
    Messages(Messages),
    Stream(Stream),
}

impl Queue {
    fn has_room(&self, len: usize) -> bool {
        match self {
            Self::None => false,
            Self::Messages(messages) => messages.len() < MOST_MESSAGES,
            Self::Stream(stream) => stream.len() + len <= STREAM_LIMIT,
        }
    }

    fn push(&mut self, message: &[u8]) {
        match self {
            Self::None => {}
            Self::Messages(messages) => messages.push(message).expect("a message it takes"),
            Self::Stream(stream) => assert_eq!(stream.write(message), message.len()),
        }
    }
}

/// More than one packet holds of the shortest.
const MOST_MESSAGES: usize = 64;
/// More than one packet holds.
const STREAM_LIMIT: usize = 16 * 1024;
