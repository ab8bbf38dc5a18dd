//! A firewall that wants to see every TCP connection from its beginning.
//!
//! ```text
//!   nothing ──SYN──> opening ──SYN-ACK from the other end──> answered ──ACK from the first──> open
//!      ^                │                                       │
//!      └──────RST───────┴──────────────────RST──────────────────┘
//! ```
//!
//! The other end may send from *answered* on, as conntrack has it. An open flow stays open: its end is no concern of this box.

use std::net::SocketAddr;

use crate::ip::{Flow, TCP};
use crate::middlebox::packet::Packet;
use crate::middlebox::{MAX_FLOWS, Station};
use crate::stats::Cause;
use crate::table::Table;
use crate::tcp::{ACK, RST, TcpHeader};

/// [`Middlebox::RequireHandshake`](crate::Middlebox::RequireHandshake).
#[derive(Debug)]
pub(crate) struct RequireHandshake {
    flows: Table<Flow, Progress>,
}

/// How far a handshake has come; the address is that of the end that began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Opening(SocketAddr),
    Answered(SocketAddr),
    Open,
}

impl RequireHandshake {
    pub(crate) fn new() -> Self {
        Self { flows: Table::new(MAX_FLOWS) }
    }
}

impl Station for RequireHandshake {
    fn handle(&mut self, packet: &mut Packet<'_>) -> Result<(), Cause> {
        if packet.header.protocol != TCP || packet.header.is_later_fragment {
            return Ok(());
        }
        let (Some(flow), Some((source, _)), Some(segment)) = (packet.flow(), packet.ends, packet.tcp())
        else {
            return Err(Cause::NoHandshake);
        };
        let before = self.flows.get(&flow).copied();
        match next(before, source, &segment) {
            Some(progress) => {
                if before != Some(progress) {
                    self.flows.insert(flow, progress);
                }
            }
            None if before.is_some() && segment.has(RST) => {
                self.flows.remove(&flow);
            }
            None => return Err(Cause::NoHandshake),
        }
        Ok(())
    }
}

/// Where a segment from `source` brings its flow; `None` if there is nothing to keep of it.
fn next(before: Option<Progress>, source: SocketAddr, segment: &TcpHeader) -> Option<Progress> {
    match before {
        None => segment.is_syn().then_some(Progress::Opening(source)),
        Some(Progress::Open) => Some(Progress::Open),
        Some(_) if segment.has(RST) => None,
        Some(progress) if segment.is_syn() => Some(progress),
        Some(Progress::Opening(first)) => {
            (segment.is_syn_ack() && source != first).then_some(Progress::Answered(first))
        }
        Some(Progress::Answered(first)) => match (source == first, segment.is_syn_ack()) {
            (true, false) if segment.has(ACK) => Some(Progress::Open),
            (false, _) if segment.has(ACK) => before,
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::{FIN, SYN};
    use crate::testing::{Rig, SERVER, Tcp, handshake, udp};
    use crate::{Direction, Line, Middlebox, Profile};

    fn rig() -> Rig {
        Rig::new(Line::new(Profile::CLEAR).with(Middlebox::RequireHandshake))
    }

    fn segment(direction: Direction, flags: u8) -> Vec<u8> {
        Tcp::new(direction, flags).packet()
    }

    fn data(direction: Direction) -> Vec<u8> {
        Tcp::new(direction, ACK).payload(100).packet()
    }

    #[test]
    fn lets_a_connection_through_that_began_with_a_handshake() {
        let mut rig = rig();
        for (direction, packet) in handshake(None) {
            assert!(rig.passes(direction, &packet));
        }
        for direction in Direction::BOTH {
            assert!(rig.passes(direction, &data(direction)));
            assert!(rig.passes(direction, &segment(direction, FIN | ACK)));
        }
        assert!(rig.passes(Direction::Out, &handshake(None)[0].1), "it may begin anew");
    }

    #[test]
    fn stops_every_segment_of_a_connection_it_did_not_see_begin() {
        let mut rig = rig();
        for flags in [ACK, SYN | ACK, FIN | ACK, RST, RST | ACK, 0, 0xff] {
            for direction in Direction::BOTH {
                assert!(!rig.passes(direction, &segment(direction, flags)), "{flags:#x}");
            }
        }
        assert_eq!(rig.stats(Direction::Out).no_handshake, 7);
        assert_eq!(rig.stats(Direction::In).no_handshake, 7);
        assert!(rig.passes(Direction::Out, &udp("10.0.0.2:1", "192.0.2.10:2", 60)));
    }

    #[test]
    fn each_step_wants_the_one_before_it() {
        let mut rig = rig();
        let [(_, syn), (_, syn_ack), (_, ack)] = handshake(None);
        assert!(rig.passes(Direction::Out, &syn));
        assert!(rig.passes(Direction::Out, &syn), "again");
        assert!(!rig.passes(Direction::Out, &data(Direction::Out)));
        assert!(!rig.passes(Direction::In, &data(Direction::In)));
        assert!(!rig.passes(Direction::Out, &segment(Direction::Out, SYN | ACK)), "from the wrong end");
        assert!(rig.passes(Direction::In, &syn_ack));
        assert!(rig.passes(Direction::In, &syn_ack), "again");
        assert!(rig.passes(Direction::In, &data(Direction::In)), "the answering end may begin");
        assert!(rig.passes(Direction::Out, &ack));
        assert!(rig.passes(Direction::Out, &data(Direction::Out)));
    }

    #[test]
    fn a_refused_connection_is_forgotten() {
        let mut rig = rig();
        assert!(rig.passes(Direction::Out, &handshake(None)[0].1));
        assert!(rig.passes(Direction::In, &segment(Direction::In, RST | ACK)));
        assert!(!rig.passes(Direction::In, &handshake(None)[1].1));
    }

    #[test]
    fn an_open_connection_outlives_any_number_of_short_ones() {
        let mut rig = rig();
        for (direction, packet) in handshake(None) {
            assert!(rig.passes(direction, &packet));
        }
        for n in 0..MAX_FLOWS {
            let client = format!("10.1.{}.{}:5000", n / 256, n % 256);
            assert!(rig.passes(Direction::Out, &Tcp::between(&client, SERVER, Direction::Out, SYN).packet()));
            if n % 1000 == 0 {
                assert!(rig.passes(Direction::In, &data(Direction::In)), "{n}");
            }
        }
        assert!(rig.passes(Direction::Out, &data(Direction::Out)));
    }

    #[test]
    fn a_reset_does_not_end_what_is_open() {
        let mut rig = rig();
        for (direction, packet) in handshake(None) {
            assert!(rig.passes(direction, &packet));
        }
        assert!(rig.passes(Direction::In, &segment(Direction::In, RST)));
        assert!(rig.passes(Direction::Out, &data(Direction::Out)));
    }
}
