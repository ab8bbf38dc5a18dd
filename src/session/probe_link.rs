//! What carries a probe's pings, either end: a fake-TCP connection and its keys, and nothing else.

use std::time::Instant;

use super::frame::{Frame, Frames};
use crate::carrier::{Connection, Input, Segment};
use crate::crypto::{HEADER_LEN, Keys, Mask, OVERHEAD, Opener, Sealer};

/// One end of a connection that carries pings only.
#[derive(Debug)]
pub(crate) struct ProbeLink {
    connection: Connection,
    /// Ours: what the other end writes in the header of each packet.
    index: u32,
    sealer: Sealer,
    opener: Opener,
}

impl ProbeLink {
    pub(crate) fn new(connection: Connection, index: u32, keys: Keys) -> Self {
        let (sealer, opener) = keys.into_pair();
        Self { connection, index, sealer, opener }
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

    /// The connection alone: nothing is sealed or opened any more.
    pub(crate) fn into_connection(self) -> Connection {
        self.connection
    }

    /// Whether the segment came on this 4-tuple.
    pub(crate) fn is_from(&self, segment: &Segment) -> bool {
        self.connection.is_from(segment)
    }

    /// Takes a packet of this 4-tuple and opens it in place: its counter and its one frame. `None` for everything else, which the
    /// connection may have counted.
    pub(crate) fn open<'a>(
        &mut self,
        segment: &Segment,
        mask: &Mask,
        packet: &'a mut [u8],
        now: Instant,
    ) -> Option<(u64, Frame<'a>)> {
        if self.connection.handle_segment(segment, now) != Input::Payload {
            return None;
        }
        let payload = packet.get_mut(segment.payload.clone())?;
        let header = mask.header(payload).filter(|header| header.index == self.index)?;
        let opened = self.opener.open(header, payload).ok()?;
        self.connection.on_opened(segment, now);
        let frame = Frames::new(opened.plaintext).next()?.ok()?;
        Some((opened.counter, frame))
    }

    /// One outer packet with one frame, padded to `size` bytes.
    pub(crate) fn packet(&mut self, size: u16, frame: impl FnOnce(&mut Vec<u8>)) -> Option<Vec<u8>> {
        let header = self.connection.header_len();
        let mut packet = vec![0; header + HEADER_LEN];
        frame(&mut packet);
        // Padding is zeros.
        let plain = usize::from(size).saturating_sub(OVERHEAD - HEADER_LEN);
        if packet.len() < plain {
            packet.resize(plain, 0);
        }
        self.sealer.seal(&mut packet, header).ok()?;
        self.connection.finish_packet(&mut packet, true).ok()?;
        Some(packet)
    }
}
