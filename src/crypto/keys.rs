//! The keys a person handles: X25519 private and public keys and the preshared key, written as
//! WireGuard writes them: 32 bytes in standard base64, 44 characters.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rand::CryptoRng;
use thiserror::Error;
use zeroize::Zeroizing;

/// An X25519 private key. It is wiped from memory when dropped, and `Debug` does not show it.
#[derive(Clone)]
pub struct PrivateKey(Zeroizing<[u8; KEY_LEN]>);

impl PrivateKey {
    /// Draws a new key from `rng`, clamped as `wg genkey` does (RFC 7748, section 5).
    pub fn generate(rng: &mut dyn CryptoRng) -> Self {
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        rng.fill_bytes(&mut *bytes);
        bytes[0] &= 0b1111_1000;
        bytes[31] = (bytes[31] & 0b0111_1111) | 0b0100_0000;
        Self(bytes)
    }

    /// Takes any 32 bytes as a private key; X25519 clamps them where it uses them.
    pub fn from_bytes(bytes: [u8; KEY_LEN]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Returns the 32 secret bytes.
    pub fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// Computes the public key that belongs to this one.
    pub fn public_key(&self) -> PublicKey {
        let secret = x25519_dalek::StaticSecret::from(*self.0);
        PublicKey(x25519_dalek::PublicKey::from(&secret).to_bytes())
    }
}

/// An X25519 public key: the name of a peer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; KEY_LEN]);

impl PublicKey {
    /// Takes any 32 bytes as a public key.
    pub fn from_bytes(bytes: [u8; KEY_LEN]) -> Self {
        Self(bytes)
    }

    /// Returns the 32 bytes.
    pub fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }
}

/// A secret that both ends share besides their key pairs. The default is 32 zero bytes, which
/// stands for "none". It is wiped from memory when dropped, and `Debug` does not show it.
#[derive(Clone, Default)]
pub struct PresharedKey(Zeroizing<[u8; KEY_LEN]>);

impl PresharedKey {
    /// Draws a new key from `rng`.
    pub fn generate(rng: &mut dyn CryptoRng) -> Self {
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        rng.fill_bytes(&mut *bytes);
        Self(bytes)
    }

    /// Takes any 32 bytes as a preshared key.
    pub fn from_bytes(bytes: [u8; KEY_LEN]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Returns the 32 secret bytes.
    pub fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// Is this the zero key, which stands for "none"?
    pub fn is_zero(&self) -> bool {
        self.0.iter().fold(0, |all, byte| all | byte) == 0
    }
}

/// Why a text is not a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum KeyError {
    /// A character, the padding or the last bits are not standard base64.
    #[error("a key is base64, and this is not")]
    Base64,
    /// The text is base64, of another number of bytes than 32.
    #[error("a key is 44 characters of base64 (32 bytes), and this has another length")]
    Length,
}

impl FromStr for PrivateKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        decode(text).map(Self)
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        decode(text).map(|bytes| Self(*bytes))
    }
}

impl FromStr for PresharedKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        decode(text).map(Self)
    }
}

impl fmt::Display for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        encode(&self.0, f)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        encode(&self.0, f)
    }
}

impl fmt::Display for PresharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        encode(&self.0, f)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(…)")
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl fmt::Debug for PresharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PresharedKey(…)")
    }
}

/// Reads base64, without the white space that a file or a shell puts around it.
fn decode(text: &str) -> Result<Zeroizing<[u8; KEY_LEN]>, KeyError> {
    let text = text.trim_ascii();
    let mut room = Zeroizing::new([0; DECODE_ROOM]);
    let decoded = match STANDARD.decode_slice(text, &mut *room) {
        Ok(length) => room.get(..length).ok_or(KeyError::Length)?,
        Err(base64::DecodeSliceError::DecodeError(_)) => return Err(KeyError::Base64),
        Err(base64::DecodeSliceError::OutputSliceTooSmall) => return Err(KeyError::Length),
    };
    let bytes = decoded.try_into().map_err(|_| KeyError::Length)?;
    Ok(Zeroizing::new(bytes))
}

fn encode(bytes: &[u8; KEY_LEN], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut room = Zeroizing::new([0; TEXT_LEN]);
    let length = STANDARD.encode_slice(bytes, &mut *room).map_err(|_| fmt::Error)?;
    let text = room.get(..length).ok_or(fmt::Error)?;
    f.pad(std::str::from_utf8(text).map_err(|_| fmt::Error)?)
}

/// Bytes of every key: X25519's and Noise's preshared one (Noise, sections 12.1 and 9.1).
pub const KEY_LEN: usize = 32;

/// Characters of a key in base64, padding included.
const TEXT_LEN: usize = KEY_LEN.div_ceil(3) * 4;

/// What base64 may write while it decodes a key: a little more than it ends up with.
const DECODE_ROOM: usize = TEXT_LEN / 4 * 3;

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    // RFC 7748, section 6.1: Alice's key pair.
    const PRIVATE: &str = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
    const PUBLIC: &str = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";

    #[test]
    fn derives_the_public_key_of_rfc_7748() {
        let private: PrivateKey = PRIVATE.parse().unwrap();
        assert_eq!(private.public_key().to_string(), PUBLIC);
    }

    #[test]
    fn reads_back_what_it_writes() {
        let mut rng = StdRng::seed_from_u64(1);
        let private = PrivateKey::generate(&mut rng);
        let again: PrivateKey = private.to_string().parse().unwrap();
        assert_eq!(private.as_bytes(), again.as_bytes());
        let preshared = PresharedKey::generate(&mut rng);
        let again: PresharedKey = preshared.to_string().parse().unwrap();
        assert_eq!(preshared.as_bytes(), again.as_bytes());
        let public = private.public_key();
        assert_eq!(Ok(public), public.to_string().parse());
    }

    #[test]
    fn generates_clamped_private_keys() {
        let mut rng = StdRng::seed_from_u64(2);
        for _ in 0..64 {
            let key = PrivateKey::generate(&mut rng);
            assert_eq!(key.as_bytes()[0] & 7, 0);
            assert_eq!(key.as_bytes()[31] & 0b1100_0000, 0b0100_0000);
        }
    }

    #[test]
    fn reads_a_key_with_the_newline_of_its_file() {
        assert_eq!(format!(" {PUBLIC}\r\n").parse(), PUBLIC.parse::<PublicKey>());
    }

    #[test]
    fn refuses_what_is_not_32_bytes_of_base64() {
        let parse = |text: &str| text.parse::<PublicKey>().err();
        assert_eq!(parse(""), Some(KeyError::Length));
        assert_eq!(parse("AAAA"), Some(KeyError::Length));
        assert_eq!(parse(&"A".repeat(400)), Some(KeyError::Length));
        assert_eq!(parse(&STANDARD.encode([7; 31])), Some(KeyError::Length));
        assert_eq!(parse(&STANDARD.encode([7; 33])), Some(KeyError::Length));
        assert_eq!(parse(PUBLIC.trim_end_matches('=')), Some(KeyError::Base64));
        assert_eq!(parse(&PUBLIC.replace('/', "_")), Some(KeyError::Base64));
        assert_eq!(parse(&PUBLIC.replace("mo=", "mp=")), Some(KeyError::Base64));
    }

    #[test]
    fn shows_no_secret_in_debug_output() {
        let private: PrivateKey = PRIVATE.parse().unwrap();
        let preshared: PresharedKey = PRIVATE.parse().unwrap();
        assert_eq!(format!("{private:?}"), "PrivateKey(…)");
        assert_eq!(format!("{preshared:?}"), "PresharedKey(…)");
    }

    #[test]
    fn has_a_zero_preshared_key_by_default() {
        assert!(PresharedKey::default().is_zero());
        assert!(!PresharedKey::from_bytes([1; KEY_LEN]).is_zero());
    }
}
