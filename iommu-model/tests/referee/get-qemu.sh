#!/bin/sh
# Usage: get-qemu.sh DIR
#
# Unpacks, under DIR, a QEMU that has the qtest accelerator, with every library it needs. Wants a Debian or derived
# system with apt-get, dpkg-deb and the Debian archive key; wants no root rights and installs nothing. The mirror is the
# one that this machine's own apt sources name; LURCH_MIRROR names another one.
#
# Debian's packages have the accelerator from QEMU 11.1 on, so the suites are trixie and its backports. Where a package of
# that age is installed anyway, this script is not needed: the referee finds QEMU on PATH.
set -eu

dir=${1:?usage: get-qemu.sh DIR}
key=${LURCH_KEYRING:-/usr/share/keyrings/debian-archive-keyring.gpg}
mirror=${LURCH_MIRROR:-$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep '/debian$' | head -n 1)}
[ -n "$mirror" ] || { echo "get-qemu: no Debian mirror in the apt sources; name one in LURCH_MIRROR" >&2; exit 1; }

# A private apt: its own sources, lists, status and archives, so that nothing of the system changes.
apt="$dir/apt"
mkdir -p "$apt/empty" "$apt/lists/partial" "$apt/archives/partial"
: > "$apt/status"
for suite in trixie trixie-backports; do
    echo "deb [signed-by=$key] $mirror $suite main"
done > "$apt/sources"

run_apt() {
    apt-get -qq \
        -o Dir::Etc::SourceList="$apt/sources" -o Dir::Etc::SourceParts="$apt/empty" \
        -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts="$apt/empty" \
        -o Dir::State::Lists="$apt/lists" -o Dir::State::status="$apt/status" \
        -o Dir::Cache="$apt" -o Dir::Cache::archives="$apt/archives" \
        -o Debug::NoLocking=1 -o APT::Sandbox::User= "$@"
}

run_apt update
run_apt install -y --download-only --no-install-recommends -t trixie-backports \
    qemu-system-x86 qemu-system-arm qemu-system-riscv > "$apt/log"
for package in "$apt"/archives/*.deb; do
    dpkg-deb -x "$package" "$dir"
done
rm -rf "$apt"
echo "get-qemu: unpacked in $dir; now set LURCH_QEMU=$dir" >&2
