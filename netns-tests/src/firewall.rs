//! The router as the strictest of home routers: it masks the clients behind its address and lets nothing pass that its
//! connection tracking does not know.

use anyhow::{Context, Result};

use crate::node::Node;

/// Lets the clients out behind the router's address, answers in, and drops what connection tracking finds invalid.
///
/// With `loose`, a TCP connection may be picked up in its middle, as Linux does by default; without, it must begin with a SYN.
/// Sequence numbers outside of the advertised windows are invalid in any case.
///
/// # Errors
/// If the kernel or `nft` refuses.
pub fn raise(router: &Node, loose: bool) -> Result<()> {
    router.program("nft")?.words("-f -").input(RULES).output()?;
    // They exist from the first rule that needs connection tracking.
    router.set_sysctl("net/netfilter/nf_conntrack_tcp_be_liberal", "0")?;
    router.set_sysctl("net/netfilter/nf_conntrack_tcp_loose", if loose { "1" } else { "0" })
}

/// The TCP connections that the router tracks to `port`, one a line, as `conntrack -L` shows them.
///
/// # Errors
/// If `conntrack` fails.
pub fn connections(router: &Node, port: u16) -> Result<Vec<String>> {
    let list = router.run(&format!("conntrack -L -p tcp --orig-port-dst {port}"))?;
    Ok(list.lines().map(str::to_owned).collect())
}

/// Forgets every connection, as a router that starts anew.
///
/// # Errors
/// If `conntrack` fails.
pub fn forget(router: &Node) -> Result<()> {
    router.run("conntrack -F")?;
    Ok(())
}

/// How many packets connection tracking has found invalid, as `conntrack -S` counts them.
///
/// # Errors
/// If `conntrack` fails or does not count.
pub fn invalid(router: &Node) -> Result<u64> {
    let counts = router.run("conntrack -S")?;
    let counts = counts.split_whitespace().filter_map(|word| word.strip_prefix("invalid="));
    counts.map(|count| count.parse::<u64>().context("conntrack -S")).sum()
}

const RULES: &str = "
table inet strict {
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state invalid drop
        ct state established,related accept
        iifname \"client*\" ct state new accept
    }
    chain postrouting {
        type nat hook postrouting priority srcnat;
        oifname { \"server\", \"target\" } masquerade
    }
}
";
