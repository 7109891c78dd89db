#!/usr/bin/env bash
# Build the report: bash report/build.sh STUDENT_ID writes hw3_STUDENT_ID.pdf into the repository's root.
# Needs pdflatex, and what `python3 report/figures.py --data-dir hw3_data` writes.
set -euo pipefail

if [[ ! ${1:-} =~ ^[A-Za-z0-9_]+$ || $# -ne 1 ]]; then
    echo "usage: bash report/build.sh STUDENT_ID (letters, digits and _)" >&2
    exit 2
fi
cd "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")"
if ! command -v pdflatex > /dev/null; then
    echo "error: no pdflatex: install texlive-latex-recommended, texlive-fonts-recommended and lmodern" >&2
    exit 1
fi
if [ ! -e figures/tables.tex ]; then
    echo "error: no figures/tables.tex: run python3 report/figures.py --data-dir hw3_data first" >&2
    exit 1
fi
build=$(mktemp -d)
trap 'rm -r -- "$build"' EXIT
for pass in 1 2; do  # the second knows the references
    if ! SOURCE_DATE_EPOCH=0 FORCE_SOURCE_DATE=1 pdflatex -interaction=nonstopmode -halt-on-error \
        -output-directory "$build" "\\def\\studentid{\\detokenize{$1}}\\input{report}" > "$build/output"; then
        grep -A3 '^!' "$build/output" >&2 || tail -n 5 "$build/output" >&2
        exit 1
    fi
done
mv -- "$build/report.pdf" "../hw3_$1.pdf"
echo "wrote ${PWD%/*}/hw3_$1.pdf"
