//! Packets that no host sends, thrown at the port of a server: counted, answered by nothing, and nothing is kept of them.
//!
//! ```text
//!   (strangers of 198.18.0.0/15) ──> router ── server: vpn serve
//! ```

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netns_tests::addresses::{SERVER, SERVER_V6, TUNNEL_SERVER};
use netns_tests::emulator::checksum;
use netns_tests::flood::{self, Flood, Stranger};
use netns_tests::scenario::scenario;
use netns_tests::sockets;
use netns_tests::topology::{Setup, Topology};
use netns_tests::vpn::{PORT, Vpn};
use netns_tests::wait;

const LIMIT: Duration = Duration::from_secs(20);

/// What a stranger does to an ordinary frame, and the counter of `status` that it ends in.
type Hostile = (&'static str, Stranger, fn(&mut Vec<u8>), &'static str);

/// Every field of the headers of IP and TCP that says something untrue, and segments of no connection.
const HOSTILE: &[Hostile] = &[
    ("IP options", Stranger::Payload, with_ip_options, "outer"),
    ("a first fragment", Stranger::Payload, |frame| frame[IP + 6] = 0x20, "outer"),
    ("less than its headers", Stranger::Payload, |frame| set_total(frame, 30), "receive_malformed"),
    ("more than there is", Stranger::Payload, |frame| set_total(frame, 1400), "receive_malformed"),
    ("a data offset in the header", Stranger::Payload, |frame| frame[TCP + 12] = 4 << 4, "receive_malformed"),
    ("a data offset behind the end", Stranger::Syn, |frame| frame[TCP + 12] = 15 << 4, "receive_malformed"),
    ("an option cut short", Stranger::Syn, |frame| frame[TCP + 20..].copy_from_slice(&CUT_SHORT), "outer"),
    ("an option of no length", Stranger::Syn, |frame| frame[TCP + 21] = 0, "outer"),
    ("an option of length one", Stranger::Syn, |frame| frame[TCP + 21] = 1, "outer"),
    ("an option longer than all", Stranger::Syn, |frame| frame[TCP + 21] = 255, "outer"),
    ("an MSS of five bytes", Stranger::Syn, |frame| frame[TCP + 21] = 5, "outer"),
    ("no flags", Stranger::Payload, |frame| frame[TCP + 13] = 0, "outer"),
    ("all flags", Stranger::Payload, |frame| frame[TCP + 13] = 0xff, "outer"),
    ("SYN and FIN", Stranger::Syn, |frame| frame[TCP + 13] = 3, "outer"),
    ("SYN and RST", Stranger::Syn, |frame| frame[TCP + 13] = 6, "outer"),
    ("port 0", Stranger::Syn, |frame| frame[TCP..TCP + 2].fill(0), "outer"),
    ("from nobody", Stranger::Syn, |frame| set_source(frame, Ipv4Addr::UNSPECIFIED), "outer"),
    ("from everybody", Stranger::Syn, |frame| set_source(frame, Ipv4Addr::BROADCAST), "outer"),
    ("from a group", Stranger::Syn, |frame| set_source(frame, Ipv4Addr::new(224, 0, 0, 1)), "outer"),
    ("from the server itself", Stranger::Syn, |frame| from_the_server(frame), "outer"),
    ("RST", Stranger::Payload, |frame| frame[TCP + 13] = 0x04, "stranger"),
    ("FIN", Stranger::Payload, |frame| frame[TCP + 13] = 0x11, "stranger"),
    ("a SYN-ACK", Stranger::Payload, |frame| frame[TCP + 13] = 0x12, "stranger"),
    ("a SYN with a payload and ACK, URG, PSH", Stranger::Payload, |frame| frame[TCP + 13] = 0x3a, "stranger"),
    ("a payload of nobody", Stranger::Payload, |_| {}, "stranger"),
    ("an index of nobody", Stranger::Masked, |_| {}, "stranger"),
    ("a message 1 that opens under no key", Stranger::Bare, |_| {}, "handshake"),
    ("a payload without an end", Stranger::Payload, |frame| frame.truncate(TCP + 20), "receive_malformed"),
];

#[test]
fn hostile_packets_are_counted_and_get_no_answer() {
    scenario("hostile_packets_are_counted_and_get_no_answer", Setup::PLAIN, |topology| {
        let vpn = Vpn::prepare(topology)?;
        let _serve = vpn.serve(topology)?;
        topology.router.ip("route replace blackhole 198.18.0.0/15")?;
        let answers =
            topology.router.capture("server", &format!("tcp and src {SERVER} and not dst {SERVER}"))?;
        for (what, stranger, change, counter) in HOSTILE {
            let before = dropped(&vpn, topology)?;
            let [mut frame] = <[_; 1]>::try_from(stranger.frames(OURS, &vpn.server_keys.public, 1)?)
                .ok()
                .context("one frame")?;
            change(&mut frame);
            set_checksum(&mut frame);
            flood::send(topology, &[frame])?;
            let after = wait::until(what, LIMIT, || {
                let after = dropped(&vpn, topology)?;
                Ok((after != before).then_some(after))
            })?;
            let mut expected = before.clone();
            let count = expected.entry((*counter).to_owned()).or_default();
            *count += 1;
            ensure!(after == expected, "{what}: {before:?} became {after:?}");
        }
        let packets = answers.finish(&topology.router, "")?;
        ensure!(packets.is_empty(), "answers: {packets:#?}");
        // And it serves as before.
        vpn.up(topology, 0, "")?;
        vpn.down(topology, 0)?.expect_code(0)?;
        Ok(())
    });
}

#[test]
fn what_strangers_begin_does_not_fill_the_hosts_table_of_connections() {
    let name = "what_strangers_begin_does_not_fill_the_hosts_table_of_connections";
    scenario(name, Setup::PLAIN, |topology| {
        let vpn = Vpn::prepare(topology)?;
        let _serve = vpn.serve(topology)?;
        topology.router.ip("route replace blackhole 198.18.0.0/15")?;
        for stranger in [Stranger::Syn, Stranger::Payload] {
            flood::send(topology, &stranger.frames(OURS, &vpn.server_keys.public, STRANGERS)?)?;
        }
        // Payloads come last; a busy machine may lose some.
        wait::until("most payloads", LIMIT, || {
            let seen = dropped(&vpn, topology)?.get("stranger").copied().unwrap_or(0);
            Ok((seen > STRANGERS as u64 * 3 / 4).then_some(()))
        })?;
        let tracked = tracked(topology)?;
        ensure!(tracked < STRANGERS / 2, "{tracked} connections of {} strangers are tracked", 2 * STRANGERS);
        vpn.up(topology, 0, "")?;
        vpn.down(topology, 0)?.expect_code(0)?;
        Ok(())
    });
}

#[test]
fn others_on_our_port_are_found_while_strangers_flood_us() {
    scenario("others_on_our_port_are_found_while_strangers_flood_us", Setup::PLAIN, |topology| {
        topology.server.ip(&format!("address add {NEIGHBOUR}/24 dev eth0"))?;
        let vpn = Vpn::prepare(topology)?;
        let listen = format!("listen = [\"{OURS}\", \"[{SERVER_V6}]:{}\"]", PORT + 1);
        let config = vpn.server_config().replace(&format!("listen = [\"0.0.0.0:{PORT}\"]"), &listen);
        ensure!(config.contains(&listen), "{config}");
        vpn.write("server.toml", &config)?;
        let _serve = vpn.serve(topology)?;
        let (client, server) = (topology.client(), &topology.server);
        let others: [(_, IpAddr); 4] = [
            (client, NEIGHBOUR.into()),
            (client, SERVER_V6.into()),
            (server, Ipv4Addr::LOCALHOST.into()),
            (server, TUNNEL_SERVER.into()),
        ];
        let listeners = others.map(|(_, address)| sockets::listen(server, address, PORT));
        let listeners = listeners.into_iter().collect::<Result<Vec<_>>>()?;
        let flood = Flood::new(topology, Stranger::Syn, OURS, &vpn.server_keys.public)?;
        // What may come at once is spent before anybody asks for the others.
        flood::send(topology, &Stranger::Syn.frames(OURS, &vpn.server_keys.public, STRANGERS)?)?;
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let flood = scope.spawn(|| flood.run(RATE, &stop));
            let found = others.iter().zip(&listeners).try_for_each(|((from, address), listener)| {
                for _ in 0..5 {
                    let _stream = sockets::connect(from, *address, PORT, LIMIT)
                        .with_context(|| format!("{address} is not found"))?;
                    sockets::accept(listener, LIMIT)?;
                }
                Ok(())
            });
            stop.store(true, Ordering::Relaxed);
            let sent = flood.join().ok().context("the flood panicked")??;
            ensure!(sent > 0, "no flood");
            found
        })?;
        // And those of the flood were dropped.
        let tracked = tracked(topology)?;
        ensure!(tracked < STRANGERS / 2, "{tracked} connections are tracked");
        Ok(())
    });
}

/// How many connections the server's host has in its table.
fn tracked(topology: &Topology) -> Result<usize> {
    let count = topology.server.run("cat /proc/sys/net/netfilter/nf_conntrack_count")?;
    Ok(count.trim().parse()?)
}

/// Every counter of what the server dropped.
fn dropped(vpn: &Vpn, topology: &Topology) -> Result<std::collections::BTreeMap<String, u64>> {
    let drops = vpn.tunnel(&topology.server)?["drops"].clone();
    let drops = drops.as_object().context("no drops in status --json")?;
    // What the host itself says through the tunnel's device is not theirs.
    let theirs = drops.iter().filter(|(reason, _)| *reason != "unrouted");
    theirs.map(|(reason, count)| Ok((reason.clone(), count.as_u64().context("no count")?))).collect()
}

fn with_ip_options(frame: &mut Vec<u8>) {
    frame[IP] = 0x46;
    frame.splice(TCP..TCP, [1, 1, 1, 1]);
    let total = u16::try_from(frame.len() - IP).unwrap_or(0);
    set_total(frame, total);
}

fn from_the_server(frame: &mut [u8]) {
    set_source(frame, SERVER);
    frame[TCP..TCP + 2].copy_from_slice(&PORT.to_be_bytes());
}

fn set_total(frame: &mut [u8], total: u16) {
    frame[IP + 2..IP + 4].copy_from_slice(&total.to_be_bytes());
}

fn set_source(frame: &mut [u8], source: Ipv4Addr) {
    frame[IP + 12..IP + 16].copy_from_slice(&source.octets());
}

/// That of the IP header; nobody who taps looks at TCP's.
fn set_checksum(frame: &mut [u8]) {
    let length = usize::from(frame[IP] & 0xf) * 4;
    frame[IP + 10..IP + 12].fill(0);
    let sum = checksum(&frame[IP..IP + length], 0);
    frame[IP + 10..IP + 12].copy_from_slice(&sum.to_be_bytes());
}

/// Of each kind: far more than may be tracked at once, and than wait at the door.
const STRANGERS: usize = 3000;

const OURS: SocketAddrV4 = SocketAddrV4::new(SERVER, PORT);

/// Another address of the server's host, where we do not listen.
const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 3);

/// SYNs a second: so many that each place in the table is taken before anybody else comes by, though they are sent in batches.
const RATE: u32 = 10_000;

/// Eleven NOPs and the first byte of an MSS.
const CUT_SHORT: [u8; 12] = [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2];

/// Where the headers begin in a frame without IP options.
const IP: usize = 14;
const TCP: usize = IP + 20;
