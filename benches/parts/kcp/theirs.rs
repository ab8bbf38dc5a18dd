//! The same operations of the published crate `kcp`.

use std::{cell::Cell, io, rc::Rc};

use kcp::Kcp;
use vpn::kcp::HEADER_LEN;

use super::{ACK, BATCH, CONV, PAYLOAD, PUSH, TELL, number, segment};

pub(super) struct Sending {
    kcp: Kcp<Drain>,
    sent: u32,
    acknowledged: u32,
    packet: Vec<u8>,
}

impl super::Sending for Sending {
    fn new(in_flight: usize) -> Self {
        let mut sending = Self { kcp: end(), sent: 0, acknowledged: 0, packet: Vec::new() };
        sending.send(in_flight.next_multiple_of(BATCH));
        sending
    }

    fn send(&mut self, count: usize) {
        for _ in 0..count / BATCH {
            for _ in 0..BATCH {
                self.kcp.send(&PAYLOAD).expect("there is room");
                self.sent += 1;
            }
            self.kcp.flush().expect("the sink takes all");
        }
    }

    fn acknowledge(&mut self, count: usize) {
        for _ in 0..count / BATCH {
            self.packet.clear();
            let una = self.acknowledged + number(BATCH);
            for sn in self.acknowledged..una {
                segment(ACK, [0, sn, una], &[], &mut self.packet);
            }
            self.acknowledged = una;
            self.kcp.input(&self.packet).expect("it is KCP");
        }
    }

    fn check(&self) {
        assert_eq!(self.kcp.wait_snd(), (self.sent - self.acknowledged) as usize);
    }
}

pub(super) struct Receiving {
    kcp: Kcp<Drain>,
    next: u32,
    packet: Vec<u8>,
}

impl Receiving {
    fn take(&mut self, sn: u32) {
        self.packet.clear();
        segment(PUSH, [0, sn, 0], &PAYLOAD, &mut self.packet);
        self.kcp.input(&self.packet).expect("it is KCP");
    }
}

impl super::Receiving for Receiving {
    fn new() -> Self {
        Self { kcp: end(), next: 0, packet: Vec::new() }
    }

    fn receive(&mut self, count: usize) {
        for ahead in 1..count {
            self.take(self.next + u32::try_from(ahead).expect("a window"));
            if ahead % BATCH == 0 {
                self.kcp.flush_ack().expect("the sink takes all");
            }
        }
        self.take(self.next);
        self.kcp.flush_ack().expect("the sink takes all");
        let (mut read, mut message) = (0, [0; PAYLOAD.len()]);
        while self.kcp.recv(&mut message).is_ok() {
            read += 1;
        }
        assert_eq!(read, count);
        self.next += u32::try_from(count).expect("a window");
    }
}

/// Its clock counts milliseconds: a batch shares a deadline.
pub(super) struct Waiting {
    kcp: Kcp<Drain>,
    in_flight: usize,
    written: Rc<Cell<usize>>,
}

impl super::Waiting for Waiting {
    fn new(in_flight: usize) -> Self {
        let drain = Drain::default();
        let written = Rc::clone(&drain.written);
        let mut kcp = end_into(drain);
        kcp.set_rx_minrto(RTO);
        kcp.send(&PAYLOAD).expect("there is room");
        kcp.flush().expect("the sink takes all");
        let mut packet = Vec::new();
        segment(ACK, [0, 0, 1], &[], &mut packet);
        kcp.input(&packet).expect("it is KCP");
        let in_flight = in_flight.next_multiple_of(BATCH);
        for ms in 0..in_flight / BATCH {
            for _ in 0..BATCH {
                kcp.send(&PAYLOAD).expect("there is room");
            }
            // Sends at its own pace of 10 ms.
            kcp.update(u32::try_from(ms).expect("a short bench")).expect("the sink takes all");
            kcp.flush().expect("the sink takes all");
        }
        Self { kcp, in_flight, written }
    }

    fn fire(&mut self) -> usize {
        let before = self.written.get();
        for ms in 0..self.in_flight / BATCH {
            self.kcp.update(RTO + u32::try_from(ms).expect("a short bench")).expect("the sink takes all");
            self.kcp.flush().expect("the sink takes all");
        }
        // All are sent again, each once.
        let sent_again = (self.written.get() - before) / SEGMENT;
        assert_eq!(sent_again, self.in_flight);
        sent_again
    }
}

fn end() -> Kcp<Drain> {
    end_into(Drain::default())
}

fn end_into(drain: Drain) -> Kcp<Drain> {
    let mut kcp = Kcp::new(CONV, drain);
    kcp.set_nodelay(true, 10, 2, true);
    kcp.set_wndsize(u16::MAX, u16::MAX);
    kcp.set_mtu(SEGMENT).or_else(|_| kcp.set_mtu(50)).expect("a small packet");
    kcp.update(0).expect("the sink takes all");
    let mut packet = Vec::new();
    segment(TELL, [0, 0, 0], &[], &mut packet);
    kcp.input(&packet).expect("it is KCP");
    kcp
}

/// Takes packets, counts their bytes and forgets them.
#[derive(Default)]
struct Drain {
    written: Rc<Cell<usize>>,
}

impl io::Write for Drain {
    fn write(&mut self, packet: &[u8]) -> io::Result<usize> {
        self.written.set(self.written.get() + packet.len());
        Ok(packet.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const RTO: u32 = 10_000;
/// Bytes of a segment.
const SEGMENT: usize = PAYLOAD.len() + HEADER_LEN;
