//! One established carrier: a fake-TCP connection and the keys that seal what it carries.

use std::time::Instant;

use super::engine::{Engine, PLAINTEXT};
use super::frame::{self, CloseCode};
use crate::carrier::{self, Connection, Segment};
use crate::crypto::{HEADER_LEN, Header, OpenError, Opened, Opener, Sealer};

/// A carrier that both ends have keys for.
#[derive(Debug)]
pub(crate) struct Link {
    number: u32,
    index: u32,
    connection: Connection,
    sealer: Sealer,
    opener: Opener,
    control: Vec<u8>,
    farewell: Option<Farewell>,
    created: Instant,
    opened: u64,
    highest: u64,
}

impl Link {
    /// `index` is ours: what the peer writes in the header of each packet.
    pub(crate) fn new(
        number: u32,
        index: u32,
        connection: Connection,
        (sealer, opener): (Sealer, Opener),
        now: Instant,
    ) -> Self {
        Self {
            number,
            index,
            connection,
            sealer,
            opener,
            control: Vec::new(),
            farewell: None,
            created: now,
            opened: 0,
            highest: 0,
        }
    }

    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(crate) fn connection_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }

    pub(crate) fn created(&self) -> Instant {
        self.created
    }

    /// Whether the segment came on this carrier's 4-tuple.
    pub(crate) fn is_from(&self, segment: &Segment) -> bool {
        self.connection.local() == segment.destination && self.connection.remote() == segment.source
    }

    /// Opens a packet in place and, only then, lets it move the TCP state.
    pub(crate) fn open<'a>(
        &mut self,
        segment: &Segment,
        header: Header,
        payload: &'a mut [u8],
        now: Instant,
    ) -> Result<Opened<'a>, OpenError> {
        let opened = self.opener.open(header, payload)?;
        if opened.newest && !self.is_from(segment) {
            self.connection.on_peer_moved(segment);
        }
        self.connection.on_opened(segment, now);
        self.opened += 1;
        self.highest = self.highest.max(opened.counter);
        Ok(opened)
    }

    /// The share of the peer's packets that never came, of 1.
    pub(crate) fn loss_in(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a share for display")]
        let share = self.opened as f64 / (self.highest + 1) as f64;
        (1.0 - share).max(0.0)
    }

    /// Queues frames for the next packet of this carrier; too many at once are dropped, the peer asks again.
    pub(crate) fn queue(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        let before = self.control.len();
        encode(&mut self.control);
        if self.control.len() > CONTROL_MAX {
            self.control.truncate(before);
        }
    }

    /// Ends the session on this carrier: `code` in a few packets, since none is acknowledged, then a FIN.
    pub(crate) fn say_goodbye(&mut self, code: CloseCode) {
        self.farewell = Some(Farewell { code: Some(code), left: GOODBYES });
    }

    /// Ends the connection with a FIN.
    pub(crate) fn close(&mut self) {
        self.farewell = Some(Farewell { code: None, left: 0 });
    }

    /// Whether the FIN was asked for.
    pub(crate) fn is_closing(&self) -> bool {
        self.farewell.is_some()
    }

    /// Whether the FIN has left: nothing more will.
    pub(crate) fn is_closed(&self) -> bool {
        self.connection.state() == carrier::State::Closed
    }

    /// Answers a ping on the carrier that brought it.
    pub(crate) fn queue_pong(&mut self, token: u64, size: u16) {
        self.queue(|out| frame::put_pong(out, token, size));
    }

    /// Writes one outer packet into `out`: this carrier's own frames, then what `engine` has to send.
    /// Returns `false` when there is nothing.
    pub(crate) fn poll_transmit(
        &mut self,
        engine: Option<&mut Engine>,
        out: &mut Vec<u8>,
        now: Instant,
    ) -> bool {
        let header = self.connection.header_len();
        let start = header + HEADER_LEN;
        out.clear();
        out.resize(start, 0);
        out.append(&mut self.control);
        match &mut self.farewell {
            Some(farewell) => farewell.fill(out),
            None => {
                if let Some(engine) = engine {
                    engine.fill_packet(out, start + PLAINTEXT, now);
                }
            }
        }
        if out.len() == start {
            return false;
        }
        let full = out.len() + MAX_SLACK >= start + PLAINTEXT;
        // Neither fails while the keys are fresh and the connection stands; when they are not, the carrier stops
        // answering and is replaced like any dead one.
        self.sealer.seal(out, header).is_ok() && self.connection.finish_packet(out, !full).is_ok()
    }

    /// Writes a TCP packet without payload (a delayed ACK, a FIN) if one is due.
    pub(crate) fn poll_ack(&mut self, out: &mut Vec<u8>, now: Instant) -> bool {
        if self.farewell.is_some_and(|farewell| farewell.left == 0) {
            self.connection.close();
        }
        let Some(packet) = self.connection.poll_transmit(now) else { return false };
        *out = packet;
        true
    }

    /// When [`Self::poll_ack`] has something.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.connection.poll_timeout()
    }
}

/// How a carrier ends.
#[derive(Clone, Copy, Debug)]
struct Farewell {
    code: Option<CloseCode>,
    left: u8,
}

impl Farewell {
    fn fill(&mut self, out: &mut Vec<u8>) {
        if let Some(code) = self.code.filter(|_| self.left > 0) {
            self.left -= 1;
            frame::put_close(out, code);
        }
    }
}

/// Our choice: at 20 % loss all are lost once in 125 times.
const GOODBYES: u8 = 3;

/// Our choice: room for the answers to 16 pings.
const CONTROL_MAX: usize = 256;

/// A packet this close to full is one of a burst, not its end: no PSH, so that receivers may merge it.
const MAX_SLACK: usize = 64;
