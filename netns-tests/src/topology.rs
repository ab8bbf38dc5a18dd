//! The network that every scenario runs in; its picture is at the head of the crate.
//!
//! A link is a namespace of its own, with the emulator between its two interfaces:
//!
//! ```text
//!   client eth0 ───── client ( link emulator ) router ───── client0 router
//! ```
//!
//! TCP between client and target is cubic, Linux's default, by their routes: the namespaces inherit what the host has, and a
//! namespace may not choose one that the host does not allow to everybody.

use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::{Context, Result};

use crate::addresses as at;
use crate::cleanup::{self, Run, WorkDirectory};
use crate::emulator::{Line, Middlebox, Profile};
use crate::link::Link;
use crate::namespace::require_root;
use crate::node::{Logs, Node};

/// What to build.
#[derive(Debug, Clone)]
pub struct Setup {
    /// How many clients, each behind a link of its own.
    pub clients: u8,
    /// What each client's link does; `None` for plain wires without an emulator, with offloads on. The addresses of a NAT must lie
    /// in the client's network.
    pub line: Option<Line>,
    /// Decides every random choice of the links.
    pub seed: u64,
}

impl Setup {
    /// One client on a plain wire.
    pub const PLAIN: Self = Self { clients: 1, line: None, seed: SEED };

    /// One client behind a link.
    #[must_use]
    pub const fn line(line: Line) -> Self {
        Self { clients: 1, line: Some(line), seed: SEED }
    }

    /// One client behind a link that does the same in both directions, without boxes on it.
    #[must_use]
    pub const fn link(profile: Profile) -> Self {
        Self::line(Line::new(profile))
    }

    /// The same with one more box on each link, nearer to the router than the others. A plain wire becomes a clear line.
    #[must_use]
    pub fn with(self, middlebox: Middlebox) -> Self {
        let line = self.line.unwrap_or_else(|| Line::new(Profile::CLEAR));
        Self { line: Some(line.with(middlebox)), ..self }
    }

    /// The same with links that drop every UDP packet.
    #[must_use]
    pub fn without_udp(self) -> Self {
        self.with(Middlebox::DropUdp)
    }

    /// The same with `clients` clients.
    #[must_use]
    pub fn clients(self, clients: u8) -> Self {
        Self { clients, ..self }
    }
}

/// The built network. Dropping it ends every process in it and removes it.
#[derive(Debug)]
pub struct Topology {
    /// One for each client; empty on plain wires.
    pub links: Vec<Link>,
    /// Who runs `vpn up`.
    pub clients: Vec<Node>,
    /// Between everybody.
    pub router: Node,
    /// Who runs `vpn serve`.
    pub server: Node,
    /// Who has what the clients want.
    pub target: Node,
    /// The emulators' namespaces; nobody runs anything here.
    wires: Vec<Node>,
    logs: Arc<Logs>,
    run: Run,
    // Last: the logs of the nodes lie in it.
    work: WorkDirectory,
}

impl Topology {
    /// Builds the network, after removing what dead processes have left of theirs.
    ///
    /// # Errors
    /// Without root, or if the kernel or a missing program refuses.
    pub fn build(setup: Setup) -> Result<Self> {
        require_root()?;
        cleanup::remove_stale()?;
        let run = Run::next();
        let work = WorkDirectory::create(run)?;
        let logs = Arc::new(Logs::create(work.path().join("logs"))?);
        let node = |role: &str| Node::create(run, role, &logs).with_context(|| format!("making {role}"));
        let clients = (0..setup.clients).map(|n| node(&format!("client{n}"))).collect::<Result<Vec<_>>>()?;
        let (router, server, target) = (node("router")?, node("server")?, node("target")?);
        let mut topology = Self {
            links: Vec::new(),
            clients,
            router,
            server,
            target,
            wires: Vec::new(),
            logs: Arc::clone(&logs),
            run,
            work,
        };
        topology.connect_world()?;
        for n in 0..setup.clients {
            match &setup.line {
                None => topology.connect_client_plainly(n)?,
                Some(line) => {
                    topology.connect_client(n, node(&format!("link{n}"))?, line.clone(), setup.seed)?
                }
            }
            topology.address_client(n)?;
            topology.introduce_translated(n, setup.line.as_ref())?;
        }
        for node in topology.nodes() {
            node.wait_for_interfaces()?;
        }
        Ok(topology)
    }

    /// Everybody who runs programs.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.clients.iter().chain([&self.router, &self.server, &self.target])
    }

    /// The only or first client.
    ///
    /// # Panics
    /// If the topology was built without clients.
    #[must_use]
    pub fn client(&self) -> &Node {
        &self.clients[0]
    }

    /// The link of the only or first client.
    ///
    /// # Panics
    /// If the topology was built of plain wires.
    #[must_use]
    pub fn link(&self) -> &Link {
        &self.links[0]
    }

    /// The server leaves its IPv4 address for another of the same network; its routes stay.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn move_server(&self, to: Ipv4Addr) -> Result<()> {
        self.server.set_sysctl("net/ipv4/conf/eth0/promote_secondaries", "1")?;
        self.server.ip(&format!("address add {to}/24 dev eth0"))?;
        self.server.ip(&format!("address del {}/24 dev eth0", at::SERVER))?;
        self.server.ip(&format!("route replace default via {}", at::ROUTER))?;
        self.router.ip("neighbour flush dev server")?;
        Ok(())
    }

    /// Another host, which knows nobody until [`Self::join`] gives it a wire. It may leave before the others.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn guest(&self, role: &str) -> Result<Node> {
        Node::create(self.run, role, &self.logs).with_context(|| format!("making {role}"))
    }

    /// Lays another wire, between an interface of `node` and one of the router, with these addresses of one network.
    ///
    /// # Errors
    /// If the kernel refuses, or the interfaces do not come up.
    pub fn join(&self, node: (&Node, &str, &str), router: (&str, &str)) -> Result<()> {
        let ((node, interface, address), (router_side, gateway)) = (node, router);
        wire((node, interface, PEER_MAC), (&self.router, router_side, ROUTER_MAC))?;
        let lines = |interface: &str, address: &str| {
            [format!("address add {address} dev {interface}"), format!("link set {interface} up")]
        };
        node.ip_lines(&lines(interface, address))?;
        self.router.ip_lines(&lines(router_side, gateway))?;
        node.wait_for_interfaces()?;
        self.router.wait_for_interfaces()
    }

    /// A directory for files, the same for every node, removed with the topology.
    #[must_use]
    pub fn work(&self) -> &std::path::Path {
        self.work.path()
    }

    /// The logs of every program that was started here.
    #[must_use]
    pub fn logs(&self) -> &Logs {
        &self.logs
    }

    fn connect_world(&self) -> Result<()> {
        wire((&self.router, "server", ROUTER_MAC), (&self.server, "eth0", PEER_MAC))?;
        wire((&self.router, "target", ROUTER_MAC), (&self.target, "eth0", PEER_MAC))?;
        wire((&self.server, "target", ROUTER_MAC), (&self.target, "eth1", PEER_MAC))?;
        self.router.set_sysctl("net/ipv4/ip_forward", "1")?;
        self.router.set_sysctl("net/ipv6/conf/all/forwarding", "1")?;
        configure(&self.router, ROUTER_LINES)?;
        configure(&self.server, SERVER_LINES)?;
        configure(&self.target, TARGET_LINES)
    }

    fn connect_client_plainly(&self, n: u8) -> Result<()> {
        let router_side = format!("client{n}");
        wire((&self.clients[usize::from(n)], "eth0", PEER_MAC), (&self.router, &router_side, ROUTER_MAC))
    }

    fn connect_client(&mut self, n: u8, middle: Node, line: Line, seed: u64) -> Result<()> {
        let client = &self.clients[usize::from(n)];
        let router_side = format!("client{n}");
        middle.set_sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
        wire((client, "eth0", PEER_MAC), (&middle, "client", LINK_CLIENT_MAC))?;
        wire((&middle, "router", LINK_ROUTER_MAC), (&self.router, &router_side, ROUTER_MAC))?;
        for (node, interface) in
            [(client, "eth0"), (&middle, "client"), (&middle, "router"), (&self.router, &router_side)]
        {
            // Real-sized packets with real checksums: a real link has no other.
            node.run(&format!("ethtool -K {interface} tso off gso off gro off tx off rx off"))?;
        }
        configure(&middle, &["link set client up", "link set router up"])?;
        let link = Link::start(
            middle.namespace().network(),
            "client",
            "router",
            line,
            seed.wrapping_add(u64::from(n)),
        )?;
        self.links.push(link);
        self.wires.push(middle);
        Ok(())
    }

    /// Neighbours are fixed: a long line has no address resolution that could get lost on it.
    fn address_client(&self, n: u8) -> Result<()> {
        let (address, gateway) = (at::client(n), at::client_gateway(n));
        let (address_v6, gateway_v6) = (at::client_v6(n), at::client_gateway_v6(n));
        configure(
            &self.clients[usize::from(n)],
            &[
                &format!("address add {address}/24 dev eth0"),
                &format!("address add {address_v6}/64 dev eth0"),
                "link set eth0 up",
                &format!("neighbour add {gateway} lladdr {ROUTER_MAC} dev eth0 nud permanent"),
                &format!("neighbour add {gateway_v6} lladdr {ROUTER_MAC} dev eth0 nud permanent"),
                &format!("route add default via {gateway} congctl cubic"),
                &format!("route add default via {gateway_v6} congctl cubic"),
            ],
        )?;
        configure(
            &self.router,
            &[
                &format!("address add {gateway}/24 dev client{n}"),
                &format!("address add {gateway_v6}/64 dev client{n}"),
                &format!("link set client{n} up"),
                &format!("neighbour add {address} lladdr {PEER_MAC} dev client{n} nud permanent"),
                &format!("neighbour add {address_v6} lladdr {PEER_MAC} dev client{n} nud permanent"),
            ],
        )
    }

    /// Tells the router which addresses a NAT on the link may give to the client, which does not answer for them.
    fn introduce_translated(&self, n: u8, line: Option<&Line>) -> Result<()> {
        let boxes = line.map_or(&[][..], |line| &line.middleboxes);
        for middlebox in boxes {
            let Middlebox::Nat { addresses, .. } = middlebox else { continue };
            for address in addresses {
                let line =
                    format!("neighbour replace {address} lladdr {PEER_MAC} dev client{n} nud permanent");
                configure(&self.router, &[&line])?;
            }
        }
        Ok(())
    }
}

/// Joins two nodes; both interfaces are made where they belong and never seen on the host.
fn wire(one: (&Node, &str, &str), other: (&Node, &str, &str)) -> Result<()> {
    let end = |(node, interface, mac): (&Node, &str, &str)| {
        format!("name {interface} address {mac} netns {}", node.namespace().name())
    };
    let line = format!("link add {} type veth peer {}", end(one), end(other));
    crate::namespace::ip(&line.split_whitespace().collect::<Vec<_>>())?;
    Ok(())
}

fn configure(node: &Node, lines: &[&str]) -> Result<()> {
    let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
    node.ip_lines(&lines).with_context(|| format!("configuring {}", node.role()))?;
    Ok(())
}

/// The router's interfaces and routes on the side of the world.
const ROUTER_LINES: &[&str] = &[
    "address add 198.51.100.1/24 dev server",
    "address add 2001:db8:100::1/64 dev server",
    "address add 192.0.2.1/24 dev target",
    "address add 2001:db8:200::1/64 dev target",
    "link set server up",
    "link set target up",
    "route add unreachable 192.0.2.128/25",
    "route add unreachable 2001:db8:200:0:1::/80",
    "route add 203.0.113.0/24 via 192.0.2.10",
];

/// Those of the server.
const SERVER_LINES: &[&str] = &[
    "address add 198.51.100.2/24 dev eth0",
    "address add 2001:db8:100::2/64 dev eth0",
    "address add 203.0.113.1/24 dev target",
    "address add 2001:db8:300::1/64 dev target",
    "link set eth0 up",
    "link set target up",
    "route add default via 198.51.100.1",
    "route add default via 2001:db8:100::1",
    "route add 192.0.2.10 via 203.0.113.10",
    "route add 2001:db8:200::10 via 2001:db8:300::10",
    "route add unreachable 192.0.2.128/25",
    "route add unreachable 2001:db8:200:0:1::/80",
];

/// Those of the target.
const TARGET_LINES: &[&str] = &[
    "address add 192.0.2.10/24 dev eth0",
    "address add 2001:db8:200::10/64 dev eth0",
    "address add 203.0.113.10/24 dev eth1",
    "address add 2001:db8:300::10/64 dev eth1",
    "link set eth0 up",
    "link set eth1 up",
    "route add default via 192.0.2.1 congctl cubic",
    "route add default via 2001:db8:200::1 congctl cubic",
];

/// Every wire has two ends, so four locally administered addresses do for all of them.
pub(crate) const ROUTER_MAC: &str = "02:00:00:00:00:01";
pub(crate) const PEER_MAC: &str = "02:00:00:00:00:02";
const LINK_CLIENT_MAC: &str = "02:00:00:00:00:03";
const LINK_ROUTER_MAC: &str = "02:00:00:00:00:04";

/// Any number; the same losses in every run make runs comparable.
const SEED: u64 = 20_261_122;
