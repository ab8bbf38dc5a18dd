//! Cuts merged packets: GRO and TSO hand over many TCP segments of a flow as one IP packet.
//!
//! Nothing is copied but headers: after a segment is handed out its bytes are spent, and the IP and TCP headers go right in
//! front of the next segment's payload, over them.
//!
//! ```text
//! | IP+TCP | payload 1 | payload 2 | payload 3 |      handed out first:  | IP+TCP | payload 1 |
//!          |       | IP+TCP | payload 2 |                      then:      | IP+TCP | payload 2 |
//! ```
//! The IPv4 header checksum stays right; TCP's does not (it is partial to begin with on most such packets).

/// A packet whose headers do not agree with its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// Cuts off what follows the IP packet (Ethernet pads to 60 bytes).
///
/// # Errors
/// The headers contradict each other or the bytes there are.
pub fn trim(bytes: &mut [u8]) -> Result<&mut [u8], Malformed> {
    let total = Headers::parse(bytes)?.total_length;
    bytes.get_mut(..total).ok_or(Malformed)
}

/// Hands out the TCP segments of one trimmed IP packet, each as an IP packet; `segment` = payload bytes of each but the last.
/// Returns how many there were.
///
/// # Errors
/// Nothing is handed out if `segment` is smaller than [`SMALLEST_SEGMENT`], or the headers make no sense.
pub fn cut(packet: &mut [u8], segment: usize, mut take: impl FnMut(&mut [u8])) -> Result<usize, Malformed> {
    let headers = Headers::parse(packet)?;
    if segment < SMALLEST_SEGMENT {
        return Err(Malformed);
    }
    let mut original = [0; LONGEST_HEADERS];
    let original = original.get_mut(..headers.length).ok_or(Malformed)?;
    original.copy_from_slice(packet.get(..headers.length).ok_or(Malformed)?);
    let payload = packet.len() - headers.length;
    let count = payload.div_ceil(segment).max(1);
    for index in 0..count {
        let start = index * segment;
        let end = headers.length + payload.min(start + segment);
        let piece = packet.get_mut(start..end).ok_or(Malformed)?;
        headers.write(piece, original, start, index + 1 == count);
        take(piece);
    }
    Ok(count)
}

/// Where the headers of an IP packet with TCP end. Every range that the methods touch was checked against the packet.
#[derive(Debug, Clone, Copy)]
struct Headers {
    is_v4: bool,
    /// Bytes of the IP header.
    ip: usize,
    /// Bytes of the IP and TCP headers.
    length: usize,
    /// Bytes of the packet as its IP header has it.
    total_length: usize,
}

impl Headers {
    fn parse(packet: &[u8]) -> Result<Self, Malformed> {
        let first = *packet.first().ok_or(Malformed)?;
        let is_v4 = first >> 4 == 4;
        let (ip, total_length) = match first >> 4 {
            4 => (usize::from(first & 0xf) * 4, read_u16(packet, IPV4_TOTAL_LENGTH)?),
            6 => (IPV6_HEADER, IPV6_HEADER + read_u16(packet, IPV6_PAYLOAD_LENGTH)?),
            _ => return Err(Malformed),
        };
        let tcp = usize::from(*packet.get(ip + TCP_DATA_OFFSET).ok_or(Malformed)? >> 4) * 4;
        let length = ip + tcp;
        let is_sound = tcp >= TCP_HEADER && (!is_v4 || ip >= IPV4_HEADER);
        if !is_sound || length > total_length || total_length > packet.len() {
            return Err(Malformed);
        }
        Ok(Self { is_v4, ip, length, total_length })
    }

    /// Gives `piece` the headers of the segment that begins `offset` bytes into the payload.
    fn write(&self, piece: &mut [u8], original: &[u8], offset: usize, is_last: bool) {
        let length = piece.len();
        let Some(header) = piece.get_mut(..self.length) else {
            return;
        };
        header.copy_from_slice(original);
        let (ip, tcp) = header.split_at_mut(self.ip);
        if self.is_v4 {
            write_ipv4_length(ip, length);
        } else {
            write_u16(ip, IPV6_PAYLOAD_LENGTH, length - IPV6_HEADER);
        }
        if let Some(bytes) =
            tcp.get_mut(TCP_SEQ..TCP_SEQ + 4).and_then(|bytes| <&mut [u8; 4]>::try_from(bytes).ok())
        {
            let seq = u32::from_be_bytes(*bytes);
            *bytes = seq.wrapping_add(u32::try_from(offset).unwrap_or(0)).to_be_bytes();
        }
        if let (false, Some(flags)) = (is_last, tcp.get_mut(TCP_FLAGS)) {
            *flags &= !(FIN | PSH);
        }
        if let (true, Some(flags)) = (offset > 0, tcp.get_mut(TCP_FLAGS)) {
            *flags &= !CWR;
        }
    }
}

/// Changes the length and, as RFC 1624 has it, the checksum with it.
fn write_ipv4_length(ip: &mut [u8], length: usize) {
    let (Ok(old), Ok(checksum)) = (read_u16(ip, IPV4_TOTAL_LENGTH), read_u16(ip, IPV4_CHECKSUM)) else {
        return;
    };
    write_u16(ip, IPV4_TOTAL_LENGTH, length);
    let sum = (!checksum & 0xffff) + (!old & 0xffff) + length;
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    write_u16(ip, IPV4_CHECKSUM, !folded & 0xffff);
}

fn read_u16(bytes: &[u8], at: usize) -> Result<usize, Malformed> {
    let field = bytes.get(at..at + 2).and_then(|field| <[u8; 2]>::try_from(field).ok()).ok_or(Malformed)?;
    Ok(usize::from(u16::from_be_bytes(field)))
}

fn write_u16(bytes: &mut [u8], at: usize, value: usize) {
    if let (Some(field), Ok(value)) = (bytes.get_mut(at..at + 2), u16::try_from(value)) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}

/// Our choice: no authenticated packet is smaller, and a hostile neighbour's vnet header cannot turn one packet into 64 K.
pub const SMALLEST_SEGMENT: usize = 16;

const IPV4_HEADER: usize = 20;
const IPV4_TOTAL_LENGTH: usize = 2;
const IPV4_CHECKSUM: usize = 10;
const IPV6_HEADER: usize = 40;
const IPV6_PAYLOAD_LENGTH: usize = 4;
const TCP_HEADER: usize = 20;
const TCP_SEQ: usize = 4;
const TCP_DATA_OFFSET: usize = 12;
const TCP_FLAGS: usize = 13;
const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;
/// IPv4 with options and TCP with options are the longest: 60 + 60.
const LONGEST_HEADERS: usize = 120;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ACK: u8 = 0x10;

    fn packet(is_v4: bool, options: usize, payload: &[u8]) -> Vec<u8> {
        let mut tcp = vec![0; 20 + options];
        tcp[4..8].copy_from_slice(&0xffff_ff00_u32.to_be_bytes());
        tcp[12] = u8::try_from((20 + options) / 4 * 16).unwrap();
        tcp[13] = ACK | PSH | FIN | CWR;
        let rest = u16::try_from(tcp.len() + payload.len()).unwrap();
        let mut packet = if is_v4 {
            let mut ip = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
            ip[2..4].copy_from_slice(&(rest + 20).to_be_bytes());
            let checksum = ipv4_checksum(&ip);
            ip[10..12].copy_from_slice(&checksum.to_be_bytes());
            ip
        } else {
            let mut ip = vec![0; 40];
            ip[0] = 0x60;
            ip[4..6].copy_from_slice(&rest.to_be_bytes());
            ip[6] = 6;
            ip
        };
        packet.extend(tcp);
        packet.extend(payload);
        packet
    }

    fn ipv4_checksum(header: &[u8]) -> u16 {
        pnet::packet::ipv4::checksum(&pnet::packet::ipv4::Ipv4Packet::new(header).unwrap())
    }

    fn pieces(packet: &mut [u8], segment: usize) -> Vec<Vec<u8>> {
        let mut pieces = Vec::new();
        let count = cut(packet, segment, |piece| {
            pieces.push(piece.to_vec());
            // The taker opens its packet in place; that must not reach the next one.
            piece.fill(0xee);
        });
        assert_eq!(count, Ok(pieces.len()));
        pieces
    }

    fn payload(length: usize) -> Vec<u8> {
        (0..=u8::MAX).cycle().take(length).collect()
    }

    #[test]
    fn cuts_every_segment_with_its_own_headers() {
        for (is_v4, options) in [(true, 0), (true, 40), (false, 0), (false, 12)] {
            let payload = payload(3 * 1400 + 77);
            let ip = if is_v4 { 20 } else { 40 };
            let header = ip + 20 + options;
            let pieces = pieces(&mut packet(is_v4, options, &payload), 1400);
            assert_eq!(pieces.len(), 4);
            for (index, piece) in pieces.iter().enumerate() {
                let is_last = index == 3;
                assert_eq!(piece.len(), header + if is_last { 77 } else { 1400 });
                assert_eq!(Headers::parse(piece).unwrap().total_length, piece.len());
                let seq = u32::from_be_bytes(piece[ip + 4..ip + 8].try_into().unwrap());
                assert_eq!(seq, 0xffff_ff00_u32.wrapping_add(u32::try_from(index * 1400).unwrap()));
                let first_only = if index == 0 { CWR } else { 0 };
                assert_eq!(piece[ip + 13], ACK | first_only | if is_last { PSH | FIN } else { 0 });
                if is_v4 {
                    assert_eq!(piece[10..12], ipv4_checksum(&piece[..20]).to_be_bytes(), "segment {index}");
                }
            }
            let joined: Vec<u8> = pieces.iter().flat_map(|piece| &piece[header..]).copied().collect();
            assert_eq!(joined, payload);
        }
    }

    #[test]
    fn leaves_a_packet_that_fits_one_segment_as_it_is() {
        for length in [0, 1, 1399, 1400] {
            let whole = packet(true, 0, &payload(length));
            assert_eq!(pieces(&mut whole.clone(), 1400), [whole]);
        }
    }

    #[test]
    fn cuts_segments_shorter_than_their_headers() {
        let payload = payload(100);
        let pieces = pieces(&mut packet(false, 40, &payload), SMALLEST_SEGMENT);
        assert_eq!(pieces.len(), 7);
        assert_eq!(pieces.iter().flat_map(|piece| &piece[100..]).copied().collect::<Vec<_>>(), payload);
    }

    #[test]
    fn refuses_hostile_segment_sizes() {
        for segment in 0..SMALLEST_SEGMENT {
            let mut packet = packet(true, 0, &payload(3000));
            assert_eq!(cut(&mut packet, segment, |_| panic!("handed out")), Err(Malformed));
        }
        let mut packet = packet(true, 0, &payload(3000));
        assert_eq!(cut(&mut packet, usize::from(u16::MAX), |_| ()), Ok(1));
    }

    #[test]
    fn trims_link_padding_and_refuses_lengths_beyond_the_packet() {
        for is_v4 in [true, false] {
            let whole = packet(is_v4, 0, &[7]);
            let mut padded = whole.clone();
            padded.resize(whole.len() + 9, 0xaa);
            assert_eq!(trim(&mut padded).unwrap(), whole);
            let mut short = whole[..whole.len() - 1].to_vec();
            assert_eq!(trim(&mut short), Err(Malformed));
        }
    }

    #[test]
    fn refuses_headers_that_contradict_themselves() {
        let broken = |at: usize, value: u8| {
            let mut packet = packet(true, 0, &payload(100));
            packet[at] = value;
            trim(&mut packet).map(|_| ())
        };
        assert_eq!(broken(0, 0x44), Err(Malformed), "IP header of 16 bytes");
        assert_eq!(broken(0, 0x55), Err(Malformed), "version 5");
        assert_eq!(broken(32, 0x40), Err(Malformed), "TCP header of 16 bytes");
        assert_eq!(broken(3, 39), Err(Malformed), "shorter than its headers");
    }

    proptest! {
        #[test]
        fn never_panics_whatever_arrives(mut bytes in proptest::collection::vec(any::<u8>(), 0..400), first in 0_u8..=255, segment in 0_usize..500) {
            if let Some(byte) = bytes.first_mut() {
                *byte = first;
            }
            if let Ok(packet) = trim(&mut bytes) {
                let mut total = 0;
                let result = cut(packet, segment, |piece| total += piece.len());
                prop_assert!(result.is_err() || total > 0);
            }
        }
    }
}
