//! The command line.

use clap::{Args as ClapArgs, Parser, Subcommand};
use ipnetwork::IpNetwork;

use crate::config::parse_network;

/// A VPN for networks that throttle UDP
#[derive(Debug, Parser)]
#[command(name = "vpn", version, about = "A VPN for networks that throttle UDP", after_help = EXIT_CODES)]
pub(super) struct Args {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Print a new private key
    Genkey,
    /// Print the public key of the private key on standard input
    Pubkey,
    /// Print a new preshared key
    Genpsk,
    /// Run a server in the foreground
    Serve {
        /// Its configuration
        #[arg(long, value_name = "FILE", default_value = "/etc/vpn/server.toml")]
        config: String,
    },
    /// Bring a tunnel up; it goes on in the background
    Up(Up),
    /// Take a tunnel down, and undo what is left of a dead one
    Down {
        #[arg(value_name = "NAME|FILE", default_value = DEFAULT_CLIENT, help = TARGET_HELP)]
        target: String,
    },
    /// Show a tunnel, or all of them
    Status(Status),
    /// Try what the network lets through, beside a tunnel that is up or without one
    Probe(Probe),
}

#[derive(Debug, ClapArgs)]
pub(super) struct Up {
    #[arg(value_name = "NAME|FILE", default_value = DEFAULT_CLIENT, help = TARGET_HELP)]
    pub(super) target: String,
    /// Send this network through the tunnel, instead of the routes of the configuration
    #[arg(long, value_name = "CIDR", value_parser = parse_network)]
    pub(super) route: Vec<IpNetwork>,
    /// Leave this network outside, besides those of the configuration
    #[arg(long, value_name = "CIDR", value_parser = parse_network)]
    pub(super) exclude: Vec<IpNetwork>,
    /// Stay in the foreground
    #[arg(long)]
    pub(super) foreground: bool,
    /// Tell the command that waits on our standard output when the tunnel is up
    #[arg(long, hide = true)]
    pub(super) relayed: bool,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Status {
    #[arg(value_name = "NAME|FILE", help = TARGET_HELP)]
    pub(super) target: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    /// Show it again every second
    #[arg(long)]
    pub(super) watch: bool,
    /// List the TCP connections inside: target, state, age, bytes and rate, the busiest first
    #[arg(long)]
    pub(super) flows: bool,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Probe {
    #[arg(value_name = "NAME|FILE", default_value = DEFAULT_CLIENT, help = TARGET_HELP)]
    pub(super) target: String,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

const DEFAULT_CLIENT: &str = "client";

const TARGET_HELP: &str = "A name for /etc/vpn/NAME.toml, or a file: what contains / or ends in .toml";

const EXIT_CODES: &str = "\
Exit codes: 0 fine, 1 failure, 2 usage or configuration, 3 a right is missing, \
4 server unreachable, 5 refused by the server, 6 no such tunnel";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Args::try_parse_from(line.split(' ')).map(|args| args.command)
    }

    fn up(line: &str) -> Up {
        let Command::Up(up) = parse(line).unwrap() else {
            panic!("up is a command");
        };
        up
    }

    #[test]
    fn is_a_consistent_definition() {
        Args::command().debug_assert();
    }

    #[test]
    fn has_the_documented_defaults() {
        let up = up("vpn up");
        assert_eq!(up.target, "client");
        assert!(up.route.is_empty() && up.exclude.is_empty() && !up.foreground);
        assert!(!up.relayed);
        let Command::Serve { config } = parse("vpn serve").unwrap() else {
            panic!("serve is a command");
        };
        assert_eq!(config, "/etc/vpn/server.toml");
        let Command::Down { target } = parse("vpn down").unwrap() else {
            panic!("down is a command");
        };
        assert_eq!(target, "client");
        let Command::Status(status) = parse("vpn status").unwrap() else {
            panic!("status is a command");
        };
        assert_eq!(status.target, None);
        assert!(!status.json && !status.watch && !status.flows);
    }

    #[test]
    fn takes_routes_and_excludes_again_and_again() {
        let up = up("vpn up x.toml --route 10.0.0.0/8 --route fd00::/8 --exclude 10.1.0.0/16 \
                     --foreground --relayed");
        assert_eq!(up.target, "x.toml");
        let routes: Vec<_> = up.route.iter().map(ToString::to_string).collect();
        assert_eq!(routes, ["10.0.0.0/8", "fd00::/8"]);
        assert_eq!(up.exclude.len(), 1);
        assert!(up.foreground);
        assert!(up.relayed);
    }

    #[test]
    fn refuses_wrong_usage_with_code_2() {
        for line in [
            "vpn",
            "vpn fly",
            "vpn up a b",
            "vpn up --route 10.0.0.1/8",
            "vpn up --route host",
            "vpn serve server",
            "vpn genkey key",
            "vpn status --yaml",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
        assert_eq!(parse("vpn --help").unwrap_err().exit_code(), 0);
    }
}
