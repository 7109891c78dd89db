#!/usr/bin/env bash
# Problem 2, GAN: bash ./hw3_p2.sh OUTPUT.png
set -euo pipefail

here=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
. "$here/common/faces.sh" p2_gan "$@"
