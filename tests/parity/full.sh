#!/usr/bin/env bash
# Compares models of the real shapes with diffusers and transformers, with random weights in f32.
#
#   tests/parity/full.sh [CASE...]     all cases unless given; tests/parity/make.py lists them
#
# PYTHON names a Python with tests/diffusers/requirements.txt (target/venv/bin/python unless set). Models are made one at a
# time, at most 11 GB on disk and 12 GB in memory. Prints the relative error of each output and fails above 1e-3.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-target/venv/bin/python}
cases=(clip-l openclip-h openclip-bigg vae-sd15 vae-sdxl sd-v1-5 bk-sdm-base koala-700m ssd-1b sdxl-base)
if (($#)); then cases=("$@"); fi
export LAPTOP_DIFF_PARITY=$PWD/target/parity/model
trap 'rm -rf "$LAPTOP_DIFF_PARITY"' EXIT
cargo test --release --test it --no-run
failed=0
for case in "${cases[@]}"; do
    rm -rf "$LAPTOP_DIFF_PARITY"
    "$python" tests/parity/make.py "$case" "$LAPTOP_DIFF_PARITY"
    printf '\n== %s\n' "$case"
    cargo test --quiet --release --test it -- --ignored --nocapture laws::parity || failed=1
done
exit "$failed"
