//! The other end of a session, as a target plays it: it has keys, and says what the input tells it.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Instant;

use vpn::carrier::{Accepted, Connection};
use vpn::crypto::{HEADER_LEN, Mask, Opener, PrivateKey, Sealer, SessionId};
use vpn::kcp::{Config, CongestionKind, Kcp, Source};

use super::flow::ip;
use super::input::{Input, damage};
use super::kcp::segment_of;
use super::{mux, wire};

/// Keys, a carrier and an honest KCP under whatever MUX is told to say.
pub(crate) struct Puppet {
    pub(crate) mask: Mask,
    pub(crate) index: u32,
    pub(crate) connection: Connection,
    pub(crate) sealer: Sealer,
    pub(crate) opener: Opener,
    pub(crate) session: SessionId,
    pub(crate) epoch: u32,
    kcp: Kcp,
    messages: Messages,
}

impl Puppet {
    pub(crate) fn new(
        server: &PrivateKey,
        index: u32,
        connection: Connection,
        (sealer, opener): (Sealer, Opener),
        (session, epoch): (SessionId, u32),
        now: Instant,
    ) -> Self {
        Self {
            mask: Mask::new(&server.public_key()),
            index,
            connection,
            sealer,
            opener,
            session,
            epoch,
            kcp: Kcp::new(session.conv(epoch), KCP, now),
            messages: Messages::default(),
        }
    }

    /// Whether what was accepted came on our 4-tuple.
    pub(crate) fn is_from(&self, accepted: &Accepted) -> bool {
        (self.connection.local(), self.connection.remote()) == (accepted.local, accepted.remote)
    }

    /// Other keys from now on.
    pub(crate) fn rekey(&mut self, index: u32, (sealer, opener): (Sealer, Opener)) {
        (self.index, self.sealer, self.opener) = (index, sealer, opener);
    }

    /// A sealed packet.
    pub(crate) fn seal(&mut self, plaintext: &[u8]) -> Option<Vec<u8>> {
        let start = self.connection.header_len();
        let mut packet = vec![0; start + HEADER_LEN];
        packet.extend_from_slice(plaintext);
        self.sealer.seal(&mut packet, start).expect("fresh keys");
        self.connection.finish_packet(&mut packet, true).ok()?;
        Some(packet)
    }

    /// Says what an operation tells it, in frames of a sealed packet; `None` if there is nothing to send.
    pub(crate) fn speak(&mut self, operation: u8, input: &mut Input<'_>, now: Instant) -> Option<Vec<u8>> {
        let frames = match operation % 7 {
            0 => input.take(1336).to_vec(),
            1 => frame(input.u8() % 12, input.bytes()),
            2 => self.say(input.bytes(), now),
            3 => {
                let mut message = Vec::new();
                for _ in 0..=input.below(4) {
                    let frame = mux::frame(input);
                    // A frame that does not fit a message is what an honest end never sends.
                    message.extend(&frame[..frame.len().min(1000)]);
                }
                self.say(&message, now)
            }
            4 => frame(KCP_FRAME, &self.segment(input)),
            5 => frame(DATAGRAM, &datagram(input)),
            _ => self.say(b"", now),
        };
        let frames = &frames[..frames.len().min(1336)];
        self.seal(frames).filter(|_| !frames.is_empty())
    }

    /// A packet of KCP that carries `message`, and what else is due.
    fn say(&mut self, message: &[u8], now: Instant) -> Vec<u8> {
        if !message.is_empty() {
            self.messages.0.push_back(message[..message.len().min(KCP.mss)].to_vec());
        }
        let mut packet = Vec::new();
        self.kcp.poll_transmit(1333, &mut self.messages, &mut packet, now);
        if packet.is_empty() { packet } else { frame(KCP_FRAME, &packet) }
    }

    fn segment(&self, input: &mut Input<'_>) -> Vec<u8> {
        let stats = self.kcp.stats();
        let next = u32::try_from(stats.sent).unwrap_or(0);
        let (command, frg, near) = (81 + input.u8() % 4, input.u8(), u32::from(input.u16()));
        let fields = [input.u32(), next.wrapping_add(near).wrapping_sub(4), u32::from(input.u8())];
        segment_of(self.session.conv(self.epoch), [command, frg], input.u16(), fields, input.take(1200))
    }

    /// A sealed packet that something happened to on its way; it no longer opens, if anything did.
    pub(crate) fn damaged(&mut self, input: &mut Input<'_>) -> Option<(Vec<u8>, bool)> {
        let packet = self.seal(&frame(7, &0_u32.to_le_bytes()))?;
        let start = self.connection.header_len();
        let mut payload = packet[start..].to_vec();
        damage(&mut payload, input);
        let is_whole = payload == packet[start..];
        let mut damaged = wire::read(&packet);
        damaged.payload = 0..0;
        let repr = wire::repr(damaged.source, damaged.destination, damaged.flags, damaged.seq, damaged.ack);
        Some((wire::emit(&repr, &payload), is_whole))
    }

    /// Takes a packet of the end under test: it must open, once. Returns its plaintext if it is a sealed one.
    pub(crate) fn take(&mut self, packet: &mut [u8], now: Instant) -> Option<Vec<u8>> {
        let segment = wire::read(packet);
        let payload = &mut packet[segment.payload.clone()];
        let header = self.mask.header(payload)?;
        if header.index != self.index {
            return None;
        }
        let opened = self.opener.open(header, payload).expect("what the other end seals opens");
        let plaintext = opened.plaintext.to_vec();
        self.connection.on_opened(&segment, now);
        for (kind, body) in frames(&plaintext) {
            if kind == KCP_FRAME {
                // Of another epoch, or confused by segments of ours that were none.
                let _known = self.kcp.handle_packet(body, now).is_ok();
            }
        }
        while self.kcp.poll_message().is_some() {}
        Some(plaintext)
    }
}

/// The frames of a packet that the end under test made: whole, and of known types.
pub(crate) fn frames(plaintext: &[u8]) -> Vec<(u8, &[u8])> {
    let (mut rest, mut frames) = (plaintext, Vec::new());
    while let Some((&[kind, low, high], tail)) = rest.split_first_chunk() {
        if kind == 0 {
            return frames;
        }
        let length = usize::from(u16::from_le_bytes([low, high]));
        assert!(tail.len() >= length && KINDS.contains(&kind), "we wrote {plaintext:02x?}");
        let (body, next) = tail.split_at(length);
        frames.push((kind, body));
        rest = next;
    }
    assert!(rest.iter().all(|&byte| byte == 0), "we wrote {plaintext:02x?}");
    frames
}

/// One frame of a sealed packet.
pub(crate) fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let body = &body[..body.len().min(1333)];
    let length = u16::try_from(body.len()).expect("a short body");
    [&[kind], length.to_le_bytes().as_slice(), body].concat()
}

/// An inner packet, of and to addresses that are the peer's or not.
pub(crate) fn datagram(input: &mut Input<'_>) -> Vec<u8> {
    let addresses: [[IpAddr; 2]; 4] = [
        [[10, 77, 0, 2].into(), [0xfd77, 0, 0, 0, 0, 0, 0, 2].into()],
        [[10, 77, 0, 1].into(), [0xfd77, 0, 0, 0, 0, 0, 0, 1].into()],
        [[198, 51, 100, 7].into(), [0x2001, 0xdb8, 0, 0, 0, 0, 0, 7].into()],
        [[127, 0, 0, 1].into(), [0, 0, 0, 0, 0, 0, 0, 1].into()],
    ];
    let (which, protocol) = (input.u8(), [17, 1, 58, 6, 0, 44, 50, 255][input.below(8)]);
    let family = usize::from(which & 1);
    let (from, to) =
        (addresses[usize::from(which >> 1 & 3)][family], addresses[usize::from(which >> 3 & 3)][family]);
    let body = input.bytes();
    let length = if which & 0x80 != 0 { body.len() + usize::from(which & 0x70) * 16 } else { body.len() };
    let mut body = body.to_vec();
    body.resize(length, 0);
    ip(from, to, protocol, &body)
}

/// Messages that wait to be sent, each in a segment of its own.
#[derive(Debug, Default)]
struct Messages(VecDeque<Vec<u8>>);

impl Source for Messages {
    fn fill(&mut self, buffer: &mut [u8]) -> usize {
        if self.0.front().is_none_or(|message| message.len() > buffer.len()) {
            return 0;
        }
        let Some(message) = self.0.pop_front() else { return 0 };
        buffer[..message.len()].copy_from_slice(&message);
        message.len()
    }
}

const KCP: Config = Config {
    send_window: 1000,
    receive_window: 1000,
    congestion: CongestionKind::None,
    dead_link: Config::ikcp().dead_link,
    ..Config::full(1309, 64, 1 << 20)
};

pub(crate) const KCP_FRAME: u8 = 3;
pub(crate) const DATAGRAM: u8 = 4;

/// Arguments of [`Puppet::speak`] that say one sensible thing each, without the operation's number.
pub(crate) fn speeches() -> Vec<(u8, Vec<u8>)> {
    let counted =
        |bytes: &[u8]| [u16::try_from(bytes.len()).expect("short").to_le_bytes().as_slice(), bytes].concat();
    let ping = [7_u8, 0, 0, 0, 0, 0, 0, 0, 0x78, 5];
    let udp = [0x30, 0x39, 0, 53, 0, 9, 0, 0, 7];
    vec![
        (1, [&[1], counted(&ping).as_slice()].concat()),
        (1, [&[2], counted(&ping).as_slice()].concat()),
        (1, [&[6], counted(&[1, 0, 0, 0, 1, 0, 0, 0]).as_slice()].concat()),
        (1, [&[7], counted(&[2, 0, 0, 0]).as_slice()].concat()),
        (2, counted(&[1, 1, 0, 0, 0, 4, 198, 51, 100, 7, 80, 0])),
        (2, counted(&[1, 3, 0, 0, 0, 4, 127, 0, 0, 1, 80, 0])),
        (3, vec![1, 2, 0, 9, 0, 3, 0]),
        (4, vec![0, 0, 4, 0, 1, 0, 0, 0, 0, 128, 0, 7, 7, 7]),
        (5, [&[0x10, 0], counted(&udp).as_slice()].concat()),
        (5, [&[0x08, 1], counted(&[8, 0, 0, 0, 0, 0, 0, 0]).as_slice()].concat()),
        (6, Vec::new()),
        (1, [&[8], counted(&[0, b'b', b'y', b'e']).as_slice()].concat()),
        (1, [&[11], counted(&[]).as_slice()].concat()),
    ]
}

/// Frames that ends make: the reserved one they do not.
const KINDS: [u8; 10] = [1, 2, 3, 4, 5, 6, 7, 8, 10, 11];
