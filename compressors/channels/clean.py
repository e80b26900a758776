"""A channel that delivers what was sent."""

from compressors.stage import Stage


class Clean(Stage):
    """Acts on nothing."""

    ways = ()
