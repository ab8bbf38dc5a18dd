//! Sealing and opening packets: one end's keys of one direction.
//!
//! ```text
//!      0        4        8                            n-16      n
//!      | index  | counter | ciphertext ...            | tag    |
//!      '--- masked ---'
//! ```
//!
//! The header is [`Header`]'s, masked by [`Mask`]. The associated data are these 8 bytes before they
//! are masked; the nonce is the [`Suite`]'s. Test vectors for both suites stand in this file, made
//! by another implementation.

use thiserror::Error;

use super::mask::{HEADER_LEN, Header, Mask};
use super::replay::{Replay, Window};
use super::suite::{Aead, Key, Suite, TAG_LEN};

/// The sending half of a key pair: seals packets for one index of the peer.
#[derive(Debug)]
pub struct Sealer {
    peer_index: u32,
    mask: Mask,
    aead: Box<dyn Aead>,
    counter: u64,
}

impl Sealer {
    pub(crate) fn new(suite: Suite, key: &Key, peer_index: u32, mask: Mask) -> Self {
        Self { peer_index, mask, aead: suite.aead(key), counter: 0 }
    }

    /// Seals the packet that begins at `start`: `packet[start..]` is [`HEADER_LEN`] bytes of any
    /// content, then the plaintext. It encrypts in place, appends the tag and writes the header.
    ///
    /// # Errors
    /// [`SealError`]; the packet is then not to be sent, and no counter was used.
    pub fn seal(&mut self, packet: &mut Vec<u8>, start: usize) -> Result<(), SealError> {
        if self.counter >= COUNTER_LIMIT {
            return Err(SealError::Exhausted);
        }
        let header = Header { index: self.peer_index, counter: low_half(self.counter) };
        let plaintext = packet.get_mut(start..).ok_or(SealError::NoHeader)?;
        let (_, plaintext) = plaintext.split_first_chunk_mut::<HEADER_LEN>().ok_or(SealError::NoHeader)?;
        let tag =
            self.aead.seal(self.counter, &header.encode(), plaintext).map_err(|_| SealError::TooLong)?;
        self.counter += 1;
        packet.extend_from_slice(&tag);
        if let Some(sealed) = packet.get_mut(start..) {
            self.mask.write(header, sealed);
        }
        Ok(())
    }

    /// Returns how many packets were sealed, which is also the next counter. A rekey is due at
    /// [`REKEY_AFTER_PACKETS`].
    pub fn sealed(&self) -> u64 {
        self.counter
    }

    /// Goes on at a later counter, as if that many packets had been sealed.
    #[cfg(test)]
    pub(crate) fn skip_to(&mut self, counter: u64) {
        self.counter = counter;
    }

    /// Returns the peer's index, which every packet names.
    pub fn peer_index(&self) -> u32 {
        self.peer_index
    }
}

/// Why a packet was not sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SealError {
    /// The key was used [`COUNTER_LIMIT`] times. Only another handshake helps.
    #[error("the key's counter is exhausted")]
    Exhausted,
    /// There is no room for the header after `start`.
    #[error("no room for the header")]
    NoHeader,
    /// The plaintext is longer than an AEAD takes.
    #[error("the plaintext is too long")]
    TooLong,
}

impl SealError {
    /// Returns the name of this error in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Exhausted => "exhausted",
            Self::NoHeader => "no_header",
            Self::TooLong => "too_long",
        }
    }
}

/// The receiving half of a key pair: opens each packet of the peer once.
#[derive(Debug)]
pub struct Opener {
    aead: Box<dyn Aead>,
    window: Window,
}

impl Opener {
    pub(crate) fn new(suite: Suite, key: &Key) -> Self {
        Self { aead: suite.aead(key), window: Window::new() }
    }

    /// Opens a whole sealed packet in place. `header` is what [`Mask::header`] read from it, and
    /// named the index that belongs to this opener.
    ///
    /// # Errors
    /// [`OpenError`]; nothing has changed then, but the bytes of `packet` may have.
    pub fn open<'a>(&mut self, header: Header, packet: &'a mut [u8]) -> Result<Opened<'a>, OpenError> {
        let counter = self.reconstruct(header.counter)?;
        self.window.check(counter)?;
        let (_, rest) = packet.split_first_chunk_mut::<HEADER_LEN>().ok_or(OpenError::Truncated)?;
        let (plaintext, tag) = rest.split_last_chunk_mut::<TAG_LEN>().ok_or(OpenError::Truncated)?;
        self.aead.open(counter, &header.encode(), plaintext, *tag).map_err(|_| OpenError::Forged)?;
        let newest = self.window.mark(counter);
        Ok(Opened { counter, plaintext, newest })
    }

    /// Returns the highest counter that was opened.
    pub fn highest(&self) -> Option<u64> {
        self.window.highest()
    }

    /// Finds the counter nearest to the next one whose low half is `low` (as RFC 9000, appendix
    /// A.3, does).
    fn reconstruct(&self, low: u32) -> Result<u64, OpenError> {
        let next = self.window.highest().map_or(0, |highest| highest + 1);
        let near = next & !u64::from(u32::MAX) | u64::from(low);
        let counter = if near + HALF_TURN <= next {
            near + TURN
        } else if near > next + HALF_TURN && near >= TURN {
            near - TURN
        } else {
            near
        };
        if counter >= COUNTER_LIMIT {
            return Err(OpenError::Exhausted);
        }
        Ok(counter)
    }
}

/// A packet that opened.
#[derive(Debug)]
pub struct Opened<'a> {
    /// The whole 64-bit counter.
    pub counter: u64,
    /// What the peer sealed.
    pub plaintext: &'a mut [u8],
    /// Is this the highest counter so far? The server follows the address of the newest packet.
    pub newest: bool,
}

/// Why a packet did not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum OpenError {
    /// It is shorter than a header and a tag.
    #[error("the packet is truncated")]
    Truncated,
    /// It was opened before.
    #[error("the packet is a replay")]
    Replayed,
    /// Its counter lies below the replay window.
    #[error("the packet is older than the replay window")]
    TooOld,
    /// Its counter lies at or above [`COUNTER_LIMIT`], where no peer seals.
    #[error("the packet's counter is above the limit")]
    Exhausted,
    /// Its tag is wrong.
    #[error("the packet's tag is wrong")]
    Forged,
}

impl OpenError {
    /// Returns the name of this reason in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::Replayed => "replayed",
            Self::TooOld => "too_old",
            Self::Exhausted => "exhausted",
            Self::Forged => "forged",
        }
    }
}

impl From<Replay> for OpenError {
    fn from(replay: Replay) -> Self {
        match replay {
            Replay::Seen => Self::Replayed,
            Replay::TooOld => Self::TooOld,
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is what is wanted")]
fn low_half(counter: u64) -> u32 {
    counter as u32
}

/// Bytes that sealing adds to a plaintext.
pub const OVERHEAD: usize = HEADER_LEN + TAG_LEN;

/// A rekey is due when this many packets were sealed under one key.
pub const REKEY_AFTER_PACKETS: u64 = 1 << 32;

/// No key seals or opens a packet with this counter or a higher one. Our choice: a rekey that is
/// due after 2^32 packets has 15 times as many to succeed, and AES-GCM with 2^36 packets of 2^7
/// blocks stays 2^-43 close to perfect.
pub const COUNTER_LIMIT: u64 = 1 << 36;

/// Counters between two that look alike on the wire.
const TURN: u64 = 1 << 32;

const HALF_TURN: u64 = TURN / 2;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::keys::PublicKey;
    use super::*;

    const INDEX: u32 = 0x0403_0201;

    fn mask() -> Mask {
        Mask::new(&PublicKey::from_bytes([5; 32]))
    }

    fn pair(suite: Suite) -> (Sealer, Opener) {
        let key = Key::new([7; 32]);
        (Sealer::new(suite, &key, INDEX, mask()), Opener::new(suite, &key))
    }

    fn pair_at(counter: u64) -> (Sealer, Opener) {
        let (mut sealer, mut opener) = pair(Suite::ChaCha20Poly1305);
        sealer.counter = counter;
        if let Some(before) = counter.checked_sub(1) {
            opener.window.mark(before);
        }
        (sealer, opener)
    }

    fn seal(sealer: &mut Sealer, plaintext: &[u8]) -> Vec<u8> {
        let mut packet = vec![0xee; HEADER_LEN];
        packet.extend_from_slice(plaintext);
        sealer.seal(&mut packet, 0).unwrap();
        packet
    }

    fn open(opener: &mut Opener, packet: &[u8]) -> Result<(u64, Vec<u8>, bool), OpenError> {
        let mut packet = packet.to_vec();
        let header = mask().header(&packet).ok_or(OpenError::Truncated)?;
        let opened = opener.open(header, &mut packet)?;
        Ok((opened.counter, opened.plaintext.to_vec(), opened.newest))
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Key 32 × 07, server's public key 32 × 05, index 0x04030201, plaintext "plaintext", and the
    /// second packet, so that the counter is 1.
    #[test]
    fn writes_the_bytes_of_the_test_vectors() {
        for (suite, expected) in [
            (Suite::Aes256Gcm, "2528e44bdb8ec7184024d8095a34877f59c671a7751755293881cb3b1356354b38"),
            (Suite::ChaCha20Poly1305, "a2295f7418734561ca3f51094b02d422c1fc3bd64f3c9af96d44ee3d1a9179d32d"),
        ] {
            let (mut sealer, _) = pair(suite);
            seal(&mut sealer, b"");
            assert_eq!(hex(&seal(&mut sealer, b"plaintext")), expected, "{suite}");
        }
    }

    #[test]
    fn opens_what_the_other_end_seals() {
        for suite in [Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
            let (mut sealer, mut opener) = pair(suite);
            for (counter, length) in (0..).zip([0, 1, 15, 16, 17, 1376, 9000]) {
                let plaintext = vec![0x61; length];
                let packet = seal(&mut sealer, &plaintext);
                assert_eq!(packet.len(), length + OVERHEAD);
                let expected = Header { index: INDEX, counter: low_half(counter) };
                assert_eq!(mask().header(&packet), Some(expected));
                assert_eq!(open(&mut opener, &packet), Ok((counter, plaintext, true)));
            }
            assert_eq!(sealer.sealed(), 7);
        }
    }

    #[test]
    fn seals_behind_what_already_stands_in_the_buffer() {
        let (mut sealer, mut opener) = pair(Suite::Aes256Gcm);
        let mut packet = b"outer headers........plain".to_vec();
        sealer.seal(&mut packet, 13).unwrap();
        assert_eq!(&packet[..13], b"outer headers");
        assert_eq!(open(&mut opener, &packet[13..]), Ok((0, b"plain".to_vec(), true)));
    }

    #[test]
    fn refuses_to_seal_without_room_for_the_header() {
        let (mut sealer, _) = pair(Suite::Aes256Gcm);
        for start in [1, 8, 9, usize::MAX] {
            let mut packet = vec![0; HEADER_LEN];
            let sealed = sealer.seal(&mut packet, start);
            assert_eq!(sealed, Err(SealError::NoHeader));
            assert_eq!(packet, [0; HEADER_LEN]);
        }
        assert_eq!(sealer.sealed(), 0);
    }

    #[test]
    fn drops_a_packet_with_any_bit_changed() {
        let (mut sealer, mut opener) = pair(Suite::ChaCha20Poly1305);
        let packet = seal(&mut sealer, b"some plaintext");
        for position in 0..packet.len() {
            for bit in 0..8 {
                let mut tampered = packet.clone();
                tampered[position] ^= 1 << bit;
                assert!(open(&mut opener, &tampered).is_err(), "{position}.{bit}");
            }
        }
        assert_eq!(opener.highest(), None);
        assert!(open(&mut opener, &packet).is_ok());
    }

    #[test]
    fn drops_a_packet_cut_to_any_length() {
        let (mut sealer, mut opener) = pair(Suite::Aes256Gcm);
        let packet = seal(&mut sealer, b"some plaintext");
        for length in 0..packet.len() {
            assert!(open(&mut opener, &packet[..length]).is_err(), "{length}");
            let header = mask().header(&packet).unwrap();
            let mut cut = packet[..length].to_vec();
            let error = opener.open(header, &mut cut).unwrap_err();
            let expected = if length < OVERHEAD { OpenError::Truncated } else { OpenError::Forged };
            assert_eq!(error, expected, "{length}");
        }
        assert!(open(&mut opener, &packet).is_ok());
    }

    #[test]
    fn drops_a_packet_under_another_header() {
        let (mut sealer, mut opener) = pair(Suite::Aes256Gcm);
        let packet = seal(&mut sealer, b"some plaintext");
        let other = Header { index: INDEX + 1, counter: 0 };
        let error = opener.open(other, &mut packet.clone()).unwrap_err();
        assert_eq!(error, OpenError::Forged);
    }

    #[test]
    fn opens_a_packet_once_in_any_order() {
        let (mut sealer, mut opener) = pair(Suite::ChaCha20Poly1305);
        let packets: Vec<_> = (0..50).map(|n| seal(&mut sealer, &[n])).collect();
        let mut highest = None;
        for number in (0..50).map(|n| n * 17 % 50) {
            let newest = highest.is_none_or(|highest| number > highest);
            highest = highest.max(Some(number));
            let (counter, _, is_newest) = open(&mut opener, &packets[number]).unwrap();
            assert_eq!((counter, is_newest), (number as u64, newest));
        }
        for packet in &packets {
            assert_eq!(open(&mut opener, packet), Err(OpenError::Replayed));
        }
    }

    #[test]
    fn drops_a_packet_below_the_window() {
        let (mut sealer, mut opener) = pair(Suite::ChaCha20Poly1305);
        let first = seal(&mut sealer, b"");
        sealer.counter = super::super::replay::WINDOW;
        let late = seal(&mut sealer, b"");
        assert!(open(&mut opener, &late).is_ok());
        assert_eq!(open(&mut opener, &first), Err(OpenError::TooOld));
    }

    #[test]
    fn follows_the_counter_over_each_turn_of_its_low_half() {
        for turn in [TURN, 2 * TURN, 15 * TURN] {
            let (mut sealer, mut opener) = pair_at(turn - 3);
            let packets: Vec<_> = (0..6).map(|n| seal(&mut sealer, &[n])).collect();
            for number in [1, 4, 0, 5, 2, 3] {
                let (counter, plaintext, _) = open(&mut opener, &packets[number]).unwrap();
                assert_eq!(counter, turn - 3 + number as u64);
                assert_eq!(usize::from(plaintext[0]), number);
            }
        }
    }

    #[test]
    fn reconstructs_every_counter_within_half_a_turn() {
        for next in [0, 1, 5, HALF_TURN, TURN - 1, TURN, TURN + 9, 3 * TURN + HALF_TURN] {
            let (_, opener) = pair_at(next);
            for distance in [0, 1, 2, 8191, HALF_TURN - 1] {
                let above = next + distance;
                assert_eq!(opener.reconstruct(low_half(above)), Ok(above), "{next}");
                if let Some(below) = next.checked_sub(distance) {
                    assert_eq!(opener.reconstruct(low_half(below)), Ok(below), "{next}");
                }
            }
        }
    }

    #[test]
    fn neither_seals_nor_opens_at_the_counter_limit() {
        let (mut sealer, mut opener) = pair_at(COUNTER_LIMIT - 1);
        let last = seal(&mut sealer, b"last");
        assert!(open(&mut opener, &last).is_ok());
        let mut packet = vec![0; HEADER_LEN];
        assert_eq!(sealer.seal(&mut packet, 0), Err(SealError::Exhausted));
        assert_eq!(packet.len(), HEADER_LEN);
        let above = Header { index: INDEX, counter: 0 };
        let error = opener.open(above, &mut packet).unwrap_err();
        assert_eq!(error, OpenError::Exhausted);
    }

    #[test]
    fn shows_nothing_constant_and_nothing_that_counts() {
        let (mut sealer, _) = pair(Suite::ChaCha20Poly1305);
        let headers: Vec<[u8; HEADER_LEN]> =
            (0..256).map(|_| *seal(&mut sealer, b"same").first_chunk().unwrap()).collect();
        for position in 0..HEADER_LEN {
            let mut values: Vec<u8> = headers.iter().map(|header| header[position]).collect();
            values.sort_unstable();
            values.dedup();
            assert!(values.len() > 100, "byte {position}: {}", values.len());
        }
    }

    #[test]
    fn hides_the_header_from_whoever_lacks_the_servers_key() {
        let (mut sealer, _) = pair(Suite::ChaCha20Poly1305);
        let packet = seal(&mut sealer, b"plaintext");
        let stranger = Mask::new(&PublicKey::from_bytes([6; 32]));
        assert_ne!(stranger.header(&packet), mask().header(&packet));
    }

    proptest! {
        #[test]
        fn takes_any_bytes_without_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..100),
            index: u32,
            counter: u32,
            next in 0..COUNTER_LIMIT,
        ) {
            let (_, mut opener) = pair_at(next);
            prop_assert!(open(&mut opener, &bytes).is_err());
            let mut bytes = bytes;
            let header = Header { index, counter };
            prop_assert!(opener.open(header, &mut bytes).is_err());
            prop_assert_eq!(opener.highest(), next.checked_sub(1));
        }
    }
}
