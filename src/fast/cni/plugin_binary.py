"""Finds the ``fast-cni`` executable of this installation. Copies nothing."""

from __future__ import annotations

import os
from pathlib import Path

import fast
from fast.errors import InvalidConfig

PLUGIN = "fast-cni"
#: Names the executable, before every other place.
PLUGIN_VARIABLE = "FAST_CNI_BINARY"
_PACKAGE = Path(fast.__file__).resolve().parent
#: Where an installed wheel (also the one in the container image) and a source tree keep it.
PLUGIN_PLACES = (
    _PACKAGE / "cni" / PLUGIN,
    _PACKAGE.parents[1] / "build" / PLUGIN,
)


def find_plugin() -> Path:
    """Return the executable that FAST_CNI_BINARY names, else the first one in :data:`PLUGIN_PLACES`.

    Raises:
        InvalidConfig: There is none.
    """
    named = os.environ.get(PLUGIN_VARIABLE)
    candidates = (Path(named),) if named else PLUGIN_PLACES
    for path in candidates:
        if path.is_file():
            return path
    looked = ", ".join(map(str, candidates))
    raise InvalidConfig(
        f"there is no fast-cni at {looked}: build it with make, or name it by {PLUGIN_VARIABLE}"
    )
