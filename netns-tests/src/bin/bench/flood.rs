//! A tunnel limited to 200 Mbit/s while strangers flood its server, beside one whose host is flooded on a port that nobody holds.

use std::net::SocketAddrV4;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use netns_tests::addresses::SERVER;
use netns_tests::emulator::Profile;
use netns_tests::flood::{self, Flooded, Stranger};
use netns_tests::topology::{Setup, Topology};
use netns_tests::vpn::PORT;

use crate::iperf::{IPERF_PORT, Way, iperf_to, start_iperf};
use crate::plan::Plan;
use crate::report::percentile;
use crate::summary::Row;
use crate::systems::{Running, System, start_on_wires};
use crate::usage::{Cpu, resident_bytes};

/// Ours alone: the others have ports of UDP, or a kernel that answers.
pub(crate) fn run(plan: &Plan) -> Vec<Row> {
    println!(
        "A download of ours over 200 Mbit/s and 20 ms while its server is flooded, {} s each.\n",
        TIME.as_secs()
    );
    for (stranger, what) in [(Stranger::Syn, "spoofed SYNs"), (Stranger::Payload, "payloads of nobody")] {
        match measure(stranger, plan.repeats(1, 5)) {
            Ok(text) => println!("{what}, {RATE} a second wanted\n{text}"),
            Err(error) => eprintln!("bench: flood: {error:#}"),
        }
    }
    Vec::new()
}

pub(crate) fn takes(plan: &Plan) -> Duration {
    (Duration::from_secs(10) + (TIME + WARM_UP) * 3 * plan.repeats(1, 5)) * 2
}

/// One network for all, the three cases in turn.
fn measure(stranger: Stranger, repeats: u32) -> Result<String> {
    let topology =
        Topology::build(Setup::link(Profile::long_line(200_000_000, Duration::from_millis(20), 0.0)))?;
    let _iperf = start_iperf(&topology)?;
    let running = start_on_wires(System::Vpn, &topology, IPERF_PORT)?;
    let host = flood::host(&topology)?;
    let mut cases: Vec<Case> = vec![
        Case::new("no flood", None),
        Case::new("to a port that nobody holds", Some(NOBODYS)),
        Case::new("to the server's port", Some(PORT)),
    ];
    for _ in 0..repeats {
        for case in &mut cases {
            let (host, stop) = (&host, &AtomicBool::new(false));
            let (goodput, flooded) = std::thread::scope(|scope| {
                let flooding = case.port.map(|port| {
                    let to = SocketAddrV4::new(SERVER, port);
                    scope.spawn(move || flood::flood(host, stranger, to, RATE, stop))
                });
                let measured = case.measure(&running);
                stop.store(true, Ordering::Relaxed);
                let flooded =
                    flooding.map(|thread| thread.join().unwrap_or_else(|_| bail!("the flood panicked")));
                anyhow::Ok((measured?, flooded.transpose()?))
            })?;
            case.goodput.push(goodput);
            case.flooded.extend(flooded);
        }
    }
    let lines: Vec<String> = cases.iter().map(Case::line).collect::<Result<_>>()?;
    let ratio = cases[2].median()? / cases[1].median()?;
    Ok(format!("{}\n  ratio of the last two: {ratio:.2}, to be 0.80 at least\n", lines.join("\n")))
}

/// What is flooded meanwhile, and what was measured.
struct Case {
    name: &'static str,
    port: Option<u16>,
    goodput: Vec<f64>,
    flooded: Vec<Flooded>,
    server_cpu: f64,
    memory: [f64; 2],
}

impl Case {
    fn new(name: &'static str, port: Option<u16>) -> Self {
        Self { name, port, goodput: Vec::new(), flooded: Vec::new(), server_cpu: 0.0, memory: [0.0; 2] }
    }

    fn measure(&mut self, running: &Running<'_>) -> Result<f64> {
        let pids = running.pids()?;
        let before = (Cpu::now(&pids)?, resident_bytes(&pids[1])?);
        let goodput = iperf_to(running.topology.client(), running.server, Way::Down, TIME, WARM_UP)?;
        self.server_cpu = Cpu::now(&pids)?.since(before.0).ends[1] / (TIME + WARM_UP).as_secs_f64();
        self.memory = [before.1, resident_bytes(&pids[1])?];
        Ok(goodput)
    }

    fn median(&self) -> Result<f64> {
        median(&self.goodput).context("nothing was measured")
    }

    fn line(&self) -> Result<String> {
        let rates: Vec<f64> = self.flooded.iter().map(|flooded| flooded.rate).collect();
        let rate = median(&rates).unwrap_or(0.0);
        let [before, after] = self.memory.map(|bytes| bytes / 1e6);
        Ok(format!(
            "  {:<28} {:>6.1} Mbit/s, {rate:>7.0} packets/s of the flood sent, server {:.2} of a core, {before:.1} -> {after:.1} MB",
            self.name,
            self.median()? / 1e6,
            self.server_cpu,
        ))
    }
}

fn median(values: &[f64]) -> Option<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    percentile(&values, 0.5)
}

const RATE: u32 = 100_000;

/// Nobody's.
const NOBODYS: u16 = 4444;

const TIME: Duration = Duration::from_secs(8);
const WARM_UP: Duration = Duration::from_secs(2);
