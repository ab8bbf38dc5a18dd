//! Segments that a box on the way forges, in either end's name, with the numbers that the other expects: nothing ends.
//!
//! ```text
//!   client ──[ 50 Mbit/s, 40 ms ]──(box: RST, FIN, SYN, data ⇇ ⇉)── router ── server ── target
//! ```

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netns_tests::emulator::{Middlebox, Profile, Segment, Towards};
use netns_tests::topology::Setup;
use netns_tests::tunnel::{Tunnel, tunnel_scenario};

const SIZE: usize = 3 << 20;

#[test]
fn forged_resets_end_nothing_and_are_counted() {
    forged("forged_resets_end_nothing_and_are_counted", Segment::Reset, Towards::Both, 100);
}

#[test]
fn forged_fins_end_nothing_and_are_counted() {
    forged("forged_fins_end_nothing_and_are_counted", Segment::Fin, Towards::Both, 100);
}

#[test]
fn forged_syns_begin_nothing_and_are_counted() {
    forged("forged_syns_begin_nothing_and_are_counted", Segment::Syn, Towards::Both, 100);
}

#[test]
fn forged_data_is_not_believed_and_is_counted() {
    forged("forged_data_is_not_believed_and_is_counted", Segment::Data, Towards::Both, 100);
}

#[test]
fn forged_data_off_the_window_moves_nothing_and_is_counted() {
    let name = "forged_data_off_the_window_moves_nothing_and_is_counted";
    forged(name, Segment::StrayData, Towards::Both, 100);
}

#[test]
fn resets_behind_every_packet_from_the_first_syn_on_do_not_keep_the_tunnel_down() {
    let name = "resets_behind_every_packet_from_the_first_syn_on_do_not_keep_the_tunnel_down";
    forged(name, Segment::Reset, Towards::Both, 1);
}

#[test]
fn resets_to_the_listener_end_nothing() {
    forged("resets_to_the_listener_end_nothing", Segment::Reset, Towards::Router, 1);
}

#[test]
fn resets_to_the_client_end_nothing() {
    forged("resets_to_the_client_end_nothing", Segment::Reset, Towards::Client, 1);
}

#[test]
fn a_reset_to_the_first_syn_of_each_connection_does_not_keep_the_tunnel_down() {
    let name = "a_reset_to_the_first_syn_of_each_connection_does_not_keep_the_tunnel_down";
    let forge = Middlebox::Forge { segment: Segment::Reset, towards: Towards::Client, after: 1, every: None };
    tunnel_scenario(name, line().with(forge), SIZE, |tunnel| {
        let forged = tunnel.topology.link().counted(|stats| stats.forged)?;
        ensure!(forged[0] == 0 && forged[1] > 0, "{forged:?} were forged");
        tunnel.download()?;
        Ok(())
    });
}

/// Files both ways with a forged segment after every so many packets.
fn forged(name: &str, segment: Segment, towards: Towards, every: u64) {
    let forge = Middlebox::Forge { segment, towards, after: every, every: Some(every) };
    tunnel_scenario(name, line().with(forge), SIZE, |tunnel| {
        tunnel.download()?;
        tunnel.upload()?;
        let migrations = tunnel.vpn.migrations(tunnel.client())?;
        let nodes = [&tunnel.topology.server, tunnel.client()];
        // Read before what the link says: what passes in between is forged there, too.
        let counted = [counted(tunnel, nodes[0], segment)?, counted(tunnel, nodes[1], segment)?];
        // Forged segments that reach the router and its side go out, those that reach the client go in.
        let [out, inward] = tunnel.topology.link().stats()?.map(|stats| stats.forged);
        ensure!((out > 0) == (towards != Towards::Client), "{out} forged to the server");
        ensure!((inward > 0) == (towards != Towards::Router), "{inward} forged to the client");
        // A carrier that they end would not live longer than to the next; on a busy machine, one may stall by itself.
        let forged = out + inward;
        ensure!(migrations * 10 < forged, "{migrations} migrations with {forged} forged segments");
        for ((node, counted), forged) in nodes.into_iter().zip(counted).zip([out, inward]) {
            ensure!((counted > 0) == (forged > 0), "{} counts {counted} of {forged}", node.role());
            ensure!(counted <= forged, "{} counts {counted} of {forged}", node.role());
        }
        Ok(())
    });
}

fn line() -> Setup {
    Setup::link(Profile::long_line(50_000_000, Duration::from_millis(40), 0.0))
}

/// What `status --json` on `node` says was injected.
fn counted(tunnel: &Tunnel<'_>, node: &netns_tests::node::Node, segment: Segment) -> Result<u64> {
    let injected = tunnel.vpn.tunnel(node)?["injected"].clone();
    let counter = match segment {
        Segment::Reset => "rst",
        Segment::Fin => "fin",
        Segment::Syn => "syn",
        Segment::Data | Segment::StrayData => "data",
    };
    injected[counter].as_u64().with_context(|| format!("{injected}"))
}
