//! The handshake: `Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s` by `snow`, in two sealed packets.
//!
//! ```text
//!      0        8                40                  88                n-16   n
//!      | header | client's       | client's static,  | payload, padded | tag  |   message 1
//!      |        | ephemeral      | sealed            |                 |      |
//!
//!      0        8                40                  n-16   n
//!      | header | server's       | payload           | tag  |                     message 2
//!      |        | ephemeral      |                   |      |
//! ```
//!
//! The prologue is the 13 bytes "vpn handshake", in every version. The header of both messages is 8
//! zero bytes before it is masked, so that it needs no associated data of its own: Noise's are the
//! transcript. The ephemeral keys are veiled, see [`mask`](super::mask). Without a preshared key, 32 zero bytes stand for it. After message 2, the first key
//! of Noise's split seals what the client sends and the second what the server sends, under the
//! suite that message 2 names.
//!
//! A client that the server does not know is refused under the zero preshared key, because the
//! server has no other; so the client tries that one too, and believes a refusal only.

use std::fmt;

use rand::CryptoRng;
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::{HandshakeState, params, types};
use thiserror::Error;
use zeroize::Zeroizing;

use super::keys::{KEY_LEN, PresharedKey, PrivateKey, PublicKey};
use super::mask::{HEADER_LEN, Header, Mask};
use super::packet::{Opener, Sealer};
use super::payload::{MESSAGE1_LEN, MESSAGE2_MAX, MESSAGE2_MIN, Message1, Message2, PayloadError};
use super::suite::{Key, Suite, TAG_LEN};

/// The client's half of a handshake. It has written message 1 and waits for message 2.
#[derive(Debug)]
pub struct Initiator {
    noise: HandshakeState,
    mask: Mask,
    preshared: PresharedKey,
    index: u32,
}

impl Initiator {
    /// Begins a handshake and returns message 1 as a whole packet of exactly `size` bytes. The
    /// ephemeral key is drawn from `rng`.
    ///
    /// # Errors
    /// [`HandshakeError::Size`] if `size` is less than [`MESSAGE1_MIN_LEN`] or more than
    /// [`MESSAGE_MAX_LEN`].
    pub fn new(
        local: &PrivateKey,
        server: &PublicKey,
        psk: &PresharedKey,
        payload: &Message1,
        size: usize,
        rng: &mut dyn CryptoRng,
    ) -> Result<(Self, Vec<u8>), HandshakeError> {
        if !(MESSAGE1_MIN_LEN..=MESSAGE_MAX_LEN).contains(&size) {
            return Err(HandshakeError::Size);
        }
        let noise = builder(rng)?
            .local_private_key(local.as_bytes())?
            .remote_public_key(server.as_bytes())?
            .prologue(PROLOGUE)?
            .build_initiator()?;
        let mut initiator =
            Self { noise, mask: Mask::new(server), preshared: psk.clone(), index: payload.index };
        let mut plaintext = payload.encode().to_vec();
        plaintext.resize(MESSAGE1_LEN + size - MESSAGE1_MIN_LEN, 0);
        let packet = write(&mut initiator.noise, &initiator.mask, &plaintext)?;
        Ok((initiator, packet))
    }

    /// Reads message 2, a whole packet, and returns what the server says and, if it agreed, the
    /// keys.
    ///
    /// # Errors
    /// After [`Truncated`](HandshakeError::Truncated), [`Oversized`](HandshakeError::Oversized),
    /// [`NotHandshake`](HandshakeError::NotHandshake) and
    /// [`PresharedKeyDiffers`](HandshakeError::PresharedKeyDiffers) another packet may still be
    /// message 2, and this can be called again. The last of them is a suspicion: a packet damaged
    /// on its way, an answer to an earlier message 1 and one forged by someone who knows the
    /// server's public key look the same, so say it only when nothing better came for a while.
    pub fn finish(&mut self, packet: &[u8]) -> Result<(Message2, Option<Keys>), HandshakeError> {
        if self.noise.is_handshake_finished() {
            return Err(HandshakeError::Finished);
        }
        let message = unwrap(&self.mask, packet, MESSAGE2_MIN_LEN)?;
        let own = Zeroizing::new(*self.preshared.as_bytes());
        if let Some(payload) = self.try_under(&own, &message)? {
            return self.conclude(&payload);
        }
        match self.try_under(&[0; KEY_LEN], &message)? {
            Some(payload) => self.conclude_under_zero(&payload),
            None => Err(HandshakeError::PresharedKeyDiffers),
        }
    }

    /// Tries to open message 2; `None` if it does not open under this preshared key. A failure
    /// leaves the handshake as it was.
    fn try_under(
        &mut self,
        preshared: &[u8; KEY_LEN],
        message: &[u8],
    ) -> Result<Option<Vec<u8>>, HandshakeError> {
        self.noise.set_psk(PSK_POSITION, preshared)?;
        match read(&mut self.noise, message) {
            Ok(payload) => Ok(Some(payload)),
            Err(snow::Error::Decrypt) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn conclude(&mut self, payload: &[u8]) -> Result<(Message2, Option<Keys>), HandshakeError> {
        let (echo, message) = Message2::decode(payload)?;
        if echo != self.index {
            return Err(HandshakeError::WrongEcho);
        }
        let keys = message.agreed().map(|(peer_index, suite)| {
            let (send, receive) = split(&mut self.noise);
            Keys { suite, index: self.index, peer_index, send, receive, mask: self.mask }
        });
        Ok((message, keys))
    }

    /// Without our preshared key only a refusal counts: anything else would let the server do
    /// without it.
    fn conclude_under_zero(&mut self, payload: &[u8]) -> Result<(Message2, Option<Keys>), HandshakeError> {
        let (message, keys) = self.conclude(payload)?;
        match message {
            Message2::Refused { .. } => Ok((message, keys)),
            Message2::Resumed { .. } | Message2::Fresh { .. } | Message2::Stale { .. } => {
                Err(HandshakeError::NoPresharedKey)
            }
        }
    }
}

/// The server's half of a handshake. It has read message 1 and may write message 2.
#[derive(Debug)]
pub struct Responder {
    noise: HandshakeState,
    mask: Mask,
    peer_index: u32,
    known: bool,
    size: usize,
}

/// A message 1 that opened.
#[derive(Debug)]
pub struct Received {
    /// The client's public key, which it proved to hold.
    pub remote: PublicKey,
    /// Did `lookup` know this key? If not, only a refusal can be written.
    pub known: bool,
    /// What the client says.
    pub payload: Message1,
    /// The client's ephemeral key: new in each message 1, so that one seen before is a replay.
    pub ephemeral: [u8; KEY_LEN],
    /// Writes message 2.
    pub responder: Responder,
}

impl Responder {
    /// Reads message 1, a whole packet. `lookup` returns the preshared key of a known client, the
    /// zero one if it has none, and `None` for a stranger. The ephemeral key is drawn from `rng`.
    ///
    /// Whether the message is a replay, and the timestamp, are the caller's to judge.
    ///
    /// # Errors
    /// [`HandshakeError`]; the sender then gets no answer.
    pub fn read(
        local: &PrivateKey,
        packet: &[u8],
        lookup: &dyn Fn(&PublicKey) -> Option<PresharedKey>,
        rng: &mut dyn CryptoRng,
    ) -> Result<Received, HandshakeError> {
        let mask = Mask::new(&local.public_key());
        let message = unwrap(&mask, packet, MESSAGE1_MIN_LEN)?;
        let mut noise =
            builder(rng)?.local_private_key(local.as_bytes())?.prologue(PROLOGUE)?.build_responder()?;
        let payload = Message1::decode(&read(&mut noise, &message)?)?;
        let ephemeral = *message.first_chunk().ok_or(HandshakeError::Truncated)?;
        let remote = noise.get_remote_static().ok_or(HandshakeError::Noise)?;
        let remote = PublicKey::from_bytes(remote.try_into().map_err(|_| HandshakeError::Noise)?);
        let preshared = lookup(&remote);
        let known = preshared.is_some();
        noise.set_psk(PSK_POSITION, preshared.unwrap_or_default().as_bytes())?;
        Ok(Received {
            remote,
            known,
            payload,
            ephemeral,
            responder: Self { noise, mask, peer_index: payload.index, known, size: 0 },
        })
    }

    /// Message 2 shall be a packet of `size` bytes, if what it says is not longer; without this it is as short as it can be.
    #[must_use]
    pub fn padded_to(self, size: usize) -> Self {
        Self { size: size.min(MESSAGE_MAX_LEN), ..self }
    }

    /// Writes message 2 as a whole packet, and returns the keys if the message agrees.
    ///
    /// # Errors
    /// [`HandshakeError::UnknownKey`] if the client is unknown and the message is no refusal;
    /// [`HandshakeError::Payload`] if the message cannot be encoded.
    pub fn write(mut self, message: &Message2) -> Result<(Vec<u8>, Option<Keys>), HandshakeError> {
        if !self.known && !matches!(message, Message2::Refused { .. }) {
            return Err(HandshakeError::UnknownKey);
        }
        let mut payload = message.encode(self.peer_index)?;
        payload.resize(payload.len().max(self.size.saturating_sub(MESSAGE2_MIN_LEN - MESSAGE2_MIN)), 0);
        let packet = write(&mut self.noise, &self.mask, &payload)?;
        let keys = message.agreed().map(|(index, suite)| {
            let (receive, send) = split(&mut self.noise);
            Keys { suite, index, peer_index: self.peer_index, send, receive, mask: self.mask }
        });
        Ok((packet, keys))
    }
}

/// What a handshake agreed on. They are wiped when dropped.
pub struct Keys {
    /// How packets are sealed.
    pub suite: Suite,
    /// The index that packets to this end name.
    pub index: u32,
    /// The index that packets to the other end name.
    pub peer_index: u32,
    send: Key,
    receive: Key,
    mask: Mask,
}

impl Keys {
    /// Makes the two ends of the packet stream that belong to this end.
    pub fn into_pair(self) -> (Sealer, Opener) {
        (
            Sealer::new(self.suite, &self.send, self.peer_index, self.mask),
            Opener::new(self.suite, &self.receive),
        )
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys")
            .field("suite", &self.suite)
            .field("index", &self.index)
            .field("peer_index", &self.peer_index)
            .finish_non_exhaustive()
    }
}

/// Why a handshake message was not taken, or not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HandshakeError {
    /// The packet is too short to be that message.
    #[error("the handshake message is truncated")]
    Truncated,
    /// The packet is longer than any handshake message.
    #[error("the handshake message is too long")]
    Oversized,
    /// The unmasked header is not a handshake's: the sender does not know the server's public key,
    /// or the packet is of another kind.
    #[error("the packet is no handshake message")]
    NotHandshake,
    /// Message 1 does not open.
    #[error("the handshake message does not open")]
    Forged,
    /// Message 2 opens neither under our preshared key nor, as a refusal, under none.
    #[error("preshared_key differs")]
    PresharedKeyDiffers,
    /// Message 2 opens under no preshared key and is no refusal: the server, and nobody else, says that it has none for us.
    #[error("preshared_key differs: the server has none for this client")]
    NoPresharedKey,
    /// The payload opened and makes no sense.
    #[error(transparent)]
    Payload(#[from] PayloadError),
    /// Message 2 opened and names another index than ours.
    #[error("message 2 is for another index")]
    WrongEcho,
    /// Message 2 was read before.
    #[error("the handshake is finished")]
    Finished,
    /// An unknown client can only be refused.
    #[error("the client's key is unknown")]
    UnknownKey,
    /// Message 1 cannot have the size asked for.
    #[error("message 1 cannot have this size")]
    Size,
    /// `snow` refused to do what it was asked.
    #[error("the Noise handshake failed")]
    Noise,
}

impl HandshakeError {
    /// Returns the name of this reason in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::Oversized => "oversized",
            Self::NotHandshake => "not_handshake",
            Self::Forged => "forged",
            Self::PresharedKeyDiffers => "preshared_key_differs",
            Self::NoPresharedKey => "no_preshared_key",
            Self::Payload(error) => error.label(),
            Self::WrongEcho => "wrong_echo",
            Self::Finished => "finished",
            Self::UnknownKey => "unknown_key",
            Self::Size => "size",
            Self::Noise => "noise",
        }
    }
}

impl From<snow::Error> for HandshakeError {
    fn from(error: snow::Error) -> Self {
        if error == snow::Error::Decrypt { Self::Forged } else { Self::Noise }
    }
}

/// `snow`'s own primitives, with an ephemeral secret from the caller's generator.
struct Resolver(Zeroizing<[u8; KEY_LEN]>);

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn types::Random>> {
        Some(Box::new(Secret(Some(self.0.clone()))))
    }

    fn resolve_dh(&self, choice: &params::DHChoice) -> Option<Box<dyn types::Dh>> {
        DefaultResolver.resolve_dh(choice)
    }

    fn resolve_hash(&self, choice: &params::HashChoice) -> Option<Box<dyn types::Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &params::CipherChoice) -> Option<Box<dyn types::Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

/// The randomness of one handshake: one ephemeral secret, given once.
struct Secret(Option<Zeroizing<[u8; KEY_LEN]>>);

impl types::Random for Secret {
    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), snow::Error> {
        let secret = self.0.take().ok_or(snow::Error::Rng)?;
        if bytes.len() != secret.len() {
            return Err(snow::Error::Rng);
        }
        bytes.copy_from_slice(&*secret);
        Ok(())
    }
}

fn builder<'a>(rng: &mut dyn CryptoRng) -> Result<snow::Builder<'a>, snow::Error> {
    let mut secret = Zeroizing::new([0; KEY_LEN]);
    rng.fill_bytes(&mut *secret);
    let resolver = Box::new(Resolver(secret));
    Ok(snow::Builder::with_resolver(PROTOCOL.parse()?, resolver))
}

/// Writes the next Noise message as a whole packet.
fn write(noise: &mut HandshakeState, mask: &Mask, payload: &[u8]) -> Result<Vec<u8>, HandshakeError> {
    let mut packet = vec![0; MESSAGE1_MIN_LEN + payload.len()];
    let message = packet.get_mut(HEADER_LEN..).ok_or(HandshakeError::Noise)?;
    let length = noise.write_message(payload, message)?;
    packet.truncate(HEADER_LEN + length);
    mask.write(Header::HANDSHAKE, &mut packet);
    mask.veil(&mut packet);
    Ok(packet)
}

/// Opens the next Noise message and returns its payload.
fn read(noise: &mut HandshakeState, message: &[u8]) -> Result<Vec<u8>, snow::Error> {
    let mut payload = vec![0; message.len()];
    let length = noise.read_message(message, &mut payload)?;
    payload.truncate(length);
    Ok(payload)
}

/// Takes the Noise message out of a packet, if its size and its header are a handshake's.
fn unwrap(mask: &Mask, packet: &[u8], min: usize) -> Result<Vec<u8>, HandshakeError> {
    let header = mask.header(packet).ok_or(HandshakeError::Truncated)?;
    if !header.is_handshake() {
        return Err(HandshakeError::NotHandshake);
    }
    if packet.len() < min {
        return Err(HandshakeError::Truncated);
    }
    if packet.len() > MESSAGE_MAX_LEN {
        return Err(HandshakeError::Oversized);
    }
    let mut packet = packet.to_vec();
    mask.veil(&mut packet);
    Ok(packet.split_off(HEADER_LEN))
}

/// Returns the keys of the two directions: client to server, server to client.
fn split(noise: &mut HandshakeState) -> (Key, Key) {
    let (to_server, to_client) = noise.dangerously_get_raw_split();
    (Key::new(to_server), Key::new(to_client))
}

/// Bytes of the smallest message 1.
pub const MESSAGE1_MIN_LEN: usize = HEADER_LEN + KEY_LEN + (KEY_LEN + TAG_LEN) + MESSAGE1_LEN + TAG_LEN;

/// Bytes of the largest handshake message that is read: our choice, the largest IP packet.
pub const MESSAGE_MAX_LEN: usize = 65_535;

/// Bytes of the smallest message 2.
const MESSAGE2_MIN_LEN: usize = HEADER_LEN + KEY_LEN + MESSAGE2_MIN + TAG_LEN;

/// Bytes of an outer packet that each path takes (RFC 8200, section 5), without IPv6 and TCP
/// headers.
const SMALLEST_PATH: usize = 1280 - 40 - 20;

const _: () = assert!(HEADER_LEN + KEY_LEN + MESSAGE2_MAX + TAG_LEN <= SMALLEST_PATH);

const PROTOCOL: &str = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";

const PROLOGUE: &[u8] = b"vpn handshake";

/// Where the pattern mixes the preshared key in: psk2, at the end of message 2.
const PSK_POSITION: usize = 2;

#[cfg(test)]
mod tests;
