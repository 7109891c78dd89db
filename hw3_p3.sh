#!/usr/bin/env bash
# Problem 3, DANN: bash ./hw3_p3.sh TEST_IMAGE_DIR TARGET OUTPUT.csv    with TARGET mnistm, svhn or usps
set -euo pipefail

here=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
. "$here/common/digits.sh" p3_dann "$@"
