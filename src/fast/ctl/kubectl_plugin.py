"""``kubectl fast …``: the same program as ``fast-ctl``, with kubectl's own flags.

kubectl runs ``kubectl-fast`` and passes every argument on, so its flags may stand anywhere in them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from fast.ctl.api_options import AS_VARIABLE, CONTEXT_VARIABLE
from fast.ctl.fast_ctl import main

#: Flags of kubectl that say which cluster and who asks, and the environment variable that carries each.
_FLAGS = {"--kubeconfig": "KUBECONFIG", "--context": CONTEXT_VARIABLE, "--as": AS_VARIABLE}


def kubectl() -> None:
    """Run ``kubectl fast``."""
    arguments, environment = split_flags(sys.argv[1:])
    os.environ.update(environment)
    main(arguments, prog_name="kubectl fast")


def split_flags(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Take kubectl's flags out of the arguments; gives the others, and environment variables for what was taken.

    What follows ``--`` is somebody else's and stays as it is.
    """
    rest: list[str] = []
    found: dict[str, str] = {}
    words = iter(arguments)
    for word in words:
        name, equals, value = word.partition("=")
        if word == "--":
            return [*rest, word, *words], found
        if name not in _FLAGS:
            rest.append(word)
        elif equals:
            found[_FLAGS[name]] = value
        else:
            following = next(words, None)
            if following is None:
                rest.append(word)  # the command says what is missing
            else:
                found[_FLAGS[name]] = following
    return rest, found
