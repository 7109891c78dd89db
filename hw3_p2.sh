#!/usr/bin/env bash
# Problem 2, GAN: draw 32 generated faces.  bash ./hw3_p2.sh OUTPUT.png|OUTPUT.jpg
set -euo pipefail

if [ $# -ne 1 ]; then echo "usage: bash ${0##*/} OUTPUT.png|OUTPUT.jpg" >&2; exit 2; fi
here=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
bash "$here/common/fetch_weights.sh" p2_gan/weights/gan.pth
exec python3 "$here/p2_gan/inference.py" --output="$1"
