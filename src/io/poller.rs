//! Readiness of many descriptors behind one that tokio watches: an epoll instance of our own.
//!
//! Tasks and wakers per flow would cost more than the flow; here a wake-up is one `epoll_wait` that names what is ready.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::sys;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use tokio::io::unix::AsyncFd;

/// An epoll instance that can be awaited.
pub struct Poller {
    epoll: AsyncFd<OwnedFd>,
    events: Vec<epoll::Event>,
}

/// What happened to the descriptor registered under `token`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// What the descriptor was registered as.
    pub token: u64,
    /// It can be read, or has ended or failed.
    pub readable: bool,
    /// It can be written, or has failed.
    pub writable: bool,
    /// A read that returns less than it could is not all that there is: an end or an error follows, or a byte that was marked as
    /// urgent, before which reads stop.
    pub more: bool,
    /// It has failed, or both its directions have ended.
    pub failed: bool,
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poller").field("epoll", &self.epoll).finish_non_exhaustive()
    }
}

impl Poller {
    /// Makes an empty poller.
    ///
    /// # Errors
    /// The system has no descriptor left. Must be called inside a tokio runtime.
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { epoll: sys::watch(epoll)?, events: Vec::with_capacity(EVENTS) })
    }

    /// Reports `fd` as readable for as long as it is.
    ///
    /// # Errors
    /// The descriptor cannot be watched.
    pub fn watch_readable(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        self.add(fd, token, epoll::EventFlags::IN)
    }

    /// Reports each time `fd` becomes readable or writable; it closes itself out of the poller.
    ///
    /// # Errors
    /// The descriptor cannot be watched.
    pub fn watch_edges(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        use epoll::EventFlags as Flags;
        self.add(fd, token, Flags::IN | Flags::OUT | Flags::PRI | Flags::RDHUP | Flags::ET)
    }

    /// Registers `fd` and reports nothing: [`Self::await_room`] and [`Self::await_input`] ask.
    ///
    /// # Errors
    /// The descriptor cannot be watched.
    pub fn watch_on_demand(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        self.add(fd, token, epoll::EventFlags::ONESHOT)
    }

    /// Reports once, as soon as it holds, that `fd` can be written; it was registered by [`Self::watch_on_demand`].
    ///
    /// # Errors
    /// The descriptor is not registered.
    pub fn await_room(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        self.ask_once(fd, token, epoll::EventFlags::OUT)
    }

    /// Reports once, as soon as it holds, that `fd` can be read; it was registered by [`Self::watch_on_demand`].
    ///
    /// # Errors
    /// The descriptor is not registered.
    pub fn await_input(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        self.ask_once(fd, token, epoll::EventFlags::IN)
    }

    fn ask_once(&self, fd: impl AsFd, token: u64, flags: epoll::EventFlags) -> io::Result<()> {
        let flags = flags | epoll::EventFlags::ONESHOT;
        Ok(epoll::modify(self.epoll.get_ref(), fd, epoll::EventData::new_u64(token), flags)?)
    }

    fn add(&self, fd: impl AsFd, token: u64, flags: epoll::EventFlags) -> io::Result<()> {
        Ok(epoll::add(self.epoll.get_ref(), fd, epoll::EventData::new_u64(token), flags)?)
    }

    /// Waits until something is ready and appends what is to `ready`.
    ///
    /// # Errors
    /// `epoll_wait` failed.
    pub async fn wait(&mut self, ready: &mut Vec<Readiness>) -> io::Result<()> {
        loop {
            let mut guard = self.epoll.readable().await?;
            self.events.clear();
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            epoll::wait(guard.get_inner(), spare_capacity(&mut self.events), Some(&now))?;
            if self.events.is_empty() {
                guard.clear_ready();
                continue;
            }
            ready.extend(self.events.iter().map(readiness));
            return Ok(());
        }
    }
}

fn readiness(event: &epoll::Event) -> Readiness {
    use epoll::EventFlags as Flags;
    let flags = event.flags;
    let ended = Flags::ERR | Flags::HUP;
    Readiness {
        token: event.data.u64(),
        readable: flags.intersects(Flags::IN | Flags::RDHUP | ended),
        writable: flags.intersects(Flags::OUT | ended),
        more: flags.intersects(Flags::RDHUP | Flags::PRI | ended),
        failed: flags.intersects(ended),
    }
}

/// Our choice: descriptors named by one wake-up.
const EVENTS: usize = 256;

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn names_what_is_readable_again_and_again() -> io::Result<()> {
        let (mut near, far) = UnixStream::pair()?;
        let mut poller = Poller::new()?;
        poller.watch_readable(&far, 7)?;
        near.write_all(b"x")?;
        for _ in 0..3 {
            let mut ready = Vec::new();
            poller.wait(&mut ready).await?;
            assert_eq!(
                ready,
                [Readiness { token: 7, readable: true, writable: false, more: false, failed: false }]
            );
        }
        Ok(())
    }

    #[tokio::test(flavor = "current_thread")]
    async fn tells_an_edge_once() -> io::Result<()> {
        let (mut near, far) = UnixStream::pair()?;
        let mut poller = Poller::new()?;
        poller.watch_edges(&far, 1)?;
        let mut ready = Vec::new();
        poller.wait(&mut ready).await?;
        assert_eq!(
            ready,
            [Readiness { token: 1, readable: false, writable: true, more: false, failed: false }]
        );
        ready.clear();
        near.write_all(b"x")?;
        poller.wait(&mut ready).await?;
        assert!(ready.iter().all(|event| event.token == 1 && event.readable));
        Ok(())
    }

    #[tokio::test(flavor = "current_thread")]
    async fn tells_of_room_once_for_each_question() -> io::Result<()> {
        let (near, mut far) = UnixStream::pair()?;
        let mut poller = Poller::new()?;
        poller.watch_on_demand(&near, 1)?;
        far.write_all(b"x")?;
        let (other, mut other_far) = UnixStream::pair()?;
        poller.watch_readable(&other, 3)?;
        other_far.write_all(b"x")?;
        for asked in [false, true, false] {
            if asked {
                poller.await_room(&near, 1)?;
            }
            let mut ready = Vec::new();
            poller.wait(&mut ready).await?;
            assert_eq!(ready.iter().any(|event| event.token == 1), asked);
        }
        Ok(())
    }

    #[tokio::test(flavor = "current_thread")]
    async fn tells_that_both_directions_ended() -> io::Result<()> {
        let (near, far) = UnixStream::pair()?;
        let mut poller = Poller::new()?;
        poller.watch_edges(&near, 1)?;
        drop(far);
        let mut ready = Vec::new();
        poller.wait(&mut ready).await?;
        assert_eq!(ready, [Readiness { token: 1, readable: true, writable: true, more: true, failed: true }]);
        Ok(())
    }
}
