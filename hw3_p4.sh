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
weights=$here/p4_uda/weights/${source}_$2.pth

if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2> /dev/null; then
    echo "error: this needs Python 3.10 or newer under the name python3" >&2
    exit 1
fi
# the url is empty if the weights are whole; else they are downloaded, and installed only if their SHA-256 is right
url=$(python3 "$here/common/weights.py" url "$weights")
if [ -n "$url" ]; then
    wget -q --tries=2 --timeout=20 -O - -- "$url" | python3 "$here/common/weights.py" install "$weights"
fi
exec python3 "$here/p4_uda/inference.py" --img-dir="$1" --target="$2" --output="$3"
