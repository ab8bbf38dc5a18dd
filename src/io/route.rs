//! The kernel's own choice of a source address, and how large packets from there may be.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsFd as _,
};

use pnet::datalink::NetworkInterface;
use socket2::{Domain, Protocol, Socket, Type};

use super::sys;

/// Returns the source address that a packet with `mark` towards `destination` would get.
///
/// Connects a UDP socket, which sends nothing, and reads its name.
///
/// # Errors
/// What routing answers: ENETUNREACH without a route, EPERM for a mark without CAP_NET_ADMIN.
pub fn source_for(destination: SocketAddr, mark: Option<u32>) -> io::Result<IpAddr> {
    let socket = Socket::new(Domain::for_address(destination), Type::DGRAM, Some(Protocol::UDP))?;
    if let Some(mark) = mark {
        socket.set_mark(mark)?;
    }
    socket.connect(&destination.into())?;
    let local = socket.local_addr()?.as_socket();
    local.map(|local| local.ip()).ok_or_else(|| io::Error::other("the kernel named no source address"))
}

/// Returns the MTU of the interface that has the address, in bytes.
///
/// What routes and ICMP say of smaller paths is not asked: the first is rarely set, and the second anyone can forge.
///
/// # Errors
/// No interface has the address, or it went away meanwhile.
pub fn mtu_at(source: IpAddr) -> io::Result<u16> {
    let has_it = |interface: &NetworkInterface| interface.ips.iter().any(|network| network.ip() == source);
    let interface = pnet::datalink::interfaces().into_iter().find(has_it);
    let interface = interface.ok_or_else(|| io::Error::other("no interface has the address"))?;
    let domain = if source.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    let mtu = sys::interface_mtu(socket.as_fd(), &interface.name)?;
    Ok(u16::try_from(mtu).unwrap_or(u16::MAX))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn answers_loopback_with_loopback() {
        let source = source_for((Ipv4Addr::LOCALHOST, 443).into(), None).unwrap();
        assert_eq!(source, IpAddr::V4(Ipv4Addr::LOCALHOST));
    }

    #[test]
    fn knows_the_mtu_of_loopback_and_of_no_address_of_others() {
        let mtu = mtu_at(Ipv4Addr::LOCALHOST.into()).unwrap();
        let expected = std::fs::read_to_string("/sys/class/net/lo/mtu").unwrap();
        assert_eq!(mtu, expected.trim().parse().unwrap_or(u16::MAX));
        assert!(mtu_at(Ipv4Addr::new(198, 51, 100, 1).into()).is_err());
    }
}
