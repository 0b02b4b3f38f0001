"""Which playground a command means if none is named."""

import pytest

from fast.errors import FastError
from fast_playground.cluster import lifecycle
from fast_playground.cluster.choosing import choose


@pytest.mark.parametrize(
    ("there", "chosen"),
    [([], "default"), (["one"], "one"), (["default", "one"], "default"), (["default"], "default")],
)
def test_the_only_playground_is_meant_else_the_default(monkeypatch, there, chosen):
    monkeypatch.setattr(lifecycle, "list_playgrounds", lambda: there)
    assert choose(None).name == chosen
    assert choose("named").name == "named"


def test_of_several_none_is_guessed(monkeypatch):
    monkeypatch.setattr(lifecycle, "list_playgrounds", lambda: ["one", "two"])
    with pytest.raises(FastError, match="one, two"):
        choose(None)
