//! Measures the whole tunnel between real kernels, beside the direct path and other tunnels, and prints tables.
//! `scripts/bench` runs this; `scripts/bench --help` says how.
//!
//! ```text
//!   client ──[ line ]── router ── server          client ─ eth0 ─ router ── server
//!                         └────── target ──┘         plain wires: no emulator, offloads on
//! ```
//!
//! Every measurement has a network of its own; repeats are interleaved between the systems.
#![expect(clippy::print_stdout, reason = "a program for people")]

mod blackout;
mod bulk;
mod emulator;
mod fair;
mod flood;
mod flows;
mod idle;
mod iperf;
mod killed;
mod load;
mod loss;
mod newconn;
mod plan;
mod report;
mod small;
mod summary;
mod systems;
mod usage;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use netns_tests::vpn;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::plan::Plan;
use crate::summary::{Row, Summary};
use crate::systems::System;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Measures what the arguments ask for; what fails is a cell of a table, and no failure of the whole.
fn run() -> Result<()> {
    let Some((parts, plan)) = parse(std::env::args().skip(1))? else {
        print!("{}", usage());
        return Ok(());
    };
    vpn::binary()?;
    raise_limit_of_open_files()?;
    let plan = Plan { systems: measurable(&plan.systems), ..plan };
    announce(&parts, &plan);
    let mut rows = Vec::new();
    for part in parts {
        println!("── {} ──\n", part.name);
        rows.extend((part.run)(&plan));
    }
    if !rows.is_empty() {
        println!("── summary, medians ──\n\n{}", Summary { systems: plan.systems, rows });
    }
    Ok(())
}

/// The emulator has no rivals and no row in the summary.
fn measure_emulator(_: &Plan) -> Vec<Row> {
    if let Err(error) = emulator::emulator() {
        eprintln!("bench: emulator: {error:#}");
    }
    Vec::new()
}

/// For this process and every program that it starts.
fn raise_limit_of_open_files() -> Result<()> {
    let raised = Rlimit { current: Some(OPEN_FILES), maximum: Some(OPEN_FILES) };
    // In a container, root may have to do with the limit that is there.
    setrlimit(Resource::Nofile, raised)
        .or_else(|_| {
            let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
            setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
        })
        .context("raising the limit of open files")
}

/// Those of `systems` that can be measured here; says why the others cannot.
fn measurable(systems: &[System]) -> Vec<System> {
    let obstacles: Vec<(System, String)> =
        systems.iter().filter_map(|system| Some((*system, system.obstacle()?))).collect();
    for (system, obstacle) in &obstacles {
        println!("Without {system}: {obstacle}.");
    }
    if obstacles.iter().any(|(system, _)| system.is_tunnel()) {
        println!("scripts/bench --install installs the Debian packages of the rivals.");
    }
    systems.iter().copied().filter(|system| obstacles.iter().all(|(without, _)| without != system)).collect()
}

fn announce(parts: &[Part], plan: &Plan) {
    let minutes = |part: &Part| (part.takes)(plan).as_secs_f64() / 60.0;
    let each: Vec<String> = parts.iter().map(|part| format!("{} {:.1}", part.name, minutes(part))).collect();
    println!(
        "About {:.0} minutes ({}). ↑: more is better, ↓: less is better; (least–most) of repeats.\n",
        parts.iter().map(minutes).sum::<f64>().ceil(),
        each.join(", ")
    );
}

/// One or two tables.
#[derive(Debug, Clone, Copy)]
struct Part {
    name: &'static str,
    about: &'static str,
    run: fn(&Plan) -> Vec<Row>,
    takes: fn(&Plan) -> Duration,
}

const PARTS: [Part; 11] = [
    Part {
        name: "emulator",
        about: "the link emulator itself, without a tunnel",
        run: measure_emulator,
        takes: |_| Duration::from_secs(60),
    },
    Part { name: "bulk", about: "one TCP flow on plain wires", run: bulk::run, takes: bulk::takes },
    Part { name: "loss", about: "goodput over round trip and loss", run: loss::run, takes: loss::takes },
    Part {
        name: "newconn",
        about: "new connections beside a download",
        run: newconn::run,
        takes: newconn::takes,
    },
    Part { name: "small", about: "small requests under loss", run: small::run, takes: small::takes },
    Part {
        name: "blackout",
        about: "a blackout in mid-download",
        run: blackout::run,
        takes: blackout::takes,
    },
    Part { name: "killed", about: "the outer flow killed for good", run: killed::run, takes: killed::takes },
    Part { name: "idle", about: "packets and memory of what is idle", run: idle::run, takes: idle::takes },
    Part { name: "flood", about: "strangers who flood the server", run: flood::run, takes: flood::takes },
    Part {
        name: "fair",
        about: "the shares of downloads beside each other",
        run: fair::run,
        takes: fair::takes,
    },
    Part { name: "flows", about: "CPU over 10 to 10,000 open flows", run: flows::run, takes: flows::takes },
];

/// The parts and the plan that the arguments ask for; `None` if they ask for help.
fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Option<(Vec<Part>, Plan)>> {
    let mut parts = Vec::new();
    let mut plan = Plan { systems: System::usual(), long: false, repeats: None, status: false };
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().with_context(|| format!("{argument} needs a value; see --help"));
        match argument.as_str() {
            "--help" | "-h" => return Ok(None),
            "--long" => plan.long = true,
            "--status" => plan.status = true,
            "--repeats" => plan.repeats = Some(value()?.parse().context("--repeats needs a number")?),
            "--systems" => plan.systems = value()?.split(',').map(system).collect::<Result<_>>()?,
            name => parts.push(part(name)?),
        }
    }
    ensure!(plan.repeats != Some(0), "--repeats needs 1 or more");
    let parts = if parts.is_empty() { PARTS.to_vec() } else { parts };
    Ok(Some((parts, plan)))
}

fn part(name: &str) -> Result<Part> {
    let Some(part) = PARTS.into_iter().find(|part| part.name == name) else {
        bail!("no part {name}; there are {}", PARTS.map(|part| part.name).join(", "));
    };
    Ok(part)
}

fn system(name: &str) -> Result<System> {
    let Some(system) = System::ALL.into_iter().find(|system| system.name() == name) else {
        bail!("no system {name}; there are {}", System::ALL.map(System::name).join(", "));
    };
    Ok(system)
}

fn usage() -> String {
    let parts: String = PARTS.iter().map(|part| format!("  {:<10} {}\n", part.name, part.about)).collect();
    format!(
        "usage: scripts/bench [--long] [--repeats N] [--systems NAME,…] [--status] [PART]…\n       scripts/bench --install\n\n\
         Parts, all of them without an argument:\n{parts}\nSystems: {}\n\n\
         --long measures more cells and repeats; --install installs the Debian packages of the rivals.\n\
         --status shows, in the part loss, what KCP at the sending end of ours says in status --json after each measurement.\n",
        System::ALL.map(System::name).join(", ")
    )
}

/// The most connections at once, on each end of a program, and room for what else it holds open.
const OPEN_FILES: u64 = 65_536;
