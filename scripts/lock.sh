#!/usr/bin/env bash
# Writes the pinned, hashed requirement files that scripts/setup.sh installs from.
set -euo pipefail
cd "$(dirname "$0")/.."
.venv/bin/python -m pip install -q uv
compile() { .venv/bin/uv pip compile -q --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --python-version 3.11 --python-platform linux "$@"; }
compile pyproject.toml -o requirements/run.txt
compile pyproject.toml --extra dev -c requirements/run.txt -o requirements/dev.txt
compile pyproject.toml --extra bench -c requirements/dev.txt -o requirements/bench.txt
