//! Flows against a second smoltcp in the part of the programs' kernel, in virtual time.

mod memory;
mod timers;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use pnet::packet::tcp::TcpFlags;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{self, ChecksumCapabilities, DeviceCapabilities, Medium};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant as StackInstant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr, IpEndpoint};

use super::*;
use crate::packet::tcp::Segment;
use crate::packet::tcp::tests::{segment, shape_as_tcp};

const TARGET: &str = "192.0.2.7:80";
const MS: Duration = Duration::from_millis(1);

/// The programs' kernel: a smoltcp that verifies every checksum.
struct Kernel {
    interface: Interface,
    wire: Wire,
    sockets: SocketSet<'static>,
}

#[derive(Default)]
struct Wire {
    to_kernel: VecDeque<Vec<u8>>,
    from_kernel: VecDeque<Vec<u8>>,
}

struct Incoming(Vec<u8>);
struct Outgoing<'w>(&'w mut VecDeque<Vec<u8>>);

impl phy::Device for Wire {
    type RxToken<'t> = Incoming;
    type TxToken<'t> = Outgoing<'t>;

    fn receive(&mut self, _: StackInstant) -> Option<(Incoming, Outgoing<'_>)> {
        let packet = self.to_kernel.pop_front()?;
        Some((Incoming(packet), Outgoing(&mut self.from_kernel)))
    }

    fn transmit(&mut self, _: StackInstant) -> Option<Outgoing<'_>> {
        Some(Outgoing(&mut self.from_kernel))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = 65_520;
        capabilities.checksum = ChecksumCapabilities::default();
        capabilities
    }
}

impl phy::RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl phy::TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut packet = vec![0; length];
        let result = f(&mut packet);
        self.0.push_back(packet);
        result
    }
}

/// Flows and a kernel joined by a wire, and a clock.
struct World {
    flows: Flows,
    kernel: Kernel,
    start: Instant,
    now: Instant,
    events: VecDeque<Event>,
    /// Every packet the flows made, in order.
    seen: Vec<Vec<u8>>,
    next_port: u16,
}

impl World {
    fn new(limits: FlowLimits) -> Self {
        #[expect(clippy::disallowed_methods, reason = "the virtual clock starts somewhere")]
        let start = Instant::now();
        let mut wire = Wire::default();
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = 77;
        let mut interface = Interface::new(config, &mut wire, StackInstant::ZERO);
        interface.update_ip_addrs(|addresses| {
            for address in ["10.0.0.1", "fd00::1"] {
                let address: IpAddress = address.parse().unwrap();
                addresses.push(IpCidr::new(address, 8)).unwrap();
            }
        });
        interface.routes_mut().add_default_ipv4_route("10.0.0.2".parse().unwrap()).unwrap();
        interface.routes_mut().add_default_ipv6_route("fd00::2".parse().unwrap()).unwrap();
        Self {
            flows: Flows::new(limits, [9; 32], start),
            kernel: Kernel { interface, wire, sockets: SocketSet::new(Vec::new()) },
            start,
            now: start,
            events: VecDeque::new(),
            seen: Vec::new(),
            next_port: 40_000,
        }
    }

    fn connect(&mut self, target: &str) -> SocketHandle {
        self.next_port += 1;
        self.connect_from(self.next_port, target)
    }

    fn connect_from(&mut self, port: u16, target: &str) -> SocketHandle {
        let target: SocketAddr = target.parse().unwrap();
        let mut socket =
            Socket::new(SocketBuffer::new(vec![0; 100_000]), SocketBuffer::new(vec![0; 100_000]));
        socket.set_ack_delay(None);
        socket.set_nagle_enabled(false);
        let endpoint = IpEndpoint::new(target.ip().into(), target.port());
        socket.connect(self.kernel.interface.context(), endpoint, port).unwrap();
        self.kernel.sockets.add(socket)
    }

    fn app(&mut self, handle: SocketHandle) -> &mut Socket<'static> {
        self.kernel.sockets.get_mut(handle)
    }

    /// Carries packets both ways until nobody has anything to say.
    fn settle(&mut self) {
        loop {
            let at = StackInstant::from_micros(i64::try_from((self.now - self.start).as_micros()).unwrap());
            self.kernel.interface.poll(at, &mut self.kernel.wire, &mut self.kernel.sockets);
            let mut is_quiet = true;
            while let Some(packet) = self.kernel.wire.from_kernel.pop_front() {
                is_quiet = false;
                self.flows.handle_packet(&packet, self.now);
            }
            while let Some(packet) = self.flows.poll_packet(self.now) {
                is_quiet = false;
                self.seen.push(packet.clone());
                self.kernel.wire.to_kernel.push_back(packet);
            }
            while let Some(event) = self.flows.poll_event() {
                self.events.push_back(event);
            }
            if is_quiet {
                return;
            }
        }
    }

    /// Lets time pass in small steps.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now = (self.now + 100 * MS).min(end);
            self.flows.handle_timeout(self.now);
            self.settle();
        }
    }

    fn connected(&mut self, target: &str) -> (SocketHandle, FlowId) {
        let app = self.connect(target);
        self.settle();
        let id = self.expect_connect();
        self.flows.accept(id, self.now);
        self.settle();
        assert_eq!(self.app(app).state(), State::Established);
        (app, id)
    }

    fn expect_connect(&mut self) -> FlowId {
        match self.events.pop_front() {
            Some(Event::Connect { id, .. }) => id,
            other => panic!("expected a connect, got {other:?}"),
        }
    }

    /// The flow of a SYN that was just given.
    fn expect_held(&mut self) -> FlowId {
        match self.flows.poll_event() {
            Some(Event::Connect { id, .. }) => id,
            other => panic!("{other:?}"),
        }
    }

    fn take_events(&mut self) -> Vec<Event> {
        self.events.drain(..).collect()
    }

    fn read_all(&mut self, id: FlowId) -> Vec<u8> {
        let mut all = Vec::new();
        while self.flows.read(id, |bytes| {
            all.extend_from_slice(bytes);
            bytes.len()
        }) > 0
        {}
        all
    }
}

fn world() -> World {
    World::new(FlowLimits::default())
}

fn pattern(length: usize, salt: u8) -> Vec<u8> {
    (0..=250u8).cycle().map(|byte| byte ^ salt).take(length).collect()
}

#[test]
fn holds_a_connect_until_it_is_accepted() {
    for target in [TARGET, "[2001:db8::7]:443"] {
        let mut world = world();
        let app = world.connect(target);
        world.settle();
        let [Event::Connect { id, source, target: seen }] = world.take_events()[..] else {
            panic!("one connect");
        };
        assert_eq!(seen, target.parse().unwrap());
        assert_eq!(source.port(), 40_001);
        world.pass(5000 * MS);
        assert_eq!(world.app(app).state(), State::SynSent);
        assert!(world.events.is_empty() && world.seen.is_empty());
        assert!(world.flows.stats().repeated_syns >= 1);
        world.flows.accept(id, world.now);
        world.settle();
        assert_eq!(world.app(app).state(), State::Established);
        assert_eq!(world.flows.stats().held, 0);
    }
}

#[test]
fn resets_a_refused_connect() {
    for refusal in [Refusal::Refused, Refusal::Reset] {
        let mut world = world();
        let app = world.connect("[2001:db8::7]:443");
        world.settle();
        let id = world.expect_connect();
        world.flows.refuse(id, refusal, world.now);
        world.settle();
        assert_eq!(world.app(app).state(), State::Closed);
        assert!(world.events.is_empty());
        assert_eq!((world.flows.stats().flows, world.flows.stats().refused), (0, 1));
    }
}

#[test]
fn answers_an_unreachable_connect_with_icmp_about_its_syn() {
    let cases = [
        (TARGET, Refusal::HostUnreachable, (20, [3, 1])),
        (TARGET, Refusal::NetUnreachable, (20, [3, 0])),
        (TARGET, Refusal::AdminProhibited, (20, [3, 13])),
        ("[2001:db8::7]:1", Refusal::HostUnreachable, (40, [1, 3])),
        ("[2001:db8::7]:1", Refusal::NetUnreachable, (40, [1, 0])),
        ("[2001:db8::7]:1", Refusal::AdminProhibited, (40, [1, 1])),
    ];
    for (target, refusal, (at, code)) in cases {
        let mut world = world();
        world.connect(target);
        world.settle();
        let id = world.expect_connect();
        world.flows.refuse(id, refusal, world.now);
        world.settle();
        let [error] = &world.seen[..] else {
            panic!("one packet for {refusal:?}");
        };
        assert_eq!(error[at..at + 2], code);
        let quoted = Segment::parse(&error[at + 8..]).unwrap();
        assert!(quoted.is_connect());
        assert_eq!(quoted.destination, target.parse().unwrap());
    }
}

#[test]
fn asks_again_after_a_silent_refusal() {
    let mut world = world();
    world.connect(TARGET);
    world.settle();
    let first = world.expect_connect();
    world.flows.refuse(first, Refusal::Silent, world.now);
    world.settle();
    assert!(world.seen.is_empty());
    world.pass(1500 * MS);
    assert_ne!(world.expect_connect(), first);
}

#[test]
fn carries_both_ways_byte_exact_under_backpressure() {
    for seed in 0..30 {
        let mut random = StdRng::seed_from_u64(seed);
        let limits = FlowLimits {
            receive_buffer: random.random_range(1_000..300_000),
            send_buffer: random.random_range(1_000..300_000),
            ..FlowLimits::default()
        };
        let mut world = World::new(limits);
        let target = if seed % 2 == 0 { TARGET } else { "[2001:db8::7]:443" };
        let (app, id) = world.connected(target);
        let up = pattern(random.random_range(1..2_000_000), 1);
        let down = pattern(random.random_range(1..2_000_000), 2);
        let (mut up_sent, mut down_sent) = (0, 0);
        let (mut up_seen, mut down_seen) = (Vec::new(), Vec::new());
        let (mut can_read, mut can_write) = (false, true);
        let mut rounds = 0;
        while up_seen.len() < up.len() || down_seen.len() < down.len() {
            rounds += 1;
            assert!(rounds < 200_000, "seed {seed} stands still");
            let chunk = random.random_range(1..100_000);
            let end = (up_sent + chunk).min(up.len());
            up_sent += world.app(app).send_slice(&up[up_sent..end]).unwrap();
            let take = random.random_range(0..100_000);
            while down_seen.len() < down.len() && world.app(app).can_recv() && take > 50_000 {
                let got = world.app(app).recv(|bytes| {
                    let taken = bytes.len().min(take);
                    (taken, bytes[..taken].to_vec())
                });
                down_seen.extend(got.unwrap());
            }
            if can_read && random.random_bool(0.5) {
                let limit = random.random_range(1..100_000);
                let taken = world.flows.read(id, |bytes| {
                    let taken = bytes.len().min(limit);
                    up_seen.extend_from_slice(&bytes[..taken]);
                    taken
                });
                can_read = taken > 0;
            }
            if can_write && down_sent < down.len() {
                let end = (down_sent + random.random_range(1..100_000)).min(down.len());
                let taken = world.flows.write(id, &down[down_sent..end], world.now);
                can_write = taken == end - down_sent;
                down_sent += taken;
            }
            world.settle();
            if rounds % 10 == 0 {
                world.pass(20 * MS);
            }
            for event in world.take_events() {
                match event {
                    Event::Readable { .. } => can_read = true,
                    Event::Writable { .. } => can_write = true,
                    Event::Connect { .. }
                    | Event::Finished { .. }
                    | Event::Reset { .. }
                    | Event::Closed { .. } => panic!("seed {seed}: {event:?}"),
                }
            }
        }
        assert!(up_seen == up && down_seen == down, "seed {seed} garbles");
        assert_eq!(world.flows.stats().dropped_beyond_window, 0, "seed {seed}");
    }
}

#[test]
fn closes_after_the_program_finishes_first_with_data_still_flowing_down() {
    let mut world = world();
    let (app, id) = world.connected(TARGET);
    world.app(app).send_slice(b"last words").unwrap();
    world.app(app).close();
    world.settle();
    assert_eq!(world.take_events(), [Event::Readable { id }]);
    assert_eq!(world.read_all(id), b"last words");
    world.settle();
    assert_eq!(world.take_events(), [Event::Finished { id }]);
    let answer = pattern(50_000, 3);
    assert_eq!(world.flows.write(id, &answer, world.now), answer.len());
    world.flows.finish(id, world.now);
    world.settle();
    let got = world.app(app).recv(|bytes| (bytes.len(), bytes.to_vec()));
    assert!(got.unwrap() == answer);
    assert_eq!(world.take_events(), [Event::Closed { id }]);
    assert_eq!(world.flows.stats().flows, 0);
    assert_eq!(world.flows.poll_timeout(), None);
}

#[test]
fn closes_after_we_finish_first_with_data_still_flowing_up() {
    let mut world = world();
    let (app, id) = world.connected(TARGET);
    world.flows.write(id, b"bye", world.now);
    world.flows.finish(id, world.now);
    world.settle();
    assert_eq!(world.app(app).state(), State::CloseWait);
    world.app(app).send_slice(b"not yet").unwrap();
    world.settle();
    assert_eq!(world.take_events(), [Event::Readable { id }]);
    assert_eq!(world.read_all(id), b"not yet");
    world.app(app).send_slice(b"now").unwrap();
    world.app(app).close();
    world.settle();
    assert_eq!(world.app(app).state(), State::Closed);
    assert_eq!(world.take_events(), [Event::Readable { id }]);
    world.pass(60_000 * MS);
    assert_eq!(world.read_all(id), b"now", "kept over TIME-WAIT");
    world.settle();
    assert_eq!(world.take_events(), [Event::Finished { id }, Event::Closed { id }]);
}

#[test]
fn closes_when_both_finish_at_once() {
    let mut world = world();
    let (app, id) = world.connected(TARGET);
    world.app(app).close();
    world.flows.finish(id, world.now);
    world.settle();
    assert_eq!(world.take_events(), [Event::Finished { id }, Event::Closed { id }]);
}

#[test]
fn finishes_a_flow_that_is_not_open_yet() {
    let mut world = world();
    let app = world.connect(TARGET);
    world.settle();
    let id = world.expect_connect();
    world.flows.accept(id, world.now);
    assert_eq!(world.flows.write(id, b"early", world.now), 0);
    world.settle();
    assert_eq!(world.take_events(), [Event::Writable { id }]);
    world.flows.write(id, b"early", world.now);
    let other = world.connect(TARGET);
    world.settle();
    let second = world.expect_connect();
    world.flows.accept(second, world.now);
    world.flows.finish(second, world.now);
    world.settle();
    assert_eq!(world.app(other).state(), State::CloseWait);
    assert_eq!(world.app(app).recv_queue(), 5);
}

#[test]
fn reports_a_reset_by_the_program() {
    let mut world = world();
    let (app, id) = world.connected(TARGET);
    world.app(app).send_slice(b"unread").unwrap();
    world.settle();
    world.app(app).abort();
    world.settle();
    let events = world.take_events();
    assert_eq!(events, [Event::Readable { id }, Event::Reset { id }]);
    assert_eq!(world.read_all(id), b"");
    assert_eq!((world.flows.stats().flows, world.flows.poll_timeout()), (0, None));
}

#[test]
fn resets_the_program() {
    let mut world = world();
    let (app, id) = world.connected("[2001:db8::7]:443");
    world.flows.reset(id, world.now);
    world.settle();
    assert_eq!(world.app(app).state(), State::Closed);
    assert!(world.events.is_empty());
    assert_eq!((world.flows.stats().resets_sent, world.flows.stats().flows), (1, 0));
}

#[test]
fn a_reset_follows_what_was_written() {
    for length in [1, 5_000, 100_000] {
        let mut world = world();
        let (app, id) = world.connected(TARGET);
        let written = world.flows.write(id, &pattern(length, 0), world.now);
        assert_eq!(written, length);
        world.flows.reset(id, world.now);
        world.flows.reset(id, world.now);
        // Its owner has nothing to do with it any more.
        assert_eq!(world.flows.write(id, b"more", world.now), 0);
        world.settle();
        let app = world.app(app);
        assert_eq!((app.state(), app.recv_queue()), (State::Closed, length));
        assert!(world.events.is_empty());
        let stats = world.flows.stats();
        assert_eq!((stats.resets_sent, stats.flows), (1, 0));
    }
}

#[test]
fn a_reset_waits_for_the_program_to_be_connected() {
    let mut world = world();
    let app = world.connect(TARGET);
    world.settle();
    let id = world.expect_connect();
    world.flows.accept(id, world.now);
    world.flows.reset(id, world.now);
    world.settle();
    let resets: Vec<_> = world.seen.iter().map(|packet| Segment::parse(packet).unwrap().is_reset()).collect();
    assert_eq!(resets, [false, true], "a connect that succeeds, and a reset");
    assert_eq!(world.app(app).state(), State::Closed);
    assert_eq!((world.flows.stats().flows, world.events.len()), (0, 0));
}

#[test]
fn a_reset_does_not_wait_for_a_program_that_does_not_read() {
    let mut world = world();
    let (app, id) = world.connected(TARGET);
    let mut written = 0;
    while written < 250_000 {
        let taken = world.flows.write(id, &pattern(50_000, 0), world.now);
        written += taken;
        world.settle();
        if taken == 0 {
            break;
        }
    }
    assert!(written > 100_000, "{written}");
    world.flows.reset(id, world.now);
    world.settle();
    let app = world.app(app);
    assert_eq!((app.state(), app.recv_queue()), (State::Closed, 100_000));
    assert_eq!(world.flows.stats().flows, 0);
}

#[test]
fn a_program_that_ends_first_or_asks_anew_ends_what_was_to_be_reset() {
    for asks_anew in [true, false] {
        let mut world = world();
        let (app, id) = world.connected(TARGET);
        world.flows.write(id, b"unsent", world.now);
        world.flows.reset(id, world.now);
        let sequence = Segment::parse(&world.seen[0]).unwrap().acknowledgment;
        let (flags, sequence) =
            if asks_anew { (TcpFlags::SYN, sequence + 7) } else { (TcpFlags::RST, sequence) };
        let packet = segment("10.0.0.1:40001", TARGET, flags, sequence, 0, b"");
        world.flows.handle_packet(&packet, world.now);
        let events: Vec<_> = std::iter::from_fn(|| world.flows.poll_event()).collect();
        assert!(!events.contains(&Event::Reset { id }), "{events:?}");
        assert_eq!((events.len(), world.flows.stats().flows), if asks_anew { (1, 1) } else { (0, 0) });
        assert_eq!(world.app(app).recv_queue(), 0);
    }
}

#[test]
fn resets_all_flows_but_lets_connects_ask_again() {
    let mut world = world();
    let (open, _) = world.connected(TARGET);
    let held = world.connect(TARGET);
    world.settle();
    world.flows.reset_all(world.now);
    world.take_events();
    world.settle();
    assert_eq!(world.app(open).state(), State::Closed);
    assert_eq!(world.app(held).state(), State::SynSent);
    world.pass(1500 * MS);
    world.expect_connect();
}

#[test]
fn waits_out_a_zero_window_of_minutes() {
    let mut world = world();
    let (app, id) = world.connected(TARGET);
    let bytes = pattern(300_000, 4);
    let taken = world.flows.write(id, &bytes, world.now);
    world.settle();
    // The program's own buffer took some of it, which made room once.
    assert_eq!(world.take_events(), [Event::Writable { id }]);
    world.pass(Duration::from_secs(1200));
    assert_eq!(world.take_events(), []);
    let mut got = Vec::new();
    while got.len() < taken {
        world.pass(100 * MS);
        let piece = world.app(app).recv(|bytes| (bytes.len(), bytes.to_vec()));
        got.extend(piece.unwrap());
    }
    assert!(got == bytes[..taken]);
}

#[test]
fn gives_up_on_a_kernel_that_never_answers() {
    let mut world = world();
    let (_, id) = world.connected(TARGET);
    world.kernel.sockets = SocketSet::new(Vec::new());
    world.kernel.interface.update_ip_addrs(|addresses| addresses.clear());
    world.flows.write(id, b"anyone?", world.now);
    world.settle();
    world.pass(Duration::from_secs(900));
    assert_eq!(world.take_events(), []);
    world.pass(Duration::from_secs(120));
    assert_eq!(world.take_events(), [Event::Reset { id }]);
}

#[test]
fn takes_a_port_again_at_once_after_closing() {
    let mut world = world();
    for _ in 0..3 {
        let app = world.connect_from(5000, TARGET);
        world.settle();
        let id = world.expect_connect();
        world.flows.accept(id, world.now);
        world.settle();
        world.flows.finish(id, world.now);
        world.settle();
        world.app(app).close();
        world.settle();
        assert_eq!(world.take_events(), [Event::Finished { id }, Event::Closed { id }]);
        world.kernel.sockets.remove(app);
    }
}

#[test]
fn replaces_a_flow_whose_program_connects_anew() {
    let mut world = world();
    let app = world.connect_from(5000, TARGET);
    world.settle();
    let old = world.expect_connect();
    world.flows.accept(old, world.now);
    world.settle();
    world.kernel.sockets.remove(app);
    let app = world.connect_from(5000, TARGET);
    world.settle();
    assert_eq!(world.events.pop_front(), Some(Event::Reset { id: old }));
    let id = world.expect_connect();
    world.flows.accept(id, world.now);
    world.settle();
    assert_eq!(world.app(app).state(), State::Established);
    assert_eq!(world.flows.stats().replaced, 1);
}

#[test]
fn a_made_up_syn_ends_no_flow_of_a_shared_device() {
    let mut world = world();
    world.flows.set_shared();
    let app = world.connect_from(5000, TARGET);
    world.settle();
    let id = world.expect_connect();
    world.flows.accept(id, world.now);
    world.settle();
    let mut answers = 0;
    for sequence in (0..u32::MAX - (1 << 28)).step_by(1 << 28) {
        let syn = segment("10.0.0.1:5000", TARGET, TcpFlags::SYN, sequence, 0, b"");
        // In both halves of the numbers that ours may be in, and with data under way.
        world.app(app).send_slice(&[7; 1000]).unwrap();
        world.flows.write(id, &[8; 1000], world.now);
        world.flows.handle_packet(&syn, world.now);
        let answer = world.flows.poll_packet(world.now).unwrap();
        let seen = Segment::parse(&answer).unwrap();
        answers += u32::from(seen.has_ack() && !seen.is_reset() && seen.payload_length == 0);
        world.kernel.wire.to_kernel.push_back(answer);
        world.settle();
        assert_eq!(world.read_all(id), [7; 1000]);
        let got = world.app(app).recv(|bytes| (bytes.len(), bytes.to_vec())).unwrap();
        assert_eq!(got, [8; 1000]);
        world.pass(1100 * MS);
    }
    assert_eq!((answers, world.flows.stats().challenged, world.flows.stats().replaced), (15, 15, 0));
    assert!(world.take_events().iter().all(|event| matches!(event, Event::Readable { .. })));
}

#[test]
fn a_kernel_that_lost_its_connection_connects_anew_on_a_shared_device() {
    for with_their_end in [false, true] {
        let mut world = world();
        world.flows.set_shared();
        let app = world.connect_from(5000, TARGET);
        world.settle();
        let old = world.expect_connect();
        world.flows.accept(old, world.now);
        world.settle();
        if with_their_end {
            world.app(app).close();
            world.settle();
        }
        world.kernel.sockets.remove(app);
        let app = world.connect_from(5000, TARGET);
        world.settle();
        world.pass(1500 * MS);
        let events = world.take_events();
        assert!(events.contains(&Event::Reset { id: old }), "{events:?}");
        let Some(&Event::Connect { id, .. }) = events.last() else { panic!("{events:?}") };
        world.flows.accept(id, world.now);
        world.settle();
        assert_eq!(world.app(app).state(), State::Established);
        assert_eq!((world.flows.stats().challenged, world.flows.stats().replaced), (1, 0));
    }
}

#[test]
fn answers_a_segment_of_no_flow_with_a_reset() {
    let mut world = world();
    let stray = segment("10.0.0.1:9", TARGET, TcpFlags::ACK, 5, 6, b"hello");
    world.flows.handle_packet(&stray, world.now);
    let reset = world.flows.poll_packet(world.now).unwrap();
    let seen = Segment::parse(&reset).unwrap();
    assert!(seen.is_reset());
    assert_eq!(seen.sequence, 6);
    world.flows.handle_packet(&segment("10.0.0.1:9", TARGET, TcpFlags::RST, 5, 6, b""), world.now);
    assert_eq!(world.flows.poll_packet(world.now), None);
}

#[test]
fn bounds_a_flood_of_syns() {
    let mut world = World::new(FlowLimits { held: 10, flows: 15, ..FlowLimits::default() });
    let flood = |world: &mut World, count: u16| {
        for port in 1..=count {
            let from = format!("10.0.0.1:{port}");
            let syn = segment(&from, TARGET, TcpFlags::SYN, 1, 0, &[0; 60_000]);
            world.flows.handle_packet(&syn, world.now);
        }
    };
    flood(&mut world, 1000);
    let stats = world.flows.stats();
    assert_eq!((stats.flows, stats.held, stats.dropped_syns), (10, 10, 990));
    while let Some(event) = world.flows.poll_event() {
        world.flows.accept(event.id(), world.now);
    }
    flood(&mut world, 1000);
    let stats = world.flows.stats();
    assert_eq!((stats.flows, stats.held), (15, 5));
    assert_eq!((stats.repeated_syns, stats.limited), (10, 985));
}

#[test]
fn bounds_its_queues_while_no_packet_is_taken() {
    let mut world = World::new(FlowLimits { flows: 10, ..FlowLimits::default() });
    for sequence in 0..3000 {
        let syn = segment("10.0.0.1:9", TARGET, TcpFlags::SYN, sequence, 0, b"");
        world.flows.handle_packet(&syn, world.now);
        let opened = std::iter::from_fn(|| world.flows.poll_event());
        let opened = opened.filter(|event| matches!(event, Event::Connect { .. }));
        for event in opened.collect::<Vec<_>>() {
            world.flows.accept(event.id(), world.now);
        }
        let stray = segment("10.0.0.1:8", TARGET, TcpFlags::ACK, sequence, 0, b"");
        world.flows.handle_packet(&stray, world.now);
    }
    assert!(world.flows.stats().dropped_replies > 1000);
    let left = std::iter::from_fn(|| world.flows.poll_packet(world.now)).count();
    assert!(left < 1100, "{left} packets were queued");
}

#[test]
fn drops_data_beyond_the_buffer_even_before_the_first_scaled_window() {
    let mut world = world();
    let syn = with_window_scale(&segment("10.0.0.1:9", TARGET, TcpFlags::SYN, 0, 0, b""));
    world.flows.handle_packet(&syn, world.now);
    let id = world.flows.poll_event().unwrap().id();
    world.flows.accept(id, world.now);
    let answer = world.flows.poll_packet(world.now).unwrap();
    let ack = Segment::parse(&answer).unwrap().sequence.wrapping_add(1);
    let ours = |sequence, data: &[u8]| segment("10.0.0.1:9", TARGET, TcpFlags::ACK, sequence, ack, data);
    world.flows.handle_packet(&ours(1, b""), world.now);
    world.flows.handle_packet(&ours(300_000, &[1; 1000]), world.now);
    assert_eq!(world.flows.stats().dropped_beyond_window, 1);
    world.flows.handle_packet(&ours(1, b"fine"), world.now);
    assert_eq!(world.read_all(id), b"fine");
}

/// Adds a window scale option of 7 to a SYN without options.
fn with_window_scale(syn: &[u8]) -> Vec<u8> {
    let mut packet = syn.to_vec();
    packet.extend([3, 3, 7, 0]);
    packet[3] += 4;
    packet[32] = 0x60;
    packet
}

/// Opens flows from ports 1 to 3, with the first byte at 1; returns what each may acknowledge.
fn open_three(world: &mut World) -> HashMap<u16, u32> {
    let open_one = |port: u16| {
        let from = format!("10.0.0.1:{port}");
        let syn = with_window_scale(&segment(&from, TARGET, TcpFlags::SYN, 0, 0, b""));
        world.flows.handle_packet(&syn, world.now);
        let id = world.flows.poll_event().unwrap().id();
        world.flows.accept(id, world.now);
        let answer = world.flows.poll_packet(world.now).unwrap();
        let ack = Segment::parse(&answer).unwrap().sequence.wrapping_add(1);
        let done = segment(&from, TARGET, TcpFlags::ACK, 1, ack, b"");
        world.flows.handle_packet(&done, world.now);
        (port, ack)
    };
    (1..4).map(open_one).collect()
}

/// A segment of the hostile test: flags, sequence and acknowledgment near or far, data.
fn hostile_segment() -> impl Strategy<Value = (u16, u8, u32, u32, usize)> {
    let near = prop_oneof![Just(1u32), 0u32..10, 0u32..600_000, any::<u32>()];
    let ack = prop_oneof![6 => Just(0u32), 1 => 0u32..70_000, 1 => any::<u32>()];
    let flags = prop_oneof![
        Just(TcpFlags::ACK),
        Just(TcpFlags::ACK | TcpFlags::FIN),
        Just(TcpFlags::SYN),
        any::<u8>()
    ];
    let length = prop_oneof![0usize..10, 0usize..65_000];
    (1u16..4, flags, near, ack, length)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn survives_any_bytes(
        packets in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..100), 0u8..3), 0..20),
    ) {
        let mut world = world();
        for (mut packet, shape) in packets {
            shape_as_tcp(&mut packet, shape);
            world.flows.handle_packet(&packet, world.now);
            while let Some(event) = world.flows.poll_event() {
                world.flows.accept(event.id(), world.now);
            }
            while world.flows.poll_packet(world.now).is_some() {}
        }
    }

    #[test]
    fn survives_hostile_segments_of_open_flows(
        steps in proptest::collection::vec((hostile_segment(), 0u8..10, 0u64..3000), 1..60),
    ) {
        let mut world = world();
        let mut acks = open_three(&mut world);
        let data = pattern(65_000, 5);
        for ((port, flags, sequence, ack, length), act, wait) in steps {
            let from = format!("10.0.0.1:{port}");
            let base = acks.get(&port).copied().unwrap_or(0);
            let packet = segment(&from, TARGET, flags, sequence, base.wrapping_add(ack), &data[..length]);
            let packet = if flags == TcpFlags::SYN && length == 0 { with_window_scale(&packet) } else { packet };
            world.flows.handle_packet(&packet, world.now);
            let ids: Vec<_> = std::iter::from_fn(|| world.flows.poll_event()).map(|event| event.id()).collect();
            for id in ids {
                match act {
                    0 => world.flows.refuse(id, Refusal::HostUnreachable, world.now),
                    1 => world.flows.reset(id, world.now),
                    2 => world.flows.finish(id, world.now),
                    _ => world.flows.accept(id, world.now),
                }
                if act > 5 { world.read_all(id); }
                if act > 3 { world.flows.write(id, &data, world.now); }
            }
            if act != 9 {
                while let Some(packet) = world.flows.poll_packet(world.now) {
                    if let Ok(seen) = Segment::parse(&packet) {
                        acks.insert(seen.destination.port(), seen.sequence.wrapping_add(seen.sequence_length()));
                    }
                    world.flows.recycle(packet);
                }
            }
            world.now += Duration::from_millis(wait);
            world.flows.handle_timeout(world.now);
        }
        let stats = world.flows.stats();
        prop_assert!(stats.flows <= 3);
    }
}
