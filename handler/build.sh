#!/bin/sh
# Compiles the walker and the readers of numbers, arrays and trees where there is a C compiler, and leaves none where there is none:
#   build.sh OUTPUT_DIRECTORY
# Where Python's headers are, too, a short body is scored and a long answer written in one call (forest/row.c), a call written down in
# one (telemetry/sheet.c), models read from disk several in one (loading/kept.c), long files in one (files.c), and a booster's UBJSON
# (importer/ubjson.c); PYTHON names the interpreter.
# Without them libxgboost scores all models and Python reads all bodies: the same answers, more slowly and from more memory.
set -eu
here=$(dirname "$0")
headers=$("${PYTHON:-python3}" -c 'import sysconfig; print(sysconfig.get_path("include"))' 2>/dev/null || true)
modules=""
[ ! -f "$headers/Python.h" ] || modules="$here/forest/row.c $here/telemetry/sheet.c $here/loading/kept.c $here/files.c $here/importer/ubjson.c"
for compiler in "${CC:-cc}" gcc clang; do
  if command -v "$compiler" >/dev/null 2>&1; then
    mkdir -p "$1"
    # No contraction: a multiply and an add are rounded one after the other, as in libxgboost.
    # shellcheck disable=SC2086  # `modules` is five files or none
    "$compiler" -std=c11 -O3 -fPIC -shared -s -ffp-contract=off -Wall -Wextra -Werror -o "$1/libhandler.so.part" \
      "$here/offer.c" "$here/forest/walk.c" "$here/forest/groups.c" "$here/forest/brief.c" "$here/forest/pack.c" "$here/importer/trees.c" \
      "$here/importer/checks.c" "$here/payload/numbers.c" "$here/payload/jsonrows.c" "$here/payload/libsvm.c" \
      "$here/payload/array.c" "$here/telemetry/json.c" "$here/loading/checksum.c" $modules -isystem "$headers" -lm
    mv "$1/libhandler.so.part" "$1/libhandler.so"
    exit 0
  fi
done
rm -f "$1/libhandler.so" # it may be of other sources
echo "no C compiler: models are scored by libxgboost, more slowly and from more memory" >&2
