"""What a schema says of single values: bounds, multiples, formats, patterns."""

import runpy
from pathlib import Path

import pytest

from fast_playground.apiserver.schema import Schema


@pytest.mark.parametrize(
    ("spec", "fits", "breaks", "why"),
    [
        ({"minimum": 1}, 1, 0, "should be greater than or equal to 1"),
        ({"minimum": 1, "exclusiveMinimum": True}, 1.5, 1, "should be greater than 1"),
        ({"maximum": 5}, 5, 6, "should be less than or equal to 5"),
        ({"maximum": 5, "exclusiveMaximum": True}, 4, 5, "should be less than 5"),
        ({"minimum": 0, "maximum": 0}, 0, -1, "should be greater than or equal to 0"),
        ({"multipleOf": 3}, 9, 10, "should be a multiple of 3"),
    ],
)
def test_a_number_out_of_its_bounds_is_refused_naming_the_bound(spec, fits, breaks, why):
    schema = Schema({"type": "number"} | spec)
    assert schema.validate(fits, "size") == []
    (error,) = schema.validate(breaks, "size")
    assert str(error) == f"size: Invalid value: {breaks}: size in body {why}"


@pytest.mark.parametrize(
    ("name", "fits", "breaks"),
    [
        ("date-time", "2026-01-02T03:04:05Z", "2026-01-02"),
        ("date-time", "2026-01-02T03:04:05.5+01:00", "2026-01-02T03:04:05"),
        ("date-time", "2026-01-02T03:04:05Z", "soon"),
        ("ipv4", "10.0.0.1", "10.0.0"),
        ("ipv6", "fd00::1", "10.0.0.1"),
        ("cidr", "10.0.0.0/8", "10.0.0.0"),
        ("cidr", "fd00::/8", "fd00::/129"),
    ],
)
def test_a_text_that_is_not_of_its_format_is_refused(name, fits, breaks):
    schema = Schema({"type": "string", "format": name})
    assert schema.validate(fits, "at") == []
    (error,) = schema.validate(breaks, "at")
    assert f"must be of type {name}" in str(error)


def test_a_format_that_nobody_knows_fits_every_text():
    assert Schema({"type": "string", "format": "password"}).validate("x", "") == []


@pytest.mark.parametrize(
    ("pattern", "fits", "breaks"),
    [
        ("^a$", "a", "a\n"),
        (r"^a\$$", "a$", "a"),
        ("^[$]$", "$", "$\n"),
        (r"^[\]$]+$", "]$", "]\n"),
        ("^a|b$", "ax", "b\n"),
    ],
)
def test_a_patterns_dollar_is_the_end_of_the_text(pattern, fits, breaks):
    schema = Schema({"type": "string", "pattern": pattern})
    assert schema.validate(fits, "") == []
    assert len(schema.validate(breaks, "")) == 1


def test_the_generated_types_are_what_their_script_makes():
    script = Path(__file__).parents[3] / "scripts/make_api_schemas.py"
    for path, text in runpy.run_path(str(script))["made"]().items():
        assert path.read_text() == text, f"{path.name} is stale: run scripts/make_api_schemas.py"
