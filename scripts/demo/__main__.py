"""The quick start on this machine: a playground of two nodes, four pods, real eBPF.

``make demo`` runs it. The exit status is 0 if every check passed, else 1 with the first that failed.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from checks import DemoFailed
from fast.errors import FastError
from fast_playground.cluster.lifecycle import Playground, fresh_name
from screen import Screen
from steps import Demo


@contextmanager
def torn_down(playground: Playground, keep: bool) -> Iterator[None]:
    """Take the playground down at the end, also if the demo failed, unless it is to be kept then."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        if keep and playground.exists:
            print(f"kept: fast-ctl playground down --name {playground.name}", file=sys.stderr)
        else:
            playground.down()


def main() -> int:
    """Run the demo and say how long it took."""
    parser = argparse.ArgumentParser(prog="demo", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--name", default="", help="the playground's name (default: one that is not taken)")
    parser.add_argument("--keep", action="store_true", help="keep the playground if the demo fails")
    options = parser.parse_args()
    screen = Screen()
    began = time.monotonic()
    demo = Demo(screen, options.name or fresh_name("demo"))
    if demo.playground.exists:
        screen.bad(f"there is a playground {demo.name} already: fast-ctl playground down --name {demo.name}")
        return 1
    with torn_down(demo.playground, options.keep):
        try:
            demo.run()
        except (DemoFailed, FastError, subprocess.TimeoutExpired) as failed:
            screen.bad(str(failed))
            return 1
        except KeyboardInterrupt:
            screen.bad("interrupted")
            return 128 + signal.SIGINT
    screen.good(f"the quick start ran as it should, in {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
