"""Builds the one thing pyproject.toml cannot declare: the cffi extension over libbpf."""

from setuptools import setup

setup(cffi_modules=["src/fast/datapath/bpf/build_libbpf.py:ffi"])
