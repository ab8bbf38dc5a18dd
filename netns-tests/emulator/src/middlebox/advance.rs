//! A box that kills each TCP flow whose sequence numbers have grown.

use crate::ip::Flow;
use crate::middlebox::packet::Packet;
use crate::middlebox::{MAX_FLOWS, Station};
use crate::stats::Cause;
use crate::table::Table;

/// [`Middlebox::KillAdvancing`](crate::Middlebox::KillAdvancing).
#[derive(Debug)]
pub(crate) struct KillAdvancing {
    after: u32,
    flows: Table<Flow, Numbers>,
}

/// What a flow's numbers have done.
#[derive(Debug)]
struct Numbers {
    /// Of the first segment each way.
    first: [Option<u32>; 2],
    is_over: bool,
}

impl KillAdvancing {
    pub(crate) fn new(after: u32) -> Self {
        Self { after, flows: Table::new(MAX_FLOWS) }
    }
}

impl Station for KillAdvancing {
    fn handle(&mut self, packet: &mut Packet<'_>) -> Result<(), Cause> {
        let (Some(flow), Some(segment)) = (packet.flow(), packet.tcp()) else {
            return Ok(());
        };
        let numbers = self.flows.entry(flow, || Numbers { first: [None; 2], is_over: false });
        // A new connection on the old ports begins anew, unless the old one was killed.
        if segment.is_syn() || segment.is_syn_ack() {
            numbers.first[packet.direction.index()] = Some(segment.seq);
        }
        let first = *numbers.first[packet.direction.index()].get_or_insert(segment.seq);
        let grown = segment.seq.wrapping_sub(first);
        // What is behind the first is an older segment, and has not grown.
        numbers.is_over |= grown > self.after && grown < 1 << 31;
        if numbers.is_over { Err(Cause::Killed) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use crate::tcp::{ACK, SYN};
    use crate::testing::{Rig, SERVER, Tcp};
    use crate::{Direction, Line, Middlebox, Profile};

    fn packet(port: u16, seq: u32) -> Vec<u8> {
        let client = format!("10.0.0.2:{port}");
        Tcp::between(&client, SERVER, Direction::Out, ACK).at(seq, 1).payload(1000).packet()
    }

    #[test]
    fn kills_a_flow_whose_numbers_grow_and_leaves_one_whose_stand_still() {
        let mut rig = Rig::new(Line::new(Profile::CLEAR).with(Middlebox::KillAdvancing { after: 10_000 }));
        let start = u32::MAX - 5_000;
        for n in 0..=10 {
            assert!(rig.passes(Direction::Out, &packet(1, start.wrapping_add(1000 * n))), "{n}");
            assert!(rig.passes(Direction::Out, &packet(2, start)));
        }
        assert!(!rig.passes(Direction::Out, &packet(1, start.wrapping_add(11_000))));
        assert!(!rig.passes(Direction::Out, &packet(1, start)), "for good");
        let back = Tcp::between("10.0.0.2:1", SERVER, Direction::In, ACK).at(7, 1).packet();
        assert!(!rig.passes(Direction::In, &back), "both ways");
        let syn = Tcp::between("10.0.0.2:2", SERVER, Direction::Out, SYN).at(77, 0).packet();
        assert!(rig.passes(Direction::Out, &syn) && rig.passes(Direction::Out, &packet(2, 78)));
    }
}
