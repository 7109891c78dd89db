# For hw3_p1.sh and hw3_p2.sh: 32 faces that PROBLEM's model generates.
# Sourced with the arguments  PROBLEM OUTPUT.png;  `here` is the repository's folder.

if [ $# -ne 2 ]; then
    echo "usage: bash ${0##*/} OUTPUT.png|OUTPUT.jpg" >&2
    exit 2
fi

. "$here/common/weights.sh"
weights=$(weights_file "$1/weights/${1#*_}.pth")
exec python3 "$here/$1/inference.py" --output "$2" --weights "$weights"
