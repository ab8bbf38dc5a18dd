//! The header of a TCP segment, as far as boxes look at it (RFC 9293, section 3.1).

use crate::ip::{IpHeader, TCP, u16_at};

/// What boxes read of a TCP segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TcpHeader {
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    /// As it stands there, not scaled.
    pub(crate) window: u16,
    /// Bytes of data.
    pub(crate) payload: u32,
    /// Window scale (RFC 7323).
    pub(crate) scale: Option<u8>,
    /// Whether the end takes selective acknowledgements (RFC 2018).
    pub(crate) sack_permitted: bool,
    /// The right edges of the selectively acknowledged blocks, the highest of them.
    pub(crate) sack: Option<u32>,
}

impl TcpHeader {
    /// The segment of a packet; `None` if it is not TCP, a later fragment, or cut short.
    pub(crate) fn parse(frame: &[u8], header: &IpHeader) -> Option<Self> {
        if header.protocol != TCP || header.is_later_fragment {
            return None;
        }
        let segment = frame.get(header.transport..header.end)?;
        let length = usize::from(segment.get(12)? >> 4) * 4;
        let options = segment.get(TCP_HEADER..length)?;
        let mut parsed = Self {
            seq: u32_at(segment, 4)?,
            ack: u32_at(segment, 8)?,
            flags: *segment.get(13)?,
            window: u16_at(segment, 14)?,
            payload: u32::try_from(segment.len() - length).ok()?,
            scale: None,
            sack_permitted: false,
            sack: None,
        };
        parsed.read_options(options);
        Some(parsed)
    }

    pub(crate) const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Whether this opens a connection.
    pub(crate) const fn is_syn(&self) -> bool {
        self.has(SYN) && !self.has(ACK) && !self.has(RST)
    }

    /// Whether this answers one that opens a connection.
    pub(crate) const fn is_syn_ack(&self) -> bool {
        self.has(SYN) && self.has(ACK) && !self.has(RST)
    }

    /// The sequence number behind the segment: SYN and FIN take one each.
    pub(crate) fn end(&self) -> u32 {
        let flags = u32::from(self.has(SYN)) + u32::from(self.has(FIN));
        self.seq.wrapping_add(self.payload).wrapping_add(flags)
    }

    fn read_options(&mut self, mut options: &[u8]) {
        while let [kind, rest @ ..] = options {
            options = match *kind {
                END_OF_OPTIONS => return,
                NO_OPERATION => rest,
                kind => {
                    let Some(length) = rest.first().map(|length| usize::from(*length)) else { return };
                    let (Some(value), Some(next)) = (options.get(2..length), options.get(length..)) else {
                        return;
                    };
                    self.read_option(kind, value);
                    next
                }
            };
        }
    }

    fn read_option(&mut self, kind: u8, value: &[u8]) {
        match kind {
            WINDOW_SCALE => self.scale = value.first().map(|scale| (*scale).min(MAX_SCALE)),
            SACK_PERMITTED => self.sack_permitted = true,
            SACK => {
                for block in value.chunks_exact(8) {
                    let right = u32::from_be_bytes([block[4], block[5], block[6], block[7]]);
                    self.sack = Some(self.sack.filter(|sack| is_after(*sack, right)).unwrap_or(right));
                }
            }
            _ => {}
        }
    }
}

/// Whether sequence number `one` stands behind `other`.
pub(crate) const fn is_after(one: u32, other: u32) -> bool {
    other.wrapping_sub(one).cast_signed() < 0
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Length of a TCP header without options.
pub(crate) const TCP_HEADER: usize = 20;

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const PSH: u8 = 0x08;
pub(crate) const RST: u8 = 0x04;
pub(crate) const ACK: u8 = 0x10;

const END_OF_OPTIONS: u8 = 0;
const NO_OPERATION: u8 = 1;
const WINDOW_SCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const SACK: u8 = 5;

/// The largest window scale (RFC 7323, section 2.3).
const MAX_SCALE: u8 = 14;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ip::Layer;
    use crate::line::Direction;
    use crate::testing::{ENDS, Tcp, udp};

    fn parse(packet: &[u8]) -> Option<TcpHeader> {
        TcpHeader::parse(packet, &Layer::Ip.parse(packet)?)
    }

    #[test]
    fn reads_a_segment_of_both_families() {
        for (client, server) in ENDS {
            let segment =
                Tcp::between(client, server, Direction::In, SYN | ACK).at(7, 9).window(11).payload(5);
            let header = parse(&segment.scale(20).packet()).unwrap();
            assert_eq!((header.seq, header.ack, header.window, header.payload), (7, 9, 11, 5));
            assert_eq!((header.scale, header.sack_permitted, header.sack), (Some(14), false, None));
            assert_eq!(header.end(), 13);
            assert!(header.is_syn_ack() && !header.is_syn());
        }
    }

    #[test]
    fn finds_the_highest_of_the_selective_acknowledgements() {
        for edges in [[500_u32, 900, 100, 300], [100, 300, 500, 900], [0xffff_ff00, 0xffff_fff0, 800, 900]] {
            let mut options = vec![1, 1, 5, 18];
            edges.iter().for_each(|edge| options.extend(edge.to_be_bytes()));
            let segment = Tcp { options, ..Tcp::new(Direction::Out, ACK) };
            assert_eq!(parse(&segment.packet()).unwrap().sack, Some(900), "{edges:?}");
        }
    }

    #[test]
    fn options_that_make_no_sense_end_the_reading_and_nothing_else() {
        for options in [[3, 0, 7, 7], [3, 200, 7, 7], [1, 1, 1, 3], [0, 3, 3, 7], [3, 1, 9, 9]] {
            let segment = Tcp { options: options.to_vec(), ..Tcp::new(Direction::Out, SYN) };
            assert_eq!(parse(&segment.packet()).unwrap().scale, None, "{options:?}");
        }
    }

    #[test]
    fn numbers_go_round() {
        assert!(is_after(1, 0) && is_after(0, u32::MAX) && is_after(0x7fff_ffff, 0));
        assert!(!is_after(0, 0) && !is_after(u32::MAX, 0));
    }

    #[test]
    fn nothing_else_is_a_segment() {
        let packet = Tcp::new(Direction::Out, ACK).packet();
        assert_eq!(parse(&udp(ENDS[0].0, ENDS[0].1, 100)), None);
        for length in 20..40 {
            assert_eq!(parse(&packet[..length]), None, "{length} bytes");
        }
        let mut long = packet;
        long[32] = 0xf0;
        assert_eq!(parse(&long), None, "a header longer than the packet");
    }
}
