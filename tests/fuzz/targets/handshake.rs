//! `kind u8, …`: the two handshake messages, damaged on their way or written by a peer that says what it likes.

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use vpn::crypto::{
    HEADER_LEN, HandshakeError, Initiator, Keys, MESSAGE1_MIN_LEN, Mask, Message1, Message2, PresharedKey,
    PrivateKey, PublicKey, Received, Responder, TAG_LEN,
};

use super::input::{Input, damage};
use super::payload;

/// A message with one bit changed is not taken and leaves the handshake as it was; one that opens says what its payload
/// says; without the preshared key nothing but a refusal is believed.
pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    match input.u8() % 4 {
        0 => damaged_message1(&mut input),
        1 => any_message1(&mut input),
        2 => damaged_message2(&mut input),
        _ => any_message2(&mut input),
    }
}

fn damaged_message1(input: &mut Input<'_>) {
    let (_, packet) = initiate();
    let mut damaged = packet.clone();
    damage(&mut damaged, input);
    let received = respond(&damaged);
    assert_eq!(received.is_ok(), damaged == packet, "{damaged:02x?}");
    assert!(received.is_err() || received.is_ok_and(|received| received.payload == message1()));
}

/// A client whose message 1 says anything.
fn any_message1(input: &mut Input<'_>) {
    let plaintext = input.take(2000);
    let (client, server) = (client_key(), server_public());
    let mut noise = noise()
        .local_private_key(client.as_bytes())
        .and_then(|builder| builder.remote_public_key(server.as_bytes()))
        .and_then(|builder| builder.build_initiator())
        .expect("an initiator");
    let packet = pack(&mut noise, plaintext);
    let is_long_enough = packet.len() >= MESSAGE1_MIN_LEN;
    match (respond(&packet), Message1::decode(plaintext)) {
        (Ok(received), Ok(message)) => {
            assert!(is_long_enough && received.known);
            assert_eq!((received.payload, received.remote), (message, client_key().public_key()));
        }
        (Err(HandshakeError::Payload(found)), Err(error)) => assert_eq!(found, error),
        (result, decoded) => assert!(!is_long_enough && result.is_err(), "{result:?} of {decoded:?}"),
    }
}

fn damaged_message2(input: &mut Input<'_>) {
    let (mut initiator, packet) = initiate();
    let answers = payload::all_of_message2(message1().timestamp);
    let answer = &answers[input.below(answers.len())];
    let received = respond(&packet).expect("message 1 opens");
    let (reply, server) = received.responder.write(answer).expect("the client is known");
    let mut damaged = reply.clone();
    damage(&mut damaged, input);
    if damaged != reply {
        assert!(initiator.finish(&damaged).is_err(), "{damaged:02x?}");
    }
    let (message, client) = initiator.finish(&reply).expect("what came before changed nothing");
    assert_eq!(&message, answer);
    assert_eq!(
        (client.is_some(), server.is_some()),
        (message_gives_keys(answer), message_gives_keys(answer))
    );
    if let (Some(client), Some(server)) = (client, server) {
        assert_talk(client, server);
    }
    assert_eq!(initiator.finish(&reply).err(), Some(HandshakeError::Finished));
}

/// A server whose message 2 says anything, under the right preshared key, none or another.
fn any_message2(input: &mut Input<'_>) {
    let psk = [*preshared().as_bytes(), [0; 32], [3; 32]][input.below(3)];
    let plaintext = input.take(2000);
    let (mut initiator, mut packet) = initiate();
    let server = server_key();
    let mut noise = noise()
        .local_private_key(server.as_bytes())
        .and_then(|builder| builder.psk(2, &psk))
        .and_then(|builder| builder.build_responder())
        .expect("a responder");
    Mask::new(&server_public()).veil(&mut packet);
    noise.read_message(&packet[HEADER_LEN..], &mut vec![0; packet.len()]).expect("message 1 opens");
    let packet = pack(&mut noise, plaintext);
    let decoded = Message2::decode(plaintext).ok().filter(|(client, _)| *client == message1().index);
    if let Ok((message, keys)) = initiator.finish(&packet) {
        assert_eq!(decoded.map(|(_, message)| message), Some(message.clone()));
        assert_eq!(keys.is_some(), message_gives_keys(&message));
        let is_refusal = matches!(message, Message2::Refused { .. });
        assert!(psk == *preshared().as_bytes() || psk == [0; 32] && is_refusal, "{message:?} under {psk:?}");
    } else {
        let is_right = psk == *preshared().as_bytes();
        assert!(!is_right || decoded.is_none(), "{decoded:?} was not taken");
    }
}

fn message_gives_keys(message: &Message2) -> bool {
    matches!(message, Message2::Resumed { .. } | Message2::Fresh { .. })
}

/// What one seals the other opens, in both directions.
fn assert_talk(client: Keys, server: Keys) {
    let mask = Mask::new(&server_public());
    let (mut ends, indices) = ([client.into_pair(), server.into_pair()], [9, message1().index]);
    for (from, to) in [(0, 1), (1, 0)] {
        let mut packet = vec![0; HEADER_LEN];
        packet.extend_from_slice(b"plaintext");
        ends[from].0.seal(&mut packet, 0).expect("fresh keys");
        let header = mask.header(&packet).expect("a header");
        assert_eq!(header.index, indices[from]);
        assert_eq!(ends[to].1.open(header, &mut packet).expect("it opens").plaintext, b"plaintext");
    }
}

/// A Noise message as a sealed packet with the header of a handshake.
fn pack(noise: &mut snow::HandshakeState, plaintext: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; HEADER_LEN + plaintext.len() + 32 + 32 + 2 * TAG_LEN];
    let length = noise.write_message(plaintext, &mut packet[HEADER_LEN..]).expect("a short message");
    packet.truncate(HEADER_LEN + length);
    let mask = Mask::new(&server_public());
    mask_handshake(&mask, &mut packet);
    mask.veil(&mut packet);
    packet
}

/// Masks a header of zeros: what zeros are read as is the mask.
pub(crate) fn mask_handshake(mask: &Mask, packet: &mut [u8]) {
    packet[..HEADER_LEN].fill(0);
    let Some(header) = mask.header(packet) else { return };
    packet[..4].copy_from_slice(&header.index.to_le_bytes());
    packet[4..8].copy_from_slice(&header.counter.to_le_bytes());
}

fn noise() -> snow::Builder<'static> {
    let pattern = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s".parse().expect("a pattern");
    let builder = snow::Builder::new(pattern).fixed_ephemeral_key_for_testing_only(&[5; 32]);
    builder.prologue(b"vpn handshake").expect("a prologue")
}

fn initiate() -> (Initiator, Vec<u8>) {
    let mut rng = StdRng::seed_from_u64(1);
    Initiator::new(&client_key(), &server_public(), &preshared(), &message1(), 200, &mut rng)
        .expect("a size that fits")
}

fn respond(packet: &[u8]) -> Result<Received, HandshakeError> {
    let lookup = |key: &PublicKey| (*key == client_key().public_key()).then(preshared);
    Responder::read(&server_key(), packet, &lookup, &mut StdRng::seed_from_u64(2))
}

fn message1() -> Message1 {
    Message1::decode(&payload::seeds()[0][1..]).expect("a seed")
}

fn client_key() -> PrivateKey {
    PrivateKey::from_bytes([1; 32])
}

fn server_key() -> PrivateKey {
    PrivateKey::from_bytes([2; 32])
}

fn server_public() -> PublicKey {
    server_key().public_key()
}

fn preshared() -> PresharedKey {
    PresharedKey::from_bytes([6; 32])
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![
        vec![0, 0, 0, 0, 0],
        vec![0, 1, 40, 0, 1],
        vec![0, 2, 90, 0, 0],
        [&[1], &payload::seeds()[0][1..]].concat(),
        vec![2, 0, 0],
        vec![2, 1, 1, 39, 0, 0x80],
        vec![2, 2, 3, 9, 0, 1],
    ];
    for message in payload::all_of_message2(message1().timestamp) {
        for psk in 0..3 {
            let plaintext = message.encode(message1().index).expect("short lists");
            seeds.push([&[3, psk], plaintext.as_slice()].concat());
        }
    }
    seeds
}
