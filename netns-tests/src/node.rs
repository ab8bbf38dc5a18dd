//! One host of the topology: programs run here.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::cleanup::Run;
pub use crate::logs::Logs;
use crate::namespace::Namespace;
use crate::process::{Process, Program};
use crate::{sys, wait};

/// A host: its namespaces, and where the output of its programs goes.
#[derive(Debug)]
pub struct Node {
    role: String,
    namespace: Namespace,
    logs: Arc<Logs>,
}

impl Node {
    /// Makes a host that knows nobody.
    ///
    /// # Errors
    /// Without root, or if the kernel refuses.
    pub fn create(run: Run, role: &str, logs: &Arc<Logs>) -> Result<Self> {
        let namespace = Namespace::create(run, role, RESOLV_CONF)?;
        let node = Self { role: role.to_owned(), namespace, logs: Arc::clone(logs) };
        node.ip("link set lo up")?;
        // Nobody advertises routers here, and duplicate address detection makes an address wait for a second.
        for (key, value) in [("accept_ra", "0"), ("accept_dad", "0"), ("router_solicitations", "0")] {
            node.set_sysctl(&format!("net/ipv6/conf/default/{key}"), value)?;
        }
        Ok(node)
    }

    /// `client`, `router`, `server`, `target`, …
    #[must_use]
    pub fn role(&self) -> &str {
        &self.role
    }

    /// The namespaces.
    #[must_use]
    pub const fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Where the output of its programs goes.
    #[must_use]
    pub fn logs(&self) -> &Logs {
        &self.logs
    }

    /// A program that will run on this host.
    ///
    /// # Errors
    /// If the namespaces cannot be shared with it.
    pub fn program(&self, name: impl AsRef<std::ffi::OsStr>) -> Result<Program> {
        let label = Path::new(name.as_ref()).file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut command = Command::new(name);
        // What a service manager has set for this process is not meant for the programs under test.
        command.env_remove("RUNTIME_DIRECTORY").env_remove("STATE_DIRECTORY").env("LC_ALL", "C");
        sys::enter_before_exec(
            &mut command,
            self.namespace.network().as_fd(),
            self.namespace.mounts().as_fd(),
        )?;
        Ok(Program::new(command, self.logs.next(&self.role, &label)))
    }

    /// Runs a line of words (the first is the program, no quoting) and gives back what it wrote.
    ///
    /// # Errors
    /// If it fails.
    pub fn run(&self, line: &str) -> Result<String> {
        let (program, arguments) = line.split_once(' ').unwrap_or((line, ""));
        self.program(program)?.words(arguments).output()
    }

    /// Runs `ip` with the words of `arguments`.
    ///
    /// # Errors
    /// If it fails.
    pub fn ip(&self, arguments: &str) -> Result<String> {
        self.run(&format!("ip {arguments}"))
    }

    /// Runs `ip` once with a line for each command.
    ///
    /// # Errors
    /// If one of them fails.
    pub fn ip_lines(&self, lines: &[String]) -> Result<String> {
        self.program("ip")?.words("-batch -").input(lines.join("\n") + "\n").output()
    }

    /// Waits until every interface is up with addresses that are in use, the link-local ones too: until then they come by
    /// themselves, and a later look at the host would find more than an earlier one.
    ///
    /// # Errors
    /// If one is not after ten seconds.
    pub fn wait_for_interfaces(&self) -> Result<()> {
        let what = format!("the interfaces of {} to be up", self.role);
        wait::until(&what, START_LIMIT, || {
            let interfaces: Vec<Value> = serde_json::from_str(&self.ip("-json address show")?)?;
            Ok(interfaces.iter().all(is_ready).then_some(()))
        })
    }

    /// Reads a sysctl, named by its path below /proc/sys.
    ///
    /// # Errors
    /// If there is none.
    pub fn sysctl(&self, path: &str) -> Result<String> {
        Ok(self.run(&format!("cat /proc/sys/{path}"))?.trim().to_owned())
    }

    /// Sets a sysctl, named by its path below /proc/sys.
    ///
    /// # Errors
    /// If it refuses the value.
    pub fn set_sysctl(&self, path: &str, value: &str) -> Result<()> {
        self.program("tee")?.arg(format!("/proc/sys/{path}")).input(value).output()?;
        Ok(())
    }

    /// Waits until a TCP socket listens on `port`.
    ///
    /// # Errors
    /// If none does before `limit`.
    pub fn wait_for_listener(&self, port: u16, limit: Duration) -> Result<()> {
        let what = format!("a listener on port {port} of {}", self.role);
        wait::until(&what, limit, || Ok(self.is_listening(port)?.then_some(())))
    }

    /// Whether a TCP socket listens on `port`.
    ///
    /// # Errors
    /// If the sockets cannot be listed.
    pub fn is_listening(&self, port: u16) -> Result<bool> {
        Ok(!self.run(&format!("ss -Hltn sport = :{port}"))?.trim().is_empty())
    }

    /// The processes on this host that run the program `name`.
    ///
    /// # Errors
    /// If the processes cannot be listed.
    pub fn pids_of(&self, name: &str) -> Result<Vec<u32>> {
        let runs = |pid: &u32| {
            std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name)
        };
        Ok(self.namespace.pids()?.into_iter().filter(runs).collect())
    }

    /// Sends `signal` to every process on this host that runs the program `name`, and says how many there were.
    ///
    /// # Errors
    /// If the processes cannot be listed.
    pub fn signal_all(&self, name: &str, signal: Signal) -> Result<usize> {
        let pids = self.pids_of(name)?;
        for pid in pids.iter().filter_map(|pid| Pid::from_raw(i32::try_from(*pid).ok()?)) {
            // One may end because another has.
            kill_process(pid, signal).ok();
        }
        Ok(pids.len())
    }

    /// Waits until no process on this host runs the program `name`.
    ///
    /// # Errors
    /// If one still does after `limit`.
    pub fn wait_for_end_of(&self, name: &str, limit: Duration) -> Result<()> {
        let what = format!("the end of every {name} on {}", self.role);
        wait::until(&what, limit, || Ok(self.pids_of(name)?.is_empty().then_some(())))
    }

    /// Captures the packets on `interface` that match `filter` into a file, until the process is dropped.
    ///
    /// # Errors
    /// If tcpdump does not start.
    pub fn capture(&self, interface: &str, filter: &str) -> Result<Capture> {
        self.start_capture(interface, filter, SNAP_LENGTH)
    }

    /// The same with nothing of the packets but their headers, whatever they are: cheap enough to run beside everything.
    ///
    /// # Errors
    /// As [`Self::capture`].
    pub fn capture_headers(&self, interface: &str) -> Result<Capture> {
        self.start_capture(interface, "", HEADERS_LENGTH)
    }

    fn start_capture(&self, interface: &str, filter: &str, length: u32) -> Result<Capture> {
        let file = self.logs.next(&self.role, interface).with_extension("pcap");
        let options =
            format!("-i {interface} -n -s {length} -B {CAPTURE_BUFFER} -U --immediate-mode -Z root -w");
        let program = self.program("tcpdump")?.words(&options).arg(&file);
        let mut process = if filter.is_empty() { program } else { program.arg(filter) }.start()?;
        process.wait_for_text("listening on", START_LIMIT)?;
        Ok(Capture { process, file })
    }
}

/// A running capture.
#[derive(Debug)]
pub struct Capture {
    process: Process,
    file: PathBuf,
}

impl Capture {
    /// Ends the capture and gives back the packets in it that match `filter`, one a line.
    ///
    /// # Errors
    /// If tcpdump fails, or says that packets escaped it.
    pub fn finish(self, node: &Node, filter: &str) -> Result<Vec<String>> {
        self.read(node, "-n -r", filter)
    }

    /// Ends the capture and gives back all that tcpdump has to say of its packets, several lines each.
    ///
    /// # Errors
    /// If tcpdump fails, or says that packets escaped it.
    pub fn finish_verbosely(self, node: &Node) -> Result<Vec<String>> {
        self.read(node, "-n -vv -r", "")
    }

    /// Ends the capture and gives back the first TCP segment over IPv4 in it that carries data, as text: a line of tcpdump's, then
    /// the packet itself.
    ///
    /// # Errors
    /// If tcpdump fails, or says that packets escaped it.
    pub fn finish_first_data(self, node: &Node) -> Result<String> {
        Ok(self.read(node, "-n -A -c 1 -r", HAS_DATA)?.join("\n"))
    }

    /// Ends the capture and says where its file is.
    ///
    /// # Errors
    /// If tcpdump fails, or says that packets escaped it.
    pub fn finish_file(self) -> Result<PathBuf> {
        self.process.signal(Signal::INT)?;
        self.process.finish(START_LIMIT)?.expect_code(0)?.expect_text("0 packets dropped by kernel")?;
        Ok(self.file)
    }

    fn read(self, node: &Node, options: &str, filter: &str) -> Result<Vec<String>> {
        let file = self.finish_file()?;
        let program = node.program("tcpdump")?.words(options).arg(file);
        let program = if filter.is_empty() { program } else { program.arg(filter) };
        Ok(program.output()?.lines().map(str::to_owned).collect())
    }
}

/// Whether an interface, as `ip -json address` lists it, is as it will stay.
fn is_ready(interface: &Value) -> bool {
    let is = |value: &Value, text: &str| value.as_str() == Some(text);
    if is(&interface["link_type"], "loopback") {
        return true;
    }
    let addresses = interface["addr_info"].as_array().map_or(&[][..], Vec::as_slice);
    is(&interface["operstate"], "UP")
        && addresses.iter().any(|address| is(&address["family"], "inet6") && is(&address["scope"], "link"))
        && addresses.iter().all(|address| address["tentative"] != true)
}

/// TCP over IPv4 with a payload: longer than both headers say they are.
const HAS_DATA: &str = "tcp and ip[2:2] - ((ip[0] & 0xf) << 2) - ((tcp[12] & 0xf0) >> 2) > 0";

/// No resolver: names are nobody's business here, unless a scenario says so.
const RESOLV_CONF: &str = "nameserver 127.0.0.1\n";

/// Whole packets of an ordinary link.
const SNAP_LENGTH: u32 = 1600;

/// Ethernet, IPv6 and TCP with all options.
const HEADERS_LENGTH: u32 = 128;

/// KiB: a second of a fast link.
const CAPTURE_BUFFER: u32 = 16_384;

/// What a program may take to start or to end on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(10);
