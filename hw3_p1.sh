#!/usr/bin/env bash
# Problem 1, VAE: draw 32 generated faces.  bash ./hw3_p1.sh OUTPUT.png|OUTPUT.jpg
set -euo pipefail

if [ $# -ne 1 ]; then echo "usage: bash ${0##*/} OUTPUT.png|OUTPUT.jpg" >&2; exit 2; fi
here=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
bash "$here/common/fetch_weights.sh" p1_vae/weights/vae.pth
exec python3 "$here/p1_vae/inference.py" --output="$1"
