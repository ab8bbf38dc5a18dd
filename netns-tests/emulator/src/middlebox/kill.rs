//! A box that kills each TCP flow after a while.

use std::time::{Duration, Instant};

use crate::ip::{Flow, TCP};
use crate::middlebox::packet::Packet;
use crate::middlebox::{MAX_FLOWS, Station};
use crate::stats::Cause;
use crate::table::Table;

/// [`Middlebox::KillFlow`](crate::Middlebox::KillFlow).
#[derive(Debug)]
pub(crate) struct KillFlow {
    after_bytes: Option<u64>,
    after_time: Option<Duration>,
    lives: Table<Flow, Life>,
}

/// What a flow has had of its life.
#[derive(Debug)]
struct Life {
    bytes: u64,
    born: Instant,
    is_over: bool,
}

impl KillFlow {
    pub(crate) fn new(after_bytes: Option<u64>, after_time: Option<Duration>) -> Self {
        Self { after_bytes, after_time, lives: Table::new(MAX_FLOWS) }
    }
}

impl Station for KillFlow {
    fn handle(&mut self, packet: &mut Packet<'_>) -> Result<(), Cause> {
        let Some(flow) = packet.flow().filter(|flow| flow.protocol == TCP) else {
            return Ok(());
        };
        let now = packet.now;
        let life = self.lives.entry(flow, || Life { bytes: 0, born: now, is_over: false });
        life.is_over |= self.after_bytes.is_some_and(|bytes| life.bytes >= bytes)
            || self.after_time.is_some_and(|time| now.saturating_duration_since(life.born) >= time);
        life.bytes += packet.size() as u64;
        if life.is_over { Err(Cause::Killed) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::{ACK, SYN};
    use crate::testing::{MILLISECOND, Rig, SERVER, Tcp, udp};
    use crate::{Direction, Line, Middlebox, Profile};

    fn rig(after_bytes: Option<u64>, after_time: Option<Duration>) -> Rig {
        Rig::new(Line::new(Profile::CLEAR).with(Middlebox::KillFlow { after_bytes, after_time }))
    }

    /// A full packet of the flow from a port of the client.
    fn packet(direction: Direction, port: u16) -> Vec<u8> {
        Tcp::between(&format!("10.0.0.2:{port}"), SERVER, direction, ACK).payload(1460).packet()
    }

    #[test]
    fn kills_each_flow_after_its_bytes_both_ways_and_for_good() {
        let mut rig = rig(Some(15_000), None);
        for port in [1, 2] {
            for n in 0..10 {
                let direction = Direction::BOTH[n % 2];
                assert!(rig.passes(direction, &packet(direction, port)), "{port}: {n}");
            }
            rig.wait(Duration::from_secs(3600));
            let syn = Tcp::between(&format!("10.0.0.2:{port}"), SERVER, Direction::Out, SYN).at(77, 0);
            for direction in Direction::BOTH {
                assert!(!rig.passes(direction, &packet(direction, port)));
            }
            assert!(!rig.passes(Direction::Out, &syn.packet()), "for good");
        }
        assert_eq!(Direction::BOTH.map(|direction| rig.stats(direction).killed), [4, 2]);
    }

    #[test]
    fn kills_each_flow_after_its_time() {
        let mut rig = rig(None, Some(MILLISECOND * 100));
        assert!(rig.passes(Direction::Out, &packet(Direction::Out, 1)));
        rig.wait(MILLISECOND * 50);
        assert!(rig.passes(Direction::Out, &packet(Direction::Out, 2)));
        rig.wait(MILLISECOND * 49);
        assert!(rig.passes(Direction::In, &packet(Direction::In, 1)));
        rig.wait(MILLISECOND);
        assert!(!rig.passes(Direction::In, &packet(Direction::In, 1)));
        assert!(rig.passes(Direction::In, &packet(Direction::In, 2)));
        rig.wait(MILLISECOND * 50);
        assert!(!rig.passes(Direction::In, &packet(Direction::In, 2)));
    }

    #[test]
    fn does_not_touch_udp() {
        let mut rig = rig(Some(1), Some(Duration::ZERO));
        assert!(rig.passes(Direction::Out, &udp("10.0.0.2:1", SERVER, 100)));
        assert!(!rig.passes(Direction::Out, &packet(Direction::Out, 1)));
    }
}
