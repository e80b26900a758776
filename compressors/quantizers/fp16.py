"""Half precision."""

import torch

from compressors.quantizers.cast import Cast


class Fp16(Cast):
    """IEEE 754 binary16. From 65,520 on values overflow, below 3e-8 they are 0: gradients often need a range."""

    format = torch.float16
