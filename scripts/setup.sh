#!/usr/bin/env bash
# Installs what the make targets need on a Debian machine: system packages, .venv, native parts.
# Quick if nothing is missing: dpkg lists the packages, and a stamp holds the hash of the venv's inputs.
set -euo pipefail
cd "$(dirname "$0")/.."

PACKAGES=(
  python3 python3-venv python3-dev gcc libc6-dev clang llvm musl-tools pkg-config git
  libbpf-dev libelf-dev zlib1g-dev bpftool
  nftables iptables iproute2 iputils-ping procps util-linux ethtool tcpdump iperf3 conntrack
  containernetworking-plugins containerd runc podman curl busybox-static
)
say() { printf '\033[2msetup: %s\033[0m\n' "$*"; }

missing=()
for package in "${PACKAGES[@]}"; do
  # shellcheck disable=SC2016 # the ${} is dpkg-query's own format
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  if [ "$(id -u)" != 0 ]; then
    echo "setup: these packages are missing and installing them needs root: ${missing[*]}" >&2
    exit 1
  fi
  say "installing ${missing[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

python=""
for candidate in python3 /usr/bin/python3; do
  if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    python=$candidate
    break
  fi
done
[ -n "$python" ] || { echo "setup: Python 3.11 or later is needed, with venv" >&2; exit 1; }

stamp=.venv/.stamp
want=$(cat pyproject.toml playground/pyproject.toml setup.py requirements/dev.txt | sha256sum)
if [ ! -x .venv/bin/python ] || [ "$(cat $stamp 2>/dev/null)" != "$want" ]; then
  say "making .venv"
  [ -x .venv/bin/python ] || "$python" -m venv .venv
  .venv/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/dev.txt
  .venv/bin/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e . -e playground
  echo "$want" >$stamp
fi
make --no-print-directory compile
