"""Train nothing: the model stays as it was before the first round, running statistics included."""

from torch import nn

from flsplit.split.tuning.interface import Tuning


class Frozen(Tuning):
    """No parameter of the model is trained, and it is in evaluation mode: no dropout, and statistics stay.

    A client side without anything to train needs no gradients either.
    """

    def apply(self, model: nn.Module) -> None:
        """See `Tuning`."""
        model.requires_grad_(False)
