//! Operations on one direction of a key pair: seal, deliver in any order and more than once, damage, forge.

use std::collections::BTreeMap;

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use vpn::crypto::{
    HEADER_LEN, Header, Initiator, Mask, Message1, OVERHEAD, OpenError, Opener, PresharedKey, PrivateKey,
    PublicKey, Responder, Sealer,
};

use super::input::{Input, damage};
use super::payload;

/// A packet opens exactly once, and if it is not below the window; what was not sealed never does, and changes nothing.
pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut world = World::new(input.bool());
    while let Some(operation) = input.operation() {
        match operation % 5 {
            0 => world.seal(input.bytes()),
            1 => (0..usize::from(input.u8()) * 64).for_each(|_| world.seal(b"")),
            2 => world.deliver(&mut input),
            3 => world.deliver_damaged(&mut input),
            _ => world.forge(&mut input),
        }
        if world.sealed.len() > 40_000 {
            break;
        }
    }
}

struct World {
    mask: Mask,
    sealer: Sealer,
    opener: Opener,
    sealed: Vec<(Vec<u8>, Vec<u8>)>,
    /// The counters that were opened.
    opened: BTreeMap<u64, ()>,
}

impl World {
    fn new(is_portable: bool) -> Self {
        let (client, server) = (PrivateKey::from_bytes([1; 32]), PrivateKey::from_bytes([2; 32]));
        let mut rng = StdRng::seed_from_u64(3);
        let seeds = payload::seeds();
        let message = Message1::decode(&seeds[0][1..]).expect("a seed");
        let psk = PresharedKey::default();
        let (mut initiator, packet) =
            Initiator::new(&client, &server.public_key(), &psk, &message, 200, &mut rng)
                .expect("a fitting size");
        let lookup = |_: &PublicKey| Some(PresharedKey::default());
        let received = Responder::read(&server, &packet, &lookup, &mut rng).expect("it opens");
        let suite =
            if is_portable { vpn::crypto::Suite::ChaCha20Poly1305 } else { vpn::crypto::Suite::Aes256Gcm };
        let answer = vpn::crypto::Message2::Resumed { index: 9, suite };
        let (reply, keys) = received.responder.write(&answer).expect("it is known");
        let (_, own) = initiator.finish(&reply).expect("it opens");
        Self {
            mask: Mask::new(&server.public_key()),
            sealer: own.expect("keys").into_pair().0,
            opener: keys.expect("keys").into_pair().1,
            sealed: Vec::new(),
            opened: BTreeMap::new(),
        }
    }

    fn seal(&mut self, plaintext: &[u8]) {
        let mut packet = vec![0xee; HEADER_LEN];
        packet.extend_from_slice(plaintext);
        self.sealer.seal(&mut packet, 0).expect("far below the limit");
        assert_eq!(packet.len(), plaintext.len() + OVERHEAD);
        let header = self.mask.header(&packet).expect("a header");
        let counter = u32::try_from(self.sealed.len()).expect("a few");
        assert_eq!(header, Header { index: 9, counter });
        self.sealed.push((packet, plaintext.to_vec()));
    }

    /// Counts from the end: the newest packets are the likeliest.
    fn any(&self, input: &mut Input<'_>) -> Option<usize> {
        let back = usize::from(input.u16());
        self.sealed.len().checked_sub(1).map(|last| last - back % self.sealed.len())
    }

    fn deliver(&mut self, input: &mut Input<'_>) {
        let Some(number) = self.any(input) else { return };
        let (packet, plaintext) = self.sealed[number].clone();
        let counter = number as u64;
        let highest = self.opened.last_key_value().map(|(counter, ())| *counter);
        let expected = if highest.is_some_and(|highest| highest >= counter + 8192) {
            Err(OpenError::TooOld)
        } else if self.opened.contains_key(&counter) {
            Err(OpenError::Replayed)
        } else {
            Ok((counter, plaintext, highest.is_none_or(|highest| counter > highest)))
        };
        assert_eq!(self.open(packet), expected);
        if expected.is_ok() {
            self.opened.insert(counter, ());
        }
        assert_eq!(self.opener.highest(), highest.max(expected.ok().map(|(counter, ..)| counter)));
    }

    fn deliver_damaged(&mut self, input: &mut Input<'_>) {
        let Some(number) = self.any(input) else { return };
        let mut packet = self.sealed[number].0.clone();
        damage(&mut packet, input);
        if packet != self.sealed[number].0 {
            self.assert_refused(packet);
        }
    }

    /// Any bytes, and any header for them.
    fn forge(&mut self, input: &mut Input<'_>) {
        let (index, counter) = (input.u32(), input.u32());
        let mut packet = input.bytes().to_vec();
        let highest = self.opener.highest();
        assert!(self.opener.open(Header { index, counter }, &mut packet).is_err());
        assert_eq!(self.opener.highest(), highest);
        self.assert_refused(packet);
    }

    fn assert_refused(&mut self, packet: Vec<u8>) {
        let highest = self.opener.highest();
        assert_eq!(self.mask.header(&packet).is_some(), packet.len() >= OVERHEAD);
        assert!(self.open(packet).is_err(), "a forgery opened");
        assert_eq!(self.opener.highest(), highest);
    }

    fn open(&mut self, mut packet: Vec<u8>) -> Result<(u64, Vec<u8>, bool), OpenError> {
        let header = self.mask.header(&packet).ok_or(OpenError::Truncated)?;
        let opened = self.opener.open(header, &mut packet)?;
        Ok((opened.counter, opened.plaintext.to_vec(), opened.newest))
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let length = |bytes: &[u8]| u8::try_from(bytes.len()).expect("a short text");
    let seal = |bytes: &[u8]| [&[0, length(bytes), 0], bytes].concat();
    let deliver = |back: u16| [&[2], back.to_le_bytes().as_slice()].concat();
    let mut seeds = Vec::new();
    for suite in 0..2 {
        seeds.push([vec![suite], seal(b"one"), seal(b"two"), deliver(1), deliver(0), deliver(1)].concat());
        seeds.push(
            [vec![suite], seal(b"one"), vec![1, 128], deliver(0), deliver(8192), deliver(8191)].concat(),
        );
        seeds.push([vec![suite], seal(b"some plaintext"), vec![3, 0, 0, 1, 9, 0, 4], deliver(0)].concat());
        seeds.push([vec![suite], seal(b"x"), vec![4, 9, 0, 0, 0, 0, 0, 0, 0, 25, 0], vec![7; 25]].concat());
    }
    seeds
}
