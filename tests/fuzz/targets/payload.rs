//! `which u8, bytes`: what the handshake messages say inside their seal.

use vpn::crypto::{Message1, Message2, Refusal, SessionId, Suite, SuiteSet, Timestamp};

use super::input::Input;

/// What decodes is encoded to the bytes it came from, but for what is not looked at.
pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    match input.u8() % 3 {
        0 => message1(input.rest()),
        1 => message2(input.rest()),
        _ => timestamp(input.array()),
    }
}

fn message1(bytes: &[u8]) {
    let Ok(message) = Message1::decode(bytes) else { return };
    assert_ne!(message.index, 0);
    let again = message.encode();
    assert_eq!(Message1::decode(&again), Ok(message));
    let mut expected = bytes[..again.len()].to_vec();
    // Suites that this version has no name for.
    expected[2] &= 3;
    assert_eq!(again.as_slice(), expected);
}

fn message2(bytes: &[u8]) {
    let Ok((client, message)) = Message2::decode(bytes) else { return };
    let again = message.encode(client).unwrap_or_else(|error| panic!("{message:?}: {error}"));
    assert_eq!(again, bytes[..again.len()]);
    assert_eq!(Message2::decode(&again), Ok((client, message)));
}

fn timestamp(bytes: [u8; 12]) {
    let Some(timestamp) = Timestamp::from_bytes(bytes) else { return };
    assert_eq!(timestamp.to_bytes(), bytes);
    let next = timestamp.next();
    assert!(next > timestamp || bytes[..8] == [0xff; 8]);
    assert!(Timestamp::from_bytes(next.to_bytes()) == Some(next));
    assert_eq!(Timestamp::after(Some(timestamp), timestamp), next);
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let timestamp = Timestamp::from_unix(std::time::Duration::new(1_700_000_000, 999_999_999));
    let message1 = Message1 {
        version: 1,
        mode: 0,
        is_probe: false,
        timestamp,
        index: 0x0403_0201,
        session: SessionId([7; 16]),
        epoch: 3,
        suites: SuiteSet::ALL,
        carrier: 2,
        keep: 1,
    };
    let mut seeds = vec![[&[0], message1.encode().as_slice(), &[0; 9]].concat()];
    for message in all_of_message2(timestamp) {
        seeds.push([&[1], message.encode(5).expect("short lists").as_slice(), &[0; 3]].concat());
    }
    seeds.push([&[2], timestamp.to_bytes().as_slice()].concat());
    seeds
}

/// One of each kind.
pub(crate) fn all_of_message2(timestamp: Timestamp) -> Vec<Message2> {
    let addresses = ["10.77.0.2/24", "fd77::2/64"].map(|text| text.parse().expect("a network"));
    let dns = ["9.9.9.9", "2620:fe::fe"].map(|text| text.parse().expect("an address"));
    let (index, suite) = (9, Suite::ChaCha20Poly1305);
    vec![
        Message2::Resumed { index, suite },
        Message2::Fresh { index, suite, epoch: 4, addresses: addresses.to_vec(), dns: dns.to_vec() },
        Message2::Refused { reason: Refusal::Version },
        Message2::Stale { above: timestamp },
    ]
}
