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
    /// The longest time a frame left after it was due.
    pub latest: Duration,
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
    receiver: sys::Receiver,
    due: [Vec<Vec<u8>>; 2],
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
            receiver: sys::Receiver::new(),
            due: [Vec::new(), Vec::new()],
            unsent: 0,
            overruns: 0,
            latest: Duration::ZERO,
        })
    }

    /// Carries frames until the link is dropped.
    fn carry(&mut self, queue: &Receiver<Command>, wake: &OwnedFd) -> Result<()> {
        loop {
            self.receive()?;
            self.send()?;
            loop {
                match queue.try_recv() {
                    Ok(command) => command(self),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return Ok(()),
                }
            }
            self.wait(wake)?;
        }
    }

    /// Takes what has arrived, a batch from each end.
    fn receive(&mut self) -> Result<()> {
        for direction in Direction::BOTH {
            match self.receiver.receive(self.sockets[direction.index()].as_fd()) {
                Ok(_) => {}
                Err(error) if is_transient(&error) => continue,
                Err(error) => return Err(error).context("receiving"),
            }
            let now = wait::now();
            for frame in self.receiver.frames() {
                self.emulator.handle_frame(direction, frame, now);
            }
        }
        Ok(())
    }

    /// Sends what is due.
    fn send(&mut self) -> Result<()> {
        let now = wait::now();
        if let Some(due) = self.emulator.poll_timeout() {
            self.latest = self.latest.max(now.saturating_duration_since(due));
        }
        while let Some((direction, frame)) = self.emulator.poll_frame(now) {
            self.due[direction.index()].push(frame);
        }
        for direction in Direction::BOTH {
            // What goes out came in at the other end.
            let socket = &self.sockets[1 - direction.index()];
            self.unsent += send_all(socket, &mut self.due[direction.index()]).context("sending")?;
        }
        Ok(())
    }

    /// Waits for a frame, for the next one to be due, or for a command.
    fn wait(&self, wake: &OwnedFd) -> Result<()> {
        let timeout = self.emulator.poll_timeout().map(|due| timespec(due, wait::now())).transpose()?;
        let [client_side, router_side] = &self.sockets;
        let mut ends = [client_side, router_side, wake].map(|end| PollFd::new(end, PollFlags::IN));
        match poll(&mut ends, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("poll"),
        }
        if ends[2].revents().contains(PollFlags::IN) {
            rustix::io::read(wake, &mut [0; 8])?;
        }
        Ok(())
    }

    fn stats(&mut self) -> io::Result<ShellStats> {
        for socket in &self.sockets {
            self.overruns += u64::from(sys::overruns(socket)?);
        }
        Ok(ShellStats { overruns: self.overruns, unsent: self.unsent, latest: self.latest })
    }
}

fn open_end(interface: &str) -> Result<OwnedFd> {
    let socket = sys::packet_socket()?;
    let index = rustix::net::netdevice::name_to_index(&socket, interface)
        .with_context(|| format!("no interface {interface}"))?;
    sys::ignore_outgoing(&socket)?;
    sys::force_buffers(&socket, SOCKET_BUFFER)?;
    sys::bind_to_interface(&socket, index)?;
    Ok(socket)
}

/// Sends and forgets `frames`; returns how many the kernel would not take.
fn send_all(socket: &OwnedFd, frames: &mut Vec<Vec<u8>>) -> io::Result<u64> {
    let mut unsent = 0;
    let mut rest = frames.as_slice();
    while !rest.is_empty() {
        match sys::send(socket.as_fd(), rest) {
            Ok(sent) => rest = &rest[sent..],
            Err(error) if is_transient(&error) => {
                unsent += 1;
                rest = &rest[1..];
            }
            Err(error) => return Err(error),
        }
    }
    frames.clear();
    Ok(unsent)
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

/// The thread goes before the programs under test, as a real link does not wait for them.
const PRIORITY: i32 = -15;
