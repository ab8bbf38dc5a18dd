//! The kernel's own choice of a source address.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use socket2::{Domain, Protocol, Socket, Type};

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

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn answers_loopback_with_loopback() {
        let source = source_for((Ipv4Addr::LOCALHOST, 443).into(), None).unwrap();
        assert_eq!(source, IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
}
