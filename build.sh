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
  ray [PYTEST ...]   set up, then run the tests that need Ray, which is fetched for them and in no other environment
  check              set up, then lint, format check and type check
  sanitize [SECONDS [SEED]]
                     run the C under AddressSanitizer and UndefinedBehaviorSanitizer with bytes changed at random, by itself
                     and then as Python calls it, for 600 s each
  lock               write requirements/*.lock anew from pyproject.toml
  wheel [DIRECTORY]  build the wheel for this platform, with everything compiled in it; into dist/
  image [--platform linux/arm64] [--no-cache] [--arrow]
                     build the container image with docker, podman or buildah, whichever is there; --arrow with pyarrow, for
                     `score`, `train` and Parquet bodies: 140 MB more
  push REGISTRY/REPOSITORY [--create] [--arrow]
                     log in to ECR, push the image, print its digest; --create makes the repository
  sbom               write container/image/sbom.cdx.json anew from the locks and the jar
  classes            write container/image/classes.txt anew: what Java loads, for its class archive
  audit              ask PyPI's advisories about the locked packages

PYTHON=python3.12 ./build.sh setup chooses the interpreter (3.11 to 3.14).
BUILDER=podman, BASE_IMAGE=..., IMAGE_TAG=..., RUN_AS=0:0 ./build.sh image choose the builder, the base, the tag, the user.
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

# Stamps hold checksums of what the environment was made from, so that a second call costs nothing, a change of a setting in
# pyproject.toml only reinstalls this project, in place, and a change of what is compiled only compiles.
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
    echo "$wanted" >.venv/.installed
  fi
  wanted=$({ command -v javac "${CC:-cc}" gcc clang; cat container/launch/plugin/*.{sh,java} handler/build.sh handler/*.[ch] handler/*/*.[ch]; } | sha256sum)
  if [ "$(cat .venv/.compiled 2>/dev/null)" != "$wanted" ]; then
    container/launch/plugin/build.sh .venv/lib/python*/site-packages/mms/frontend/model-server.jar container/launch/plugin/classes
    if command -v "${CC:-cc}" gcc clang >/dev/null; then PYTHON=.venv/bin/python handler/build.sh handler; else compile_with_zig; fi
    place_netty_library .venv/lib/python*/site-packages/mms/frontend
    # Where no compiler could be had, the next setup asks again.
    [ ! -e handler/libhandler.so ] || echo "$wanted" >.venv/.compiled
  fi
}

# On a machine without a C compiler: one from PyPI, 100 MB to fetch, which is gone again when it has compiled.
compile_with_zig() (
  tool=$(mktemp -d)
  trap 'rm -rf "$tool"' EXIT
  say "no C compiler: fetching one from PyPI (ziglang), for once"
  if install --require-hashes --only-binary :all: --target "$tool/packages" -r requirements/compiler.lock; then
    # With a plain target, else it compiles for this very processor.
    printf '#!/bin/sh\nexec "%s" -m ziglang cc -target %s-linux-gnu "$@"\n' "$PWD/.venv/bin/python" "$(uname -m)" >"$tool/cc"
    chmod +x "$tool/cc"
    export PYTHONPATH=$tool/packages ZIG_GLOBAL_CACHE_DIR=$tool/cache ZIG_LOCAL_CACHE_DIR=$tool/cache CC=$tool/cc
  fi
  PYTHON=.venv/bin/python handler/build.sh handler # which says what it means, where there still is none
)

# Netty looks beside the jar before it unpacks its library into the scratch directory, which may be mounted noexec. As in
# container/image/install.sh.
place_netty_library() {
  .venv/bin/python - "$1" <<'EXTRACT'
import os, pathlib, platform, sys, zipfile
name = {"x86_64": "x86_64", "aarch64": "aarch_64"}[platform.machine()]
folder = pathlib.Path(sys.argv[1])
with zipfile.ZipFile(folder / "model-server.jar") as jar:
    library = f"libnetty_transport_native_epoll_{name}.so"
    part = folder / f"{library}.part"
    part.write_bytes(jar.read(f"META-INF/native/{library}"))
    os.replace(part, folder / library)  # a JVM that has mapped the one before must not see it change
EXTRACT
}

# The lock names every package, so pip has nothing to resolve; -qq keeps it silent but for errors.
install() {
  .venv/bin/python -m pip install -qq --disable-pip-version-check --no-deps "$@"
}

# Ray is 70 MB to fetch and 260 MB of disk, which few want: its tests have an environment of their own that stands on .venv,
# and is gone afterwards. They are for a machine that is not busy: Ray gives its own parts 15 s to start.
ray() (
  beside=$(mktemp -d)
  trap 'rm -rf "$beside"' EXIT
  .venv/bin/python -m venv --without-pip "$beside"
  echo "$PWD"/.venv/lib/python*/site-packages >"$(echo "$beside"/lib/python*/site-packages)/venv.pth"
  "$beside/bin/python" -m pip install -qq --disable-pip-version-check --no-deps --require-hashes -r requirements/ray.lock
  "$beside/bin/python" -m pytest tests/container/operate/train/test_on_ray.py tests/container/operate/batch/test_on_ray.py "$@"
)

# The C by itself, and then all of it as Python calls it, for as long each. The library lies in a copy of handler/, so that the
# tree keeps its own. Python's own allocator would hand out memory that the sanitizers know nothing of.
sanitize() {
  local made watched
  made=$(mktemp -d)
  # shellcheck disable=SC2064  # its name is known now, and gone when the trap runs
  trap "rm -rf '$made'" EXIT
  watched="${CC:-cc} -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all"
  $watched -std=c11 -O1 -ffp-contract=off -Wall -Wextra -Werror -o "$made/sanitized" handler/offer.c handler/forest/walk.c handler/forest/groups.c \
    handler/forest/brief.c handler/forest/pack.c handler/importer/trees.c handler/importer/checks.c handler/payload/numbers.c \
    handler/payload/jsonrows.c handler/payload/libsvm.c handler/payload/array.c handler/telemetry/json.c \
    handler/loading/checksum.c tests/handler/sanitized.c -lm
  "$made/sanitized" "$@"
  printf '#!/bin/sh\nexec %s "$@"\n' "$watched" >"$made/cc"
  chmod +x "$made/cc"
  cp -r handler "$made"
  CC=$made/cc PYTHON=.venv/bin/python handler/build.sh "$made/handler"
  LD_PRELOAD=$("${CC:-cc}" -print-file-name=libasan.so) ASAN_OPTIONS=detect_leaks=0 PYTHONMALLOC=malloc PYTHONSAFEPATH=1 \
    PYTHONPATH=$made:$PWD .venv/bin/python -m tests.handler.sanitized "$@"
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
  # The image: what serves and nothing else. Left out is what only MMS's Python side imports, and that never runs here
  # (of the package we use the jar): it builds model archives and decodes images. tests/image/ imports what is left.
  local left_out=() package
  for package in model-archiver enum-compat future pillow; do left_out+=(--no-emit-package "$package"); done
  "${compile[@]}" "${left_out[@]}" --constraints requirements/runtime.lock -o requirements/image.lock
  "${compile[@]}" "${left_out[@]}" --extra arrow --constraints requirements/dev.lock -o requirements/image-arrow.lock
  # What `mme score --on ray` needs on each machine of a cluster. Not in dev.lock: 70 MB that few want.
  "${compile[@]}" --extra ray --constraints requirements/dev.lock -o requirements/ray.lock
  # What turns sources into wheels inside the image's first stage: ours, and those of packages published as source only.
  printf '%s\n' hatchling setuptools |
    "$tool/venv/bin/uv" pip compile - --quiet --python-version 3.11 --universal --generate-hashes --no-header \
      --no-annotate --constraints requirements/dev.lock -o requirements/build.lock
  "$tool/venv/bin/uv" pip compile --group pyproject.toml:compiler --quiet --python-version 3.11 --universal --generate-hashes \
    --no-header --no-annotate -o requirements/compiler.lock
}

# Files in it have one date, so the same sources and compilers make the same bytes.
wheel() (
  directory=${1:-dist}
  setup
  if [ ! -e container/launch/plugin/classes/FrontServer.class ] || [ ! -e handler/libhandler.so ]; then
    say "build.sh: a wheel has everything compiled in it; install a JDK (javac, 17 or later) and run this again"
    exit 1
  fi
  made=$(mktemp -d)
  trap 'rm -rf "$made"' EXIT
  HATCH_QUIET=1 SOURCE_DATE_EPOCH=$(source_date) .venv/bin/python -m hatchling build --target wheel --directory "$made" >&2
  mkdir -p "$directory"
  built=$directory/$(ls "$made")
  mv "$made"/*.whl "$built"
  echo "built     $built"
  echo "next      pip install $built && mme serve --models s3://bucket/prefix/"
)

# Docker's command may be there without its engine.
choose_builder() {
  if [ -n "${BUILDER:-}" ]; then echo "$BUILDER"; return; fi
  if docker info >/dev/null 2>&1; then echo docker; return; fi
  for candidate in podman buildah; do
    if command -v "$candidate" >/dev/null; then echo "$candidate"; return; fi
  done
  say "build.sh: no docker with a running engine, no podman and no buildah; install one or set BUILDER"
  exit 1
}

version() { sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml; }

revision() {
  local commit
  commit=$(git rev-parse HEAD 2>/dev/null) || { echo unknown; return; }
  if [ -n "$(git status --porcelain)" ]; then commit+=-dirty; fi
  echo "$commit"
}

# 0.1.0-1a2b3c4d5e6f, and -dirty when the tree is.
image_tag() {
  if [ -n "${IMAGE_TAG:-}" ]; then echo "$IMAGE_TAG"; return; fi
  local commit
  commit=$(revision)
  echo "multi-model-endpoint:$(version)-$(echo "$commit" | sed -E 's/^([0-9a-f]{12})[0-9a-f]*/\1/')"
}

# Files in the image carry one date that never moves, as in Nix and Bazel: what has not changed keeps its digest. When the
# image was made, and of what, its labels say.
source_date() { echo "${SOURCE_DATE_EPOCH:-1577836800}"; } # 2020-01-01

image() {
  local options=() builder tag date base created arguments flavour="" lock=image.lock
  while [ $# -gt 0 ]; do
    case "$1" in
      --platform) options+=(--platform "$2"); shift 2 ;;
      --no-cache) options+=(--no-cache); shift ;;
      --arrow) flavour=-arrow; lock=image-arrow.lock; shift ;;
      *) usage >&2; exit 2 ;;
    esac
  done
  builder=$(choose_builder)
  tag=$(image_tag)$flavour
  date=$(source_date)
  base=${BASE_IMAGE:-python:3.11-slim-bookworm}
  created=$(git log -1 --format=%cI 2>/dev/null) || created=1970-01-01T00:00:00Z
  arguments=("${options[@]}" --tag "$tag" --tag "${tag%:*}:latest$flavour" --build-arg "BASE_IMAGE=$base" --build-arg "LOCK=$lock" --build-arg "SOURCE_DATE_EPOCH=$date"
    --build-arg "VERSION=$(version)" --build-arg "REVISION=$(revision)" --build-arg "CREATED=$created")
  [ -z "${RUN_AS:-}" ] || arguments+=(--build-arg "RUN_AS=$RUN_AS")
  say "building $tag with $builder"
  case "$builder" in
    docker) SOURCE_DATE_EPOCH=$date docker buildx build --provenance=false --load "${arguments[@]}" . >&2 ;;
    *)
      # The docker format is the one that has HEALTHCHECK. A base without a registry is local by its name.
      local never=--pull-never
      [ "$builder" = buildah ] || never=--pull=never
      case "$base" in localhost/*) arguments+=("$never") ;; esac
      "$builder" build --layers --format docker --timestamp "$date" "${arguments[@]}" . >&2
      ;;
  esac
  echo "built     $tag"
  echo "next      ./build.sh push ACCOUNT.dkr.ecr.REGION.amazonaws.com/multi-model-endpoint${flavour:+ --arrow}"
}

# The password goes from ECR to the builder through a pipe, and what it is kept in goes when this ends.
push() {
  local repository="" create=() builder tag full registry keep options flavour=""
  while [ $# -gt 0 ]; do
    case "$1" in
      --create) create=(make); shift ;;
      --arrow) flavour=-arrow; shift ;;
      -*) usage >&2; exit 2 ;;
      *) repository=$1; shift ;;
    esac
  done
  case "$repository" in */*) ;; *) usage >&2; exit 2 ;; esac
  builder=$(choose_builder)
  tag=$(image_tag)$flavour
  full=$repository:${tag##*:}
  registry=${repository%%/*}
  keep=$(mktemp -d)
  # shellcheck disable=SC2064  # its name is known now, and gone when the trap runs
  trap "rm -rf '$keep'" EXIT
  case "$registry" in
    *.dkr.ecr*.amazonaws.com*)
      setup
      [ ${#create[@]} -eq 0 ] || create=("${repository#*/}")
      .venv/bin/python -m container.image.ecr "$registry" "${create[@]}" >"$keep/password"
      ;;
  esac
  if [ "$builder" = docker ]; then
    [ ! -s "$keep/password" ] || docker login --username AWS --password-stdin "$registry" <"$keep/password" >&2
    docker tag "$tag" "$full"
    docker push "$full" | tee "$keep/log" >&2
    sed -n 's/.*digest: \(sha256:[0-9a-f]*\).*/\1/p' "$keep/log" >"$keep/digest"
    [ ! -s "$keep/password" ] || docker logout "$registry" >&2
  else
    options=()
    if [ -s "$keep/password" ]; then
      options=(--authfile "$keep/auth.json")
      "$builder" login "${options[@]}" --username AWS --password-stdin "$registry" <"$keep/password" >&2
    fi
    # As docker does: a registry on this machine needs no certificate.
    case "$registry" in localhost:* | 127.0.0.1:*) options+=(--tls-verify=false) ;; esac
    "$builder" push "${options[@]}" --digestfile "$keep/digest" "$tag" "docker://$full" >&2
  fi
  echo "pushed    $full"
  echo "digest    $(cat "$keep/digest")"
  echo "next      create_model with the image $repository@$(cat "$keep/digest")"
}

# PyPI's own advisories, through PyPA's tool in an environment of its own. Needs PyPI. The jars are judged in
# container/image/vulnerabilities.toml.
audit() {
  local tool
  tool=$(mktemp -d)
  trap 'rm -rf "$tool"' RETURN
  "$(choose_python)" -m venv "$tool/venv"
  "$tool/venv/bin/python" -m pip install --quiet --disable-pip-version-check pip-audit
  "$tool/venv/bin/pip-audit" --disable-pip --require-hashes --requirement requirements/image-arrow.lock # all of image.lock is in it
}

command=${1:-}
[ $# -gt 0 ] && shift
case "$command" in
  setup) setup ;;
  demo) setup; exec .venv/bin/mme demo "$@" ;;
  test) setup; exec .venv/bin/python -m pytest "$@" ;;
  ray) setup; ray "$@" ;;
  check)
    setup
    .venv/bin/ruff check .
    .venv/bin/ruff format --check .
    .venv/bin/mypy
    ;;
  sanitize) setup; sanitize "$@" ;;
  lock) lock ;;
  wheel) wheel "$@" ;;
  image) image "$@" ;;
  push) push "$@" ;;
  sbom) setup; exec .venv/bin/python -m container.image.sbom ;;
  audit) audit ;;
  classes) setup; exec .venv/bin/python -m container.image.classes ;;
  "" | -h | --help | help) usage ;;
  *) usage >&2; exit 2 ;;
esac
