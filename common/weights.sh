# Sourced by the wrappers, which set $here to the clone's folder. `weights_file FOLDER/NAME.pth` prints the path of that file,
# downloaded first where it is missing or damaged. HW3_WEIGHTS_URL names a place on the web that holds FOLDER/NAME.pth.
weights_file() {
    if python3 "$here/common/weights.py" check "$here/$1"; then
        return
    fi
    local base=${HW3_WEIGHTS_URL:-} origin
    if [ -z "$base" ] && origin=$(git -C "$here" config --get remote.origin.url); then
        # git@github.com:USER/REPOSITORY.git and https://github.com/USER/REPOSITORY.git alike
        origin=${origin%.git}
        base=${origin/#git@github.com:/https://github.com/}/raw/$(git -C "$here" rev-parse HEAD)
    fi
    if ! wget -q --tries=2 --timeout=20 -O - "$base/$1" | python3 "$here/common/weights.py" install "$here/$1"; then
        echo "error: $1 is missing or damaged, and no whole copy came from '$base':" \
            "check the network, or set HW3_WEIGHTS_URL to an address that holds it" >&2
        return 1
    fi
}
