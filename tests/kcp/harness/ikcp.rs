//! An end with a foreign KCP, the crate `kcp`: a port of `ikcp.c` that shares no code with ours.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use vpn::kcp::Mode;

use super::app::App;
use super::{MSS, ms};

/// The knobs of `ikcp_nodelay`, `ikcp_wndsize`, and which of its two modes it sends in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Knobs {
    pub(crate) nodelay: bool,
    pub(crate) interval: i32,
    pub(crate) resend: i32,
    pub(crate) nc: bool,
    /// The shortest RTO in milliseconds; `None` = what `nodelay` makes it.
    pub(crate) min_rto: Option<u32>,
    pub(crate) windows: u16,
    pub(crate) stream: bool,
    /// What its clock shows at the start, in milliseconds.
    pub(crate) clock: u32,
}

impl Knobs {
    /// What ikcp's own test calls "fast", with the settings recommended beside it.
    pub(crate) const FAST: Self = Self {
        nodelay: true,
        interval: 10,
        resend: 1,
        nc: true,
        min_rto: Some(10),
        windows: 128,
        stream: false,
        clock: 0,
    };

    /// One of the presets by the name that ours gives it.
    pub(crate) fn preset(mode: Mode) -> Self {
        let (nodelay, interval) = match mode {
            Mode::Normal => (false, 40),
            Mode::Fast => (false, 30),
            Mode::Fast2 => (true, 20),
            Mode::Fast3 => (true, 10),
        };
        Self { nodelay, interval, resend: 2, nc: true, min_rto: None, ..Self::FAST }
    }
}

/// The crate's KCP and the clock that ticks it.
pub(crate) struct Ikcp {
    kcp: kcp::Kcp<Output>,
    output: Output,
    started: Instant,
    clock: u32,
    /// When it wants to be updated.
    due: Instant,
    /// Segments that may wait in it.
    backlog: usize,
    buffer: Vec<u8>,
}

impl Ikcp {
    /// Sets the crate up and starts it.
    pub(crate) fn new(conv: u32, knobs: Knobs, now: Instant) -> Self {
        let output = Output::default();
        let mut kcp = if knobs.stream {
            kcp::Kcp::new_stream(conv, output.clone())
        } else {
            kcp::Kcp::new(conv, output.clone())
        };
        kcp.set_nodelay(knobs.nodelay, knobs.interval, knobs.resend, knobs.nc);
        if let Some(min_rto) = knobs.min_rto {
            kcp.set_rx_minrto(min_rto);
        }
        kcp.set_wndsize(knobs.windows, knobs.windows);
        kcp.set_mtu(MSS + kcp::KCP_OVERHEAD).expect("an MTU it takes");
        let backlog = 2 * usize::from(knobs.windows);
        Self { kcp, output, started: now, clock: knobs.clock, due: now, backlog, buffer: Vec::new() }
    }

    pub(crate) fn handle_packet(&mut self, packet: &[u8]) {
        let taken = self.kcp.input(packet).expect("a packet that the other implementation understands");
        assert_eq!(taken, packet.len());
    }

    pub(crate) fn poll_message(&mut self) -> Option<Vec<u8>> {
        let len = self.kcp.peeksize().ok()?;
        let mut message = vec![0; len];
        let read = self.kcp.recv(&mut message).expect("a message of the size it said");
        assert_eq!(read, len);
        Some(message)
    }

    /// Takes what the application has to send, and does what is due.
    pub(crate) fn drive(&mut self, app: &mut App, now: Instant) {
        while self.kcp.wait_snd() < self.backlog {
            self.buffer.resize(app.longest(), 0);
            let len = app.write(&mut self.buffer);
            if len == 0 {
                break;
            }
            let sent = self.kcp.send(&self.buffer[..len]).expect("a message it takes");
            assert_eq!(sent, len);
        }
        if self.due <= now {
            let clock = self.clock(now);
            self.kcp.update(clock).expect("nothing fails to be sent");
            // It says 0 for a segment that is due before the next flush, and would go on saying so.
            self.due = now + ms(u64::from(self.kcp.check(clock)).max(1));
        }
    }

    /// The next packet, of those that the last update made.
    pub(crate) fn poll_transmit(&mut self, packet: &mut Vec<u8>) -> bool {
        let Some(made) = self.output.0.borrow_mut().pop_front() else { return false };
        packet.extend_from_slice(&made);
        true
    }

    pub(crate) fn poll_timeout(&self) -> Instant {
        self.due
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.kcp.wait_snd() == 0
    }

    /// Whether it has given up.
    pub(crate) fn is_dead(&self) -> bool {
        self.kcp.is_dead_link()
    }

    fn clock(&self, now: Instant) -> u32 {
        let elapsed =
            now.saturating_duration_since(self.started) + Duration::from_millis(u64::from(self.clock));
        u32::try_from(elapsed.as_millis() & u128::from(u32::MAX)).unwrap_or(0)
    }
}

/// Keeps each packet that the crate writes.
#[derive(Clone, Default)]
struct Output(Rc<RefCell<VecDeque<Vec<u8>>>>);

impl io::Write for Output {
    fn write(&mut self, packet: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().push_back(packet.to_vec());
        Ok(packet.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
