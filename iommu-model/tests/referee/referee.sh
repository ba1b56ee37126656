#!/bin/sh
# Usage: referee.sh [arguments of the test binary]
#
# Puts the model's IOMMUs before the referee, 100,000 requests an architecture: about a minute each. Fetches QEMU into
# the target directory first, unless LURCH_QEMU names one or a fitting one is on PATH.
set -eu

here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
if [ -z "${LURCH_QEMU:-}" ] && ! qemu-system-x86_64 -accel help 2> /dev/null | grep -qx qtest; then
    LURCH_QEMU=$(cd "$here/../../.." && mkdir -p "${CARGO_TARGET_DIR:-target}" && cd "${CARGO_TARGET_DIR:-target}" && pwd)/qemu
    [ -d "$LURCH_QEMU/usr/bin" ] || sh "$here/get-qemu.sh" "$LURCH_QEMU"
    export LURCH_QEMU
fi
export LURCH_REFEREE_REQUESTS="${LURCH_REFEREE_REQUESTS:-100000}"
exec cargo test --release --manifest-path "$here/../../Cargo.toml" --test referee -- --nocapture --test-threads 1 "$@"
