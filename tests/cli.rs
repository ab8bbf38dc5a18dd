//! The real program: what it prints, and the codes it ends with.

#![expect(
    clippy::unwrap_used,
    reason = "clippy allows it in tests, and the helpers of this file are part of them"
)]

use std::fs;
use std::io::{BufRead as _, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

fn vpn(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vpn"));
    command.args(arguments).env_remove("STATE_DIRECTORY");
    command
}

fn run(arguments: &[&str], input: &str) -> Output {
    let mut child =
        vpn(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// Runs in a place without instances, whatever the host has.
fn run_beside(folder: &Path, arguments: &[&str]) -> Output {
    vpn(arguments).env("RUNTIME_DIRECTORY", folder).output().unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

fn key_of(output: &Output) -> Vec<u8> {
    assert!(output.status.success(), "{}", stderr(output));
    let line = stdout(output).strip_suffix('\n').unwrap();
    assert_eq!(line.len(), 44);
    STANDARD.decode(line).unwrap()
}

#[test]
fn derives_the_public_key_of_a_known_private_key() {
    // RFC 7748 section 6.1: Alice.
    let output = run(&["pubkey"], "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=\n");
    assert!(output.status.success());
    assert_eq!(stdout(&output), "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=\n");
    assert_eq!(stderr(&output), "");
}

#[test]
fn generates_another_key_each_time() {
    for command in ["genkey", "genpsk"] {
        let (first, second) = (run(&[command], ""), run(&[command], ""));
        assert_eq!(key_of(&first).len(), 32);
        assert_ne!(key_of(&first), key_of(&second));
        assert_eq!(stderr(&first), "");
    }
    let private = run(&["genkey"], "");
    assert_eq!(key_of(&run(&["pubkey"], stdout(&private))).len(), 32);
}

#[test]
fn warns_of_a_key_in_a_file_that_others_can_read() {
    let folder = tempfile::tempdir().unwrap();
    for (mode, warned) in [(0o644, true), (0o600, false)] {
        let path = folder.path().join("key");
        let file = fs::File::create(&path).unwrap();
        file.set_permissions(fs::Permissions::from_mode(mode)).unwrap();
        let output = vpn(&["genkey"]).stdout(file).output().unwrap();
        assert!(output.status.success());
        assert_eq!(stderr(&output).contains("umask 077"), warned);
    }
}

#[test]
fn ends_with_2_for_a_wrong_key_and_does_not_repeat_it() {
    for input in ["", "c2VjcmV0\n", "secret!\n"] {
        let output = run(&["pubkey"], input);
        assert_eq!(output.status.code(), Some(2));
        assert_eq!(stdout(&output), "");
        let said = stderr(&output);
        assert!(said.starts_with("vpn: no private key on standard input: "), "{said}");
        assert!(!said.contains("c2Vj") && !said.contains("secret"), "{said}");
        assert_eq!(said.lines().count(), 1);
    }
}

#[test]
fn ends_with_2_for_wrong_usage() {
    for arguments in [&["fly"][..], &[], &["up", "--route", "10.0.0.1/8"], &["status", "a b"]] {
        assert_eq!(run(arguments, "").status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn watches_until_nobody_reads_any_more() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = vpn(&["status", "--watch", "--json"]);
    command.env("RUNTIME_DIRECTORY", folder.path()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for _ in 0..2 {
        assert!(lines.next().unwrap().unwrap().starts_with(r#"{"tunnels":["#));
    }
    drop(lines);
    assert!(child.wait().unwrap().success());
    let nobody = run_beside(folder.path(), &["status", "--watch", "nobody"]);
    assert_eq!(nobody.status.code(), Some(6));
}

#[test]
fn names_file_line_column_and_key_of_a_wrong_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("home.toml");
    fs::write(&path, "[tunnel]\nkill_swich = true\n").unwrap();
    let file = path.to_str().unwrap();
    for arguments in [&["up", file][..], &["serve", "--config", file]] {
        let output = run(arguments, "");
        assert_eq!(output.status.code(), Some(2));
        let said = stderr(&output);
        let start = format!("vpn: {file}:2:1: tunnel.kill_swich: unknown key, expected ");
        assert!(said.starts_with(&start), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

#[test]
fn ends_with_2_for_a_configuration_that_is_not_there() {
    let output = run(&["up", "/nowhere/home.toml"], "");
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(stderr(&output), "vpn: cannot read /nowhere/home.toml: No such file or directory\n");
}

#[test]
fn ends_with_6_for_a_tunnel_that_is_not_up() {
    let folder = tempfile::tempdir().unwrap();
    let output = run_beside(folder.path(), &["status", "nobody"]);
    assert_eq!(output.status.code(), Some(6));
    assert_eq!(stderr(&output), "vpn: there is no tunnel nobody: `vpn status` lists those that are up\n");
}

#[test]
fn shows_an_empty_list_when_nothing_runs() {
    if fs::read_dir("/run/vpn").is_ok_and(|mut entries| entries.next().is_some()) {
        // The host has tunnels of its own, which a list without a name rightly shows.
        let output = run(&["status", "--json"], "");
        assert!(stdout(&output).starts_with(r#"{"tunnels":["#));
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let json = run_beside(folder.path(), &["status", "--json"]);
    assert!(json.status.success(), "{}", stderr(&json));
    assert_eq!(stdout(&json), "{\"tunnels\":[]}\n");
    let text = run_beside(folder.path(), &["status"]);
    assert!(text.status.success());
    assert_eq!((stdout(&text), stderr(&text)), ("no tunnel is up\n", ""));
}
