//! What happened to the frames of one direction, by cause.

/// What happened to the frames of one direction, by cause. At any moment
/// `received + duplicated + forged = forwarded + dropped() + in flight`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Frames that entered the line.
    pub received: u64,
    /// Bytes of IP packets that entered.
    pub received_bytes: u64,
    /// Copies that the line made.
    pub duplicated: u64,
    /// Packets that a box made up: resets, ends, ICMP messages.
    pub forged: u64,
    /// Frames that came out, copies and forged ones among them.
    pub forwarded: u64,
    /// Bytes of IP packets that came out.
    pub forwarded_bytes: u64,

    /// Dropped by a blackout.
    pub blackout: u64,
    /// Dropped because the queue was full.
    pub queue_full: u64,
    /// Lost, at random or in a burst.
    pub lost: u64,
    /// Dropped because they were UDP, by [`Middlebox::DropUdp`](crate::Middlebox::DropUdp).
    pub udp: u64,
    /// Dropped by [`Middlebox::LimitUdp`](crate::Middlebox::LimitUdp).
    pub udp_limited: u64,
    /// Dropped because their flow was killed, by command or by [`Middlebox::KillFlow`](crate::Middlebox::KillFlow).
    pub killed: u64,
    /// Dropped by [`Middlebox::Police`](crate::Middlebox::Police).
    pub policed: u64,
    /// Dropped by [`Middlebox::RequireHandshake`](crate::Middlebox::RequireHandshake).
    pub no_handshake: u64,
    /// Dropped by [`Middlebox::RequireWindow`](crate::Middlebox::RequireWindow).
    pub out_of_window: u64,
    /// Dropped because they were too big, by [`Middlebox::Mtu`](crate::Middlebox::Mtu).
    pub too_big: u64,
    /// Dropped by [`Middlebox::Nat`](crate::Middlebox::Nat) because no mapping leads to a client, or no longer.
    pub unmapped: u64,
    /// Dropped because more frames than [`MAX_IN_FLIGHT`](crate::MAX_IN_FLIGHT) were under way: the emulator's own limit, not the
    /// line's.
    pub overflow: u64,

    /// Frames with bits flipped, whatever became of them.
    pub corrupted: u64,
    /// Frames held back to be overtaken, whatever became of them.
    pub reordered: u64,
    /// Packets whose address or port [`Middlebox::Nat`](crate::Middlebox::Nat) changed, whatever became of them.
    pub translated: u64,
}

impl Stats {
    /// Everything that entered or was made here and will not come out.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.blackout
            + self.queue_full
            + self.lost
            + self.udp
            + self.udp_limited
            + self.killed
            + self.policed
            + self.no_handshake
            + self.out_of_window
            + self.too_big
            + self.unmapped
            + self.overflow
    }
}

/// Why a frame was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    Blackout,
    QueueFull,
    Lost,
    Udp,
    UdpLimited,
    Killed,
    Policed,
    NoHandshake,
    OutOfWindow,
    TooBig,
    Unmapped,
    Overflow,
}

impl Stats {
    pub(crate) const fn count(&mut self, cause: Cause) {
        let counter = match cause {
            Cause::Blackout => &mut self.blackout,
            Cause::QueueFull => &mut self.queue_full,
            Cause::Lost => &mut self.lost,
            Cause::Udp => &mut self.udp,
            Cause::UdpLimited => &mut self.udp_limited,
            Cause::Killed => &mut self.killed,
            Cause::Policed => &mut self.policed,
            Cause::NoHandshake => &mut self.no_handshake,
            Cause::OutOfWindow => &mut self.out_of_window,
            Cause::TooBig => &mut self.too_big,
            Cause::Unmapped => &mut self.unmapped,
            Cause::Overflow => &mut self.overflow,
        };
        *counter += 1;
    }
}
