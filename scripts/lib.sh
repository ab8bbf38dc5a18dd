# Shared by the scripts: what must be on the machine before anything can be built or run.
# Sourced, not run; leaves the shell in the project's directory, as root, with as_user and TARGET set.

cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec < /dev/null # nothing here asks, and CI has nobody to answer

fail() {
    echo "$(basename "$0"): $*" >&2
    exit 1
}

require_root() {
    [ "$(id -u)" = 0 ] || fail "needs root for network namespaces: run sudo scripts/$(basename "$0")"
}

# The program or file to look for, and the Debian package it comes from. scripts/test adds more.
PACKAGES="
    ip:iproute2 nft:nftables ethtool:ethtool ping:iputils-ping tcpdump:tcpdump
    curl:curl dig:bind9-dnsutils iperf3:iperf3 nginx:nginx dnsmasq:dnsmasq-base
    cc:gcc /usr/include/stdio.h:libc6-dev /etc/ssl/certs/ca-certificates.crt:ca-certificates
"

# Debian's root has these on its path, a root that came by other ways may not.
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

install_missing_packages() {
    local entry missing=""
    for entry in $PACKAGES; do
        command -v "${entry%%:*}" > /dev/null || [ -e "${entry%%:*}" ] || missing="$missing ${entry#*:}"
    done
    [ -n "$missing" ] || return 0
    command -v apt-get > /dev/null || fail "please install:$missing"
    echo "Installing$missing"
    install_without_starting $missing || fail "apt-get could not install$missing"
}

# Some of the packages bring services (nginx on port 80, sshd on port 22); only their programs are wanted here.
# A subshell for the sake of its trap, which runs when the function's own variables would be gone.
install_without_starting() (
    policy=/usr/sbin/policy-rc.d
    log="$(mktemp)"
    if [ -e $policy ]; then
        trap 'disable_services "$@"; rm -f "$log"' EXIT
    else
        trap 'disable_services "$@"; rm -f "$log" "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' > $policy
        chmod +x $policy
    fi
    export DEBIAN_FRONTEND=noninteractive
    if ! { apt-get update -q && apt-get install -q -y --no-install-recommends "$@"; } > "$log" 2>&1; then
        tail -20 "$log" >&2
        return 1
    fi
)

# Of these packages, just installed: what they would run from now on, or at the next boot.
disable_services() {
    local entry
    command -v systemctl > /dev/null || return 0
    for entry in nginx:nginx openssh-server:ssh.service openssh-server:ssh.socket openvpn:openvpn; do
        case " $* " in
            *" ${entry%%:*} "*) systemctl --quiet --now disable "${entry#*:}" > /dev/null 2>&1 || true ;;
        esac
    done
}

# Runs a command as who called sudo, with that user's home and cargo; as root if there was no sudo.
as_user() {
    local user="${SUDO_USER:-root}" home
    if [ "$user" = root ]; then
        PATH="${CARGO_HOME:-${HOME:-/root}/.cargo}/bin:$PATH" "$@"
    else
        home="$(getent passwd "$user" | cut -d: -f6)"
        setpriv --reuid "$user" --regid "$(id -g "$user")" --init-groups \
            env HOME="$home" USER="$user" LOGNAME="$user" PATH="$home/.cargo/bin:$PATH" "$@"
    fi
}

# A Rust that is missing or older than Cargo.toml asks for gets one sentence.
require_rust() {
    local user="${SUDO_USER:-root}" wanted found
    wanted="$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml | head -1)"
    command -v cc > /dev/null || fail "a C compiler is missing: apt install gcc libc6-dev"
    as_user sh -c 'command -v cargo' > /dev/null 2>&1 || fail "$user has no cargo: install Rust $wanted or later (https://rustup.rs)"
    found="$(as_user rustc --version | cut -d' ' -f2)"
    [ "$(printf '%s\n' "$wanted" "${found%%-*}" | sort -V | head -1)" = "$wanted" ] \
        || fail "$user has Rust $found, but Rust $wanted or later is needed: rustup update"
}

require_component() {
    as_user cargo "$1" --version > /dev/null 2>&1 || fail "cargo $1 is missing: rustup component add $2"
}

# Builds by a cargo command and prints the path of each program of a kind: "test" is a file in tests/.
executables() {
    local kind="$1" messages
    shift
    messages="$(as_user "$@" --quiet --no-run --message-format=json-render-diagnostics)" || return
    sed -n '/"kind":\["'"$kind"'"\]/s/.*"executable":"\([^"]*\)".*/\1/p' <<< "$messages" | sort -u
}

# The release build of the programs; of vpn only if VPN_BIN does not name one to use instead.
build_release() {
    [ -n "${VPN_BIN:-}" ] || as_user cargo build --release --quiet -p vpn --bins
    [ $# = 0 ] || as_user cargo build --release --quiet -p netns-tests "$@"
}

find_target() {
    TARGET="$(as_user cargo metadata --format-version 1 --no-deps | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')"
}

prepare() {
    require_root
    install_missing_packages
    require_rust
    find_target
}
