//! Writing the IP and TCP headers in front of a payload that is already in its place.
//!
//! ```text
//! header_len(remote) bytes, filled here              the caller's
//! | IPv4: DF, ID      or IPv6: flow label | TCP     | sealed packet ... |
//! ```
//!
//! The tests hold byte-exact packets, each annotated.

use std::net::{IpAddr, SocketAddr};

use pnet::packet::ip::IpNextHeaderProtocols;
use pnet::packet::ipv4::{Ipv4Flags, MutableIpv4Packet};
use pnet::packet::ipv6::MutableIpv6Packet;
use pnet::packet::tcp::MutableTcpPacket;
use thiserror::Error;

use super::checksum::{checksum, tcp_checksum};
use super::{Flags, Seq, SynOptions};

/// The headers of one packet to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// Who sends it.
    pub source: SocketAddr,
    /// Whom it goes to; of the same family.
    pub destination: SocketAddr,
    /// Sequence number.
    pub seq: Seq,
    /// Acknowledgement number; 0 without the ACK flag.
    pub ack: Seq,
    /// Control flags.
    pub flags: Flags,
    /// The window field, scaled already.
    pub window: u16,
    /// Options; none but in SYN and SYN-ACK.
    pub options: SynOptions,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// IPv6 flow label, 20 bits, constant over a connection; not used over IPv4.
    pub flow_label: u32,
    /// IPv4 identification; not used over IPv6.
    pub ip_id: u16,
}

impl Repr {
    /// Bytes of both headers, options included.
    #[must_use]
    pub fn header_len(&self) -> usize {
        header_len(&self.destination) + self.options.as_bytes().len()
    }

    /// Writes the headers over the first [`header_len`](Self::header_len) bytes of `packet`; the payload is all that follows.
    ///
    /// # Errors
    /// The packet cannot be described by an IP header; nothing of use was written.
    pub fn emit(&self, packet: &mut [u8]) -> Result<(), EmitError> {
        let header = packet.get_mut(..self.header_len()).ok_or(EmitError::TooShort)?;
        header.fill(0);
        let ip_length = self.emit_ip(packet)?;
        let (_, segment) = packet.split_at_mut_checked(ip_length).ok_or(EmitError::TooShort)?;
        self.emit_tcp(segment)
    }

    /// A packet without payload.
    pub(super) fn to_packet(self) -> Result<Vec<u8>, EmitError> {
        let mut packet = vec![0; self.header_len()];
        self.emit(&mut packet)?;
        Ok(packet)
    }

    /// Returns the length of the IP header.
    fn emit_ip(&self, packet: &mut [u8]) -> Result<usize, EmitError> {
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let total = u16::try_from(packet.len()).map_err(|_| EmitError::TooLong)?;
                let mut ip = MutableIpv4Packet::new(packet).ok_or(EmitError::TooShort)?;
                ip.set_version(4);
                ip.set_header_length(IPV4_WORDS);
                ip.set_total_length(total);
                ip.set_identification(self.ip_id);
                ip.set_flags(Ipv4Flags::DontFragment);
                ip.set_ttl(self.hop_limit);
                ip.set_next_level_protocol(IpNextHeaderProtocols::Tcp);
                ip.set_source(source);
                ip.set_destination(destination);
                let sum = packet.get(..IPV4_HEADER).map(checksum).ok_or(EmitError::TooShort)?;
                MutableIpv4Packet::new(packet).ok_or(EmitError::TooShort)?.set_checksum(sum);
                Ok(IPV4_HEADER)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let payload = packet.len().saturating_sub(IPV6_HEADER);
                let mut ip = MutableIpv6Packet::new(packet).ok_or(EmitError::TooShort)?;
                ip.set_version(6);
                ip.set_flow_label(self.flow_label);
                ip.set_payload_length(u16::try_from(payload).map_err(|_| EmitError::TooLong)?);
                ip.set_next_header(IpNextHeaderProtocols::Tcp);
                ip.set_hop_limit(self.hop_limit);
                ip.set_source(source);
                ip.set_destination(destination);
                Ok(IPV6_HEADER)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => Err(EmitError::MixedFamilies),
        }
    }

    fn emit_tcp(&self, segment: &mut [u8]) -> Result<(), EmitError> {
        let length = u16::try_from(segment.len()).map_err(|_| EmitError::TooLong)?;
        let options = self.options.as_bytes();
        segment
            .get_mut(TCP_HEADER..TCP_HEADER + options.len())
            .ok_or(EmitError::TooShort)?
            .copy_from_slice(options);
        let mut tcp = MutableTcpPacket::new(segment).ok_or(EmitError::TooShort)?;
        tcp.set_source(self.source.port());
        tcp.set_destination(self.destination.port());
        tcp.set_sequence(self.seq.0);
        tcp.set_acknowledgement(self.ack.0);
        #[expect(clippy::cast_possible_truncation, reason = "at most three words of options")]
        tcp.set_data_offset(TCP_WORDS + (options.len() / 4) as u8);
        tcp.set_flags(self.flags.0);
        tcp.set_window(self.window);
        let sum = tcp_checksum(self.source.ip(), self.destination.ip(), segment, length);
        MutableTcpPacket::new(segment).ok_or(EmitError::TooShort)?.set_checksum(sum);
        Ok(())
    }
}

/// Why a packet could not be finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EmitError {
    /// There is no connection to send on: not established yet, or closed.
    #[error("the connection is not established")]
    NotEstablished,
    /// Shorter than its headers, or a data packet without data.
    #[error("shorter than its headers")]
    TooShort,
    /// Longer than an IP packet can be.
    #[error("longer than an IP packet")]
    TooLong,
    /// One address is IPv4, the other IPv6.
    #[error("one address is IPv4, the other IPv6")]
    MixedFamilies,
}

/// Bytes to reserve in front of a sealed packet to `remote`: IP and TCP header, 40 or 60.
#[must_use]
pub const fn header_len(remote: &SocketAddr) -> usize {
    match remote {
        SocketAddr::V4(_) => IPV4_HEADER + TCP_HEADER,
        SocketAddr::V6(_) => IPV6_HEADER + TCP_HEADER,
    }
}

const IPV4_HEADER: usize = MutableIpv4Packet::minimum_packet_size();
const IPV6_HEADER: usize = MutableIpv6Packet::minimum_packet_size();
const TCP_HEADER: usize = MutableTcpPacket::minimum_packet_size();

/// Header lengths as their fields count them: 32-bit words.
const IPV4_WORDS: u8 = 5;
const TCP_WORDS: u8 = 5;
const _: () = assert!(IPV4_HEADER == IPV4_WORDS as usize * 4 && TCP_HEADER == TCP_WORDS as usize * 4);

/// Byte-exact packets, checked by hand and by an independent program. They are the reference of the format.
#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::carrier::stack::{LINUX, WINDOWS};
    use crate::carrier::{Options, parse};

    /// The client's ISN in every vector.
    pub(in crate::carrier) const ISN: Seq = Seq(0x1122_3344);
    /// Its flow label and its first IP ID; the handshake's ACK has the second.
    const SCENERY: (u32, u16) = (0xfe7c9, 0x2a41);
    /// The random number that a client with these draws.
    pub(in crate::carrier) const RANDOM: u128 =
        ((SCENERY.0 as u128) << 108) | ((SCENERY.1 as u128) << 64) | ISN.0 as u128;
    /// The server's.
    pub(in crate::carrier) const COOKIE: Seq = Seq(0xa1b2_c3d4);

    pub(in crate::carrier) fn client(family: u8) -> SocketAddr {
        if family == 4 { "192.0.2.1:50000".parse().unwrap() } else { "[2001:db8::1]:50000".parse().unwrap() }
    }

    pub(in crate::carrier) fn server(family: u8) -> SocketAddr {
        if family == 4 { "198.51.100.2:443".parse().unwrap() } else { "[2001:db8::2]:443".parse().unwrap() }
    }

    /// A client's SYN over IPv4.
    #[rustfmt::skip]
    pub(in crate::carrier) fn syn_v4() -> Vec<u8> {
        vec![
            0x45, 0x00, 0x00, 0x34, // version 4, 5 words; DSCP 0; total length 52
            0x2a, 0x41, 0x40, 0x00, // ID 0x2a41; DF
            0x80, 0x06, 0xe4, 0x4b, // TTL 128; TCP; checksum
            0xc0, 0x00, 0x02, 0x01, // 192.0.2.1
            0xc6, 0x33, 0x64, 0x02, // 198.51.100.2
            0xc3, 0x50, 0x01, 0xbb, // ports 50000, 443
            0x11, 0x22, 0x33, 0x44, // seq: the ISN
            0x00, 0x00, 0x00, 0x00, // ack: none
            0x80, 0x02, 0xfa, 0xf0, // 8 words; SYN; window 64240
            0x7e, 0x76, 0x00, 0x00, // checksum; urgent pointer
            0x02, 0x04, 0x05, 0xb4, // MSS 1460
            0x01, 0x03, 0x03, 0x08, // NOP, window scale 8
            0x01, 0x01, 0x04, 0x02, // NOP, NOP, SACK permitted
        ]
    }

    /// The server's answer to a client's SYN over IPv6.
    #[rustfmt::skip]
    fn syn_ack_v6() -> Vec<u8> {
        vec![
            0x60, 0x03, 0x5b, 0x49, // version 6; flow label 0x35b49
            0x00, 0x20, 0x06, 0x40, // payload 32; TCP; hop limit 64
            0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2,
            0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
            0x01, 0xbb, 0xc3, 0x50, // ports 443, 50000
            0xa1, 0xb2, 0xc3, 0xd4, // seq: the cookie
            0x11, 0x22, 0x33, 0x45, // ack: the client's ISN + 1
            0x80, 0x12, 0xfd, 0x20, // 8 words; SYN, ACK; window 64800
            0xa7, 0x82, 0x00, 0x00, // checksum; urgent pointer
            0x02, 0x04, 0x05, 0xa0, // MSS 1440
            0x01, 0x01, 0x04, 0x02, // NOP, NOP, SACK permitted
            0x01, 0x03, 0x03, 0x0a, // NOP, window scale 10
        ]
    }

    /// The client's first payload, the last of its burst, over IPv4: "hello" stands for a sealed packet.
    #[rustfmt::skip]
    pub(in crate::carrier) fn data_v4() -> Vec<u8> {
        vec![
            0x45, 0x00, 0x00, 0x2d, // version 4, 5 words; DSCP 0; total length 45
            0x2a, 0x43, 0x40, 0x00, // ID 0x2a43; DF
            0x80, 0x06, 0xe4, 0x50, // TTL 128; TCP; checksum
            0xc0, 0x00, 0x02, 0x01, // 192.0.2.1
            0xc6, 0x33, 0x64, 0x02, // 198.51.100.2
            0xc3, 0x50, 0x01, 0xbb, // ports 50000, 443
            0x11, 0x22, 0x33, 0x45, // seq: the ISN + 1
            0xa1, 0xb2, 0xc3, 0xd5, // ack: the cookie + 1
            0x50, 0x18, 0xff, 0x00, // 5 words; PSH, ACK; window 0xff00 << 8
            0x11, 0xc2, 0x00, 0x00, // checksum; urgent pointer
            0x68, 0x65, 0x6c, 0x6c, 0x6f,
        ]
    }

    /// The same over IPv6, within a burst.
    #[rustfmt::skip]
    pub(in crate::carrier) fn data_v6() -> Vec<u8> {
        vec![
            0x60, 0x0f, 0xe7, 0xc9, // version 6; flow label 0xfe7c9
            0x00, 0x19, 0x06, 0x80, // payload 25; TCP; hop limit 128
            0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
            0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2,
            0xc3, 0x50, 0x01, 0xbb, // ports 50000, 443
            0x11, 0x22, 0x33, 0x45, // seq: the ISN + 1
            0xa1, 0xb2, 0xc3, 0xd5, // ack: the cookie + 1
            0x50, 0x10, 0xff, 0x00, // 5 words; ACK; window 0xff00 << 8
            0xa2, 0x8c, 0x00, 0x00, // checksum; urgent pointer
            0x68, 0x65, 0x6c, 0x6c, 0x6f,
        ]
    }

    /// The reprs behind the vectors, in the order above.
    fn vectors() -> [(Repr, Vec<u8>); 4] {
        let syn = Repr {
            source: client(4),
            destination: server(4),
            seq: ISN,
            ack: Seq(0),
            flags: Flags::SYN,
            window: 64_240,
            options: SynOptions::windows(1460, WINDOWS.window_scale),
            hop_limit: WINDOWS.hop_limit,
            flow_label: SCENERY.0,
            ip_id: SCENERY.1,
        };
        let syn_ack = Repr {
            source: server(6),
            destination: client(6),
            seq: COOKIE,
            ack: ISN.advanced_by(1),
            flags: Flags::SYN.with(Flags::ACK),
            window: 64_800,
            options: SynOptions::linux(1440, Some(LINUX.window_scale), true),
            hop_limit: LINUX.hop_limit,
            flow_label: 0x35b49,
            ip_id: 0,
        };
        let data = Repr {
            seq: ISN.advanced_by(1),
            ack: COOKIE.advanced_by(1),
            flags: Flags::ACK.with(Flags::PSH),
            window: WINDOWS.window(true).field,
            options: SynOptions::NONE,
            ip_id: SCENERY.1 + 2,
            ..syn
        };
        let data_over_v6 = Repr { source: client(6), destination: server(6), flags: Flags::ACK, ..data };
        [(syn, syn_v4()), (syn_ack, syn_ack_v6()), (data, data_v4()), (data_over_v6, data_v6())]
    }

    #[test]
    fn writes_the_vectors_over_whatever_was_in_the_buffer() {
        for (repr, expected) in vectors() {
            let mut packet = expected.clone();
            packet[..repr.header_len()].fill(0xa5);
            assert_eq!(repr.emit(&mut packet), Ok(()));
            assert_eq!(packet, expected, "{repr:?}");
        }
    }

    #[test]
    fn reads_the_vectors_back() {
        for (repr, packet) in vectors() {
            let segment = parse(&packet).unwrap();
            assert_eq!((segment.source, segment.destination), (repr.source, repr.destination));
            assert_eq!(
                (segment.seq, segment.ack, segment.flags, segment.window),
                (repr.seq, repr.ack, repr.flags, repr.window)
            );
            assert_eq!(Ok(segment.options), Options::parse(repr.options.as_bytes()));
            assert_eq!(segment.payload, repr.header_len()..packet.len());
        }
    }

    #[test]
    fn refuses_what_no_ip_header_can_describe() {
        let [(syn, _), _, (data, _), _] = vectors();
        assert_eq!(data.emit(&mut [0; 39]), Err(EmitError::TooShort));
        assert_eq!(syn.emit(&mut [0; 40]), Err(EmitError::TooShort));
        assert_eq!(data.emit(&mut vec![0; 65_536]), Err(EmitError::TooLong));
        assert_eq!(data.emit(&mut vec![0; 65_535]), Ok(()));
        let mixed = Repr { destination: server(6), ..data };
        assert_eq!(mixed.emit(&mut [0; 100]), Err(EmitError::MixedFamilies));
    }
}
