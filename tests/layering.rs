//! Holds the layers apart: who may import whom, which crates are named where, and where `unsafe` may stand.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A layer, and the modules of this crate that it may name.
const LAYERS: &[(&str, &[&str])] = &[
    ("packet", &[]),
    ("egress", &[]),
    ("crypto", &[]),
    ("carrier", &[]),
    ("kcp", &[]),
    ("mux", &[]),
    ("flow", &["packet"]),
    ("datagram", &["packet"]),
    ("session", &["carrier", "crypto", "datagram", "egress", "flow", "kcp", "mux", "packet"]),
    ("io", &[]),
    ("netcfg", &["io"]),
];

/// Crates that only one module names: changing one touches one place.
const SOLE_USERS: &[(&str, &[&str])] = &[
    ("smoltcp", &["flow"]),
    ("snow", &["crypto"]),
    ("ring", &["crypto"]),
    ("chacha20poly1305", &["crypto"]),
    ("x25519_dalek", &["crypto"]),
    ("rtnetlink", &["netcfg"]),
    ("tun", &["io"]),
    ("libc", &["io"]),
    ("clap", &["cli"]),
    ("toml", &["config"]),
];

/// What sans-IO code never touches.
const OUTSIDE_WORLD: &[&str] =
    &["tokio::", "std::net::Tcp", "std::net::Udp", "std::fs", "std::thread", "rustix::"];

const SANS_IO: &[&str] =
    &["packet", "egress", "crypto", "carrier", "kcp", "mux", "flow", "datagram", "session"];

#[test]
fn no_layer_imports_a_sibling_or_a_layer_above_it() {
    for (layer, allowed) in LAYERS {
        for (file, line) in lines_of(layer) {
            for module in imported(&line) {
                let fine = module == *layer || allowed.contains(&module.as_str());
                assert!(fine, "{}: {layer} may not name {module}: {line}", file.display());
            }
        }
    }
}

#[test]
fn each_foreign_protocol_is_named_in_one_place() {
    for (name, users) in SOLE_USERS {
        for module in modules() {
            if users.contains(&module.as_str()) {
                continue;
            }
            for (file, line) in lines_of(&module) {
                let named = line.trim_start().starts_with(&format!("use {name}::"));
                assert!(!named, "{}: only {users:?} may name {name}: {line}", file.display());
            }
        }
    }
}

#[test]
fn sans_io_layers_do_no_io() {
    for layer in SANS_IO {
        for (file, line) in lines_of(layer) {
            let outside = OUTSIDE_WORLD.iter().find(|word| line.contains(*word));
            assert_eq!(outside, None, "{}: {line}", file.display());
        }
    }
}

#[test]
fn unsafe_code_stands_in_one_file() {
    let mut found = BTreeSet::new();
    for module in modules() {
        for (file, line) in lines_of(&module) {
            if line.contains("unsafe {") || line.contains("unsafe fn") {
                found.insert(file.strip_prefix(source()).expect("a source file").to_path_buf());
            }
        }
    }
    assert_eq!(found, BTreeSet::from([PathBuf::from("io/sys.rs")]));
}

/// The modules of this crate that a line names as `crate::module`, in an import or in the middle of code.
fn imported(line: &str) -> Vec<String> {
    let named = |rest: &str| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().map(str::to_owned);
    line.split("crate::").skip(1).filter_map(named).filter(|name| modules().contains(name)).collect()
}

fn modules() -> BTreeSet<String> {
    let entries = fs::read_dir(source()).expect("the source folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths
        .filter(|path| path.is_dir())
        .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
        .collect()
}

/// Every line of code of a module, without comments, with its file.
fn lines_of(module: &str) -> Vec<(PathBuf, String)> {
    let mut lines = Vec::new();
    let mut folders = vec![source().join(module)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a module's folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let text = fs::read_to_string(&path).expect("a source file");
                let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
                lines.extend(code.map(|line| (path.clone(), line.to_owned())));
            }
        }
    }
    assert!(!lines.is_empty(), "{module} has no code");
    lines
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}
