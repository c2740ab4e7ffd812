#!/usr/bin/env bash
# Compiles every CUDA kernel for compute capability 8.0 and 9.0, prints registers and spills of each, and fails if one
# spills more than SPILL_BYTES (0 by default). Needs no GPU and no toolkit: without an nvcc it takes NVIDIA's compiler
# from PyPI, 0.3 GB, into a folder that is kept.
#   tests/gpu/compile.sh [FOLDER FOR THE COMPILER]
set -euo pipefail
cd "$(dirname "$0")/../.."
bound=${SPILL_BYTES:-0}
nvcc=${NVCC:-$(command -v nvcc || true)}
if [ -z "$nvcc" ]; then
  wheels=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/laptop-diff/nvcc}
  nvcc=$wheels/nvidia/cu13/bin/nvcc
  [ -x "$nvcc" ] || python3 -m pip install --quiet --no-deps --no-compile --target "$wheels" nvidia-cuda-nvcc==13.0.88 \
    nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85
fi
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
for arch in sm_80 sm_90; do
  "$nvcc" -std=c++17 -O3 -arch=$arch -Xptxas -v -Werror all-warnings -cubin src/nn/cuda/kernels.cu -o "$out/$arch.cubin" \
    2>"$out/$arch" || { cat "$out/$arch" >&2; exit 1; }
  awk -v arch=$arch '
    /Function properties for/ { kernel = $NF }
    /spill stores/ { for (i = 2; i <= NF; i++) if ($i == "spill" && $(i + 1) ~ /^stores/) spills = $(i - 2) }
    /Used [0-9]+ registers/ { for (i = 2; i <= NF; i++) if ($i ~ /^registers/) print arch, kernel, $(i - 1), spills }
  ' "$out/$arch"
done | sort -k2,2 -k1,1 | awk -v bound="$bound" '
  BEGIN { printf "%-8s %-36s %9s %12s\n", "card", "kernel", "registers", "spill bytes" }
  { printf "%-8s %-36s %9d %12d\n", $1, $2, $3, $4; if ($4 > bound) worse = worse "\n  " $2 " on " $1 ": " $4 }
  END {
    if (NR == 0) { print "no kernel was compiled"; exit 1 }
    if (worse != "") { print "more than " bound " bytes spilled:" worse; exit 1 }
    print NR " compilations, none spills more than " bound " bytes"
  }'
