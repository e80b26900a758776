"""Train biases (BitFit: Ben Zaken, Ravfogel and Goldberg, ACL 2022, arXiv 2106.10199)."""

from torch import nn

from flsplit.split.tuning.interface import Tuning, only


class Bias(Tuning):
    """Every bias is trained, and the head, which is new."""

    def apply(self, model: nn.Module) -> None:
        """See `Tuning`."""
        only(model, lambda name, parameter: name.rpartition(".")[2] == "bias", "bias: there are no biases")
