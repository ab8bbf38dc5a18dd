//! Whole configuration files: defaults, examples, and the exact text of each error.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use super::*;

// RFC 7748 section 6.1: the key pairs of Alice and Bob.
const ALICE: &str = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
const ALICE_PUBLIC: &str = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";
const BOB: &str = "XasIfmJKikt54X+Lg4AO5m87sSkmGLb9HC+LJ/+I4Os=";
const BOB_PUBLIC: &str = "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=";
const SHARED: &str = "Sl2dW6TOLeFyjjv0gDUPJeB+IclH0Z4zdvCbPB4WF0I=";

/// The three lines that every client needs.
fn client_head() -> String {
    format!("private_key = \"{ALICE}\"\nserver = \"h:1\"\nserver_key = \"{BOB_PUBLIC}\"\n")
}

/// The three lines that every server needs, and the number of the next one.
fn server_head() -> String {
    format!("private_key = \"{BOB}\"\n[tunnel]\naddresses = [\"10.77.0.1/24\", \"fd77::1/64\"]\n")
}

fn peer(rest: &str) -> String {
    format!("{}[[peer]]\npublic_key = \"{ALICE_PUBLIC}\"\n{rest}", server_head())
}

fn write(text: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.toml");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    (folder, path)
}

fn client(text: &str) -> Result<(ClientConfig, Vec<Warning>), String> {
    let (folder, path) = write(text);
    ClientConfig::load(&path).map_err(|error| shorten(&error, folder.path()))
}

fn server(text: &str) -> Result<(ServerConfig, Vec<Warning>), String> {
    let (folder, path) = write(text);
    ServerConfig::load(&path).map_err(|error| shorten(&error, folder.path()))
}

fn shorten(error: &ConfigError, folder: &Path) -> String {
    error.to_string().replace(&format!("{}/", folder.display()), "")
}

fn networks(list: &[ipnetwork::IpNetwork]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

#[test]
fn a_client_has_the_documented_defaults() {
    let (config, warnings) = client(&client_head()).unwrap();
    assert!(warnings.is_empty());
    assert_eq!(config.private_key.to_string(), ALICE);
    assert_eq!(config.server.to_string(), "h:1");
    assert_eq!(config.server_key.to_string(), BOB_PUBLIC);
    assert!(config.preshared_key.is_zero());
    assert_eq!(config.tunnel.interface.as_str(), "vpn0");
    assert_eq!(networks(&config.tunnel.routes), ["0.0.0.0/0", "::/0"]);
    assert!(config.tunnel.exclude.is_empty());
    assert!(config.tunnel.lan);
    assert!(config.tunnel.domains.is_empty());
    assert_eq!(config.tunnel.dns, ClientDns::Server);
    assert!(!config.tunnel.kill_switch);
    assert_eq!(config.tunnel.connect, Connect::Faithful);
    assert_eq!(config.carrier.mode, Mode::Auto);
    assert_eq!(config.carrier.carriers, 1);
    assert_eq!(config.carrier.dead_after, Duration::from_secs(600));
    assert_eq!(config.carrier.preface, Preface::Off);
    assert_eq!(config.carrier.preface_host, "");
    assert_eq!(config.kcp.congestion, Congestion::Bbr);
    assert!(config.inbound.allow.is_empty());
    assert_eq!(config.limits.session_buffer.bytes(), 64 << 20);
    assert_eq!(config.limits.process_buffer.bytes(), 1 << 30);
    assert_eq!(config.metrics.listen, None);
}

#[test]
fn a_server_has_the_documented_defaults() {
    let (config, warnings) = server(&peer("addresses = [\"10.77.0.2\"]")).unwrap();
    assert!(warnings.is_empty());
    let listen: Vec<_> = config.listen.iter().map(ToString::to_string).collect();
    assert_eq!(listen, ["0.0.0.0:443", "[::]:443"]);
    assert_eq!(config.tunnel.interface.as_str(), "vpns0");
    assert_eq!(config.tunnel.dns, None);
    assert!(config.tunnel.masquerade);
    assert_eq!(config.egress, Egress::default());
    assert_eq!(config.peers[0].name, ALICE_PUBLIC);
    assert!(config.peers[0].preshared_key.is_zero());
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.metrics.listen, None);
}

#[test]
fn reads_the_documented_client() {
    let text = format!(
        r#"
private_key = "{ALICE}"
server = "203.0.113.9:443"
server_key = "{BOB_PUBLIC}"
preshared_key = "{SHARED}"        # optional
[tunnel]
interface = "vpn0"
routes = ["0.0.0.0/0", "::/0"]
exclude = []
lan = true
domains = []
dns = "server"
kill_switch = false
connect = "faithful"
[carrier]
mode = "auto"
carriers = 1
dead_after = "10m"
preface = "off"
preface_host = ""
[kcp]
congestion = "bbr"
[inbound]
allow = []
[limits]
session_buffer = "64MiB"
process_buffer = "1GiB"
[metrics]
listen = ""
"#
    );
    let (config, _) = client(&text).unwrap();
    let (default, _) = client(&client_head()).unwrap();
    assert_eq!(config.tunnel, default.tunnel);
    assert_eq!(config.carrier, default.carrier);
    assert_eq!(config.preshared_key.to_string(), SHARED);
}

#[test]
fn reads_the_documented_server() {
    let text = format!(
        r#"
private_key = "{BOB}"
listen = ["0.0.0.0:443", "[::]:443"]
[tunnel]
interface = "vpns0"
addresses = ["10.77.0.1/24", "fd77::1/64"]
dns = ["9.9.9.9", "2620:fe::fe"]
masquerade = true
[egress]
allow = ["127.0.0.1/32:53"]
deny = ["10.0.0.0/8", "[fd00::]/8:25"]
[[peer]]
name = "alice"
public_key = "{ALICE_PUBLIC}"
preshared_key = "{SHARED}"
addresses = ["10.77.0.2", "fd77::2"]
[limits]
session_buffer = "64MiB"
process_buffer = "1GiB"
[metrics]
listen = ""
"#
    );
    let (config, _) = server(&text).unwrap();
    assert_eq!(networks(&config.tunnel.addresses), ["10.77.0.1/24", "fd77::1/64"]);
    assert_eq!(config.tunnel.dns.unwrap().len(), 2);
    assert_eq!(config.egress.allow[0].to_string(), "127.0.0.1/32:53");
    assert_eq!(config.egress.deny[1].to_string(), "[fd00::]/8:25");
    let alice = &config.peers[0];
    assert_eq!((alice.name.as_str(), alice.addresses.len()), ("alice", 2));
    assert_eq!(alice.preshared_key.to_string(), SHARED);
}

#[test]
fn takes_every_value_that_is_built() {
    for rest in [
        "[carrier]\nmode = \"handshake+advance\"\ndead_after = \"90s\"",
        "[carrier]\nmode = \"bare+fixed\"",
        "[kcp]\ncongestion = \"loss\"",
        "[kcp]\ncongestion = \"none\"",
        "[tunnel]\ndns = \"off\"\nlan = false\nroutes = []\nexclude = [\"10.0.0.0/8\", \"1.1.1.1\"]",
    ] {
        client(&format!("{}{rest}\n", client_head())).unwrap();
    }
}

#[test]
fn says_where_a_client_is_wrong_and_what_to_do() {
    let head = client_head();
    for (rest, error) in [
        (
            "tunel = 1",
            "4:1: tunel: unknown key, expected one of `private_key`, `private_key_file`, `server`, `server_key`, `preshared_key`, `preshared_key_file`, `tunnel`, `carrier`, `kcp`, `inbound`, `limits`, `metrics`",
        ),
        (
            "[tunnel]\nlan = true\nmtu = 1",
            "6:1: tunnel.mtu: unknown key, expected one of `interface`, `routes`, `exclude`, `lan`, `domains`, `dns`, `kill_switch`, `connect`",
        ),
        ("[tunnel]\n  lan = 1", "5:9: tunnel.lan: invalid type: integer `1`, expected a boolean"),
        ("tunnel = 1", "4:10: tunnel: invalid type: integer `1`, expected a table"),
        (
            "[tunnel]\nroutes = [\"::/0\", \"10.0.0.1/8\"]",
            "5:19: tunnel.routes[1]: \"10.0.0.1/8\" has bits set behind its length: write \"10.0.0.0/8\"",
        ),
        (
            "[tunnel]\nroutes = [1]",
            "5:11: tunnel.routes[0]: invalid type: integer `1`, expected a string like \"10.0.0.0/8\"",
        ),
        (
            "[tunnel]\nexclude = [\"x\"]",
            "5:12: tunnel.exclude[0]: \"x\" is no network: write it as \"10.0.0.0/8\" or \"fd00::/8\"",
        ),
        (
            "[tunnel]\ninterface = \"a b\"",
            "5:13: tunnel.interface: \"a b\" cannot name an interface: use 1 to 15 letters, digits, -, _ or ., beginning with a letter, a digit or _",
        ),
        (
            "[tunnel]\ndns = \"on\"",
            "5:7: tunnel.dns: \"on\" is unknown: use \"server\", \"off\" or a list of addresses",
        ),
        ("[tunnel]\ndns = []", "5:7: tunnel.dns: must name 1 to 16 resolvers, or be \"server\" or \"off\""),
        (
            "[tunnel]\ndns = [\"9.9.9.9\", \"x\"]",
            "5:19: tunnel.dns[1]: \"x\" is no IP address: write it without a length, as \"10.77.0.2\"",
        ),
        (
            "[tunnel]\ndns = 1",
            "5:7: tunnel.dns: invalid type: integer `1`, expected \"server\", \"off\" or a list of addresses",
        ),
        (
            "[tunnel]\nconnect = \"slow\"",
            "5:11: tunnel.connect: \"slow\" is unknown: use \"faithful\" or \"fast\"",
        ),
        (
            "[inbound]\nallow = [\"tcp/22\", \"22\"]",
            "5:20: inbound.allow[1]: \"22\" is unknown: write \"tcp/22\", \"tcp/8000-8010\" or \"tcp/*\"",
        ),
        (
            "[inbound]\nallow = \"tcp/22\"",
            "5:9: inbound.allow: invalid type: string \"tcp/22\", expected a sequence",
        ),
        (
            "[carrier]\nmode = \"x\"",
            "5:8: carrier.mode: \"x\" is unknown: use \"auto\", \"handshake+advance\", \"handshake+fixed\", \"bare+advance\" or \"bare+fixed\"",
        ),
        (
            "[carrier]\ndead_after = \"10\"",
            "5:14: carrier.dead_after: \"10\" is no duration: write a number and ms, s, m, h or d, as \"10m\"",
        ),
        (
            "[carrier]\ndead_after = 600",
            "5:14: carrier.dead_after: invalid type: integer `600`, expected a string like \"10m\"",
        ),
        ("[carrier]\ndead_after = \"1ms\"", "5:14: carrier.dead_after: must be from 1s to 7d"),
        (
            "[kcp]\ncongestion = \"cubic\"",
            "5:14: kcp.congestion: \"cubic\" is unknown: use \"bbr\", \"loss\" or \"none\"",
        ),
        (
            "[limits]\nsession_buffer = \"1MB\"",
            "5:18: limits.session_buffer: \"1MB\" is no size: write a number and B, KiB, MiB or GiB, as \"64MiB\"",
        ),
        ("[limits]\nsession_buffer = \"1KiB\"", "5:18: limits.session_buffer: must be at least 1MiB"),
        (
            "[limits]\nprocess_buffer = \"1MiB\"",
            "5:18: limits.process_buffer: must be at least twice session_buffer, 64MiB",
        ),
        (
            "[limits]\nsession_buffer = \"2GiB\"",
            "4:1: limits.process_buffer: must be at least twice session_buffer, 2GiB",
        ),
        (
            "[metrics]\nlisten = \"9586\"",
            "5:10: metrics.listen: \"9586\" is no address with a port: write \"127.0.0.1:9586\", or \"\" for none",
        ),
        (
            "private_key_file = \"k\"",
            "4:20: private_key_file: stands beside private_key: keep one of the two",
        ),
        ("preshared_key = \"abc\"", "4:17: preshared_key: a key is base64, and this is not"),
        (
            "preshared_key = \"YWJj\"",
            "4:17: preshared_key: a key is 44 characters of base64 (32 bytes), and this has another length",
        ),
        (
            "preshared_key_file = \"nowhere\"",
            "4:22: preshared_key_file: cannot read nowhere: No such file or directory",
        ),
        (
            "preshared_key_file = \"x.toml\"",
            "4:22: preshared_key_file: x.toml: a key is base64, and this is not",
        ),
    ] {
        let found = client(&format!("{head}{rest}\n")).unwrap_err();
        assert_eq!(found, format!("x.toml:{error}"));
    }
}

#[test]
fn says_which_key_is_missing_and_what_to_write() {
    for (text, error) in [
        (
            String::new(),
            "1:1: private_key: is missing: write private_key = \"…\" or private_key_file = \"…\" with the output of `vpn genkey`",
        ),
        (
            format!("private_key = \"{ALICE}\"\n"),
            "1:1: server: is missing: write server = \"203.0.113.9:443\" or a name and port",
        ),
        (
            format!("private_key = \"{ALICE}\"\nserver = \"h:1\""),
            "1:1: server_key: is missing: write server_key = \"…\" with the server's public key (`vpn pubkey`)",
        ),
        (
            format!("private_key = \"{ALICE}\"\nserver = \"h:1\"\nserver_key = \"{ALICE_PUBLIC}\""),
            "3:14: server_key: is the key of this client itself: write the server's public key",
        ),
        (
            "server = \"h\"".to_owned(),
            "1:10: server: \"h\" is not HOST:PORT: write it as \"vpn.example:443\"",
        ),
        ("server = []".to_owned(), "1:10: server: is empty: name at least one server"),
        (
            "server = [\"h:1\", \"h:x\"]".to_owned(),
            "1:18: server[1]: \"x\" is no port: use a number from 1 to 65535",
        ),
    ] {
        assert_eq!(client(&text).unwrap_err(), format!("x.toml:{error}"));
    }
}

#[test]
fn says_where_a_file_is_no_toml() {
    for (text, place) in [
        ("a = \"x\nb = 1\n", "x.toml:1:7: not TOML: "),
        ("a = 1\nä = = 2\n", "x.toml:2:"),
        ("a = 1\na = 2\n", "x.toml:2:1: not TOML: "),
    ] {
        let error = client(text).unwrap_err();
        assert!(error.starts_with(place), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn refuses_by_name_what_is_not_built_yet() {
    let head = client_head();
    for (rest, place, instead) in [
        ("[tunnel]\ndomains = [\"x.org\"]", "5:11: tunnel.domains", "[]"),
        ("[tunnel]\ndns = [\"9.9.9.9\"]", "5:7: tunnel.dns", "\"server\" or \"off\""),
        ("[tunnel]\nkill_switch = true", "5:15: tunnel.kill_switch", "false"),
        ("[carrier]\ncarriers = 2", "5:12: carrier.carriers", "1"),
        ("[carrier]\npreface = \"http\"", "5:11: carrier.preface", "\"off\""),
        ("[carrier]\npreface_host = \"x\"", "5:16: carrier.preface_host", "\"\""),
        ("[metrics]\nlisten = \"127.0.0.1:9586\"", "5:10: metrics.listen", "\"\""),
    ] {
        let found = client(&format!("{head}{rest}\n")).unwrap_err();
        assert_eq!(found, format!("x.toml:{place}: this value is not built yet: use {instead}"));
    }
}

#[test]
fn takes_ranges_of_ports_of_one_server_and_of_several() {
    for (value, shown) in [("\"h:1-2\"", "h:1-2"), ("[\"h:1\", \"[::1]:1-2\"]", "h:1, [::1]:1-2")] {
        let (config, _) = client(&client_head().replace("\"h:1\"", value)).unwrap();
        assert_eq!(config.server.to_string(), shown);
    }
}

#[test]
fn says_where_a_server_is_wrong_and_what_to_do() {
    let second = format!(
        "addresses = [\"10.77.0.2\"]\n[[peer]]\npublic_key = \"{SHARED}\"\naddresses = [\"10.77.0.2\"]"
    );
    for (text, error) in [
        (
            format!("private_key = \"{BOB}\""),
            "1:1: tunnel.addresses: is missing: write addresses = [\"10.77.0.1/24\", \"fd77::1/64\"] or others of your own",
        ),
        (
            "[tunnel]\naddresses = [\"10.77.0.1\"]".to_owned(),
            "2:14: tunnel.addresses[0]: \"10.77.0.1\" has no /length: write the length of the network, as \"10.77.0.1/24\"",
        ),
        (format!("listen = []\n{}", server_head()), "1:10: listen: is empty: write [\"0.0.0.0:443\"]"),
        (
            format!("listen = [\"[::]:1-9\", \"[::]:9\"]\n{}", server_head()),
            "1:23: listen[1]: [::]:9 stands here twice",
        ),
        (
            format!("listen = [\"0.0.0.0:1-1000\", \"[::]:1-1000\"]\n{}", server_head()),
            "1:29: listen[1]: makes 2000 ports: 1024 can be listened on at most",
        ),
        (
            "listen = [\"host:443\"]".to_owned(),
            "1:11: listen[0]: \"host\" is no IP address: write \"0.0.0.0:443\" or \"[::]:443\"",
        ),
        (
            format!("listen = [\"[::]:1\", \"[::]:1\"]\n{}", server_head()),
            "1:21: listen[1]: [::]:1 stands here twice",
        ),
        (
            format!("{}[egress]\nallow = [\"10.0.0.0\"]", server_head()),
            "5:10: egress.allow[0]: \"10.0.0.0\": has no /length: write \"10.0.0.0/8\", \"10.0.0.0/8:25\" or \"[fd00::]/8:25\"",
        ),
        (
            format!("{}[[peer]]\nname = \"a\"", server_head()),
            "4:1: peer[0].public_key: is missing: write public_key = \"…\" with the client's public key (`vpn pubkey`)",
        ),
        (peer("name = \"\""), "6:8: peer[0].name: a name has 1 to 64 characters and no control characters"),
        (
            peer("key = 1"),
            "6:1: peer[0].key: unknown key, expected one of `name`, `public_key`, `preshared_key`, `preshared_key_file`, `addresses`",
        ),
        (
            peer(""),
            "4:1: peer[0].addresses: must name 1 to 16 addresses of the tunnel's networks, as [\"10.77.0.2\", \"fd77::2\"]",
        ),
        (
            peer("addresses = [\"10.77.0.2\", \"fd77::2/64\"]"),
            "6:27: peer[0].addresses[1]: \"fd77::2/64\" is no IP address: write it without a length, as \"10.77.0.2\"",
        ),
        (
            peer("addresses = [\"10.78.0.2\"]"),
            "6:14: peer[0].addresses[0]: 10.78.0.2 is in no network of tunnel.addresses",
        ),
        (
            peer("addresses = [\"127.0.0.1\"]"),
            "6:14: peer[0].addresses[0]: 127.0.0.1 is no address that an end of a tunnel can have: choose another",
        ),
        (
            peer("addresses = [\"10.77.0.1\"]"),
            "6:14: peer[0].addresses[0]: 10.77.0.1 is taken: choose another",
        ),
        (
            peer("addresses = [\"10.77.0.255\"]"),
            "6:14: peer[0].addresses[0]: 10.77.0.255 stands for the network itself: choose another",
        ),
        (
            peer("addresses = [\"fd77::\"]"),
            "6:14: peer[0].addresses[0]: fd77:: stands for the network itself: choose another",
        ),
        (
            peer("addresses = [\"10.77.0.2\"]\npreshared_key = \"x\""),
            "7:17: peer[0].preshared_key: a key is base64, and this is not",
        ),
        (
            peer("addresses = [\"10.77.0.2\"]\npreshared_key_file = \"no\""),
            "7:22: peer[0].preshared_key_file: cannot read no: No such file or directory",
        ),
        (peer(&second), "9:14: peer[1].addresses[0]: 10.77.0.2 is taken: choose another"),
        (
            peer(&second.replace(SHARED, ALICE_PUBLIC)),
            "8:14: peer[1].public_key: is another peer's key: each end has its own",
        ),
        (
            peer(&second.replace(SHARED, BOB_PUBLIC)),
            "8:14: peer[1].public_key: is this server's own key: each end has its own",
        ),
        (
            peer(&format!("name = \"a\"\n{second}\nname = \"a\"")),
            "11:8: peer[1].name: \"a\" names another peer too",
        ),
    ] {
        assert_eq!(server(&text).unwrap_err(), format!("x.toml:{error}"));
    }
}

#[test]
fn warns_of_a_server_without_peers() {
    let (_, warnings) = server(&server_head()).unwrap();
    let warning = warnings[0].to_string();
    assert!(warning.ends_with("x.toml has no [[peer]]: no client can connect"), "{warning}");
}

#[test]
fn warns_of_each_file_with_a_secret_that_others_can_read() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("x.toml");
    let key = folder.path().join("key");
    fs::write(&key, format!("{ALICE}\n")).unwrap();
    let inline = client_head();
    let by_file = inline.replace(&format!("private_key = \"{ALICE}\""), "private_key_file = \"key\"");
    for (text, config_mode, key_mode, warned) in [
        (&inline, 0o600, 0o644, None),
        (&inline, 0o644, 0o600, Some(&config)),
        (&inline, 0o640, 0o600, Some(&config)),
        (&by_file, 0o644, 0o600, None),
        (&by_file, 0o644, 0o644, Some(&key)),
    ] {
        fs::write(&config, text).unwrap();
        fs::set_permissions(&config, Permissions::from_mode(config_mode)).unwrap();
        fs::set_permissions(&key, Permissions::from_mode(key_mode)).unwrap();
        let (loaded, warnings) = ClientConfig::load(&config).unwrap();
        assert_eq!(loaded.private_key.to_string(), ALICE);
        let warnings: Vec<_> = warnings.iter().map(ToString::to_string).collect();
        let expected = warned.map(|path| {
            let path = path.display();
            format!("{path} holds a secret and is readable by others: chmod 600 {path}")
        });
        assert_eq!(warnings, Vec::from_iter(expected));
    }
}

#[test]
fn never_repeats_a_secret_in_an_error() {
    let text = format!("private_key = [\"{ALICE}\"]\n");
    let error = client(&text).unwrap_err();
    assert!(!error.contains(&ALICE[..8]), "{error}");
    let long = format!("private_key = \"{ALICE}{ALICE}\"\n");
    let error = client(&long).unwrap_err();
    assert!(!error.contains(&ALICE[..8]), "{error}");
}
