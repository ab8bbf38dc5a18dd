//! The system calls that no well-kept crate wraps, one a function.
#![expect(unsafe_code, reason = "system calls; the rest of the program needs none")]

use std::{
    io,
    mem::{size_of, zeroed},
    net::IpAddr,
    ops::Range,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    ptr, slice,
};

use tokio::io::unix::AsyncFd;

/// Packets of one receive or send call. Our choice: at 64 a call costs 5-10 % less than at 32 and 64 KB receive buffers
/// would leave the cache; more gains nothing.
pub(super) const BATCH: usize = 32;

/// What the kernel said of one received frame.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Received {
    /// Bytes in the buffer, virtio header included.
    pub(super) length: usize,
    /// The buffer was too small.
    pub(super) is_truncated: bool,
    /// Index of the interface it came in by.
    pub(super) interface: u32,
    /// Where the IP header begins in the frame, counted without the virtio header.
    pub(super) network_offset: Option<usize>,
}

/// One packet to send and the addresses that route it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outgoing<'a> {
    pub(super) packet: &'a [u8],
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
}

/// Lets tokio watch a descriptor of ours.
pub(super) fn watch(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` names the same open descriptor for as long as it lives, and `AsyncFd` owns it until it
    // has deregistered it.
    unsafe { AsyncFd::register(descriptor) }.map_err(io::Error::from)
}

/// Binds a packet socket to a protocol (host byte order) on all interfaces (packet(7)).
pub(super) fn bind_packet(fd: BorrowedFd<'_>, protocol: u16) -> io::Result<()> {
    // SAFETY: sockaddr_ll is plain data, for which zero is valid.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    address.sll_family = address_family(libc::AF_PACKET);
    address.sll_protocol = protocol.to_be();
    // SAFETY: the pointer and the length describe `address`, which outlives the call.
    let result =
        unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length_of::<libc::sockaddr_ll>()) };
    check(result).map(|_| ())
}

/// Switches an integer option of a packet socket on (packet(7)).
pub(super) fn enable_packet_option(fd: BorrowedFd<'_>, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the pointer and the length describe `on`, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_PACKET,
            option,
            (&raw const on).cast(),
            length_of::<libc::c_int>(),
        )
    };
    check(result).map(|_| ())
}

/// Reads and resets `PACKET_STATISTICS`; returns the packets dropped because the receive buffer was full.
pub(super) fn take_packet_drops(fd: BorrowedFd<'_>) -> io::Result<u32> {
    // SAFETY: tpacket_stats is plain data, for which zero is valid.
    let mut stats: libc::tpacket_stats = unsafe { zeroed() };
    let mut length = length_of::<libc::tpacket_stats>();
    // SAFETY: the pointers describe `stats` and `length`, which outlive the call; the kernel writes `length` bytes at most.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut stats).cast(),
            &raw mut length,
        )
    };
    check(result).map(|_| stats.tp_drops)
}

/// Reads the MTU of an interface (netdevice(7), `SIOCGIFMTU`); any socket will do.
pub(super) fn interface_mtu(fd: BorrowedFd<'_>, name: &str) -> io::Result<i32> {
    // SAFETY: ifreq is plain data, for which zero is valid.
    let mut request: libc::ifreq = unsafe { zeroed() };
    let room = request.ifr_name.len() - 1;
    for (slot, byte) in request.ifr_name.iter_mut().zip(name.bytes().take(room)) {
        *slot = libc::c_char::from_ne_bytes([byte]);
    }
    // SAFETY: the pointer describes `request`, which outlives the call; the kernel writes no more than it.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::SIOCGIFMTU as _, &raw mut request) };
    check(result)?;
    // SAFETY: the kernel has written this field.
    Ok(unsafe { request.ifr_ifru.ifru_mtu })
}

/// Receives up to [`BATCH`] frames without waiting, each into its own `frame` bytes of `buffer`; says how many.
pub(super) fn receive(
    fd: BorrowedFd<'_>,
    buffer: &mut [u8],
    frame: usize,
    received: &mut [Received; BATCH],
) -> io::Result<usize> {
    // SAFETY: all of these are plain data, for which zero is valid (null pointers, no lengths).
    let (mut messages, mut vectors, mut names, mut controls) = unsafe {
        zeroed::<([libc::mmsghdr; BATCH], [libc::iovec; BATCH], [libc::sockaddr_ll; BATCH], [Control; BATCH])>(
        )
    };
    let mut count = 0;
    for (index, part) in buffer.chunks_exact_mut(frame).take(BATCH).enumerate() {
        vectors[index] = libc::iovec { iov_base: part.as_mut_ptr().cast(), iov_len: part.len() };
        let header = &mut messages[index].msg_hdr;
        header.msg_name = (&raw mut names[index]).cast();
        header.msg_namelen = length_of::<libc::sockaddr_ll>();
        header.msg_iov = &raw mut vectors[index];
        header.msg_iovlen = 1;
        header.msg_control = (&raw mut controls[index]).cast();
        header.msg_controllen = size_of::<Control>() as _;
        count += 1;
    }
    // SAFETY: every pointer in the first `count` messages describes memory of its given length that lives until the end of
    // this function, and no two overlap; with no timeout the call writes nothing else.
    let result = unsafe {
        libc::recvmmsg(fd.as_raw_fd(), messages.as_mut_ptr(), count, libc::MSG_DONTWAIT as _, ptr::null_mut())
    };
    let got = usize::try_from(check(result)?).unwrap_or(0);
    for index in 0..got.min(BATCH) {
        let header = &messages[index].msg_hdr;
        received[index] = Received {
            length: usize::try_from(messages[index].msg_len).unwrap_or(usize::MAX),
            is_truncated: header.msg_flags & libc::MSG_TRUNC != 0,
            interface: u32::try_from(names[index].sll_ifindex).unwrap_or(0),
            network_offset: network_offset(header),
        };
    }
    Ok(got)
}

/// Finds `PACKET_AUXDATA` among the control messages of a received frame.
fn network_offset(header: &libc::msghdr) -> Option<usize> {
    // SAFETY: the kernel filled `header`, whose control buffer is alive; the macro stays inside it.
    let mut control = unsafe { libc::CMSG_FIRSTHDR(header) };
    // SAFETY: a pointer that the CMSG macros return is null or to a whole header inside the control buffer.
    while let Some(message) = unsafe { control.as_ref() } {
        if (message.cmsg_level, message.cmsg_type) == (libc::SOL_PACKET, libc::PACKET_AUXDATA) {
            // SAFETY: a message of this type holds one tpacket_auxdata; it may be unaligned.
            let data: libc::tpacket_auxdata =
                unsafe { libc::CMSG_DATA(control).cast::<libc::tpacket_auxdata>().read_unaligned() };
            return Some(usize::from(data.tp_net));
        }
        // SAFETY: as for CMSG_FIRSTHDR; `control` is a message of this header.
        control = unsafe { libc::CMSG_NXTHDR(header, control) };
    }
    None
}

/// Sends the first [`BATCH`] of `packets` without waiting, each to its destination and routed from its source; says how many
/// the kernel took.
pub(super) fn send(fd: BorrowedFd<'_>, packets: &[Outgoing<'_>]) -> io::Result<usize> {
    // SAFETY: all of these are plain data, for which zero is valid (null pointers, no lengths).
    let (mut messages, mut vectors, mut names, mut controls) = unsafe {
        zeroed::<([libc::mmsghdr; BATCH], [libc::iovec; BATCH], [libc::sockaddr_in6; BATCH], [Control; BATCH])>(
        )
    };
    let mut count = 0;
    for (index, outgoing) in packets.iter().take(BATCH).enumerate() {
        let bytes = outgoing.packet;
        vectors[index] = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        let header = &mut messages[index].msg_hdr;
        header.msg_iov = &raw mut vectors[index];
        header.msg_iovlen = 1;
        header.msg_name = (&raw mut names[index]).cast();
        header.msg_namelen = write_name(&mut names[index], outgoing.destination);
        header.msg_control = (&raw mut controls[index]).cast();
        header.msg_controllen = size_of::<Control>() as _;
        header.msg_controllen = write_source(header, outgoing.source) as _;
        count += 1;
    }
    // SAFETY: every pointer in the first `count` messages describes memory of its given length that lives until the end of
    // this function; sending writes only the messages' lengths.
    let result =
        unsafe { libc::sendmmsg(fd.as_raw_fd(), messages.as_mut_ptr(), count, libc::MSG_DONTWAIT as _) };
    check(result).map(|sent| usize::try_from(sent).unwrap_or(0))
}

/// Writes a destination and returns its length. The port stays 0, as raw sockets want it.
fn write_name(name: &mut libc::sockaddr_in6, destination: IpAddr) -> libc::socklen_t {
    match destination {
        IpAddr::V4(address) => {
            // SAFETY: sockaddr_in is plain data, for which zero is valid.
            let mut short: libc::sockaddr_in = unsafe { zeroed() };
            short.sin_family = address_family(libc::AF_INET);
            short.sin_addr.s_addr = u32::from_ne_bytes(address.octets());
            // SAFETY: a sockaddr_in6 is larger than a sockaddr_in and at least as aligned; both are plain data.
            unsafe { (&raw mut *name).cast::<libc::sockaddr_in>().write(short) };
            length_of::<libc::sockaddr_in>()
        }
        IpAddr::V6(address) => {
            name.sin6_family = address_family(libc::AF_INET6);
            name.sin6_addr.s6_addr = address.octets();
            length_of::<libc::sockaddr_in6>()
        }
    }
}

/// Writes the source as IP_PKTINFO or IPV6_PKTINFO (ip(7), ipv6(7)) and returns the length of all control messages.
fn write_source(header: &mut libc::msghdr, source: IpAddr) -> usize {
    match source {
        IpAddr::V4(address) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(address.octets()) },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            write_control(header, libc::IPPROTO_IP, libc::IP_PKTINFO, info)
        }
        IpAddr::V6(address) => {
            let info = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr { s6_addr: address.octets() },
                ipi6_ifindex: 0,
            };
            write_control(header, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info)
        }
    }
}

fn write_control<T>(header: &mut libc::msghdr, level: libc::c_int, kind: libc::c_int, value: T) -> usize {
    const { assert!(size_of::<T>() + size_of::<libc::cmsghdr>() <= size_of::<Control>()) };
    let size = u32::try_from(size_of::<T>()).unwrap_or(0);
    // SAFETY: the header's control buffer is a whole, aligned `Control`, which holds one message of this size (asserted
    // above), so the macros' pointers are inside it.
    unsafe {
        let control = libc::CMSG_FIRSTHDR(header);
        (*control).cmsg_level = level;
        (*control).cmsg_type = kind;
        (*control).cmsg_len = libc::CMSG_LEN(size) as _;
        libc::CMSG_DATA(control).cast::<T>().write_unaligned(value);
    }
    // SAFETY: pure arithmetic.
    usize::try_from(unsafe { libc::CMSG_SPACE(size) }).unwrap_or(0)
}

/// How large a page is (sysconf(3)).
pub(super) fn page_size() -> usize {
    // SAFETY: asks for a number.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// Memory of this process that is never unmapped: address space that the kernel backs page by page when it is written.
#[derive(Debug)]
pub(super) struct Mapping {
    start: usize,
    length: usize,
}

impl Mapping {
    /// Maps `length` bytes of zeros, and hands them out.
    pub(super) fn new(length: usize) -> io::Result<(Self, &'static mut [u8])> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new anonymous mapping at a place of the kernel's choice touches no memory that is there.
        let start =
            unsafe { libc::mmap(ptr::null_mut(), length, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel gave `length` readable and writable bytes, which nobody unmaps, and this is the only reference.
        let bytes = unsafe { slice::from_raw_parts_mut(start.cast::<u8>(), length) };
        Ok((Self { start: start.expose_provenance(), length }, bytes))
    }

    /// Asks the kernel for small pages: of large ones, a byte takes two megabytes (madvise(2), `MADV_NOHUGEPAGE`).
    pub(super) fn refuse_huge_pages(&self) -> io::Result<()> {
        let start = ptr::with_exposed_provenance_mut(self.start);
        // SAFETY: the range is this mapping; the advice changes no content.
        check(unsafe { libc::madvise(start, self.length, libc::MADV_NOHUGEPAGE) }).map(|_| ())
    }

    /// Gives the pages back that lie wholly in `range` of the mapping (madvise(2), `MADV_DONTNEED`): they read as zeros then.
    /// Who owns the bytes has said that it needs none of them.
    pub(super) fn discard(&self, range: Range<usize>) -> io::Result<()> {
        let page = page_size();
        let (start, end) = (range.start.next_multiple_of(page), range.end.min(self.length) / page * page);
        if start >= end {
            return Ok(());
        }
        let address = ptr::with_exposed_provenance_mut(self.start + start);
        // SAFETY: the range is inside this mapping, which is private and anonymous. The bytes are plain ones, for which any
        // value is valid, and no reference to them is in use while this call runs, because their owner makes it.
        check(unsafe { libc::madvise(address, end - start, libc::MADV_DONTNEED) }).map(|_| ())
    }
}

/// Takes over a descriptor that its owner gave away (`into_raw_fd`).
pub(super) fn own(fd: RawFd) -> io::Result<OwnedFd> {
    check(fd)?;
    // SAFETY: the caller got it from `into_raw_fd`, so it is open and nobody else closes it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[expect(clippy::cast_possible_truncation, reason = "sizes of socket structures")]
const fn length_of<T>() -> libc::socklen_t {
    size_of::<T>() as libc::socklen_t
}

#[expect(clippy::cast_possible_truncation, reason = "address families are below 50")]
const fn address_family(family: libc::c_int) -> libc::sa_family_t {
    family.cast_unsigned() as libc::sa_family_t
}

/// Room for one control message, aligned as a `cmsghdr`.
type Control = [u64; 8];
