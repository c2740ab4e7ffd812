#!/usr/bin/env bash
# What takes too long for every change: `tests/nightly.sh [COUNT]`. A metric and a criterion are added to a copy of the source.
# Then a million mutations of each kind, other ones every night: about an hour on two cores and less than a gigabyte of
# memory, which is the limit here. A failure names the case and how to repeat it.
set -euo pipefail
cd "$(dirname "$0")/.."
count=${1:-1000000}
from=$(($(date +%s) / 86400 * 10000000))
cargo test --release --test it -- --ignored laws::extending
cargo test --release --test mutations --no-run
ulimit -v 8388608
MUTATIONS=$count MUTATIONS_FROM=$from cargo test --release --test mutations -- --nocapture ||
    { echo "repeat one case: MUTATIONS=1 MUTATIONS_FROM=NUMBER cargo test --release --test mutations KIND"; exit 1; }
