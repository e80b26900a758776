"""How plots look: Okabe and Ito's colours, which stay apart for colour-blind eyes, and small inline SVGs."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v")
_MARKER_SHAPES = {  # the same markers for the HTML legend, around (17, 7)
    "o": '<circle cx="17" cy="7" r="3.6"/>',
    "s": '<path d="M13.8 3.8h6.4v6.4h-6.4z"/>',
    "^": '<path d="M17 2.8l4 7.4h-8z"/>',
    "D": '<path d="M17 2.6l4.4 4.4-4.4 4.4-4.4-4.4z"/>',
    "v": '<path d="M17 11.2l4-7.4h-8z"/>',
}
# In the page each of these is a variable, which a dark page sets otherwise (`flsplit.report.css`).
_VARIABLES = {
    **{colour.lower(): f"--line-{number}" for number, colour in enumerate(_COLOURS)},
    "#8a919c": "--chart-axis", "#333a45": "--chart-text", "#e6e9ee": "--chart-grid", "#5b6573": "--chart-mean",
    "#d5d9e0": "--chart-rest",
}  # fmt: skip
_SETTINGS = {
    "svg.fonttype": "none",  # text stays text: small, selectable, in the page's font
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.edgecolor": "#8a919c",
    "axes.labelcolor": "#333a45",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#e6e9ee",
    "grid.linewidth": 0.8,
    "xtick.color": "#8a919c",
    "ytick.color": "#8a919c",
    "xtick.labelcolor": "#333a45",
    "ytick.labelcolor": "#333a45",
    "lines.linewidth": 1.7,
}


@dataclass(frozen=True)
class Style:
    """The colour and marker of one run, the same in every plot; 35 runs get different ones."""

    colour: str
    marker: str

    @classmethod
    def of(cls, index: int) -> Style:
        """The style of the run at `index`."""
        return cls(_COLOURS[index % len(_COLOURS)], _MARKERS[index % len(_MARKERS)])

    def swatch(self) -> str:
        """A piece of the run's line, as an SVG for legends."""
        return _with_variables(
            f'<svg class="swatch" width="34" height="14" aria-hidden="true" style="fill: {self.colour}">'
            f'<path d="M2 7h30" style="stroke: {self.colour}; stroke-width: 2"/>{_MARKER_SHAPES[self.marker]}</svg>'
        )


@contextmanager
def figure(width: float, height: float) -> Iterator[Figure]:
    """An empty figure of `width` x `height` inches in the house style, outside pyplot's global state.

    The same data gives the same file.
    """
    salt = f"flsplit {width:g} {height:g}"  # names of parts, which figures of one page may only share with their like
    with matplotlib.rc_context({**_SETTINGS, "svg.hashsalt": salt}):
        yield Figure(figsize=(width, height), layout="constrained")


def plain_axes(axes: Axes) -> None:
    """Axes without grid or ticks' strokes, for heat maps."""
    axes.grid(False)
    axes.tick_params(length=0)


def plain_log(axis: Axis, at: Sequence[float] = (1.0, 2.0, 5.0)) -> None:
    """Ticks of a logarithmic axis at so many times powers of ten, written out."""
    axis.set_major_locator(LogLocator(subs=at))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_formatter(NullFormatter())


def to_svg(drawing: Figure, title: str) -> str:
    """The figure as an SVG element that can stand in an HTML page; call it inside `figure`'s block.

    It has no background, and its colours can be set by the page, all but those of a heat map's text.
    """
    drawing.patch.set_visible(False)
    for axes in drawing.axes:
        axes.patch.set_visible(False)
    buffer = io.StringIO()
    FigureCanvasSVG(drawing).print_svg(buffer, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # Namespaces mean nothing inside HTML, and group names would repeat from figure to figure.
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)
    svg = re.sub(r'<g id="[a-zA-Z]+\d*_\d+">', "<g>", svg)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"\n\s*", "\n", svg)
    return _with_variables(svg.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1))


def as_file(svg: str) -> str:
    """What `to_svg` has made as a file of its own: on white, in the colours of a light page."""
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" style="background: #fff"'
    return re.sub(r"var\(--[a-z0-9-]+, (#\w+)\)", r"\1", svg).replace("<svg", f"<svg {names}", 1)


def _with_variables(svg: str) -> str:
    def variable(found: re.Match[str]) -> str:
        name = _VARIABLES.get(found[1].lower())
        return found[0] if name is None else f": var({name}, {found[1]})"

    return re.sub(r": (#[0-9a-fA-F]{6})\b", variable, svg)
