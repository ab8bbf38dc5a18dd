//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).

use crate::ip::{IpHeader, UDP, u16_at};

/// The one's complement sum of `bytes`, on top of `start`.
#[must_use]
pub fn sum(bytes: &[u8], start: u32) -> u32 {
    let mut words = bytes.chunks_exact(2);
    let even: u64 = words.by_ref().map(|word| u64::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    let odd = words.remainder().first().map_or(0, |last| u64::from(*last) << 8);
    u32::from(fold(even + odd + u64::from(start)))
}

/// The checksum of `bytes` on top of a sum, as it stands in a header.
#[must_use]
pub fn checksum(bytes: &[u8], start: u32) -> u16 {
    !fold(u64::from(sum(bytes, start)))
}

/// The sum of the pseudo-header of TCP, UDP and ICMPv6 (RFC 9293, section 3.1; RFC 8200, section 8.1).
pub(crate) fn pseudo_header(frame: &[u8], header: &IpHeader) -> u32 {
    let addresses = if header.is_ipv6 { 8..40 } else { 12..20 };
    let addresses = frame.get(header.start + addresses.start..header.start + addresses.end);
    let length = header.end.saturating_sub(header.transport) as u64;
    let addresses = sum(addresses.unwrap_or_default(), 0);
    u32::from(fold(u64::from(addresses) + length + u64::from(header.protocol)))
}

/// What a checksum field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The complement of a sum that covers the changed bytes.
    Full,
    /// The sum of the pseudo-header only, left for an offload to complete.
    Partial,
    /// Nothing: UDP over IPv4 without a checksum.
    Absent,
}

/// Finds out what the checksum field at `at` of a TCP, UDP or ICMPv6 packet holds.
pub(crate) fn kind(frame: &[u8], header: &IpHeader, at: usize) -> Kind {
    let Some(field) = u16_at(frame, at) else {
        return Kind::Absent;
    };
    if header.protocol == UDP && field == 0 {
        return Kind::Absent;
    }
    let pseudo = pseudo_header(frame, header);
    if u32::from(field) != pseudo {
        return Kind::Full;
    }
    // One full checksum in 65,536 looks like a partial one, so the whole packet decides.
    let packet = frame.get(header.transport..header.end).unwrap_or_default();
    if checksum(packet, pseudo) == 0 { Kind::Full } else { Kind::Partial }
}

/// Whether the checksum field at `at` of a TCP or ICMPv6 packet is right, or partial and so left for an offload to complete.
pub(crate) fn is_right(frame: &[u8], header: &IpHeader, at: usize) -> bool {
    let pseudo = pseudo_header(frame, header);
    let packet = frame.get(header.transport..header.end).unwrap_or_default();
    u16_at(frame, at).is_some_and(|field| u32::from(field) == pseudo) || checksum(packet, pseudo) == 0
}

/// Accounts for a change of `old` into `new`, at an even offset, in the checksum field at `at`.
pub(crate) fn update(frame: &mut [u8], at: usize, kind: Kind, old: &[u8], new: &[u8]) {
    let Some(field) = u16_at(frame, at) else {
        return;
    };
    let difference = u64::from(sum(new, 0)) + u64::from(!fold(u64::from(sum(old, 0))));
    let updated = match kind {
        Kind::Absent => return,
        Kind::Full => !fold(u64::from(!field) + difference),
        Kind::Partial => fold(u64::from(field) + difference),
    };
    frame[at..at + 2].copy_from_slice(&updated.to_be_bytes());
}

/// A sum in 16 bits, the carries added back.
fn fold(sum: u64) -> u16 {
    let mut sum = sum;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_the_example_of_rfc_1071() {
        assert_eq!(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7], 0), 0xddf2);
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7], 0), !0xddf2);
        assert_eq!(sum(&[0x12, 0x34, 0x56], 0), 0x1234 + 0x5600);
    }

    #[test]
    fn an_updated_checksum_is_the_one_of_the_changed_bytes() {
        let mut bytes = [0, 0, 0x12, 0x34, 0xff, 0xff, 0x00, 0x00, 0x80];
        let before = checksum(&bytes, 0);
        bytes[..2].copy_from_slice(&before.to_be_bytes());
        for new in [[0, 0, 0, 0], [0xff, 0xff, 0xff, 0xff], [0x12, 0x34, 0xff, 0xff], [9, 8, 7, 6]] {
            let old: [u8; 4] = bytes[2..6].try_into().unwrap();
            update(&mut bytes, 0, Kind::Full, &old, &new);
            bytes[2..6].copy_from_slice(&new);
            assert_eq!(checksum(&bytes, 0), 0, "{new:?}");
        }
    }
}
