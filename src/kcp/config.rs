//! How a conversation is set up: ikcp's knobs, the presets that have names, and the bounds that ikcp does not have.

use std::{str::FromStr, time::Duration};

use thiserror::Error;

use super::{congestion::CongestionKind, segment::HEADER_LEN};

/// How a [`super::Kcp`] is set up.
///
/// [`Config::full`] has all that this engine can do, and is what a tunnel uses; [`Config::ikcp`] is what `ikcp_create`
/// makes; a [`Mode`] is one of the named presets; [`Config::with_knobs`], [`Config::with_windows`] and
/// [`Config::with_mtu`] are `ikcp_nodelay`, `ikcp_wndsize` and `ikcp_setmtu`. Every field can be set by itself as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Payload bytes of a full segment. `poll_transmit` must be given room for `mss` + [`HEADER_LEN`].
    pub mss: usize,
    /// Segments that may lie between the first unacknowledged and the last sent.
    pub send_window: u16,
    /// Segments we are willing to hold, advertised to the peer.
    pub receive_window: u16,
    /// Which congestion control to use: `nc` 0 is [`CongestionKind::Loss`], `nc` 1 is [`CongestionKind::None`].
    pub congestion: CongestionKind,
    /// How RTO grows with each timeout.
    pub nodelay: Nodelay,
    /// All that leaves is gathered to multiples of this since the start, as `ikcp_update` does; zero = it leaves at once.
    ///
    /// A multiple at which nothing waits passes without a wake-up.
    pub interval: Duration,
    /// Skips after which a segment is sent again; 0 = off.
    pub fast_resend: u32,
    /// A segment sent more often than this is not sent again for its skips, only by time; 0 = no limit
    /// (`IKCP_FASTACK_LIMIT`).
    pub fast_limit: u32,
    /// The shortest RTO.
    pub min_rto: Duration,
    /// How often an ack that `una` does not say yet is sent again, in the ack packets that follow: with 2 of them and 20 % of
    /// the packets lost, 0.8 % of the acks are. An ikcp peer takes each for a sample of the round trip.
    pub ack_repeats: u8,
    /// A segment sent so often says that the link is dead; 0 = never. It is reported and not acted upon.
    pub dead_link: u32,
    /// Wire bytes around each packet, for pacing.
    pub overhead: usize,
    /// Payload bytes kept for retransmission: no fresh segment is made while there are so many, so that less than one is
    /// held beyond.
    pub send_buffer: usize,
    /// Payload bytes held for the reader or for those before them; one segment beyond if all others wait for it.
    pub receive_buffer: usize,
}

impl Config {
    /// All that this engine can do, towards a peer that is of its kind: the widest windows within `buffer` bytes each way,
    /// nothing gathered, losses found by count and by time without a limit, acks repeated, and a link that is never dead.
    ///
    /// `mss` is the payload of a full segment, `overhead` what is around a packet on the wire, both in bytes.
    pub const fn full(mss: usize, overhead: usize, buffer: usize) -> Self {
        Self {
            mss,
            send_window: u16::MAX,
            receive_window: u16::MAX,
            congestion: CongestionKind::Bbr,
            nodelay: Nodelay::On,
            interval: Duration::ZERO,
            fast_resend: 2,
            fast_limit: 0,
            ack_repeats: 2,
            min_rto: Nodelay::On.min_rto(),
            dead_link: 0,
            overhead,
            send_buffer: buffer,
            receive_buffer: buffer,
        }
    }

    /// What `ikcp_create` makes: RTO × 2, a flush each 100 ms, no fast resend, slow start and congestion avoidance, and
    /// small windows.
    pub const fn ikcp() -> Self {
        Self {
            mss: 0,
            send_window: 0,
            receive_window: 0,
            congestion: CongestionKind::Loss,
            nodelay: Nodelay::Off,
            interval: INTERVAL,
            fast_resend: 0,
            fast_limit: FAST_LIMIT,
            min_rto: Nodelay::Off.min_rto(),
            ack_repeats: 0,
            dead_link: DEAD_LINK,
            overhead: UDP_OVERHEAD,
            send_buffer: 0,
            receive_buffer: 0,
        }
        .with_mtu(MTU)
        .with_windows(SEND_WINDOW, MIN_RECEIVE_WINDOW)
    }

    /// Sets ikcp's four knobs (`ikcp_nodelay`), and with the first of them the shortest RTO.
    #[must_use]
    pub const fn with_knobs(self, nodelay: Nodelay, interval: Duration, resend: u32, nc: bool) -> Self {
        let congestion = if nc { CongestionKind::None } else { CongestionKind::Loss };
        let min_rto = nodelay.min_rto();
        Self { congestion, nodelay, interval, fast_resend: resend, min_rto, ..self }
    }

    /// Sets the windows, in segments (`ikcp_wndsize`), and sizes the buffers for them.
    ///
    /// The send window is never below one segment, which nothing could leave through, and as in ikcp the receive window
    /// never below 128, so that a peer may count on it for its longest message.
    #[must_use]
    pub const fn with_windows(self, send: u16, receive: u16) -> Self {
        let send = if send == 0 { 1 } else { send };
        let receive = if receive < MIN_RECEIVE_WINDOW { MIN_RECEIVE_WINDOW } else { receive };
        Self { send_window: send, receive_window: receive, ..self }.with_fitting_buffers()
    }

    /// Sets the bytes of a full packet without the headers around it (`ikcp_setmtu`), at least 50, and sizes the buffers
    /// for it.
    #[must_use]
    pub const fn with_mtu(self, mtu: usize) -> Self {
        let mtu = if mtu < MIN_MTU { MIN_MTU } else { mtu };
        Self { mss: mtu - HEADER_LEN, ..self }.with_fitting_buffers()
    }

    /// Payload of full windows; at the receiver also if the peer's segments are larger than ours.
    const fn with_fitting_buffers(self) -> Self {
        let largest = if self.mss > MTU { self.mss } else { MTU };
        Self {
            send_buffer: self.send_window as usize * self.mss,
            receive_buffer: self.receive_window as usize * largest,
            ..self
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::ikcp()
    }
}

/// How RTO grows with each timeout in a row (ikcp's `nodelay`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Nodelay {
    /// 0: it doubles, and is never below 100 ms.
    #[default]
    Off,
    /// 1: it grows by half, and is never below 30 ms.
    On,
    /// 2: it grows by half of the RTO measured, and is never below 30 ms.
    Linear,
}

impl Nodelay {
    /// The shortest RTO in this mode (`IKCP_RTO_MIN`, `IKCP_RTO_NDL`).
    pub const fn min_rto(self) -> Duration {
        match self {
            Self::Off => Duration::from_millis(100),
            Self::On | Self::Linear => Duration::from_millis(30),
        }
    }
}

/// The presets that have names, with the values kcptun gives these names (`nodelay, interval, resend, nc`).
///
/// Other programs use the same names for other values: in ikcp's README "normal" is 0, 40, 0, 0 and its fastest mode 1,
/// 10, 2, 1, which is [`Self::Fast3`] here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// 0, 40, 2, 1.
    Normal,
    /// 0, 30, 2, 1.
    #[default]
    Fast,
    /// 1, 20, 2, 1.
    Fast2,
    /// 1, 10, 2, 1.
    Fast3,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Normal, Self::Fast, Self::Fast2, Self::Fast3];

    /// Its name, as [`Self::from_str`] takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Fast => "fast",
            Self::Fast2 => "fast2",
            Self::Fast3 => "fast3",
        }
    }

    /// [`Config::ikcp`] with this preset's knobs.
    pub const fn config(self) -> Config {
        let (nodelay, interval) = match self {
            Self::Normal => (Nodelay::Off, 40),
            Self::Fast => (Nodelay::Off, 30),
            Self::Fast2 => (Nodelay::On, 20),
            Self::Fast3 => (Nodelay::On, 10),
        };
        Config::ikcp().with_knobs(nodelay, Duration::from_millis(interval), 2, true)
    }
}

impl FromStr for Mode {
    type Err = UnknownMode;

    fn from_str(name: &str) -> Result<Self, UnknownMode> {
        Self::ALL.into_iter().find(|mode| mode.name() == name).ok_or(UnknownMode)
    }
}

/// No preset has such a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the modes are normal, fast, fast2 and fast3")]
pub struct UnknownMode;

/// `IKCP_INTERVAL`.
const INTERVAL: Duration = Duration::from_millis(100);
/// `IKCP_FASTACK_LIMIT`.
pub(crate) const FAST_LIMIT: u32 = 5;
/// `IKCP_DEADLINK`.
const DEAD_LINK: u32 = 20;
/// `IKCP_MTU_DEF`.
const MTU: usize = 1400;
/// The least that `ikcp_setmtu` takes.
const MIN_MTU: usize = 50;
/// `IKCP_WND_SND`.
const SEND_WINDOW: u16 = 32;
/// `IKCP_WND_RCV`: also what `ikcp_wndsize` raises a smaller receive window to.
pub(crate) const MIN_RECEIVE_WINDOW: u16 = 128;
/// IPv4 and UDP headers.
const UDP_OVERHEAD: usize = 28;

#[cfg(test)]
mod tests {
    use super::*;

    fn knobs(mode: Mode) -> (Nodelay, u128, u32, CongestionKind, u128) {
        let config = mode.config();
        let millis = (config.interval.as_millis(), config.min_rto.as_millis());
        (config.nodelay, millis.0, config.fast_resend, config.congestion, millis.1)
    }

    #[test]
    fn presets_have_the_values_of_kcptun() {
        let nc = CongestionKind::None;
        assert_eq!(knobs(Mode::Normal), (Nodelay::Off, 40, 2, nc, 100));
        assert_eq!(knobs(Mode::Fast), (Nodelay::Off, 30, 2, nc, 100));
        assert_eq!(knobs(Mode::Fast2), (Nodelay::On, 20, 2, nc, 30));
        assert_eq!(knobs(Mode::Fast3), (Nodelay::On, 10, 2, nc, 30));
    }

    #[test]
    fn finds_a_preset_by_its_name() {
        for mode in Mode::ALL {
            assert_eq!(mode.name().parse(), Ok(mode));
        }
        assert_eq!("turbo".parse::<Mode>(), Err(UnknownMode));
    }

    #[test]
    fn starts_as_ikcp_does() {
        let config = Config::default();
        assert_eq!((config.mss, config.send_window, config.receive_window), (1376, 32, 128));
        assert_eq!((config.nodelay, config.interval.as_millis()), (Nodelay::Off, 100));
        assert_eq!((config.fast_resend, config.fast_limit, config.dead_link), (0, 5, 20));
        assert_eq!((config.congestion, config.min_rto.as_millis()), (CongestionKind::Loss, 100));
    }

    #[test]
    fn nc_chooses_between_congestion_control_and_none() {
        let with = |nc| Config::ikcp().with_knobs(Nodelay::Linear, Duration::ZERO, 1, nc);
        assert_eq!(with(false).congestion, CongestionKind::Loss);
        assert_eq!(with(true).congestion, CongestionKind::None);
        assert_eq!((with(true).nodelay, with(true).min_rto.as_millis()), (Nodelay::Linear, 30));
    }

    #[test]
    fn holds_full_windows_of_full_segments_and_takes_no_less_than_ikcp() {
        let config = Config::ikcp().with_mtu(9000).with_windows(7, 300);
        assert_eq!((config.mss, config.send_buffer, config.receive_buffer), (8976, 7 * 8976, 300 * 8976));
        let least = Config::ikcp().with_mtu(3).with_windows(0, 0);
        assert_eq!((least.mss, least.send_window, least.receive_window), (26, 1, 128));
        assert_eq!(least.receive_buffer, 128 * 1400);
    }
}
