# Sourced by the wrappers. `weights_file FOLDER/NAME.pth` prints the path of the whole file under the clone, which it
# downloads first if it is missing or damaged. HW3_WEIGHTS_URL names another place that holds FOLDER/NAME.pth.
weights_file() {
    if python3 "$here/common/weights.py" check "$here/$1"; then
        return
    fi
    local base=${HW3_WEIGHTS_URL:-} origin
    if [ -z "$base" ] && origin=$(git -C "$here" config --get remote.origin.url); then
        # git@github.com:USER/REPOSITORY.git and https://github.com/USER/REPOSITORY.git alike
        origin=${origin%.git}
        origin=${origin/#git@github.com:/https://github.com/}
        base=$origin/raw/$(git -C "$here" rev-parse HEAD)
    fi
    echo "downloading $1 from ${base:-nowhere: set HW3_WEIGHTS_URL}" >&2
    if ! wget -q --tries=2 --timeout=20 -O - "$base/$1" | python3 "$here/common/weights.py" install "$here/$1"; then
        echo "error: $1 is missing or damaged, and $base/$1 gave no whole copy: check the network, or set HW3_WEIGHTS_URL to a folder on the web that holds it" >&2
        return 1
    fi
}
