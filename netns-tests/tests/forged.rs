//! Segments that a box on the way forges, in either end's name, with the numbers that the other expects: nothing ends.
//!
//! ```text
//!   client ──[ 50 Mbit/s, 40 ms ]──(box: RST, FIN ⇇ ⇉)── router ── server ── target
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

/// Files both ways with a forged segment after every so many packets.
fn forged(name: &str, segment: Segment, towards: Towards, every: u64) {
    let profile = Profile::long_line(50_000_000, Duration::from_millis(40), 0.0);
    let forge = Middlebox::Forge { segment, towards, after: every, every: Some(every) };
    tunnel_scenario(name, Setup::link(profile).with(forge), SIZE, |tunnel| {
        tunnel.download()?;
        tunnel.upload()?;
        ensure!(migrations(tunnel)? == 0, "a forged segment has ended the carrier");
        // Forged segments that reach the router and its side go out, those that reach the client go in.
        let [out, inward] = tunnel.topology.link().stats()?.map(|stats| stats.forged);
        ensure!((out > 0) == (towards != Towards::Client), "{out} forged to the server");
        ensure!((inward > 0) == (towards != Towards::Router), "{inward} forged to the client");
        for (node, forged) in [(&tunnel.topology.server, out), (tunnel.client(), inward)] {
            let counted = counted(tunnel, node, segment)?;
            ensure!((counted > 0) == (forged > 0), "{} counts {counted} of {forged}", node.role());
            ensure!(counted <= forged, "{} counts {counted} of {forged}", node.role());
        }
        Ok(())
    });
}

fn migrations(tunnel: &Tunnel<'_>) -> Result<u64> {
    tunnel.vpn.tunnel(tunnel.client())?["migrations"].as_u64().context("no migrations in status --json")
}

/// What `status --json` on `node` says was injected.
fn counted(tunnel: &Tunnel<'_>, node: &netns_tests::node::Node, segment: Segment) -> Result<u64> {
    let injected = tunnel.vpn.tunnel(node)?["injected"].clone();
    let counter = match segment {
        Segment::Reset => "rst",
        Segment::Fin => "fin",
    };
    injected[counter].as_u64().with_context(|| format!("{injected}"))
}
