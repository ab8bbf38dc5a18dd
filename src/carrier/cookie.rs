//! SYN cookies: the server's ISN proves later that a client received the SYN-ACK, and nothing is kept meanwhile.
//!
//! ```text
//! ISN = SipHash-2-4(secret; server address, client address, time slot, scaled?) with bit 0 = scaled?
//! ```
//!
//! A slot lasts 64 s, and a cookie is good in its own slot and in the next. Bit 0 remembers whether window scaling was agreed, which the
//! connection must know and a middlebox may have prevented. The client's ISN is *not* part of it: the first payload that
//! arrives need not be the first that was sent, so its seq says nothing sure about the ISN. A client that
//! reconnects on the same ports within a slot is therefore given the same ISN again; it brings a new one of its own, and
//! connection trackers resynchronise on the SYN.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use siphasher::sip::SipHasher24;

use super::Seq;

/// Makes and checks cookies under one secret.
pub(super) struct Cookies {
    hasher: SipHasher24,
    salt: [u8; 16],
    origin: Instant,
}

impl Cookies {
    pub(super) fn new(secret: [u8; 32], now: Instant) -> Self {
        let (halves, _) = secret.as_chunks::<16>();
        let [key, salt] = [halves[0], halves[1]];
        Self { hasher: SipHasher24::new_with_key(&key), salt, origin: now }
    }

    /// The ISN of a SYN-ACK from `server` to `client`.
    pub(super) fn issue(&self, server: SocketAddr, client: SocketAddr, is_scaled: bool, now: Instant) -> Seq {
        self.cookie(server, client, is_scaled, self.slot(now))
    }

    /// Whether `isn` was issued for these ends lately; if so, whether window scaling was agreed.
    pub(super) fn verify(
        &self,
        server: SocketAddr,
        client: SocketAddr,
        isn: Seq,
        now: Instant,
    ) -> Option<bool> {
        let is_scaled = isn.0 & SCALED != 0;
        let slot = self.slot(now);
        [Some(slot), slot.checked_sub(1)]
            .into_iter()
            .flatten()
            .any(|slot| self.cookie(server, client, is_scaled, slot) == isn)
            .then_some(is_scaled)
    }

    /// Random bits for the connection that begins with this ISN, the same each time it is asked.
    pub(super) fn scenery(&self, server: SocketAddr, client: SocketAddr, isn: Seq) -> u64 {
        self.hash(server, client, u64::from(isn.0), SCENERY)
    }

    fn cookie(&self, server: SocketAddr, client: SocketAddr, is_scaled: bool, slot: u64) -> Seq {
        #[expect(clippy::cast_possible_truncation, reason = "an ISN has 32 bits")]
        let hash = self.hash(server, client, slot, u8::from(is_scaled)) as u32;
        Seq(hash & !SCALED | if is_scaled { SCALED } else { 0 })
    }

    fn hash(&self, server: SocketAddr, client: SocketAddr, number: u64, purpose: u8) -> u64 {
        let mut input = [0; 16 + 2 * ENDPOINT + 8 + 1];
        let parts: [&[u8]; 5] =
            [&self.salt, &endpoint(server), &endpoint(client), &number.to_le_bytes(), &[purpose]];
        for (to, from) in input.iter_mut().zip(parts.into_iter().flatten()) {
            *to = *from;
        }
        self.hasher.hash(&input)
    }

    fn slot(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.origin).as_secs() / SLOT.as_secs()
    }
}

impl fmt::Debug for Cookies {
    /// Says nothing of the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cookies").finish_non_exhaustive()
    }
}

/// An address and port in 18 bytes, IPv4 as v4-mapped.
fn endpoint(address: SocketAddr) -> [u8; ENDPOINT] {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let mut bytes = [0; ENDPOINT];
    let port = address.port().to_be_bytes();
    for (to, from) in bytes.iter_mut().zip(ip.octets().iter().chain(&port)) {
        *to = *from;
    }
    bytes
}

/// Our choice: long enough for a client's every retry of its first message, short enough that a harvested cookie soon is worthless.
const SLOT: Duration = Duration::from_secs(64);

/// The bit of a cookie that says that window scaling was agreed.
const SCALED: u32 = 1;

/// Sets the hash of a connection's scenery apart from cookies, whose last byte is 0 or 1.
const SCENERY: u8 = 2;

const ENDPOINT: usize = 18;

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "some instant must be the first")]
mod tests {
    use super::*;

    fn ends() -> (SocketAddr, SocketAddr) {
        ("198.51.100.2:443".parse().unwrap(), "192.0.2.1:50000".parse().unwrap())
    }

    #[test]
    fn a_cookie_is_good_for_this_slot_and_the_next() {
        let now = Instant::now();
        let cookies = Cookies::new([7; 32], now);
        let (server, client) = ends();
        for is_scaled in [false, true] {
            let isn = cookies.issue(server, client, is_scaled, now);
            for (later, expected) in
                [(0, Some(is_scaled)), (SLOT.as_secs() * 2 - 1, Some(is_scaled)), (SLOT.as_secs() * 2, None)]
            {
                assert_eq!(
                    cookies.verify(server, client, isn, now + Duration::from_secs(later)),
                    expected,
                    "after {later} s"
                );
            }
        }
    }

    #[test]
    fn a_cookie_is_worthless_to_other_ends_and_under_another_secret() {
        let now = Instant::now();
        let cookies = Cookies::new([7; 32], now);
        let (server, client) = ends();
        let isn = cookies.issue(server, client, true, now);
        let neighbour = SocketAddr::new(client.ip(), client.port() + 1);
        assert_eq!(cookies.verify(server, neighbour, isn, now), None);
        assert_eq!(cookies.verify(client, server, isn, now), None);
        for half in [0, 31] {
            let mut secret = [7; 32];
            secret[half] ^= 1;
            assert_eq!(Cookies::new(secret, now).verify(server, client, isn, now), None);
        }
        for bit in 0..32 {
            assert_eq!(cookies.verify(server, client, Seq(isn.0 ^ 1 << bit), now), None, "bit {bit}");
        }
    }
}
