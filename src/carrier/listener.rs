//! The server's door: answers SYNs and recognises those who heard the answer, and keeps nothing about anyone.
//!
//! A stranger gets a SYN-ACK and, whatever it sends then, nothing more. The SYN-ACK is at most 12 bytes longer than the
//! shortest SYN, so the listener amplifies nothing worth a forged source.
//!
//! Give it every SYN, even of a known 4-tuple (a client that restarted may come back on its old port), and every other
//! packet that belongs to no connection.

use std::net::SocketAddr;
use std::time::Instant;

use super::cookie::Cookies;
use super::scenery::{NO_ID, Scenery};
use super::stack::{ETHERNET_MTU, LINUX, SMALLEST_MSS, default_mss, initial_window, own_mss};
use super::{DropReason, Flags, Kind, Repr, Segment, Seq, Stats, SynOptions};

/// Answers strangers without state.
#[derive(Debug)]
pub struct Listener {
    cookies: Cookies,
    stats: Stats,
}

impl Listener {
    /// `secret` must be random and known to nobody else; cookies die with the listener.
    #[must_use]
    pub fn new(secret: [u8; 32], now: Instant) -> Self {
        Self { cookies: Cookies::new(secret, now), stats: Stats::default() }
    }

    /// Judges a segment that belongs to no connection. Drops are counted here.
    pub fn handle_segment(&mut self, segment: &Segment, now: Instant) -> ListenerAction {
        let action = self.judge(segment, now);
        match action {
            ListenerAction::SynAck(_) => self.stats.syn_acks += 1,
            ListenerAction::Drop(reason) => self.stats.on_drop(reason),
            ListenerAction::Cookie(_) | ListenerAction::Bare(_) => {}
        }
        action
    }

    /// What was answered and dropped so far.
    #[must_use]
    pub const fn stats(&self) -> Stats {
        self.stats
    }

    fn judge(&self, segment: &Segment, now: Instant) -> ListenerAction {
        match segment.kind() {
            Kind::Syn => self.answer(segment, now),
            Kind::Data => self.recognise(segment, now),
            Kind::SynAck => ListenerAction::Drop(DropReason::UnexpectedSynAck),
            Kind::Reset => ListenerAction::Drop(DropReason::Reset),
            Kind::Fin => ListenerAction::Drop(DropReason::Fin),
            Kind::Acknowledgement => ListenerAction::Drop(DropReason::NoPayload),
        }
    }

    /// A SYN-ACK as Linux would send: it offers nothing that the client did not, and here no larger MSS either, so that a
    /// clamp on the way binds both directions.
    fn answer(&self, syn: &Segment, now: Instant) -> ListenerAction {
        let (server, client) = (syn.destination, syn.source);
        let is_scaled = syn.options.window_scale.is_some();
        let cookie = self.cookies.issue(server, client, is_scaled, now);
        let announced = syn.options.mss.unwrap_or(default_mss(&client));
        let mss = announced.clamp(SMALLEST_MSS, own_mss(&client, ETHERNET_MTU));
        let syn_ack = Repr {
            source: server,
            destination: client,
            seq: cookie,
            ack: syn.seq.advanced_by(1),
            flags: Flags::SYN.with(Flags::ACK),
            window: initial_window(mss),
            options: SynOptions::linux(
                mss,
                is_scaled.then_some(LINUX.window_scale),
                syn.options.sack_permitted,
            ),
            hop_limit: LINUX.hop_limit,
            flow_label: Scenery::new(self.cookies.scenery(server, client, cookie)).flow_label(),
            ip_id: NO_ID,
        };
        syn_ack.to_packet().map_or(ListenerAction::Drop(DropReason::BadAddress), ListenerAction::SynAck)
    }

    /// Only the ack is looked at: earlier payloads may be lost, so any seq may come first. What its sender acknowledges is in any
    /// case the number that it expects next.
    fn recognise(&self, segment: &Segment, now: Instant) -> ListenerAction {
        let (local, remote) = (segment.destination, segment.source);
        let isn = segment.ack.previous();
        let accepted = |is_scaled| Accepted {
            local,
            remote,
            seq: segment.ack,
            start: segment.seq,
            ack: segment.end(),
            is_scaled,
            random: self.cookies.scenery(local, remote, isn),
        };
        match self.cookies.verify(local, remote, isn, now) {
            Some(is_scaled) => ListenerAction::Cookie(accepted(is_scaled)),
            None => ListenerAction::Bare(accepted(true)),
        }
    }
}

/// What to do about a stranger's segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenerAction {
    /// Send this packet.
    SynAck(Vec<u8>),
    /// The payload comes from someone who heard our SYN-ACK. Open it; if it opens, build a
    /// [`Connection`](super::Connection) from this.
    Cookie(Accepted),
    /// A payload without a cookie: that of a client whose mode is bare, or of anyone. Its source may be forged, so open it
    /// within a budget that nobody else needs; if it opens, build a [`Connection`](super::Connection) from this.
    Bare(Accepted),
    /// Nothing; it was counted.
    Drop(DropReason),
}

/// The start of a connection that a payload may begin. It holds no right to anything: the seal decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Our end.
    pub local: SocketAddr,
    /// The client's.
    pub remote: SocketAddr,
    /// The first sequence number of ours: what the client expects.
    pub seq: Seq,
    /// The start of the payload: what fixed numbers acknowledge for good.
    pub start: Seq,
    /// Its end: what advancing numbers acknowledge first.
    pub ack: Seq,
    /// Whether window scaling was agreed, or may be believed to have been by who saw no SYN.
    pub is_scaled: bool,
    /// Bits that nobody outside can foretell, the same for every packet that begins this connection.
    pub random: u64,
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "some instant must be the first")]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::carrier::emit::tests::{COOKIE, client, data_v4, data_v6, server, syn_v4};
    use crate::carrier::{Options, parse};

    fn answered(listener: &mut Listener, syn: &Segment, now: Instant) -> Segment {
        let ListenerAction::SynAck(packet) = listener.handle_segment(syn, now) else { panic!("no SYN-ACK") };
        parse(&packet).unwrap()
    }

    /// The client's first payload after `syn_ack`.
    fn first_payload(syn: &Segment, syn_ack: &Segment) -> Segment {
        let flags = Flags::ACK;
        Segment {
            seq: syn_ack.ack,
            ack: syn_ack.seq.advanced_by(1),
            flags,
            payload: 40..45,
            options: Options::default(),
            ..syn.clone()
        }
    }

    #[test]
    fn answers_a_windows_syn_like_linux() {
        let now = Instant::now();
        let mut listener = Listener::new([1; 32], now);
        let syn = parse(&syn_v4()).unwrap();
        let syn_ack = answered(&mut listener, &syn, now);
        assert_eq!((syn_ack.source, syn_ack.destination), (server(4), client(4)));
        assert_eq!(
            (syn_ack.kind(), syn_ack.ack, syn_ack.window),
            (Kind::SynAck, syn.seq.advanced_by(1), 64_240)
        );
        assert_eq!(
            syn_ack.options,
            Options { mss: Some(1460), window_scale: Some(10), sack_permitted: true }
        );
        assert_eq!(listener.stats().syn_acks, 1);
    }

    #[test]
    fn offers_nothing_the_client_did_not() {
        let now = Instant::now();
        let mut listener = Listener::new([1; 32], now);
        let mut syn = parse(&syn_v4()).unwrap();
        for (announced, answer) in [(None, 536), (Some(0), 536), (Some(1360), 1360), (Some(9000), 1460)] {
            syn.options = Options { mss: announced, ..Options::default() };
            let expected = Options { mss: Some(answer), ..Options::default() };
            assert_eq!(answered(&mut listener, &syn, now).options, expected);
        }
    }

    #[test]
    fn recognises_a_client_whose_earlier_payloads_were_lost() {
        let now = Instant::now();
        let mut listener = Listener::new([1; 32], now);
        let syn = parse(&syn_v4()).unwrap();
        let syn_ack = answered(&mut listener, &syn, now);
        let mut payload = first_payload(&syn, &syn_ack);
        payload.seq = payload.seq.advanced_by(4000);
        let ListenerAction::Cookie(accepted) = listener.handle_segment(&payload, now) else {
            panic!("the cookie was good")
        };
        let ends = (accepted.local, accepted.remote);
        assert_eq!(ends, (server(4), client(4)));
        let numbers = (accepted.seq, accepted.start, accepted.ack, accepted.is_scaled);
        assert_eq!(numbers, (payload.ack, payload.seq, payload.end(), true));
    }

    #[test]
    fn a_cookie_grows_old() {
        let now = Instant::now();
        let mut listener = Listener::new([1; 32], now);
        let syn = parse(&syn_v4()).unwrap();
        let payload = first_payload(&syn, &answered(&mut listener, &syn, now));
        let late = now + Duration::from_secs(128);
        assert!(matches!(listener.handle_segment(&payload, late), ListenerAction::Bare(_)));
    }

    #[test]
    fn a_payload_without_a_cookie_is_answered_where_it_expects_the_answer() {
        let now = Instant::now();
        let mut listener = Listener::new([1; 32], now);
        for packet in [data_v4(), data_v6()] {
            let data = parse(&packet).unwrap();
            let action = listener.handle_segment(&data, now);
            let ListenerAction::Bare(accepted) = action else { panic!("{action:?}") };
            assert_eq!((accepted.local, accepted.remote), (data.destination, data.source));
            assert_eq!((accepted.seq, accepted.start, accepted.ack), (data.ack, data.seq, data.end()));
            assert_eq!(listener.handle_segment(&data, now), action, "the same again, for a repetition");
        }
    }

    #[test]
    fn the_syn_ack_and_the_connection_after_it_have_one_flow_label_that_nobody_can_foretell() {
        let now = Instant::now();
        let label = |secret: u8| {
            let mut listener = Listener::new([secret; 32], now);
            let syn = Segment { source: client(6), destination: server(6), ..parse(&syn_v4()).unwrap() };
            let ListenerAction::SynAck(packet) = listener.handle_segment(&syn, now) else {
                panic!("no SYN-ACK")
            };
            let syn_ack = parse(&packet).unwrap();
            let action = listener.handle_segment(&first_payload(&syn, &syn_ack), now);
            let ListenerAction::Cookie(accepted) = action else { panic!("{action:?}") };
            let label = u32::from_be_bytes([0, packet[1] & 0xf, packet[2], packet[3]]);
            assert_eq!(label, Scenery::new(accepted.random).flow_label());
            label
        };
        assert_ne!(label(1), label(2));
    }

    #[test]
    fn gives_strangers_nothing_but_the_syn_ack() {
        let now = Instant::now();
        let mut listener = Listener::new([1; 32], now);
        for packet in [data_v4(), data_v6()] {
            let data = parse(&packet).unwrap();
            assert_eq!(data.ack, COOKIE.advanced_by(1));
            let ack = Segment { payload: 40..40, ..data.clone() };
            let with = |flags| Segment { flags, ..data.clone() };
            let expected = [
                (ack, DropReason::NoPayload),
                (with(Flags::SYN.with(Flags::ACK)), DropReason::UnexpectedSynAck),
                (with(Flags::RST), DropReason::Reset),
                (with(Flags::FIN.with(Flags::ACK)), DropReason::Fin),
            ];
            for (segment, reason) in expected {
                assert_eq!(listener.handle_segment(&segment, now), ListenerAction::Drop(reason));
            }
        }
        assert_eq!(listener.stats().no_payload, 2);
        assert_eq!(listener.stats().syn_acks, 0);
    }
}
