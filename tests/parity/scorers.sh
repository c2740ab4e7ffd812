#!/usr/bin/env bash
# Compares scorers of the real shapes with the packages of their authors, with random weights in f32.
#
#   tests/parity/scorers.sh [CASE...]     dinov2, inception, pick-score, image-reward, open-clip; all unless given
#
# PYTHON names a Python with tests/diffusers/requirements.txt (target/venv/bin/python unless set). The packages of the authors are
# installed with pip beside it, under target/parity: two environments, because image-reward needs an old transformers. Scorers
# are made one at a time, at most 4 GB on disk and 12 GB in memory. Prints the relative errors and fails above 1e-4.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-target/venv/bin/python}
cases=(dinov2 inception pick-score image-reward open-clip)
if (($#)); then cases=("$@"); fi

# An environment that sees the packages of the Python above behind its own.
environment() {
    local place=target/parity/$1
    shift
    [[ -x $place/bin/python ]] && return
    "$python" -m venv "$place"
    "$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > "$("$place/bin/python" -c \
        'import sysconfig; print(sysconfig.get_path("purelib"))')/behind.pth"
    "$place/bin/pip" install --quiet "$@"
}

mkdir -p target/parity
environment scorers --no-deps torchvision==0.26.0 pytorch-fid==0.3.0 open_clip_torch==3.3.0 timm==1.0.31 ftfy wcwidth
environment reward --no-deps torchvision==0.26.0 image-reward==1.5 timm==0.6.13 transformers==4.36.2 tokenizers==0.15.2 \
    huggingface_hub==0.20.3

folder=$PWD/target/parity/scorer
trap 'rm -rf "$folder"' EXIT
cargo test --release --test it --no-run
failed=0
for case in "${cases[@]}"; do
    rm -rf "$folder"
    mkdir "$folder"
    printf '\n== %s\n' "$case"
    name=scorers_of_real_shapes
    case $case in
        open-clip)
            name=features_of_a_real_shape
            target/parity/scorers/bin/python tests/golden_open_clip/make.py --shape ViT-H-14 "$folder" ;;
        image-reward) target/parity/reward/bin/python tests/golden_scorers/make.py --real "$folder" "$case" ;;
        *) target/parity/scorers/bin/python tests/golden_scorers/make.py --real "$folder" "$case" ;;
    esac
    LAPTOP_DIFF_TEST_SCORERS=$folder LAPTOP_DIFF_TEST_OPEN_CLIP=$folder \
        cargo test --quiet --release --test it -- --ignored --nocapture "$name" || failed=1
done
exit "$failed"
