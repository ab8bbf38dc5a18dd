//! Sends whole IP packets through the kernel's routing and firewall (raw(7), `IPPROTO_RAW`): works on every kind of link.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
};

use rustix::net::sockopt::set_socket_send_buffer_size_force;
use socket2::{Domain, Protocol, Socket, Type};

use super::{
    Family,
    sys::{self, BATCH, Outgoing},
};

/// A raw socket for one IP version. The kernel fills in the IPv4 header checksum; nothing else is touched.
#[derive(Debug)]
pub struct RawSocket {
    socket: Socket,
    family: Family,
    stats: SendStats,
}

/// What a [`RawSocket`] sent and could not send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SendStats {
    /// Packets that the kernel took.
    pub sent: u64,
    /// Calls that ended early because the socket's buffer was full; those packets stay with the caller.
    pub would_block: u64,
    /// Packets lost in a full queue of the interface (ENOBUFS).
    pub no_buffers: u64,
    /// Packets refused by a firewall rule of this host (EPERM, EACCES).
    pub denied: u64,
    /// Packets without a route or neighbour (ENETUNREACH, EHOSTUNREACH, ENETDOWN).
    pub unreachable: u64,
    /// Packets whose source address is not (or no longer) this host's (EINVAL, EADDRNOTAVAIL). IPv6 only: the kernel sends
    /// IPv4 from any source.
    pub bad_source: u64,
    /// Packets larger than the interface's MTU (EMSGSIZE).
    pub too_big: u64,
    /// Packets that are not of this socket's IP version, or shorter than a header.
    pub malformed: u64,
    /// Packets lost to any other error.
    pub other: u64,
}

impl std::ops::Add for SendStats {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            sent: self.sent + other.sent,
            would_block: self.would_block + other.would_block,
            no_buffers: self.no_buffers + other.no_buffers,
            denied: self.denied + other.denied,
            unreachable: self.unreachable + other.unreachable,
            bad_source: self.bad_source + other.bad_source,
            too_big: self.too_big + other.too_big,
            malformed: self.malformed + other.malformed,
            other: self.other + other.other,
        }
    }
}

impl RawSocket {
    /// Opens a socket; `mark` goes on every packet (SO_MARK), for policy routing. Non-blocking.
    ///
    /// # Errors
    /// `PermissionDenied` without CAP_NET_RAW, or without CAP_NET_ADMIN for a mark.
    pub fn open(family: Family, mark: Option<u32>) -> io::Result<Self> {
        let (domain, protocol) = match family {
            Family::V4 => (Domain::IPV4, Protocol::from(libc::IPPROTO_RAW)),
            Family::V6 => (Domain::IPV6, Protocol::from(libc::IPPROTO_RAW)),
        };
        let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
        match family {
            Family::V4 => socket.set_header_included_v4(true)?,
            Family::V6 => socket.set_header_included_v6(true)?,
        }
        if let Some(mark) = mark {
            socket.set_mark(mark)?;
        }
        if set_socket_send_buffer_size_force(&socket, SEND_BUFFER).is_err() {
            socket.set_send_buffer_size(SEND_BUFFER)?;
        }
        Ok(Self { socket, family, stats: SendStats::default() })
    }

    /// Sends packets in order, each where its IP header says, routed from its source. Returns how many from the front are
    /// done with: sent, or dropped and counted because they alone could not be sent (the stats say why). The rest did not fit
    /// now; wait until the socket is writable.
    ///
    /// # Errors
    /// `WouldBlock` if not even the first fits now. If none could be sent and at least one failed, the last failure: then
    /// all packets are done with.
    pub fn send_batch(&mut self, packets: &[&[u8]]) -> io::Result<usize> {
        let sent_before = self.stats.sent;
        let mut failure = None;
        let mut done = 0;
        while let Some(rest) = packets.get(done..).filter(|rest| !rest.is_empty()) {
            match self.send_some(rest) {
                Ok(taken) => done += taken,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.stats.would_block += 1;
                    return if done == 0 { Err(error) } else { Ok(done) };
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.stats.count(&error);
                    failure = Some(error);
                    done += 1;
                }
            }
        }
        match failure {
            Some(error) if self.stats.sent == sent_before => Err(error),
            Some(_) | None => Ok(done),
        }
    }

    /// What was sent and dropped so far.
    pub fn stats(&self) -> SendStats {
        self.stats
    }

    /// One system call for the sound packets at the front; an error is that of the first packet.
    fn send_some(&mut self, packets: &[&[u8]]) -> io::Result<usize> {
        let nothing = Outgoing { packet: &[], source: UNSPECIFIED, destination: UNSPECIFIED };
        let mut outgoing = [nothing; BATCH];
        let mut count = 0;
        for (slot, packet) in outgoing.iter_mut().zip(packets) {
            let Some(parsed) = parse(packet, self.family) else {
                break;
            };
            *slot = parsed;
            count += 1;
        }
        let Some(batch) = outgoing.get(..count).filter(|batch| !batch.is_empty()) else {
            self.stats.malformed += 1;
            return Ok(1);
        };
        let sent = sys::send(self.socket.as_fd(), batch)?;
        self.stats.sent += u64::try_from(sent).unwrap_or(0);
        Ok(sent)
    }
}

impl SendStats {
    fn count(&mut self, error: &io::Error) {
        let counter = match error.raw_os_error() {
            Some(libc::ENOBUFS) => &mut self.no_buffers,
            Some(libc::EPERM | libc::EACCES) => &mut self.denied,
            Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ENETDOWN) => &mut self.unreachable,
            Some(libc::EINVAL | libc::EADDRNOTAVAIL) => &mut self.bad_source,
            Some(libc::EMSGSIZE) => &mut self.too_big,
            Some(_) | None => &mut self.other,
        };
        *counter += 1;
    }
}

impl AsFd for RawSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for RawSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// Reads the addresses of an IP packet; `None` if it is not one of this version.
fn parse(packet: &[u8], family: Family) -> Option<Outgoing<'_>> {
    let version = packet.first()? >> 4;
    let (source, destination) = match (family, version) {
        (Family::V4, 4) => (ipv4_at(packet, 12)?, ipv4_at(packet, 16)?),
        (Family::V6, 6) => (ipv6_at(packet, 8)?, ipv6_at(packet, 24)?),
        (Family::V4 | Family::V6, _) => return None,
    };
    Some(Outgoing { packet, source, destination })
}

fn ipv4_at(packet: &[u8], at: usize) -> Option<IpAddr> {
    let octets: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
    Some(Ipv4Addr::from(octets).into())
}

fn ipv6_at(packet: &[u8], at: usize) -> Option<IpAddr> {
    let octets: [u8; 16] = packet.get(at..at + 16)?.try_into().ok()?;
    Some(Ipv6Addr::from(octets).into())
}

const UNSPECIFIED: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
/// Our choice: as the receive buffer of the tap.
const SEND_BUFFER: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_addresses_of_both_versions() {
        let mut v4 = vec![0; 20];
        v4[0] = 0x45;
        v4[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        let outgoing = parse(&v4, Family::V4).unwrap();
        assert_eq!(
            (outgoing.source, outgoing.destination),
            ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap())
        );
        let mut v6 = vec![0; 40];
        (v6[0], v6[8], v6[23], v6[24], v6[39]) = (0x60, 0xfd, 1, 0xfd, 2);
        let outgoing = parse(&v6, Family::V6).unwrap();
        assert_eq!(
            (outgoing.source, outgoing.destination),
            ("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap())
        );
    }

    #[test]
    fn refuses_packets_of_the_other_version_and_short_ones() {
        assert!(parse(&[0x60; 40], Family::V4).is_none());
        assert!(parse(&[0x45; 20], Family::V6).is_none());
        assert!(parse(&[0x45; 19], Family::V4).is_none());
        assert!(parse(&[], Family::V4).is_none());
    }
}
