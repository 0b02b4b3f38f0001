"""``python -m fast_playground.cluster.enter PLAYGROUND NAMESPACE POD CONTAINER -- CMD…``: becomes CMD inside the pod.

The API server calls it for ``kubectl exec`` (``--exec-command``); for ``kubectl logs`` with ``--on-node`` in place of
``--``, which leaves CMD the files of the pod's node. Quick to start: it imports no command-line library.
"""

from __future__ import annotations

import os
import sys

from fast.errors import FastError
from fast_playground.cluster.directory import StateDirectory
from fast_playground.cluster.pod_sandboxes import get_sandbox

#: As in ``fast_playground.apiserver.exec``, which is not imported here: it takes long.
ON_NODE = "--on-node"
_USAGE = 2
_SEPARATOR = 5
_FAILED = 126


def main(arguments: list[str]) -> int:
    """Enter the pod. Returns only if that fails, with the exit status that a shell would use."""
    if len(arguments) <= _SEPARATOR or arguments[_SEPARATOR - 1] not in ("--", ON_NODE):
        print(f"usage: {__spec__.name} PLAYGROUND NAMESPACE POD CONTAINER -- COMMAND…", file=sys.stderr)
        return _USAGE
    playground, namespace, pod, _container = arguments[: _SEPARATOR - 1]
    try:
        placed = get_sandbox(StateDirectory(playground), namespace, pod)
        argv = arguments[_SEPARATOR:]
        on_node = arguments[_SEPARATOR - 1] == ON_NODE
        command = placed.command(argv) if on_node else placed.command_inside(argv, terminal=os.isatty(0))
        os.execvpe(command[0], command, placed.environment())  # noqa: S606 -- no shell is wanted
    except (FastError, OSError) as error:
        print(error, file=sys.stderr)
    return _FAILED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
