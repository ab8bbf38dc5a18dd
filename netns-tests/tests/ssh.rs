//! ssh through the tunnel: a shell that survives an outage, and files.
//!
//! ```text
//!   client ──[ 20 Mbit/s, 100 ms, 1 % loss, 20 s of nothing ]── router ── server ── target
//!     ssh, scp, sftp                                                          sshd
//! ```

use std::time::Duration;

use anyhow::ensure;
use netns_tests::emulator::Profile;
use netns_tests::services;
use netns_tests::ssh::{Ssh, login};
use netns_tests::topology::Setup;
use netns_tests::tunnel::tunnel_scenario;
use netns_tests::wait;

const LIMIT: Duration = Duration::from_secs(60);
const OUTAGE: Duration = Duration::from_secs(20);
const SIZE: usize = 5 << 20;

fn link() -> Setup {
    Setup::link(Profile::long_line(20_000_000, Duration::from_millis(100), 0.01))
}

#[test]
fn a_shell_survives_twenty_seconds_of_nothing() {
    tunnel_scenario("a_shell_survives_twenty_seconds_of_nothing", link(), 1, |tunnel| {
        let ssh = Ssh::start(tunnel.topology)?;
        let mut shell = ssh.program(tunnel.client(), "ssh")?.arg("-tt").arg(login()).spoken_to().start()?;
        // The terminal echoes what is typed, so the shell's own answers must differ from the questions.
        shell.say("echo before-$((6 * 7))\n")?;
        shell.wait_for_text("before-42", LIMIT)?;
        tunnel.topology.link().set_blackout(true)?;
        shell.say("echo within-$((6 * 8))\n")?;
        wait::pass(OUTAGE);
        ensure!(!shell.logs()?.0.contains("within-48"), "a blackout that lets the answer through");
        tunnel.topology.link().set_blackout(false)?;
        shell.wait_for_text("within-48", LIMIT)?;
        shell.say("echo after-$((6 * 9))\nexit 7\n")?;
        shell.wait_for_text("after-54", LIMIT)?;
        shell.finish(LIMIT)?.expect_code(7)?;
        Ok(())
    });
}

#[test]
fn scp_and_sftp_bring_the_same_file() {
    tunnel_scenario("scp_and_sftp_bring_the_same_file", link(), SIZE, |tunnel| {
        let ssh = Ssh::start(tunnel.topology)?;
        let file = tunnel.services.file();
        let wanted = services::checksum(&file)?;
        let copy = tunnel.topology.work().join("copy");
        let there = format!("{}:{}", login(), ssh.home().join("there").display());
        ssh.program(tunnel.client(), "scp")?.arg(&file).arg(&there).run(LIMIT)?.expect_code(0)?;
        ensure!(services::checksum(&ssh.home().join("there"))? == wanted);
        let get = format!("get there {}\n", copy.display());
        // Commands on its standard input make it wait for each, as for somebody who types.
        ssh.program(tunnel.client(), "sftp")?
            .arg("-b")
            .arg("-")
            .arg(login())
            .input(get)
            .run(LIMIT)?
            .expect_code(0)?;
        ensure!(services::checksum(&copy)? == wanted);
        Ok(())
    });
}
