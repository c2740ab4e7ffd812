#!/usr/bin/env bash
# Measures time and memory of scoring full-size U-Nets: random weights, f16 on disk, 32x32 latents, two points.
#
#   tests/parity/score.sh [CONFIG...]     names from tests/golden/configs; sd-v1-5 and sdxl-base unless given
#
# PYTHON names a Python with tests/diffusers/requirements.txt (target/venv/bin/python unless set); it makes the models, 7 GB under
# target/parity, on first use. Settings in the environment apply, such as LAPTOP_DIFF_MEMORY=3GB.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-target/venv/bin/python}
cargo build --release
for config in ${*:-sd-v1-5 sdxl-base}; do
    folder=target/parity/$config
    if ! test -f "$folder/calibration.safetensors"; then
        "$python" tests/parity/make.py "$config" "$folder" --dtype f16 --weights-only
    fi
    cat > "$folder/score.yaml" <<YAML
format: 1
name: score-$config
stages:
  - { id: teacher, use: load, with: { model: ., dtype: f16 } }
  - { id: points, use: calibrate, with: { file: calibration.safetensors } }
  - { id: scores, use: score, with: { model: teacher, calibration: points, additivity-sets: 0 } }
YAML
    export LAPTOP_DIFF_CACHE=target/parity/cache LAPTOP_DIFF_RUNS=target/parity/runs
    run=(target/release/laptop-diff run "$folder/score.yaml" --device cpu)
    "${run[@]}" --until teacher
    "${run[@]}" --until points
    # In a process of its own, so that the peak memory that the system reports belongs to scoring alone.
    /usr/bin/time -f "$config: %e s, at most %M kB of memory" "${run[@]}" --force scores
done
