"""Compressors and stages by name."""

from typing import Any

from compressors.interface import Compressor
from compressors.plugins import Plugins
from compressors.stage import Stage

_COMPRESSORS: Plugins[Compressor] = Plugins(
    "compressor", "compressors", Compressor,  # type: ignore[type-abstract]
    helpers=(
        "adc_cohort", "channels", "cohort", "interface", "kmeans", "kmeans_triton", "lost", "noise", "options",
        "plugins", "quantizers", "registry", "stage",
    ),
)  # fmt: skip
available = _COMPRESSORS.available
_STAGES: dict[str, Plugins[Stage]] = {
    "quantizer": Plugins("quantizer", "compressors.quantizers", Stage, helpers=("cast", "interface")),
    "channel": Plugins("channel", "compressors.channels", Stage, helpers=("analogue", "interface", "packets")),
}
STAGES = tuple(_STAGES)  # behind the compressor, in the order in which a message leaves


def build(name: str, **options: Any) -> Compressor:
    """Create a compressor.

    Args:
        name: a method of this package ("adc"), or the dotted path of any importable module that defines one
            `Compressor` ("my_package.my_method").
        options: the keyword arguments of its class.

    Raises:
        ValueError: for an unknown name or option, or a value that cannot be; one line each.

    Example:
        >>> build("topk", rate=0.05).name
        'topk'
    """
    return _COMPRESSORS.build(name, options)


def build_stage(group: str, name: str, **options: Any) -> Stage:
    """Create a stage.

    Args:
        group: one of `STAGES`.
        name: one of the group's ("none", "clean"), or the dotted path of any importable module that defines one
            `Stage`.
        options: the keyword arguments of its class.

    Raises:
        ValueError: for an unknown name or option, or a value that cannot be; one line each.
    """
    return _STAGES[group].build(name, options)
