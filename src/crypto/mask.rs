//! The header of a sealed packet, and the mask that hides it.
//!
//! ```text
//!      0        4        8
//!      | index  | counter |     XOR  SipHash-2-4(mask key, tag)
//! ```
//!
//! `index` (u32) is the one that the receiver chose in its handshake message; 0 belongs to the
//! handshake. `counter` (u32) is the low half of the 64-bit counter that makes the nonce. Both, and
//! SipHash's result, are little-endian.
//!
//! The mask key is the first 16 bytes of BLAKE2s-256("vpn header mask" ‖ the server's public key),
//! in both directions: nothing on the wire is constant or counts, and who does not hold the server's
//! public key cannot make a header that names one of our indices but by chance.
//!
//! An ephemeral public key in the open is no random bytes either: its last bit is always 0, and it is the coordinate of a
//! point on the curve, as half of all numbers are not. So the 32 bytes behind the header of a handshake message are veiled: each
//! 8 of them XOR SipHash-2-4(mask key, tag ‖ their place, 0 to 3).

use std::fmt;

use blake2::{Blake2s256, Digest as _};
use siphasher::sip::SipHasher24;

use super::keys::{KEY_LEN, PublicKey};
use super::suite::TAG_LEN;

/// What hides and shows the headers of all packets to and from one server.
#[derive(Clone, Copy)]
pub struct Mask(SipHasher24);

impl Mask {
    /// Makes the mask of the server with this public key.
    pub fn new(server: &PublicKey) -> Self {
        let hash = Blake2s256::new().chain_update(MASK_LABEL).chain_update(server.as_bytes()).finalize();
        let mut key = [0; SIPHASH_KEY_LEN];
        key.copy_from_slice(&hash[..SIPHASH_KEY_LEN]);
        Self(SipHasher24::new_with_key(&key))
    }

    /// Reads the header of a packet without opening it: whom it is for, if it is ours at all.
    /// `None` if the packet is too short to be one.
    pub fn header(&self, packet: &[u8]) -> Option<Header> {
        let (masked, rest) = packet.split_first_chunk::<HEADER_LEN>()?;
        let tag = rest.last_chunk::<TAG_LEN>()?;
        Some(Header::decode(self.apply(*masked, tag)))
    }

    /// Writes the masked header over the first 8 bytes of a packet whose tag stands.
    pub(crate) fn write(&self, header: Header, packet: &mut [u8]) {
        let Some((bytes, rest)) = packet.split_first_chunk_mut::<HEADER_LEN>() else {
            return;
        };
        if let Some(tag) = rest.last_chunk::<TAG_LEN>() {
            *bytes = self.apply(header.encode(), tag);
        }
    }

    /// Veils the ephemeral key in a handshake message whose tag stands, or unveils it. Does nothing to what is too short to be one.
    pub fn veil(&self, packet: &mut [u8]) {
        let Some((_, rest)) = packet.split_first_chunk_mut::<HEADER_LEN>() else { return };
        let Some((ephemeral, rest)) = rest.split_first_chunk_mut::<KEY_LEN>() else { return };
        let Some(tag) = rest.last_chunk::<TAG_LEN>() else { return };
        let mut input = [0; TAG_LEN + 1];
        input[..TAG_LEN].copy_from_slice(tag);
        for (bytes, place) in ephemeral.as_chunks_mut::<8>().0.iter_mut().zip(0..) {
            input[TAG_LEN] = place;
            *bytes = (u64::from_le_bytes(*bytes) ^ self.0.hash(&input)).to_le_bytes();
        }
    }

    fn apply(&self, bytes: [u8; HEADER_LEN], tag: &[u8; TAG_LEN]) -> [u8; HEADER_LEN] {
        (u64::from_le_bytes(bytes) ^ self.0.hash(tag)).to_le_bytes()
    }
}

impl fmt::Debug for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mask(…)")
    }
}

/// The header of a packet, unmasked. Until the packet opens, anyone who knows the server's public
/// key may have written it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The receiver's index.
    pub index: u32,
    /// The low 32 bits of the counter.
    pub counter: u32,
}

impl Header {
    /// The header of both handshake messages.
    pub const HANDSHAKE: Self = Self { index: 0, counter: 0 };

    /// Is this a handshake message?
    pub fn is_handshake(self) -> bool {
        self == Self::HANDSHAKE
    }

    pub(crate) fn encode(self) -> [u8; HEADER_LEN] {
        (u64::from(self.index) | u64::from(self.counter) << 32).to_le_bytes()
    }

    fn decode(bytes: [u8; HEADER_LEN]) -> Self {
        let [a, b, c, d, e, f, g, h] = bytes;
        Self { index: u32::from_le_bytes([a, b, c, d]), counter: u32::from_le_bytes([e, f, g, h]) }
    }
}

/// Bytes before the ciphertext.
pub const HEADER_LEN: usize = 8;

const MASK_LABEL: &[u8] = b"vpn header mask";

const SIPHASH_KEY_LEN: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn mask() -> Mask {
        Mask::new(&PublicKey::from_bytes([5; 32]))
    }

    #[test]
    fn reads_the_header_it_wrote() {
        let header = Header { index: 0x0403_0201, counter: 0x0807_0605 };
        assert_eq!(header.encode(), [1, 2, 3, 4, 5, 6, 7, 8]);
        let mut packet = vec![9; HEADER_LEN + TAG_LEN];
        mask().write(header, &mut packet);
        assert_eq!(mask().header(&packet), Some(header));
        assert!(!header.is_handshake());
        mask().write(Header::HANDSHAKE, &mut packet);
        assert!(mask().header(&packet).is_some_and(Header::is_handshake));
    }

    #[test]
    fn finds_no_header_in_less_than_a_header_and_a_tag() {
        for length in 0..HEADER_LEN + TAG_LEN {
            let mut packet = vec![9; length];
            assert_eq!(mask().header(&packet), None);
            mask().write(Header::HANDSHAKE, &mut packet);
            assert_eq!(packet, vec![9; length]);
        }
    }
}
