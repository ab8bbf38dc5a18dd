//! A status for people, laid out like `wg show`: a block for the interface, one for each peer, and one for the flows if they were
//! asked for.

use std::fmt::{self, Display};

use super::flow_table;
use super::status::{Carrier, Injected, Kcp, Migrated, ModeKnown, Peer, Session, Status, Tunnel};
use super::units::{Age, Size};
use super::{Flows, Role};

/// Writes all tunnels, a blank line between blocks; nothing when there is none.
pub fn render(status: &Status) -> String {
    let blocks: Vec<_> = status.tunnels.iter().flat_map(tunnel_blocks).collect();
    blocks.join("\n")
}

fn tunnel_blocks(tunnel: &Tunnel) -> Vec<String> {
    let mut blocks = vec![interface_block(tunnel)];
    match tunnel.role {
        Role::Client => blocks.push(server_block(tunnel)),
        Role::Server => blocks.extend(tunnel.peers.iter().map(peer_block)),
    }
    blocks.extend(flow_table::render(&tunnel.flows));
    blocks
}

fn interface_block(tunnel: &Tunnel) -> String {
    let mut block = Block::new("interface", &tunnel.interface);
    block.line("name", format!("{} ({})", tunnel.name, tunnel.role.as_str()));
    block.line("public key", &tunnel.public_key);
    block.line("addresses", joined(&tunnel.addresses));
    if tunnel.role == Role::Server {
        block.line("listening on", &tunnel.server);
    }
    match &tunnel.reason {
        Some(reason) => block.line("state", format!("{}: {reason}", tunnel.state.as_str())),
        None => block.line("state", tunnel.state.as_str()),
    }
    block.line("running for", Age(tunnel.age_s));
    if let Some(listener) = tunnel.listener {
        let (answered, dropped) = (listener.syn_acks_sent, listener.syns_dropped);
        block.line("SYNs", format!("{answered} answered, {dropped} dropped because there were too many"));
    }
    let limits = &tunnel.limits;
    block.line("buffered", format!("{} of {}", Size(limits.buffered), Size(limits.process_buffer)));
    if !tunnel.drops.is_empty() {
        let drops = tunnel.drops.iter();
        let drops: Vec<_> = drops.map(|(reason, count)| format!("{count} {reason}")).collect();
        block.line("dropped", drops.join(", "));
    }
    block.text
}

fn server_block(tunnel: &Tunnel) -> String {
    let mut block = Block::new("server", &tunnel.server);
    for carrier in &tunnel.carriers {
        carrier_lines(&mut block, carrier);
    }
    if let Some(network) = &tunnel.network {
        block.line("network", network);
    }
    // Without a choice there is nothing to tell.
    if tunnel.modes.len() > 1 {
        block.line("modes", modes(&tunnel.modes));
    }
    if tunnel.migrations > 0 {
        block.line("migrations", format!("{}{}", tunnel.migrations, reasons(&tunnel.migrated)));
    }
    injected_line(&mut block, tunnel.injected);
    session_lines(&mut block, &tunnel.session, &tunnel.flows);
    block.text
}

fn peer_block(peer: &Peer) -> String {
    let mut block = Block::new("peer", &peer.name);
    block.line("public key", &peer.public_key);
    block.line("addresses", joined(&peer.addresses));
    let Some(state) = peer.state else {
        return block.text;
    };
    block.line("state", state.as_str());
    for carrier in &peer.carriers {
        carrier_lines(&mut block, carrier);
    }
    if peer.migrations + peer.moves > 0 {
        block.line("migrations", format!("{}, its address changed {} times", peer.migrations, peer.moves));
    }
    injected_line(&mut block, peer.injected);
    session_lines(&mut block, &peer.session, &peer.flows);
    block.text
}

fn injected_line(block: &mut Block, Injected { rst, fin, syn, data, off_window }: Injected) {
    if rst + fin + syn + data > 0 {
        let text = format!("{rst} RST, {fin} FIN, {syn} SYN, {data} data, all ignored");
        block.line("middlebox injected", text);
    }
    if off_window > 0 {
        block.line("off window", format!("{off_window} packets, whose numbers were ignored"));
    }
}

fn carrier_lines(block: &mut Block, carrier: &Carrier) {
    let Carrier { mode, local, remote, send_path, .. } = carrier;
    block.line("carrier", format!("{local} -> {remote}, {mode}, {send_path}"));
    block.line("carries for", Age(carrier.age_s));
    block.line("latest handshake", format!("{} ago", Age(carrier.keys_age_s)));
    let rtt = Milliseconds(carrier.rtt_ms);
    let (out, back) = (carrier.loss_out * 100.0, carrier.loss_in * 100.0);
    let mtu = carrier.path_mtu;
    block.line(
        "path",
        format!("round trip {rtt}, loss {out:.1} % out, {back:.1} % in, packets of {mtu} bytes"),
    );
}

/// In which order the next carriers try which mode: `bare+advance, then handshake+advance (died young 3 times)`.
fn modes(modes: &[ModeKnown]) -> String {
    let known = modes.iter().map(|known| match known.died_young {
        0 => known.mode.clone(),
        times => format!("{} (died young {times} times)", known.mode),
    });
    known.collect::<Vec<_>>().join(", then ")
}

/// Why new carriers were opened, as far as it is known: ` (2 silent, 1 moved; last moved)`.
fn reasons(migrated: &Migrated) -> String {
    let Migrated { silent, lossy, moved, closed, last } = migrated;
    let counts = [(silent, "silent"), (lossy, "lossy"), (moved, "moved"), (closed, "closed")];
    let counts = counts.iter().filter(|(count, _)| **count > 0);
    let counts: Vec<_> = counts.map(|(count, why)| format!("{count} {why}")).collect();
    let last = last.as_ref().map_or_else(String::new, |last| format!("; last {last}"));
    if counts.is_empty() { String::new() } else { format!(" ({}{last})", counts.join(", ")) }
}

fn session_lines(block: &mut Block, session: &Session, flows: &Flows) {
    let (received, sent) = (Size(session.received_bytes), Size(session.sent_bytes));
    let again = Size(session.retransmitted_bytes);
    block.line("transfer", format!("{received} received, {sent} sent, {again} of it again"));
    let received = Size(session.goodput_received_bytes);
    let sent = Size(session.goodput_sent_bytes);
    block.line("goodput", format!("{received} received, {sent} sent"));
    match session.kcp {
        Some(kcp) if kcp.srtt_ms.is_some() => kcp_lines(block, &kcp),
        _ => block.line("round trip", Milliseconds(session.rtt_ms)),
    }
    block.line("flows", format!("{} open, {} in all", flows.open, flows.total));
    if session.buffer_bytes > 0 {
        let (held, most) = (Size(session.buffered_bytes), Size(session.buffer_bytes));
        block.line("buffered", format!("{held} of {most}"));
    }
}

/// What an engineer asks first, in three lines; the rest is in the JSON.
fn kcp_lines(block: &mut Block, kcp: &Kcp) {
    let least = kcp.min_rtt_ms.map(|rtt| format!(", at least {}", Milliseconds(Some(rtt))));
    block.line("round trip", format!("{}{}", Milliseconds(kcp.srtt_ms), least.unwrap_or_default()));
    let rate = kcp.bandwidth_bytes_per_s.map(|rate| format!(", the path carries about {}/s", Size(rate)));
    let (flight, window) = (Size(kcp.in_flight_bytes), Size(kcp.window_bytes));
    block.line("in flight", format!("{flight} of {window}{}", rate.unwrap_or_default()));
    let again = kcp.retransmitted_segments;
    let all = kcp.sent_segments + again + kcp.copied_segments;
    let (lost, copied) = (Percent(kcp.lost_segments, all), Percent(kcp.copied_segments, all));
    let (again, needless) = (Percent(again, all), Percent(kcp.spurious_segments, again));
    let again = format!("{again} sent again, {needless} of these needlessly");
    block.line("segments", format!("{lost} lost, {again}, {copied} copied early"));
}

/// A heading with indented lines under it.
struct Block {
    text: String,
}

impl Block {
    fn new(kind: &str, name: &str) -> Self {
        let text = format!("{kind}: {name}\n");
        Self { text }
    }

    fn line(&mut self, key: &str, value: impl Display) {
        self.text.push_str(&format!("  {key}: {value}\n"));
    }
}

fn joined(list: &[impl Display]) -> String {
    let list: Vec<_> = list.iter().map(ToString::to_string).collect();
    if list.is_empty() {
        return "(none)".to_owned();
    }
    list.join(", ")
}

/// One count as a part of another: `2.5 %`; of nothing it is 0.
struct Percent(u64, u64);

impl Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // In tenths, rounded to the nearest, without the loss of a float.
        let (part, whole) = (u128::from(self.0), u128::from(self.1.max(1)));
        let tenths = (part * 1000 + whole / 2) / whole;
        write!(f, "{}.{} %", tenths / 10, tenths % 10)
    }
}

struct Milliseconds(Option<f64>);

impl Display for Milliseconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(milliseconds) => write!(f, "{milliseconds:.1} ms"),
            None => f.write_str("not measured"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::State;
    use crate::control::status::Listener;
    use crate::control::status::tests::{client, kcp};

    #[test]
    fn lays_a_client_out_like_wg_show() {
        let status = Status { tunnels: vec![client()] };
        assert_eq!(
            render(&status),
            "\
interface: vpn0
  name: client (client)
  public key: hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=
  addresses: 10.77.0.2/24, fd77::2/64
  state: up
  running for: 1 hour, 2 minutes, 5 seconds
  buffered: 1.50 KiB of 1.00 GiB
  dropped: 7 replay

server: 203.0.113.9:443
  carrier: 192.0.2.7:51234 -> 203.0.113.9:443, handshake+advance, raw
  carries for: 6 minutes, 20 seconds
  latest handshake: 1 minute, 20 seconds ago
  path: round trip 101.2 ms, loss 2.0 % out, 0.0 % in, packets of 1500 bytes
  network: gateway 02:00:00:00:00:01
  modes: bare+advance, then handshake+advance (died young 3 times)
  migrations: 2 (1 silent, 1 moved; last moved)
  middlebox injected: 3 RST, 0 FIN, 1 SYN, 2 data, all ignored
  transfer: 3.00 GiB received, 5.00 MiB sent, 100.00 KiB of it again
  goodput: 900 B received, 4.00 MiB sent
  round trip: 102.0 ms, at least 98.5 ms
  in flight: 300.00 KiB of 2.00 MiB, the path carries about 11.00 MiB/s
  segments: 3.8 % lost, 4.7 % sent again, 10.0 % of these needlessly, 5.8 % copied early
  flows: 3 open, 120 in all
  buffered: 1.00 KiB of 64.00 MiB
"
        );
    }

    #[test]
    fn lays_a_server_out_with_its_peers() {
        let absent = Peer {
            name: "bob".to_owned(),
            public_key: "B=".to_owned(),
            addresses: Vec::new(),
            state: None,
            remote: None,
            handshake_age_s: None,
            carriers: Vec::new(),
            migrations: 0,
            moves: 0,
            injected: Injected::default(),
            session: Session::default(),
            flows: Flows::default(),
        };
        let present = Peer {
            name: "alice".to_owned(),
            addresses: vec!["10.77.0.2".parse().unwrap()],
            state: Some(State::Up),
            remote: Some("192.0.2.7:51234".to_owned()),
            handshake_age_s: Some(0.4),
            carriers: client().carriers,
            migrations: 1,
            moves: 2,
            injected: Injected { rst: 3, off_window: 5, ..Injected::default() },
            ..absent.clone()
        };
        let server = Tunnel {
            role: Role::Server,
            name: "server".to_owned(),
            server: "0.0.0.0:443".to_owned(),
            state: State::Failed,
            reason: Some("the device is gone".to_owned()),
            peers: vec![present, absent],
            drops: [].into(),
            listener: Some(Listener { syn_acks_sent: 12, syns_dropped: 7 }),
            ..client()
        };
        assert_eq!(
            render(&Status { tunnels: vec![server] }),
            "\
interface: vpn0
  name: server (server)
  public key: hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=
  addresses: 10.77.0.2/24, fd77::2/64
  listening on: 0.0.0.0:443
  state: failed: the device is gone
  running for: 1 hour, 2 minutes, 5 seconds
  SYNs: 12 answered, 7 dropped because there were too many
  buffered: 1.50 KiB of 1.00 GiB

peer: alice
  public key: B=
  addresses: 10.77.0.2
  state: up
  carrier: 192.0.2.7:51234 -> 203.0.113.9:443, handshake+advance, raw
  carries for: 6 minutes, 20 seconds
  latest handshake: 1 minute, 20 seconds ago
  path: round trip 101.2 ms, loss 2.0 % out, 0.0 % in, packets of 1500 bytes
  migrations: 1, its address changed 2 times
  middlebox injected: 3 RST, 0 FIN, 0 SYN, 0 data, all ignored
  off window: 5 packets, whose numbers were ignored
  transfer: 0 B received, 0 B sent, 0 B of it again
  goodput: 0 B received, 0 B sent
  round trip: not measured
  flows: 0 open, 0 in all

peer: bob
  public key: B=
  addresses: (none)
"
        );
    }

    #[test]
    fn tells_of_kcp_what_is_measured() {
        let lines = |kcp| {
            let session = Session { rtt_ms: Some(7.0), kcp, ..Session::default() };
            let mut block = Block::new("peer", "alice");
            session_lines(&mut block, &session, &Flows::default());
            let lines: Vec<_> = block.text.lines().skip(3).map(str::to_owned).collect();
            lines.join("\n")
        };
        let flows = "  flows: 0 open, 0 in all";
        assert_eq!(lines(None), format!("  round trip: 7.0 ms\n{flows}"));
        assert_eq!(lines(Some(Kcp::default())), format!("  round trip: 7.0 ms\n{flows}"));
        let not_bbr = Kcp { min_rtt_ms: None, bandwidth_bytes_per_s: None, spurious_segments: 0, ..kcp() };
        let expected = "  round trip: 102.0 ms\n  in flight: 300.00 KiB of 2.00 MiB\n  \
                        segments: 3.8 % lost, 4.7 % sent again, 0.0 % of these needlessly, 5.8 % copied early\n";
        assert_eq!(lines(Some(not_bbr)), format!("{expected}{flows}"));
    }

    #[test]
    fn writes_parts_in_tenths_of_a_percent() {
        for (part, whole, text) in [
            (0, 0, "0.0 %"),
            (0, 7, "0.0 %"),
            (1, 3, "33.3 %"),
            (2, 3, "66.7 %"),
            (7, 7, "100.0 %"),
            (3, 2, "150.0 %"),
            (u64::MAX, u64::MAX, "100.0 %"),
        ] {
            assert_eq!(Percent(part, whole).to_string(), text);
        }
    }

    #[test]
    fn says_nothing_of_nothing() {
        assert_eq!(render(&Status::default()), "");
    }
}
