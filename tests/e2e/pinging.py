"""A ping that runs beside a test and must lose nothing. Knows nothing of what the test does meanwhile."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from e2e.running import Running


@contextmanager
def unbroken_ping(cluster: Running, name: str, *command: str) -> Iterator[None]:
    """Ping from n1 for as long as the block takes; every packet must be answered."""
    control, log = cluster.playground.node("n1").control, cluster.playground.directory.log(f"n1-{name}")
    control.start(name, list(command), log=log)
    try:
        yield
    finally:
        control.stop(name, signal.SIGINT)
    output = log.read_text()
    assert " 0% packet loss" in output, output
