#!/usr/bin/env bash
# Problem 4, AdaMatch: label a folder of digits.  bash ./hw3_p4.sh TEST_IMAGE_DIR mnistm|svhn|usps OUTPUT.csv
set -euo pipefail

if [ $# -ne 3 ]; then
    echo "usage: bash ${0##*/} TEST_IMAGE_DIR mnistm|svhn|usps OUTPUT.csv" >&2
    exit 2
fi
case $2 in
    mnistm) source=usps ;;
    svhn) source=mnistm ;;
    usps) source=svhn ;;
    *) echo "error: unknown target '$2': use mnistm, svhn or usps" >&2; exit 2 ;;
esac
here=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
weights=p4_uda/weights/${source}_$2.pth

if [ ! -s "$here/$weights" ]; then  # absent or empty: from HW3_WEIGHTS_URL, else from the origin of this very clone
    origin=$(git --git-dir="$here/.git" config remote.origin.url 2> /dev/null || true)
    commit=$(git --git-dir="$here/.git" rev-parse HEAD 2> /dev/null || true)
    origin=${origin%/} origin=${origin%.git}
    if [[ $origin =~ ^(ssh://)?git@([^:/]+)[:/](.+) ]]; then origin=https://${BASH_REMATCH[2]}/${BASH_REMATCH[3]}; fi
    url=${HW3_WEIGHTS_URL:-$origin/raw/$commit}/$weights
    if said=$(wget -nv --tries=2 --timeout=20 -O "$here/$weights" -- "$url" 2>&1); then said="another file came"; fi
    if ! { [[ $(< "$here/${weights%/*}/SHA256SUMS") =~ ([0-9a-f]{64})\ \ "${weights##*/}" ]] &&
           sha256sum --check --status <<< "${BASH_REMATCH[1]}  $here/$weights" 2> /dev/null; }; then
        [ ! -e "$here/$weights" ] || : > "$here/$weights"
        echo "error: $weights is missing, its download failed (${said##*$'\n'}): set HW3_WEIGHTS_URL to where it is" >&2
        exit 1
    fi
fi
exec python3 "$here/p4_uda/inference.py" --img-dir="$1" --target="$2" --output="$3"
