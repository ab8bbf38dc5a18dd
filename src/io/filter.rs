//! The classic BPF program of the tap: TCP for our ports, addressed to this host's link address.
//!
//! Loads are relative to the network header (`SKF_NET_OFF`), so that links without an Ethernet header work: PPP,
//! tunnels, raw IP modems. Such loads see only the linear part of a packet, which some drivers leave empty for large
//! packets when GRO is off; behind an Ethernet header the program therefore uses offsets from the frame's start, which
//! see everything. Source: Linux `Documentation/networking/filter.rst`, `net/core/filter.c`.

use std::{io, ops::RangeInclusive};

use socket2::SockFilter;

use super::Family;

/// Which TCP packets a tap hands out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PortFilter {
    /// Destination ports, inclusive ranges; none = nothing passes.
    pub destination: Vec<RangeInclusive<u16>>,
    /// Source ports that pass; `None` = any.
    pub source: Option<RangeInclusive<u16>>,
    /// Which of them.
    pub segments: Segments,
}

/// Which TCP segments a tap hands out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Segments {
    /// All.
    #[default]
    All,
    /// SYNs without ACK: what strangers begin with.
    Syns,
    /// All but those.
    AllButSyns,
}

impl PortFilter {
    /// Lets packets to these single ports pass.
    pub fn ports(ports: impl IntoIterator<Item = u16>) -> Self {
        let destination = ports.into_iter().map(|port| port..=port).collect();
        Self { destination, ..Self::default() }
    }

    /// Assembles the program for one IP version.
    ///
    /// # Errors
    /// `InvalidInput` if the ranges are too many for one program (about 1300 that do not touch).
    pub(super) fn program(&self, family: Family) -> io::Result<Vec<Instruction>> {
        let mut assembler = Assembler::default();
        assembler.check_link(family);
        assembler.check_packet(family, ETHERNET_HEADER, self.segments);
        assembler.jump(Label::Ports);
        assembler.place(Label::Network);
        assembler.check_packet(family, NETWORK_OFFSET, self.segments);
        assembler.jump(Label::Ports);
        // Here and not at the end, because a conditional jump reaches 255 instructions only.
        assembler.place(Label::Drop);
        assembler.push(DROP);
        assembler.place(Label::Ports);
        assembler.check_destination(&merge(&self.destination));
        assembler.place(Label::Source);
        assembler.check_source(self.source.as_ref());
        assembler
            .finish()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "too many port ranges for a filter"))
    }
}

/// One instruction of a classic BPF program (`struct sock_filter`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Instruction {
    code: u16,
    if_true: u8,
    if_false: u8,
    operand: u32,
}

impl Instruction {
    const fn new(code: u16, operand: u32) -> Self {
        Self { code, if_true: 0, if_false: 0, operand }
    }
}

impl From<Instruction> for SockFilter {
    fn from(instruction: Instruction) -> Self {
        Self::new(instruction.code, instruction.if_true, instruction.if_false, instruction.operand)
    }
}

/// The instruction that, alone, drops every packet.
pub(super) const DROP: Instruction = Instruction::new(RETURN, 0);

/// Places in the program that jumps name before they are known. `Next` is the instruction behind the jump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Label {
    Next,
    Ethernet,
    Type,
    Network,
    Drop,
    Ports,
    Source,
    Range(usize),
    Failed,
}

#[derive(Debug, Default)]
struct Assembler {
    program: Vec<Instruction>,
    placed: Vec<(Label, usize)>,
    jumps: Vec<Jump>,
}

#[derive(Debug)]
struct Jump {
    at: usize,
    if_true: Label,
    if_false: Label,
}

impl Assembler {
    fn push(&mut self, instruction: Instruction) {
        self.program.push(instruction);
    }

    fn place(&mut self, label: Label) {
        self.placed.push((label, self.program.len()));
    }

    fn jump(&mut self, to: Label) {
        self.jump_if(JUMP, 0, to, to);
    }

    fn jump_if(&mut self, code: u16, operand: u32, if_true: Label, if_false: Label) {
        self.jumps.push(Jump { at: self.program.len(), if_true, if_false });
        self.push(Instruction::new(code, operand));
    }

    /// Drops frames for another link address (a promiscuous bridge shows those) and finds out whether an Ethernet
    /// header stands in front.
    fn check_link(&mut self, family: Family) {
        self.push(Instruction::new(LOAD_WORD, ANCILLARY_OFFSET + ANCILLARY_PACKET_TYPE));
        self.jump_if(JUMP_EQUAL, u32::from(libc::PACKET_HOST), Label::Next, Label::Drop);
        self.push(Instruction::new(LOAD_WORD, ANCILLARY_OFFSET + ANCILLARY_HARDWARE_TYPE));
        self.jump_if(JUMP_EQUAL, u32::from(libc::ARPHRD_ETHER), Label::Type, Label::Ethernet);
        self.place(Label::Ethernet);
        self.jump_if(JUMP_EQUAL, u32::from(libc::ARPHRD_LOOPBACK), Label::Type, Label::Network);
        self.place(Label::Type);
        self.push(Instruction::new(LOAD_HALF, ETHERNET_TYPE_AT));
        self.jump_if(JUMP_EQUAL, u32::from(ethertype(family)), Label::Next, Label::Network);
    }

    /// Leaves both ports in the accumulator, the source's in the upper half; drops all but TCP packets, and those that
    /// are not `segments`. A first fragment passes, for its reader to drop and count; later ones have no ports to know them by.
    ///
    /// An IPv6 packet with extension headers is not ours: we send none.
    fn check_packet(&mut self, family: Family, base: u32, segments: Segments) {
        let tcp = u32::from(IPPROTO_TCP);
        match family {
            Family::V4 => {
                self.push(Instruction::new(LOAD_BYTE, base + 9));
                self.jump_if(JUMP_EQUAL, tcp, Label::Next, Label::Drop);
                self.push(Instruction::new(LOAD_HALF, base + 6));
                self.jump_if(JUMP_BITS, IPV4_FRAGMENT_OFFSET, Label::Drop, Label::Next);
                self.push(Instruction::new(LOAD_INDEX_HEADER_LENGTH, base));
                self.check_flags(Instruction::new(LOAD_BYTE_INDEXED, base + TCP_FLAGS), segments);
                self.push(Instruction::new(LOAD_WORD_INDEXED, base));
            }
            Family::V6 => {
                self.push(Instruction::new(LOAD_BYTE, base + 6));
                self.jump_if(JUMP_EQUAL, tcp, Label::Next, Label::Drop);
                self.check_flags(Instruction::new(LOAD_BYTE, base + IPV6_HEADER + TCP_FLAGS), segments);
                self.push(Instruction::new(LOAD_WORD, base + IPV6_HEADER));
            }
        }
    }

    fn check_flags(&mut self, load: Instruction, segments: Segments) {
        let (if_syn, if_other) = match segments {
            Segments::All => return,
            Segments::Syns => (Label::Next, Label::Drop),
            Segments::AllButSyns => (Label::Drop, Label::Next),
        };
        self.push(load);
        self.push(Instruction::new(AND, SYN | ACK));
        self.jump_if(JUMP_EQUAL, SYN, if_syn, if_other);
    }

    fn check_destination(&mut self, ranges: &[RangeInclusive<u16>]) {
        self.push(Instruction::new(STORE, PORTS_CELL));
        self.push(Instruction::new(AND, u32::from(u16::MAX)));
        for (index, range) in ranges.iter().enumerate() {
            let other = Label::Range(index);
            self.jump_if(JUMP_GREATER_EQUAL, u32::from(*range.start()), Label::Next, other);
            self.jump_if(JUMP_GREATER, u32::from(*range.end()), other, Label::Next);
            self.jump(Label::Source);
            self.place(other);
        }
        self.push(DROP);
    }

    fn check_source(&mut self, range: Option<&RangeInclusive<u16>>) {
        if let Some(range) = range {
            self.push(Instruction::new(LOAD_CELL, PORTS_CELL));
            self.push(Instruction::new(SHIFT_RIGHT, u16::BITS));
            self.jump_if(JUMP_GREATER_EQUAL, u32::from(*range.start()), Label::Next, Label::Failed);
            self.jump_if(JUMP_GREATER, u32::from(*range.end()), Label::Failed, Label::Next);
        }
        self.push(Instruction::new(RETURN, WHOLE_PACKET));
        self.place(Label::Failed);
        self.push(DROP);
    }

    /// Resolves the jumps; `None` if the program is longer than the kernel takes.
    fn finish(mut self) -> Option<Vec<Instruction>> {
        for jump in std::mem::take(&mut self.jumps) {
            let if_true = self.steps(&jump, jump.if_true)?;
            let if_false = self.steps(&jump, jump.if_false)?;
            let instruction = self.program.get_mut(jump.at)?;
            if instruction.code == JUMP {
                instruction.operand = u32::try_from(if_true).ok()?;
            } else {
                instruction.if_true = u8::try_from(if_true).ok()?;
                instruction.if_false = u8::try_from(if_false).ok()?;
            }
        }
        (self.program.len() <= LONGEST_PROGRAM).then_some(self.program)
    }

    fn steps(&self, jump: &Jump, to: Label) -> Option<usize> {
        if to == Label::Next {
            return Some(0);
        }
        let (_, place) = self.placed.iter().find(|(label, _)| *label == to)?;
        place.checked_sub(jump.at + 1)
    }
}

/// Sorts ranges and joins those that overlap or touch.
fn merge(ranges: &[RangeInclusive<u16>]) -> Vec<RangeInclusive<u16>> {
    let mut sorted: Vec<_> = ranges.iter().filter(|range| !range.is_empty()).cloned().collect();
    sorted.sort_by_key(|range| *range.start());
    let mut merged: Vec<RangeInclusive<u16>> = Vec::with_capacity(sorted.len());
    for range in sorted {
        match merged.last_mut() {
            Some(last) if *range.start() <= last.end().saturating_add(1) => {
                *last = *last.start()..=*last.end().max(range.end());
            }
            Some(_) | None => merged.push(range),
        }
    }
    merged
}

fn ethertype(family: Family) -> u16 {
    match family {
        Family::V4 => 0x0800,
        Family::V6 => 0x86dd,
    }
}

const IPPROTO_TCP: u8 = 6;
/// The fragment offset, in the half word at 6 of an IPv4 header (RFC 791).
const IPV4_FRAGMENT_OFFSET: u32 = 0x1fff;
const IPV6_HEADER: u32 = 40;
/// Where the flags are in a TCP header, and two of them (RFC 9293, section 3.1).
const TCP_FLAGS: u32 = 13;
const SYN: u32 = 0x02;
const ACK: u32 = 0x10;
const ETHERNET_HEADER: u32 = 14;
const ETHERNET_TYPE_AT: u32 = 12;

// linux/filter.h and linux/bpf_common.h: class | size | mode, class | operation | source.
const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
const LOAD_WORD_INDEXED: u16 = 0x40;
const LOAD_BYTE_INDEXED: u16 = 0x50;
const LOAD_CELL: u16 = 0x60;
const LOAD_INDEX_HEADER_LENGTH: u16 = 0xb1;
const STORE: u16 = 0x02;
const AND: u16 = 0x54;
const SHIFT_RIGHT: u16 = 0x74;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_EQUAL: u16 = 0x35;
const JUMP_BITS: u16 = 0x45;
const RETURN: u16 = 0x06;

/// `SKF_NET_OFF` (-0x100000): offsets count from the network header.
const NETWORK_OFFSET: u32 = 0xfff0_0000;
/// `SKF_AD_OFF` (-0x1000): loads ask for what the kernel knows of the packet.
const ANCILLARY_OFFSET: u32 = 0xffff_f000;
const ANCILLARY_PACKET_TYPE: u32 = 4;
const ANCILLARY_HARDWARE_TYPE: u32 = 28;

const PORTS_CELL: u32 = 0;
const WHOLE_PACKET: u32 = u32::MAX;
/// `BPF_MAXINSNS`.
const LONGEST_PROGRAM: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    /// A packet as the kernel sees it, and the part of its interpreter that our programs use.
    #[derive(Clone)]
    struct Packet {
        bytes: Vec<u8>,
        network: usize,
        kind: u32,
        hardware: u32,
    }

    impl Packet {
        fn load(&self, offset: u32, size: usize) -> Option<u32> {
            if offset == ANCILLARY_OFFSET + ANCILLARY_PACKET_TYPE {
                return Some(self.kind);
            }
            if offset == ANCILLARY_OFFSET + ANCILLARY_HARDWARE_TYPE {
                return Some(self.hardware);
            }
            let start = match offset.checked_sub(NETWORK_OFFSET) {
                Some(offset) => self.network + usize::try_from(offset).unwrap(),
                None => usize::try_from(offset).unwrap(),
            };
            let bytes = self.bytes.get(start..start + size)?;
            Some(bytes.iter().fold(0, |value, byte| value << 8 | u32::from(*byte)))
        }

        /// True if the program lets the packet pass. A load outside the packet drops it, as in the kernel.
        fn passes(&self, program: &[Instruction]) -> bool {
            self.run(program).unwrap_or(0) != 0
        }

        fn run(&self, program: &[Instruction]) -> Option<u32> {
            let (mut at, mut a, mut x, mut cell) = (0, 0_u32, 0_u32, 0);
            loop {
                let Instruction { code, if_true, if_false, operand: k } = program[at];
                at += 1;
                let mut branch = |taken: bool| at += usize::from(if taken { if_true } else { if_false });
                match code {
                    LOAD_WORD => a = self.load(k, 4)?,
                    LOAD_HALF => a = self.load(k, 2)?,
                    LOAD_BYTE => a = self.load(k, 1)?,
                    LOAD_WORD_INDEXED => a = self.load(k.wrapping_add(x), 4)?,
                    LOAD_BYTE_INDEXED => a = self.load(k.wrapping_add(x), 1)?,
                    LOAD_INDEX_HEADER_LENGTH => x = (self.load(k, 1)? & 0xf) * 4,
                    LOAD_CELL => a = cell,
                    STORE => cell = a,
                    AND => a &= k,
                    SHIFT_RIGHT => a >>= k,
                    JUMP => at += usize::try_from(k).unwrap(),
                    JUMP_EQUAL => branch(a == k),
                    JUMP_GREATER => branch(a > k),
                    JUMP_GREATER_EQUAL => branch(a >= k),
                    JUMP_BITS => branch(a & k != 0),
                    RETURN => return Some(k),
                    other => panic!("unknown instruction {other:#x}"),
                }
            }
        }
    }

    fn tcp(source: u16, destination: u16) -> Vec<u8> {
        let mut header = [source.to_be_bytes(), destination.to_be_bytes()].concat();
        header.resize(20, 0);
        header
    }

    fn ipv4(options: usize, source: u16, destination: u16) -> Vec<u8> {
        let mut packet = vec![0; 20 + options];
        packet[0] = 0x45 + u8::try_from(options / 4).unwrap();
        packet[6] = 0x40;
        packet[9] = IPPROTO_TCP;
        packet.extend(tcp(source, destination));
        packet
    }

    fn ipv6(source: u16, destination: u16) -> Vec<u8> {
        let mut packet = vec![0; 40];
        packet[0] = 0x60;
        packet[6] = IPPROTO_TCP;
        packet.extend(tcp(source, destination));
        packet
    }

    fn on_ethernet(family: Family, ip: &[u8]) -> Packet {
        let mut bytes = vec![2; 12];
        bytes.extend(ethertype(family).to_be_bytes());
        bytes.extend(ip);
        Packet { bytes, network: 14, kind: 0, hardware: u32::from(libc::ARPHRD_ETHER) }
    }

    fn on_tunnel(ip: &[u8]) -> Packet {
        Packet { bytes: ip.to_vec(), network: 0, kind: 0, hardware: u32::from(libc::ARPHRD_NONE) }
    }

    fn filter(destination: &[RangeInclusive<u16>], source: Option<RangeInclusive<u16>>) -> PortFilter {
        PortFilter { destination: destination.to_vec(), source, segments: Segments::All }
    }

    #[test]
    fn passes_exactly_the_ports_of_its_ranges_on_any_link() {
        let filter = filter(&[443..=443, 4000..=4100], None);
        for family in [Family::V4, Family::V6] {
            let program = filter.program(family).unwrap();
            for (port, expected) in [
                (443, true),
                (442, false),
                (444, false),
                (3999, false),
                (4000, true),
                (4100, true),
                (4101, false),
            ] {
                let ip = if family == Family::V4 { ipv4(0, 50_000, port) } else { ipv6(50_000, port) };
                assert_eq!(on_ethernet(family, &ip).passes(&program), expected, "{family:?} {port}");
                assert_eq!(
                    on_tunnel(&ip).passes(&program),
                    expected,
                    "{family:?} {port} without a link header"
                );
            }
        }
    }

    #[test]
    fn checks_the_source_port_when_one_is_asked_for() {
        for family in [Family::V4, Family::V6] {
            let program = filter(&[50_000..=50_000], Some(443..=444)).program(family).unwrap();
            for (port, expected) in [(443, true), (444, true), (442, false), (445, false)] {
                let ip = if family == Family::V4 { ipv4(0, port, 50_000) } else { ipv6(port, 50_000) };
                assert_eq!(on_ethernet(family, &ip).passes(&program), expected, "{family:?} {port}");
            }
        }
    }

    #[test]
    fn two_taps_share_all_segments_between_them() {
        for family in [Family::V4, Family::V6] {
            let program = |segments| {
                let filter = PortFilter { segments, ..PortFilter::ports([443]) };
                filter.program(family).unwrap()
            };
            let [syns, others] = [Segments::Syns, Segments::AllButSyns].map(program);
            for flags in 0..=u8::MAX {
                let is_syn = flags & 0x12 == 0x02;
                for options in [0, 12] {
                    let mut ip = match family {
                        Family::V4 => ipv4(options, 1, 443),
                        Family::V6 => ipv6(1, 443),
                    };
                    let at = ip.len() - 20 + 13;
                    ip[at] = flags;
                    for packet in [on_ethernet(family, &ip), on_tunnel(&ip)] {
                        let passes = (packet.passes(&syns), packet.passes(&others));
                        assert_eq!(passes, (is_syn, !is_syn), "{family:?} {flags:#x}");
                    }
                }
            }
        }
    }

    #[test]
    fn finds_the_ports_behind_ipv4_options() {
        let program = filter(&[443..=443], None).program(Family::V4).unwrap();
        assert!(on_ethernet(Family::V4, &ipv4(40, 1, 443)).passes(&program));
        assert!(on_tunnel(&ipv4(12, 1, 443)).passes(&program));
        assert!(!on_tunnel(&ipv4(12, 443, 1)).passes(&program));
    }

    #[test]
    fn drops_later_fragments_other_protocols_and_frames_for_other_hosts() {
        let program = filter(&[0..=u16::MAX], None).program(Family::V4).unwrap();
        let whole = on_ethernet(Family::V4, &ipv4(0, 1, 443));
        assert!(whole.passes(&program));
        let changed = |change: fn(&mut Packet)| {
            let mut packet = whole.clone();
            change(&mut packet);
            packet.passes(&program)
        };
        assert!(!changed(|packet| packet.bytes[14 + 9] = 17), "UDP");
        assert!(changed(|packet| packet.bytes[14 + 6] = 0x20), "first fragment");
        assert!(!changed(|packet| packet.bytes[14 + 7] = 1), "later fragment");
        assert!(!changed(|packet| packet.kind = 3), "another host's frame");
    }

    #[test]
    fn drops_a_packet_that_ends_before_its_ports() {
        for family in [Family::V4, Family::V6] {
            let program = filter(&[0..=u16::MAX], None).program(family).unwrap();
            let ip = if family == Family::V4 { ipv4(0, 1, 443) } else { ipv6(1, 443) };
            for length in 0..ip.len() - 16 {
                assert!(!on_ethernet(family, &ip[..length]).passes(&program), "{family:?} {length}");
                assert!(!on_tunnel(&ip[..length]).passes(&program), "{family:?} {length}");
            }
        }
    }

    #[test]
    fn an_empty_filter_passes_nothing() {
        let program = PortFilter::default().program(Family::V4).unwrap();
        assert!(!on_ethernet(Family::V4, &ipv4(0, 1, 443)).passes(&program));
    }

    #[test]
    fn holds_a_thousand_scattered_ports_and_refuses_more_than_the_kernel_takes() {
        let program = PortFilter::ports((0..1000).map(|index| index * 3)).program(Family::V4).unwrap();
        assert!(on_ethernet(Family::V4, &ipv4(0, 1, 2997)).passes(&program));
        assert!(!on_ethernet(Family::V4, &ipv4(0, 1, 2998)).passes(&program));
        assert!(PortFilter::ports((0..2000).map(|index| index * 3)).program(Family::V4).is_err());
    }

    #[test]
    fn joins_ranges_that_overlap_or_touch() {
        let merged = merge(&[10..=20, 21..=30, 5..=6, 15..=16, 65_000..=65_535, 65_535..=65_535]);
        assert_eq!(merged, [5..=6, 10..=30, 65_000..=65_535]);
    }
}
