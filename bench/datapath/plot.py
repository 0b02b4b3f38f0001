"""Plots a comparison as SVG: bars show the ratio to the bridge, with one panel for each measurement."""

from __future__ import annotations

from html import escape

_COLOURS = {"bare veth": "#9a9a9a", "bridge": "#d98c3f", "shortest eBPF": "#5b8fc9", "Fast": "#2f9e5b"}
_WIDTH, _PANEL, _HEIGHT, _MARGIN = 880, 220, 190, 40


def plot(ratios: dict[tuple[str, str], dict[str, float]], better: dict[str, str]) -> str:
    """Draw the ratios.

    Args:
        ratios: By measurement and place, each network's ratio to the bridge.
        better: By measurement, ``lower`` or ``higher``.
    """
    columns = _WIDTH // _PANEL
    rows = -(-len(ratios) // columns)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{rows * _HEIGHT + 40}" '
        'font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="white"/>'
    ]
    for number, ((measurement, place), values) in enumerate(ratios.items()):
        left, top = number % columns * _PANEL, number // columns * _HEIGHT
        parts.append(_panel(left, top, f"{measurement}, {place}", better[measurement], values))
    parts.append(_legend(rows * _HEIGHT + 20))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(left: int, top: int, title: str, better: str, values: dict[str, float]) -> str:
    height = _HEIGHT - 2 * _MARGIN
    scale = height / max(1.0, *values.values())
    base = top + _MARGIN + height
    parts = [
        f'<text x="{left + 10}" y="{top + 16}" font-weight="bold">{escape(title)}</text>',
        f'<text x="{left + 10}" y="{top + 30}" fill="#666">to the bridge; {better} is better</text>',
    ]
    for index, (name, value) in enumerate(values.items()):
        x, y = left + 12 + index * 50, base - value * scale
        parts.append(
            f'<rect x="{x}" y="{y:.1f}" width="38" height="{value * scale:.1f}" fill="{_COLOURS[name]}"/>'
            f'<text x="{x + 19}" y="{base + 14}" text-anchor="middle">{value:.2f}</text>'
        )
    line = base - scale
    parts.append(
        f'<line x1="{left + 8}" x2="{left + _PANEL - 12}" y1="{line:.1f}" y2="{line:.1f}" '
        'stroke="#333" stroke-dasharray="3"/>'
    )
    return "\n".join(parts)


def _legend(y: int) -> str:
    return "\n".join(
        f'<rect x="{10 + index * 150}" y="{y - 10}" width="12" height="12" fill="{colour}"/>'
        f'<text x="{28 + index * 150}" y="{y}">{name}</text>'
        for index, (name, colour) in enumerate(_COLOURS.items())
    )
