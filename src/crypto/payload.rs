//! What the two handshake messages carry inside their seal. Integers are little-endian.
//!
//! Message 1:
//!
//! ```text
//!      0         1      2        3      4       8       12        16           32           44
//!      | version | mode | suites | keep | index | epoch | carrier | session id | timestamp | padding
//! ```
//!
//! `mode`: bit 7 is set in a probe's, which wants no session; `suites`: bit 0 AES-256-GCM, bit 1 ChaCha20-Poly1305, which
//! must be set; `keep`: hours for which the server keeps the session when it hears nothing, 0 is one; `index`: the one that
//! packets to the client shall name, never 0; `timestamp`: TAI64N. These 44 bytes mean the same in every version; what a
//! later version adds stands where this one pads. The padding is zero and not looked at.
//!
//! Message 2:
//!
//! ```text
//!      0      1              5
//!      | kind | client index | answer | padding
//!
//!      kind 1, resumed:  | server index u32 | suite u8 |
//!      kind 2, fresh:    | server index u32 | suite u8 | epoch u32 | n u8 | n networks | n u8 | n addresses |
//!      kind 3, refused:  | reason u8 |
//!      kind 4, stale:    | timestamp |
//!
//!      address:  | 4 | 4 bytes |  or  | 6 | 16 bytes |        network:  address, then | prefix length u8 |
//! ```
//!
//! `client index` repeats message 1's; suite 1 is AES-256-GCM, 2 ChaCha20-Poly1305; networks and
//! addresses are 16 each at most. What follows the answer is padding, not looked at.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use blake2::{Blake2s256, Digest as _};
use ipnetwork::IpNetwork;
use rand::CryptoRng;
use thiserror::Error;

use super::suite::{Suite, SuiteSet};
use super::timestamp::{TIMESTAMP_LEN, Timestamp};

/// What the client says in message 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message1 {
    /// The protocol that the client speaks; ours is [`VERSION`].
    pub version: u8,
    /// How the carrier began and how its sequence numbers advance; the carrier numbers its modes, below 128.
    pub mode: u8,
    /// The client only asks what passes: its pings are answered, and there is no session. A server that knows nothing of probes
    /// takes it for an unknown mode and is silent.
    pub is_probe: bool,
    /// The client's clock, later in each message 1.
    pub timestamp: Timestamp,
    /// The index that packets to the client shall name; not 0.
    pub index: u32,
    /// The session that this carrier belongs to.
    pub session: SessionId,
    /// The epoch of the session's KCP.
    pub epoch: u32,
    /// The suites the client is quick at.
    pub suites: SuiteSet,
    /// The number of the carrier. One that lives already asks for new keys.
    pub carrier: u32,
    /// Hours for which the server shall keep the session when it hears nothing; 0 is one.
    pub keep: u8,
}

impl Message1 {
    /// Writes the payload, without padding.
    pub fn encode(&self) -> [u8; MESSAGE1_LEN] {
        let mut bytes = [0; MESSAGE1_LEN];
        bytes[0] = self.version;
        bytes[1] = self.mode & !PROBE | if self.is_probe { PROBE } else { 0 };
        bytes[2] = self.suites.bits();
        bytes[3] = self.keep;
        bytes[4..8].copy_from_slice(&self.index.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.carrier.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.session.0);
        bytes[32..].copy_from_slice(&self.timestamp.to_bytes());
        bytes
    }

    /// Reads a payload; what follows is padding.
    ///
    /// # Errors
    /// [`PayloadError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, PayloadError> {
        let mut reader = Reader(bytes);
        let version = reader.u8()?;
        let mode = reader.u8()?;
        let suites = SuiteSet::from_bits(reader.u8()?).ok_or(PayloadError::Suite)?;
        let keep = reader.u8()?;
        Ok(Self {
            version,
            mode: mode & !PROBE,
            is_probe: mode & PROBE != 0,
            suites,
            index: reader.index()?,
            epoch: reader.u32()?,
            keep,
            carrier: reader.u32()?,
            session: SessionId(reader.array()?),
            timestamp: reader.timestamp()?,
        })
    }
}

/// Names a session: random, new with each start of a client.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId(pub [u8; SESSION_ID_LEN]);

impl SessionId {
    /// Draws a new one from `rng`.
    pub fn generate(rng: &mut dyn CryptoRng) -> Self {
        let mut bytes = [0; SESSION_ID_LEN];
        rng.fill_bytes(&mut bytes);
        Self(bytes)
    }

    /// Computes KCP's conversation number in one epoch of the session: the first 4 bytes of
    /// BLAKE2s-256("vpn kcp conv" ‖ session id ‖ epoch), little-endian.
    pub fn conv(self, epoch: u32) -> u32 {
        let hash = Blake2s256::new()
            .chain_update(CONV_LABEL)
            .chain_update(self.0)
            .chain_update(epoch.to_le_bytes())
            .finalize();
        u32::from_le_bytes([hash[0], hash[1], hash[2], hash[3]])
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({:032x})", u128::from_be_bytes(self.0))
    }
}

/// What the server answers in message 2. Only [`Resumed`](Self::Resumed) and
/// [`Fresh`](Self::Fresh) give keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message2 {
    /// The server knows the session, and it goes on.
    Resumed {
        /// The index that packets to the server shall name; not 0.
        index: u32,
        /// The suite of the new keys.
        suite: Suite,
    },
    /// The server begins the session.
    Fresh {
        /// The index that packets to the server shall name; not 0.
        index: u32,
        /// The suite of the new keys.
        suite: Suite,
        /// The epoch in which both ends start KCP.
        epoch: u32,
        /// The client's addresses, each with the prefix length of the server's; [`MAX_LIST`] at
        /// most.
        addresses: Vec<IpNetwork>,
        /// The resolvers that the client may use; [`MAX_LIST`] at most.
        dns: Vec<IpAddr>,
    },
    /// The server will not have this client.
    Refused {
        /// Why.
        reason: Refusal,
    },
    /// The timestamp was old, though the message was new: the client's clock is late. It may try
    /// again above this one.
    Stale {
        /// The highest timestamp that the server has from this client.
        above: Timestamp,
    },
}

impl Message2 {
    /// Encodes the message for the client whose index is `client`.
    ///
    /// # Errors
    /// [`PayloadError::TooMany`] if a list is longer than [`MAX_LIST`].
    pub fn encode(&self, client: u32) -> Result<Vec<u8>, PayloadError> {
        let mut bytes = vec![self.kind()];
        bytes.extend_from_slice(&client.to_le_bytes());
        match self {
            Self::Resumed { index, suite } => put_index_and_suite(&mut bytes, *index, *suite),
            Self::Fresh { index, suite, epoch, addresses, dns } => {
                put_index_and_suite(&mut bytes, *index, *suite);
                bytes.extend_from_slice(&epoch.to_le_bytes());
                put_list(&mut bytes, addresses, put_network)?;
                put_list(&mut bytes, dns, put_address)?;
            }
            Self::Refused { reason } => bytes.push(reason.number()),
            Self::Stale { above } => bytes.extend_from_slice(&above.to_bytes()),
        }
        Ok(bytes)
    }

    /// Decodes the message, and the client's index that it repeats.
    ///
    /// # Errors
    /// [`PayloadError`].
    pub fn decode(bytes: &[u8]) -> Result<(u32, Self), PayloadError> {
        let mut reader = Reader(bytes);
        let kind = reader.u8()?;
        let client = reader.u32()?;
        let message = match kind {
            RESUMED => Self::Resumed { index: reader.index()?, suite: reader.suite()? },
            FRESH => Self::Fresh {
                index: reader.index()?,
                suite: reader.suite()?,
                epoch: reader.u32()?,
                addresses: reader.list(Reader::network)?,
                dns: reader.list(Reader::address)?,
            },
            REFUSED => Self::Refused { reason: Refusal::from_number(reader.u8()?) },
            STALE => Self::Stale { above: reader.timestamp()? },
            _ => return Err(PayloadError::Kind),
        };
        Ok((client, message))
    }

    /// Returns the server's index and the suite, where the message gives keys.
    pub(crate) fn agreed(&self) -> Option<(u32, Suite)> {
        match *self {
            Self::Resumed { index, suite } | Self::Fresh { index, suite, .. } => Some((index, suite)),
            Self::Refused { .. } | Self::Stale { .. } => None,
        }
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Resumed { .. } => RESUMED,
            Self::Fresh { .. } => FRESH,
            Self::Refused { .. } => REFUSED,
            Self::Stale { .. } => STALE,
        }
    }
}

/// Why the server will not have a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum Refusal {
    /// It does not know the client's public key.
    #[error("the server does not know this key")]
    UnknownKey,
    /// It speaks another version.
    #[error("the server speaks another version")]
    Version,
    /// Its session was replaced by a newer one of the same key.
    #[error("a newer session of the same key took the place of this one")]
    Replaced,
    /// A reason that this version has no name for.
    #[error("the server refuses for its reason {0}")]
    Other(u8),
}

impl Refusal {
    /// Returns the name of this reason in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::UnknownKey => "unknown_key",
            Self::Version => "version",
            Self::Replaced => "replaced",
            Self::Other(_) => "other",
        }
    }

    fn number(self) -> u8 {
        match self {
            Self::UnknownKey => 1,
            Self::Version => 2,
            Self::Replaced => 4,
            Self::Other(number) => number,
        }
    }

    fn from_number(number: u8) -> Self {
        match number {
            1 => Self::UnknownKey,
            2 => Self::Version,
            4 => Self::Replaced,
            _ => Self::Other(number),
        }
    }
}

/// Why bytes are no payload, or a payload has no bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PayloadError {
    /// The bytes end too early.
    #[error("the payload is truncated")]
    Truncated,
    /// An index is 0, which belongs to the handshake.
    #[error("an index is zero")]
    ZeroIndex,
    /// A suite has no such number, or ChaCha20-Poly1305 is missing from a set.
    #[error("the suites make no sense")]
    Suite,
    /// A timestamp has a second of nanoseconds or more.
    #[error("the timestamp makes no sense")]
    Timestamp,
    /// There is no such kind of message 2.
    #[error("message 2 is of an unknown kind")]
    Kind,
    /// An address is of no known family, or a prefix is longer than it.
    #[error("an address makes no sense")]
    Address,
    /// A list has more than [`MAX_LIST`] entries.
    #[error("a list is too long")]
    TooMany,
}

impl PayloadError {
    /// Returns the name of this reason in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Truncated => "payload_truncated",
            Self::ZeroIndex => "payload_zero_index",
            Self::Suite => "payload_suite",
            Self::Timestamp => "payload_timestamp",
            Self::Kind => "payload_kind",
            Self::Address => "payload_address",
            Self::TooMany => "payload_too_many",
        }
    }
}

fn put_index_and_suite(bytes: &mut Vec<u8>, index: u32, suite: Suite) {
    bytes.extend_from_slice(&index.to_le_bytes());
    bytes.push(suite.number());
}

fn put_list<T: Copy>(bytes: &mut Vec<u8>, list: &[T], put: fn(&mut Vec<u8>, T)) -> Result<(), PayloadError> {
    let count = u8::try_from(list.len()).map_err(|_| PayloadError::TooMany)?;
    if list.len() > MAX_LIST {
        return Err(PayloadError::TooMany);
    }
    bytes.push(count);
    for entry in list {
        put(bytes, *entry);
    }
    Ok(())
}

fn put_address(bytes: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            bytes.push(V4);
            bytes.extend_from_slice(&address.octets());
        }
        IpAddr::V6(address) => {
            bytes.push(V6);
            bytes.extend_from_slice(&address.octets());
        }
    }
}

fn put_network(bytes: &mut Vec<u8>, network: IpNetwork) {
    put_address(bytes, network.ip());
    bytes.push(network.prefix());
}

/// What is left to read of a payload.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], PayloadError> {
        let (array, rest) = self.0.split_first_chunk().ok_or(PayloadError::Truncated)?;
        self.0 = rest;
        Ok(*array)
    }

    fn u8(&mut self) -> Result<u8, PayloadError> {
        self.array().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Result<u32, PayloadError> {
        self.array().map(u32::from_le_bytes)
    }

    fn index(&mut self) -> Result<u32, PayloadError> {
        match self.u32()? {
            0 => Err(PayloadError::ZeroIndex),
            index => Ok(index),
        }
    }

    fn suite(&mut self) -> Result<Suite, PayloadError> {
        Suite::from_number(self.u8()?).ok_or(PayloadError::Suite)
    }

    fn timestamp(&mut self) -> Result<Timestamp, PayloadError> {
        Timestamp::from_bytes(self.array()?).ok_or(PayloadError::Timestamp)
    }

    fn address(&mut self) -> Result<IpAddr, PayloadError> {
        match self.u8()? {
            V4 => Ok(Ipv4Addr::from(self.array::<4>()?).into()),
            V6 => Ok(Ipv6Addr::from(self.array::<16>()?).into()),
            _ => Err(PayloadError::Address),
        }
    }

    fn network(&mut self) -> Result<IpNetwork, PayloadError> {
        let address = self.address()?;
        if !is_tunnel_address(address) {
            return Err(PayloadError::Address);
        }
        IpNetwork::new(address, self.u8()?).map_err(|_| PayloadError::Address)
    }

    fn list<T>(&mut self, entry: fn(&mut Self) -> Result<T, PayloadError>) -> Result<Vec<T>, PayloadError> {
        let count = usize::from(self.u8()?);
        if count > MAX_LIST {
            return Err(PayloadError::TooMany);
        }
        (0..count).map(|_| entry(self)).collect()
    }
}

/// Whether an end of a tunnel can have this address: one of the host itself, of its link or of many is none. Else a server could
/// reach what listens on its clients' loopback only.
pub fn is_tunnel_address(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            !(address.is_loopback()
                || address.is_unspecified()
                || address.is_link_local()
                || address.is_multicast()
                || address.is_broadcast())
        }
        IpAddr::V6(address) => {
            !(address.is_loopback()
                || address.is_unspecified()
                || address.is_unicast_link_local()
                || address.is_multicast()
                || address.to_ipv4_mapped().is_some())
        }
    }
}

/// The protocol that this program speaks.
pub const VERSION: u8 = 1;

/// Entries in each list of [`Message2::Fresh`], at most: our choice, because with both lists full
/// message 2 still fits the smallest path (1280 bytes).
pub const MAX_LIST: usize = 16;

/// Bytes of message 1's payload without padding.
pub const MESSAGE1_LEN: usize = 16 + SESSION_ID_LEN + TIMESTAMP_LEN;

/// Bytes of message 2's payload, at least: a refusal.
pub(crate) const MESSAGE2_MIN: usize = 6;

/// Bytes of message 2's payload, at most: two full lists of IPv6.
pub(crate) const MESSAGE2_MAX: usize = 5 + 9 + (1 + MAX_LIST * 18) + (1 + MAX_LIST * 17);

/// Bytes of a session id.
pub const SESSION_ID_LEN: usize = 16;

/// Bit 7 of message 1's mode.
const PROBE: u8 = 0x80;

const CONV_LABEL: &[u8] = b"vpn kcp conv";

const RESUMED: u8 = 1;
const FRESH: u8 = 2;
const REFUSED: u8 = 3;
const STALE: u8 = 4;

const V4: u8 = 4;
const V6: u8 = 6;

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    pub(crate) fn message1() -> Message1 {
        Message1 {
            version: VERSION,
            mode: 2,
            is_probe: false,
            timestamp: Timestamp::from_unix(Duration::new(1_700_000_000, 77)),
            index: 0x0403_0201,
            session: SessionId([0xa5; SESSION_ID_LEN]),
            epoch: 0x0807_0605,
            suites: SuiteSet::ALL,
            carrier: 0x0c0b_0a09,
            keep: 0,
        }
    }

    pub(crate) fn fresh() -> Message2 {
        Message2::Fresh {
            index: 0x1413_1211,
            suite: Suite::Aes256Gcm,
            epoch: 6,
            addresses: vec!["10.77.0.2/24".parse().unwrap(), "fd77::2/64".parse().unwrap()],
            dns: vec!["9.9.9.9".parse().unwrap(), "2620:fe::fe".parse().unwrap()],
        }
    }

    fn answers() -> [Message2; 8] {
        let refused = |reason| Message2::Refused { reason };
        [
            Message2::Resumed { index: 7, suite: Suite::ChaCha20Poly1305 },
            fresh(),
            refused(Refusal::UnknownKey),
            refused(Refusal::Version),
            refused(Refusal::Other(3)),
            refused(Refusal::Replaced),
            refused(Refusal::Other(200)),
            Message2::Stale { above: message1().timestamp },
        ]
    }

    fn full() -> Message2 {
        Message2::Fresh {
            index: 1,
            suite: Suite::Aes256Gcm,
            epoch: 1,
            addresses: vec!["fd77::2/64".parse().unwrap(); MAX_LIST],
            dns: vec!["fd77::1".parse().unwrap(); MAX_LIST],
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn writes_message_1_as_its_ruler_says() {
        let expected = concat!(
            "01020300",
            "01020304",
            "05060708",
            "090a0b0c",
            "a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5",
            "400000006553f10a",
            "0000004d",
        );
        assert_eq!(hex(&message1().encode()), expected);
    }

    #[test]
    fn marks_a_probe_in_the_highest_bit_of_the_mode() {
        let probe = Message1 { is_probe: true, ..message1() };
        let bytes = probe.encode();
        assert_eq!(hex(&bytes[..4]), "01820300");
        assert_eq!(bytes[2..], message1().encode()[2..]);
        assert_eq!(Message1::decode(&bytes), Ok(probe));
    }

    #[test]
    fn writes_message_2_as_its_ruler_says() {
        let client = 0x0403_0201;
        let expected = [
            "01 01020304 07000000 02",
            "02 01020304 11121314 01 06000000
             02 04 0a4d0002 18 06 fd770000000000000000000000000002 40
             02 04 09090909 06 262000fe0000000000000000000000fe",
            "03 01020304 01",
            "03 01020304 02",
            "03 01020304 03",
            "03 01020304 04",
            "03 01020304 c8",
            "04 01020304 400000006553f10a 0000004d",
        ];
        for (message, expected) in answers().iter().zip(expected) {
            let expected = expected.replace([' ', '\n'], "");
            assert_eq!(hex(&message.encode(client).unwrap()), expected);
        }
    }

    #[test]
    fn takes_no_address_from_a_server_that_leads_to_the_host_itself() {
        let granted = |network: &str| {
            let Message2::Fresh { index, suite, epoch, dns, .. } = fresh() else { unreachable!() };
            let addresses = vec![network.parse().unwrap()];
            let bytes = Message2::Fresh { index, suite, epoch, addresses, dns }.encode(1).unwrap();
            Message2::decode(&bytes).map(drop)
        };
        for fine in ["10.77.0.2/24", "192.168.0.1/32", "203.0.113.9/24", "fd77::2/64", "2001:db8::1/128"] {
            assert_eq!(granted(fine), Ok(()), "{fine}");
        }
        for bad in [
            "127.0.0.1/8",
            "127.255.0.9/24",
            "0.0.0.0/0",
            "169.254.1.1/16",
            "224.0.0.1/4",
            "255.255.255.255/32",
            "::1/128",
            "::/0",
            "fe80::1/64",
            "ff02::1/16",
            "::ffff:127.0.0.1/104",
        ] {
            assert_eq!(granted(bad), Err(PayloadError::Address), "{bad}");
        }
    }

    #[test]
    fn reads_back_what_it_writes_whatever_the_padding() {
        for padding in [0, 1, 1300] {
            let mut bytes = message1().encode().to_vec();
            bytes.resize(bytes.len() + padding, 0xff);
            assert_eq!(Message1::decode(&bytes), Ok(message1()));
            for message in answers() {
                let mut bytes = message.encode(9).unwrap();
                bytes.resize(bytes.len() + padding, 0xff);
                assert_eq!(Message2::decode(&bytes), Ok((9, message)));
            }
        }
    }

    #[test]
    fn reads_message_1_of_another_version_so_that_it_can_be_refused() {
        let other = Message1 { version: VERSION + 1, ..message1() };
        assert_eq!(Message1::decode(&other.encode()), Ok(other));
    }

    #[test]
    fn refuses_payloads_cut_to_any_length() {
        let bytes = message1().encode();
        for length in 0..bytes.len() {
            let cut = Message1::decode(&bytes[..length]);
            assert_eq!(cut, Err(PayloadError::Truncated), "{length}");
        }
        for message in answers() {
            let bytes = message.encode(9).unwrap();
            for length in 0..bytes.len() {
                let cut = Message2::decode(&bytes[..length]);
                assert_eq!(cut, Err(PayloadError::Truncated), "{length}");
            }
        }
    }

    #[test]
    fn refuses_fields_that_make_no_sense() {
        let message1_with = |position: usize, value: &[u8]| {
            let mut bytes = message1().encode();
            bytes[position..position + value.len()].copy_from_slice(value);
            Message1::decode(&bytes)
        };
        assert_eq!(message1_with(4, &[0; 4]), Err(PayloadError::ZeroIndex));
        assert_eq!(message1_with(2, &[1]), Err(PayloadError::Suite));
        assert_eq!(message1_with(40, &[0xff]), Err(PayloadError::Timestamp));

        let fresh_with = |position: usize, value: &[u8]| {
            let mut bytes = fresh().encode(9).unwrap();
            bytes[position..position + value.len()].copy_from_slice(value);
            Message2::decode(&bytes)
        };
        assert_eq!(fresh_with(0, &[5]), Err(PayloadError::Kind));
        assert_eq!(fresh_with(5, &[0; 4]), Err(PayloadError::ZeroIndex));
        assert_eq!(fresh_with(9, &[3]), Err(PayloadError::Suite));
        assert_eq!(fresh_with(14, &[17]), Err(PayloadError::TooMany));
        assert_eq!(fresh_with(15, &[5]), Err(PayloadError::Address));
        assert_eq!(fresh_with(20, &[33]), Err(PayloadError::Address));
    }

    #[test]
    fn bounds_the_lists_of_message_2() {
        let bytes = full().encode(1).unwrap();
        assert_eq!(bytes.len(), MESSAGE2_MAX);
        assert_eq!(Message2::decode(&bytes), Ok((1, full())));
        let Message2::Fresh { mut dns, .. } = full() else { unreachable!() };
        dns.extend_from_within(..1);
        let mut bytes = Vec::new();
        let put = put_list(&mut bytes, &dns, put_address);
        assert_eq!(put, Err(PayloadError::TooMany));
    }

    #[test]
    fn gives_each_session_and_epoch_its_own_conv() {
        let (one, other) = (SessionId([1; 16]), SessionId([2; 16]));
        assert_eq!(one.conv(1), 0x9ce2_fd17);
        assert_ne!(one.conv(1), one.conv(2));
        assert_ne!(one.conv(1), other.conv(1));
    }

    proptest! {
        #[test]
        fn takes_any_bytes_without_panic(
            kind in 0..6u8,
            mut bytes in prop::collection::vec(any::<u8>(), 0..700),
        ) {
            if let Ok(message) = Message1::decode(&bytes) {
                prop_assert_eq!(Message1::decode(&message.encode()), Ok(message));
            }
            if let Some(first) = bytes.first_mut() {
                *first = kind;
            }
            if let Ok((client, message)) = Message2::decode(&bytes) {
                let again = message.encode(client).unwrap();
                prop_assert_eq!(Message2::decode(&again), Ok((client, message)));
            }
        }
    }
}
