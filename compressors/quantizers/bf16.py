"""The upper half of single precision."""

import torch

from compressors.quantizers.cast import Cast


class Bf16(Cast):
    """bfloat16: fp32's exponents, 7 bits of mantissa."""

    format = torch.bfloat16
