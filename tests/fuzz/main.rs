//! Every fuzz target as an ordinary test: its corpus, then a fixed number of mutations of it, the same in each run.
//!
//! A failure says where its input was saved; copied to `fuzz/corpus/TARGET/`, under a name that says what it shows, it is
//! run by everybody from then on. `scripts/fuzz TARGET` looks for more, with libFuzzer. `FUZZ_SEED` and `FUZZ_ROUNDS` (a
//! factor) change what is tried here.

mod mutate;
mod targets;

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

use mutate::Mutator;
use targets::{TARGETS, Target, target};

macro_rules! holds {
    ($($name:ident: $rounds:literal,)+) => {
        mod holds_for_its_corpus_and_mutations_of_it {
            $(#[test]
            fn $name() {
                super::run(stringify!($name), $rounds);
            })+
        }

        const TESTED: &[&str] = &[$(stringify!($name)),+];
    };
}

holds! {
    carrier_packet: 160_000,
    carrier_connection: 80_000,
    carrier_listener: 40_000,
    gso: 80_000,
    ip_packet: 40_000,
    sealed_packet: 800,
    handshake: 2400,
    payload: 160_000,
    kcp_hostile: 40_000,
    kcp_pair: 8000,
    mux: 40_000,
    flow: 20_000,
    datagram_queue: 80_000,
    fragment: 8000,
    server_strangers: 8000,
    server_peer: 2000,
    client: 1800,
    probe: 800,
    egress: 40_000,
    config_client: 12_000,
    config_server: 12_000,
    text: 160_000,
    journal: 1000,
    control: 20_000,
}

fn run(name: &str, rounds: usize) {
    let target = target(name);
    let corpus = corpus(name);
    assert!(!corpus.is_empty(), "{name} has no corpus");
    for input in &corpus {
        attempt(target, input, "of the corpus");
    }
    let seed = variable("FUZZ_SEED").unwrap_or(1);
    let rounds = rounds * usize::try_from(variable("FUZZ_ROUNDS").unwrap_or(1)).expect("a small factor");
    eprintln!("{name}: {} of the corpus, {rounds} mutations, FUZZ_SEED={seed}", corpus.len());
    let mut mutator = Mutator::new(&corpus, seed);
    for round in 0..rounds {
        attempt(target, &mutator.next(), &format!("of round {round}, FUZZ_SEED={seed}"));
    }
}

/// Runs one input; if it fails, says which it was.
fn attempt(target: Target, input: &[u8], origin: &str) {
    let Err(panic) = catch_unwind(AssertUnwindSafe(|| (target.run)(input))) else { return };
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{}", target.name));
    fs::write(&file, input).expect("room for the input");
    eprintln!("{}: fails for an input {origin}, saved as {}", target.name, file.display());
    resume_unwind(panic);
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// In the order of their names.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let Ok(entries) = fs::read_dir(corpus_folder().join(name)) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files.iter().map(|file| fs::read(file).expect("a file of the corpus")).collect()
}

fn corpus_folder() -> PathBuf {
    fuzz().join("corpus")
}

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

#[test]
fn every_target_is_tested_has_a_program_and_a_corpus() {
    let names: BTreeSet<_> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(names, TESTED.iter().map(|name| (*name).to_owned()).collect());
    assert_eq!(names, stems(&fuzz().join("fuzz_targets")));
    assert_eq!(names, stems(&corpus_folder()));
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).expect("a manifest");
    for name in &names {
        assert!(
            manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")),
            "{name} is not in the manifest"
        );
    }
}

#[test]
fn the_corpus_is_small() {
    let bytes: usize = TARGETS.iter().flat_map(|target| corpus(target.name)).map(|input| input.len()).sum();
    assert!(bytes <= 300_000, "{bytes} bytes");
}

/// Not a test: writes what the encoders make today into the corpus. Run it after a format has changed.
#[test]
#[ignore = "writes files: cargo test --test fuzz -- --ignored"]
fn writes_the_seeds_into_the_corpus() {
    for target in TARGETS {
        let folder = corpus_folder().join(target.name);
        fs::create_dir_all(&folder).expect("a folder");
        for (number, seed) in (target.seeds)().iter().enumerate() {
            fs::write(folder.join(format!("seed-{number:02}")), seed).expect("room");
        }
    }
}

fn stems(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let stem = |path: PathBuf| path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned);
    entries.filter_map(|entry| stem(entry.expect("an entry").path())).collect()
}
