//! A stub resolver whose questions leave outside the tunnel (RFC 1035 section 4, over UDP).
//!
//! The host's own resolver may ask through the tunnel, which is of no use while the tunnel looks for its server. So the server's
//! name is asked of the resolvers that the host had before, by sockets that bear the carrier's mark. Answers are not trusted
//! with anything: whoever is there must still have the server's key.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QTYPE, Question, RCODE, TYPE};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::timeout;

/// Whom to ask, and how to get there.
#[derive(Debug, Clone)]
pub(super) struct Resolver {
    servers: Vec<IpAddr>,
    mark: u32,
}

impl Resolver {
    /// Asks `servers` in their order, the next if one does not answer; `mark` keeps the questions out of the tunnel.
    pub(super) fn new(servers: Vec<IpAddr>, mark: u32) -> Self {
        Self { servers, mark }
    }

    /// All addresses of `name`, IPv4 and IPv6.
    ///
    /// # Errors
    /// `NotFound` if the name has none; else that nobody answered.
    pub(super) async fn addresses(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let mut last = io::Error::new(ErrorKind::TimedOut, "no resolver answers");
        for server in self.servers.iter().cycle().take(ROUNDS * self.servers.len()) {
            match timeout(PATIENCE, self.ask(*server, name)).await {
                Ok(Ok(addresses)) => return Ok(addresses),
                Ok(Err(error)) if error.kind() == ErrorKind::NotFound => return Err(error),
                Ok(Err(error)) => last = error,
                Err(_) => {}
            }
        }
        Err(last)
    }

    /// Asks one resolver for both kinds of address at once, and waits for both answers.
    async fn ask(&self, server: IpAddr, name: &str) -> io::Result<Vec<IpAddr>> {
        let socket = self.socket(SocketAddr::new(server, PORT))?;
        let mut questions = [Asked::new(TYPE::A)?, Asked::new(TYPE::AAAA)?];
        for question in &questions {
            socket.send(&question.packet(name)?).await?;
        }
        let mut datagram = vec![0; DATAGRAM_MAX];
        while questions.iter().any(|question| question.answer.is_none()) {
            let length = socket.recv(&mut datagram).await?;
            for question in &mut questions {
                question.take(&datagram[..length], name);
            }
        }
        let answers = questions.into_iter().filter_map(|question| question.answer);
        let mut found = Vec::new();
        let mut failed = None;
        for answer in answers {
            match answer {
                Ok(addresses) => found.extend(addresses),
                Err(error) => failed = Some(error),
            }
        }
        found.truncate(ADDRESSES_MAX);
        match failed {
            Some(error) if found.is_empty() => Err(error),
            None if found.is_empty() => Err(io::Error::new(ErrorKind::NotFound, "it has no address")),
            _ => Ok(found),
        }
    }

    fn socket(&self, server: SocketAddr) -> io::Result<UdpSocket> {
        let socket = Socket::new(Domain::for_address(server), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_mark(self.mark)?;
        socket.set_nonblocking(true)?;
        socket.connect(&server.into())?;
        UdpSocket::from_std(socket.into())
    }
}

/// One question and, once it came, its answer.
#[derive(Debug)]
struct Asked {
    id: u16,
    kind: TYPE,
    answer: Option<io::Result<Vec<IpAddr>>>,
}

impl Asked {
    /// The id is what an off-path forger has to guess, beside the port.
    fn new(kind: TYPE) -> io::Result<Self> {
        let mut id = [0; 2];
        getrandom::fill(&mut id).map_err(|_| io::Error::other("the system has no random numbers"))?;
        Ok(Self { id: u16::from_ne_bytes(id), kind, answer: None })
    }

    fn packet(&self, name: &str) -> io::Result<Vec<u8>> {
        let name = Name::new(name).map_err(malformed)?;
        let mut packet = Packet::new_query(self.id);
        packet.set_flags(PacketFlag::RECURSION_DESIRED);
        packet.questions.push(Question::new(name, QTYPE::TYPE(self.kind), CLASS::IN.into(), false));
        packet.build_bytes_vec().map_err(malformed)
    }

    /// Takes a datagram if it answers this question; anything else is ignored.
    fn take(&mut self, datagram: &[u8], name: &str) {
        let Ok(packet) = Packet::parse(datagram) else { return };
        let is_ours = packet.id() == self.id
            && packet.has_flags(PacketFlag::RESPONSE)
            && packet.questions.iter().all(|question| {
                question.qtype == QTYPE::TYPE(self.kind)
                    && question.qname.to_string().eq_ignore_ascii_case(name.trim_end_matches('.'))
            });
        if !is_ours {
            return;
        }
        let code = packet.rcode();
        self.answer = Some(if code == RCODE::NoError {
            Ok(packet.answers.iter().filter_map(|record| address_of(&record.rdata)).collect())
        } else if code == RCODE::NameError {
            Err(io::Error::new(ErrorKind::NotFound, "there is no such name"))
        } else {
            Err(io::Error::other(format!("the resolver answers {code:?}")))
        });
    }
}

fn address_of(data: &RData<'_>) -> Option<IpAddr> {
    if let RData::A(a) = data {
        return Some(Ipv4Addr::from(a.address).into());
    }
    if let RData::AAAA(aaaa) = data { Some(Ipv6Addr::from(aaaa.address).into()) } else { None }
}

fn malformed(error: simple_dns::SimpleDnsError) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, error.to_string())
}

const PORT: u16 = 53;

/// Our choice: as the C library, but shorter, because the tunnel waits.
const PATIENCE: Duration = Duration::from_secs(2);
const ROUNDS: usize = 2;

/// Our choice: more addresses of one name are not tried.
pub(super) const ADDRESSES_MAX: usize = 16;

/// RFC 6891 section 6.2.5: what resolvers send at most over UDP to those who ask for more; we do not.
const DATAGRAM_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use simple_dns::ResourceRecord;
    use simple_dns::rdata::{A, AAAA, CNAME};

    use super::*;

    const NAME: &str = "vpn.example";

    /// An answer to `asked`, with these records.
    fn answer(asked: &Asked, records: Vec<(&'static str, RData<'static>)>) -> Vec<u8> {
        let question = asked.packet(NAME).unwrap();
        let mut packet = Packet::parse(&question).unwrap().into_reply();
        for (name, data) in records {
            packet.answers.push(ResourceRecord::new(Name::new(name).unwrap(), CLASS::IN, 60, data));
        }
        packet.build_bytes_vec().unwrap()
    }

    fn asked(kind: TYPE) -> Asked {
        Asked::new(kind).unwrap()
    }

    #[test]
    fn takes_addresses_also_behind_another_name() {
        let mut v4 = asked(TYPE::A);
        let alias = RData::CNAME(CNAME(Name::new("host.example").unwrap()));
        let data = RData::A(A { address: Ipv4Addr::new(192, 0, 2, 1).into() });
        let datagram = answer(&v4, vec![(NAME, alias), ("host.example", data)]);
        v4.take(&datagram, "VPN.example");
        assert_eq!(v4.answer.unwrap().unwrap(), ["192.0.2.1".parse::<IpAddr>().unwrap()]);

        let mut v6 = asked(TYPE::AAAA);
        let address: Ipv6Addr = "2001:db8::1".parse().unwrap();
        let datagram = answer(&v6, vec![(NAME, RData::AAAA(AAAA { address: address.into() }))]);
        v6.take(&datagram, NAME);
        assert_eq!(v6.answer.unwrap().unwrap(), [IpAddr::V6(address)]);
    }

    #[test]
    fn ignores_what_answers_another_question() {
        let mut question = asked(TYPE::A);
        let good = answer(&question, Vec::new());
        let mut other_id = good.clone();
        other_id[0] ^= 1;
        for datagram in [&other_id, &question.packet(NAME).unwrap(), &good[..5].to_vec(), &vec![0xff; 60]] {
            question.take(datagram, NAME);
            assert!(question.answer.is_none());
        }
        question.take(&good, "other.example");
        assert!(question.answer.is_none());
        question.take(&good, NAME);
        assert_eq!(question.answer.unwrap().unwrap(), Vec::<IpAddr>::new());
    }

    #[tokio::test]
    async fn says_so_when_there_is_nobody_to_ask() {
        let nobody = Resolver::new(Vec::new(), 0);
        assert_eq!(nobody.addresses(NAME).await.unwrap_err().kind(), ErrorKind::TimedOut);
    }
}
