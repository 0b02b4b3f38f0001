"""A playground for a module's tests."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from e2e.running import Running, running


@pytest.fixture(scope="module")
def playground() -> Iterator[Running]:
    """A playground of two nodes, which the tests of a module share."""
    with running(nodes=2) as found:
        yield found


@pytest.fixture
def start_playground() -> Iterator[Callable[..., Running]]:
    """Start playgrounds of a test's own; the argument ``nodes`` says how big."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(running(**options))
