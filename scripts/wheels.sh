#!/usr/bin/env bash
# Builds the wheels of fast and fast-playground into dist/, or into the given folder.
set -euo pipefail
out=$(realpath -m "${1:-$(dirname "$0")/../dist}")
cd "$(dirname "$0")/.."
clean() { rm -rf playground/build; } # setuptools would put modules of an earlier build into the wheel
trap clean EXIT
clean
.venv/bin/python -m pip wheel -q --disable-pip-version-check --no-deps --no-build-isolation -w "$out" . ./playground
