//! What of a flow's headers means nothing and must still look right: drawn once at random, and then as a real stack goes on.
//!
//! | field | Windows | Linux |
//! |---|---|---|
//! | IPv4 ID (with DF) | counts packets from somewhere | 0 in the SYN-ACK, then counts the connection's packets from somewhere |
//! | IPv6 flow label | one value per connection | one value per connection (RFC 6437, section 3) |
//!
//! Receivers merge segments whose IDs count.

/// The flow label and the next IP ID of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scenery {
    flow_label: u32,
    next_id: u16,
}

impl Scenery {
    /// `random` must be unforeseeable outside.
    #[expect(clippy::cast_possible_truncation, reason = "a field takes as many random bits as it has")]
    pub(super) const fn new(random: u64) -> Self {
        Self { flow_label: (random >> 44) as u32, next_id: random as u16 }
    }

    /// 20 bits, constant.
    pub(super) const fn flow_label(&self) -> u32 {
        self.flow_label
    }

    /// The ID of the packet that leaves next.
    pub(super) const fn next_id(&self) -> u16 {
        self.next_id
    }

    /// It has left.
    pub(super) const fn on_sent(&mut self) {
        self.next_id = self.next_id.wrapping_add(1);
    }
}

/// The ID of a packet that belongs to no connection yet: Linux' SYN-ACK.
pub(super) const NO_ID: u16 = 0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_packets_and_keeps_one_label() {
        let mut scenery = Scenery::new(0xabcd_e012_3456_ffff);
        for id in [0xffff, 0, 1] {
            assert_eq!(scenery.next_id(), id);
            scenery.on_sent();
        }
        assert_eq!(scenery.flow_label(), 0xabcde);
    }
}
