//! Boxes against UDP.

use crate::ip::UDP;
use crate::middlebox::Station;
use crate::middlebox::bucket::Bucket;
use crate::middlebox::packet::Packet;
use crate::stats::Cause;

/// [`Middlebox::DropUdp`](crate::Middlebox::DropUdp).
#[derive(Debug)]
pub(crate) struct DropUdp;

impl Station for DropUdp {
    fn handle(&mut self, packet: &mut Packet<'_>) -> Result<(), Cause> {
        if packet.header.protocol == UDP { Err(Cause::Udp) } else { Ok(()) }
    }
}

/// [`Middlebox::LimitUdp`](crate::Middlebox::LimitUdp).
#[derive(Debug)]
pub(crate) struct LimitUdp {
    pub(crate) rate: u64,
    pub(crate) burst: u64,
    pub(crate) buckets: [Bucket; 2],
}

impl Station for LimitUdp {
    fn handle(&mut self, packet: &mut Packet<'_>) -> Result<(), Cause> {
        let bucket = &mut self.buckets[packet.direction.index()];
        let passes =
            packet.header.protocol != UDP || bucket.take(packet.size(), self.rate, self.burst, packet.now);
        if passes { Ok(()) } else { Err(Cause::UdpLimited) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::ACK;
    use crate::testing::{CLIENT, ENDS, FULL, MILLISECOND, Rig, SERVER, Tcp, icmp, numbered, udp};
    use crate::{Direction, Line, Middlebox, Profile};

    #[test]
    fn drops_udp_and_nothing_else() {
        let mut rig = Rig::new(Line::new(Profile::CLEAR).with(Middlebox::DropUdp));
        for (client, server) in ENDS {
            assert!(!rig.passes(Direction::Out, &udp(client, server, 60)));
            assert!(!rig.passes(Direction::In, &udp(server, client, 60)));
            assert!(rig.passes(Direction::Out, &Tcp::between(client, server, Direction::Out, ACK).packet()));
        }
        let ping = icmp("10.0.0.2".parse().unwrap(), "192.0.2.10".parse().unwrap(), 8, &[]);
        assert!(rig.passes(Direction::Out, &ping));
        assert!(rig.passes(Direction::Out, b"no packet at all"));
        assert_eq!(Direction::BOTH.map(|direction| rig.stats(direction).udp), [2, 2]);
    }

    #[test]
    fn drops_later_fragments_of_udp_too() {
        let mut rig = Rig::new(Line::new(Profile::CLEAR).with(Middlebox::DropUdp));
        let mut fragment = udp(CLIENT, SERVER, 60);
        fragment[7] = 100;
        assert!(!rig.passes(Direction::Out, &fragment));
        let mut fragment = udp(ENDS[1].0, ENDS[1].1, 60);
        fragment.splice(40..40, [UDP, 0, 0, 0x88, 0, 0, 0, 1]);
        fragment[6] = 44;
        assert!(!rig.passes(Direction::Out, &fragment));
    }

    #[test]
    fn limits_udp_to_its_rate_for_all_flows_together_and_each_way_alone() {
        let limit = Middlebox::LimitUdp { rate: 1_200_000, burst: 15_000 };
        let mut rig = Rig::new(Line::new(Profile::CLEAR).with(limit));
        // Offered ten times as much for 10 s: 100 packets a second pass, and the burst.
        let flows = ["10.0.0.2:1", "10.0.0.2:2", "10.0.0.2:3"];
        let arrivals =
            rig.run(Direction::Out, 10_000, MILLISECOND, |n| udp(flows[n as usize % 3], SERVER, FULL));
        assert!((1008..=1011).contains(&arrivals.len()), "{}", arrivals.len());
        assert_eq!(rig.stats(Direction::Out).udp_limited, 10_000 - arrivals.len() as u64);
        assert_eq!(rig.run(Direction::In, 10, MILLISECOND, |n| numbered(n, FULL)).len(), 10);
        assert!(rig.passes(Direction::Out, &Tcp::new(Direction::Out, ACK).payload(1000).packet()));
    }
}
