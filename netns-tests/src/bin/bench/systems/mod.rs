//! Who is measured: ways from the client to a port of the target.
//!
//! Each is set up as its manual recommends for the line; its file says how. A TCP connection that crosses the line from kernel to
//! kernel is cubic, Linux's default, unless the way's name says otherwise.

mod direct;
mod kcptun;
mod openvpn;
mod ours;
mod wireguard;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netns_tests::addresses::TARGET;
use netns_tests::emulator::{Direction, Emulator, Flow, Profile, UDP};
use netns_tests::node::Node;
use netns_tests::process::Process;
use netns_tests::topology::{Setup, Topology};
use netns_tests::vpn::Vpn;
use netns_tests::wait;
use serde_json::Value;

use crate::load;

/// A way from the client to the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum System {
    Direct,
    DirectBbr,
    Vpn,
    /// With `connect = "fast"`, which changes a new connection and nothing else.
    VpnFast,
    WireGuard,
    OpenVpn,
    Kcptun,
    KcptunFec,
}

impl System {
    pub(crate) const ALL: [Self; 8] = [
        Self::Vpn,
        Self::VpnFast,
        Self::Direct,
        Self::DirectBbr,
        Self::WireGuard,
        Self::OpenVpn,
        Self::Kcptun,
        Self::KcptunFec,
    ];

    /// Those that are measured if nobody is named.
    pub(crate) fn usual() -> Vec<Self> {
        Self::ALL.into_iter().filter(|system| *system != Self::VpnFast).collect()
    }

    /// How it is named in tables and by `--systems`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct-cubic",
            Self::DirectBbr => "direct-bbr",
            Self::Vpn => "vpn",
            Self::VpnFast => "vpn-fast",
            Self::WireGuard => "wireguard-go",
            Self::OpenVpn => "openvpn",
            Self::Kcptun => "kcptun",
            Self::KcptunFec => "kcptun-fec",
        }
    }

    /// Whether it is of our own.
    pub(crate) const fn is_ours(self) -> bool {
        matches!(self, Self::Vpn | Self::VpnFast)
    }

    /// Whether packets go through a process of its own on each end.
    pub(crate) const fn is_tunnel(self) -> bool {
        !matches!(self, Self::Direct | Self::DirectBbr)
    }

    /// Why it cannot be measured here; `None` if it can.
    pub(crate) fn obstacle(self) -> Option<String> {
        let missing = |programs: &[&str]| {
            let missing: Vec<&str> =
                programs.iter().copied().filter(|program| !is_installed(program)).collect();
            (!missing.is_empty()).then(|| format!("{} not installed", missing.join(" and ")))
        };
        match self {
            Self::Direct | Self::Vpn | Self::VpnFast => None,
            Self::DirectBbr => direct::obstacle_to_bbr(),
            Self::WireGuard => missing(&["wireguard-go", "wg"]),
            Self::OpenVpn => missing(&["openvpn", "openssl"]),
            Self::Kcptun | Self::KcptunFec => missing(&["kcptun-client", "kcptun-server"]),
        }
    }

    /// Sets it up between the first client and a port of the target.
    fn start<'t>(self, topology: &'t Topology, port: u16, line: Line) -> Result<Running<'t>> {
        let server = SocketAddr::new(IpAddr::V4(TARGET), port);
        let mut running = Running { system: self, topology, server, processes: Vec::new(), vpn: None };
        match self {
            Self::Direct => {}
            Self::DirectBbr => direct::use_congestion_control(topology, "bbr")?,
            Self::Vpn | Self::VpnFast => {
                let connect = if self == Self::VpnFast { "connect = \"fast\"" } else { "" };
                let (vpn, serve) = ours::start(topology, connect)?;
                running.processes.push(serve);
                running.vpn = Some(vpn);
            }
            Self::WireGuard => running.processes.extend(wireguard::start(topology)?),
            Self::OpenVpn => running.processes.extend(openvpn::start(topology)?),
            Self::Kcptun | Self::KcptunFec => {
                let fec = self == Self::KcptunFec;
                running.processes.extend(kcptun::start(topology, running.server, line, fec)?);
                running.server = kcptun::LOCAL;
            }
        }
        Ok(running)
    }

    /// The names of its programs on the client and on the server.
    const fn programs(self) -> [&'static str; 2] {
        match self {
            Self::Direct | Self::DirectBbr => ["", ""],
            Self::Vpn | Self::VpnFast => [netns_tests::vpn::PROGRAM; 2],
            Self::WireGuard => ["wireguard-go"; 2],
            Self::OpenVpn => ["openvpn"; 2],
            Self::Kcptun | Self::KcptunFec => ["kcptun-client", "kcptun-server"],
        }
    }

    /// The UDP port of its server; `None` if it is seen as TCP.
    const fn udp_port(self) -> Option<u16> {
        match self {
            Self::Direct | Self::DirectBbr | Self::Vpn | Self::VpnFast => None,
            Self::WireGuard => Some(wireguard::PORT),
            Self::OpenVpn => Some(openvpn::PORT),
            Self::Kcptun | Self::KcptunFec => Some(kcptun::PORT),
        }
    }
}

impl fmt::Display for System {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

/// What the systems may know of the line: those that must be tuned are tuned to it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Line {
    /// bit/s.
    pub(crate) rate: u64,
    pub(crate) round_trip: Duration,
}

impl Line {
    /// No line: a rate that nobody here reaches, over what a packet may wait for a processor.
    const WIRES: Self = Self { rate: 10_000_000_000, round_trip: Duration::from_millis(5) };

    /// The bytes on their way when the queue is full.
    fn held_bytes(self) -> f64 {
        let held = self.round_trip + self.profile(0.0).queue;
        self.rate as f64 / 8.0 * held.as_secs_f64()
    }

    fn profile(self, loss: f64) -> Profile {
        Profile::long_line(self.rate, self.round_trip, loss)
    }
}

/// Builds a network of plain wires with `system` in it and the load server on the target, and runs `body`.
pub(crate) fn on_wires<T>(system: System, body: impl FnOnce(&Running<'_>) -> Result<T>) -> Result<T> {
    let topology = Topology::build(Setup::PLAIN)?;
    let _serve = load::serve(&topology)?;
    let running = system.start(&topology, load::PORT, Line::WIRES)?;
    running.wait_until_it_carries()?;
    body(&running)
}

/// The same over a long line of which each direction loses `loss`; it loses nothing until the system has carried something.
pub(crate) fn over_line<T>(
    system: System,
    line: Line,
    loss: f64,
    body: impl FnOnce(&Running<'_>) -> Result<T>,
) -> Result<T> {
    let topology = Topology::build(Setup::link(line.profile(0.0)))?;
    let _serve = load::serve(&topology)?;
    let running = system.start(&topology, load::PORT, line)?;
    running.wait_until_it_carries()?;
    topology.link().set_profiles([line.profile(loss); 2])?;
    let outcome = body(&running)?;
    let shell = topology.link().shell_stats()?;
    if shell.overruns + shell.unsent > 0 {
        eprintln!("bench: {system}: the machine was too slow for the link: {shell:?}");
    }
    Ok(outcome)
}

/// The same on plain wires, to `port` of the target, where somebody else listens.
pub(crate) fn start_on_wires(system: System, topology: &Topology, port: u16) -> Result<Running<'_>> {
    system.start(topology, port, Line::WIRES)
}

/// A system that is up; it ends with its network.
#[derive(Debug)]
pub(crate) struct Running<'t> {
    system: System,
    pub(crate) topology: &'t Topology,
    /// Where the client connects to.
    pub(crate) server: SocketAddr,
    processes: Vec<Process>,
    /// Our own only.
    vpn: Option<Vpn>,
}

impl Running<'_> {
    /// Ours, to be asked.
    pub(crate) fn ours(&self) -> Result<&Vpn> {
        self.vpn.as_ref().context("not ours")
    }

    /// What our KCP measured and counted on the server, which sends a download; `None` of others.
    pub(crate) fn server_kcp(&self) -> Result<Option<Value>> {
        self.vpn.as_ref().map(|vpn| vpn.kcp(&self.topology.server)).transpose()
    }

    /// Waits until a connection through it is answered by the load server.
    pub(crate) fn wait_until_it_carries(&self) -> Result<()> {
        wait::until("a first answer through it", CARRY_LIMIT, || {
            let outcome = load::requests(self.topology.client(), self.server, 1, Duration::ZERO);
            Ok(outcome.is_ok_and(|times| times.iter().all(|time| time.is_finite())).then_some(()))
        })
    }

    /// Its processes on the client and on the server.
    pub(crate) fn pids(&self) -> Result<[Vec<u32>; 2]> {
        let [client, server] = self.system.programs();
        Ok([self.topology.client().pids_of(client)?, self.topology.server.pids_of(server)?])
    }

    /// Kills the outer flow it uses now for good: in one direction, or both ways.
    pub(crate) fn kill_flow(&self, only: Option<Direction>) -> Result<()> {
        let kill = move |emulator: &mut Emulator, flow| match only {
            Some(direction) => emulator.kill_flow_one_way(flow, direction),
            None => emulator.kill_flow(flow),
        };
        let Some(port) = self.system.udp_port() else {
            return self.topology.link().with(move |emulator| {
                if let Some(flow) = emulator.newest_tcp_flow() {
                    kill(emulator, flow);
                }
            });
        };
        let client = self.topology.client();
        let server = SocketAddr::new(IpAddr::V4(netns_tests::addresses::SERVER), port);
        let address = IpAddr::V4(netns_tests::addresses::client(0));
        let ports = udp_ports(client)?;
        ensure!(!ports.is_empty(), "the client has no UDP port");
        let flows: Vec<Flow> =
            ports.into_iter().map(|port| Flow::new(UDP, SocketAddr::new(address, port), server)).collect();
        self.topology.link().with(move |emulator| flows.into_iter().for_each(|flow| kill(emulator, flow)))
    }

    /// Gives the client's host another address in the same network, and takes the one it had; `n` chooses.
    pub(crate) fn change_address(&self, n: u32) -> Result<()> {
        let client = self.topology.client();
        let first = netns_tests::addresses::client(0);
        let other = Ipv4Addr::from_bits(first.to_bits() + 75);
        let (old, new) = if n.is_multiple_of(2) { (first, other) } else { (other, first) };
        // The network takes it: what still leaves from it, or goes to it, ends at the router.
        let router = &self.topology.router;
        router.set_sysctl("net/ipv4/conf/all/rp_filter", "1")?;
        router.ip(&format!("route replace blackhole {old}/32"))?;
        if n > 0 {
            router.ip(&format!("route del blackhole {new}/32"))?;
        }
        client.ip(&format!("address del {old}/24 dev eth0"))?;
        client.ip(&format!("address add {new}/24 dev eth0"))?;
        client.ip(&format!("route replace default via {}", netns_tests::addresses::client_gateway(0)))?;
        Ok(())
    }
}

/// A tunnel of the kernel's TCP: what leads into it on the client, and back on the target.
fn route_through(topology: &Topology, device: &str, network: &str) -> Result<()> {
    topology.server.set_sysctl("net/ipv4/ip_forward", "1")?;
    // A route back instead of a masquerade, which would cost the rival a lookup for each packet.
    let back = netns_tests::addresses::SERVER_BACK;
    topology.target.ip(&format!("route replace {network} via {back} congctl cubic"))?;
    topology.client().ip(&format!("route replace {TARGET} dev {device} congctl cubic"))?;
    Ok(())
}

/// The ports of every UDP socket of a host.
fn udp_ports(node: &Node) -> Result<Vec<u16>> {
    let sockets = node.run("ss -Hun -a -4")?;
    let port = |line: &str| line.split_whitespace().nth(3)?.rsplit_once(':')?.1.parse().ok();
    Ok(sockets.lines().filter_map(port).collect())
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).exists())
}

/// A directory of a system's files, for root only: keys lie in it.
fn directory(topology: &Topology, name: &str) -> Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let directory = topology.work().join(name);
    std::fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o700))?;
    Ok(directory)
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| path.display().to_string())
}

/// What a system may take to carry its first connection.
const CARRY_LIMIT: Duration = Duration::from_secs(40);

/// What a program may take to start.
const START_LIMIT: Duration = Duration::from_secs(20);

/// Nobody's address in the tunnels of the rivals.
const fn tunnel_address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 78, 0, last)
}
