"""Train normalisation (Frankle, Schwab and Morcos, ICLR 2021, arXiv 2003.00152, of batch normalisation)."""

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from flsplit.split.tuning.interface import Tuning, only

_KINDS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, _NormBase)


class Norm(Tuning):
    """Weights and biases of all normalising layers are trained, and the head, which is new."""

    def apply(self, model: nn.Module) -> None:
        """See `Tuning`."""
        own = {id(p) for module in model.modules() if isinstance(module, _KINDS) for p in module.parameters()}
        only(model, lambda name, parameter: id(parameter) in own, "norm: there are no normalising layers")
