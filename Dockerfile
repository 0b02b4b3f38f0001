# syntax=docker/dockerfile:1
# The image of agent, controller and fast-ctl. `make image` builds the same content without a registry or a daemon.
# The build depends only on the packages of the base image. To fix them: --build-arg BASE=debian:12-slim@sha256:…
ARG BASE=debian:12-slim
FROM ${BASE} AS build
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
# hadolint ignore=DL3008
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends python3 python3-venv python3-dev binutils gcc libc6-dev clang make \
      musl-tools pkg-config libbpf-dev libelf-dev zlib1g-dev nftables iptables \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY requirements requirements
COPY Makefile pyproject.toml setup.py README.md LICENSE ./
COPY bpf bpf
COPY cni-plugin cni-plugin
COPY src src
COPY scripts/image scripts/image
# requirements/dev.txt has the build tools: setuptools, wheel
RUN python3 -m venv .venv \
 && .venv/bin/pip install -q --no-cache-dir --require-hashes -r requirements/dev.txt \
 && make compile \
 && .venv/bin/pip install -q --no-cache-dir --no-deps --no-build-isolation -e .
RUN .venv/bin/python scripts/image --output /image/fast.tar --unpack /image/root

# only what the programs need: no shell, no package manager, no compiler
FROM scratch
COPY --from=build /image/root /
USER 65532
ENV PATH=/usr/local/bin:/usr/sbin:/usr/bin PYTHONDONTWRITEBYTECODE=1
CMD ["fast-agent"]
