//! How large an outer packet may be that the path still carries, one way: packetization-layer path MTU discovery (RFC 8899).
//!
//! Only what came through is believed: a probe, which is a `PING` padded to the size in question, was answered. What ICMP
//! says is not looked at, since anyone can forge it and many filter it.
//!
//! ```text
//!            ┌─ answered, or not: the next size ─┐
//!            │                                   │
//!  new ──> Trying ───────────────────────────────┴─ nothing left to try ──> Settled ── some time later ──> Trying
//!
//!  either ── full packets seem lost ──> doubt ─┬─ answered in full: as before
//!                                              └─ only the small is: 1280 bytes, Trying
//! ```
//!
//! Full packets seem lost when KCP's data in one of them stays unacknowledged, or when nothing is known of a large datagram
//! for long. Then the question goes out in two sizes; a path that answers neither is dead, which is not decided here.

use std::time::{Duration, Instant};

/// The search of one carrier, in the direction that this end sends.
#[derive(Debug)]
pub(crate) struct PathMtu {
    /// The largest that is known to pass.
    size: u16,
    /// Never larger.
    limit: u16,
    /// The smallest that was tried in vain, or one more than `limit`.
    failed: u16,
    search: Search,
    /// Full packets seem to be lost: the search waits.
    doubt: Option<Doubt>,
    /// Part of each token, new for each question, so that a late answer is not taken for one to another.
    generation: u32,
    watch: Option<Watch>,
    /// The first of the large datagrams of which nothing is known.
    datagram: Option<Instant>,
    shrunk: u64,
}

/// A question to send: a packet with a `PING`, padded to `size` bytes, IP header included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Probe {
    pub(crate) token: u64,
    pub(crate) size: u16,
}

#[derive(Clone, Copy, Debug)]
enum Search {
    /// A larger size is tried, `sent` times so far.
    Trying { target: u16, generation: u32, sent: u16, last: Instant },
    /// All that may pass was tried.
    Settled { until: Instant },
}

#[derive(Clone, Copy, Debug)]
struct Doubt {
    generation: u32,
    rounds: u16,
    /// Rounds in which the small question was answered.
    answered: u16,
    /// Rounds without any answer, in a row.
    silent: u32,
    is_answered: bool,
    small_is_due: bool,
    last: Instant,
}

/// All segments up to one are acknowledged: so is the one in the large packet that the watch began with.
#[derive(Clone, Copy, Debug)]
struct Watch {
    segments: u64,
    since: Instant,
}

impl PathMtu {
    /// A carrier on which a packet of `proven` bytes passed, and of which none may exceed `limit`.
    pub(crate) fn new(proven: u16, limit: u16, now: Instant) -> Self {
        let size = proven.max(BASE);
        let limit = limit.max(size);
        let mut path = Self {
            size,
            limit,
            failed: limit.saturating_add(1),
            search: Search::Settled { until: now },
            doubt: None,
            generation: 0,
            watch: None,
            datagram: None,
            shrunk: 0,
        };
        path.try_next(now);
        path
    }

    /// The size of a full packet, IP header included, in bytes.
    pub(crate) fn size(&self) -> u16 {
        self.size
    }

    /// How often the path was found to have become smaller.
    pub(crate) fn shrunk(&self) -> u64 {
        self.shrunk
    }

    /// Larger packets than were thought possible may be tried.
    pub(crate) fn raise_limit(&mut self, limit: u16, now: Instant) {
        if limit > self.limit {
            self.limit = limit;
            self.try_again(now);
        }
    }

    /// A packet of `length` bytes left. `segments`: it carries KCP's data, and with it so many have left in all.
    pub(crate) fn on_sent(&mut self, length: usize, segments: Option<u64>, now: Instant) {
        if length <= usize::from(BASE) {
            return;
        }
        match segments {
            Some(segments) if self.watch.is_none() => self.watch = Some(Watch { segments, since: now }),
            Some(_) => {}
            None => {
                self.datagram.get_or_insert(now);
            }
        }
        // Only now: nobody asks about a carrier that is idle.
        if matches!(self.search, Search::Settled { until } if until <= now) && self.size < self.limit {
            self.try_again(now);
        }
    }

    /// Whether [`Self::on_acknowledged`] has something to find out.
    pub(crate) fn is_watching(&self) -> bool {
        self.watch.is_some()
    }

    /// The other end has the first so many segments.
    pub(crate) fn on_acknowledged(&mut self, segments: u64) {
        if self.watch.is_some_and(|watch| watch.segments <= segments) {
            self.on_passed();
        }
    }

    /// Takes the answer to a probe; returns whether it was one.
    pub(crate) fn on_pong(&mut self, token: u64, now: Instant) -> bool {
        let [generation, number] = split(token);
        if let Some(doubt) = &mut self.doubt
            && doubt.generation == generation
            && number < 2 * u32::from(doubt.rounds)
        {
            let is_small = number % 2 == 1;
            doubt.is_answered |= is_small;
            if !is_small {
                self.on_passed();
            }
            return true;
        }
        match self.search {
            Search::Trying { target, generation: current, sent, .. }
                if current == generation && number < u32::from(sent) =>
            {
                self.size = target;
                self.on_passed();
                self.try_next(now);
                true
            }
            Search::Trying { .. } | Search::Settled { .. } => false,
        }
    }

    /// The question to send now, if one is due on a path with this round trip.
    pub(crate) fn poll_probe(&mut self, srtt: Option<Duration>, now: Instant) -> Option<Probe> {
        if self.poll_timeout(srtt).is_none_or(|due| due > now) {
            return None;
        }
        if self.doubt.is_some() || self.doubt_at(srtt).is_some_and(|at| at <= now) {
            return self.poll_doubt(now);
        }
        match self.search {
            Search::Trying { target, generation, sent, .. } if sent < MAX_PROBES => {
                self.search = Search::Trying { target, generation, sent: sent + 1, last: now };
                Some(Probe { token: token(generation, sent), size: target })
            }
            Search::Trying { target, .. } => {
                self.failed = target;
                self.try_next(now);
                self.poll_probe(srtt, now)
            }
            Search::Settled { .. } => None,
        }
    }

    /// When [`Self::poll_probe`] has something to ask.
    pub(crate) fn poll_timeout(&self, srtt: Option<Duration>) -> Option<Instant> {
        if let Some(doubt) = &self.doubt {
            return Some(doubt.poll_timeout(srtt));
        }
        let search = match self.search {
            Search::Trying { sent: 0, last, .. } => Some(last),
            Search::Trying { last, .. } => Some(last + probe_timer(srtt)),
            Search::Settled { .. } => None,
        };
        search.into_iter().chain(self.doubt_at(srtt)).min()
    }

    /// When nothing was heard of full packets for too long.
    fn doubt_at(&self, srtt: Option<Duration>) -> Option<Instant> {
        let patience = srtt.map_or(MOST_PATIENCE, |srtt| (srtt * 4).clamp(LEAST_PATIENCE, MOST_PATIENCE));
        let data = self.watch.map(|watch| watch.since + patience);
        let datagram = self.datagram.map(|since| since + CONFIRMATION_TIMER);
        data.into_iter().chain(datagram).min().filter(|_| self.size > BASE)
    }

    /// The next question in two sizes, or the conclusion from the last ones.
    fn poll_doubt(&mut self, now: Instant) -> Option<Probe> {
        let mut doubt = match self.doubt {
            Some(doubt) => doubt,
            None => Doubt::new(self.next_generation(), now),
        };
        if doubt.small_is_due {
            doubt.small_is_due = false;
            self.doubt = Some(doubt);
            return Some(Probe { token: token(doubt.generation, 2 * doubt.rounds - 1), size: BASE });
        }
        doubt.end_round();
        if doubt.rounds >= DOUBT_ROUNDS && doubt.answered >= DOUBT_ANSWERS {
            self.shrink(now);
            return None;
        }
        let number = 2 * doubt.rounds;
        let rounds = (doubt.rounds + 1).min(MAX_ROUNDS);
        self.doubt = Some(Doubt { rounds, small_is_due: true, last: now, ..doubt });
        Some(Probe { token: token(doubt.generation, number), size: self.size })
    }

    fn shrink(&mut self, now: Instant) {
        self.shrunk += 1;
        self.failed = self.size;
        self.size = BASE;
        self.on_passed();
        self.try_next(now);
    }

    /// A packet of the full size came through.
    fn on_passed(&mut self) {
        (self.watch, self.datagram, self.doubt) = (None, None, None);
    }

    /// What failed once may pass by now.
    fn try_again(&mut self, now: Instant) {
        self.failed = self.limit.saturating_add(1);
        self.try_next(now);
    }

    /// Tries the next size, if there is one to try.
    fn try_next(&mut self, now: Instant) {
        self.search = match self.target() {
            Some(target) => Search::Trying { target, generation: self.next_generation(), sent: 0, last: now },
            None => Search::Settled { until: now + PMTU_RAISE_TIMER },
        };
    }

    /// The largest allowed, which most paths carry; then the middle of what is left.
    fn target(&self) -> Option<u16> {
        if self.failed > self.limit {
            return (self.size < self.limit).then_some(self.limit);
        }
        let is_left = |size: &u16| *size > self.size && *size < self.failed;
        let left = SIZES.iter().copied().filter(is_left);
        left.clone().nth(left.count() / 2)
    }

    fn next_generation(&mut self) -> u32 {
        self.generation = self.generation.wrapping_add(1);
        self.generation
    }
}

impl Doubt {
    fn new(generation: u32, now: Instant) -> Self {
        Self {
            generation,
            rounds: 0,
            answered: 0,
            silent: 0,
            is_answered: false,
            small_is_due: false,
            last: now,
        }
    }

    fn poll_timeout(&self, srtt: Option<Duration>) -> Instant {
        if self.small_is_due { self.last } else { self.last + self.interval(srtt) }
    }

    fn end_round(&mut self) {
        if self.rounds > 0 {
            self.silent = if self.is_answered { 0 } else { (self.silent + 1).min(SILENT_MAX) };
            self.answered += u16::from(self.is_answered);
            self.is_answered = false;
        }
    }

    fn interval(&self, srtt: Option<Duration>) -> Duration {
        let round_trip = srtt.map_or(LEAST_PATIENCE, |srtt| (srtt * 3 / 2).max(LEAST_ROUND));
        round_trip * (1 << self.silent)
    }
}

fn probe_timer(srtt: Option<Duration>) -> Duration {
    srtt.map_or(PROBE_TIMER, |srtt| PROBE_TIMER.max(srtt * 2))
}

fn token(generation: u32, number: u16) -> u64 {
    u64::from(generation) << 32 | u64::from(number)
}

/// The generation and the number of a token.
fn split(token: u64) -> [u32; 2] {
    #[expect(clippy::cast_possible_truncation, reason = "the halves of 64 bits")]
    [(token >> 32) as u32, token as u32]
}

/// The smallest that every path is taken to carry: IPv6's least MTU (RFC 8200 section 5; BASE_PLPMTU, RFC 8899 section 5.1.2).
pub(crate) const BASE: u16 = 1280;

/// What is tried first: it passes PPPoE and most tunnels, and leaves room for an inner IPv6 packet of 1280 bytes (RFC 8200
/// section 5). For an outer IPv4 packet; IPv6's header is [`IPV6_MORE`] bytes longer.
pub(crate) const USUAL: u16 = 1400;

/// What an IPv6 header has more than IPv4's.
pub(crate) const IPV6_MORE: u16 = 20;

/// Ethernet's; larger only where the local interface has it and the other end agrees.
pub(crate) const ETHERNET: u16 = 1500;

/// Where links' MTUs lie (RFC 8899 section 5.3.2 leaves the choice): tunnels in tunnels, IPsec, GRE, L2TP, PPPoE, Ethernet; FDDI,
/// jumbo frames.
const SIZES: &[u16] = &[
    1300, 1320, 1340, 1360, 1380, 1400, 1420, 1432, 1440, 1452, 1460, 1472, 1480, 1492, 1500, 1600, 1800,
    2048, 3000, 4352, 6000, 8000, 8900, 9000,
];

/// PROBE_TIMER (RFC 8899 section 5.1.1): at least a second, and more than a round trip.
const PROBE_TIMER: Duration = Duration::from_secs(1);

/// MAX_PROBES (RFC 8899 section 5.1.2) is 3 by default; our choice: at 20 % lost each way a size that passes is given up 6 times in
/// 1000.
const MAX_PROBES: u16 = 5;

/// RFC 8899 section 5.1.1.
const PMTU_RAISE_TIMER: Duration = Duration::from_secs(600);

/// CONFIRMATION_TIMER (RFC 8899 section 5.1.1), while large datagrams leave and nothing else tells of them. Our choice.
const CONFIRMATION_TIMER: Duration = Duration::from_secs(5);

/// Our choice: data that waits four round trips was lost twice, or all of its kind is.
const LEAST_PATIENCE: Duration = Duration::from_millis(300);
const MOST_PATIENCE: Duration = Duration::from_secs(3);

/// Our choice: as often as the pings of liveness.
const LEAST_ROUND: Duration = Duration::from_millis(250);

/// Our choice: three full packets lost in a row, after those that raised the doubt …
const DOUBT_ROUNDS: u16 = 3;

/// … while at least two small ones passed.
const DOUBT_ANSWERS: u16 = 2;

/// Rounds that tokens count.
const MAX_ROUNDS: u16 = 10_000;

/// Our choice: while nothing is answered, rounds come up to 16 times as far apart.
const SILENT_MAX: u32 = 4;

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "some instant must be the first")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RTT: Option<Duration> = Some(Duration::from_millis(100));

    /// A path that carries what is not larger than `carries`, and answers at once.
    fn run(path: &mut PathMtu, carries: u16, mut now: Instant, time: Duration) -> (Instant, Vec<u16>) {
        let (end, mut asked) = (now + time, Vec::new());
        while let Some(due) = path.poll_timeout(RTT).filter(|&due| due <= end) {
            now = now.max(due);
            while let Some(probe) = path.poll_probe(RTT, now) {
                asked.push(probe.size);
                if probe.size <= carries {
                    assert!(path.on_pong(probe.token, now));
                }
            }
        }
        (end, asked)
    }

    #[test]
    fn the_largest_size_is_tried_first_and_one_question_is_enough() {
        let now = Instant::now();
        let mut path = PathMtu::new(1400, 1500, now);
        assert_eq!(run(&mut path, 9000, now, 10 * PROBE_TIMER).1, [1500]);
        assert_eq!((path.size(), path.poll_timeout(RTT)), (1500, None));
    }

    #[test]
    fn nothing_is_asked_where_nothing_can_be_gained() {
        let now = Instant::now();
        let mut path = PathMtu::new(1400, 1400, now);
        assert_eq!((path.poll_timeout(RTT), path.poll_probe(RTT, now)), (None, None));
    }

    #[test]
    fn a_size_is_given_up_after_so_many_questions_and_the_middle_is_next() {
        let now = Instant::now();
        let mut path = PathMtu::new(1400, 1500, now);
        let (now, asked) = run(&mut path, 1492, now, 100 * PROBE_TIMER);
        assert_eq!(path.size(), 1492);
        assert_eq!(asked[..5], [1500; 5]);
        assert!(asked.len() <= 20, "{asked:?}");
        assert_eq!(path.poll_timeout(RTT), None, "an idle carrier is not asked about");
        path.on_sent(1492, None, now + PMTU_RAISE_TIMER);
        assert_eq!(run(&mut path, 1500, now + PMTU_RAISE_TIMER, PROBE_TIMER).1[0], 1500);
        assert_eq!(path.size(), 1500);
    }

    #[test]
    fn a_path_that_swallows_full_packets_is_found_out_by_what_is_not_acknowledged() {
        let start = Instant::now();
        let mut path = PathMtu::new(1500, 1500, start);
        path.on_sent(1500, Some(10), start);
        path.on_sent(1500, Some(20), start);
        path.on_acknowledged(9);
        let due = path.poll_timeout(RTT).unwrap();
        assert_eq!(due, start + Duration::from_millis(400));
        let (_, asked) = run(&mut path, 1280, start, Duration::from_millis(1200));
        assert_eq!(path.size(), 1280);
        assert_eq!(asked[..6], [1500, 1280, 1500, 1280, 1500, 1280]);
        assert_eq!(path.shrunk(), 1);
    }

    #[test]
    fn what_is_acknowledged_ends_the_doubt() {
        let start = Instant::now();
        let mut path = PathMtu::new(1500, 1500, start);
        path.on_sent(1500, Some(10), start);
        let now = path.poll_timeout(RTT).unwrap();
        assert_eq!(path.poll_probe(RTT, now).map(|probe| probe.size), Some(1500));
        assert_eq!(path.poll_probe(RTT, now).map(|probe| probe.size), Some(1280));
        path.on_acknowledged(10);
        assert_eq!((path.size(), path.poll_timeout(RTT)), (1500, None));
    }

    #[test]
    fn a_full_answer_ends_the_doubt() {
        let start = Instant::now();
        let mut path = PathMtu::new(1500, 1500, start);
        path.on_sent(1500, Some(10), start);
        let (_, asked) = run(&mut path, 1500, start, Duration::from_secs(1));
        assert_eq!((path.size(), asked.as_slice()), (1500, [1500].as_slice()));
    }

    #[test]
    fn a_dead_path_is_not_a_small_one_and_is_asked_ever_less() {
        let start = Instant::now();
        let mut path = PathMtu::new(1500, 1500, start);
        path.on_sent(1500, Some(10), start);
        let (_, asked) = run(&mut path, 0, start, Duration::from_secs(60));
        assert_eq!(path.size(), 1500);
        assert!(asked.len() < 60, "{} questions in a minute", asked.len());
    }

    #[test]
    fn large_datagrams_are_asked_about_now_and_then() {
        let start = Instant::now();
        let mut path = PathMtu::new(1500, 1500, start);
        path.on_sent(1280, None, start);
        assert_eq!(path.poll_timeout(RTT), None, "what passes everywhere raises no doubt");
        path.on_sent(1281, None, start);
        assert_eq!(path.poll_timeout(RTT), Some(start + CONFIRMATION_TIMER));
        let (_, asked) = run(&mut path, 1280, start, 2 * CONFIRMATION_TIMER);
        assert_eq!((path.size(), path.shrunk()), (1280, 1), "{asked:?}");
    }

    #[test]
    fn an_answer_to_an_earlier_question_says_nothing() {
        let now = Instant::now();
        let mut path = PathMtu::new(1280, 1500, now);
        let first = path.poll_probe(RTT, now).unwrap();
        let (now, _) = run(&mut path, 0, now, 6 * PROBE_TIMER);
        assert!(!path.on_pong(first.token, now));
        assert!(!path.on_pong(first.token ^ 1 << 32, now) && path.size() == 1280);
    }

    #[test]
    fn a_higher_limit_is_searched_for() {
        let now = Instant::now();
        let mut path = PathMtu::new(1400, 1400, now);
        path.raise_limit(1500, now);
        run(&mut path, 1500, now, PROBE_TIMER);
        assert_eq!(path.size(), 1500);
        path.raise_limit(1400, now);
        assert_eq!(path.poll_timeout(RTT), None);
    }

    proptest! {
        #[test]
        fn finds_a_size_that_passes_whatever_the_path(carries in 1280_u16..9200, limit in 1280_u16..9001, proven in 1280_u16..1421) {
            let now = Instant::now();
            let mut path = PathMtu::new(proven.min(carries), limit, now);
            run(&mut path, carries, now, 1000 * PROBE_TIMER);
            prop_assert!(path.size() <= carries);
            let largest = SIZES.iter().copied().filter(|&size| size <= carries.min(limit)).max().unwrap_or(BASE);
            prop_assert!(path.size() >= largest.max(proven.min(carries)), "{} of {}", path.size(), carries);
        }
    }
}
