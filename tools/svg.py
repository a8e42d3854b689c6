"""Small line charts as SVG, written by hand: a picture needs no plotting library at run time."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import log10

from hil.evaluation import Result

_COLOURS = ("#1b6ca8", "#d1495b", "#2e933c", "#edae49", "#6a4c93", "#00798c", "#8d6a9f", "#444444")
_WIDTH, _HEIGHT = 300, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 42, 12, 30, 36
_COLUMNS = 3
_STYLE = (
    "text{font-family:system-ui,sans-serif;font-size:10px;fill:#333}"
    ".title{font-size:12px;font-weight:600}.axis{stroke:#999;fill:none}.grid{stroke:#e6e6e6}"
    ".line{fill:none;stroke-width:1.8}"
)


@dataclass(frozen=True)
class Line:
    """A named line: points (x, y), y from 0 to 1."""

    label: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Chart:
    """Lines over one logarithmic axis of x from ``low`` to ``high``, and y as a percentage."""

    title: str
    x_label: str
    low: float
    high: float
    lines: Sequence[Line]


def draw(charts: Sequence[Chart], title: str) -> str:
    """Give an SVG document with the charts side by side, three in a row."""
    rows = -(-len(charts) // _COLUMNS)
    columns = min(len(charts), _COLUMNS) or 1
    width, height = columns * _WIDTH, rows * _HEIGHT + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        '<rect width="100%" height="100%" fill="#fff"/>',
        f'<text class="title" x="10" y="18">{escape(title)}</text>',
    ]
    for i, chart in enumerate(charts):
        x, y = i % _COLUMNS * _WIDTH, i // _COLUMNS * _HEIGHT + 30
        parts.append(f'<g transform="translate({x},{y})">{_chart(chart)}</g>')
    return "".join([*parts, "</svg>\n"])


def _chart(chart: Chart) -> str:
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    span = log10(chart.high / chart.low) or 1

    def place(x: float, y: float) -> tuple[float, float]:
        across = log10(min(chart.high, max(chart.low, x)) / chart.low) / span
        return _LEFT + across * (right - _LEFT), bottom - y * (bottom - _TOP)

    parts = [f'<text class="title" x="{_LEFT}" y="{_TOP - 10}">{escape(chart.title)}</text>']
    for share in (0, 0.25, 0.5, 0.75, 1):
        _, y = place(chart.low, share)
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{right}"/>')
        parts.append(f'<text x="{_LEFT - 4}" y="{y + 3:.1f}" text-anchor="end">{share:.0%}</text>')
    for tick in _ticks(chart.low, chart.high):
        x, _ = place(tick, 0)
        parts.append(f'<text x="{x:.1f}" y="{bottom + 13}" text-anchor="middle">{tick:g}</text>')
    parts.append(f'<path class="axis" d="M{_LEFT} {_TOP}V{bottom}H{right}"/>')
    middle = (_LEFT + right) / 2
    parts.append(
        f'<text x="{middle}" y="{bottom + 27}" text-anchor="middle">{escape(chart.x_label)}</text>'
    )
    for i, line in enumerate(chart.lines):
        colour = _COLOURS[i % len(_COLOURS)]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in (place(*point) for point in line.points))
        parts.append(f'<path class="line" stroke="{colour}" d="M{path}"/>')
        parts.append(
            f'<text x="{right - 4}" y="{bottom - 6 - 11 * i}" text-anchor="end" '
            f'style="fill:{colour}">{escape(line.label)}</text>'
        )
    return "".join(parts)


def _ticks(low: float, high: float) -> list[float]:
    decades = range(-9, 10)
    ticks = [digit * 10.0**decade for decade in decades for digit in (1, 3)]
    found = [tick for tick in ticks if low <= tick <= high]
    return [tick for tick in found if len(found) <= 6 or f"{tick:e}".startswith("1")]


def caught_curves(result: Result, rounds: int) -> str:
    """Draw for each kind of falsehood what share of meters is caught by which round."""
    kinds: dict[str, list[Line]] = {}
    for score in result.scores:
        if not score.meters:
            continue
        points = [(1.0, 0.0)]
        for number in range(1, rounds + 1):
            share = score.caught(number) / score.meters
            points += [(number, points[-1][1]), (number, share)]
        kinds.setdefault(score.falsehood.kind, []).append(Line(score.falsehood.size, points))
    charts = [
        Chart(kind, "false readings until the first rejection", 1, max(2, rounds), lines)
        for kind, lines in kinds.items()
    ]
    honest = result.honest
    title = (
        f"Share of false meters caught; of {honest.readings} honest readings "
        f"{honest.false_rejections} rejected"
    )
    return draw(charts, title)
