#!/usr/bin/env bash
# Problem 4, AdaMatch: label a folder of digits.  bash ./hw3_p4.sh TEST_IMAGE_DIR mnistm|svhn|usps OUTPUT.csv
set -euo pipefail

if [ $# -ne 3 ]; then echo "usage: bash ${0##*/} TEST_IMAGE_DIR mnistm|svhn|usps OUTPUT.csv" >&2; exit 2; fi
case $2 in
    mnistm) source=usps ;;
    svhn) source=mnistm ;;
    usps) source=svhn ;;
    *) echo "error: unknown target '$2': use mnistm, svhn or usps" >&2; exit 2 ;;
esac
here=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
bash "$here/common/fetch_weights.sh" "p4_uda/weights/${source}_$2.pth"
exec python3 "$here/p4_uda/inference.py" --img-dir="$1" --target="$2" --output="$3"
