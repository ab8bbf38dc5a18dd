//! The server's names become addresses: before anything of the host is changed, and again when an outage lasts.
//!
//! At first the host's own resolver is asked, which knows hosts files and much else. A name that has no answer keeps the
//! addresses that it had last, from an earlier start too. While the tunnel looks for its server, the names are asked again past
//! the tunnel, because the server may have moved.
//!
//! An answer may be false: a hotel's portal has one address for all names. So those at which the server proved its key are tried
//! behind what is answered, until it has done so at one that is answered.

use std::future;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep_until, timeout};

use super::dns::{ADDRESSES_MAX, Resolver};
use super::memory::Memory;
use crate::config::{Endpoint, Endpoints, Host, Ports};
use crate::failure::{ExitCode, Failure};
use crate::session::ServerAddress;

/// The servers of the configuration, and what addresses they have.
#[derive(Debug)]
pub(super) struct Names {
    servers: Endpoints,
    resolver: Arc<Resolver>,
    /// Of each server, as it was answered last.
    found: Vec<Vec<IpAddr>>,
    /// Of each server, others at which it proved its key.
    proven: Vec<Vec<IpAddr>>,
    /// What the user may want to know.
    notes: Vec<String>,
    asking: Asking,
}

/// Where asking again stands.
#[derive(Debug)]
enum Asking {
    /// The tunnel carries packets, or no server has a name.
    No,
    At(Instant),
    Running(JoinHandle<Vec<(String, Vec<IpAddr>)>>),
}

impl Names {
    /// Asks for the addresses of all of `servers`; `resolver` is whom to ask later. A name without any is passed over if another
    /// server has one.
    ///
    /// # Errors
    /// None of the servers has an address.
    pub(super) async fn resolve(
        servers: &Endpoints,
        resolver: Resolver,
        memory: &mut Memory,
    ) -> Result<Self, Failure> {
        // All of them are asked before the first is waited for.
        let asked: Vec<_> = servers.iter().map(Asked::start).collect();
        let (mut found, mut notes, mut failure) = (Vec::new(), Vec::new(), None);
        for asked in asked {
            let (addresses, note) = match asked {
                Asked::Address(address) => (vec![address], None),
                Asked::Name(name, answer) => settle(&name, answer, memory).await,
            };
            if let Some(note) = note {
                failure.get_or_insert_with(|| note.clone());
                notes.push(note);
            }
            found.push(addresses);
        }
        match failure.filter(|_| found.iter().all(Vec::is_empty)) {
            Some(why) => Err(Failure::new(ExitCode::Unreachable, format!("{why}: check `server`"))),
            None => {
                let mut names = Self {
                    servers: servers.clone(),
                    resolver: Arc::new(resolver),
                    proven: vec![Vec::new(); found.len()],
                    found,
                    notes,
                    asking: Asking::No,
                };
                names.recall(memory);
                Ok(names)
            }
        }
    }

    /// Takes from memory at which other addresses the servers have proven themselves.
    fn recall(&mut self, memory: &Memory) {
        for ((server, found), proven) in self.servers.iter().zip(&self.found).zip(&mut self.proven) {
            if let Host::Name(name) = &server.host {
                proven.clear();
                proven.extend(memory.proven(name).iter().filter(|address| !found.contains(address)));
            }
        }
    }

    /// Of each server those that were answered, then the others.
    fn addresses(&self) -> impl Iterator<Item = (&Endpoint, impl Iterator<Item = IpAddr>)> {
        let known = self.found.iter().zip(&self.proven);
        self.servers.iter().zip(known.map(|(found, proven)| found.iter().chain(proven).copied()))
    }

    /// The addresses of each server, in the order of the configuration.
    pub(super) fn servers(&self) -> Vec<Vec<ServerAddress>> {
        let with_ports = self.addresses().map(|(server, addresses)| {
            let Ports { first, last } = server.ports;
            addresses.map(|address| ServerAddress { address, first, last }).collect()
        });
        with_ports.collect()
    }

    /// All addresses of all servers, each once, where it comes first.
    pub(super) fn distinct(&self) -> Vec<ServerAddress> {
        let mut distinct = Vec::new();
        for address in self.servers().into_iter().flatten() {
            if !distinct.contains(&address) {
                distinct.push(address);
            }
        }
        distinct
    }

    /// What a probe tries, the most telling first: every address of every server by the first of its ports, then by the last, then by
    /// one between. Boxes that judge by ports seldom mean all of a range.
    pub(super) fn to_probe(&self) -> Vec<SocketAddr> {
        let pick: [fn(Ports) -> u16; 3] =
            [|ports| ports.first, |ports| ports.last, |ports| ports.first.midpoint(ports.last)];
        let mut distinct = Vec::new();
        for pick in pick {
            for (server, addresses) in self.addresses() {
                for address in addresses.map(|address| SocketAddr::new(address, pick(server.ports))) {
                    if !distinct.contains(&address) {
                        distinct.push(address);
                    }
                }
            }
        }
        distinct
    }

    /// All addresses of all servers, each once and with the first port where it comes first.
    pub(super) fn first_ports(&self) -> Vec<SocketAddr> {
        self.distinct().into_iter().map(ServerAddress::with_first_port).collect()
    }

    /// What the user may want to know.
    pub(super) fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The tunnel looks for its server: the names are asked for again if that lasts.
    pub(super) fn on_outage(&mut self) {
        if matches!(self.asking, Asking::No) && self.names().next().is_some() {
            self.asking = Asking::At(Instant::now() + ASK_AFTER);
        }
    }

    /// The network has changed: if the tunnel looks for its server, the names are asked for soon.
    pub(super) fn on_network_change(&mut self) {
        if let Asking::At(at) = &mut self.asking {
            *at = (*at).min(Instant::now() + ASK_SOON);
        }
    }

    /// The tunnel carries packets again, with the server that proved its key at `remote`.
    pub(super) fn on_recovered(&mut self, remote: Option<SocketAddr>, memory: &mut Memory) {
        self.stop_asking();
        let Some(remote) = remote.map(|remote| remote.ip()) else { return };
        let proven = self.addresses().filter_map(|(server, mut addresses)| match &server.host {
            Host::Name(name) if addresses.any(|address| address == remote) => Some(name.clone()),
            Host::Name(_) | Host::Address(_) => None,
        });
        proven.collect::<Vec<_>>().iter().for_each(|name| memory.prove(name, remote));
        self.recall(memory);
    }

    /// Nothing is looked for any more.
    pub(super) fn stop_asking(&mut self) {
        self.abort();
        self.asking = Asking::No;
    }

    /// Waits until a server has other addresses than before, and remembers them. Cancel-safe.
    pub(super) async fn changed(&mut self, memory: &mut Memory) {
        loop {
            let answers = match &mut self.asking {
                Asking::No => future::pending().await,
                Asking::At(at) => {
                    sleep_until(*at).await;
                    self.asking = Asking::Running(self.ask());
                    continue;
                }
                Asking::Running(answers) => answers.await,
            };
            self.asking = Asking::At(Instant::now() + ASK_EVERY);
            if self.take(answers.unwrap_or_default(), memory) {
                return;
            }
        }
    }

    fn names(&self) -> impl Iterator<Item = &String> {
        self.servers.iter().filter_map(|server| match &server.host {
            Host::Name(name) => Some(name),
            Host::Address(_) => None,
        })
    }

    fn ask(&self) -> JoinHandle<Vec<(String, Vec<IpAddr>)>> {
        let (resolver, names): (_, Vec<_>) = (Arc::clone(&self.resolver), self.names().cloned().collect());
        tokio::spawn(async move {
            let mut answers = Vec::new();
            for name in names {
                match resolver.addresses(&name).await {
                    Ok(addresses) => answers.push((name, addresses)),
                    Err(error) => tracing::debug!(name, %error, "the server's name was asked for in vain"),
                }
            }
            answers
        })
    }

    /// Takes what was answered; says whether anything is new. A name without an answer keeps what it had.
    fn take(&mut self, answers: Vec<(String, Vec<IpAddr>)>, memory: &mut Memory) -> bool {
        let before = self.servers();
        for (name, addresses) in answers {
            memory.learn(&name, &addresses);
            for (server, found) in self.servers.iter().zip(&mut self.found) {
                let is_same = |known: &&IpAddr| addresses.contains(known);
                let is_other =
                    found.len() != addresses.len() || found.iter().filter(is_same).count() != found.len();
                if server.host == Host::Name(name.clone()) && is_other {
                    tracing::info!(name, ?addresses, "the server's name has other addresses");
                    found.clone_from(&addresses);
                }
            }
        }
        self.recall(memory);
        self.servers() != before
    }

    fn abort(&self) {
        if let Asking::Running(task) = &self.asking {
            task.abort();
        }
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.abort();
    }
}

/// A server whose address is known, or will be.
#[derive(Debug)]
enum Asked {
    Address(IpAddr),
    Name(String, JoinHandle<io::Result<Vec<IpAddr>>>),
}

impl Asked {
    /// The system's resolver blocks for as long as it likes, so each name has a thread of its own; one that is not waited for
    /// any more ends by itself.
    fn start(server: &Endpoint) -> Self {
        match &server.host {
            Host::Address(address) => Self::Address(*address),
            Host::Name(name) => {
                let asked = (name.clone(), server.ports.first);
                let answer = spawn_blocking(move || {
                    let found = asked.to_socket_addrs()?;
                    Ok(found.map(|found| found.ip()).take(ADDRESSES_MAX).collect())
                });
                Self::Name(name.clone(), answer)
            }
        }
    }
}

/// The addresses of a name: those that are answered, else those it had last. Says what went wrong.
async fn settle(
    name: &str,
    answer: JoinHandle<io::Result<Vec<IpAddr>>>,
    memory: &mut Memory,
) -> (Vec<IpAddr>, Option<String>) {
    let known = memory.addresses(name).to_vec();
    let answer = if known.is_empty() { Ok(answer.await) } else { timeout(PATIENCE, answer).await };
    let why = match answer.map(|answer| answer.map_err(io::Error::from).flatten()) {
        Ok(Ok(found)) if !found.is_empty() => {
            memory.learn(name, &found);
            return (found, None);
        }
        Ok(Ok(_)) => "has no address".to_owned(),
        Ok(Err(error)) => format!("cannot be resolved: {error}"),
        Err(_) => "is not resolved in time".to_owned(),
    };
    let note = format!("the server's name {name} {why}");
    if known.is_empty() {
        return (known, Some(note));
    }
    (known, Some(format!("{note}: using the addresses it had last")))
}

/// Our choice: how long a name that is remembered is waited for.
const PATIENCE: Duration = Duration::from_secs(3);

/// Our choice: most outages end without the server's having moved.
const ASK_AFTER: Duration = Duration::from_secs(5);

/// Our choice: a new network needs a moment until names are answered in it.
const ASK_SOON: Duration = Duration::from_secs(1);

/// Our choice: no load for a resolver.
const ASK_EVERY: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> (tempfile::TempDir, Memory) {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory::at(folder.path().join("home.client.json"));
        (folder, memory)
    }

    fn servers(list: &str) -> Endpoints {
        serde_json::from_str(list).unwrap()
    }

    fn nobody() -> Resolver {
        Resolver::new(Vec::new(), 0)
    }

    #[tokio::test]
    async fn keeps_the_order_of_a_list_and_each_address_once() {
        let list =
            r#"["[2001:db8::9]:443", "127.0.0.1:80", "localhost:80", "[2001:db8::9]:443", "192.0.2.9:1-3"]"#;
        let (_folder, mut memory) = memory();
        let names = Names::resolve(&servers(list), nobody(), &mut memory).await.unwrap();
        assert_eq!(names.servers().len(), 5);
        let mut found = names.distinct();
        // What else a host calls localhost is its own affair.
        found.retain(|address| address.to_string() != "[::1]:80");
        let found: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found, ["[2001:db8::9]:443", "127.0.0.1:80", "192.0.2.9:1-3"]);
        assert!(memory.addresses("localhost").contains(&"127.0.0.1".parse().unwrap()));
    }

    #[tokio::test]
    async fn a_probe_tries_every_address_before_other_ports_of_a_range() {
        let (_folder, mut memory) = memory();
        let list = r#"["192.0.2.9:4000-4100", "192.0.2.8:443", "192.0.2.7:80-81", "192.0.2.8:443"]"#;
        let names = Names::resolve(&servers(list), nobody(), &mut memory).await.unwrap();
        let found: Vec<_> = names.to_probe().iter().map(ToString::to_string).collect();
        let (firsts, others) = found.split_at(3);
        assert_eq!(firsts, ["192.0.2.9:4000", "192.0.2.8:443", "192.0.2.7:80"]);
        assert_eq!(others, ["192.0.2.9:4100", "192.0.2.7:81", "192.0.2.9:4050"]);
    }

    #[tokio::test]
    async fn goes_on_with_what_a_name_was_last() {
        let list = servers(r#"["vpn.invalid:443", "other.invalid:443"]"#);
        let (_folder, mut memory) = memory();
        let failure = Names::resolve(&list, nobody(), &mut memory).await.unwrap_err();
        assert_eq!(failure.class, ExitCode::Unreachable);
        assert!(failure.message.contains("vpn.invalid"), "{failure}");
        memory.learn("other.invalid", &["192.0.2.7".parse().unwrap()]);
        let names = Names::resolve(&list, nobody(), &mut memory).await.unwrap();
        let seven: SocketAddr = "192.0.2.7:443".parse().unwrap();
        assert_eq!(names.servers(), [vec![], vec![seven.into()]]);
        assert!(names.notes().iter().any(|note| note.contains("it had last")), "{:?}", names.notes());
    }

    #[tokio::test]
    async fn a_name_without_an_answer_keeps_its_addresses_and_another_is_learnt() {
        let (_folder, mut memory) = memory();
        memory.learn("vpn.invalid", &["192.0.2.7".parse().unwrap()]);
        let list = servers(r#"["vpn.invalid:443"]"#);
        let mut names = Names::resolve(&list, nobody(), &mut memory).await.unwrap();
        let answer = |addresses: &[&str]| {
            let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
            vec![("vpn.invalid".to_owned(), addresses)]
        };
        assert!(!names.take(Vec::new(), &mut memory));
        assert!(names.take(answer(&["192.0.2.8", "2001:db8::8"]), &mut memory));
        assert!(!names.take(answer(&["2001:db8::8", "192.0.2.8"]), &mut memory), "the order says nothing");
        let found: Vec<_> = names.distinct().iter().map(ToString::to_string).collect();
        assert_eq!(found, ["192.0.2.8:443", "[2001:db8::8]:443"]);
        assert_eq!(memory.addresses("vpn.invalid").len(), 2);
    }

    #[tokio::test]
    async fn a_portals_answer_does_not_displace_an_address_at_which_the_server_proved_itself() {
        let (_folder, mut memory) = memory();
        memory.learn("vpn.invalid", &["192.0.2.7".parse().unwrap()]);
        let list = servers(r#"["vpn.invalid:443", "192.0.2.99:80"]"#);
        let mut names = Names::resolve(&list, nobody(), &mut memory).await.unwrap();
        let answer = |address: &str| vec![("vpn.invalid".to_owned(), vec![address.parse().unwrap()])];
        let of_name = |names: &Names| {
            let found: Vec<_> = names.servers()[0].iter().map(ToString::to_string).collect();
            found.join(" ")
        };
        let remote = |text: &str| Some(text.parse().unwrap());
        names.on_recovered(remote("192.0.2.7:443"), &mut memory);
        for portal in ["10.0.0.1", "10.0.0.2"] {
            assert!(names.take(answer(portal), &mut memory));
            assert_eq!(of_name(&names), format!("{portal}:443 192.0.2.7:443"));
            assert!(!names.take(answer(portal), &mut memory), "nothing is new");
        }
        // The next start is in the hotel, too, and so is the one after it.
        for _ in 0..2 {
            let mut names = Names::resolve(&list, nobody(), &mut memory).await.unwrap();
            assert_eq!(of_name(&names), "10.0.0.2:443 192.0.2.7:443");
            names.on_recovered(remote("192.0.2.7:443"), &mut memory);
        }
        // Another server's success says nothing of this one.
        names.on_recovered(remote("192.0.2.99:80"), &mut memory);
        assert_eq!(of_name(&names), "10.0.0.2:443 192.0.2.7:443");
        // The server has moved: the old address is no more once it has proven itself at the new one.
        assert!(names.take(answer("192.0.2.8"), &mut memory));
        assert_eq!(of_name(&names), "192.0.2.8:443 192.0.2.7:443");
        names.on_recovered(remote("192.0.2.8:443"), &mut memory);
        assert_eq!(of_name(&names), "192.0.2.8:443");
        assert_eq!(memory.proven("vpn.invalid"), ["192.0.2.8".parse::<IpAddr>().unwrap()]);
    }
}
