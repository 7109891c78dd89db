# For hw3_p3.sh and hw3_p4.sh: label a folder of digits with the model that PROBLEM ships for TARGET.
# Sourced with the arguments  PROBLEM TEST_IMAGE_DIR TARGET OUTPUT.csv;  `here` is the repository's folder.

if [ $# -ne 4 ]; then
    echo "usage: bash ${0##*/} TEST_IMAGE_DIR mnistm|svhn|usps OUTPUT.csv" >&2
    exit 2
fi
case $3 in
    mnistm) source=usps ;;
    svhn) source=mnistm ;;
    usps) source=svhn ;;
    *) echo "error: unknown target '$3': use mnistm, svhn or usps" >&2; exit 2 ;;
esac

. "$here/common/weights.sh"
weights=$(weights_file "$1/weights/${source}_$3.pth")
exec python3 "$here/$1/inference.py" --img-dir "$2" --target "$3" --output "$4" --weights "$weights"
