//! `mtu u16, an IP packet`: inner packets, and what a router or a host answers about them.

use std::net::IpAddr;

use vpn::packet::icmp::{Unreachable, too_big, unreachable};
use vpn::packet::tcp::{Segment, reset_for, without_data};
use vpn::packet::{self, Header};

use super::checksum::assert_valid;
use super::input::Input;
use super::wire::{emit, repr};

/// What parses is in bounds; every answer is a valid packet back to the sender, no longer than its kind may be, and is
/// itself never answered.
pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (mtu, packet) = (input.u16(), input.rest());
    let answers = answers(packet, mtu);
    let Ok(header) = packet::parse(packet) else {
        assert!(answers.is_empty() && Segment::parse(packet).is_err() && without_data(packet).is_none());
        return;
    };
    assert_eq!(header.total_length, packet.len());
    assert!(header.header_length <= packet.len() && (header.is_fragment || header.fragment_offset == 0));
    for answer in &answers {
        check_answer(&header, answer);
    }
    if let Ok(segment) = Segment::parse(packet) {
        check_segment(&header, &segment, packet);
    }
    let _neither_panics = (header.destination_port(packet), header.is_echo(packet));
}

fn answers(packet: &[u8], mtu: u16) -> Vec<Vec<u8>> {
    let mut answers: Vec<_> = reset_for(packet).into_iter().collect();
    let routers: [IpAddr; 2] =
        [[192, 0, 2, 9].into(), [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9].into()];
    for router in routers {
        answers.extend(too_big(packet, mtu, router));
        for kind in [Unreachable::Network, Unreachable::Host, Unreachable::Port, Unreachable::Prohibited] {
            answers.extend(unreachable(packet, kind, router));
        }
    }
    answers
}

fn check_answer(header: &Header, answer: &[u8]) {
    let back = assert_valid(answer);
    assert_eq!(back.destination, header.source);
    match back.protocol {
        packet::TCP => {
            assert_eq!((back.source, back.total_length - back.header_length), (header.destination, 20))
        }
        packet::ICMP => assert!(answer.len() <= 576 && header.source.is_ipv4()),
        packet::ICMPV6 => assert!(answer.len() <= 1280 && header.source.is_ipv6()),
        other => panic!("answered with protocol {other}"),
    }
    // A reset is never answered with a reset, an error with nothing at all.
    let is_fine = |next: &Vec<u8>| back.protocol == packet::TCP && Segment::parse(next).is_err();
    assert!(answers(answer, 1280).iter().all(is_fine), "{answer:02x?} is answered");
}

fn check_segment(header: &Header, segment: &Segment, packet: &[u8]) {
    assert_eq!((segment.source.ip(), segment.destination.ip()), (header.source, header.destination));
    let bare = without_data(packet).unwrap_or_else(|| panic!("{packet:02x?} is a segment"));
    assert_eq!(bare.len(), packet.len() - segment.payload_length);
    let again = Segment::parse(&bare).unwrap_or_else(|error| panic!("{bare:02x?}: {error:?}"));
    let control = segment.sequence_length().wrapping_sub(u32::try_from(segment.payload_length).unwrap_or(0));
    assert_eq!((again.sequence, again.sequence_length()), (segment.sequence, control));
    assert_eq!(reset_for(packet).is_some(), !segment.is_reset());
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let v4 = ("10.0.0.1:1000".parse().expect("an address"), "192.0.2.7:80".parse().expect("an address"));
    let v6 = ("[fd00::1]:1000".parse().expect("an address"), "[2001:db8::7]:80".parse().expect("an address"));
    let mut packets = Vec::new();
    for (source, destination) in [v4, v6] {
        use vpn::carrier::{Flags, Repr, Seq, SynOptions};
        let repr = repr(source, destination, Flags::SYN, Seq(1), Seq(0));
        packets.push(emit(&Repr { options: SynOptions::windows(1460, 8), ..repr }, b""));
        let data = emit(&Repr { flags: Flags::ACK, ..repr }, b"some data");
        packets.extend(reset_for(&data));
        packets.extend(too_big(&data, 1280, destination.ip()));
        packets.push(udp(&data));
        packets.push(data);
    }
    packets.push(with_extensions(&packets[packets.len() - 2]));
    packets.into_iter().map(|packet| [&1280_u16.to_le_bytes(), packet.as_slice()].concat()).collect()
}

/// The same bytes as UDP.
fn udp(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    let protocol = if packet[0] >> 4 == 4 { 9 } else { 6 };
    packet[protocol] = packet::UDP;
    packet
}

/// A hop-by-hop header and that of a first fragment in front of the upper layer.
fn with_extensions(packet: &[u8]) -> Vec<u8> {
    let mut extended = packet.to_vec();
    let next = std::mem::replace(&mut extended[6], 0);
    extended.splice(40..40, [44, 0, 1, 4, 0, 0, 0, 0, next, 0, 0, 1, 0, 0, 0, 9]);
    let length = u16::try_from(extended.len() - 40).expect("a short packet");
    extended[4..6].copy_from_slice(&length.to_be_bytes());
    extended
}
