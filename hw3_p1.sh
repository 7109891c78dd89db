#!/usr/bin/env bash
# Problem 1, VAE: bash ./hw3_p1.sh OUTPUT.png
set -euo pipefail

here=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
. "$here/common/faces.sh" p1_vae "$@"
