//! A timerfd: where pacing needs finer than the 1 ms tick of the runtime's timers.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    time::{Duration, Instant},
};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use super::clock::now;

/// A timer that makes its file descriptor readable at a deadline (timerfd_create(2)).
#[derive(Debug)]
pub struct Timer {
    fd: OwnedFd,
    /// What it is set for, until it has fired.
    armed: Option<Instant>,
}

impl Timer {
    /// Creates a disarmed timer, on the clock of [`now`]: what fell due in a suspend is due when it ends.
    ///
    /// # Errors
    /// Too many open files.
    pub fn new() -> io::Result<Self> {
        let fd = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        Ok(Self { fd, armed: None })
    }

    /// Arms the timer for `deadline` (at once if that has passed); `None` disarms it. Replaces what was set before, and
    /// costs nothing if that was the same.
    ///
    /// # Errors
    /// Whatever timerfd_settime(2) says.
    pub fn set(&mut self, deadline: Option<Instant>) -> io::Result<()> {
        if self.armed == deadline {
            return Ok(());
        }
        let wait = match deadline {
            Some(deadline) => deadline.saturating_duration_since(now()).max(SOONEST),
            None => Duration::ZERO,
        };
        let value = Timespec::try_from(wait).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        let interval = Timespec { tv_sec: 0, tv_nsec: 0 };
        let new = Itimerspec { it_interval: interval, it_value: value };
        timerfd_settime(&self.fd, TimerfdTimerFlags::empty(), &new)?;
        self.armed = deadline;
        Ok(())
    }

    /// Takes an expiry; false if there was none since the last call.
    ///
    /// # Errors
    /// Whatever read(2) says, but for `WouldBlock`.
    pub fn take_expired(&mut self) -> io::Result<bool> {
        self.armed = None;
        let mut expirations = [0; size_of::<u64>()];
        match rustix::io::read(&self.fd, &mut expirations) {
            Ok(_) => Ok(true),
            Err(rustix::io::Errno::AGAIN) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// Zero would disarm the timer (timerfd_settime(2)).
const SOONEST: Duration = Duration::from_nanos(1);

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, poll};

    use super::*;

    fn wait(timer: &Timer, at_most: Duration) -> bool {
        let timeout = Timespec::try_from(at_most).unwrap();
        poll(&mut [PollFd::new(timer, PollFlags::IN)], Some(&timeout)).unwrap() == 1
    }

    #[test]
    fn goes_on_while_the_machine_is_suspended() {
        let timer = Timer::new().unwrap();
        let about = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", timer.as_raw_fd())).unwrap();
        // Of a timerfd proc_pid_fdinfo(5) names the clock, as a number.
        let clock = about.lines().find_map(|line| line.strip_prefix("clockid:")).map(str::trim);
        assert_eq!(clock, Some(libc::CLOCK_BOOTTIME.to_string().as_str()), "{about}");
    }

    #[test]
    fn fires_at_its_deadline_and_only_once() {
        let mut timer = Timer::new().unwrap();
        timer.set(Some(now() + Duration::from_millis(2))).unwrap();
        assert!(wait(&timer, Duration::from_secs(10)));
        assert!(timer.take_expired().unwrap());
        assert!(!timer.take_expired().unwrap());
    }

    #[test]
    fn fires_at_once_for_a_deadline_that_has_passed() {
        let mut timer = Timer::new().unwrap();
        timer.set(Some(now())).unwrap();
        assert!(wait(&timer, Duration::from_secs(10)));
    }

    #[test]
    fn stays_silent_once_disarmed() {
        let mut timer = Timer::new().unwrap();
        timer.set(Some(now())).unwrap();
        timer.set(None).unwrap();
        assert!(!wait(&timer, Duration::ZERO));
    }
}
