//! The two ends of the handshake against each other, and against bytes that are not theirs.

use proptest::prelude::*;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::{TryCryptoRng, TryRng};

use super::super::payload::tests::{fresh, message1};
use super::super::payload::{MAX_LIST, Refusal, VERSION};
use super::*;

const SIZE: usize = 400;

/// Two ends with fixed keys, and what each believes of the other.
struct Ends {
    client: PrivateKey,
    server: PrivateKey,
    client_psk: PresharedKey,
    server_psk: Option<PresharedKey>,
    rng: StdRng,
}

impl Ends {
    fn new() -> Self {
        let psk = PresharedKey::from_bytes([3; KEY_LEN]);
        Self {
            client: PrivateKey::from_bytes([1; KEY_LEN]),
            server: PrivateKey::from_bytes([2; KEY_LEN]),
            client_psk: psk.clone(),
            server_psk: Some(psk),
            rng: StdRng::seed_from_u64(4),
        }
    }

    fn without_psk() -> Self {
        Self { client_psk: PresharedKey::default(), server_psk: Some(PresharedKey::default()), ..Self::new() }
    }

    fn initiate(&mut self, payload: &Message1, size: usize) -> (Initiator, Vec<u8>) {
        let server = self.server.public_key();
        let (client, psk) = (&self.client, &self.client_psk);
        Initiator::new(client, &server, psk, payload, size, &mut self.rng).unwrap()
    }

    fn receive(&mut self, packet: &[u8]) -> Result<Received, HandshakeError> {
        let psk = self.server_psk.clone();
        Responder::read(&self.server, packet, &|_| psk.clone(), &mut self.rng)
    }

    /// Runs message 1 and 2 and returns the initiator and message 2.
    fn answer(&mut self, message: &Message2) -> (Initiator, Vec<u8>, Option<Keys>) {
        let (initiator, packet) = self.initiate(&message1(), SIZE);
        let received = self.receive(&packet).unwrap();
        let (packet, keys) = received.responder.write(message).unwrap();
        (initiator, packet, keys)
    }
}

/// Gives bytes that count, so that test vectors do not depend on a generator.
struct Counting(u8);

impl TryRng for Counting {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        for byte in bytes {
            *byte = self.0;
            self.0 = self.0.wrapping_add(1);
        }
        Ok(())
    }
}

impl TryCryptoRng for Counting {}

fn resumed(suite: Suite) -> Message2 {
    Message2::Resumed { index: 7, suite }
}

fn refused(reason: Refusal) -> Message2 {
    Message2::Refused { reason }
}

/// Carries one packet from end to end and returns the index that it named.
fn pass(sealer: &mut Sealer, opener: &mut Opener, mask: &Mask) -> Option<u32> {
    let mut packet = vec![0; HEADER_LEN];
    packet.extend_from_slice(b"hello");
    sealer.seal(&mut packet, 0).unwrap();
    let header = mask.header(&packet)?;
    let opened = opener.open(header, &mut packet).ok()?;
    assert_eq!(opened.plaintext, b"hello");
    Some(header.index)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Client's private key 32 × 01, server's 32 × 02, preshared key 32 × 03, ephemeral secrets 00 … 1f
/// and 20 … 3f, payloads as in the vectors of the codecs, no padding. Another implementation of
/// Noise made the bytes.
#[test]
fn writes_the_bytes_of_the_test_vectors() {
    let ends = Ends::new();
    let mut rng = Counting(0);
    let (mut initiator, message_1) = Initiator::new(
        &ends.client,
        &ends.server.public_key(),
        &ends.client_psk,
        &message1(),
        MESSAGE1_MIN_LEN,
        &mut rng,
    )
    .unwrap();
    assert_eq!(hex(&message_1), MESSAGE_1_VECTOR);
    let lookup = |_: &PublicKey| ends.server_psk.clone();
    let received = Responder::read(&ends.server, &message_1, &lookup, &mut rng).unwrap();
    let message = resumed(Suite::ChaCha20Poly1305);
    let (message_2, keys) = received.responder.write(&message).unwrap();
    assert_eq!(hex(&message_2), MESSAGE_2_VECTOR);
    let keys = keys.unwrap();
    assert_eq!(hex(&*keys.receive), TO_SERVER_VECTOR);
    assert_eq!(hex(&*keys.send), TO_CLIENT_VECTOR);
    assert!(initiator.finish(&message_2).is_ok());
}

const MESSAGE_1_VECTOR: &str = concat!(
    "8fe3867b0a6f67fe5f3f8d0c9e2a47e614730c6a33554091f9016705ad7edc4686c98158c8bcfb2e28166253",
    "f7b0051f1bb691e6dea8b960e074818cff7e2046b58c6c85fd4124336e3c8197819d9a5e1aadd638e10ba2bd",
    "cb83d58c605c0d6ac4f0717a0acf837f589f501c5566366629992a24f61ea7655f0278c374863f1b04642e60",
    "f7362c1ca845284557d747fecc86818a",
);
const MESSAGE_2_VECTOR: &str = concat!(
    "2402bc75715a4da994e3be8c581d54a6ce5cb14beb78bee8f5c8f58d83caf770e5de51d6a83dd9a6b58257ab",
    "5806a8640ed3a551255efca4809b55039bf61f91e35b",
);
const TO_SERVER_VECTOR: &str = "259e3886622e2d6791ce383029b16e3d5d1ce5513f90c8f9b4946806d00ec2a8";
const TO_CLIENT_VECTOR: &str = "9a3f395c9264d4c7a31cc29682c57e464f3d4fe6170f0fd101cd10826e08f981";

#[test]
fn gives_both_ends_the_same_keys() {
    for mut ends in [Ends::new(), Ends::without_psk()] {
        for message in [resumed(Suite::ChaCha20Poly1305), fresh()] {
            let (mut initiator, packet, keys) = ends.answer(&message);
            let (answer, client) = initiator.finish(&packet).unwrap();
            assert_eq!(answer, message);
            let (client, server) = (client.unwrap(), keys.unwrap());
            let agreed = (server.peer_index, server.index, server.suite);
            assert_eq!((client.index, client.peer_index, client.suite), agreed);
            let (to_server, to_client) = (server.index, client.index);
            let mask = Mask::new(&ends.server.public_key());
            let (mut client_sealer, mut client_opener) = client.into_pair();
            let (mut server_sealer, mut server_opener) = server.into_pair();
            let up = pass(&mut client_sealer, &mut server_opener, &mask);
            assert_eq!(up, Some(to_server));
            let down = pass(&mut server_sealer, &mut client_opener, &mask);
            assert_eq!(down, Some(to_client));
            let back = pass(&mut client_sealer, &mut client_opener, &mask);
            assert!(back.is_none(), "a packet reflected to its sender opened");
        }
    }
}

#[test]
fn tells_the_server_who_the_client_is_and_what_it_says() {
    let mut ends = Ends::new();
    let (_, mut packet) = ends.initiate(&message1(), SIZE);
    let received = ends.receive(&packet).unwrap();
    assert_eq!(received.remote, ends.client.public_key());
    assert_eq!(received.payload, message1());
    assert_ne!(&received.ephemeral, packet[HEADER_LEN..].first_chunk().unwrap(), "it is veiled");
    Mask::new(&ends.server.public_key()).veil(&mut packet);
    assert_eq!(&received.ephemeral, packet[HEADER_LEN..].first_chunk().unwrap());
    assert!(received.known);
}

/// In the open, the last bit of an ephemeral key would be 0 in every message.
#[test]
fn no_bit_of_a_handshake_message_has_a_habit() {
    let mut ends = Ends::new();
    let mut ones = [[0_u32; 8 * VISIBLE]; 2];
    for _ in 0..HANDSHAKES {
        let (_, message_1) = ends.initiate(&message1(), SIZE);
        let received = ends.receive(&message_1).unwrap();
        let (message_2, _) = received.responder.write(&fresh()).unwrap();
        for (ones, message) in ones.iter_mut().zip([&message_1, &message_2]) {
            for (bit, ones) in ones.iter_mut().enumerate() {
                *ones += u32::from(message[bit / 8] >> (bit % 8) & 1);
            }
        }
    }
    // Six standard deviations: one of the 768 bits strays so far once in half a million runs.
    let allowed = HANDSHAKES / 2 - 3 * HANDSHAKES.isqrt()..=HANDSHAKES / 2 + 3 * HANDSHAKES.isqrt();
    for (bit, ones) in ones.iter().flatten().enumerate() {
        assert!(allowed.contains(ones), "bit {bit}: {ones} of {HANDSHAKES}");
    }
}

/// Header, ephemeral key, and what begins behind it.
const VISIBLE: usize = 48;
const HANDSHAKES: u32 = 500;

#[test]
fn pads_message_1_to_exactly_the_size_asked_for() {
    let mut ends = Ends::new();
    for size in [MESSAGE1_MIN_LEN, MESSAGE1_MIN_LEN + 1, 1240, 1360, 9000, MESSAGE_MAX_LEN] {
        let (_, packet) = ends.initiate(&message1(), size);
        assert_eq!(packet.len(), size);
        assert_eq!(ends.receive(&packet).unwrap().payload, message1());
    }
    for size in [0, MESSAGE1_MIN_LEN - 1, MESSAGE_MAX_LEN + 1] {
        let (psk, server) = (PresharedKey::default(), ends.server.public_key());
        let begun = Initiator::new(&ends.client, &server, &psk, &message1(), size, &mut ends.rng);
        assert_eq!(begun.unwrap_err(), HandshakeError::Size);
    }
}

#[test]
fn draws_a_new_ephemeral_key_for_each_message() {
    let mut ends = Ends::new();
    let ephemeral = |packet: &[u8]| packet[HEADER_LEN..].first_chunk::<KEY_LEN>().copied();
    let (_, one) = ends.initiate(&message1(), SIZE);
    let (_, other) = ends.initiate(&message1(), SIZE);
    assert_ne!(ephemeral(&one), ephemeral(&other));
    let first = ends.receive(&one).unwrap();
    let second = ends.receive(&one).unwrap();
    let first = first.responder.write(&fresh()).unwrap().0;
    let second = second.responder.write(&fresh()).unwrap().0;
    assert_ne!(ephemeral(&first), ephemeral(&second));
}

#[test]
fn is_silent_to_a_client_with_the_wrong_server_key() {
    let mut ends = Ends::new();
    let other = PrivateKey::from_bytes([9; KEY_LEN]).public_key();
    let (psk, rng) = (&ends.client_psk, &mut ends.rng);
    let (_, packet) = Initiator::new(&ends.client, &other, psk, &message1(), SIZE, rng).unwrap();
    let error = ends.receive(&packet).unwrap_err();
    assert_eq!(error, HandshakeError::NotHandshake);
    let mut unmasked = packet;
    Mask::new(&ends.server.public_key()).write(Header::HANDSHAKE, &mut unmasked);
    assert_eq!(ends.receive(&unmasked).unwrap_err(), HandshakeError::Forged);
}

#[test]
fn refuses_an_unknown_key_under_the_zero_preshared_key() {
    let mut ends = Ends { server_psk: None, ..Ends::new() };
    let (_, packet) = ends.initiate(&message1(), SIZE);
    let received = ends.receive(&packet).unwrap();
    assert!(!received.known);
    let written = received.responder.write(&fresh());
    assert_eq!(written.unwrap_err(), HandshakeError::UnknownKey);

    let message = refused(Refusal::UnknownKey);
    let (mut initiator, packet, keys) = ends.answer(&message);
    assert!(keys.is_none());
    let (answer, keys) = initiator.finish(&packet).unwrap();
    assert_eq!(answer, message);
    assert!(keys.is_none());
}

#[test]
fn refuses_another_version() {
    let mut ends = Ends::new();
    let payload = Message1 { version: VERSION + 1, ..message1() };
    let (mut initiator, packet) = ends.initiate(&payload, SIZE);
    let received = ends.receive(&packet).unwrap();
    assert_eq!(received.payload.version, VERSION + 1);
    let message = refused(Refusal::Version);
    let (packet, _) = received.responder.write(&message).unwrap();
    assert_eq!(initiator.finish(&packet).unwrap().0, message);
}

#[test]
fn says_that_the_preshared_keys_differ() {
    let zero = || Some(PresharedKey::default());
    let other = || Some(PresharedKey::from_bytes([8; KEY_LEN]));
    let stale = Message2::Stale { above: message1().timestamp };
    for (server_psk, reason) in
        [(zero(), HandshakeError::NoPresharedKey), (other(), HandshakeError::PresharedKeyDiffers)]
    {
        for message in [fresh(), resumed(Suite::Aes256Gcm), stale.clone()] {
            let mut ends = Ends { server_psk: server_psk.clone(), ..Ends::new() };
            let (mut initiator, packet, _) = ends.answer(&message);
            assert_eq!(initiator.finish(&packet).unwrap_err(), reason);
        }
    }
    let mut ends = Ends { client_psk: PresharedKey::default(), ..Ends::new() };
    let (mut initiator, packet, _) = ends.answer(&fresh());
    let error = initiator.finish(&packet).unwrap_err();
    assert_eq!(error, HandshakeError::PresharedKeyDiffers);
}

#[test]
fn takes_message_2_after_any_amount_of_garbage() {
    let mut ends = Ends::new();
    let (mut initiator, packet, _) = ends.answer(&fresh());
    let mask = Mask::new(&ends.server.public_key());
    let (_, late, _) = ends.answer(&fresh());
    let mut garbage = vec![0x77; packet.len()];
    let error = initiator.finish(&garbage).unwrap_err();
    assert_eq!(error, HandshakeError::NotHandshake);
    for length in [HEADER_LEN + TAG_LEN, packet.len(), 2000, MESSAGE_MAX_LEN + 1] {
        garbage.resize(length, 0x78);
        mask.write(Header::HANDSHAKE, &mut garbage);
        assert!(initiator.finish(&garbage).is_err());
    }
    let error = initiator.finish(&late).unwrap_err();
    assert_eq!(error, HandshakeError::PresharedKeyDiffers);
    let (answer, keys) = initiator.finish(&packet).unwrap();
    assert_eq!(answer, fresh());
    assert!(keys.is_some());
    let error = initiator.finish(&packet).unwrap_err();
    assert_eq!(error, HandshakeError::Finished);
}

#[test]
fn drops_message_1_with_any_byte_changed() {
    let mut ends = Ends::new();
    let (_, packet) = ends.initiate(&message1(), MESSAGE1_MIN_LEN + 10);
    for position in 0..packet.len() {
        let mut tampered = packet.clone();
        tampered[position] ^= 1;
        assert!(ends.receive(&tampered).is_err(), "{position}");
    }
    assert!(ends.receive(&packet).is_ok());
}

#[test]
fn drops_message_2_with_any_byte_changed() {
    let mut ends = Ends::new();
    let (mut initiator, packet, _) = ends.answer(&fresh());
    for position in 0..packet.len() {
        let mut tampered = packet.clone();
        tampered[position] ^= 0x80;
        assert!(initiator.finish(&tampered).is_err(), "{position}");
    }
    assert!(initiator.finish(&packet).is_ok());
}

#[test]
fn drops_messages_cut_to_any_length() {
    let mut ends = Ends::new();
    let mask = Mask::new(&ends.server.public_key());
    let (_, message_1) = ends.initiate(&message1(), MESSAGE1_MIN_LEN + 10);
    let (mut initiator, message_2, _) = ends.answer(&fresh());
    let cut = |packet: &[u8], length: usize| {
        let mut cut = packet[..length].to_vec();
        mask.write(Header::HANDSHAKE, &mut cut);
        cut
    };
    for length in 0..message_1.len() {
        assert!(ends.receive(&message_1[..length]).is_err(), "{length}");
        assert!(ends.receive(&cut(&message_1, length)).is_err(), "{length}");
    }
    for length in 0..message_2.len() {
        assert!(initiator.finish(&message_2[..length]).is_err(), "{length}");
        assert!(initiator.finish(&cut(&message_2, length)).is_err(), "{length}");
    }
    assert!(initiator.finish(&message_2).is_ok());
}

#[test]
fn does_not_take_a_handshake_message_for_the_other() {
    let mut ends = Ends::new();
    let (mut initiator, message_1) = ends.initiate(&message1(), SIZE);
    assert!(initiator.finish(&message_1).is_err());
    let (_, message_2, _) = ends.answer(&fresh());
    assert!(ends.receive(&message_2).is_err());
}

#[test]
fn does_not_write_lists_that_are_too_long() {
    let mut ends = Ends::new();
    let (_, packet) = ends.initiate(&message1(), SIZE);
    let message = Message2::Fresh {
        index: 1,
        suite: Suite::Aes256Gcm,
        epoch: 1,
        addresses: Vec::new(),
        dns: vec!["9.9.9.9".parse().unwrap(); MAX_LIST + 1],
    };
    let written = ends.receive(&packet).unwrap().responder.write(&message);
    let expected = HandshakeError::Payload(PayloadError::TooMany);
    assert_eq!(written.unwrap_err(), expected);
}

#[test]
fn shows_no_key_in_debug_output() {
    let mut ends = Ends::new();
    let (_, _, keys) = ends.answer(&fresh());
    let keys = keys.unwrap();
    let shown = format!("{keys:?}");
    assert!(!shown.contains("send"), "{shown}");
    assert!(!shown.contains("Zeroizing"), "{shown}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn takes_any_bytes_without_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..700),
        masked: bool,
    ) {
        let mut ends = Ends::new();
        let (mut initiator, _) = ends.initiate(&message1(), SIZE);
        if masked {
            Mask::new(&ends.server.public_key()).write(Header::HANDSHAKE, &mut bytes);
        }
        prop_assert!(ends.receive(&bytes).is_err());
        prop_assert!(initiator.finish(&bytes).is_err());
    }
}
