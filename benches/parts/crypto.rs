//! Sealed packets: both suites, small and full; and a whole handshake, both ends.

use criterion::{BatchSize, Criterion, Throughput};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use vpn::crypto::{
    HEADER_LEN, Initiator, Mask, Message1, Message2, OVERHEAD, Opener, PresharedKey, PrivateKey, PublicKey,
    Responder, Sealer, SessionId, Suite, SuiteSet, Timestamp, VERSION,
};

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("crypto");
    for suite in [Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
        for size in [64, 1400] {
            group.throughput(Throughput::Bytes(size as u64));
            let (mut sealer, mut opener) = keys(suite);
            let mask = Mask::new(&server().public_key());
            assert_eq!(open(&mut opener, &mask, sealed(&mut sealer, size)), size);
            let mut packet = vec![0; HEADER_LEN + size];
            packet.reserve(OVERHEAD);
            group.bench_function(format!("seal/{suite}/{size}"), |bencher| {
                bencher.iter(|| {
                    packet.truncate(HEADER_LEN + size);
                    sealer.seal(&mut packet, 0)
                });
            });
            let (mut sealer, mut opener) = keys(suite);
            group.bench_function(format!("open/{suite}/{size}"), |bencher| {
                let seal = || sealed(&mut sealer, size);
                bencher.iter_batched(seal, |packet| open(&mut opener, &mask, packet), BatchSize::SmallInput);
            });
        }
    }
    group.throughput(Throughput::Elements(1));
    group.bench_function("handshake", |bencher| bencher.iter(|| keys(Suite::ChaCha20Poly1305)));
    group.finish();
}

fn sealed(sealer: &mut Sealer, size: usize) -> Vec<u8> {
    let mut packet = vec![0; HEADER_LEN + size];
    sealer.seal(&mut packet, 0).expect("far below the limit");
    packet
}

/// Opens a packet, which must open, and returns the length of its plaintext.
fn open(opener: &mut Opener, mask: &Mask, mut packet: Vec<u8>) -> usize {
    let header = mask.header(&packet).expect("a header");
    opener.open(header, &mut packet).expect("a new packet").plaintext.len()
}

/// The direction from client to server, after a handshake.
fn keys(suite: Suite) -> (Sealer, Opener) {
    let (client, mut rng) = (PrivateKey::from_bytes([1; 32]), StdRng::seed_from_u64(1));
    let psk = PresharedKey::default();
    let message = Message1 {
        version: VERSION,
        mode: 0,
        is_probe: false,
        timestamp: Timestamp::from_unix(std::time::Duration::from_secs(1_700_000_000)),
        index: 5,
        session: SessionId([3; 16]),
        epoch: 0,
        suites: SuiteSet::ALL,
        carrier: 1,
        keep: 1,
    };
    let (mut initiator, packet) =
        Initiator::new(&client, &server().public_key(), &psk, &message, 1360, &mut rng).expect("a size");
    let lookup = |_: &PublicKey| Some(PresharedKey::default());
    let received = Responder::read(&server(), &packet, &lookup, &mut rng).expect("it opens");
    let (reply, keys) =
        received.responder.write(&Message2::Resumed { index: 6, suite }).expect("it is known");
    let (_, own) = initiator.finish(&reply).expect("it opens");
    (own.expect("keys").into_pair().0, keys.expect("keys").into_pair().1)
}

fn server() -> PrivateKey {
    PrivateKey::from_bytes([2; 32])
}
