#!/usr/bin/env bash
# Download a weights file that is absent or empty.  bash common/fetch_weights.sh p1_vae/weights/vae.pth
# It comes from HW3_WEIGHTS_URL, or else from the origin of this very clone. No address is printed: it may hold a token.
set -euo pipefail

weights=$1
root=$(dirname -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")")
file=$root/$weights
if [ -s "$file" ]; then exit 0; fi

origin=$(git --git-dir="$root/.git" config remote.origin.url 2> /dev/null || true)
commit=$(git --git-dir="$root/.git" rev-parse HEAD 2> /dev/null || true)
origin=${origin%/}
origin=${origin%.git}
if [[ $origin =~ ^(ssh://)?git@([^:/]+)[:/](.+) ]]; then  # git@HOST:USER/REPOSITORY
    origin=https://${BASH_REMATCH[2]}/${BASH_REMATCH[3]}
fi
url=${HW3_WEIGHTS_URL:-$origin/raw/$commit}/$weights

reason=$(wget -nv --tries=2 --timeout=20 -O "$file" -- "$url" 2>&1) && reason="another file came"
if [ -s "$file" ]; then
    sum=$(sha256sum < "$file")  # SUM, two spaces, a dash
    if grep -qxF "${sum%-}${file##*/}" "${file%/*}/SHA256SUMS"; then exit 0; fi
    : > "$file"
fi
echo "error: $weights is missing, its download failed (${reason##*$'\n'}): set HW3_WEIGHTS_URL to where it is" >&2
exit 1
