//! The system calls that no safe crate offers: entering namespaces between fork and exec, batches of frames, signals.
#![expect(unsafe_code, reason = "thin wrappers around system calls, one each")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

/// Makes `command` start in the two namespaces, in a process group of its own, and die with the thread that starts it.
pub(crate) fn enter_before_exec(
    command: &mut Command,
    network: BorrowedFd<'_>,
    mounts: BorrowedFd<'_>,
) -> io::Result<()> {
    let (network, mounts) = (network.try_clone_to_owned()?, mounts.try_clone_to_owned()?);
    let enter = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?;
        move_into_link_name_space(mounts.as_fd(), Some(LinkNameSpaceType::Mount))?;
        Ok(())
    };
    // SAFETY: `enter` makes three system calls and nothing else: no allocation, no lock.
    unsafe { command.pre_exec(enter) };
    command.process_group(0);
    Ok(())
}

/// Bytes that a TCP socket has sent or is going to send, and of which no acknowledgement has come (`SIOCOUTQ`, tcp(7)).
pub(crate) fn unacknowledged(socket: BorrowedFd<'_>) -> io::Result<i32> {
    let mut bytes = 0;
    // SAFETY: `bytes` lives through the call, which writes an `int`.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) })?;
    Ok(bytes)
}

/// Gives the calling thread a mount namespace of its own.
pub(crate) fn unshare_mounts() -> io::Result<()> {
    // SAFETY: the flags touch no file descriptor table, so no `OwnedFd` of another thread loses its meaning.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) }?;
    Ok(())
}

/// Tells a packet socket not to show what this end of the link sends.
pub(crate) fn ignore_outgoing(socket: &impl AsFd) -> io::Result<()> {
    set_option(socket.as_fd(), libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1)
}

/// Sets the receive and the send buffer of a socket beyond the limits of ordinary users.
pub(crate) fn force_buffers(socket: &impl AsFd, bytes: i32) -> io::Result<()> {
    set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, bytes)?;
    set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, bytes)
}

/// The frames a packet socket had no room for since the last call.
pub(crate) fn overruns(socket: &impl AsFd) -> io::Result<u32> {
    // SAFETY: plain integers; zero is a valid value of each.
    let mut stats: libc::tpacket_stats = unsafe { std::mem::zeroed() };
    let mut length = length_of::<libc::tpacket_stats>();
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: `stats` and `length` live through the call and agree on the size.
    let result = unsafe {
        libc::getsockopt(
            fd,
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut stats).cast(),
            &raw mut length,
        )
    };
    check(result)?;
    Ok(stats.tp_drops)
}

/// Binds a packet socket to an interface, for frames of every protocol.
pub(crate) fn bind_to_interface(socket: &impl AsFd, index: u32) -> io::Result<()> {
    // SAFETY: plain integers; zero is a valid value of each.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?;
    address.sll_protocol = ETH_P_ALL.to_be();
    address.sll_ifindex = i32::try_from(index).map_err(io::Error::other)?;
    // SAFETY: `address` lives through the call and the length is its own.
    check(unsafe {
        libc::bind(socket.as_fd().as_raw_fd(), (&raw const address).cast(), length_of::<libc::sockaddr_ll>())
    })
}

/// A packet socket of this thread's network namespace, bound to nothing, non-blocking.
pub(crate) fn packet_socket() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: no pointers.
    let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
    check(fd)?;
    // SAFETY: the kernel has just given us this descriptor, nobody else owns it.
    Ok(unsafe { std::os::fd::FromRawFd::from_raw_fd(fd) })
}

/// Has the kernel say when each frame of a packet socket arrived.
pub(crate) fn stamp_arrivals(socket: &impl AsFd) -> io::Result<()> {
    set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)
}

/// Frames received with one system call. Everything is allocated once; the headers point into the other fields' heap, which never
/// moves.
pub(crate) struct Receiver {
    buffers: Vec<[u8; FRAME_ROOM]>,
    stamps: Vec<Stamp>,
    _slices: Vec<libc::iovec>,
    messages: Vec<libc::mmsghdr>,
    received: usize,
}

/// The one control message that is asked for: the kernel's clock (`CLOCK_REALTIME`) when the frame arrived.
#[derive(Clone, Copy)]
#[repr(C)]
struct Stamp {
    header: libc::cmsghdr,
    time: libc::timespec,
}

impl std::fmt::Debug for Receiver {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Receiver").field("received", &self.received).finish_non_exhaustive()
    }
}

impl Receiver {
    pub(crate) fn new() -> Self {
        let mut buffers = vec![[0; FRAME_ROOM]; BATCH];
        // SAFETY: plain integers; zero is a valid value of each.
        let mut stamps = vec![unsafe { std::mem::zeroed::<Stamp>() }; BATCH];
        let slice = |buffer: &mut [u8; FRAME_ROOM]| libc::iovec {
            iov_base: buffer.as_mut_ptr().cast(),
            iov_len: FRAME_ROOM,
        };
        let mut slices: Vec<libc::iovec> = buffers.iter_mut().map(slice).collect();
        let mut messages: Vec<libc::mmsghdr> = slices.iter_mut().map(message).collect();
        for (message, stamp) in messages.iter_mut().zip(&mut stamps) {
            message.msg_hdr.msg_control = std::ptr::from_mut(stamp).cast();
            message.msg_hdr.msg_controllen = size_of::<Stamp>();
        }
        Self { buffers, stamps, _slices: slices, messages, received: 0 }
    }

    /// Receives up to [`BATCH`] frames and says how many; those of the last call are forgotten. A frame longer than [`FRAME_ROOM`]
    /// is an error: somebody has left an offload on.
    pub(crate) fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        // The kernel has written over the lengths of what it used.
        for message in &mut self.messages[..self.received] {
            message.msg_hdr.msg_controllen = size_of::<Stamp>();
        }
        self.received = 0;
        let flags = libc::MSG_TRUNC | libc::MSG_DONTWAIT;
        let count = length_of_batch(&self.messages)?;
        let (fd, messages) = (socket.as_raw_fd(), self.messages.as_mut_ptr());
        // SAFETY: each header names one slice and one stamp, each slice one buffer; `self` owns them all and they live on.
        let received = unsafe { libc::recvmmsg(fd, messages, count, flags, std::ptr::null_mut()) };
        self.received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        match self.messages[..self.received].iter().find(|message| message.msg_len as usize > FRAME_ROOM) {
            Some(message) => {
                Err(io::Error::other(format!("a frame of {} bytes on an emulated link", message.msg_len)))
            }
            None => Ok(self.received),
        }
    }

    /// The frames of the last call, each with the time since the epoch when it arrived.
    pub(crate) fn frames(&self) -> impl Iterator<Item = (Option<Duration>, &[u8])> {
        let filled = self.messages[..self.received].iter().zip(&self.stamps).zip(&self.buffers);
        filled.map(|((message, stamp), buffer)| (stamp.arrival(message), &buffer[..message.msg_len as usize]))
    }
}

impl Stamp {
    fn arrival(&self, message: &libc::mmsghdr) -> Option<Duration> {
        let is_there = message.msg_hdr.msg_controllen >= size_of::<Self>()
            && (self.header.cmsg_level, self.header.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS);
        let seconds = u64::try_from(self.time.tv_sec).ok().filter(|_| is_there)?;
        Some(Duration::new(seconds, u32::try_from(self.time.tv_nsec).ok()?))
    }
}

/// Frames sent with one system call.
pub(crate) struct Sender {
    slices: Vec<libc::iovec>,
    messages: Vec<libc::mmsghdr>,
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Sender").finish_non_exhaustive()
    }
}

impl Sender {
    pub(crate) fn new() -> Self {
        let mut slices = vec![libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; BATCH];
        let messages = slices.iter_mut().map(message).collect();
        Self { slices, messages }
    }

    /// Sends up to [`BATCH`] frames and returns how many went out.
    pub(crate) fn send(&mut self, socket: BorrowedFd<'_>, frames: &[Vec<u8>]) -> io::Result<usize> {
        let frames = &frames[..frames.len().min(BATCH)];
        for (slice, frame) in self.slices.iter_mut().zip(frames) {
            *slice = libc::iovec { iov_base: frame.as_ptr().cast_mut().cast(), iov_len: frame.len() };
        }
        let count = length_of_batch(frames)?;
        let (fd, messages) = (socket.as_raw_fd(), self.messages.as_mut_ptr());
        // SAFETY: the first `count` headers name one slice each, which name one frame each; all live through the call, and the
        // kernel only reads them.
        let sent = unsafe { libc::sendmmsg(fd, messages, count, libc::MSG_DONTWAIT) };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}

fn length_of_batch<T>(batch: &[T]) -> io::Result<u32> {
    u32::try_from(batch.len()).map_err(io::Error::other)
}

/// Has each of `signals` written as one byte (its number) to `pipe`, for the rest of the process's life.
pub(crate) fn write_signals_to(pipe: OwnedFd, signals: &[i32]) -> io::Result<()> {
    SIGNAL_PIPE.store(std::os::fd::IntoRawFd::into_raw_fd(pipe), Ordering::Relaxed);
    for signal in signals {
        // SAFETY: all zero is an empty mask without flags; the handler is set below.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = on_signal as extern "C" fn(i32) as usize;
        action.sa_flags = libc::SA_RESTART;
        // SAFETY: `action` lives through the call, and the handler is safe at any moment.
        check(unsafe { libc::sigaction(*signal, &raw const action, std::ptr::null_mut()) })?;
    }
    Ok(())
}

extern "C" fn on_signal(signal: i32) {
    let byte = u8::try_from(signal).unwrap_or(0);
    let pipe: RawFd = SIGNAL_PIPE.load(Ordering::Relaxed);
    // SAFETY: `byte` lives through the call; write(2) may be called in a signal handler.
    unsafe { libc::write(pipe, (&raw const byte).cast(), 1) };
}

fn message(slice: &mut libc::iovec) -> libc::mmsghdr {
    // SAFETY: null pointers and zero lengths are a valid, empty header.
    let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
    message.msg_hdr.msg_iov = slice;
    message.msg_hdr.msg_iovlen = 1;
    message
}

fn set_option(socket: BorrowedFd<'_>, level: i32, name: i32, value: i32) -> io::Result<()> {
    // SAFETY: `value` lives through the call and the length is its own.
    check(unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), length_of::<i32>())
    })
}

fn length_of<T>() -> libc::socklen_t {
    u32::try_from(size_of::<T>()).unwrap_or(0)
}

fn check(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Frames in one system call: enough that its cost no longer counts.
pub(crate) const BATCH: usize = 64;

/// Room for one frame: an MTU of 1500 with a VLAN tag, rounded up.
const FRAME_ROOM: usize = 2048;

/// `ETH_P_ALL` of linux/if_ether.h.
const ETH_P_ALL: u16 = 0x0003;

/// Where the signal handler writes; a handler can reach nothing but a static.
static SIGNAL_PIPE: AtomicI32 = AtomicI32::new(-1);
