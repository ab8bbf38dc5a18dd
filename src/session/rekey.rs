//! The keys of one carrier, renewed while data flows on it.
//!
//! ```text
//!          message 1 ──>          <── message 2          the first packet under the new keys opens     30 s later
//!  client  old keys               new keys               new keys, old ones only open                  new keys
//!  server  old keys               old keys               new keys, old ones only open                  new keys
//! ```
//!
//! The exchange is the handshake again, on the carrier itself, begun by the client. No packet waits for it and none is lost by
//! it: each end seals with keys that the other end has, and opens under old and new ones. Indexes are new each time, so
//! every packet says which keys it wants.

use std::time::{Duration, Instant};

use super::loss::Counts;
use crate::crypto::{
    HandshakeError, Header, Initiator, Keys, Message2, OpenError, Opened, Opener, REKEY_AFTER_PACKETS,
    SealError, Sealer, Timestamp,
};

/// The keys of one end of a carrier: one generation seals, up to three open.
#[derive(Debug)]
pub(crate) struct KeyRing {
    current: Generation,
    /// Agreed on, and not used by the client yet; only a server has them.
    next: Option<Next>,
    /// Those before the current ones, and when they are forgotten: unknown until a packet under the current ones opened.
    old: Option<(Generation, Option<Instant>)>,
    since: Instant,
    renewed: u64,
    /// Of the last handshake that was answered: later ones only are.
    timestamp: Option<Timestamp>,
    /// Packets that opened, and that must have been sent, under generations that are forgotten.
    past: Counts,
}

/// The keys of one handshake.
#[derive(Debug)]
struct Generation {
    index: u32,
    sealer: Sealer,
    opener: Opener,
    opened: u64,
}

/// Keys that wait for their first packet.
#[derive(Debug)]
struct Next {
    generation: Generation,
    ephemeral: [u8; 32],
    /// Message 2, to be said again if message 1 comes again.
    reply: Vec<u8>,
}

/// What a server answers to the message 1 of a rekey.
#[derive(Clone, Debug)]
pub(crate) struct Offer {
    /// Ours in the new keys.
    pub(crate) index: u32,
    /// Of message 1.
    pub(crate) ephemeral: [u8; 32],
    /// Of message 1.
    pub(crate) timestamp: Timestamp,
    /// Message 2.
    pub(crate) reply: Vec<u8>,
}

/// A packet that opened, and what it meant to the keys.
#[derive(Debug)]
pub(crate) struct Unsealed<'a> {
    pub(crate) plaintext: &'a mut [u8],
    /// The newest packet so far of the newest keys so far: where it came from is where its sender is.
    pub(crate) newest: bool,
}

impl KeyRing {
    /// `index` is ours: what the peer writes in the header of each packet.
    pub(crate) fn new(index: u32, pair: (Sealer, Opener), now: Instant) -> Self {
        Self {
            current: Generation::new(index, pair),
            next: None,
            old: None,
            since: now,
            renewed: 0,
            timestamp: None,
            past: Counts::default(),
        }
    }

    /// Whether packets with this index are for one of our keys.
    pub(crate) fn has(&self, index: u32) -> bool {
        self.indexes().any(|own| own == index)
    }

    /// Of every generation that opens packets.
    pub(crate) fn indexes(&self) -> impl Iterator<Item = u32> {
        let next = self.next.iter().map(|next| next.generation.index);
        let old = self.old.iter().map(|(generation, _)| generation.index);
        next.chain(old).chain([self.current.index])
    }

    /// Seals as [`Sealer::seal`] does.
    pub(crate) fn seal(&mut self, packet: &mut Vec<u8>, start: usize) -> Result<(), SealError> {
        self.current.sealer.seal(packet, start)
    }

    /// Opens as [`Opener::open`] does, under the keys that the header names.
    pub(crate) fn open<'a>(
        &mut self,
        header: Header,
        packet: &'a mut [u8],
        now: Instant,
    ) -> Result<Unsealed<'a>, OpenError> {
        self.expire(now);
        if let Some((old, _)) = self.old.as_mut().filter(|(old, _)| old.index == header.index) {
            return Ok(Unsealed { plaintext: old.open(header, packet)?.plaintext, newest: false });
        }
        if let Some(next) = self.next.as_mut().filter(|next| next.generation.index == header.index) {
            let Opened { plaintext, newest, .. } = next.generation.open(header, packet)?;
            self.turn(now);
            return Ok(Unsealed { plaintext, newest });
        }
        if self.current.index != header.index {
            return Err(OpenError::Forged);
        }
        let Opened { plaintext, newest, .. } = self.current.open(header, packet)?;
        if let Some((_, until)) = &mut self.old {
            until.get_or_insert(now + OLD_KEYS_FOR);
        }
        Ok(Unsealed { plaintext, newest })
    }

    /// Whether the client should ask for new keys with its next packet.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        let sealed = self.current.sealer.sealed();
        let opened = self.current.opener.highest().unwrap_or(0);
        now >= self.since + REKEY_AFTER || sealed.max(opened) >= REKEY_AFTER_PACKETS
    }

    /// The client has message 2: it seals with the new keys at once.
    pub(crate) fn renew(&mut self, index: u32, pair: (Sealer, Opener), now: Instant) {
        self.replace(Generation::new(index, pair), None, now);
    }

    /// The server answers message 1: its new keys wait for the client to use them. Later ones take the place of those that
    /// wait.
    pub(crate) fn offer(&mut self, offer: Offer, pair: (Sealer, Opener)) {
        let Offer { index, ephemeral, timestamp, reply } = offer;
        self.timestamp = Some(timestamp);
        self.next = Some(Next { generation: Generation::new(index, pair), ephemeral, reply });
    }

    /// Message 2, if this is the message 1 again whose keys wait.
    pub(crate) fn repeated(&self, ephemeral: &[u8; 32]) -> Option<&[u8]> {
        self.next.as_ref().filter(|next| next.ephemeral == *ephemeral).map(|next| next.reply.as_slice())
    }

    /// Whether a message 1 with this timestamp was overtaken by one that was answered: the client waits for another answer.
    pub(crate) fn is_overtaken(&self, timestamp: Timestamp) -> bool {
        self.timestamp.is_some_and(|newest| timestamp <= newest)
    }

    /// How long the keys in use have been.
    pub(crate) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }

    /// How often they were replaced.
    pub(crate) fn renewed(&self) -> u64 {
        self.renewed
    }

    /// What arrived of the peer's packets, under whichever keys.
    pub(crate) fn counts(&self) -> Counts {
        let old = self.old.iter().map(|(generation, _)| generation.count());
        old.chain([self.current.count()]).fold(self.past, Counts::plus)
    }

    /// The client uses the new keys: so do we.
    fn turn(&mut self, now: Instant) {
        let Some(next) = self.next.take() else { return };
        self.replace(next.generation, Some(now + OLD_KEYS_FOR), now);
    }

    /// Seals with other keys from now on; those in use so far are forgotten at `until`, if that is known yet.
    fn replace(&mut self, by: Generation, until: Option<Instant>, now: Instant) {
        let old = std::mem::replace(&mut self.current, by);
        if let Some((forgotten, _)) = self.old.replace((old, until)) {
            self.past = self.past.plus(forgotten.count());
        }
        self.since = now;
        self.renewed += 1;
    }

    fn expire(&mut self, now: Instant) {
        let is_over = |until: Option<Instant>| until.is_some_and(|until| until <= now);
        if let Some((forgotten, _)) = self.old.take_if(|(_, until)| is_over(*until)) {
            self.past = self.past.plus(forgotten.count());
        }
    }
}

impl Generation {
    fn new(index: u32, (sealer, opener): (Sealer, Opener)) -> Self {
        Self { index, sealer, opener, opened: 0 }
    }

    fn open<'a>(&mut self, header: Header, packet: &'a mut [u8]) -> Result<Opened<'a>, OpenError> {
        let opened = self.opener.open(header, packet)?;
        self.opened += 1;
        Ok(opened)
    }

    fn count(&self) -> Counts {
        Counts { arrived: self.opened, sent: self.opener.highest().map_or(0, |highest| highest + 1) }
    }
}

/// The client's half of a rekey: message 1 until message 2 comes.
#[derive(Debug)]
pub(crate) struct Renewal {
    index: u32,
    initiator: Initiator,
    message1: Vec<u8>,
    begun: Instant,
    next: Instant,
    repeats: u32,
}

impl Renewal {
    /// `index` is ours in the new keys.
    pub(crate) fn new(index: u32, (initiator, message1): (Initiator, Vec<u8>), now: Instant) -> Self {
        Self { index, initiator, message1, begun: now, next: now, repeats: 0 }
    }

    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    /// When message 1 was first due.
    pub(crate) fn begun(&self) -> Instant {
        self.begun
    }

    /// Message 1 if it is due: the same bytes each time, so that an answer to any of them will do.
    pub(crate) fn poll_transmit(&mut self, now: Instant) -> Option<&[u8]> {
        if self.next > now {
            return None;
        }
        self.next = now + (FIRST_REPEAT * (1 << self.repeats.min(8))).min(MAX_REPEAT);
        self.repeats += 1;
        Some(&self.message1)
    }

    /// When [`Self::poll_transmit`] has something.
    pub(crate) fn poll_timeout(&self) -> Instant {
        self.next
    }

    /// Reads a packet that may be message 2; after an error another may be.
    pub(crate) fn finish(&mut self, packet: &[u8]) -> Result<(Message2, Option<Keys>), HandshakeError> {
        self.initiator.finish(packet)
    }
}

/// As WireGuard's REKEY_AFTER_TIME.
const REKEY_AFTER: Duration = Duration::from_secs(120);

/// Our choice: late packets of any path have come, and of an outage they are of no use.
const OLD_KEYS_FOR: Duration = Duration::from_secs(30);

/// Our choice: nothing waits for the answer, so above the round trip of nearly any path.
const FIRST_REPEAT: Duration = Duration::from_secs(1);

/// Our choice: a server that does not answer while data flows costs a packet in this time.
const MAX_REPEAT: Duration = Duration::from_secs(30);

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "some instant must be the first")]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;
    use crate::crypto::{
        HEADER_LEN, Mask, Message1, PresharedKey, PrivateKey, Responder, SessionId, Suite, SuiteSet, VERSION,
    };

    /// Both ends of a carrier, packets between them lost or late as a test likes.
    struct Ends {
        client: KeyRing,
        server: KeyRing,
        now: Instant,
        handshakes: u32,
    }

    /// A rekey under way: the client's half, and what the server answers.
    struct Exchange {
        renewal: Renewal,
        ephemeral: [u8; 32],
        timestamp: Timestamp,
        offer: Option<(Offer, (Sealer, Opener))>,
    }

    impl Ends {
        fn new() -> Self {
            let now = Instant::now();
            let (mut client, server) = exchange(1);
            let (offer, pair) = server;
            let (_, keys) = client.finish(&offer.reply).unwrap();
            let client = KeyRing::new(client.index(), keys.unwrap().into_pair(), now);
            Self { client, server: KeyRing::new(offer.index, pair, now), now, handshakes: 1 }
        }

        /// The client writes message 1; the server has not seen it yet.
        fn begin(&mut self) -> Exchange {
            self.handshakes += 1;
            let (renewal, (offer, pair)) = exchange(self.handshakes);
            let (ephemeral, timestamp) = (offer.ephemeral, offer.timestamp);
            Exchange { renewal, ephemeral, timestamp, offer: Some((offer, pair)) }
        }

        /// Message 1 arrives, again or for the first time; returns message 2 if there is one.
        fn deliver(&mut self, exchange: &mut Exchange) -> Option<Vec<u8>> {
            if let Some(reply) = self.server.repeated(&exchange.ephemeral) {
                return Some(reply.to_vec());
            }
            if self.server.is_overtaken(exchange.timestamp) {
                return None;
            }
            let (offer, pair) = exchange.offer.take()?;
            let reply = offer.reply.clone();
            self.server.offer(offer, pair);
            Some(reply)
        }

        /// Message 2 arrives.
        fn conclude(&mut self, mut exchange: Exchange, reply: &[u8]) {
            let (_, keys) = exchange.renewal.finish(reply).unwrap();
            self.client.renew(exchange.renewal.index(), keys.unwrap().into_pair(), self.now);
        }

        fn rekey(&mut self) {
            let mut exchange = self.begin();
            let reply = self.deliver(&mut exchange).unwrap();
            self.conclude(exchange, &reply);
        }

        fn up(&mut self) -> Result<bool, OpenError> {
            let packet = sealed(&mut self.client);
            opened(&mut self.server, packet, self.now)
        }

        fn down(&mut self) -> Result<bool, OpenError> {
            let packet = sealed(&mut self.server);
            opened(&mut self.client, packet, self.now)
        }
    }

    fn server_key() -> PrivateKey {
        PrivateKey::from_bytes([2; 32])
    }

    /// The `number`th handshake of the two ends.
    fn exchange(number: u32) -> (Renewal, (Offer, (Sealer, Opener))) {
        let mut rng = StdRng::seed_from_u64(u64::from(number));
        let (client, server) = (PrivateKey::from_bytes([1; 32]), server_key());
        let psk = PresharedKey::default();
        let message = Message1 {
            version: VERSION,
            mode: 0,
            is_probe: false,
            timestamp: Timestamp::from_unix(Duration::from_secs(u64::from(number))),
            index: 1000 + number,
            session: SessionId([7; 16]),
            epoch: 1,
            suites: SuiteSet::PORTABLE,
            carrier: 1,
            keep: 1,
        };
        let initiation =
            Initiator::new(&client, &server.public_key(), &psk, &message, 200, &mut rng).unwrap();
        let lookup = |_: &_| Some(PresharedKey::default());
        let received = Responder::read(&server, &initiation.1, &lookup, &mut rng).unwrap();
        let index = 2000 + number;
        let answer = Message2::Resumed { index, suite: Suite::ChaCha20Poly1305 };
        let (reply, keys) = received.responder.write(&answer).unwrap();
        let offer = Offer { index, ephemeral: received.ephemeral, timestamp: message.timestamp, reply };
        let renewal = Renewal::new(message.index, initiation, Instant::now());
        (renewal, (offer, keys.unwrap().into_pair()))
    }

    fn sealed(ring: &mut KeyRing) -> Vec<u8> {
        let mut packet = vec![0; HEADER_LEN];
        packet.extend_from_slice(b"frames");
        ring.seal(&mut packet, 0).unwrap();
        packet
    }

    /// Whether the packet opens as the newest.
    fn opened(ring: &mut KeyRing, mut packet: Vec<u8>, now: Instant) -> Result<bool, OpenError> {
        let header = Mask::new(&server_key().public_key()).header(&packet).unwrap();
        let unsealed = ring.open(header, &mut packet, now)?;
        assert_eq!(unsealed.plaintext, b"frames");
        Ok(unsealed.newest)
    }

    #[test]
    fn packets_pass_both_ways_at_every_moment_of_a_rekey() {
        let mut ends = Ends::new();
        for _ in 0..5 {
            let mut exchange = ends.begin();
            assert_eq!((ends.up(), ends.down()), (Ok(true), Ok(true)), "message 1 is on its way");
            let reply = ends.deliver(&mut exchange).unwrap();
            assert_eq!((ends.up(), ends.down()), (Ok(true), Ok(true)), "message 2 is on its way");
            let (late_up, late_down) = (sealed(&mut ends.client), sealed(&mut ends.server));
            ends.conclude(exchange, &reply);
            assert_eq!(ends.down(), Ok(false), "the server has the new keys and waits");
            assert_eq!((ends.up(), ends.down()), (Ok(true), Ok(true)), "both use the new keys");
            assert_eq!(opened(&mut ends.server, late_up, ends.now), Ok(false), "the path was slow");
            assert_eq!(opened(&mut ends.client, late_down, ends.now), Ok(false), "the path was slow");
            ends.now += REKEY_AFTER;
        }
    }

    #[test]
    fn a_server_does_not_seal_with_keys_the_client_may_not_have() {
        let mut ends = Ends::new();
        let mut exchange = ends.begin();
        let _lost = ends.deliver(&mut exchange).unwrap();
        for _ in 0..100 {
            ends.now += Duration::from_secs(10);
            assert_eq!((ends.up(), ends.down()), (Ok(true), Ok(true)));
        }
        let again = ends.deliver(&mut exchange).expect("message 1 again is answered again");
        ends.conclude(exchange, &again);
        assert_eq!((ends.up(), ends.down()), (Ok(true), Ok(true)));
    }

    #[test]
    fn a_message_1_that_was_overtaken_is_not_answered() {
        let mut ends = Ends::new();
        let (mut late, mut newer) = (ends.begin(), ends.begin());
        let reply = ends.deliver(&mut newer).unwrap();
        assert_eq!(ends.deliver(&mut late), None, "the client waits for the answer to the newer");
        ends.conclude(newer, &reply);
        assert_eq!((ends.up(), ends.down()), (Ok(true), Ok(true)));
        assert_eq!(ends.deliver(&mut late), None);
    }

    #[test]
    fn old_keys_open_for_half_a_minute_after_the_new_ones_were_used() {
        let mut ends = Ends::new();
        let late: Vec<_> = (0..2).map(|_| (sealed(&mut ends.client), sealed(&mut ends.server))).collect();
        ends.rekey();
        // Nothing came under the new keys for long: the other end may still use the old ones.
        ends.now += 10 * OLD_KEYS_FOR;
        assert_eq!(ends.down(), Ok(false));
        assert_eq!((ends.up(), ends.down()), (Ok(true), Ok(true)));
        let mut late = late.into_iter();
        for (after, expected) in
            [(OLD_KEYS_FOR - Duration::from_millis(1), Ok(false)), (OLD_KEYS_FOR, Err(OpenError::Forged))]
        {
            let (up, down) = late.next().unwrap();
            let now = ends.now + after;
            assert_eq!(opened(&mut ends.server, up, now), expected, "{after:?}");
            assert_eq!(opened(&mut ends.client, down, now), expected, "{after:?}");
        }
    }

    #[test]
    fn a_packet_under_old_keys_is_never_the_newest() {
        let mut ends = Ends::new();
        let late = sealed(&mut ends.client);
        ends.rekey();
        assert_eq!(ends.up(), Ok(true));
        assert_eq!(
            opened(&mut ends.server, late, ends.now),
            Ok(false),
            "nobody moves to where that came from"
        );
    }

    #[test]
    fn what_opened_once_opens_no_more_under_whichever_keys() {
        let mut ends = Ends::new();
        let packet = sealed(&mut ends.client);
        assert_eq!(opened(&mut ends.server, packet.clone(), ends.now), Ok(true));
        ends.rekey();
        assert_eq!(ends.up(), Ok(true));
        assert_eq!(opened(&mut ends.server, packet, ends.now), Err(OpenError::Replayed));
    }

    #[test]
    fn a_rekey_is_due_after_two_minutes_or_four_billion_packets_either_way() {
        let mut ends = Ends::new();
        assert!(!ends.client.is_due(ends.now + REKEY_AFTER - Duration::from_millis(1)));
        assert!(ends.client.is_due(ends.now + REKEY_AFTER));
        ends.client.current.sealer.skip_to(REKEY_AFTER_PACKETS - 1);
        assert!(!ends.client.is_due(ends.now));
        assert_eq!(ends.up(), Ok(true));
        assert!(ends.client.is_due(ends.now));
        let mut ends = Ends::new();
        for counter in [1 << 30, 2 << 30, 3 << 30, REKEY_AFTER_PACKETS] {
            assert!(!ends.client.is_due(ends.now));
            ends.server.current.sealer.skip_to(counter);
            assert_eq!(ends.down(), Ok(true));
        }
        assert!(ends.client.is_due(ends.now), "the server has sealed that many");
        ends.rekey();
        assert!(!ends.client.is_due(ends.now));
    }

    #[test]
    fn repeats_message_1_ever_less_often_and_with_the_same_bytes() {
        let mut ends = Ends::new();
        let mut renewal = ends.begin().renewal;
        let mut now = renewal.poll_timeout();
        let first = renewal.poll_transmit(now).unwrap().to_vec();
        let mut waits = Vec::new();
        for _ in 0..7 {
            assert_eq!(renewal.poll_transmit(now), None);
            waits.push((renewal.poll_timeout() - now).as_secs());
            now = renewal.poll_timeout();
            assert_eq!(renewal.poll_transmit(now), Some(first.as_slice()));
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
    }

    #[test]
    fn the_measured_loss_goes_on_over_a_rekey() {
        let mut ends = Ends::new();
        for _ in 0..4 {
            for number in 0..100 {
                let packet = sealed(&mut ends.client);
                if number % 4 != 1 {
                    opened(&mut ends.server, packet, ends.now).unwrap();
                }
            }
            let counts = ends.server.counts();
            assert_eq!(counts.arrived * 4, counts.sent * 3, "{counts:?}");
            ends.rekey();
            ends.now += 2 * OLD_KEYS_FOR;
        }
    }
}
