#!/usr/bin/env bash
# Installs the package of scripts/package.sh in a Debian that has nothing else, runs the service
# there against a real broker and a real Redis, upgrades it, and removes it. Needs root.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
if [ "$(id -u)" != 0 ]; then
    echo "skipped: to install a package in a clean system, run this as root" >&2
    exit 0
fi
scripts/need.sh debootstrap java maven redis
home=$root/target/clean
clean=$home/root
base=$home/base
if [ ! -e "$base" ]; then
    rm -rf "$base.partial"
    mkdir -p "$home"
    # The package needs the libraries of the release that it was built on.
    codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
    debootstrap --variant=minbase "$codename" "$base.partial" >"$home/debootstrap.log" ||
        { tail "$home/debootstrap.log" >&2; exit 1; }
    mv "$base.partial" "$base"
fi
rm -rf "$clean"
trap 'rm -rf "$clean"' EXIT
cp -a "$base" "$clean"

inside() { chroot "$clean" env DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 "$@"; }
expect() { # expect WHAT EXPECTED COMMAND ...
    local what=$1 expected=$2 found
    shift 2
    found=$("$@" 2>&1) || true
    if [[ $found != $expected ]]; then
        printf 'FAILED: %s: expected %s, found:\n%s\n' "$what" "$expected" "$found" >&2
        exit 1
    fi
    echo "ok: $what"
}
package=$(ls "$root"/target/package/*.deb)
cp "$package" "$clean/tmp/device-status.deb"
configuration=/etc/device-status/device-status.toml
as_the_service=(setpriv --reuid device-status --regid device-status --init-groups)

inside apt-get update -qq
inside apt-get install -y -qq --no-install-recommends /tmp/device-status.deb >"$home/install.log" 2>&1 ||
    { tail -n 30 "$home/install.log" >&2; exit 1; }
version=$(dpkg-deb --field "$package" Version)
expect "the version is the package's" "device-status ${version%-*}" inside device-status --version
expect "the binary is stripped" "*no symbols*" nm "$clean/usr/bin/device-status"
expect "the service has a user of its own" "*:/nonexistent:/usr/sbin/nologin" \
    inside getent passwd device-status
expect "the configuration is for that user only" "root:device-status 640" \
    inside stat -c '%U:%G %a' "$configuration"
expect "it can read the configuration" "configuration is valid*" \
    inside "${as_the_service[@]}" device-status --config "$configuration" config check
expect "others cannot" "*ermission denied*" \
    inside setpriv --reuid nobody --clear-groups device-status --config "$configuration" config check
expect "each command has a manual page" "*take*view*from*" \
    inside zcat /usr/share/man/man1/device-status-run.1.gz
expect "bash completes the commands" "*complete*device-status*" \
    inside bash -c 'source /usr/share/bash-completion/completions/device-status; complete -p device-status'
expect "the bill of materials names what is built in" "True" \
    python3 -c 'import json, sys; print("rdkafka" in {c["name"] for c in json.load(open(sys.argv[1]))["components"]})' \
    "$clean/usr/share/doc/device-status/sbom.cdx.json"
expect "the unit is installed" "*device-status.service" \
    inside sh -c 'ls /lib/systemd/system/device-status.service'

PACKAGE_ROOT=$clean cargo test --test examples package -- --nocapture

echo "# ours" >>"$clean$configuration"
inside chmod 0644 "$configuration"
inside dpkg -i /tmp/device-status.deb >"$home/install.log" 2>&1 || { cat "$home/install.log" >&2; exit 1; }
expect "an upgrade keeps a configuration that was changed" "# ours" \
    inside tail -n 1 "$configuration"
expect "and its permissions" "root:device-status 644" inside stat -c '%U:%G %a' "$configuration"
inside dpkg --remove device-status >"$home/install.log" 2>&1
expect "what is removed is gone" "" inside sh -c 'ls -d /usr/bin/device-status 2>/dev/null'
expect "but for the configuration" "$configuration" inside ls "$configuration"
inside dpkg --purge device-status >"$home/install.log" 2>&1
expect "which a purge removes" "" inside sh -c 'ls -d /etc/device-status 2>/dev/null'
