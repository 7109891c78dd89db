#!/usr/bin/env bash
# Problem 1, VAE: draw 32 generated faces.  bash ./hw3_p1.sh OUTPUT.png|OUTPUT.jpg
set -euo pipefail

if [ $# -ne 1 ]; then
    echo "usage: bash ${0##*/} OUTPUT.png|OUTPUT.jpg" >&2
    exit 2
fi
here=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
weights=$here/p1_vae/weights/vae.pth

if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2> /dev/null; then
    echo "error: this needs Python 3.10 or newer under the name python3" >&2
    exit 1
fi
# the url is empty if the weights are whole; else they are downloaded, and installed only if their SHA-256 is right
url=$(python3 "$here/common/weights.py" url "$weights")
if [ -n "$url" ]; then
    wget -q --tries=2 --timeout=20 -O - -- "$url" | python3 "$here/common/weights.py" install "$weights"
fi
exec python3 "$here/p1_vae/inference.py" --output="$1"
