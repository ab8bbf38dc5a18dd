//! One run: random transitions from a seed, the model looking on after each step, and then calm.

use std::time::Duration;

use link_emulator::Direction as Way;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use vpn::kcp::CongestionKind;
use vpn::session::{ClientState, Connect};

use super::datagram::Datagrams;
use super::model::{Excuse, Model};
use super::stream::{Direction, Reader, Writer};
use super::tally::Tally;
use super::transition::{EndChange, FlowChange, PathChange, Transition, duration};
use super::weather;
use super::world::World;

/// What a run was like.
pub(crate) struct Report {
    pub(crate) tally: Tally,
    /// Of every packet with its time: the same for the same seed.
    pub(crate) transcript: u64,
}

/// Runs a seed; panics, with the seed and what was done, at the first thing that must not be.
pub(crate) fn run(seed: u64) -> Report {
    let mut run = Run::new(seed);
    run.come_up();
    for _ in 0..run.rng.random_range(10..MOST_TRANSITIONS) {
        run.step();
    }
    run.calm_down();
    run.idle();
    run.report()
}

struct Run {
    world: World,
    model: Model,
    datagrams: Datagrams,
    most_flows: usize,
    rng: StdRng,
    log: Log,
    tally: Tally,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(!seed);
        let session_buffer = MIB << rng.random_range(0..7);
        let dead_after = Duration::from_secs([60, 120, 600][rng.random_range(0..3)]);
        let kinds = [CongestionKind::Bbr, CongestionKind::Bbr, CongestionKind::Loss, CongestionKind::None];
        let congestion = kinds[rng.random_range(0..kinds.len())];
        let connect = if rng.random_bool(0.25) { Connect::Fast } else { Connect::Faithful };
        let weather = if rng.random() { weather::FAIR } else { weather::any(&mut rng) };
        let mut world = World::with_settings(weather, seed, |client, server| {
            (client.session_buffer, server.session_buffer) = (session_buffer, session_buffer);
            client.process_buffer = session_buffer + 64 * MIB;
            server.process_buffer = 2 * session_buffer + 8 * 64 * MIB;
            (client.congestion, server.congestion) = (congestion, congestion);
            client.dead_after = dead_after;
            client.connect = connect;
        });
        let boxes = weather::boxes(&mut rng);
        world.line.set_middleboxes(&boxes, world.now);
        if rng.random_bool(0.3) {
            world.move_to_ipv6();
        }
        let lines = vec![format!(
            "{session_buffer} bytes, {congestion:?}, {connect:?}, dead after {dead_after:?}, {weather:?}, {boxes:?}"
        )];
        Self {
            world,
            model: Model::new(dead_after, connect),
            datagrams: Datagrams::default(),
            most_flows: (session_buffer / FLOW_SHARE).min(MOST_FLOWS),
            rng,
            log: Log { seed, lines },
            tally: Tally { seeds: 1, ..Tally::default() },
        }
    }

    fn come_up(&mut self) {
        assert!(
            self.run_until(3 * MINUTE, |run| run.world.host().is_up()),
            "not up\n{}",
            self.world.describe()
        );
    }

    /// One transition, and some time for it to show.
    fn step(&mut self) {
        if let Some(standing) = self.model.standing().next_back()
            && !self.model.standing().any(|host| host == self.world.current)
        {
            self.world.current = standing;
        }
        let (flows, hosts) = (self.model.open_flows(), self.world.hosts.len());
        let transition = Transition::choose(&flows, self.most_flows, hosts, &mut self.rng);
        self.log.lines.push(format!("{:>12?} {transition:?}", self.world.age()));
        *self.tally.transitions.entry(transition.name()).or_default() += 1;
        self.apply(transition);
        let pause = duration(&mut self.rng, Duration::from_micros(100), Duration::from_secs(10));
        self.run_for(pause);
    }

    fn apply(&mut self, transition: Transition) {
        match transition {
            Transition::Open { inbound, manner, v6, upload, download, finishes } => {
                let open = if inbound { World::open_inbound_to } else { World::open_to };
                let port = open(&mut self.world, manner, v6, upload, download, finishes);
                self.model.on_open(port, self.world.current, manner);
            }
            Transition::OnFlow { flow, change } => self.apply_to_flow(flow, change),
            Transition::OnPath(change) => self.apply_to_path(change),
            Transition::OnEnd(change) => self.apply_to_end(change),
            Transition::Datagrams { count, length } => {
                for _ in 0..count {
                    self.datagrams.send(&mut self.world, length);
                    self.run_for(Duration::from_millis(1));
                }
            }
            Transition::Attack(attack) => attack.run(&mut self.world, &mut self.rng),
            Transition::Wait { time } => self.run_for(time),
        }
    }

    fn apply_to_flow(&mut self, flow: u16, change: FlowChange) {
        match change {
            FlowChange::Write { direction, bytes } => self.change(flow, direction, |writer, _| {
                writer.length += if writer.finishes { 0 } else { bytes };
            }),
            FlowChange::StopReading(direction) => {
                self.change(flow, direction, |_, reader| reader.stopped = true);
            }
            FlowChange::ReadAgain(direction) => {
                self.change(flow, direction, |_, reader| reader.stopped = false);
            }
            FlowChange::Finish(direction) => {
                self.change(flow, direction, |writer, _| writer.finishes = true);
            }
            FlowChange::ResetByApp => self.reset_by_app(flow),
            FlowChange::ResetByTarget => {
                if self.world.reset_by_target(flow) {
                    self.model.on_reset(flow, Excuse::ResetByTarget);
                }
            }
            FlowChange::Answer => {
                self.model.on_answer(flow);
                self.world.wake_target(flow);
            }
        }
    }

    fn apply_to_path(&mut self, change: PathChange) {
        match change {
            PathChange::Blackout { ways } => self.world.set_blackout(ways),
            PathChange::Weather(weather) => self.world.set_weather(weather),
            PathChange::Boxes(boxes) => self.world.line.set_middleboxes(&boxes, self.world.now),
            PathChange::KillTuples { host, times } => {
                for time in 0..times {
                    self.world.kill_tuple(host);
                    self.run_for(if time + 1 < times { Duration::from_secs(3) } else { Duration::ZERO });
                }
            }
            PathChange::Rebind => self.world.line.rebind(self.world.now),
            PathChange::NewAddress => self.new_address(),
        }
    }

    fn apply_to_end(&mut self, change: EndChange) {
        match change {
            EndChange::RestartServer => self.restart_server(),
            EndChange::RestartClient => self.restart_client(),
            EndChange::RestartBoth => {
                self.restart_server();
                self.restart_client();
            }
            EndChange::SecondHost => {
                self.model.on_second_host();
                self.world.second_host();
            }
            EndChange::SetClock { forward, by } => {
                let wall = &mut self.world.host_mut().wall;
                *wall = if forward { *wall + by } else { wall.saturating_sub(by) };
            }
            EndChange::Pause { time } => {
                self.world.now += time;
                for host in 0..self.world.hosts.len() {
                    self.model.on_stood_still(host, time, self.world.now);
                }
            }
            EndChange::Sleep { time } => {
                self.world.host_mut().fall_asleep();
                self.run_for(time);
                self.model.on_stood_still(self.world.current, time, self.world.now);
                self.wake();
            }
        }
    }

    /// Changes the two ends of one direction of a flow, as far as they are there.
    fn change(&mut self, flow: u16, direction: Direction, change: impl FnOnce(&mut Writer, &mut Reader)) {
        let Some((app, side)) = self.world.ends_mut(flow) else { return };
        match direction {
            Direction::Upload => change(&mut app.writer, &mut side.reader),
            Direction::Download => change(&mut side.writer, &mut app.reader),
        }
        self.world.resume(flow);
    }

    fn reset_by_app(&mut self, flow: u16) {
        for host in &mut self.world.hosts {
            host.apps.reset(flow);
        }
        self.world.outside.reset(flow);
        self.model.on_reset(flow, Excuse::ResetByApp);
    }

    fn new_address(&mut self) {
        self.world.change_address();
    }

    fn restart_server(&mut self) {
        self.model.on_server_restart(&self.world);
        self.world.restart_server();
    }

    fn restart_client(&mut self) {
        self.model.on_client_restart(self.world.current, &self.world);
        self.world.restart_client();
    }

    fn wake(&mut self) {
        let now = self.world.now;
        for host in &mut self.world.hosts {
            host.wake().for_each(|packet| host.handle_packet(packet, now));
        }
    }

    /// The network is fair, all readers read, all writers finish: what nothing excuses must come to its end.
    fn calm_down(&mut self) {
        self.log.lines.push(format!("{:>12?} calm", self.world.age()));
        self.world.set_weather(weather::FAIR);
        self.world.line.set_middleboxes(&[], self.world.now);
        let World { hosts, targets, outside, .. } = &mut self.world;
        let (mut apps, mut all_targets) = (vec![outside], vec![targets]);
        for host in hosts {
            apps.push(&mut host.apps);
            all_targets.push(&mut host.services);
        }
        for connection in apps.into_iter().flat_map(|apps| apps.connections.values_mut()) {
            connection.writer.finishes = true;
            connection.reader.stopped = false;
        }
        for targets in all_targets {
            targets.plans.values_mut().for_each(|plan| plan.finishes = true);
            for side in targets.sides.values_mut() {
                side.writer.finishes = true;
                side.reader.stopped = false;
            }
        }
        for flow in self.model.open_flows() {
            self.apply_to_flow(flow, FlowChange::Answer);
            self.world.resume(flow);
        }
        let begun = self.world.now;
        let done = self.run_until(CALM, |run| {
            run.model.unfinished(&run.world).is_empty() && run.model.standing().count() == 1
        });
        let left = self.model.unfinished(&self.world);
        assert!(done, "{CALM:?} of calm were not enough: {left:#?}\n{}", self.world.describe());
        self.tally.whole = self.model.judge(&self.world);
        self.tally.longest_calm = (self.world.now - begun).as_secs();
    }

    /// With nothing to do, both ends hold nothing, datagrams pass, and hardly a packet is sent.
    fn idle(&mut self) {
        self.run_for(2 * MINUTE);
        self.world.current = self.model.standing().next().expect("one host stands");
        let describe = self.world.describe();
        assert_eq!(self.world.host().client.status(self.world.now).state, ClientState::Up, "{describe}");
        let (client, server) = (self.world.host().load(), self.world.server.load());
        assert_eq!((client.session.streams(), client.flows), (0, 0), "{client:?}\n{describe}");
        assert_eq!(self.world.host().client.status(self.world.now).session.flows_open, 0, "{describe}");
        assert_eq!((server.total.streams(), server.sessions), (0, 1), "{server:?}\n{describe}");
        assert_eq!(server.flows, 0, "{server:?}\n{describe}");
        let streams = self.world.server.status(self.world.now).peers[0].session.map(|it| it.flows_open);
        assert_eq!(streams, Some(0), "streams without an end\n{describe}");
        self.datagrams.give_up();
        for length in [100, 5000] {
            self.datagrams.send(&mut self.world, length);
            self.run_until(MINUTE, |run| run.datagrams.missing() == 0);
            assert_eq!(self.datagrams.missing(), 0, "datagrams did not arrive\n{}", self.world.describe());
        }
        let told = self.datagrams.told;
        self.datagrams.send(&mut self.world, 1430);
        self.run_for(MINUTE);
        assert_eq!(self.datagrams.told - told, 5, "senders must be told that datagrams are too big");
        let before = (self.world.packets(), self.world.steps);
        self.run_for(5 * MINUTE);
        let packets = self.world.packets() - before.0;
        let steps = self.world.steps - before.1;
        assert!(packets <= 60, "{packets} packets in five idle minutes\n{}", self.world.describe());
        assert!(steps <= 300, "{steps} wake-ups in five idle minutes\n{}", self.world.describe());
    }

    fn report(mut self) -> Report {
        let apps = self.world.hosts.iter().map(|host| &host.apps).chain([&self.world.outside]);
        let readers = apps.flat_map(|apps| apps.connections.values());
        let downloads: u64 = readers.map(|connection| connection.reader.received).sum();
        let targets = self.world.hosts.iter().map(|host| &host.services).chain([&self.world.targets]);
        let sides = targets.flat_map(|targets| targets.sides.values());
        let uploads: u64 = sides.map(|side| side.reader.received).sum();
        let tally = &mut self.tally;
        tally.flows = (self.world.targets.plans.len() + self.world.hosts[0].services.plans.len()) as u64;
        tally.bytes = downloads + uploads;
        tally.datagrams = self.datagrams.arrived;
        tally.too_big = self.datagrams.told;
        tally.packets = self.world.transcript.packets;
        for way in Way::BOTH {
            let stats = self.world.line.stats(way);
            tally.lost += stats.dropped();
            tally.duplicated += stats.duplicated;
            tally.corrupted += stats.corrupted;
            tally.reordered += stats.reordered;
            tally.forged += stats.forged;
        }
        tally.seconds = self.world.age().as_secs();
        let peak = self.world.bounds.peak;
        tally.peak_session = peak.client_session.max(peak.server_session);
        Report { tally: self.tally.clone(), transcript: self.world.transcript.hash() }
    }

    fn run_for(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    /// Lets time pass, the model looking on.
    fn run_until(&mut self, limit: Duration, done: impl Fn(&mut Self) -> bool) -> bool {
        let end = self.world.now + limit;
        loop {
            // The world runs to its next event, and no further.
            let more = self.world.step(end);
            self.datagrams.collect(&mut self.world);
            self.model.observe(&self.world);
            if done(self) {
                return true;
            }
            if !more {
                return false;
            }
        }
    }
}

/// What was done, told when the run fails.
struct Log {
    seed: u64,
    lines: Vec<String>,
}

impl Drop for Log {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let again = "cargo test --test tunnel whatever_happens";
            eprintln!("seed {0}; again: VPN_SEED={0} {again}\n{1}", self.seed, self.lines.join("\n"));
        }
    }
}

const MINUTE: Duration = Duration::from_secs(60);

/// Two repeats of a SYN by a patient kernel, two dials, and the transfers.
const CALM: Duration = Duration::from_secs(120);

const MOST_TRANSITIONS: usize = 60;

const MIB: usize = 1 << 20;

/// What a session must hold for each flow, so that the first windows of all cannot pass its bound: MUX may use an eighth of
/// it for them, and each is 64 KiB.
const FLOW_SHARE: usize = 8 * 64 * 1024;

/// Our choice: more take long and show nothing new.
const MOST_FLOWS: usize = 16;
