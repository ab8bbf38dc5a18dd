//! The kernel's half of an app's TCP connection, as far as a benchmark needs it: segments that are ready to be sent again.

use std::net::SocketAddr;

use vpn::carrier::{Flags, Repr, Seq, SynOptions, parse};

/// An app that only sends.
#[derive(Debug)]
pub(crate) struct Sender {
    source: SocketAddr,
    target: SocketAddr,
    next: Seq,
    data: Vec<u8>,
}

impl Sender {
    /// App number `number`, whose segments carry `size` bytes.
    pub(crate) fn new(number: u16, size: usize) -> Self {
        let source = SocketAddr::from(([10, 77, 0, 2], 1024 + number));
        let target = SocketAddr::from(([198, 51, 100, 7], 80));
        let mut app = Self { source, target, next: Seq(1000), data: Vec::new() };
        app.data = app.packet(Flags::ACK, Seq(0), SynOptions::NONE, size);
        app
    }

    pub(crate) fn syn(&mut self) -> Vec<u8> {
        let packet = self.packet(Flags::SYN, Seq(0), SynOptions::windows(65_480, 8), 0);
        self.next = self.next.advanced_by(1);
        packet
    }

    /// The end of the handshake.
    pub(crate) fn ack(&mut self, syn_ack: &[u8]) -> Vec<u8> {
        let answer = parse(syn_ack).expect("a SYN-ACK");
        assert_eq!((answer.source, answer.destination, answer.ack), (self.target, self.source, self.next));
        let ack = answer.seq.advanced_by(1);
        self.data = self.packet(Flags::ACK, ack, SynOptions::NONE, self.data.len() - HEADERS);
        self.packet(Flags::ACK, ack, SynOptions::NONE, 0)
    }

    /// The next segment. Its TCP checksum is not right, as that of the kernel's own is not.
    pub(crate) fn data(&mut self) -> &[u8] {
        self.data[SEQ..SEQ + 4].copy_from_slice(&self.next.0.to_be_bytes());
        self.next = self.next.advanced_by(self.data.len() - HEADERS);
        &self.data
    }

    fn packet(&self, flags: Flags, ack: Seq, options: SynOptions, size: usize) -> Vec<u8> {
        let repr = Repr {
            source: self.source,
            destination: self.target,
            seq: self.next,
            ack,
            flags,
            window: 0xffff,
            options,
            hop_limit: 64,
            flow_label: 0,
            ip_id: 0,
        };
        let mut packet = vec![0x5a; repr.header_len() + size];
        repr.emit(&mut packet).expect("a packet");
        packet
    }
}

/// IPv4 and TCP, without options.
const HEADERS: usize = 40;

/// Where the sequence number stands.
const SEQ: usize = 24;
