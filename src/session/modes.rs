//! Which ways of looking like TCP are worth a dial, the best first, and what is remembered of that.
//!
//! Providers differ: some want to see a handshake, some cut flows whose numbers grow, some drop SYNs. Nobody tells us, so
//! [`dialing`](super::dialing) tries one beside the other in the order that is given here: what won here before, then as in
//! [`Mode::ALL`]. Behind all others come modes whose carriers died young [`LIVES`] times in a row although the path was there for
//! the next one: providers cut such flows. If all do, the one whose carriers lived longest comes first.
//!
//! A mode wins if its dial was answered soon after it began; after a longer wait it was the path that came back, and chance which
//! dial was on its way then. One lost round may be an accident, so a winner loses its place with the second in a row.

use std::cmp::Reverse;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::carrier::Mode;

/// The choice between the modes, for one session.
#[derive(Debug)]
pub(crate) struct Modes {
    pinned: Option<Mode>,
    network: String,
    memory: Memory,
    round: Round,
    records: [Record; MODES],
}

/// When each mode was last dialled since a carrier is needed.
type Round = [Option<Instant>; MODES];

/// How long the last carriers of a mode lived that died young, one after the other.
#[derive(Clone, Copy, Debug, Default)]
struct Record {
    lives: [Duration; LIVES],
    young: usize,
}

/// What a mode has been like since the client started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModeRecord {
    /// Which.
    pub mode: Mode,
    /// How many of its carriers died young, one after the other; at most [`LIVES`] are counted.
    pub died_young: usize,
    /// Whether the others are tried first because of that.
    pub is_demoted: bool,
}

impl Modes {
    /// `pinned` is the only mode, if there is one.
    pub(crate) fn new(pinned: Option<Mode>, memory: Memory) -> Self {
        Self {
            pinned,
            network: String::new(),
            memory,
            round: [None; MODES],
            records: [Record::default(); MODES],
        }
    }

    /// Goes on from what was learned earlier.
    pub(crate) fn recall(&mut self, memory: Memory) {
        self.memory = memory;
    }

    /// We are in this network now; what others did to our carriers says nothing here.
    pub(crate) fn set_network(&mut self, network: &str) {
        if self.network != network {
            network.clone_into(&mut self.network);
            self.records = [Record::default(); MODES];
            self.round = [None; MODES];
        }
    }

    /// The modes worth a dial to `server`, the best first.
    pub(crate) fn candidates(&self, server: IpAddr) -> Vec<Mode> {
        match self.pinned {
            Some(pinned) => vec![pinned],
            None => self.order(server).to_vec(),
        }
    }

    /// A dial in this mode begins.
    pub(crate) fn on_dial(&mut self, mode: Mode, now: Instant) {
        self.round[slot(mode)] = Some(now);
    }

    /// A carrier to `server` in this mode carries sealed packets: none is needed any more.
    pub(crate) fn on_carried(&mut self, server: IpAddr, mode: Mode, now: Instant) {
        let round = std::mem::replace(&mut self.round, [None; MODES]);
        let is_fair = |dialled: Instant| now.saturating_duration_since(dialled) <= FAIR;
        if self.pinned.is_none() && round[slot(mode)].is_some_and(is_fair) {
            let loses = |other: Mode| self.is_demoted(other) || round[slot(other)].is_some();
            let loser = self.memory.winner(server, &self.network).filter(|&other| loses(other));
            let at_once = loser.is_some_and(|other| self.is_demoted(other));
            self.memory.on_win(server, &self.network, mode, loser, at_once);
        }
    }

    /// A carrier of this mode, which had carried for so long, stopped answering, and another took its place.
    pub(crate) fn on_died(&mut self, mode: Mode, lived: Duration) {
        self.records[slot(mode)].on_died(lived);
    }

    /// What is worth keeping beyond this session.
    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The same with the reasons.
    pub(crate) fn ranking(&self, server: IpAddr) -> Vec<ModeRecord> {
        let record = |mode| ModeRecord {
            mode,
            died_young: self.records[slot(mode)].young,
            is_demoted: self.is_demoted(mode),
        };
        self.candidates(server).into_iter().map(record).collect()
    }

    fn order(&self, server: IpAddr) -> [Mode; MODES] {
        let winner = self.memory.winner(server, &self.network);
        let mut order = Mode::ALL;
        // Stable: what is equal stays in the order of the design.
        order.sort_by_key(|&mode| {
            let record = self.records[slot(mode)];
            (record.is_demoted().then(|| Reverse(record.lived())), Some(mode) != winner)
        });
        order
    }

    fn is_demoted(&self, mode: Mode) -> bool {
        self.records[slot(mode)].is_demoted()
    }
}

impl Record {
    fn on_died(&mut self, lived: Duration) {
        if lived >= YOUNG {
            *self = Self::default();
            return;
        }
        self.lives.rotate_left(1);
        self.lives[LIVES - 1] = lived;
        self.young = (self.young + 1).min(LIVES);
    }

    fn is_demoted(&self) -> bool {
        self.young == LIVES
    }

    fn lived(&self) -> Duration {
        self.lives.iter().sum()
    }
}

/// What won for which server in which network, the latest last. Of a bounded size: the oldest is forgotten.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<Remembered>", into = "Vec<Remembered>")]
pub struct Memory {
    list: Vec<Remembered>,
    version: u64,
}

/// One winner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Remembered {
    server: IpAddr,
    network: String,
    #[serde(serialize_with = "to_name", deserialize_with = "from_name")]
    mode: Mode,
    /// How many rounds in a row another mode won.
    #[serde(default)]
    beaten: u8,
}

impl Memory {
    /// The mode that won for `server` in `network` last.
    pub fn winner(&self, server: IpAddr, network: &str) -> Option<Mode> {
        self.list.iter().find(|known| known.is(server, network)).map(|known| known.mode)
    }

    /// Changes with each change worth keeping.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// `mode` won; `loser`, if one is named, was tried and did not, and loses its place `at_once` or with the second time.
    fn on_win(&mut self, server: IpAddr, network: &str, mode: Mode, loser: Option<Mode>, at_once: bool) {
        let known = self.list.iter().position(|known| known.is(server, network));
        let old = known.map(|at| self.list.remove(at));
        let new = match old.clone() {
            Some(old) if old.mode == mode => Remembered { beaten: 0, ..old },
            Some(old) if loser != Some(old.mode) => old,
            Some(old) if !at_once && old.beaten == 0 => Remembered { beaten: 1, ..old },
            Some(_) | None => Remembered { server, network: network.to_owned(), mode, beaten: 0 },
        };
        self.version += u64::from(old.as_ref() != Some(&new));
        self.list.push(new);
        self.forget_oldest();
    }

    fn forget_oldest(&mut self) {
        let surplus = self.list.len().saturating_sub(REMEMBERED_MAX);
        self.list.drain(..surplus);
    }
}

impl From<Vec<Remembered>> for Memory {
    fn from(mut list: Vec<Remembered>) -> Self {
        list.retain(|known| known.network.len() <= NETWORK_MAX);
        let mut memory = Self { list, version: 0 };
        memory.forget_oldest();
        memory
    }
}

impl From<Memory> for Vec<Remembered> {
    fn from(memory: Memory) -> Self {
        memory.list
    }
}

impl Remembered {
    fn is(&self, server: IpAddr, network: &str) -> bool {
        self.server == server && self.network == network
    }
}

fn to_name<S: Serializer>(mode: &Mode, output: S) -> Result<S::Ok, S::Error> {
    output.serialize_str(mode.name())
}

fn from_name<'de, D: Deserializer<'de>>(input: D) -> Result<Mode, D::Error> {
    String::deserialize(input)?.parse().map_err(serde::de::Error::custom)
}

fn slot(mode: Mode) -> usize {
    usize::from(mode.to_wire())
}

const MODES: usize = Mode::ALL.len();

/// Our choice: what is answered within this time was answered because of its mode. Two round trips of a bad path, and the first
/// repetition of a SYN.
const FAIR: Duration = Duration::from_secs(3);

/// Our choice: a provider that cuts flows for how they look does so within minutes; NATs and addresses change after hours.
const YOUNG: Duration = Duration::from_secs(10 * 60);

/// How many carriers in a row must die young before their mode comes last.
pub const LIVES: usize = 3;

/// Our choice: servers times networks that a laptop meets in a year.
const REMEMBERED_MAX: usize = 64;

/// Our choice: longer than any name of a network.
const NETWORK_MAX: usize = 256;

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "some instant must be the first")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SERVER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const RTT: Duration = Duration::from_millis(200);
    const NEXT: Duration = Duration::from_millis(1500);
    /// Seconds that a carrier lives whose mode nobody minds.
    const LASTING: u64 = 100_000;

    fn auto(memory: Memory) -> Modes {
        let mut modes = Modes::new(None, memory);
        modes.set_network("home");
        modes
    }

    /// Dials, in a network that lets only `passing` through, until one is answered; returns how many dials that took, too.
    fn connect(modes: &mut Modes, passing: &[Mode], now: &mut Instant) -> (Mode, usize) {
        for (place, mode) in modes.candidates(SERVER).into_iter().enumerate() {
            modes.on_dial(mode, *now);
            if passing.contains(&mode) {
                *now += RTT;
                modes.on_carried(SERVER, mode, *now);
                return (mode, place + 1);
            }
            *now += NEXT;
        }
        panic!("nothing passes");
    }

    #[test]
    fn the_order_is_that_of_the_list_while_nothing_is_known() {
        let start = Instant::now();
        for (place, passing) in Mode::ALL.into_iter().enumerate() {
            let mut now = start;
            assert_eq!(connect(&mut auto(Memory::default()), &[passing], &mut now), (passing, place + 1));
        }
    }

    #[test]
    fn a_pinned_mode_is_the_only_one() {
        let now = Instant::now();
        let mut modes = Modes::new(Some(Mode::BareFixed), Memory::default());
        for _ in 0..20 {
            assert_eq!(connect(&mut modes, &[Mode::BareFixed], &mut now.clone()), (Mode::BareFixed, 1));
            modes.on_died(Mode::BareFixed, Duration::ZERO);
        }
        assert_eq!(modes.memory(), &Memory::default());
        assert_eq!(modes.ranking(SERVER).len(), 1);
    }

    #[test]
    fn what_won_goes_first_the_next_time_and_only_there() {
        let mut now = Instant::now();
        let mut modes = auto(Memory::default());
        assert_eq!(connect(&mut modes, &[Mode::BareAdvance], &mut now).0, Mode::BareAdvance);
        let text = serde_json::to_string(modes.memory()).unwrap();
        let memory: Memory = serde_json::from_str(&text).unwrap();
        let mut again = auto(memory);
        assert_eq!(connect(&mut again, &[Mode::BareAdvance], &mut now), (Mode::BareAdvance, 1));
        again.set_network("elsewhere");
        assert_eq!(again.candidates(SERVER), Mode::ALL);
        again.set_network("home");
        assert_eq!(again.candidates([192, 0, 2, 2].into()), Mode::ALL);
    }

    #[test]
    fn a_winner_that_stops_working_is_tried_in_vain_twice() {
        let mut now = Instant::now();
        let mut modes = auto(Memory::default());
        connect(&mut modes, &[Mode::HandshakeAdvance], &mut now);
        let version = modes.memory().version();
        let dials: Vec<_> =
            (0..3).map(|_| connect(&mut modes, &[Mode::HandshakeFixed], &mut now).1).collect();
        assert_eq!(dials, [2, 2, 1]);
        assert_eq!(modes.memory().version(), version + 2);
        connect(&mut modes, &[Mode::HandshakeFixed], &mut now);
        assert_eq!(modes.memory().version(), version + 2, "nothing new to keep");
    }

    #[test]
    fn whoever_is_on_its_way_when_the_path_comes_back_has_won_nothing() {
        let mut now = Instant::now();
        let mut modes = auto(Memory::default());
        connect(&mut modes, &[Mode::HandshakeAdvance], &mut now);
        for _ in 0..5 {
            for (mode, step) in Mode::ALL.into_iter().zip(0..) {
                modes.on_dial(mode, now + NEXT * step);
            }
            now += Duration::from_secs(30);
            modes.on_carried(SERVER, Mode::BareFixed, now);
            assert_eq!(modes.memory().winner(SERVER, "home"), Some(Mode::HandshakeAdvance));
        }
    }

    #[test]
    fn a_mode_whose_carriers_die_young_three_times_comes_last_and_is_no_winner_any_more() {
        let mut now = Instant::now();
        let mut modes = auto(Memory::default());
        for _ in 0..LIVES {
            assert_eq!(connect(&mut modes, &Mode::ALL, &mut now).0, Mode::HandshakeAdvance);
            modes.on_died(Mode::HandshakeAdvance, Duration::from_secs(5));
        }
        assert_eq!(connect(&mut modes, &Mode::ALL, &mut now), (Mode::HandshakeFixed, 1));
        assert_eq!(modes.memory().winner(SERVER, "home"), Some(Mode::HandshakeFixed));
        assert_eq!(modes.order(SERVER)[3], Mode::HandshakeAdvance);
        assert!(modes.ranking(SERVER)[3].is_demoted);
    }

    #[test]
    fn a_carrier_that_lived_long_clears_its_modes_name() {
        let mut modes = auto(Memory::default());
        for lived in [1, 2, 3600, 1, 2] {
            modes.on_died(Mode::HandshakeAdvance, Duration::from_secs(lived));
        }
        assert_eq!(modes.order(SERVER), Mode::ALL);
    }

    #[test]
    fn if_all_die_young_the_longest_lived_comes_first() {
        let mut modes = auto(Memory::default());
        for (mode, lived) in Mode::ALL.into_iter().zip([5, 9, 20, 7]) {
            (0..5).for_each(|_| modes.on_died(mode, Duration::from_secs(lived)));
        }
        let [first, second, third, fourth] = Mode::ALL;
        assert_eq!(modes.order(SERVER), [third, second, fourth, first]);
    }

    #[test]
    fn the_oldest_is_forgotten_first() {
        let mut memory = Memory::default();
        for number in 0..=REMEMBERED_MAX {
            memory.on_win(SERVER, &number.to_string(), Mode::BareFixed, None, false);
            memory.on_win(SERVER, "0", Mode::BareFixed, None, false);
        }
        assert_eq!(memory.list.len(), REMEMBERED_MAX);
        assert_eq!(memory.winner(SERVER, "0"), Some(Mode::BareFixed), "used all the time");
        assert_eq!(memory.winner(SERVER, "1"), None);
    }

    #[test]
    fn takes_what_a_file_says_within_bounds_or_not_at_all() {
        let one = |network: &str| format!(r#"{{"server":"::1","network":"{network}","mode":"bare+fixed"}}"#);
        let list = vec![one("x"); 1000].join(",");
        let memory: Memory = serde_json::from_str(&format!("[{list}]")).unwrap();
        assert_eq!(memory.list.len(), REMEMBERED_MAX);
        let memory: Memory = serde_json::from_str(&format!("[{}]", one(&"x".repeat(300)))).unwrap();
        assert_eq!(memory, Memory::default());
        for wrong in ["{}", "[1]", r#"[{"server":"::1","network":"","mode":"auto"}]"#] {
            assert!(serde_json::from_str::<Memory>(wrong).is_err(), "{wrong}");
        }
    }

    /// One network for a while: which modes pass, and how long carriers of each live, in seconds.
    fn network() -> impl Strategy<Value = ([bool; MODES], [u64; MODES])> {
        let lives = prop::array::uniform4(prop_oneof![1..100_u64, Just(LASTING)]);
        (prop::array::uniform4(any::<bool>()), lives)
    }

    proptest! {
        /// Whatever passes is found with four dials at most; and if carriers of some passing mode live on, the dials settle
        /// on such a mode after a few deaths.
        #[test]
        fn finds_what_passes_and_settles_on_what_lives((passes, lives) in network(), accident in 0..60_u32) {
            let passing: Vec<_> = Mode::ALL.into_iter().filter(|&mode| passes[slot(mode)]).collect();
            prop_assume!(!passing.is_empty());
            let mut now = Instant::now();
            let mut modes = auto(Memory::default());
            let mut last = Mode::default();
            for round in 0..40 {
                last = connect(&mut modes, &passing, &mut now).0;
                let lived = Duration::from_secs(lives[slot(last)]);
                now += lived;
                modes.on_died(last, lived);
                let mut order = modes.candidates(SERVER);
                order.sort_by_key(|mode| slot(*mode));
                prop_assert_eq!(order.iter().map(|mode| slot(*mode)).collect::<Vec<_>>(), [0, 1, 2, 3]);
                if round == accident {
                    modes.on_dial(Mode::BareFixed, now);
                    modes.on_carried(SERVER, Mode::BareFixed, now + Duration::from_secs(60));
                }
            }
            let lasting = passing.iter().any(|&mode| lives[slot(mode)] == LASTING);
            prop_assert!(!lasting || lives[slot(last)] == LASTING, "{last} at the end");
        }
    }
}
