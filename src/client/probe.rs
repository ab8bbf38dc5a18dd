//! `vpn probe`: what the network between here and the server lets through, beside a tunnel that is up or without one.
//!
//! Nothing of the host is changed: the ports that are held silent meanwhile are free when the process ends, however it ends.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::dns::Resolver;
use super::memory::Memory;
use super::resolve::Names;
use crate::carrier::Mode;
use crate::config::ClientConfig;
use crate::control::{self, InstanceName, Paths, Request, Response};
use crate::crypto::{SuiteSet, Timestamp};
use crate::failure::{ExitCode, Failure};
use crate::instance::{self, EndSignals};
use crate::io::{self as shell, Family, Poller, PortFilter, PortGuard, Readiness, Timer, Wire, mtu_at};
use crate::netcfg;
use crate::session::{self, Probe, ProbeReport, ProbeSettings, REMOTES_MAX};

/// What `vpn probe` was asked.
#[derive(Debug)]
pub struct ProbeOptions {
    /// The name of the tunnel.
    pub name: InstanceName,
    /// Its configuration.
    pub config: ClientConfig,
}

/// What `vpn probe` found.
#[derive(Debug)]
pub struct ProbeOutcome {
    /// The network that the packets left by, if it has a name.
    pub network: Option<String>,
    /// Address by address and mode by mode.
    pub reports: Vec<ProbeReport>,
    /// Which mode won for which server in this network before; `auto` tries it first.
    pub winners: Vec<(IpAddr, Mode)>,
    /// Addresses for which there was no room.
    pub untried: Vec<SocketAddr>,
}

/// Tries every mode to every address of the servers.
///
/// # Errors
/// When nothing can be tried: a right is missing, or no server has an address. That nothing passes is no error here.
pub fn probe(options: &ProbeOptions) -> Result<ProbeOutcome, Failure> {
    instance::check_rights()?;
    let mut outcome = None;
    instance::block_on(async {
        let mut signals = EndSignals::catch()?;
        outcome = tokio::select! {
            outcome = run(options) => Some(outcome?),
            () = signals.next() => None,
        };
        Ok(())
    })?;
    outcome.ok_or_else(|| Failure::new(ExitCode::Failure, "stopped before everything was tried"))
}

async fn run(options: &ProbeOptions) -> Result<ProbeOutcome, Failure> {
    let config = &options.config;
    let paths = Paths::of(&options.name);
    let mark = mark_of_the_tunnel(&options.name, &paths);
    // What a probe learns of names is as good as what `up` learns.
    let mut memory = Memory::load(&paths);
    let resolver = Resolver::new(netcfg::host_resolvers(), mark.unwrap_or_default());
    let names = Names::resolve(&config.server, resolver, &mut memory).await?;
    let mut addresses = names.to_probe();
    let mut untried = addresses.split_off(addresses.len().min(REMOTES_MAX));
    untried.retain(|address| addresses.iter().all(|tried| tried.ip() != address.ip()));
    let network = match addresses.first() {
        Some(first) => {
            netcfg::network_name(first.ip(), mark.unwrap_or_default(), Duration::ZERO).await.ok().flatten()
        }
        None => None,
    };
    let settings = ProbeSettings {
        private_key: config.private_key.clone(),
        server_key: config.server_key,
        preshared_key: config.preshared_key.clone(),
        suites: SuiteSet::detect(),
    };
    let probe = Probe::new(settings, &addresses, &Mode::ALL, instance::seed()?, shell::now());
    let runner = Runner::open(probe, &addresses, mark);
    let mut runner = runner.map_err(|error| Failure::of_system("cannot open raw sockets", &error))?;
    runner.run().await.map_err(|error| Failure::of_system("the raw sockets failed", &error))?;
    let winners = winners(&addresses, memory.modes(), network.as_deref().unwrap_or_default());
    Ok(ProbeOutcome { network, reports: runner.probe.reports(), winners, untried })
}

/// What is remembered of each address in this network.
fn winners(addresses: &[SocketAddr], modes: &session::Memory, network: &str) -> Vec<(IpAddr, Mode)> {
    let mut known = Vec::new();
    for ip in addresses.iter().map(SocketAddr::ip) {
        if let Some(mode) = modes.winner(ip, network).filter(|mode| !known.contains(&(ip, *mode))) {
            known.push((ip, mode));
        }
    }
    known
}

/// The mark by which packets pass the tunnel of this name, if it is up: the carriers' own way is the one to be tried.
fn mark_of_the_tunnel(name: &InstanceName, paths: &Paths) -> Option<u32> {
    let answer = control::request(&paths.control_socket(), Request::Status { flows: false }, ANSWER_WITHIN);
    if let Ok(Response::Status { tunnel }) = answer
        && tunnel.name == name.as_str()
    {
        return tunnel.mark;
    }
    None
}

/// The sockets of a probe.
#[derive(Debug)]
struct Runner {
    probe: Probe,
    wire: Wire,
    poller: Poller,
    timer: Timer,
    guards: Vec<PortGuard>,
    mark: Option<u32>,
}

impl Runner {
    fn open(probe: Probe, addresses: &[SocketAddr], mark: Option<u32>) -> io::Result<Self> {
        let wire = Wire::open(&Family::all_of(addresses), &PortFilter::default(), mark)?;
        let (poller, timer) = (Poller::new()?, Timer::new()?);
        wire.watch(&poller, WIRE)?;
        poller.watch_readable(&timer, TIMER)?;
        Ok(Self { probe, wire, poller, timer, guards: Vec::new(), mark })
    }

    /// Until everything was tried, or [`LONGEST`] is over.
    async fn run(&mut self) -> io::Result<()> {
        let end = shell::now() + LONGEST;
        let mut ready = Vec::new();
        loop {
            tokio::task::consume_budget().await;
            let now = shell::now();
            self.flush(end, now)?;
            if self.probe.is_done() || now >= end {
                return Ok(());
            }
            self.poller.wait(&mut ready).await?;
            let now = shell::now();
            for Readiness { token, .. } in ready.drain(..) {
                if token == WIRE {
                    self.wire.receive(|packet, _| self.probe.handle_packet(packet, now))?;
                } else {
                    self.timer.take_expired()?;
                }
            }
        }
    }

    fn flush(&mut self, end: Instant, now: Instant) -> io::Result<()> {
        self.probe.handle_timeout(now);
        while let Some(port) = self.probe.poll_port(now) {
            match self.reserve(port.remote) {
                Ok(local) => {
                    self.probe.dial(port.attempt, local, Timestamp::from_unix(shell::wall()), now);
                }
                Err(_) => self.probe.dial_failed(port.attempt),
            }
        }
        let more = self.wire.send(MOST_PACKETS, |packet| self.probe.poll_transmit(packet, now));
        self.wire.await_room(&self.poller, WIRE)?;
        let due = self.probe.poll_timeout().map_or(end, |due| due.min(end));
        self.timer.set(self.wire.wake_at(Some(if more { now } else { due }), now))
    }

    /// A guarded port on the address that packets to `remote` leave from; guarded until the process ends.
    fn reserve(&mut self, remote: SocketAddr) -> io::Result<SocketAddr> {
        let (guard, local) = PortGuard::towards(remote, self.mark)?;
        if let Ok(mtu) = mtu_at(local.ip()) {
            self.probe.set_mtu(mtu);
        }
        self.guards.push(guard);
        self.wire.set_filter(&PortFilter::ports(self.guards.iter().map(PortGuard::port)))?;
        Ok(local)
    }
}

const WIRE: u64 = 0;
const TIMER: u64 = 1;

/// Our choice: packets sent before input is looked at again.
const MOST_PACKETS: usize = 64;

/// Our choice: what people wait for. Each attempt ends before.
const LONGEST: Duration = Duration::from_secs(20);

/// Our choice: a tunnel's loop is never away for a second.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
