"""Draws the data flow of one training step, with what is sent: `python -m experiments.picture [--out FILE]`.

DeiT-T on CIFAR-100 in the paper's protocol (224 px, B=128), with ADC at 0.1. Bits are those of the price list, shapes
those of the compressor's layout.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from compressors import Floats, Integers
from experiments.point import Point
from flsplit.compose import compose
from flsplit.display.units import human_bits
from flsplit.report.style import figure

HOME = Path(__file__).parent
POINT = Point(
    scale="full", dataset="cifar100", model="deit_tiny", method="adc", value=0.1, rule="sqrt", seed=43422
)  # of the paper
_CLIENT, _SERVER, _INK, _GREY = "#0072B2", "#D55E00", "#1f2733", "#5b6470"
_DEPTH = 12  # blocks of DeiT-T


def labels(point: Point = POINT) -> dict[str, str]:
    """What the picture says, by place.

    Args:
        point: with ADC, whose step is drawn.
    """
    shape, step = point.shape(), point.step()
    layout = point.compressor().layout(shape)
    merged, cluster = layout.floats[0], layout.integers[0]
    assert layout.labels is not None
    clusters, kept, _ = merged.shape
    model = compose([f"model={point.model}"]).model
    cut, size = model.split_point, model.image_size
    up, down = step.uplink_bits / step.base_uplink_bits, step.downlink_bits / step.base_downlink_bits
    return {
        "title": f"one training step\nDeiT-T on CIFAR-100, B = {shape.batch}",
        "images": f"images\n{shape.batch} x 3 x {size} x {size}",
        "client blocks": f"blocks 1 to {cut}\nclient-side model",
        "activations": f"activations z  {shape.batch} x {shape.tokens} x {shape.width}",
        "compress": f"ADC at {point.value:g}: compress\n{shape.batch} samples to {clusters} clusters,\n"
        f"{shape.tokens} tokens to {kept}",
        "up": f"uplink  {human_bits(step.uplink_bits)}",
        "up of base": f"{100 * up:.1f}% of {human_bits(step.base_uplink_bits)} without compression",
        "up fields": f"{_field('means', merged)}\n{_field('labels', layout.labels)}\n{_field('clusters', cluster)}",
        "decompress": f"ADC: decompress\nsoft labels {clusters} x {shape.classes}",
        "server blocks": f"blocks {cut + 1} to {_DEPTH}, head\nserver-side model",
        "loss": "loss",
        "down": f"downlink  {human_bits(step.downlink_bits)}",
        "down of base": f"{100 * down:.1f}% of {human_bits(step.base_downlink_bits)}",
        "down fields": _field("gradients", layout.gradients().floats[0]),
        "server step": "backward, Adam",
        "client step": "backward through ADC's means\nand blocks, Adam",
    }


def _field(name: str, field: Floats | Integers) -> str:
    """A field of a message and its price."""
    return f"{name} {' x '.join(map(str, field.shape))}, {field.bits} bits each"


def draw(path: Path, point: Point = POINT) -> None:
    """Write the picture."""
    said = labels(point)
    with figure(8.8, 4) as drawing:
        axes = drawing.subplots()
        axes.set(xlim=(0, 100), ylim=(0, 40))
        axes.set_axis_off()
        _room(axes, 0.5, 36.5, "client", _CLIENT)
        _room(axes, 68, 31.5, "server", _SERVER)
        top, low = 25, 3.5  # lower edges of the rows: forward, backward
        _box(axes, 2, top, 15.5, said["images"], _CLIENT)
        _box(axes, 20.5, top, 15, said["client blocks"], _CLIENT, filled=True)
        _box(axes, 9, top - 10.5, 26.5, said["compress"], _CLIENT)
        _box(axes, 70, top - 10.5, 17, said["decompress"], _SERVER)
        _box(axes, 70, top, 17, said["server blocks"], _SERVER, filled=True)
        _box(axes, 90, top, 8, said["loss"], _SERVER)
        _box(axes, 70, low, 28, said["server step"], _SERVER)
        _box(axes, 2, low, 33.5, said["client step"], _CLIENT)
        _arrow(axes, (17.5, top + 4), (20.5, top + 4))
        _arrow(axes, (28, top), (28, top - 2.5))
        axes.text(27, top - 1.3, said["activations"], ha="right", va="center", fontsize=8, color=_GREY)
        _arrow(axes, (78.5, top - 2.5), (78.5, top))
        _arrow(axes, (87, top + 4), (90, top + 4))
        _arrow(axes, (94, top), (94, low + 8))
        _arrow(axes, (35.5, top - 6.5), (70, top - 6.5), wide=True)
        _arrow(axes, (70, low + 4), (35.5, low + 4), wide=True)
        axes.text(52.6, 38, said["title"], ha="center", va="top", fontsize=9, color=_INK, linespacing=1.35)
        _link(axes, top - 5.5, said["up"], f"{said['up of base']}\n{said['up fields']}", above=True)
        _link(axes, low + 3, said["down"], f"{said['down of base']}\n{said['down fields']}", above=False)
        drawing.savefig(path, dpi=170, facecolor="white")


def _room(axes: Axes, x: float, width: float, name: str, colour: str) -> None:
    shade = FancyBboxPatch(
        (x, 1), width, 38.5, boxstyle="round,pad=0,rounding_size=1", fc=colour, ec="none", alpha=0.07
    )
    axes.add_patch(shade)
    axes.text(x + 1.5, 38, name, fontsize=12, fontweight="bold", color=colour, va="top")


def _box(axes: Axes, x: float, y: float, width: float, text: str, colour: str, *, filled: bool = False) -> None:
    inside, shape = colour if filled else "white", "round,pad=0,rounding_size=0.8"
    axes.add_patch(FancyBboxPatch((x, y), width, 8, boxstyle=shape, fc=inside, ec=colour, lw=1.3))
    ink = "white" if filled else _INK
    axes.text(x + width / 2, y + 4, text, ha="center", va="center", fontsize=8.5, color=ink, linespacing=1.25)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], *, wide: bool = False) -> None:
    axes.add_patch(
        FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=20 if wide else 11, lw=2.6 if wide else 1.2,
                        color=_INK if wide else _GREY, shrinkA=1, shrinkB=1)
    )  # fmt: skip


def _link(axes: Axes, y: float, title: str, text: str, *, above: bool) -> None:
    """Words at a wide arrow: its price in bold, below or above it what it is made of."""
    middle = 52.6
    if above:
        axes.text(middle, y, title, ha="center", va="bottom", fontsize=11, fontweight="bold", color=_INK)
        axes.text(middle, y + 3, text, ha="center", va="bottom", fontsize=8, color=_GREY, linespacing=1.35)
    else:
        axes.text(middle, y + 2, title, ha="center", va="bottom", fontsize=11, fontweight="bold", color=_INK)
        axes.text(middle, y - 0.5, text, ha="center", va="top", fontsize=8, color=_GREY, linespacing=1.35)


def main(argv: Sequence[str] | None = None) -> int:
    """Draw the picture where it is asked for."""
    parser = argparse.ArgumentParser(prog="python -m experiments.picture", description=__doc__)
    default = HOME / "figures" / "step.png"
    parser.add_argument("--out", type=Path, default=default, metavar="FILE", help="[experiments/figures/step.png]")
    out = parser.parse_args(argv).out
    draw(out)
    print("drew", out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
