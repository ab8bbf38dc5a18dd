//! The frames of the MUX layer and their bytes.
//!
//! A message of the layer below holds whole frames, one behind the other; a frame never spans two
//! messages. Integers are little-endian and of fixed size, as KCP's are: a frame is found and checked
//! without a loop, and a `DATA` header of seven bytes is half a percent of a full message.
//!
//! ```text
//!            0   1        5          6                10/22      12/24
//!   OPEN     | 1 | id u32 | family u8 | address 4 or 16 | port u16 |      family 4 or 6
//!            0   1        5
//!   OPENED   | 2 | id u32 |
//!            0   1        5         7            7 + len
//!   DATA     | 3 | id u32 | len u16 | bytes ...  |       len at least 1
//!            0   1        5
//!   FIN      | 4 | id u32 |
//!            0   1        5         6
//!   RESET    | 5 | id u32 | code u8 |                    codes: see `ResetCode`
//!            0   1        5           13
//!   CREDIT   | 6 | id u32 | limit u64 |                  bytes since the stream's start
//!            0   1           9
//!   PING     | 7 | token u64 |
//!   PONG     | 8 | token u64 |                           the token of the PING it answers
//!            0   1
//!   GOAWAY   | 9 |
//! ```
//!
//! Id 0 is no stream's. An unknown type, family or code, a `DATA` without bytes and a frame that is
//! cut short are malformed: the layer below delivers exactly what was sent, so only a broken or
//! hostile peer makes them.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// The number of one stream; the client's are odd, the server's even, none is used twice in an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(u32);

/// Why a stream was reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResetCode {
    /// The target answered the connection with a reset (1).
    Refused,
    /// The target's host cannot be reached (2).
    HostUnreachable,
    /// The target's network cannot be reached (3).
    NetUnreachable,
    /// The target did not answer (4).
    Timeout,
    /// The far end's policy forbids the target (5).
    Denied,
    /// An end of the stream aborted it, or broke the protocol on it (6).
    Reset,
    /// A bound on streams or on buffered bytes was reached (7).
    Limit,
}

/// One frame; `DATA` borrows its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frame<'a> {
    /// Opens a stream to `target`.
    Open {
        /// The new stream.
        id: StreamId,
        /// Where the far end shall connect to.
        target: SocketAddr,
    },
    /// Answers `OPEN`: the target is connected.
    Opened(StreamId),
    /// The next bytes of a stream, never empty.
    Data {
        /// The stream.
        id: StreamId,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// The sender's direction ends here.
    Fin(StreamId),
    /// The stream ends at once in both directions.
    Reset {
        /// The stream.
        id: StreamId,
        /// Why.
        code: ResetCode,
    },
    /// The receiver takes bytes up to `limit`.
    Credit {
        /// The stream.
        id: StreamId,
        /// Bytes since the stream's start.
        limit: u64,
    },
    /// Asks for a `PONG` of the same token.
    Ping(u64),
    /// Answers a `PING`.
    Pong(u64),
    /// The sender takes no further `OPEN`.
    GoAway,
}

/// Bytes that are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The frame is longer than what is left of the message.
    #[error("a frame is cut short")]
    Truncated,
    /// No frame has this type.
    #[error("unknown frame type {0}")]
    Type(u8),
    /// `OPEN` with an address family that is neither 4 nor 6.
    #[error("unknown address family {0}")]
    Family(u8),
    /// `RESET` with an unknown code.
    #[error("unknown reset code {0}")]
    Code(u8),
    /// Stream id 0.
    #[error("stream id 0")]
    Id,
    /// `DATA` without bytes.
    #[error("DATA without bytes")]
    Empty,
}

impl StreamId {
    /// Makes an id; `None` for 0.
    pub(super) const fn new(id: u32) -> Option<Self> {
        if id == 0 { None } else { Some(Self(id)) }
    }

    /// The first id of the client (`odd`) or of the server.
    pub(super) const fn first(odd: bool) -> Self {
        Self(if odd { 1 } else { 2 })
    }

    /// The same side's next id; `None` when they are used up.
    pub(super) const fn next(self) -> Option<Self> {
        match self.0.checked_add(2) {
            Some(id) => Some(Self(id)),
            None => None,
        }
    }

    /// Whether the client opens this id.
    pub(super) const fn is_odd(self) -> bool {
        self.0 % 2 == 1
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<StreamId> for u32 {
    fn from(id: StreamId) -> Self {
        id.0
    }
}

impl ResetCode {
    const fn to_byte(self) -> u8 {
        match self {
            Self::Refused => 1,
            Self::HostUnreachable => 2,
            Self::NetUnreachable => 3,
            Self::Timeout => 4,
            Self::Denied => 5,
            Self::Reset => 6,
            Self::Limit => 7,
        }
    }

    const fn from_byte(byte: u8) -> Result<Self, Malformed> {
        Ok(match byte {
            1 => Self::Refused,
            2 => Self::HostUnreachable,
            3 => Self::NetUnreachable,
            4 => Self::Timeout,
            5 => Self::Denied,
            6 => Self::Reset,
            7 => Self::Limit,
            other => return Err(Malformed::Code(other)),
        })
    }
}

impl<'a> Frame<'a> {
    /// Takes one frame off the front of `message`.
    ///
    /// # Errors
    /// [`Malformed`]; nothing behind such a frame can be read.
    pub(super) fn decode(message: &mut &'a [u8]) -> Result<Self, Malformed> {
        let [kind] = take(message)?;
        Ok(match kind {
            OPEN => Self::Open { id: take_id(message)?, target: take_target(message)? },
            OPENED => Self::Opened(take_id(message)?),
            DATA => Self::Data { id: take_id(message)?, bytes: take_bytes(message)? },
            FIN => Self::Fin(take_id(message)?),
            RESET => {
                let id = take_id(message)?;
                let [code] = take(message)?;
                Self::Reset { id, code: ResetCode::from_byte(code)? }
            }
            CREDIT => Self::Credit { id: take_id(message)?, limit: u64::from_le_bytes(take(message)?) },
            PING => Self::Ping(u64::from_le_bytes(take(message)?)),
            PONG => Self::Pong(u64::from_le_bytes(take(message)?)),
            GOAWAY => Self::GoAway,
            other => return Err(Malformed::Type(other)),
        })
    }
}

/// A buffer being filled with whole frames; what does not fit leaves it as it was.
#[derive(Debug)]
pub(super) struct Writer<'a> {
    buffer: &'a mut [u8],
    len: usize,
}

impl<'a> Writer<'a> {
    /// Starts at the front of `buffer`.
    pub(super) fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer, len: 0 }
    }

    /// Bytes of whole frames written so far.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// How many bytes one more `DATA` frame could carry; 0 = none fits.
    pub(super) fn data_room(&self) -> usize {
        (self.buffer.len() - self.len).saturating_sub(DATA_HEADER).min(DATA_MAX)
    }

    /// Appends `frame`; false when it does not fit.
    pub(super) fn put(&mut self, frame: Frame<'_>) -> bool {
        let start = self.len;
        let fits = self.put_parts(frame).is_some();
        if !fits {
            self.len = start;
        }
        fits
    }

    /// Appends a `DATA` frame whose `len` bytes `copy` writes into the slice it is given.
    /// False, and `copy` not called, when `len` is 0 or above [`Writer::data_room`].
    pub(super) fn put_data(&mut self, id: StreamId, len: usize, copy: impl FnOnce(&mut [u8])) -> bool {
        if len == 0 || len > self.data_room() {
            return false;
        }
        let Ok(length) = u16::try_from(len) else {
            return false;
        };
        let start = self.len;
        let header = self.put_id(DATA, id).and_then(|()| self.bytes(&length.to_le_bytes()));
        let Some(body) = header.and_then(|()| self.buffer.get_mut(self.len..self.len + len)) else {
            self.len = start;
            return false;
        };
        copy(body);
        self.len += len;
        true
    }

    fn put_parts(&mut self, frame: Frame<'_>) -> Option<()> {
        match frame {
            Frame::Open { id, target } => {
                self.put_id(OPEN, id)?;
                match target.ip() {
                    IpAddr::V4(ip) => self.bytes(&[FAMILY_V4]).and_then(|()| self.bytes(&ip.octets()))?,
                    IpAddr::V6(ip) => self.bytes(&[FAMILY_V6]).and_then(|()| self.bytes(&ip.octets()))?,
                }
                self.bytes(&target.port().to_le_bytes())
            }
            Frame::Opened(id) => self.put_id(OPENED, id),
            Frame::Data { id, bytes } => {
                self.put_data(id, bytes.len(), |body| body.copy_from_slice(bytes)).then_some(())
            }
            Frame::Fin(id) => self.put_id(FIN, id),
            Frame::Reset { id, code } => self.put_id(RESET, id).and_then(|()| self.bytes(&[code.to_byte()])),
            Frame::Credit { id, limit } => {
                self.put_id(CREDIT, id).and_then(|()| self.bytes(&limit.to_le_bytes()))
            }
            Frame::Ping(token) => self.bytes(&[PING]).and_then(|()| self.bytes(&token.to_le_bytes())),
            Frame::Pong(token) => self.bytes(&[PONG]).and_then(|()| self.bytes(&token.to_le_bytes())),
            Frame::GoAway => self.bytes(&[GOAWAY]),
        }
    }

    fn put_id(&mut self, kind: u8, id: StreamId) -> Option<()> {
        self.bytes(&[kind])?;
        self.bytes(&id.0.to_le_bytes())
    }

    fn bytes(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.len + bytes.len();
        self.buffer.get_mut(self.len..end)?.copy_from_slice(bytes);
        self.len = end;
        Some(())
    }
}

fn take<const N: usize>(message: &mut &[u8]) -> Result<[u8; N], Malformed> {
    let (head, rest) = message.split_first_chunk().ok_or(Malformed::Truncated)?;
    *message = rest;
    Ok(*head)
}

fn take_id(message: &mut &[u8]) -> Result<StreamId, Malformed> {
    StreamId::new(u32::from_le_bytes(take(message)?)).ok_or(Malformed::Id)
}

fn take_target(message: &mut &[u8]) -> Result<SocketAddr, Malformed> {
    let [family] = take(message)?;
    let ip = match family {
        FAMILY_V4 => IpAddr::from(take::<4>(message)?),
        FAMILY_V6 => IpAddr::from(take::<16>(message)?),
        other => return Err(Malformed::Family(other)),
    };
    Ok(SocketAddr::new(ip, u16::from_le_bytes(take(message)?)))
}

fn take_bytes<'a>(message: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let len = usize::from(u16::from_le_bytes(take(message)?));
    if len == 0 {
        return Err(Malformed::Empty);
    }
    let (bytes, rest) = message.split_at_checked(len).ok_or(Malformed::Truncated)?;
    *message = rest;
    Ok(bytes)
}

const OPEN: u8 = 1;
const OPENED: u8 = 2;
const DATA: u8 = 3;
const FIN: u8 = 4;
const RESET: u8 = 5;
const CREDIT: u8 = 6;
const PING: u8 = 7;
const PONG: u8 = 8;
const GOAWAY: u8 = 9;

const FAMILY_V4: u8 = 4;
const FAMILY_V6: u8 = 6;

/// Type, id and length of a `DATA` frame.
pub(super) const DATA_HEADER: usize = 1 + 4 + 2;

/// The most a `DATA` frame can carry: its length field has 16 bits.
const DATA_MAX: usize = u16::MAX as usize;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(id: u32) -> StreamId {
        StreamId::new(id).unwrap()
    }

    fn encode(frame: Frame<'_>) -> Vec<u8> {
        let mut buffer = [0; 64];
        let mut writer = Writer::new(&mut buffer);
        assert!(writer.put(frame));
        let len = writer.len();
        buffer[..len].to_vec()
    }

    /// The test vectors of the format.
    fn vectors() -> Vec<(Frame<'static>, Vec<u8>)> {
        let v4 = "203.0.113.9:443".parse().unwrap();
        let v6 = "[2001:db8::1]:53".parse().unwrap();
        vec![
            (Frame::Open { id: id(1), target: v4 }, vec![1, 1, 0, 0, 0, 4, 203, 0, 113, 9, 0xbb, 0x01]),
            (
                Frame::Open { id: id(0x0102_0304), target: v6 },
                vec![1, 4, 3, 2, 1, 6, 0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 53, 0],
            ),
            (Frame::Opened(id(3)), vec![2, 3, 0, 0, 0]),
            (Frame::Data { id: id(5), bytes: b"hi" }, vec![3, 5, 0, 0, 0, 2, 0, b'h', b'i']),
            (Frame::Fin(id(2)), vec![4, 2, 0, 0, 0]),
            (Frame::Reset { id: id(258), code: ResetCode::Limit }, vec![5, 2, 1, 0, 0, 7]),
            (Frame::Credit { id: id(1), limit: 0x0001_0000 }, vec![6, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]),
            (Frame::Ping(1), vec![7, 1, 0, 0, 0, 0, 0, 0, 0]),
            (Frame::Pong(u64::MAX), vec![8, 255, 255, 255, 255, 255, 255, 255, 255]),
            (Frame::GoAway, vec![9]),
        ]
    }

    #[test]
    fn encodes_and_decodes_the_test_vectors() {
        for (frame, bytes) in vectors() {
            assert_eq!(encode(frame), bytes, "{frame:?}");
            let mut rest = bytes.as_slice();
            assert_eq!(Frame::decode(&mut rest), Ok(frame));
            assert!(rest.is_empty());
        }
    }

    #[test]
    fn refuses_every_vector_that_is_cut_short() {
        for (frame, bytes) in vectors() {
            for len in 0..bytes.len() {
                assert_eq!(
                    Frame::decode(&mut &bytes[..len]),
                    Err(Malformed::Truncated),
                    "{frame:?} at {len}"
                );
            }
        }
    }

    #[test]
    fn refuses_what_is_no_frame() {
        let refused = |bytes: &[u8]| Frame::decode(&mut &bytes[..]).unwrap_err();
        assert_eq!(refused(&[0]), Malformed::Type(0));
        assert_eq!(refused(&[10, 0, 0, 0, 0]), Malformed::Type(10));
        assert_eq!(refused(&[2, 0, 0, 0, 0]), Malformed::Id);
        assert_eq!(refused(&[1, 1, 0, 0, 0, 5, 1, 2, 3, 4, 0, 0]), Malformed::Family(5));
        assert_eq!(refused(&[5, 1, 0, 0, 0, 8]), Malformed::Code(8));
        assert_eq!(refused(&[3, 1, 0, 0, 0, 0, 0]), Malformed::Empty);
    }

    #[test]
    fn every_reset_code_survives_the_wire() {
        for byte in 1..=7 {
            assert_eq!(ResetCode::from_byte(byte).unwrap().to_byte(), byte);
        }
    }

    #[test]
    fn a_frame_that_does_not_fit_leaves_the_buffer_as_it_was() {
        for (frame, bytes) in vectors() {
            let mut buffer = vec![0; bytes.len()];
            let mut writer = Writer::new(&mut buffer);
            assert!(writer.put(Frame::GoAway));
            assert!(bytes.len() == 1 || !writer.put(frame), "{frame:?}");
            assert_eq!(writer.len(), 1);
        }
    }

    #[test]
    fn the_room_for_data_leaves_space_for_its_header() {
        let mut buffer = [0; 20];
        let mut writer = Writer::new(&mut buffer);
        assert_eq!(writer.data_room(), 13);
        assert!(!writer.put_data(id(1), 14, |_| panic!("does not fit")));
        assert!(!writer.put_data(id(1), 0, |_| panic!("is empty")));
        assert!(writer.put_data(id(1), 13, |body| body.fill(7)));
        assert_eq!((writer.len(), writer.data_room()), (20, 0));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic_and_what_decodes_encodes_to_itself(
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let mut rest = bytes.as_slice();
            if let Ok(frame) = Frame::decode(&mut rest) {
                let used = bytes.len() - rest.len();
                prop_assert_eq!(encode(frame), &bytes[..used]);
            }
        }
    }
}
