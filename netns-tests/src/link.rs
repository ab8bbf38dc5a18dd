//! The link emulator's shell: a thread that carries Ethernet frames between two interfaces through an [`Emulator`].

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, TryRecvError, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::emulator::{Direction, Emulator, Flow, Layer, Line, Middlebox, Profile, Stats};
use crate::{sys, wait};

/// A running link. Dropping it stops the thread; both ends are silent from then on.
#[derive(Debug)]
pub struct Link {
    commands: Option<Sender<Command>>,
    wake: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

/// What the shell itself could not carry: everything here should be zero, or the machine was too slow for the link.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ShellStats {
    /// Frames that arrived faster than the thread read them, both ends together.
    pub overruns: u64,
    /// Frames the kernel would not take for sending, both ends together.
    pub unsent: u64,
    /// The longest time a frame left after it was due; up to [`PAUSE`] is on purpose.
    pub latest: Duration,
    /// What the thread has used of a CPU, the kernel's way of each frame to its receiver included.
    pub cpu: Duration,
}

type Command = Box<dyn FnOnce(&mut Shell) + Send>;

impl Link {
    /// Joins the interfaces `client_side` and `router_side` of a network namespace.
    ///
    /// # Errors
    /// If the namespace cannot be entered or one of the interfaces is not there.
    pub fn start(
        namespace: &impl AsFd,
        client_side: &str,
        router_side: &str,
        line: Line,
        seed: u64,
    ) -> Result<Self> {
        let namespace = namespace.as_fd().try_clone_to_owned()?;
        let interfaces = [client_side.to_owned(), router_side.to_owned()];
        let wake = Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?);
        let woken = Arc::clone(&wake);
        let (commands, queue) = channel();
        let (started, outcome) = sync_channel(1);
        let emulator = Emulator::new(line, Layer::Ethernet, seed, wait::now());
        let run = move || run(&namespace, &interfaces, emulator, &queue, &woken, &started);
        let thread = std::thread::Builder::new().name("link".to_owned()).spawn(run)?;
        outcome.recv().context("the link's thread died")??;
        Ok(Self { commands: Some(commands), wake, thread: Some(thread) })
    }

    /// Runs `action` on the emulator, in the link's thread, and gives back what it returns.
    ///
    /// # Errors
    /// If the thread has stopped.
    pub fn with<T: Send + 'static>(
        &self,
        action: impl FnOnce(&mut Emulator) -> T + Send + 'static,
    ) -> Result<T> {
        self.ask(|shell| action(&mut shell.emulator))
    }

    /// Changes both directions from now on.
    ///
    /// # Errors
    /// If the thread has stopped.
    pub fn set_profiles(&self, profiles: [Profile; 2]) -> Result<()> {
        self.with(move |emulator| {
            for (direction, profile) in Direction::BOTH.into_iter().zip(profiles) {
                emulator.set_profile(direction, profile, wait::now());
            }
        })
    }

    /// Begins or ends a blackout of both directions.
    ///
    /// # Errors
    /// If the thread has stopped.
    pub fn set_blackout(&self, blackout: bool) -> Result<()> {
        self.with(move |emulator| {
            Direction::BOTH.into_iter().for_each(|direction| emulator.set_blackout(direction, blackout))
        })
    }

    /// Begins or ends a blackout of one direction.
    ///
    /// # Errors
    /// If the thread has stopped.
    pub fn set_blackout_of(&self, direction: Direction, blackout: bool) -> Result<()> {
        self.with(move |emulator| emulator.set_blackout(direction, blackout))
    }

    /// Puts other boxes on the line, which know nothing of earlier packets.
    ///
    /// # Errors
    /// If the thread has stopped.
    pub fn set_middleboxes(&self, middleboxes: Vec<Middlebox>) -> Result<()> {
        self.with(move |emulator| emulator.set_middleboxes(&middleboxes, wait::now()))
    }

    /// Rebinds every flow of the line's NAT.
    ///
    /// # Errors
    /// If the thread has stopped.
    pub fn rebind(&self) -> Result<()> {
        self.with(|emulator| emulator.rebind(wait::now()))
    }

    /// Kills the TCP flow that sent last, both ways and until it is revived, and says which it was.
    ///
    /// # Errors
    /// If the thread has stopped or no TCP was seen.
    pub fn kill_newest_tcp_flow(&self) -> Result<Flow> {
        let killed = self.with(|emulator| {
            let flow = emulator.newest_tcp_flow()?;
            emulator.kill_flow(flow);
            Some(flow)
        })?;
        killed.context("no TCP flow was seen on the link")
    }

    /// What happened to the frames of each direction so far.
    ///
    /// # Errors
    /// If the thread has stopped.
    pub fn stats(&self) -> Result<[Stats; 2]> {
        self.with(|emulator| Direction::BOTH.map(|direction| emulator.stats(direction)))
    }

    /// One counter of each direction.
    ///
    /// # Errors
    /// If the thread has stopped.
    pub fn counted(&self, counter: fn(&Stats) -> u64) -> Result<[u64; 2]> {
        Ok(self.stats()?.map(|stats| counter(&stats)))
    }

    /// What the shell itself could not carry.
    ///
    /// # Errors
    /// If the thread has stopped.
    pub fn shell_stats(&self) -> Result<ShellStats> {
        self.ask(Shell::stats)?.map_err(Into::into)
    }

    fn ask<T: Send + 'static>(&self, action: impl FnOnce(&mut Shell) -> T + Send + 'static) -> Result<T> {
        let (answer, answered) = sync_channel(1);
        let command: Command = Box::new(move |shell| drop(answer.send(action(shell))));
        let commands = self.commands.as_ref().context("the link was stopped")?;
        commands.send(command).map_err(|_| anyhow!("the link's thread died"))?;
        self.wake();
        answered.recv().context("the link's thread died")
    }

    fn wake(&self) {
        // An eventfd that is already set cannot be written only when its counter is full; then it wakes all the same.
        rustix::io::write(&self.wake, &1u64.to_ne_bytes()).ok();
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.commands = None;
        self.wake();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn run(
    namespace: &OwnedFd,
    interfaces: &[String; 2],
    emulator: Emulator,
    queue: &Receiver<Command>,
    wake: &OwnedFd,
    started: &SyncSender<Result<()>>,
) {
    let shell = Shell::open(namespace, interfaces, emulator);
    let (outcome, shell) = match shell {
        Ok(shell) => (Ok(()), Some(shell)),
        Err(error) => (Err(error), None),
    };
    if started.send(outcome).is_ok()
        && let Some(mut shell) = shell
        && let Err(error) = shell.carry(queue, wake)
    {
        // The thread's end is seen by whoever asks the link next; this says why.
        panic!("link emulator: {error:#}");
    }
}

/// The thread's state. `sockets` stand in the order of [`Direction::BOTH`], by the direction they *receive*.
#[derive(Debug)]
struct Shell {
    emulator: Emulator,
    sockets: [OwnedFd; 2],
    receivers: [sys::Receiver; 2],
    sender: sys::Sender,
    due: [Vec<Vec<u8>>; 2],
    /// How far the emulator's time has come; it must not run backwards.
    emulated: Instant,
    /// When the thread last found something to do.
    worked_at: Instant,
    unsent: u64,
    overruns: u64,
    latest: Duration,
}

impl Shell {
    fn open(namespace: &OwnedFd, interfaces: &[String; 2], emulator: Emulator) -> Result<Self> {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1))?;
        rustix::process::setpriority_process(None, PRIORITY)?;
        let [client_side, router_side] = interfaces;
        let sockets = [open_end(client_side)?, open_end(router_side)?];
        Ok(Self {
            emulator,
            sockets,
            receivers: [sys::Receiver::new(), sys::Receiver::new()],
            sender: sys::Sender::new(),
            due: [Vec::new(), Vec::new()],
            emulated: wait::now(),
            worked_at: wait::now(),
            unsent: 0,
            overruns: 0,
            latest: Duration::ZERO,
        })
    }

    /// Carries frames until the link is dropped.
    fn carry(&mut self, queue: &Receiver<Command>, wake: &OwnedFd) -> Result<()> {
        loop {
            let received = self.receive()?;
            let sent = self.send()?;
            loop {
                match queue.try_recv() {
                    Ok(command) => command(self),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return Ok(()),
                }
            }
            if received < sys::BATCH {
                self.wait(received + sent > 0, wake)?;
            }
        }
    }

    /// Takes what has arrived, a batch from each end, in the order in which it came, and says how many frames the larger had.
    fn receive(&mut self) -> Result<usize> {
        let mut most = 0;
        for (receiver, socket) in self.receivers.iter_mut().zip(&self.sockets) {
            match receiver.receive(socket.as_fd()) {
                Ok(received) => most = most.max(received),
                Err(error) if is_transient(&error) => {}
                Err(error) => return Err(error).context("receiving"),
            }
        }
        if most > 0 {
            self.feed();
        }
        Ok(most)
    }

    /// Gives the emulator what both ends have received, in the order of arrival.
    fn feed(&mut self) {
        let clock = Clock::read();
        let [out, inward] = &self.receivers;
        let (mut out, mut inward) = (out.frames().peekable(), inward.frames().peekable());
        loop {
            let is_out = match (out.peek(), inward.peek()) {
                (Some((one, _)), Some((other, _))) => one <= other,
                (one, _) => one.is_some(),
            };
            let (next, direction) =
                if is_out { (out.next(), Direction::Out) } else { (inward.next(), Direction::In) };
            let Some((arrival, frame)) = next else { return };
            self.emulated = self.emulated.max(clock.instant_of(arrival));
            self.emulator.handle_frame(direction, frame, self.emulated);
        }
    }

    /// Sends what is due and says how many frames that were.
    fn send(&mut self) -> Result<usize> {
        let now = wait::now();
        self.emulated = self.emulated.max(now);
        if let Some(due) = self.emulator.poll_timeout() {
            self.latest = self.latest.max(now.saturating_duration_since(due));
        }
        while let Some((direction, frame)) = self.emulator.poll_frame(now) {
            self.due[direction.index()].push(frame);
        }
        let mut sent = 0;
        for direction in Direction::BOTH {
            // What goes out came in at the other end.
            let socket = &self.sockets[1 - direction.index()];
            let frames = &mut self.due[direction.index()];
            sent += frames.len();
            self.unsent += send_all(&mut self.sender, socket, frames).context("sending")?;
            frames.drain(..).for_each(|frame| self.emulator.recycle(frame));
        }
        Ok(sent)
    }

    /// Waits for a frame, for the next one to be due, or for a command. A thread that has just worked twice in a row pauses for a
    /// moment whatever comes: waking up for each frame would cost more than carrying it.
    fn wait(&mut self, has_worked: bool, wake: &OwnedFd) -> Result<()> {
        let now = wait::now();
        let is_crowded = has_worked && now.saturating_duration_since(self.worked_at) < PAUSE * 2;
        if has_worked {
            self.worked_at = now;
        }
        let due = if is_crowded { Some(now + PAUSE) } else { self.emulator.poll_timeout() };
        let timeout = due.map(|due| timespec(due, now)).transpose()?;
        let [client_side, router_side] = &self.sockets;
        let mut ends = [wake, client_side, router_side].map(|end| PollFd::new(end, PollFlags::IN));
        let watched = if is_crowded { &mut ends[..1] } else { &mut ends[..] };
        match poll(watched, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("poll"),
        }
        if ends[0].revents().contains(PollFlags::IN) {
            rustix::io::read(wake, &mut [0; 8])?;
        }
        Ok(())
    }

    fn stats(&mut self) -> io::Result<ShellStats> {
        for socket in &self.sockets {
            self.overruns += u64::from(sys::overruns(socket)?);
        }
        let cpu = wait::thread_cpu();
        Ok(ShellStats { overruns: self.overruns, unsent: self.unsent, latest: self.latest, cpu })
    }
}

fn open_end(interface: &str) -> Result<OwnedFd> {
    let socket = sys::packet_socket()?;
    let index = rustix::net::netdevice::name_to_index(&socket, interface)
        .with_context(|| format!("no interface {interface}"))?;
    sys::ignore_outgoing(&socket)?;
    sys::force_buffers(&socket, SOCKET_BUFFER)?;
    sys::stamp_arrivals(&socket)?;
    sys::bind_to_interface(&socket, index)?;
    Ok(socket)
}

/// Sends `frames`; returns how many the kernel would not take.
fn send_all(sender: &mut sys::Sender, socket: &OwnedFd, frames: &[Vec<u8>]) -> io::Result<u64> {
    let mut unsent = 0;
    let mut rest = frames;
    while !rest.is_empty() {
        match sender.send(socket.as_fd(), rest) {
            Ok(sent) => rest = &rest[sent..],
            Err(error) if is_transient(&error) => {
                unsent += 1;
                rest = &rest[1..];
            }
            Err(error) => return Err(error),
        }
    }
    Ok(unsent)
}

/// The two clocks at one moment: the kernel's stamps are in wall-clock time, the emulator's in that of [`Instant`].
#[derive(Debug, Clone, Copy)]
struct Clock {
    wall: Duration,
    now: Instant,
}

impl Clock {
    fn read() -> Self {
        Self { wall: wait::wall_clock(), now: wait::now() }
    }

    /// When a frame arrived that has this stamp: a moment ago, however often the wall clock is set.
    fn instant_of(&self, stamp: Option<Duration>) -> Instant {
        let age = self.wall.saturating_sub(stamp.unwrap_or(self.wall));
        self.now.checked_sub(age).filter(|_| age < OLDEST_FRAME).unwrap_or(self.now)
    }
}

/// Whether an error says "not now" (no frame, no room) or "this end is gone for a moment" (an interface that is down).
fn is_transient(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ENOBUFS | libc::ENETDOWN | libc::EINTR))
}

fn timespec(due: Instant, now: Instant) -> Result<Timespec> {
    let rest = due.saturating_duration_since(now);
    Ok(Timespec { tv_sec: i64::try_from(rest.as_secs())?, tv_nsec: i64::from(rest.subsec_nanos()) })
}

/// Room for what arrives while the thread does not run: 16 MiB, about 5,000 full packets as the kernel counts them.
const SOCKET_BUFFER: i32 = 16 << 20;

/// How long the thread pauses under load: 4 full packets at 500 Mbit/s.
pub const PAUSE: Duration = Duration::from_micros(100);

/// A frame that seems to have waited longer than this has a stamp from before the wall clock was set.
const OLDEST_FRAME: Duration = Duration::from_secs(1);

/// The thread goes before the programs under test, as a real link does not wait for them.
const PRIORITY: i32 = -15;
