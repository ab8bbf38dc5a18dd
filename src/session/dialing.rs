//! Carriers in the making: where the next one goes, when it may begin, and how fast new source ports follow one another.
//!
//! ```text
//!  poll_request ──> the shell reserves a port ──> take_request ──> dials ──> accepted, or given up
//! ```
//!
//! A race goes once through all addresses that may be asked, 250 ms apart (RFC 8305 §5), in each mode that is to be tried; who
//! answers sealed packets first carries on. After that single dials go on, slower and slower. Old ones stay open beside the
//! new, and above all of it stands a budget of source ports, so that no provider's table of flows is flooded.
//!
//! Only new ports back off. What carried last is what will most likely pass again, so every other dial is one in its mode and to
//! its address, which asks on from the same port until the next of them does: when the path returns one is always there.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;

use super::dial::{Dial, Reach};
use super::servers::Servers;
use crate::carrier::Mode;
use crate::crypto::Timestamp;
use crate::rate::{Bucket, Rate};

/// All dials of a client, and those that wait for a port.
#[derive(Debug)]
pub(crate) struct Dialing {
    pub(crate) servers: Servers,
    /// Each has a port.
    dials: Vec<Dial>,
    /// Of them, the newest that asks for what carried last.
    standing: Option<u32>,
    is_hurried: bool,
    /// The shell was asked for a port for each.
    requests: Vec<Request>,
    next: Instant,
    /// Dials asked for since packets last made the round trip.
    steps: usize,
    /// Of those, after the race.
    back_offs: u32,
    /// Of source ports.
    ports: Bucket,
    /// Where to and how it was that packets last made the round trip.
    usual: Option<Way>,
    /// How far earlier dials came.
    reach: Reach,
    /// The server knows a later timestamp of ours.
    above: Option<Timestamp>,
    attempts: u32,
}

/// A dial that waits for its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// Counts the dials of a session; a carrier's number.
    pub(crate) attempt: u32,
    pub(crate) remote: SocketAddr,
    pub(crate) mode: Mode,
    /// Beside a carrier that answers.
    pub(crate) is_beside: bool,
}

/// Where to a carrier goes, and how it looks.
pub(crate) type Way = (SocketAddr, Mode);

impl Dialing {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            servers: Servers::default(),
            dials: Vec::new(),
            standing: None,
            is_hurried: false,
            requests: Vec::new(),
            next: now,
            steps: 0,
            back_offs: 0,
            ports: Bucket::default(),
            usual: None,
            reach: Reach::None,
            above: None,
            attempts: 0,
        }
    }

    /// The next dial that a port is wanted for, if one may begin; `modes` are those worth trying, the best first. Ask only if
    /// a carrier is needed.
    pub(crate) fn poll_request(&mut self, modes: &[Mode], rng: &mut StdRng, now: Instant) -> Option<Request> {
        if !self.may_begin() || self.next > now {
            return None;
        }
        if let Some(later) = self.ports.ready_at(PORTS, now) {
            self.next = later;
            return None;
        }
        let width = self.servers.count().min(RACERS);
        let is_after_race = self.steps >= width * modes.len();
        let usual = self.usual.filter(|_| is_after_race && !self.back_offs.is_multiple_of(2));
        let usual =
            usual.and_then(|(remote, mode)| self.servers.again(remote, rng).map(|remote| (remote, mode)));
        let (remote, mode) = match usual {
            Some(usual) => usual,
            None => self.next_of_race(width, modes, rng)?,
        };
        self.next = now + self.pause(width, modes.len());
        Some(self.request((remote, mode), false, now))
    }

    /// The next of all addresses in all modes, round and round.
    fn next_of_race(&mut self, width: usize, modes: &[Mode], rng: &mut StdRng) -> Option<Way> {
        let mode = modes.get(self.steps.checked_div(width)?.checked_rem(modes.len())?).copied()?;
        let remote = self.servers.next_address(rng)?;
        self.steps += 1;
        Some((remote, mode))
    }

    /// A dial beside a carrier that answers, to the same address, if the budget allows.
    pub(crate) fn request_beside(
        &mut self,
        (remote, mode): Way,
        rng: &mut StdRng,
        now: Instant,
    ) -> Option<Request> {
        if self.is_busy() || !self.ports.has_left(PORTS, now) {
            return None;
        }
        let remote = self.servers.again(remote, rng).unwrap_or(remote);
        Some(self.request((remote, mode), true, now))
    }

    fn request(&mut self, (remote, mode): Way, is_beside: bool, now: Instant) -> Request {
        self.attempts += 1;
        self.ports.charge(PORTS, 1, now);
        let request = Request { attempt: self.attempts, remote, mode, is_beside };
        self.requests.push(request);
        request
    }

    /// How long after the dial just asked for the next may follow: to the next address, in the next mode, or again.
    fn pause(&mut self, width: usize, modes: usize) -> Duration {
        if !self.steps.is_multiple_of(width) && self.steps < width * modes {
            return NEXT_ADDRESS;
        }
        if self.steps < width * modes {
            return NEXT_MODE
                .saturating_sub(NEXT_ADDRESS * u32::try_from(width - 1).unwrap_or(0))
                .max(NEXT_ADDRESS);
        }
        self.back_off()
    }

    /// The next of ever longer pauses.
    fn back_off(&mut self) -> Duration {
        let pause = FIRST_BACK_OFF * (1 << self.back_offs.min(8));
        self.back_offs += 1;
        pause.min(MAX_BACK_OFF)
    }

    /// The dial that the shell has a port for now; `None` if it is not wanted any more.
    pub(crate) fn take_request(&mut self, attempt: u32) -> Option<Request> {
        let at = self.requests.iter().position(|request| request.attempt == attempt)?;
        Some(self.requests.swap_remove(at))
    }

    /// The dial could not begin, so no port was spent: it is not waited long.
    pub(crate) fn on_not_begun(&mut self, now: Instant) {
        self.ports.give_back(PORTS);
        self.next = self.next.min(now + NOT_BEGUN);
    }

    /// The dial of `request` has begun. One that asks for what carried last takes the place of the one that did so far, which may
    /// be answered a while yet.
    pub(crate) fn on_begun(&mut self, request: &Request, mut dial: Dial, now: Instant) {
        if self.is_standing(request) {
            let last = self.standing.replace(request.attempt);
            if let Some(last) = self.dials.iter_mut().find(|dial| Some(dial.number()) == last) {
                last.end_by(now + FIRST_LIFETIME);
            }
        }
        dial.set_hurried(self.is_hurried);
        self.dials.push(dial);
    }

    /// Whether somebody waits for the path.
    pub(crate) fn set_hurried(&mut self, is_hurried: bool) {
        self.is_hurried = is_hurried;
        self.dials.iter_mut().for_each(|dial| dial.set_hurried(is_hurried));
    }

    pub(crate) fn dials(&self) -> &[Dial] {
        &self.dials
    }

    pub(crate) fn dials_mut(&mut self) -> &mut [Dial] {
        &mut self.dials
    }

    /// Whether it asks for what carried last because nothing carries now.
    fn is_standing(&self, request: &Request) -> bool {
        let is_usual = |(remote, mode)| mode == request.mode && self.servers.is_same(remote, request.remote);
        !request.is_beside && self.usual.is_some_and(is_usual)
    }

    /// Takes the dial of this attempt out: it has become a carrier.
    pub(crate) fn take(&mut self, attempt: u32) -> Option<Dial> {
        let at = self.dials.iter().position(|dial| dial.number() == attempt)?;
        Some(self.dials.swap_remove(at))
    }

    /// Takes a dial out that came to nothing, and remembers how far it came.
    pub(crate) fn give_up(&mut self, attempt: u32) -> Option<Dial> {
        let dial = self.take(attempt)?;
        self.reach = self.reach.max(dial.reach());
        Some(dial)
    }

    /// A dial whose time is over.
    pub(crate) fn expired(&self, now: Instant) -> Option<u32> {
        self.dials.iter().find(|dial| dial.deadline() <= now).map(Dial::number)
    }

    /// Packets make the round trip this way: nothing is wanted, and the next race begins afresh.
    pub(crate) fn on_settled(&mut self, way: Way, now: Instant) {
        self.usual = Some(way);
        self.servers.on_carried_by(way.0);
        self.requests.clear();
        self.begin_race(now);
    }

    /// Everything is tried at once again.
    pub(crate) fn begin_race(&mut self, now: Instant) {
        (self.next, self.steps, self.back_offs) = (now, 0, 0);
    }

    /// Nothing is wanted any more.
    pub(crate) fn forget_requests(&mut self) {
        self.requests.clear();
    }

    /// A dial became a carrier, which has some time to prove itself.
    pub(crate) fn on_accepted(&mut self, now: Instant) {
        self.next = self.next.max(now + FIRST_BACK_OFF);
    }

    /// The server knows a later timestamp of ours: above it another dial may begin at once. One that is stale again, too,
    /// waits: the server would have us open port after port.
    pub(crate) fn on_stale(&mut self, above: Timestamp, now: Instant) {
        if self.above.replace(above).is_none() {
            self.next = now;
        } else {
            self.next = now + self.back_off();
        }
    }

    /// How long the dial of `request` may take.
    pub(crate) fn lifetime(&self, request: &Request) -> Duration {
        if self.is_standing(request) {
            return STANDING_LIFETIME;
        }
        if request.is_beside || self.back_offs < 2 { FIRST_LIFETIME } else { MAX_BACK_OFF }
    }

    /// The timestamp of the next message 1.
    pub(crate) fn timestamp(&self, wall: Timestamp) -> Timestamp {
        Timestamp::after(self.above, wall)
    }

    /// How far the dials came that are over.
    pub(crate) fn past_reach(&self) -> Reach {
        self.reach
    }

    /// How far towards the server any dial came.
    pub(crate) fn reach(&self) -> Reach {
        self.dials.iter().map(Dial::reach).fold(self.reach, Reach::max)
    }

    /// When something is due, if a carrier is `needed`.
    pub(crate) fn poll_timeout(&self, needed: bool) -> Option<Instant> {
        let dials = self.dials.iter().map(Dial::poll_timeout);
        dials.chain((needed && self.may_begin()).then_some(self.next)).min()
    }

    fn may_begin(&self) -> bool {
        self.dials.len() + self.requests.len() < DIALS_MAX && self.servers.count() > 0
    }

    /// Whether any dial is in the making, or waits for its port.
    pub(crate) fn is_busy(&self) -> bool {
        !self.dials.is_empty() || !self.requests.is_empty()
    }
}

/// RFC 8305 §5: the next address is tried this long after the last.
const NEXT_ADDRESS: Duration = Duration::from_millis(250);

/// Our choice: a network that passes a mode answers in it within several round trips.
const NEXT_MODE: Duration = Duration::from_millis(1500);

/// Our choice: addresses of one race; more are tried when it is over.
const RACERS: usize = 4;

/// Our choice: dials at a time, those that wait for a port included.
const DIALS_MAX: usize = 8;

/// Our choice: the first repeat of a SYN is due by then, and may be the one that passes.
const FIRST_BACK_OFF: Duration = Duration::from_secs(1);

/// Our choice: at most six new source ports a minute.
const MAX_BACK_OFF: Duration = Duration::from_secs(10);

/// Our choice: a SYN, two repeats, and a round trip of a bad path.
const FIRST_LIFETIME: Duration = Duration::from_secs(4);

/// Until the next but one has begun, and been answered.
const STANDING_LIFETIME: Duration =
    Duration::from_secs(2 * MAX_BACK_OFF.as_secs() + FIRST_LIFETIME.as_secs());

/// Our choice: how soon a port is asked for again when there was no route.
const NOT_BEGUN: Duration = Duration::from_millis(500);

/// Our choice: at once two races in all modes; then a provider that kills flow after flow gets 20 new ones a minute.
const PORTS: Rate = Rate::new(Duration::from_secs(3), 32);

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "some instant must be the first")]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    const MODE: [Mode; 1] = [Mode::HandshakeAdvance];

    fn addresses(count: u8) -> Vec<SocketAddr> {
        (1..=count).map(|n| SocketAddr::from(([192, 0, 2, n], 443))).collect()
    }

    fn dialing(count: u8, now: Instant) -> Dialing {
        let mut dialing = Dialing::new(now);
        dialing.servers.set(vec![addresses(count).into_iter().map(Into::into).collect()]);
        dialing
    }

    fn poll(dialing: &mut Dialing, modes: &[Mode], now: Instant) -> Option<Request> {
        dialing.poll_request(modes, &mut StdRng::seed_from_u64(1), now)
    }

    /// When each dial is asked for in this time, and what it is, if each port comes at once and each dial comes to nothing.
    fn requests(
        dialing: &mut Dialing,
        modes: &[Mode],
        start: Instant,
        time: Duration,
    ) -> Vec<(u64, Request)> {
        let mut requests = Vec::new();
        let mut now = start;
        while now <= start + time {
            while let Some(request) = poll(dialing, modes, now) {
                dialing.take_request(request.attempt);
                requests.push(((now - start).as_millis().try_into().unwrap(), request));
            }
            now = dialing.poll_timeout(true).unwrap().max(now + Duration::from_millis(1));
        }
        requests
    }

    #[test]
    fn asks_again_at_once_when_stale_but_not_on_and_on() {
        let now = Instant::now();
        let mut dialing = Dialing::new(now);
        let mut above = Timestamp::from_unix(Duration::from_secs(1));
        let mut waits = Vec::new();
        for _ in 0..6 {
            dialing.on_stale(above, now);
            above = dialing.timestamp(above);
            waits.push((dialing.next - now).as_secs());
        }
        assert_eq!(waits, [0, 1, 2, 4, 8, 10]);
        assert!(above > Timestamp::from_unix(Duration::from_secs(1)));
    }

    #[test]
    fn a_port_that_comes_when_none_is_wanted_any_more_is_not_used() {
        let now = Instant::now();
        let mut dialing = dialing(1, now);
        let request = poll(&mut dialing, &MODE, now).unwrap();
        dialing.on_settled((addresses(1)[0], MODE[0]), now);
        assert_eq!(dialing.take_request(request.attempt), None);
    }

    #[test]
    fn addresses_race_and_then_single_dials_back_off() {
        let now = Instant::now();
        let mut dialing = dialing(3, now);
        let asked = requests(&mut dialing, &MODE, now, Duration::from_secs(40));
        let times: Vec<_> = asked.iter().map(|(at, _)| *at).collect();
        assert_eq!(times, [0, 250, 500, 1500, 3500, 7500, 15_500, 25_500, 35_500]);
        let hosts: Vec<_> = asked.iter().map(|(_, request)| request.remote).collect();
        assert_eq!(hosts[..6], [addresses(3), addresses(3)].concat());
    }

    #[test]
    fn the_next_mode_follows_beside_the_last() {
        let now = Instant::now();
        let mut dialing = dialing(2, now);
        let modes = [Mode::HandshakeAdvance, Mode::BareFixed];
        let asked = requests(&mut dialing, &modes, now, Duration::from_secs(4));
        let asked: Vec<_> = asked.iter().map(|(at, request)| (*at, request.mode)).collect();
        let [first, second] = modes;
        assert_eq!(asked, [(0, first), (250, first), (1500, second), (1750, second), (2750, first)]);
    }

    #[test]
    fn a_new_race_begins_when_the_network_changes() {
        let now = Instant::now();
        let mut dialing = dialing(1, now);
        assert_eq!(requests(&mut dialing, &MODE, now, Duration::from_secs(20)).len(), 5);
        let later = now + Duration::from_secs(21);
        assert_eq!(poll(&mut dialing, &MODE, later), None);
        dialing.begin_race(later);
        assert!(poll(&mut dialing, &MODE, later).is_some());
    }

    #[test]
    fn ports_are_not_spent_without_end_whatever_happens() {
        let start = Instant::now();
        let mut dialing = dialing(4, start);
        let mut spent = 0;
        for second in 0..600 {
            let now = start + Duration::from_secs(second);
            dialing.begin_race(now);
            while let Some(request) = poll(&mut dialing, &MODE, now) {
                dialing.take_request(request.attempt);
                dialing.next = now;
                spent += 1;
            }
        }
        assert!((200..=240).contains(&spent), "{spent} ports in ten minutes");
    }

    #[test]
    fn a_dial_that_cannot_begin_costs_no_port_and_little_time() {
        let now = Instant::now();
        let mut dialing = dialing(1, now);
        let request = poll(&mut dialing, &MODE, now).unwrap();
        dialing.take_request(request.attempt);
        dialing.on_not_begun(now);
        assert_eq!(dialing.poll_timeout(true), Some(now + NOT_BEGUN));
        assert_eq!((0..100).filter(|_| dialing.ports.take(PORTS, now)).count(), 32);
    }

    #[test]
    fn what_carried_last_is_asked_for_at_all_times_and_everything_else_now_and_then() {
        let now = Instant::now();
        let mut dialing = dialing(2, now);
        let usual = (addresses(2)[1], Mode::HandshakeFixed);
        dialing.on_settled(usual, now);
        let asked = requests(&mut dialing, &Mode::ALL, now, Duration::from_secs(600));
        let mut covered_until = 0;
        for (at, request) in &asked {
            if (request.remote, request.mode) == usual {
                assert!(*at <= covered_until || covered_until == 0, "nobody asked for it at {at} ms");
                covered_until = at + u64::try_from(dialing.lifetime(request).as_millis()).unwrap();
            }
        }
        assert!(covered_until >= 600_000);
        for mode in Mode::ALL {
            for remote in addresses(2) {
                let count = asked.iter().filter(|(_, it)| (it.remote, it.mode) == (remote, mode)).count();
                assert!(count >= 4, "{count} times {mode} to {remote}");
            }
        }
        assert!(asked.len() <= 75, "{} ports in ten minutes", asked.len());
    }
}
