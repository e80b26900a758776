"""No quantiser: floats cross at the bits that the compressor gives them."""

from compressors.stage import Stage


class NoQuantizer(Stage):
    """Acts on nothing."""

    ways = ()
