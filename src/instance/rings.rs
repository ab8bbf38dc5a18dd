//! The flows' rings in lots of anonymous memory.

use std::ops::Range;

use crate::flow::Memory;
use crate::io::Lots;

/// Where the rings of this process come from.
#[derive(Debug, Default)]
pub(crate) struct Rings {
    /// Made with the first flow, which says how large they are.
    lots: Option<Lots>,
}

impl Memory for Rings {
    fn lend(&mut self, size: usize) -> Option<&'static mut [u8]> {
        let lent = self.lots.get_or_insert_with(|| Lots::new(size)).lend();
        lent.inspect_err(|error| tracing::debug!(%error, "no memory for another flow")).ok()
    }

    fn discard(&mut self, lot: usize, range: Range<usize>) {
        if let Some(lots) = &self.lots {
            lots.discard(lot, range);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pnet::packet::tcp::TcpFlags;

    use super::*;
    use crate::flow::{Event, FlowId, FlowLimits, Flows, Segment};
    use crate::io::now;
    use crate::packet::tcp::tests::segment;

    const APP: &str = "10.0.0.1:9";
    const TARGET: &str = "192.0.2.7:80";

    fn read(flows: &mut Flows, id: FlowId) -> Vec<u8> {
        let mut all = Vec::new();
        while flows.read(id, |bytes| {
            all.extend_from_slice(bytes);
            bytes.len()
        }) > 0
        {}
        all
    }

    #[test]
    fn pages_that_go_while_a_flow_rests_hold_nothing_that_is_needed() {
        let mut now = now();
        let mut flows = Flows::new(FlowLimits::default(), [1; 32], now);
        flows.set_memory(Box::new(Rings::default()));
        flows.handle_packet(&segment(APP, TARGET, TcpFlags::SYN, 0, 0, b""), now);
        let Some(Event::Connect { id, .. }) = flows.poll_event() else { panic!("a connect") };
        flows.accept(id, now);
        let answer = flows.poll_packet(now).unwrap();
        let ack = Segment::parse(&answer).unwrap().sequence.wrapping_add(1);
        let say = |flows: &mut Flows, sequence: u32, data: &[u8], now| {
            flows.handle_packet(&segment(APP, TARGET, TcpFlags::ACK, sequence, ack, data), now);
            while flows.poll_packet(now).is_some() {}
        };
        let data: Vec<u8> = (1..=251).cycle().take(600_000).collect();
        say(&mut flows, 1, b"", now);
        let (mut sent, mut seen) = (0, Vec::new());
        while sent < data.len() {
            let (this, next) = (sent + 10_000, sent + 20_000);
            // The second of two comes first; then nothing does, for so long that the flow rests.
            say(&mut flows, 1 + u32::try_from(this).unwrap(), &data[this..next], now);
            now += Duration::from_secs(10);
            flows.handle_timeout(now);
            say(&mut flows, 1 + u32::try_from(sent).unwrap(), &data[sent..this], now);
            // What came is not read at once either.
            now += Duration::from_secs(10);
            flows.handle_timeout(now);
            seen.extend(read(&mut flows, id));
            now += Duration::from_secs(10);
            flows.handle_timeout(now);
            sent = next;
        }
        assert!(seen == data);
        assert!(flows.stats().rested >= 20, "{:?}", flows.stats());
    }
}
