//! The TUN device: created and configured by the crate `tun`, its file descriptor read and written here.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd},
};

use rustix::{io::Errno, net::netdevice::name_to_index};
use socket2::{Domain, Socket, Type};
use tun::{AbstractDevice, Configuration};

use super::sys;

/// The MTU of the device: inner TCP ends here, so the kernel may hand over segments of up to 64 KB whatever the path's MTU.
pub const TUN_MTU: u16 = 65_520;

/// A TUN device that exists as long as this value: addresses and routes on it vanish with it.
#[derive(Debug)]
pub struct TunDevice {
    fd: OwnedFd,
    name: String,
    index: u32,
}

impl TunDevice {
    /// Creates the device, gives it its MTU and brings it up. Non-blocking.
    ///
    /// # Errors
    /// `AlreadyExists` if there is an interface of this name, `PermissionDenied` without CAP_NET_ADMIN, `NotFound` without
    /// /dev/net/tun, `InvalidInput` for a name that the kernel does not take. The text says what to do.
    pub fn create(name: &str) -> io::Result<Self> {
        // Asked first: the crate would silently attach to a device that is there already, if it is persistent.
        if index_of(name).is_ok() {
            return Err(explain(
                io::ErrorKind::AlreadyExists,
                name,
                "an interface of this name exists already; take that tunnel down, or choose another `interface`",
            ));
        }
        let mut configuration = Configuration::default();
        configuration.tun_name(name).mtu(TUN_MTU).up();
        let device = tun::create(&configuration).map_err(|error| create_error(name, error))?;
        device.set_nonblock()?;
        let name = device.tun_name().map_err(|error| create_error(name, error))?;
        let fd = sys::own(device.into_raw_fd())?;
        let index = index_of(&name)?;
        Ok(Self { fd, name, index })
    }

    /// Reads one IP packet; returns its length. A packet longer than `buffer` is cut short.
    ///
    /// # Errors
    /// `WouldBlock` when none is there. One that names the interface when somebody has deleted it.
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        rustix::io::read(&self.fd, buffer).map_err(|error| match error {
            Errno::BADFD => io::Error::other(format!("the interface {} was deleted", self.name)),
            other => other.into(),
        })
    }

    /// Gives one IP packet to the kernel.
    ///
    /// # Errors
    /// `InvalidInput` for what is no IP packet, EIO while the device is down.
    pub fn send(&self, packet: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(&self.fd, packet)?)
    }

    /// Gives one IP packet to the kernel; one that it does not take is lost, like any packet.
    pub fn offer(&self, packet: &[u8]) {
        if let Err(error) = self.send(packet) {
            tracing::debug!(%error, "the kernel refused a packet from the tunnel");
        }
    }

    /// The interface's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The interface's index.
    pub fn index(&self) -> u32 {
        self.index
    }
}

impl AsFd for TunDevice {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for TunDevice {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

fn index_of(name: &str) -> io::Result<u32> {
    let any_socket = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
    Ok(name_to_index(&any_socket, name)?)
}

fn create_error(name: &str, error: tun::Error) -> io::Error {
    let tun::Error::Io(error) = error else {
        return explain(io::ErrorKind::InvalidInput, name, &format!("{error}; choose another `interface`"));
    };
    let kind = error.kind();
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => explain(
            io::ErrorKind::NotFound,
            name,
            "/dev/net/tun is missing: load the kernel module `tun` (modprobe tun)",
        ),
        Some(libc::EPERM | libc::EACCES) => explain(
            io::ErrorKind::PermissionDenied,
            name,
            "needs CAP_NET_ADMIN and access to /dev/net/tun: run with sudo",
        ),
        Some(libc::EBUSY) => explain(io::ErrorKind::AlreadyExists, name, "another program just created it"),
        Some(libc::EINVAL) => {
            explain(io::ErrorKind::InvalidInput, name, "the kernel does not take this name")
        }
        Some(_) | None => explain(kind, name, &error.to_string()),
    }
}

fn explain(kind: io::ErrorKind, name: &str, what: &str) -> io::Error {
    io::Error::new(kind, format!("cannot create the interface {name}: {what}"))
}
