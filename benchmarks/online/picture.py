"""Draws calls per second as bars: an SVG that needs neither a font file nor a script."""

from collections.abc import Mapping
from html import escape

_WIDTH, _LEFT, _ROW, _BAR, _TOP = 860, 290, 34, 22, 44
_ROOM_FOR_NUMBER = 90
_FONT = 'font-family="sans-serif" font-size="14"'


def bars(title: str, values: Mapping[str, float], ours: str) -> str:
    """One bar per value, in their order, its number beside it; names that begin with ``ours`` stand out."""
    most = max(values.values())
    scale = (_WIDTH - _LEFT - _ROOM_FOR_NUMBER) / most
    height = _TOP + _ROW * len(values) + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" {_FONT}>',
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="12" y="26" font-size="16" font-weight="bold">{escape(title)}</text>',
    ]
    for number, (name, value) in enumerate(values.items()):
        top = _TOP + number * _ROW
        colour = "#1f6f54" if name.startswith(ours) else "#9aa5ae"
        length = max(1.0, value * scale)
        parts += [
            f'<text x="{_LEFT - 10}" y="{top + 16}" text-anchor="end">{escape(name)}</text>',
            f'<rect x="{_LEFT}" y="{top}" width="{length:.1f}" height="{_BAR}" rx="3" fill="{colour}"/>',
            f'<text x="{_LEFT + length + 8:.1f}" y="{top + 16}">{value:,.0f}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])
