#!/usr/bin/env bash
# Everything that needs a GPU, in one go: the tests, then the tables against torch on the same card.
#
#   tests/gpu/run.sh                 builds with `--features cuda`, then runs
#   tests/gpu/run.sh build FOLDER    builds, and puts the stripped executables into FOLDER
#   tests/gpu/run.sh with FOLDER     runs those, on a machine that needs no Rust: from a copy of the repository
#
# PYTHON names a Python with torch and diffusers (tests/diffusers/requirements.txt), DEVICE the card.
# SKIP_LARGE=1 leaves out SDXL, which wants 80 GB for its training step.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
device=${DEVICE:-cuda:0}

# Where cargo has put a test or a benchmark.
executable() {
    sed -n 's/.*"name":"'"$1"'".*"executable":"\([^"]*\)".*/\1/p' | tail -n 1
}

build() {
    mkdir -p "$1"
    local built
    for name in gpu layers unet score; do
        local what=(bench --bench "$name")
        [ "$name" = gpu ] && what=(test --release --test gpu)
        built=$(cargo "${what[@]}" --features cuda --no-run --message-format=json | executable "$name")
        strip -o "$1/$name" "$built"
    done
}

run() {
    echo "== tests on $device"
    LAPTOP_DIFF_TEST_DEVICE=$device "$1/gpu" --ignored --test-threads 1
    echo "== layers against torch, bf16"
    "$1/layers" --python "$python" --device "$device" --dtype bf16
    echo "== whole U-Nets against diffusers, bf16, eager and compiled"
    local only=()
    [ -n "${SKIP_LARGE:-}" ] && only=(nano sd15)
    "$1/unet" --python "$python" --device "$device" --dtype bf16 --compile "${only[@]}"
    echo "== scoring all units: the walk, the plain way, diffusers"
    "$1/score" --python "$python" --device "$device"
}

case ${1:-} in
    build) build "${2:?give a folder}" ;;
    with) run "${2:?give the folder of the executables}" ;;
    "")
        folder=$(mktemp -d)
        trap 'rm -rf "$folder"' EXIT
        build "$folder"
        run "$folder"
        ;;
    *) sed -n 2,9p "$0"; exit 2 ;;
esac
