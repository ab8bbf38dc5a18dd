//! The server lets clients in: message 1 of whoever showed a cookie → judged by the peer's history → a pending carrier and
//! message 2.

use std::ops::Range;
use std::time::{Duration, Instant};

use rand::RngExt as _;

use super::Server;
use crate::carrier::{Accepted, Connection, ListenerAction, Mode, Segment};
use crate::crypto::{Message2, PresharedKey, PublicKey, Received, Refusal, Responder};
use crate::session::budget::Cost;
use crate::session::link::{Link, wrap};
use crate::session::loss::LossMeter;
use crate::session::path_mtu::PathMtu;
use crate::session::peer::Carrier;
use crate::session::probe_link::ProbeLink;
use crate::session::rekey::Offer;

impl Server {
    /// A first message on the 4-tuple of a live carrier: a rekey, or a client that began anew on its old ports.
    pub(super) fn handle_rekey(&mut self, segment: &Segment, packet: &[u8], now: Instant) {
        let accepted = match self.listener.handle_segment(segment, now) {
            ListenerAction::Cookie(accepted) | ListenerAction::Bare(accepted) => Some(accepted),
            ListenerAction::SynAck(_) | ListenerAction::Drop(_) => None,
        };
        self.handle_message1(segment, accepted.as_ref(), Cost::Message1, packet, now);
    }

    pub(super) fn handle_message1(
        &mut self,
        segment: &Segment,
        accepted: Option<&Accepted>,
        cost: Cost,
        packet: &[u8],
        now: Instant,
    ) {
        let Some(payload) = packet.get(segment.payload.clone()) else { return };
        if !self.budgets.take(cost, segment.source.ip(), now) {
            self.drops.budget += 1;
            return;
        }
        let lookup = |key: &PublicKey| -> Option<PresharedKey> {
            self.by_key.get(key).map(|&id| self.peers[id].settings.preshared_key.clone())
        };
        let Ok(received) = Responder::read(&self.settings.private_key, payload, &lookup, &mut self.rng)
        else {
            self.drops.handshake += 1;
            return;
        };
        let peer = self.by_key.get(&received.remote).copied();
        self.handshakes += u64::from(peer.is_some());
        if let Some(id) = peer
            && self.peers[id].named_carrier(&received.payload).is_some()
        {
            return self.rekey(id, segment, received);
        }
        let mode = Mode::from_wire(received.payload.mode);
        let Some((accepted, mode)) = accepted.zip(mode) else {
            self.drops.handshake += 1;
            return;
        };
        let connection = Connection::accepted(accepted, mode, now);
        match peer {
            Some(peer) => self.answer_peer(peer, received, (connection, segment.payload.clone()), now),
            None => self.refuse_stranger(segment, received, connection, now),
        }
    }

    fn refuse_stranger(
        &mut self,
        segment: &Segment,
        received: Received,
        mut connection: Connection,
        now: Instant,
    ) {
        tracing::debug!(key = %received.remote, "no peer has this key");
        if !self.budgets.take(Cost::Refusal, segment.source.ip(), now) {
            self.drops.budget += 1;
            return;
        }
        let refused = Message2::Refused { reason: Refusal::UnknownKey };
        self.answer(received, &refused, |reply| wrap(&mut connection, reply));
    }

    /// New keys for a live carrier: they wait for the client to use them.
    fn rekey(&mut self, id: usize, segment: &Segment, received: Received) {
        let index = self.fresh_index();
        let Received { payload: message, ephemeral, .. } = received;
        let denial = self.peers[id].judge(&message, &ephemeral);
        let Some(carrier) = self.peers[id].named_carrier(&message) else { return };
        if !carrier.link.is_from(segment) {
            // Its NAT forgot it. The first packet that opens tells where it is now, and message 1 comes again.
            self.drops.stranger += 1;
            return;
        }
        if let Some(reply) = carrier.link.keys().repeated(&ephemeral).map(<[u8]>::to_vec) {
            let packet = carrier.link.wrap(&reply);
            return self.outbox.push(packet);
        }
        if let Some(denial) = denial {
            let answer = received.responder.write(&denial);
            return self.outbox.push(answer.ok().and_then(|(reply, _)| carrier.link.wrap(&reply)));
        }
        if carrier.link.keys().is_overtaken(message.timestamp)
            || self.peers[id].is_replay(&message, ephemeral)
        {
            self.drops.replayed += 1;
            return;
        }
        let suite = self.settings.suites.agree(message.suites);
        let Ok((reply, Some(keys))) = received.responder.write(&Message2::Resumed { index, suite }) else {
            self.drops.handshake += 1;
            return;
        };
        self.peers[id].on_accepted(message.timestamp);
        let Some(carrier) = self.peers[id].named_carrier(&message) else { return };
        let packet = carrier.link.wrap(&reply);
        let offer = Offer { index, ephemeral, timestamp: message.timestamp, reply };
        carrier.link.keys_mut().offer(offer, keys.into_pair());
        self.by_index.insert(index, id);
        self.outbox.push(packet);
    }

    fn answer_peer(
        &mut self,
        id: usize,
        received: Received,
        (mut connection, message1): (Connection, Range<usize>),
        now: Instant,
    ) {
        let peer = &mut self.peers[id];
        if let Some(reply) = peer.pending_reply(&received.ephemeral) {
            // Message 2 was lost: the same again, to whoever asks now.
            let packet = wrap(&mut connection, reply);
            return self.outbox.push(packet);
        }
        if let Some(message) = peer.judge(&received.payload, &received.ephemeral) {
            return self.answer(received, &message, |reply| wrap(&mut connection, reply));
        }
        if peer.is_replay(&received.payload, received.ephemeral) {
            self.drops.replayed += 1;
            return;
        }
        if received.payload.is_probe {
            return self.accept_probe(id, received, connection, now);
        }
        self.accept(id, received, (connection, message1), now);
    }

    /// Answers who only asks what passes; the peer's session, its carriers and its clock stay as they are.
    fn accept_probe(&mut self, id: usize, received: Received, mut connection: Connection, now: Instant) {
        let index = self.fresh_index();
        let suite = self.settings.suites.agree(received.payload.suites);
        let ephemeral = received.ephemeral;
        let Ok((reply, Some(keys))) = received.responder.write(&Message2::Resumed { index, suite }) else {
            self.drops.handshake += 1;
            return;
        };
        let packet = wrap(&mut connection, &reply);
        self.peers[id].probes.add(ProbeLink::new(connection, index, keys), ephemeral, reply, now);
        self.by_index.insert(index, id);
        self.outbox.push(packet);
    }

    fn accept(
        &mut self,
        id: usize,
        received: Received,
        (mut connection, message1): (Connection, Range<usize>),
        now: Instant,
    ) {
        let index = self.fresh_index();
        let peer = &mut self.peers[id];
        let message = received.payload;
        let suite = self.settings.suites.agree(message.suites);
        let (epoch, resumed) = peer.resumes(message.session, message.epoch);
        let reply = if resumed {
            Message2::Resumed { index, suite }
        } else {
            let addresses = peer.settings.addresses.clone();
            Message2::Fresh { index, suite, epoch, addresses, dns: self.settings.dns.clone() }
        };
        let ephemeral = received.ephemeral;
        // As large as the question: what passes one way is proven, and if this is too much for the other, a smaller one comes.
        let responder = received.responder.padded_to(message1.len());
        let Ok((reply, Some(keys))) = responder.write(&reply) else {
            self.drops.handshake += 1;
            return;
        };
        peer.on_accepted(message.timestamp);
        let packet = wrap(&mut connection, &reply);
        let pair = keys.into_pair();
        let size = u16::try_from(message1.end).unwrap_or(u16::MAX);
        let path = PathMtu::new(size, size, now);
        peer.make_room();
        peer.carriers.push(Carrier {
            link: Link::new(message.carrier, index, connection, pair, path, now),
            session: message.session,
            epoch,
            keep: HOUR * u32::from(message.keep.max(1)),
            confirmed: false,
            ephemeral,
            reply,
            last_opened: now,
            loss_in: LossMeter::new(now),
            loss_out: LossMeter::new(now),
        });
        self.by_index.insert(index, id);
        self.outbox.push(packet);
    }

    /// Answers without keys, and keeps nothing.
    fn answer(
        &mut self,
        received: Received,
        message: &Message2,
        wrap: impl FnOnce(&[u8]) -> Option<Vec<u8>>,
    ) {
        if let Ok((reply, _)) = received.responder.write(message) {
            self.outbox.push(wrap(&reply));
        }
    }

    fn fresh_index(&mut self) -> u32 {
        loop {
            let index = self.rng.random();
            if index != 0 && !self.by_index.contains_key(&index) {
                return index;
            }
        }
    }
}

/// The unit in which a client says how long its session is kept.
const HOUR: Duration = Duration::from_secs(3600);
