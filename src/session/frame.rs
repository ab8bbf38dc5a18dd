//! The frames inside one sealed packet: what the two ends of a session say to each other beside and around KCP.
//!
//! Every frame is a type, a length and a body; integers are little-endian. A packet holds whole frames only, and
//! ends with its last frame or with padding (type 0, to the end of the packet).
//!
//! ```text
//!  0      1        3              3+length
//!  | type | length | body ...     |
//! ```
//!
//! | type | frame | body |
//! |---|---|---|
//! | 0 | padding | the rest of the packet, no length |
//! | 1 | `PING` | `token u64, size u16`: of the outer packet that carries it, if that is what is asked about, else 0 |
//! | 2 | `PONG` | the token of its `PING`, and the size of the outer packet that brought it |
//! | 3 | `KCP` | one KCP packet |
//! | 4 | `DATAGRAM` | one IP packet |
//! | 5 | `FRAGMENT` | a piece of an encoded `KCP` or `DATAGRAM`: see [`super::fragment`] |
//! | 6 | `USE` | `number u32`, then the carrier numbers in use, `u32` each |
//! | 7 | `EPOCH` | `epoch u32` |
//! | 8 | `CLOSE` | `code u8`, reason in UTF-8 |
//! | 9 | `PARITY` | reserved: forward error correction |
//! | 10 | `SEEN` | `sent u64, arrived u64`: of this carrier's packets to the sender, up to the last that arrived |
//! | 11 | `LEFT` | none: the client has left this carrier, which ends with a FIN each way; the session goes on on the others |
//!
//! What follows a frame of an unknown type is not looked at. So a type that other versions may not know stands alone in its
//! packet, like `LEFT`: they drop it, and nothing else.

use std::fmt;

use super::fragment::{PIECE_HEADER, Piece};
use super::loss::Counts;

/// One decoded frame; bodies borrow from the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    /// Asks for a `PONG` with the same token on the same carrier.
    Ping { token: u64, size: u16 },
    /// Proves a round trip.
    Pong { token: u64, size: u16 },
    /// One KCP packet.
    Kcp(&'a [u8]),
    /// One inner IP packet.
    Datagram(&'a [u8]),
    /// A piece of one of these two.
    Fragment(Piece<'a>),
    /// The carriers the client uses, by number; the highest `number` holds.
    Use { number: u32, carriers: Carriers<'a> },
    /// The sender's KCP epoch.
    Epoch(u32),
    /// The sender ends the session.
    Close(CloseCode),
    /// What arrived at the sender on this carrier.
    Seen(Counts),
    /// The sender has left this carrier.
    Left,
}

/// The carrier numbers of a `USE` frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Carriers<'a>(&'a [u8]);

impl Carriers<'_> {
    /// The last number named: the carrier to answer on while one is used at a time.
    pub(crate) fn last(&self) -> Option<u32> {
        self.0.last_chunk().map(|bytes| u32::from_le_bytes(*bytes))
    }
}

/// Why one end closed a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseCode {
    /// The user took the tunnel down, or the server stops.
    Done,
    /// A newer session of the same key took its place.
    Replaced,
    /// The peer broke the protocol.
    Protocol,
    /// A code of a later version.
    Other(u8),
}

impl CloseCode {
    fn to_wire(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Replaced => 1,
            Self::Protocol => 2,
            Self::Other(code) => code,
        }
    }

    fn from_wire(code: u8) -> Self {
        match code {
            0 => Self::Done,
            1 => Self::Replaced,
            2 => Self::Protocol,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("closed by the other end"),
            Self::Replaced => f.write_str("replaced by a newer session of the same key"),
            Self::Protocol => f.write_str("closed for a breach of protocol"),
            Self::Other(code) => write!(f, "closed with code {code}"),
        }
    }
}

/// A packet whose frames do not parse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MalformedFrame;

/// Walks the frames of one opened packet.
#[derive(Debug)]
pub(crate) struct Frames<'a> {
    rest: &'a [u8],
}

impl<'a> Frames<'a> {
    pub(crate) fn new(plaintext: &'a [u8]) -> Self {
        Self { rest: plaintext }
    }

    fn decode(&mut self) -> Result<Option<Frame<'a>>, MalformedFrame> {
        let Some((&kind, rest)) = self.rest.split_first() else { return Ok(None) };
        if kind == PADDING {
            return Ok(None);
        }
        let (length, rest) = rest.split_first_chunk().ok_or(MalformedFrame)?;
        let (body, rest) =
            rest.split_at_checked(usize::from(u16::from_le_bytes(*length))).ok_or(MalformedFrame)?;
        self.rest = rest;
        decode_body(kind, body).map(Some)
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<Frame<'a>, MalformedFrame>;

    fn next(&mut self) -> Option<Self::Item> {
        let frame = self.decode().transpose();
        if !matches!(frame, Some(Ok(_))) {
            self.rest = &[];
        }
        frame
    }
}

/// The one frame that these bytes are, if they are one.
pub(crate) fn whole(encoded: &[u8]) -> Option<Frame<'_>> {
    let mut frames = Frames::new(encoded);
    let frame = frames.next()?.ok()?;
    frames.rest.is_empty().then_some(frame)
}

fn decode_body(kind: u8, body: &[u8]) -> Result<Frame<'_>, MalformedFrame> {
    match kind {
        PING | PONG => {
            let (token, rest) = body.split_first_chunk().ok_or(MalformedFrame)?;
            let token = u64::from_le_bytes(*token);
            let size = u16::from_le_bytes(rest.try_into().map_err(|_| MalformedFrame)?);
            Ok(if kind == PING { Frame::Ping { token, size } } else { Frame::Pong { token, size } })
        }
        KCP => Ok(Frame::Kcp(body)),
        DATAGRAM => Ok(Frame::Datagram(body)),
        FRAGMENT => Piece::decode(body).map(Frame::Fragment).ok_or(MalformedFrame),
        USE => {
            let (number, carriers) = body.split_first_chunk().ok_or(MalformedFrame)?;
            if carriers.is_empty() || carriers.len() % 4 != 0 {
                return Err(MalformedFrame);
            }
            Ok(Frame::Use { number: u32::from_le_bytes(*number), carriers: Carriers(carriers) })
        }
        EPOCH => Ok(Frame::Epoch(u32::from_le_bytes(body.try_into().map_err(|_| MalformedFrame)?))),
        CLOSE => {
            let (&code, _reason) = body.split_first().ok_or(MalformedFrame)?;
            Ok(Frame::Close(CloseCode::from_wire(code)))
        }
        SEEN => {
            let (sent, arrived) = body.split_first_chunk().ok_or(MalformedFrame)?;
            let arrived = arrived.try_into().map_err(|_| MalformedFrame)?;
            let (sent, arrived) = (u64::from_le_bytes(*sent), u64::from_le_bytes(arrived));
            Ok(Frame::Seen(Counts { sent, arrived }))
        }
        LEFT if body.is_empty() => Ok(Frame::Left),
        _ => Err(MalformedFrame),
    }
}

/// Appends a `PING`.
pub(crate) fn put_ping(out: &mut Vec<u8>, token: u64, size: u16) {
    put_probe(out, PING, token, size);
}

/// Appends the `PONG` that answers a `PING`.
pub(crate) fn put_pong(out: &mut Vec<u8>, token: u64, size: u16) {
    put_probe(out, PONG, token, size);
}

fn put_probe(out: &mut Vec<u8>, kind: u8, token: u64, size: u16) {
    let mut body = [0; 10];
    body[..8].copy_from_slice(&token.to_le_bytes());
    body[8..].copy_from_slice(&size.to_le_bytes());
    put(out, kind, &body);
}

/// Appends a `DATAGRAM`.
pub(crate) fn put_datagram(out: &mut Vec<u8>, packet: &[u8]) {
    put(out, DATAGRAM, packet);
}

/// Appends a `FRAGMENT`.
pub(crate) fn put_fragment(out: &mut Vec<u8>, piece: Piece<'_>) {
    let Ok(length) = u16::try_from(PIECE_HEADER + piece.bytes.len()) else { return };
    out.push(FRAGMENT);
    out.extend_from_slice(&length.to_le_bytes());
    piece.encode(out);
}

/// Appends a `USE` of one carrier.
pub(crate) fn put_use(out: &mut Vec<u8>, number: u32, carrier: u32) {
    let mut body = [0; 8];
    body[..4].copy_from_slice(&number.to_le_bytes());
    body[4..].copy_from_slice(&carrier.to_le_bytes());
    put(out, USE, &body);
}

/// Appends an `EPOCH`.
pub(crate) fn put_epoch(out: &mut Vec<u8>, epoch: u32) {
    put(out, EPOCH, &epoch.to_le_bytes());
}

/// Appends a `CLOSE`.
pub(crate) fn put_close(out: &mut Vec<u8>, code: CloseCode) {
    put(out, CLOSE, &[code.to_wire()]);
}

/// Appends a `LEFT`.
pub(crate) fn put_left(out: &mut Vec<u8>) {
    put(out, LEFT, &[]);
}

/// Appends a `SEEN`.
pub(crate) fn put_seen(out: &mut Vec<u8>, counts: Counts) {
    let mut body = [0; 16];
    body[..8].copy_from_slice(&counts.sent.to_le_bytes());
    body[8..].copy_from_slice(&counts.arrived.to_le_bytes());
    put(out, SEEN, &body);
}

/// Appends a `KCP` frame whose body `write` appends; takes it all back if `write` says there was nothing.
pub(crate) fn put_kcp(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> bool) -> bool {
    let start = out.len();
    out.extend_from_slice(&[KCP, 0, 0]);
    let wrote = write(out);
    match u16::try_from(out.len() - start - FRAME_HEADER) {
        Ok(length) if wrote => out[start + 1..start + FRAME_HEADER].copy_from_slice(&length.to_le_bytes()),
        _ => out.truncate(start),
    }
    wrote
}

fn put(out: &mut Vec<u8>, kind: u8, body: &[u8]) {
    let Ok(length) = u16::try_from(body.len()) else { return };
    out.push(kind);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(body);
}

/// Bytes of a frame before its body.
pub(crate) const FRAME_HEADER: usize = 3;

const PADDING: u8 = 0;
const PING: u8 = 1;
const PONG: u8 = 2;
const KCP: u8 = 3;
const DATAGRAM: u8 = 4;
const FRAGMENT: u8 = 5;
const USE: u8 = 6;
const EPOCH: u8 = 7;
const CLOSE: u8 = 8;
const SEEN: u8 = 10;
const LEFT: u8 = 11;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded() -> Vec<u8> {
        let mut out = Vec::new();
        put_ping(&mut out, 0x0102_0304_0506_0708, 1400);
        put_use(&mut out, 7, 3);
        put_epoch(&mut out, 2);
        put_datagram(&mut out, b"ip");
        assert!(put_kcp(&mut out, |out| {
            out.extend_from_slice(b"kcp");
            true
        }));
        put_close(&mut out, CloseCode::Replaced);
        put_fragment(&mut out, PIECE);
        out
    }

    const PIECE: Piece<'_> = Piece { id: 1, offset: 1300, more: true, bytes: b"ab" };

    #[test]
    fn encodes_the_documented_bytes() {
        let hex: String = encoded().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "010a0008070605040302017805\
             0608000700000003000000\
             07040002000000\
             0402006970\
             0303006b6370\
             08010001\
             050b00010000001405000001\
             6162"
        );
    }

    #[test]
    fn decodes_what_it_encodes() {
        let bytes = encoded();
        let frames: Vec<_> = Frames::new(&bytes).map(Result::unwrap).collect();
        assert_eq!(frames.len(), 7);
        assert_eq!(frames[0], Frame::Ping { token: 0x0102_0304_0506_0708, size: 1400 });
        assert!(matches!(frames[1], Frame::Use { number: 7, carriers } if carriers.last() == Some(3)));
        assert_eq!(
            frames[2..],
            [
                Frame::Epoch(2),
                Frame::Datagram(b"ip"),
                Frame::Kcp(b"kcp"),
                Frame::Close(CloseCode::Replaced),
                Frame::Fragment(PIECE)
            ]
        );
    }

    #[test]
    fn says_what_arrived() {
        let mut bytes = Vec::new();
        put_seen(&mut bytes, Counts { sent: 7, arrived: 0x0102 });
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "0a100007000000000000000201000000000000");
        let frames: Vec<_> = Frames::new(&bytes).collect();
        assert_eq!(frames, [Ok(Frame::Seen(Counts { sent: 7, arrived: 0x0102 }))]);
    }

    #[test]
    fn says_that_a_carrier_was_left() {
        let mut bytes = Vec::new();
        put_left(&mut bytes);
        assert_eq!(bytes, [11, 0, 0]);
        assert_eq!(Frames::new(&bytes).collect::<Vec<_>>(), [Ok(Frame::Left)]);
        assert_eq!(Frames::new(&[11, 1, 0, 7]).collect::<Vec<_>>(), [Err(MalformedFrame)]);
    }

    #[test]
    fn takes_back_a_kcp_frame_with_nothing_in_it() {
        let mut out = vec![1];
        assert!(!put_kcp(&mut out, |_| false));
        assert_eq!(out, [1]);
    }

    #[test]
    fn stops_at_padding() {
        let mut bytes = encoded();
        bytes.extend_from_slice(&[0, 0xff, 0xff]);
        assert_eq!(Frames::new(&bytes).filter(Result::is_ok).count(), 7);
    }

    #[test]
    fn says_malformed_once_and_ends() {
        let bytes = [PING, 10, 0, 1];
        assert_eq!(Frames::new(&bytes).collect::<Vec<_>>(), [Err(MalformedFrame)]);
    }

    proptest! {
        #[test]
        fn ends_on_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Frames::new(&bytes).count() <= bytes.len());
        }
    }
}
