//! Both ends and the listener over a lossy, reordering path with a strict tracker in its middle and a forger behind it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::conntrack::Tracker;
use super::emit::tests::{client, server};
use super::{
    Connection, Flags, Input, Kind, Listener, ListenerAction, Mode, Repr, Seq, SynOptions, header_len, parse,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Client,
    Server,
}

/// Which ends send bulk data; both always send what the handshake needs.
#[derive(Clone, Copy, Debug)]
struct Scenario {
    mode: Mode,
    family: u8,
    isn: u32,
    loss: f64,
    bulk: [bool; 2],
}

struct World {
    random: StdRng,
    start: Instant,
    now: Instant,
    scenario: Scenario,
    client: Connection,
    listener: Listener,
    server: Option<Connection>,
    tracker: Tracker,
    /// Packets under way, by arrival and number: in the middle, or behind it.
    flying: BTreeMap<(Instant, u64), (End, Place, Vec<u8>)>,
    number: u64,
    is_answered: bool,
    tracked: u64,
    invalid: Vec<&'static str>,
    sent: [usize; 2],
    opened: [usize; 2],
    pure_acks: [usize; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Middle,
    Arrival,
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "some instant must be the first")]
    fn new(seed: u64, scenario: Scenario) -> Self {
        let start = Instant::now();
        let (local, remote) = (client(scenario.family), server(scenario.family));
        let mut tracker = Tracker::default();
        tracker.is_loose = scenario.mode.is_bare();
        // Both numbers begin at the same place.
        let random = u128::from(scenario.isn) | u128::from(scenario.isn) << 32;
        let client = Connection::connect(local, remote, scenario.mode, random, start);
        Self {
            random: StdRng::seed_from_u64(seed),
            start,
            now: start,
            scenario,
            client,
            listener: Listener::new([3; 32], start),
            server: None,
            tracker,
            flying: BTreeMap::new(),
            number: 0,
            is_answered: false,
            tracked: 0,
            invalid: Vec::new(),
            sent: [0; 2],
            opened: [0; 2],
            pure_acks: [0; 2],
        }
    }

    /// Runs in steps of 1 ms; bulk leaves every 5 ms in bursts, the first message is repeated every second until it is answered.
    fn run(&mut self, duration: Duration) {
        for tick in 0..duration.as_millis() {
            self.now = self.start + Duration::from_millis(1) * u32::try_from(tick).unwrap();
            self.deliver();
            if !self.is_answered && tick % 1000 == 50 {
                self.send(End::Client, 1);
            }
            if self.is_answered && tick % 5 == 0 {
                for (end, is_bulk) in [End::Client, End::Server].into_iter().zip(self.scenario.bulk) {
                    let burst = self.random.random_range(1..8);
                    self.send(end, if is_bulk { burst } else { 0 });
                }
                self.forge();
            }
            self.poll();
        }
    }

    fn connection(&mut self, end: End) -> Option<&mut Connection> {
        match end {
            End::Client => Some(&mut self.client),
            End::Server => self.server.as_mut(),
        }
    }

    fn send(&mut self, end: End, burst: usize) {
        for left in (0..burst).rev() {
            let Some(connection) = self.connection(end).filter(|connection| connection.may_send()) else {
                return;
            };
            let mut packet = vec![GENUINE; 1400];
            connection.finish_packet(&mut packet, left == 0).unwrap();
            self.sent[end as usize] += 1;
            self.fly(end, Place::Middle, packet);
        }
    }

    fn poll(&mut self) {
        let now = self.now;
        for end in [End::Client, End::Server] {
            while let Some(packet) = self.connection(end).and_then(|connection| connection.poll_transmit(now))
            {
                if parse(&packet).unwrap().kind() == Kind::Acknowledgement {
                    self.pure_acks[end as usize] += 1;
                }
                self.fly(end, Place::Middle, packet);
            }
            let due = self.connection(end).and_then(|connection| connection.poll_timeout());
            assert!(due.is_none_or(|due| due > now), "{end:?} is drained but due");
        }
    }

    fn fly(&mut self, from: End, place: Place, packet: Vec<u8>) {
        if self.random.random_bool(self.scenario.loss) {
            return;
        }
        let delay = Duration::from_millis(self.random.random_range(10..40));
        self.number += 1;
        self.flying.insert((self.now + delay, self.number), (from, place, packet));
    }

    fn deliver(&mut self) {
        let later = self.flying.split_off(&(self.now + Duration::from_nanos(1), 0));
        for (from, place, packet) in std::mem::replace(&mut self.flying, later).into_values() {
            match place {
                Place::Middle => self.pass_tracker(from, packet),
                Place::Arrival if from == End::Client => self.arrive_at_server(&packet),
                Place::Arrival => self.arrive_at_client(&packet),
            }
        }
    }

    fn pass_tracker(&mut self, from: End, packet: Vec<u8>) {
        self.tracked += 1;
        self.invalid.extend(self.tracker.observe(&parse(&packet).unwrap()).err());
        self.fly(from, Place::Arrival, packet);
    }

    fn arrive_at_client(&mut self, packet: &[u8]) {
        let segment = parse(packet).unwrap();
        let input = self.client.handle_segment(&segment, self.now);
        if input == Input::Payload && packet[segment.payload.start] == GENUINE {
            self.client.on_opened(&segment, self.now);
            self.is_answered = true;
            self.opened[End::Client as usize] += 1;
        }
    }

    fn arrive_at_server(&mut self, packet: &[u8]) {
        let (segment, now) = (parse(packet).unwrap(), self.now);
        let known = self.server.as_mut().filter(|_| segment.kind() != Kind::Syn);
        let is_genuine = packet.get(segment.payload.start) == Some(&GENUINE);
        match known {
            Some(connection) => {
                if connection.handle_segment(&segment, now) == Input::Payload && is_genuine {
                    connection.on_opened(&segment, now);
                    self.opened[End::Server as usize] += 1;
                    self.answer();
                }
            }
            None => match self.listener.handle_segment(&segment, now) {
                ListenerAction::SynAck(packet) => self.fly(End::Server, Place::Middle, packet),
                ListenerAction::Cookie(accepted) | ListenerAction::Bare(accepted) if is_genuine => {
                    self.server = Some(Connection::accepted(&accepted, self.scenario.mode, now));
                    self.opened[End::Server as usize] += 1;
                    self.answer();
                }
                ListenerAction::Cookie(_) | ListenerAction::Bare(_) | ListenerAction::Drop(_) => {}
            },
        }
    }

    /// The second message, again for every first message.
    fn answer(&mut self) {
        if !self.is_answered {
            self.send(End::Server, 1);
        }
    }

    /// A middlebox behind the tracker sends each end something that is not its peer's.
    fn forge(&mut self) {
        let family = self.scenario.family;
        for (from, source, destination) in
            [(End::Client, client(family), server(family)), (End::Server, server(family), client(family))]
        {
            let flags = [Flags::RST, Flags::RST.with(Flags::ACK), Flags::FIN.with(Flags::ACK), Flags::ACK];
            let flags = flags[self.random.random_range(0..flags.len())];
            let [seq, ack] = [Seq(self.random.random()), Seq(self.random.random())];
            let (window, options) = (0, SynOptions::NONE);
            let (hop_limit, flow_label, ip_id) = (64, 0, 0);
            let repr =
                Repr { source, destination, seq, ack, flags, window, options, hop_limit, flow_label, ip_id };
            let mut packet = vec![FORGED; header_len(&destination) + 100];
            repr.emit(&mut packet).unwrap();
            self.fly(from, Place::Arrival, packet);
        }
    }
}

/// What a payload begins with if the seal would open it, and if not.
const GENUINE: u8 = 0x5a;
const FORGED: u8 = 0xff;

/// Runs many seeds of one scenario and checks what must hold of each.
fn check(scenario: Scenario, seeds: u64) {
    for seed in 0..seeds {
        let mut world = World::new(seed, scenario);
        world.run(Duration::from_secs(20));
        let context = format!("seed {seed}, {scenario:?}");
        assert!(world.is_answered, "{context}");
        assert_eq!(world.invalid, [""; 0], "{context}");
        assert!(
            world.client.may_send() && world.server.as_ref().is_some_and(Connection::may_send),
            "{context}"
        );
        let expected = (1.0 - scenario.loss).powi(2) - 0.05;
        for (from, to) in [(0, 1), (1, 0)] {
            let share = f64::from(u32::try_from(world.opened[to]).unwrap())
                / f64::from(u32::try_from(world.sent[from]).unwrap());
            assert!(!scenario.bulk[from] || share > expected, "{share} arrived, {context}");
            let owed = if scenario.bulk[to] || scenario.mode.is_fixed() { 0 } else { world.opened[to] / 10 };
            assert!(world.pure_acks[to] >= owed, "{} pure ACKs, {context}", world.pure_acks[to]);
            // The handshake's, and those that answer a repeated SYN-ACK.
            let most = if scenario.mode.is_fixed() { 3 } else { u64::MAX };
            assert!(
                u64::try_from(world.pure_acks[to]).unwrap() <= most,
                "{} pure ACKs, {context}",
                world.pure_acks[to]
            );
        }
        let stats = world.client.stats();
        assert!(stats.injected_resets > 0 && stats.injected_fins > 0, "{context}");
    }
}

#[test]
fn a_strict_tracker_finds_nothing_invalid_at_ten_percent_loss() {
    check(Scenario { mode: Mode::HandshakeAdvance, family: 4, isn: 1, loss: 0.1, bulk: [true, true] }, 8);
}

#[test]
fn a_strict_tracker_finds_nothing_invalid_when_both_numbers_wrap() {
    check(
        Scenario {
            mode: Mode::HandshakeAdvance,
            family: 6,
            isn: u32::MAX - 500_000,
            loss: 0.1,
            bulk: [true, true],
        },
        4,
    );
}

#[test]
fn an_end_that_only_receives_acknowledges_every_few_packets() {
    check(Scenario { mode: Mode::HandshakeAdvance, family: 4, isn: 7, loss: 0.05, bulk: [true, false] }, 4);
    check(Scenario { mode: Mode::HandshakeAdvance, family: 6, isn: 7, loss: 0.05, bulk: [false, true] }, 4);
}

#[test]
fn a_strict_tracker_finds_nothing_invalid_in_any_other_mode() {
    for mode in [Mode::HandshakeFixed, Mode::BareAdvance, Mode::BareFixed] {
        check(Scenario { mode, family: 4, isn: u32::MAX - 500_000, loss: 0.1, bulk: [true, true] }, 4);
        check(Scenario { mode, family: 6, isn: 7, loss: 0.05, bulk: [false, true] }, 2);
    }
}

#[test]
fn a_tracker_that_picks_up_no_connection_passes_no_bare_one() {
    for mode in [Mode::BareAdvance, Mode::BareFixed] {
        let mut world = World::new(1, Scenario { mode, family: 4, isn: 1, loss: 0.0, bulk: [true, true] });
        world.tracker.is_loose = false;
        world.run(Duration::from_secs(3));
        assert!(world.invalid.len() > 1, "{mode}");
    }
}
