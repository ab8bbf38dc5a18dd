//! ICMP errors about a packet, for IPv4 (RFC 792, 1191, 1812 §4.3) and IPv6 (RFC 4443).
//!
//! Each builder quotes the packet it is about and returns a whole IP packet, or `None` where the
//! RFCs forbid an answer: the packet is an ICMP error itself, a fragment other than the first, or
//! not from one host to one host.

use std::net::IpAddr;

use pnet::packet::icmp::{self, IcmpCode, IcmpPacket, IcmpType, IcmpTypes, MutableIcmpPacket};
use pnet::packet::icmpv6::{self, Icmpv6Packet, Icmpv6Types};
use pnet::packet::ip::IpNextHeaderProtocols;
use pnet::packet::ipv4::Ipv4Packet;
use pnet::packet::ipv6::Ipv6Packet;

use super::build::{Draft, Ends};
use super::header::{self, Header, IPV4_HEADER_LENGTH, IPV6_HEADER_LENGTH};
use super::{ICMP, ICMPV6};

/// Why a destination cannot be reached, and what a Linux program is told when it connects there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unreachable {
    /// No route to its network: `ENETUNREACH`.
    Network,
    /// The host does not answer its neighbours: `EHOSTUNREACH`.
    Host,
    /// Nobody listens on the port: `ECONNREFUSED`.
    Port,
    /// Forbidden by an administrator: `EHOSTUNREACH` for IPv4, `EACCES` for IPv6.
    Prohibited,
}

/// Builds "destination unreachable" about `packet`, sent by `from`. `None` also if `from` is of
/// the other family.
#[must_use]
pub fn unreachable(packet: &[u8], kind: Unreachable, from: IpAddr) -> Option<Vec<u8>> {
    let code = match from {
        IpAddr::V4(_) => kind.v4_code(),
        IpAddr::V6(_) => kind.v6_code(),
    };
    let message = match from {
        IpAddr::V4(_) => Message::new(IcmpTypes::DestinationUnreachable.0, code, 0),
        IpAddr::V6(_) => Message::new(Icmpv6Types::DestinationUnreachable.0, code, 0),
    };
    report(packet, message, from)
}

/// Builds "packet too big" about `packet`, sent by `from`: the next hop takes packets of at most
/// `mtu` bytes, IP header included. For IPv4 this is "fragmentation needed", to be sent only about
/// packets with DF, which the caller knows. `None` also if `from` is of the other family.
#[must_use]
pub fn too_big(packet: &[u8], mtu: u16, from: IpAddr) -> Option<Vec<u8>> {
    let message = match from {
        IpAddr::V4(_) => {
            Message::new(IcmpTypes::DestinationUnreachable.0, V4_FRAGMENTATION_NEEDED, u32::from(mtu))
        }
        IpAddr::V6(_) => Message::new(Icmpv6Types::PacketTooBig.0, 0, u32::from(mtu)),
    };
    report(packet, message, from)
}

impl Unreachable {
    const fn v4_code(self) -> u8 {
        match self {
            Self::Network => 0,
            Self::Host => 1,
            Self::Port => 3,
            Self::Prohibited => 13,
        }
    }

    const fn v6_code(self) -> u8 {
        match self {
            Self::Network => 0,
            Self::Prohibited => 1,
            Self::Host => 3,
            Self::Port => 4,
        }
    }
}

/// The fixed part of an error:
///
/// ```text
///   0      1      2          4           8
///   | type | code | checksum | parameter | quoted packet ...
/// ```
struct Message {
    kind: u8,
    code: u8,
    parameter: u32,
}

impl Message {
    const fn new(kind: u8, code: u8, parameter: u32) -> Self {
        Self { kind, code, parameter }
    }
}

fn report(packet: &[u8], message: Message, from: IpAddr) -> Option<Vec<u8>> {
    let header = header::parse(packet).ok()?;
    if !may_report(packet, &header) {
        return None;
    }
    let ends = Ends::new(from, header.source)?;
    let room = match ends {
        Ends::V4(..) => V4_ERROR_LENGTH - IPV4_HEADER_LENGTH - ICMP_HEADER_LENGTH,
        Ends::V6(..) => V6_ERROR_LENGTH - IPV6_HEADER_LENGTH - ICMP_HEADER_LENGTH,
    };
    let quote = packet.get(..packet.len().min(room))?;
    let protocol = match ends {
        Ends::V4(..) => IpNextHeaderProtocols::Icmp,
        Ends::V6(..) => IpNextHeaderProtocols::Icmpv6,
    };
    let mut draft = Draft::new(ends, protocol, ICMP_HEADER_LENGTH + quote.len())?;
    emit(&message, quote, ends, draft.payload_mut())?;
    Some(draft.packet)
}

fn emit(message: &Message, quote: &[u8], ends: Ends, out: &mut [u8]) -> Option<()> {
    let (parameter, rest) = out.get_mut(4..)?.split_at_mut_checked(4)?;
    parameter.copy_from_slice(&message.parameter.to_be_bytes());
    rest.copy_from_slice(quote);
    // Both families lay out type, code and checksum alike.
    let mut view = MutableIcmpPacket::new(out)?;
    view.set_icmp_type(IcmpType(message.kind));
    view.set_icmp_code(IcmpCode(message.code));
    let checksum = match ends {
        Ends::V4(..) => icmp::checksum(&view.to_immutable()),
        Ends::V6(source, destination) => {
            icmpv6::checksum(&Icmpv6Packet::new(pnet::packet::Packet::packet(&view))?, &source, &destination)
        }
    };
    view.set_checksum(checksum);
    Some(())
}

/// Source and destination of the packet that an ICMP error quotes: one that did not arrive. `None` if `packet` is no such error, or
/// quotes nothing that can be read; redirects and source quench, which want something else of a host, are none.
#[must_use]
pub fn quoted(packet: &[u8], header: &Header) -> Option<(IpAddr, IpAddr)> {
    let kind = packet.get(header.header_length).filter(|_| !header.is_later_fragment())?;
    let is_undelivered = match header.protocol {
        ICMP => V4_UNDELIVERED.contains(&IcmpType(*kind)),
        ICMPV6 => *kind < V6_FIRST_INFORMATIONAL,
        _ => false,
    };
    if !is_undelivered {
        return None;
    }
    let quote = packet.get(header.header_length + ICMP_HEADER_LENGTH..)?;
    match header.source {
        IpAddr::V4(_) => {
            let view = Ipv4Packet::new(quote).filter(|view| view.get_version() == 4)?;
            Some((view.get_source().into(), view.get_destination().into()))
        }
        IpAddr::V6(_) => {
            let view = Ipv6Packet::new(quote).filter(|view| view.get_version() == 6)?;
            Some((view.get_source().into(), view.get_destination().into()))
        }
    }
}

/// The rules of RFC 1812 §4.3.2.7 and RFC 4443 §2.4 (e).
fn may_report(packet: &[u8], header: &Header) -> bool {
    !header.is_later_fragment()
        && is_one_host(header.source)
        && is_one_host(header.destination)
        && !is_icmp_error(packet, header)
}

fn is_one_host(address: IpAddr) -> bool {
    let is_broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    !(address.is_unspecified() || address.is_multicast() || is_broadcast)
}

/// Whether a packet is an ICMP error, or an ICMP packet too short to tell.
fn is_icmp_error(packet: &[u8], header: &Header) -> bool {
    let bytes = packet.get(header.header_length..).unwrap_or_default();
    if header.protocol == IpNextHeaderProtocols::Icmp.0 {
        IcmpPacket::new(bytes).is_none_or(|view| V4_ERRORS.contains(&view.get_icmp_type()))
    } else if header.protocol == IpNextHeaderProtocols::Icmpv6.0 {
        Icmpv6Packet::new(bytes).is_none_or(|view| {
            let kind = view.get_icmpv6_type();
            kind.0 < V6_FIRST_INFORMATIONAL || kind == Icmpv6Types::Redirect
        })
    } else {
        false
    }
}

/// The ICMPv4 messages that report an error (RFC 1122 §3.2.2).
const V4_ERRORS: [IcmpType; 5] = [
    IcmpTypes::DestinationUnreachable,
    IcmpTypes::SourceQuench,
    IcmpTypes::RedirectMessage,
    IcmpTypes::TimeExceeded,
    IcmpTypes::ParameterProblem,
];
/// Those among them that say why a packet did not arrive.
const V4_UNDELIVERED: [IcmpType; 3] =
    [IcmpTypes::DestinationUnreachable, IcmpTypes::TimeExceeded, IcmpTypes::ParameterProblem];
/// ICMPv6 types below are errors (RFC 4443 §2.1).
const V6_FIRST_INFORMATIONAL: u8 = 128;
/// "Fragmentation needed and DF set" (RFC 792).
const V4_FRAGMENTATION_NEEDED: u8 = 4;
/// Type, code, checksum and parameter.
const ICMP_HEADER_LENGTH: usize = 8;
/// An ICMPv4 error is at most this long, IP header included (RFC 1812 §4.3.2.3).
const V4_ERROR_LENGTH: usize = 576;
/// An ICMPv6 error is at most the minimum MTU, IP header included (RFC 4443 §2.4 (c)).
const V6_ERROR_LENGTH: usize = 1280;

#[cfg(test)]
mod tests {
    use super::super::tcp::tests::{ones_sum, segment};
    use super::*;
    use pnet::packet::tcp::TcpFlags;
    use proptest::prelude::*;

    fn v4_packet(data: usize) -> Vec<u8> {
        let data = vec![7; data];
        segment("10.0.0.1:1000", "192.0.2.7:80", TcpFlags::SYN, 1, 0, &data)
    }

    fn v6_packet(data: usize) -> Vec<u8> {
        let data = vec![7; data];
        segment("[fd00::1]:1000", "[fd00::2]:80", TcpFlags::SYN, 1, 0, &data)
    }

    fn v4() -> IpAddr {
        "10.0.0.9".parse().unwrap()
    }

    fn v6() -> IpAddr {
        "fd00::9".parse().unwrap()
    }

    #[test]
    fn reports_a_v4_host_unreachable_with_the_packet_quoted() {
        let packet = v4_packet(0);
        let error = unreachable(&packet, Unreachable::Host, v4()).unwrap();
        let seen = header::parse(&error).unwrap();
        assert_eq!((seen.source, seen.protocol), (v4(), 1));
        assert_eq!(seen.destination, "10.0.0.1".parse::<IpAddr>().unwrap());
        assert_eq!(error[20..22], [3, 1]);
        assert_eq!(error[24..28], [0; 4]);
        assert_eq!(error[28..], packet);
        assert_eq!(ones_sum(&error[..20]), 0xffff);
        assert_eq!(ones_sum(&error[20..]), 0xffff);
    }

    #[test]
    fn reports_a_v6_packet_too_big_with_the_mtu() {
        let packet = v6_packet(3000);
        let error = too_big(&packet, 1336, v6()).unwrap();
        assert_eq!(error.len(), V6_ERROR_LENGTH);
        assert_eq!(error[40..42], [2, 0]);
        assert_eq!(error[44..48], 1336u32.to_be_bytes());
        assert_eq!(error[48..], packet[..V6_ERROR_LENGTH - 48]);
        let length = u32::try_from(error.len() - 40).unwrap().to_be_bytes();
        let pseudo = [&error[8..40], &length, &[0, 0, 0, 58]].concat();
        assert_eq!(ones_sum(&[&pseudo, &error[40..]].concat()), 0xffff);
    }

    #[test]
    fn reports_a_v4_packet_too_big_with_the_mtu_and_a_short_quote() {
        let error = too_big(&v4_packet(1460), 1336, v4()).unwrap();
        assert_eq!(error.len(), V4_ERROR_LENGTH);
        assert_eq!(error[20..22], [3, 4]);
        assert_eq!(error[24..28], [0, 0, 0x05, 0x38]);
    }

    #[test]
    fn gives_every_kind_its_code() {
        let codes = |kind| {
            let four = unreachable(&v4_packet(0), kind, v4()).unwrap();
            let six = unreachable(&v6_packet(0), kind, v6()).unwrap();
            assert_eq!((four[20], six[40]), (3, 1));
            (four[21], six[41])
        };
        assert_eq!(codes(Unreachable::Network), (0, 0));
        assert_eq!(codes(Unreachable::Host), (1, 3));
        assert_eq!(codes(Unreachable::Port), (3, 4));
        assert_eq!(codes(Unreachable::Prohibited), (13, 1));
    }

    #[test]
    fn never_reports_about_an_icmp_error() {
        let error = unreachable(&v4_packet(0), Unreachable::Host, v4()).unwrap();
        assert_eq!(too_big(&error, 1280, v4()), None);
        let error = unreachable(&v6_packet(0), Unreachable::Host, v6()).unwrap();
        assert_eq!(too_big(&error, 1280, v6()), None);
    }

    #[test]
    fn finds_what_an_error_is_about() {
        for (packet, from) in [(v4_packet(100), v4()), (v6_packet(100), v6())] {
            let about = header::parse(&packet).unwrap();
            for error in [unreachable(&packet, Unreachable::Port, from), too_big(&packet, 1280, from)] {
                let error = error.unwrap();
                let of_error = header::parse(&error).unwrap();
                assert_eq!(quoted(&error, &of_error), Some((about.source, about.destination)));
                let cut = &error[..of_error.header_length + ICMP_HEADER_LENGTH + 12];
                assert_eq!(quoted(cut, &of_error), None, "less than a header");
            }
            assert_eq!(quoted(&packet, &about), None);
        }
        let mut redirect = unreachable(&v4_packet(100), Unreachable::Host, v4()).unwrap();
        redirect[IPV4_HEADER_LENGTH] = IcmpTypes::RedirectMessage.0;
        let header = header::parse(&redirect).unwrap();
        assert_eq!(quoted(&redirect, &header), None);
    }

    #[test]
    fn reports_about_an_echo_request() {
        let mut echo = v4_packet(100);
        echo[9] = 1;
        echo[20] = 8;
        assert!(too_big(&echo, 100, v4()).is_some());
    }

    #[test]
    fn never_reports_about_later_fragments_or_groups() {
        let mut later = v4_packet(8);
        later[7] = 3;
        assert_eq!(unreachable(&later, Unreachable::Host, v4()), None);
        let group = segment("10.0.0.1:1000", "224.0.0.5:80", TcpFlags::SYN, 1, 0, b"");
        assert_eq!(unreachable(&group, Unreachable::Host, v4()), None);
        let nobody = segment("0.0.0.0:1000", "10.0.0.5:80", TcpFlags::SYN, 1, 0, b"");
        assert_eq!(unreachable(&nobody, Unreachable::Host, v4()), None);
        assert_eq!(unreachable(&v4_packet(0), Unreachable::Host, v6()), None);
    }

    proptest! {
        #[test]
        fn survives_any_packet(bytes in proptest::collection::vec(any::<u8>(), 0..1500), protocol in prop::sample::select(vec![1u8, 6, 17, 58])) {
            let mut four = bytes.clone();
            super::super::tcp::tests::shape_as_tcp(&mut four, 1);
            if let Some(field) = four.get_mut(9) { *field = protocol; }
            let mut six = bytes;
            super::super::tcp::tests::shape_as_tcp(&mut six, 2);
            if let Some(field) = six.get_mut(6) { *field = protocol; }
            for packet in [four, six] {
                for from in [v4(), v6()] {
                    if let Some(error) = too_big(&packet, 1280, from) {
                        prop_assert!(error.len() <= V6_ERROR_LENGTH);
                        prop_assert!(header::parse(&error).is_ok());
                        prop_assert!(unreachable(&error, Unreachable::Host, from).is_none());
                    }
                }
            }
        }
    }
}
