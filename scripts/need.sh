#!/usr/bin/env bash
# Sees to it that what is named is installed: need.sh [cc] [java] [maven] [redis] …
# Installs Debian packages where it may, otherwise says in one line what to install.
set -euo pipefail

# What is asked for, the command that proves it (or, with .pc, what pkg-config must know,
# with .py, what Python must), and the Debian package that brings it.
table='
cc          cc            build-essential
make        make          make
pkg-config  pkg-config    pkg-config
openssl     openssl.pc    libssl-dev
curl        libcurl.pc    libcurl4-openssl-dev
sasl        libsasl2.pc   libsasl2-dev
java        java          openjdk-17-jre-headless
javac       javac         openjdk-17-jdk-headless
maven       mvn           maven
redis       redis-server  redis-server
prometheus  promtool      prometheus
node        node          nodejs
go          go            golang-go
npm         npm           npm
venv        ensurepip.py  python3-venv
flock       flock         util-linux
dpkg-dev    dpkg-shlibdeps dpkg-dev
python      tomllib.py    python3
debootstrap debootstrap   debootstrap
'

installed() {
    case $1 in
    *.pc) command -v pkg-config >/dev/null && pkg-config --exists "${1%.pc}" ;;
    *.py) python3 -c "import ${1%.py}" >/dev/null 2>&1 ;;
    *) command -v "$1" >/dev/null ;;
    esac
}

packages=()
for name in "$@"; do
    read -r command package < <(awk -v name="$name" '$1 == name { print $2, $3 }' <<<"$table") || {
        echo "need.sh: nothing is known of '$name'" >&2
        exit 2
    }
    installed "$command" || packages+=("$package")
done
[ ${#packages[@]} -gt 0 ] || exit 0

refuse() {
    echo "Please install: ${packages[*]} ($1)" >&2
    exit 1
}

command -v apt-get >/dev/null || refuse "there is no apt-get here to do it with"
if [ "$(id -u)" = 0 ]; then
    as_root=()
elif sudo -n true 2>/dev/null; then
    as_root=(sudo -n)
else
    refuse "try: sudo apt-get install ${packages[*]}"
fi

# Two runs at once wait for each other here.
if command -v flock >/dev/null; then
    exec 9>"${TMPDIR:-/tmp}/device-status-need.$(id -u).lock"
    flock 9
fi
echo "Installing ${packages[*]} ..." >&2
# A package that starts a daemon by itself is not to do so here: where systemd runs, a
# policy says so while we install; elsewhere the run level does.
policy=/usr/sbin/policy-rc.d
if [ -d /run/systemd/system ] && [ ! -e "$policy" ]; then
    trap '"${as_root[@]}" rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
    "${as_root[@]}" chmod 755 "$policy"
fi
install() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
        apt-get -o DPkg::Lock::Timeout=120 install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
}
install 2>/dev/null || { "${as_root[@]}" apt-get -o DPkg::Lock::Timeout=120 update -qq >/dev/null && install; } ||
    refuse "apt-get could not; see its message above"
