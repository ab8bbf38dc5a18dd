//! Cipher suites: the two AEADs that packets are sealed with, and how the ends agree on one.
//!
//! AES-256-GCM is taken where both ends have it in hardware, ChaCha20-Poly1305 everywhere else;
//! there are no others. Nonces are Noise's (The Noise Protocol Framework, sections 12.3 and 12.4):
//! 32 zero bits, then the 64-bit counter, little-endian for ChaCha20-Poly1305 and big-endian for
//! AES-256-GCM.
//!
//! `ring` does both at run-time-detected speed. The crate `chacha20poly1305` is the portable
//! implementation of the same bytes; tests hold the two equal.

use std::fmt;

use ring::aead::{self, LessSafeKey, UnboundKey};
use thiserror::Error;
use zeroize::Zeroizing;

/// One way to seal packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Suite {
    /// AES-256-GCM (NIST SP 800-38D).
    Aes256Gcm,
    /// ChaCha20-Poly1305 (RFC 8439). Everyone has it.
    ChaCha20Poly1305,
}

impl Suite {
    /// Returns the number on the wire.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Aes256Gcm => 1,
            Self::ChaCha20Poly1305 => 2,
        }
    }

    /// Finds the suite by its number on the wire.
    pub(crate) fn from_number(number: u8) -> Option<Self> {
        [Self::Aes256Gcm, Self::ChaCha20Poly1305].into_iter().find(|suite| suite.number() == number)
    }

    /// Prepares a key for sealing or opening.
    pub(crate) fn aead(self, key: &Key) -> Box<dyn Aead> {
        match self {
            Self::Aes256Gcm => Box::new(Ring::new(self, &aead::AES_256_GCM, key)),
            Self::ChaCha20Poly1305 => Box::new(Ring::new(self, &aead::CHACHA20_POLY1305, key)),
        }
    }

    fn nonce(self, counter: u64) -> [u8; NONCE_LEN] {
        let counter = match self {
            Self::Aes256Gcm => counter.to_be_bytes(),
            Self::ChaCha20Poly1305 => counter.to_le_bytes(),
        };
        let mut nonce = [0; NONCE_LEN];
        nonce[NONCE_LEN - counter.len()..].copy_from_slice(&counter);
        nonce
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Aes256Gcm => "AES-256-GCM",
            Self::ChaCha20Poly1305 => "ChaCha20-Poly1305",
        })
    }
}

/// The suites one end is quick at. ChaCha20-Poly1305 is in every set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SuiteSet {
    aes: bool,
}

impl SuiteSet {
    /// ChaCha20-Poly1305 only.
    pub const PORTABLE: Self = Self { aes: false };

    /// Both suites.
    pub const ALL: Self = Self { aes: true };

    /// Looks which suites this processor has in hardware. The shells call it once and pass it in.
    pub fn detect() -> Self {
        Self { aes: aes_in_hardware() }
    }

    /// Is this suite in the set?
    pub fn contains(self, suite: Suite) -> bool {
        match suite {
            Suite::Aes256Gcm => self.aes,
            Suite::ChaCha20Poly1305 => true,
        }
    }

    /// Chooses the suite for two ends: the server calls it with its own set and message 1's.
    pub fn agree(self, other: Self) -> Suite {
        if self.aes && other.aes { Suite::Aes256Gcm } else { Suite::ChaCha20Poly1305 }
    }

    /// Returns the set as the bits on the wire: bit n stands for suite n + 1.
    pub(crate) fn bits(self) -> u8 {
        if self.aes { AES_BIT | CHACHA_BIT } else { CHACHA_BIT }
    }

    /// Reads the bits on the wire. Suites we do not know are not ours to use. `None` if the suite
    /// that everyone has is missing.
    pub(crate) fn from_bits(bits: u8) -> Option<Self> {
        (bits & CHACHA_BIT != 0).then_some(Self { aes: bits & AES_BIT != 0 })
    }
}

#[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
fn aes_in_hardware() -> bool {
    std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq")
}

#[cfg(target_arch = "aarch64")]
fn aes_in_hardware() -> bool {
    std::arch::is_aarch64_feature_detected!("aes") && std::arch::is_aarch64_feature_detected!("pmull")
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "x86", target_arch = "aarch64")))]
fn aes_in_hardware() -> bool {
    false
}

/// A key of either suite, wiped when dropped.
pub(crate) type Key = Zeroizing<[u8; super::keys::KEY_LEN]>;

/// One key, ready to seal and open in place. Whoever calls it never seals twice with one counter.
pub(crate) trait Aead: fmt::Debug + Send + Sync {
    /// Encrypts `bytes` in place and returns the tag.
    ///
    /// # Errors
    /// [`Failed`] if there are more bytes than the suite takes under one nonce.
    fn seal(&self, counter: u64, associated: &[u8], bytes: &mut [u8]) -> Result<[u8; TAG_LEN], Failed>;

    /// Checks `tag` and decrypts `bytes` in place.
    ///
    /// # Errors
    /// [`Failed`] if the tag is wrong; what `bytes` then hold is of no use.
    fn open(
        &self,
        counter: u64,
        associated: &[u8],
        bytes: &mut [u8],
        tag: [u8; TAG_LEN],
    ) -> Result<(), Failed>;
}

/// The tag is wrong, or the packet is larger than any AEAD takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the AEAD failed")]
pub(crate) struct Failed;

/// A key in the hands of `ring`.
#[derive(Debug)]
struct Ring {
    suite: Suite,
    key: LessSafeKey,
}

impl Ring {
    fn new(suite: Suite, algorithm: &'static aead::Algorithm, key: &Key) -> Self {
        let key = UnboundKey::new(algorithm, &**key).expect("both algorithms take 32 bytes");
        Self { suite, key: LessSafeKey::new(key) }
    }

    fn nonce(&self, counter: u64) -> aead::Nonce {
        aead::Nonce::assume_unique_for_key(self.suite.nonce(counter))
    }
}

impl Aead for Ring {
    fn seal(&self, counter: u64, associated: &[u8], bytes: &mut [u8]) -> Result<[u8; TAG_LEN], Failed> {
        let associated = aead::Aad::from(associated);
        let tag = self
            .key
            .seal_in_place_separate_tag(self.nonce(counter), associated, bytes)
            .map_err(|_| Failed)?;
        tag.as_ref().try_into().map_err(|_| Failed)
    }

    fn open(
        &self,
        counter: u64,
        associated: &[u8],
        bytes: &mut [u8],
        tag: [u8; TAG_LEN],
    ) -> Result<(), Failed> {
        let (nonce, associated) = (self.nonce(counter), aead::Aad::from(associated));
        self.key
            .open_in_place_separate_tag(nonce, associated, tag.into(), bytes, 0..)
            .map(|_| ())
            .map_err(|_| Failed)
    }
}

/// Bytes of a tag of either suite.
pub const TAG_LEN: usize = 16;

const NONCE_LEN: usize = 12;

const AES_BIT: u8 = 1 << 0;

const CHACHA_BIT: u8 = 1 << 1;

#[cfg(test)]
mod tests {
    use chacha20poly1305::ChaCha20Poly1305;
    use chacha20poly1305::aead::{AeadInPlace as _, KeyInit as _};
    use proptest::prelude::*;

    use super::*;

    /// The portable ChaCha20-Poly1305.
    struct Portable(ChaCha20Poly1305);

    impl fmt::Debug for Portable {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Portable(…)")
        }
    }

    impl Portable {
        fn new(key: &Key) -> Self {
            Self(ChaCha20Poly1305::new((&**key).into()))
        }
    }

    impl Aead for Portable {
        fn seal(&self, counter: u64, associated: &[u8], bytes: &mut [u8]) -> Result<[u8; TAG_LEN], Failed> {
            let nonce = Suite::ChaCha20Poly1305.nonce(counter);
            self.0
                .encrypt_in_place_detached((&nonce).into(), associated, bytes)
                .map(Into::into)
                .map_err(|_| Failed)
        }

        fn open(
            &self,
            counter: u64,
            associated: &[u8],
            bytes: &mut [u8],
            tag: [u8; TAG_LEN],
        ) -> Result<(), Failed> {
            let nonce = Suite::ChaCha20Poly1305.nonce(counter);
            self.0
                .decrypt_in_place_detached((&nonce).into(), associated, bytes, (&tag).into())
                .map_err(|_| Failed)
        }
    }

    #[test]
    fn encodes_nonces_as_noise_does() {
        let counter = 0x0102_0304_0506_0708;
        assert_eq!(Suite::ChaCha20Poly1305.nonce(counter), [0, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(Suite::Aes256Gcm.nonce(counter), [0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn agrees_on_aes_only_where_both_have_it() {
        let (all, portable) = (SuiteSet::ALL, SuiteSet::PORTABLE);
        assert_eq!(all.agree(all), Suite::Aes256Gcm);
        assert_eq!(all.agree(portable), Suite::ChaCha20Poly1305);
        assert_eq!(portable.agree(all), Suite::ChaCha20Poly1305);
        assert_eq!(portable.agree(portable), Suite::ChaCha20Poly1305);
    }

    #[test]
    fn reads_every_set_of_bits() {
        for bits in 0..=u8::MAX {
            let set = SuiteSet::from_bits(bits);
            assert_eq!(set.is_some(), bits & 2 != 0);
            if let Some(set) = set {
                assert_eq!(set.bits(), bits & 3);
                assert!(set.contains(Suite::ChaCha20Poly1305));
                assert_eq!(set.contains(Suite::Aes256Gcm), bits & 1 != 0);
            }
        }
    }

    #[test]
    fn finds_each_suite_by_its_number_and_no_other() {
        for number in 0..=u8::MAX {
            let suite = Suite::from_number(number);
            assert_eq!(suite.is_some(), matches!(number, 1 | 2));
            assert_eq!(suite.map_or(number, Suite::number), number);
        }
    }

    #[test]
    fn gives_the_two_suites_different_bytes() {
        let key = Key::new([3; 32]);
        let sealed = |suite: Suite| {
            let mut bytes = [9; 64];
            let tag = suite.aead(&key).seal(1, b"header", &mut bytes).unwrap();
            (bytes, tag)
        };
        let (aes, chacha) = (sealed(Suite::Aes256Gcm), sealed(Suite::ChaCha20Poly1305));
        assert_ne!(aes.0, chacha.0);
        assert_ne!(aes.1, chacha.1);
    }

    proptest! {
        #[test]
        fn the_two_chachas_write_and_read_the_same_bytes(
            key: [u8; 32],
            counter: u64,
            associated: [u8; 8],
            plaintext in prop::collection::vec(any::<u8>(), 0..1500),
        ) {
            let key = Key::new(key);
            let portable = Portable::new(&key);
            let fast = Suite::ChaCha20Poly1305.aead(&key);
            let (mut one, mut other) = (plaintext.clone(), plaintext.clone());
            let tag = fast.seal(counter, &associated, &mut one).unwrap();
            let other_tag = portable.seal(counter, &associated, &mut other).unwrap();
            prop_assert_eq!(&one, &other);
            prop_assert_eq!(tag, other_tag);
            prop_assert!(portable.open(counter, &associated, &mut one, tag).is_ok());
            prop_assert!(fast.open(counter, &associated, &mut other, tag).is_ok());
            prop_assert_eq!(&one, &plaintext);
            prop_assert_eq!(&other, &plaintext);
            prop_assert!(fast.open(counter ^ 1, &associated, &mut one, tag).is_err());
        }
    }
}
