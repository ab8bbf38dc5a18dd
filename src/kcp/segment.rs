//! The segment codec: ikcp's 24-byte little-endian header and its payload.
//!
//! ```text
//!  0      4     5     6     8      12     16     20     24
//!  | conv | cmd | frg | wnd |  ts  |  sn  | una  | len  | payload (len) |
//! ```
//!
//! Several segments may stand in one packet (`ikcp_encode_seg`, `ikcp_input`).

use thiserror::Error;

/// The header of one segment, without its length field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// The conversation both ends agree on.
    pub(crate) conv: u32,
    /// What the segment asks for.
    pub(crate) command: Command,
    /// How many fragments of the same message follow.
    pub(crate) frg: u8,
    /// The sender's free receive window, in segments.
    pub(crate) wnd: u16,
    /// The sender's clock in milliseconds; in an ack, the echo of the acknowledged segment's.
    pub(crate) ts: u32,
    /// The segment's number; in an ack, the number of the acknowledged segment.
    pub(crate) sn: u32,
    /// The first number the sender of this segment has not received.
    pub(crate) una: u32,
}

impl Header {
    /// Encodes the header of a segment with `len` bytes of payload.
    pub(crate) fn encode(&self, len: u32) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[field::CONV].copy_from_slice(&self.conv.to_le_bytes());
        bytes[field::CMD] = self.command as u8;
        bytes[field::FRG] = self.frg;
        bytes[field::WND].copy_from_slice(&self.wnd.to_le_bytes());
        bytes[field::TS].copy_from_slice(&self.ts.to_le_bytes());
        bytes[field::SN].copy_from_slice(&self.sn.to_le_bytes());
        bytes[field::UNA].copy_from_slice(&self.una.to_le_bytes());
        bytes[field::LEN].copy_from_slice(&len.to_le_bytes());
        bytes
    }
}

/// The four commands of ikcp (`IKCP_CMD_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Command {
    /// Carries data.
    Push = 81,
    /// Acknowledges one segment.
    Ack = 82,
    /// Asks for the peer's receive window.
    Ask = 83,
    /// Tells the receive window.
    Tell = 84,
}

impl Command {
    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            81 => Some(Self::Push),
            82 => Some(Self::Ack),
            83 => Some(Self::Ask),
            84 => Some(Self::Tell),
            _ => None,
        }
    }
}

/// Why a packet is not a sequence of KCP segments of this conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Malformed {
    /// The packet ends inside a header, or holds no segment at all.
    #[error("the packet ends inside a segment header")]
    Truncated,
    /// A segment's length goes beyond the end of the packet.
    #[error("a segment is longer than its packet")]
    Length,
    /// A segment belongs to another conversation.
    #[error("a segment belongs to another conversation")]
    Conversation,
    /// A segment's command is none of ikcp's four.
    #[error("a segment has an unknown command")]
    Command,
}

/// Splits the first segment off `packet`: its header, its payload and what follows it.
///
/// # Errors
/// Says what is wrong with the first segment; the rest is not looked at.
pub(crate) fn split(packet: &[u8], conv: u32) -> Result<(Header, &[u8], &[u8]), Malformed> {
    let (bytes, rest) = packet.split_first_chunk::<HEADER_LEN>().ok_or(Malformed::Truncated)?;
    if u32_at(bytes, 0) != conv {
        return Err(Malformed::Conversation);
    }
    let header = Header {
        conv,
        command: Command::from_byte(bytes[field::CMD]).ok_or(Malformed::Command)?,
        frg: bytes[field::FRG],
        wnd: u16::from_le_bytes([bytes[6], bytes[7]]),
        ts: u32_at(bytes, 8),
        sn: u32_at(bytes, 12),
        una: u32_at(bytes, 16),
    };
    let len = usize::try_from(u32_at(bytes, 20)).map_err(|_| Malformed::Length)?;
    let (payload, rest) = rest.split_at_checked(len).ok_or(Malformed::Length)?;
    Ok((header, payload, rest))
}

/// Checks a whole packet, so that a bad one changes nothing.
///
/// # Errors
/// Says what is wrong with the first bad segment.
pub(crate) fn check(packet: &[u8], conv: u32) -> Result<(), Malformed> {
    let mut rest = packet;
    loop {
        (_, _, rest) = split(rest, conv)?;
        if rest.is_empty() {
            return Ok(());
        }
    }
}

/// The conversation that a packet says it belongs to (`ikcp_getconv`); `None` if it is shorter than that.
pub fn conversation(packet: &[u8]) -> Option<u32> {
    packet.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

/// How far `a` lies ahead of `b` in wrapping numbers; negative if it lies behind (`_itimediff`).
pub(crate) fn distance(a: u32, b: u32) -> i32 {
    a.wrapping_sub(b).cast_signed()
}

fn u32_at(bytes: &[u8; HEADER_LEN], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Where the header's fields stand.
mod field {
    use std::ops::Range;

    pub(super) const CONV: Range<usize> = 0..4;
    pub(super) const CMD: usize = 4;
    pub(super) const FRG: usize = 5;
    pub(super) const WND: Range<usize> = 6..8;
    pub(super) const TS: Range<usize> = 8..12;
    pub(super) const SN: Range<usize> = 12..16;
    pub(super) const UNA: Range<usize> = 16..20;
    pub(super) const LEN: Range<usize> = 20..24;
}

/// Bytes of a segment's header (`IKCP_OVERHEAD`).
pub const HEADER_LEN: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header = Header {
        conv: 0x1122_3344,
        command: Command::Push,
        frg: 2,
        wnd: 0x0506,
        ts: 0x0708_090a,
        sn: 0x0b0c_0d0e,
        una: 0x0f10_1112,
    };

    #[test]
    fn encodes_the_bytes_of_ikcp() {
        assert_eq!(
            HEADER.encode(3),
            [
                0x44, 0x33, 0x22, 0x11, 81, 2, 0x06, 0x05, 0x0a, 0x09, 0x08, 0x07, 0x0e, 0x0d, 0x0c, 0x0b,
                0x12, 0x11, 0x10, 0x0f, 3, 0, 0, 0
            ]
        );
    }

    #[test]
    fn splits_what_it_encoded() {
        let mut packet = HEADER.encode(3).to_vec();
        packet.extend_from_slice(b"abcrest");
        let (header, payload, rest) = split(&packet, HEADER.conv).unwrap();
        assert_eq!((header, payload, rest), (HEADER, &b"abc"[..], &b"rest"[..]));
    }

    #[test]
    fn names_what_is_wrong_with_a_packet() {
        let conv = HEADER.conv;
        let good = HEADER.encode(0);
        let mut unknown = good;
        unknown[4] = 85;
        assert_eq!(check(&[], conv), Err(Malformed::Truncated));
        assert_eq!(check(&good[..23], conv), Err(Malformed::Truncated));
        assert_eq!(check(&HEADER.encode(1), conv), Err(Malformed::Length));
        assert_eq!(check(&HEADER.encode(u32::MAX), conv), Err(Malformed::Length));
        assert_eq!(check(&good, conv ^ 1), Err(Malformed::Conversation));
        assert_eq!(check(&unknown, conv), Err(Malformed::Command));
        assert_eq!(check(&[good, unknown].concat(), conv), Err(Malformed::Command));
        assert_eq!(check(&[good, good].concat(), conv), Ok(()));
    }

    #[test]
    fn reads_the_conversation_of_a_packet() {
        assert_eq!(conversation(&HEADER.encode(0)), Some(HEADER.conv));
        assert_eq!(conversation(&[1, 2, 3]), None);
    }

    #[test]
    fn measures_distance_across_the_wrap() {
        assert_eq!(distance(2, u32::MAX), 3);
        assert_eq!(distance(u32::MAX, 2), -3);
    }
}
