//! `bit 0 of u8: without our header, the rest of a file`: the undo journal as a crash, or anybody, left it.

use std::fs;
use std::path::Path;

use vpn::netcfg::{Change, Journal, Opened};

/// It always opens; what is read is what is written back, so that a second look finds the same and nothing else; what is
/// recorded behind it is found beside it, even if the next line was cut short.
pub(crate) fn run(bytes: &[u8]) {
    let Some((kind, rest)) = bytes.split_first() else { return };
    FOLDER.with(|folder| {
        let path = folder.path().join("journal");
        let header = header(&path);
        let is_ours = kind & 1 == 0;
        fs::write(&path, if is_ours { [header.as_bytes(), rest].concat() } else { rest.to_vec() })
            .expect("room");
        let changes = changes(&path);
        assert!(is_ours || changes.is_empty() || rest.starts_with(header.trim_end().as_bytes()));
        check_file(&path, &header, &changes);
        let mut journal = open(&path);
        assert_eq!(journal.changes(), changes);
        journal.record(Change::NftTable { name: "vpn0".into() }).expect("room");
        drop(journal);
        let whole = fs::read(&path).expect("it is there");
        fs::write(&path, [whole.as_slice(), b"{\"throw_route\":{\"ta"].concat()).expect("room");
        let after = self::changes(&path);
        assert_eq!(after.split_last(), Some((&Change::NftTable { name: "vpn0".into() }, changes.as_slice())));
    });
}

/// The header's line, as an empty journal of this boot and namespace has it.
fn header(path: &Path) -> String {
    fs::write(path, b"").expect("room");
    drop(open(path));
    fs::read_to_string(path).expect("text")
}

fn open(path: &Path) -> Journal {
    match Journal::open(path).expect("it opens") {
        Opened::Ours(journal) => journal,
        Opened::Locked { .. } => panic!("nobody else has it"),
    }
}

fn changes(path: &Path) -> Vec<Change> {
    open(path).changes().to_vec()
}

fn check_file(path: &Path, header: &str, changes: &[Change]) {
    let text = fs::read_to_string(path).expect("text");
    let (first, lines) = text.split_at(header.len());
    let written = lines.lines().map(serde_json::from_str::<Change>).collect::<Result<Vec<_>, _>>();
    assert_eq!((first, written.expect("JSON").as_slice()), (header, changes));
}

thread_local! {
    static FOLDER: tempfile::TempDir = tempfile::tempdir().expect("a folder");
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let changes = [
        Change::NftTable { name: "vpn-client".into() },
        Change::ThrowRoute { table: 40_000, network: "10.0.0.0/8".parse().expect("a network") },
        Change::Sysctl { path: "/proc/sys/net/x".into(), before: "0".into(), after: "1".into() },
        Change::SysctlSnapshot { path: "/proc/sys/net/y".into(), value: "2".into() },
    ];
    let line = |change: &Change| format!("{}\n", serde_json::to_string(change).expect("JSON"));
    let all: String = changes.iter().map(line).collect();
    let rule = "{\"rule\":{\"tunnel\":{\"v6\":true,\"priority\":5,\"mark\":40000,\"table\":40000}}}\n";
    vec![
        [&[0], all.as_bytes()].concat(),
        [&[0], rule.as_bytes(), &all.as_bytes()[..90]].concat(),
        [&[1], &b"{\"boot\":\"another\",\"netns\":1}\n"[..], all.as_bytes()].concat(),
        vec![1],
    ]
}
