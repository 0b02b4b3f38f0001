#!/usr/bin/env bash
# Writes the pinned, hashed requirement files that scripts/setup.sh installs from.
set -euo pipefail
cd "$(dirname "$0")/.."
.venv/bin/python -m pip install -q uv
compile() { .venv/bin/uv pip compile -q --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --python-version 3.11 --python-platform linux "$@"; }
# the playground's own requirements; Fast itself is left out, because no index has it
playground=build/lock/pyproject.toml
mkdir -p "$(dirname $playground)"
sed '/^    "fast==/d' playground/pyproject.toml >$playground
compile pyproject.toml -o requirements/run.txt
compile pyproject.toml $playground -c requirements/run.txt -o requirements/playground.txt
compile pyproject.toml $playground --extra dev -c requirements/playground.txt -o requirements/dev.txt
compile pyproject.toml --extra bench -c requirements/dev.txt -o requirements/bench.txt
