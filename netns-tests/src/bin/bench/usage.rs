//! What processes, the machine and the line are used for.

use std::path::Path;

use anyhow::{Context, Result};
use netns_tests::node::Node;

/// CPU seconds so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cpu {
    /// Of the processes on the client and on the server.
    pub(crate) ends: [f64; 2],
    /// Of the whole machine: the kernel's work in interrupts and the load itself are in it.
    pub(crate) machine: f64,
}

impl Cpu {
    /// The CPU seconds of these processes so far.
    pub(crate) fn now(pids: &[Vec<u32>; 2]) -> Result<Self> {
        let [client, server] = pids;
        let sum = |pids: &[u32]| pids.iter().map(|pid| cpu_seconds(*pid)).sum::<Result<f64>>();
        Ok(Self { ends: [sum(client)?, sum(server)?], machine: machine_seconds()? })
    }

    /// What was used since `earlier`.
    pub(crate) fn since(self, earlier: Self) -> Self {
        let [client, server] = self.ends;
        let ends = [client - earlier.ends[0], server - earlier.ends[1]];
        Self { ends, machine: self.machine - earlier.machine }
    }
}

/// User and system time of a process so far (proc(5), fields 14 and 15 of `stat`).
pub(crate) fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"))?;
    // The second field is the name in parentheses, which may hold spaces.
    let (_, fields) = stat.rsplit_once(") ").context("no name in /proc/PID/stat")?;
    let mut times = fields.split(' ').skip(11).take(2).map(str::parse::<f64>);
    let (user, system) = (times.next().context("no user time")??, times.next().context("no system time")??);
    Ok((user + system) / rustix::param::clock_ticks_per_second() as f64)
}

/// What the machine's CPUs were busy so far (proc(5), `stat`): all but idle, iowait and what was stolen.
fn machine_seconds() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().context("/proc/stat is empty")?;
    let times: Vec<f64> = line.split_whitespace().skip(1).map(str::parse).collect::<Result<_, _>>()?;
    let busy: f64 = [0, 1, 2, 5, 6].iter().filter_map(|n| times.get(*n)).sum();
    Ok(busy / rustix::param::clock_ticks_per_second() as f64)
}

/// The resident memory of these processes, in bytes (proc(5), `VmRSS`).
pub(crate) fn resident_bytes(pids: &[u32]) -> Result<f64> {
    pids.iter().map(|pid| resident_bytes_of(*pid)).sum()
}

fn resident_bytes_of(pid: u32) -> Result<f64> {
    let status = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? * 1024.0)
}

/// What an interface has sent and received so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wire {
    /// Bytes of IP packets sent.
    pub(crate) sent_bytes: f64,
    /// Packets received.
    pub(crate) received: f64,
    /// Packets both ways.
    pub(crate) packets: f64,
}

impl Wire {
    /// The counters of an interface whose frames are as long as those of a real link.
    pub(crate) fn of(node: &Node, interface: &str) -> Result<Self> {
        let statistics = format!("/sys/class/net/{interface}/statistics");
        let counters =
            node.run(&format!("cat {statistics}/tx_bytes {statistics}/tx_packets {statistics}/rx_packets"))?;
        let counters: Vec<f64> = counters.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        let [bytes, sent, received] = counters[..] else {
            anyhow::bail!("{} counters of {interface}", counters.len());
        };
        Ok(Self { sent_bytes: bytes - sent * ETHERNET_HEADER, received, packets: sent + received })
    }
}

const ETHERNET_HEADER: f64 = 14.0;
