//! A policer for each connection.

use crate::ip::Flow;
use crate::middlebox::bucket::Bucket;
use crate::middlebox::packet::Packet;
use crate::middlebox::{MAX_FLOWS, Station};
use crate::stats::Cause;
use crate::table::Table;

/// [`Middlebox::Police`](crate::Middlebox::Police).
#[derive(Debug)]
pub(crate) struct Police {
    rate: u64,
    burst: u64,
    buckets: Table<Flow, [Bucket; 2]>,
}

impl Police {
    pub(crate) fn new(rate: u64, burst: u64) -> Self {
        Self { rate, burst, buckets: Table::new(MAX_FLOWS) }
    }
}

impl Station for Police {
    fn handle(&mut self, packet: &mut Packet<'_>) -> Result<(), Cause> {
        let Some(flow) = packet.flow() else {
            return Ok(());
        };
        let buckets = self.buckets.entry(flow, || Bucket::PAIR);
        let bucket = &mut buckets[packet.direction.index()];
        if bucket.take(packet.size(), self.rate, self.burst, packet.now) {
            Ok(())
        } else {
            Err(Cause::Policed)
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::tcp::ACK;
    use crate::testing::{FULL, MILLISECOND, Rig, SERVER, Tcp, udp};
    use crate::{Direction, Line, Middlebox, Profile};

    #[test]
    fn gives_each_connection_its_rate_and_its_burst() {
        let police = Middlebox::Police { rate: 2_400_000, burst: 30_000 };
        let mut rig = Rig::new(Line::new(Profile::CLEAR).with(police));
        // Each of two connections is offered 6 Mbit/s for 10 s.
        let packet = |n: u32| {
            let client = format!("10.0.0.2:{}", n % 2 + 1);
            if n.is_multiple_of(2) {
                udp(&client, SERVER, FULL)
            } else {
                Tcp::between(&client, SERVER, Direction::Out, ACK).payload(FULL - 40).packet()
            }
        };
        let arrivals = rig.run(Direction::Out, 10_000, MILLISECOND, packet);
        let of = |udp| arrivals.iter().filter(|(_, packet)| (packet[9] == 17) == udp).count();
        // 200 packets a second, and the burst of 20.
        assert!((2015..=2021).contains(&of(true)), "{}", of(true));
        assert!((2015..=2021).contains(&of(false)), "{}", of(false));
        let stats = rig.stats(Direction::Out);
        assert_eq!(stats.policed, 10_000 - stats.forwarded);
    }

    #[test]
    fn lets_a_burst_through_at_once_and_no_more() {
        let police = Middlebox::Police { rate: 1_200_000, burst: 30_000 };
        let mut rig = Rig::new(Line::new(Profile::CLEAR).with(police));
        let passed = |rig: &mut Rig| {
            (0..50).filter(|_| rig.passes(Direction::In, &udp(SERVER, "10.0.0.2:1", FULL))).count()
        };
        assert_eq!(passed(&mut rig), 20);
        rig.wait(MILLISECOND * 100);
        assert_eq!(passed(&mut rig), 10);
        rig.wait(MILLISECOND * 10_000);
        assert_eq!(passed(&mut rig), 20, "the bucket does not overflow");
        assert!(rig.passes(Direction::Out, &udp("10.0.0.2:1", SERVER, FULL)), "the other way has its own");
    }
}
