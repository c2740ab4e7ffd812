#!/usr/bin/env bash
# Everything that needs a GPU, in one go of at most 12 minutes: five steps, each under its own time limit. What a step prints is kept as
# it comes, and after each step the folder of results holds a table (table.txt) and gpu.json.
#
#   tests/gpu/run.sh                           builds with `--features cuda`, then runs
#   tests/gpu/run.sh build FOLDER              builds, and puts the stripped executables into FOLDER
#   tests/gpu/run.sh with FOLDER [RESULTS]     runs those, on a machine that needs no Rust: from a copy of the repository
#
# PYTHON names a Python with torch and diffusers (tests/diffusers/requirements.txt), DEVICE the card; DEVICE=cpu runs the same steps
# in f32 and with small networks alone, to try this script. SKIP_LARGE=1 leaves out SDXL. LIMITS replaces the seconds of the five steps,
# ONLY names the steps that are run.
set -uo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
device=${DEVICE:-cuda:0}
read -r -a limits <<<"${LIMITS:-120 60 120 240 60}"
only=${ONLY:-kernels nano50 layers unets scores}

# Where cargo has put an executable.
executable() {
    sed -n 's/.*"name":"'"$1"'".*"executable":"\([^"]*\)".*/\1/p' | tail -n 1
}

build() {
    mkdir -p "$1"
    local name built
    for name in laptop-diff gpu layers unet score; do
        local what=(bench --bench "$name" --no-run)
        [ "$name" = gpu ] && what=(test --release --test gpu --no-run)
        [ "$name" = laptop-diff ] && what=(build --release --bin laptop-diff)
        built=$(cargo "${what[@]}" --features cuda --message-format=json | executable "$name")
        strip -o "$1/$name" "$built" || exit 1
    done
}

# step NAME LIMIT COMMAND..: runs it, keeps what it prints in NAME.log, and writes its line to steps.tsv. Never ends the script.
step() {
    local name=$1 limit=$2 begun=$EPOCHREALTIME status
    shift 2
    case " $only " in *" $name "*) ;; *) return 0 ;; esac
    echo "== $name, at most $limit s"
    timeout --kill-after=5 "$limit" "$@" 2>&1 | tee "$results/$name.log"
    status=${PIPESTATUS[0]}
    case $status in 0) status=passed ;; 124 | 137) status="timed out" ;; *) status="failed ($status)" ;; esac
    printf '%s\t%s\t%s\t%s\n' "$name" "$limit" "$(echo "$EPOCHREALTIME $begun" | awk '{printf "%.1f", $1 - $2}')" "$status" \
        >>"$results/steps.tsv"
    "$python" tests/gpu/results.py "$results" "$device"
}

# The whole method twice, with a cache each: the artefacts of both must have the same digests.
nano50() {
    local turn
    for turn in 1 2; do
        "$1/laptop-diff" run pipelines/nano50.yaml --device "$device" --cache "$scratch/cache$turn" --runs "$scratch/runs$turn" || return 1
    done
    "$python" tests/gpu/results.py --same "$scratch"/runs[12]/nano50/run.json
}

run() {
    local folder=$1 flowing=bf16 networks=(nano sd15 sdxl)
    results=${2:-gpu-results}
    if [ "$device" = cpu ]; then
        flowing=f32 networks=(nano)
    elif [ -n "${SKIP_LARGE:-}" ]; then
        networks=(nano sd15)
    fi
    mkdir -p "$results"
    rm -f "$results"/*.log "$results"/steps.tsv "$results"/gpu.json "$results"/table.txt
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    local against=(--python "$python" --device "$device" --dtype "$flowing")
    local compiled=(--peers compile) sizes=()
    [ "$device" = cpu ] && compiled=() sizes=("size=32 " "rows=256 ")
    export LAPTOP_DIFF_TEST_DEVICE=$device device python scratch
    export -f nano50
    step kernels "${limits[0]}" "$folder/gpu" --ignored --test-threads 1
    step nano50 "${limits[1]}" bash -c 'nano50 "$0"' "$folder"
    step layers "${limits[2]}" "$folder/layers" "${against[@]}" "${sizes[@]}"
    step unets "${limits[3]}" "$folder/unet" "${against[@]}" "${compiled[@]}" "${networks[@]}"
    step scores "${limits[4]}" "$folder/score" "${against[@]}" "${networks[@]:0:1}"
    cat "$results/table.txt"
    ! grep -qv 'passed$' "$results/steps.tsv"
}

case ${1:-} in
    build) build "${2:?give a folder}" ;;
    with) run "${2:?give the folder of the executables}" "${3:-}" ;;
    "")
        folder=$(mktemp -d)
        build "$folder"
        run "$folder"
        ;;
    *) sed -n 2,12p "$0"; exit 2 ;;
esac
