//! A tunnel limited to 200 Mbit/s while strangers flood its server, beside one whose host is flooded on a port that nobody holds.

use std::net::SocketAddrV4;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use netns_tests::addresses::SERVER;
use netns_tests::emulator::Profile;
use netns_tests::flood::{Flood, Stranger};
use netns_tests::table::Table;
use netns_tests::topology::{Setup, Topology};
use netns_tests::vpn::PORT;
use netns_tests::wait;

use crate::iperf::{IPERF_PORT, Way, iperf_to, start_iperf};
use crate::plan::Plan;
use crate::report::percentile;
use crate::summary::Row;
use crate::systems::{Running, System, start_on_wires};
use crate::usage::{Cpu, Wire, resident_bytes};

/// Ours alone: the others have ports of UDP, or a kernel that answers.
pub(crate) fn run(plan: &Plan) -> Vec<Row> {
    println!(
        "A download of ours over 200 Mbit/s and 20 ms, {} s each time, while strangers send {RATE} packets a second from\n\
         forged addresses to a port of its server that nobody holds, and to the one that it listens on, in turn.\n",
        TIME.as_secs()
    );
    for stranger in Stranger::ALL {
        match measure(stranger, plan.repeats(3, 7)) {
            Ok(text) => println!("{text}"),
            Err(error) => eprintln!("bench: flood: {error:#}"),
        }
    }
    Vec::new()
}

pub(crate) fn takes(plan: &Plan) -> Duration {
    (Duration::from_secs(10) + (TIME + WARM_UP) * 3 * plan.repeats(3, 7)) * 4
}

/// One network for all, the three cases in turn, in the other order every other time.
fn measure(stranger: Stranger, repeats: u32) -> Result<String> {
    let topology =
        Topology::build(Setup::link(Profile::long_line(200_000_000, Duration::from_millis(20), 0.0)))?;
    let _iperf = start_iperf(&topology)?;
    let running = start_on_wires(System::Vpn, &topology, IPERF_PORT)?;
    let mut cases = [
        Case::new("no flood", None),
        Case::new("flood of a port that nobody holds", Some(NOBODYS)),
        Case::new("flood of the server's port", Some(PORT)),
    ];
    let at_rest = memory(&running)?;
    for repeat in 0..repeats {
        if repeat > 0 {
            cases[1..].reverse();
        }
        for case in &mut cases {
            case.measure(stranger, &running)?;
        }
    }
    cases.sort_by_key(|case| case.port.map(|port| port == PORT));
    wait::pass(WARM_UP);
    let after = memory(&running)?;
    let mut table =
        Table::new(&[stranger.name(), "Mbit/s", "packets/s to the server", "its CPU", "all CPU", "its MB"]);
    for case in &cases {
        table.row(case.row()?);
    }
    let ratios: Vec<f64> =
        cases[2].goodput.iter().zip(&cases[1].goodput).map(|(one, other)| one / other).collect();
    Ok(format!(
        "{table}\nRatio of the last two, the median of {repeats} pairs: {:.2} ({:.2}–{:.2}), to be 0.80 at least; \
         memory {:.1} MB before, {:.1} after.\nThe server dropped {}.\n",
        median(&ratios)?,
        ratios.iter().copied().fold(f64::INFINITY, f64::min),
        ratios.iter().copied().fold(0.0, f64::max),
        at_rest / 1e6,
        after / 1e6,
        running.ours()?.tunnel(&running.topology.server)?["drops"],
    ))
}

/// What is flooded meanwhile, and what was measured.
struct Case {
    name: &'static str,
    port: Option<u16>,
    goodput: Vec<f64>,
    /// Packets a second that the server's host received, those of the download too.
    packets: Vec<f64>,
    /// Of the server, and of everybody; of one core.
    cpu: [Vec<f64>; 2],
    memory: f64,
}

impl Case {
    const fn new(name: &'static str, port: Option<u16>) -> Self {
        Self {
            name,
            port,
            goodput: Vec::new(),
            packets: Vec::new(),
            cpu: [Vec::new(), Vec::new()],
            memory: 0.0,
        }
    }

    fn measure(&mut self, stranger: Stranger, running: &Running<'_>) -> Result<()> {
        let key = &running.ours()?.server_keys.public;
        let flood = self
            .port
            .map(|port| Flood::new(running.topology, stranger, SocketAddrV4::new(SERVER, port), key))
            .transpose()?;
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let flooding = flood.as_ref().map(|flood| scope.spawn(|| flood.run(RATE, &stop)));
            let measured = self.download(running);
            stop.store(true, Ordering::Relaxed);
            if let Some(thread) = flooding {
                thread.join().unwrap_or_else(|_| bail!("the flood panicked"))?;
            }
            measured
        })
    }

    fn download(&mut self, running: &Running<'_>) -> Result<()> {
        let pids = running.pids()?;
        let (began, cpu) = (wait::now(), Cpu::now(&pids)?);
        let packets = Wire::of(&running.topology.server, "eth0")?.received;
        self.goodput.push(iperf_to(running.topology.client(), running.server, Way::Down, TIME, WARM_UP)?);
        let (used, took) = (Cpu::now(&pids)?.since(cpu), began.elapsed().as_secs_f64());
        self.packets.push((Wire::of(&running.topology.server, "eth0")?.received - packets) / took);
        for (cpu, used) in self.cpu.iter_mut().zip([used.ends[1], used.machine]) {
            cpu.push(used / took);
        }
        self.memory = self.memory.max(memory(running)?);
        Ok(())
    }

    fn row(&self) -> Result<Vec<String>> {
        let [server, all] = &self.cpu;
        Ok(vec![
            self.name.to_owned(),
            format!("{:.1}", median(&self.goodput)? / 1e6),
            format!("{:.0}", median(&self.packets)?),
            format!("{:.2}", median(server)?),
            format!("{:.2}", median(all)?),
            format!("{:.1}", self.memory / 1e6),
        ])
    }
}

fn memory(running: &Running<'_>) -> Result<f64> {
    resident_bytes(&running.pids()?[1])
}

fn median(values: &[f64]) -> Result<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    percentile(&values, 0.5).context("nothing was measured")
}

const RATE: u32 = 100_000;

/// Nobody's.
const NOBODYS: u16 = 4444;

const TIME: Duration = Duration::from_secs(5);
const WARM_UP: Duration = Duration::from_secs(2);
