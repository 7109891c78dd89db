#!/usr/bin/env bash
# Problem 4, AdaMatch: bash ./hw3_p4.sh TEST_IMAGE_DIR TARGET OUTPUT.csv    with TARGET mnistm, svhn or usps
set -euo pipefail

here=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
. "$here/common/digits.sh" p4_uda "$@"
