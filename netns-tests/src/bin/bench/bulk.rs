//! One TCP flow on plain wires, by iperf3.

use std::time::Duration;

use anyhow::Result;
use netns_tests::topology::{Setup, Topology};

use crate::iperf::{IPERF_PORT, Way, iperf_to, start_iperf};
use crate::plan::Plan;
use crate::report::{Column, Report};
use crate::summary::Row;
use crate::systems::{Running, System, start_on_wires};
use crate::usage::{Cpu, resident_bytes};

pub(crate) fn run(plan: &Plan) -> Vec<Row> {
    println!("One TCP flow on plain wires, {} s each way.\n", TIME.as_secs());
    let columns = vec![
        Column::more("down Gbit/s", |rate| format!("{rate:.2}")),
        Column::more("up Gbit/s", |rate| format!("{rate:.2}")),
        Column::less("client s/GB", |cpu| format!("{cpu:.1}")),
        Column::less("server s/GB", |cpu| format!("{cpu:.1}")),
        Column::less("machine s/GB", |cpu| format!("{cpu:.1}")),
        Column::less("client MB", |memory| format!("{memory:.0}")),
        Column::less("server MB", |memory| format!("{memory:.0}")),
    ];
    // Without a tunnel the kernel hands over whole buffers: no tunnel is its rival.
    let mut report = Report::measure(columns, &plan.systems, repeats(plan), measure);
    report.compare_tunnels_only();
    println!("{report}");
    println!("{NOTE}\n");
    vec![
        Row::new("one TCP flow on plain wires, down / up, Gbit/s", &[(&report, 0), (&report, 1)]),
        Row::new("its CPU, client / server, s/GB", &[(&report, 2), (&report, 3)]),
    ]
}

pub(crate) fn takes(plan: &Plan) -> Duration {
    Plan::one_by_one(&plan.systems, repeats(plan), TIME * 2)
}

fn measure(system: System) -> Result<Vec<f64>> {
    let topology = Topology::build(Setup::PLAIN)?;
    let _iperf = start_iperf(&topology)?;
    let running = start_on_wires(system, &topology, IPERF_PORT)?;
    let pids = running.pids()?;
    let before = Cpu::now(&pids)?;
    let down = rate(&running, Way::Down)?;
    let used = Cpu::now(&pids)?.since(before);
    let up = rate(&running, Way::Up)?;
    let [client, server] = &pids;
    let gigabytes = down * TIME.as_secs_f64() / 8e9;
    let of_tunnel = |value: f64| if system.is_tunnel() { value } else { f64::NAN };
    Ok(vec![
        down / 1e9,
        up / 1e9,
        of_tunnel(used.ends[0] / gigabytes),
        of_tunnel(used.ends[1] / gigabytes),
        used.machine / gigabytes,
        of_tunnel(resident_bytes(client)? / 1e6),
        of_tunnel(resident_bytes(server)? / 1e6),
    ])
}

fn rate(running: &Running<'_>, way: Way) -> Result<f64> {
    iperf_to(running.topology.client(), running.server, way, TIME, Duration::ZERO)
}

fn repeats(plan: &Plan) -> u32 {
    plan.repeats(2, 5)
}

const TIME: Duration = Duration::from_secs(4);

const NOTE: &str = "\
s/GB: CPU seconds of the tunnel's process on each end, and of the whole machine with its kernel and the load, for each GB
downloaded. MB: resident memory after it. The ratio is to the best tunnel.";
