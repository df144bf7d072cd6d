#!/usr/bin/env bash
# One door to everything a person does with this repository. `./build.sh` alone lists the commands.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() {
  cat <<'EOF'
usage: ./build.sh COMMAND [ARGUMENT ...]

  setup              make .venv with everything in it, from the hash-locked requirements
  demo [--once]      set up, then serve ten cities' house prices and call them
  test [PYTEST ...]  set up, then run the tests
  check              set up, then lint, format check and type check
  lock               write requirements/*.lock anew from pyproject.toml

PYTHON=python3.12 ./build.sh setup chooses the interpreter (3.11 to 3.14).
EOF
}

say() { printf '%s\n' "$*" >&2; }

choose_python() {
  if [ -n "${PYTHON:-}" ]; then echo "$PYTHON"; return; fi
  for candidate in python3.11 python3.12 python3.13 python3.14 python3; do
    if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null; then
      echo "$candidate"; return
    fi
  done
  say "build.sh: no Python 3.11 to 3.14 with venv found; install one or set PYTHON"
  exit 1
}

# Two stamps hold checksums of what the environment was made from, so that a second call costs nothing and a change of a
# setting in pyproject.toml only reinstalls this project, in place.
setup() {
  local wanted python
  wanted=$(sha256sum <requirements/dev.lock)
  if [ "$(cat .venv/.locked 2>/dev/null)" != "$wanted" ]; then
    python=$(choose_python)
    say "setting up .venv with $("$python" --version) (a minute or two, once)"
    rm -rf .venv
    "$python" -m venv .venv
    install --require-hashes -r requirements/dev.lock
    echo "$wanted" >.venv/.locked
  fi
  wanted=$(sha256sum <pyproject.toml)
  if [ "$(cat .venv/.installed 2>/dev/null)" != "$wanted" ]; then
    install --no-build-isolation --editable .
    container/launch/plugin/build.sh .venv/lib/python*/site-packages/mms/frontend/model-server.jar container/launch/plugin/classes
    echo "$wanted" >.venv/.installed
  fi
}

# The lock names every package, so pip has nothing to resolve; -qq keeps it silent but for errors.
install() {
  .venv/bin/python -m pip install -qq --disable-pip-version-check --no-deps "$@"
}

lock() {
  local tool
  tool=$(mktemp -d)
  trap 'rm -rf "$tool"' RETURN
  "$(choose_python)" -m venv "$tool/venv"
  "$tool/venv/bin/python" -m pip install -qq --disable-pip-version-check uv
  local compile=("$tool/venv/bin/uv" pip compile pyproject.toml --quiet --python-version 3.11 --universal
    --generate-hashes --no-header --no-annotate --no-emit-package multi-model-endpoint)
  "${compile[@]}" -o requirements/runtime.lock
  "${compile[@]}" --extra dev --extra arrow --extra bench -o requirements/dev.lock
}

command=${1:-}
[ $# -gt 0 ] && shift
case "$command" in
  setup) setup ;;
  demo) setup; exec .venv/bin/mme demo "$@" ;;
  test) setup; exec .venv/bin/python -m pytest "$@" ;;
  check)
    setup
    .venv/bin/ruff check .
    .venv/bin/ruff format --check .
    .venv/bin/mypy
    ;;
  lock) lock ;;
  "" | -h | --help | help) usage ;;
  *) usage >&2; exit 2 ;;
esac
