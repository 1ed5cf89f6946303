#!/usr/bin/env bash
# Builds what is released, in target/package: a Debian package and a tarball with the stripped
# binary, and the symbols apart. They are for Debian releases with the libraries of this
# machine, or newer ones.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
home=target/package
files=$home/files

scripts/need.sh cc dpkg-dev python
# Compression is left to xz, which is a part of Debian.
cargo_deb=3.8.0
tool=target/tools/bin/cargo-deb
[ "$("$tool" --version 2>/dev/null)" = "$cargo_deb" ] ||
    CARGO_TARGET_DIR=target/tools/build cargo install --quiet --locked --debug --no-default-features \
        --root target/tools "cargo-deb@$cargo_deb"

cargo build --release --locked --bin device-status
built=${CARGO_TARGET_DIR:-target}/release/device-status
rm -rf "$home"
mkdir -p "$files"
scripts/split-symbols.sh "$built" "$files"
"$built" package-files "$files"
scripts/sbom.py >"$files/sbom.cdx.json"

"$tool" --no-build --no-strip --quiet --output "$home/"

version=$("$built" --version | cut -d ' ' -f 2)
name=device-status-$version-$(uname -m)
tree=$home/$name
install -D -m 755 "$files/device-status" -t "$tree/bin"
install -D -m 644 "$files"/man/*.1 -t "$tree/share/man/man1"
install -D -m 644 "$files/completions/device-status.bash" "$tree/share/bash-completion/completions/device-status"
install -D -m 644 "$files/completions/_device-status" -t "$tree/share/zsh/site-functions"
install -D -m 644 "$files/completions/device-status.fish" -t "$tree/share/fish/vendor_completions.d"
install -D -m 644 deploy/systemd/device-status.service -t "$tree/lib/systemd/system"
install -D -m 644 deploy/device-status.example.toml "$tree/etc/device-status/device-status.toml"
install -D -m 644 LICENSE CHANGELOG.md "$files/sbom.cdx.json" -t "$tree/share/doc/device-status"
archive() { tar --sort=name --owner=0 --group=0 --numeric-owner -czf "$@"; }
archive "$home/$name.tar.gz" -C "$home" "$name"
archive "$home/$name-symbols.tar.gz" -C "$files" device-status.debug
rm -rf "$tree"
ls -l "$home"
