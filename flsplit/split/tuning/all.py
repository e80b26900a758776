"""Train everything."""

from torch import nn

from flsplit.split.tuning.interface import Tuning


class All(Tuning):
    """Leave the model as it is: all of it is trained."""

    def apply(self, model: nn.Module) -> None:
        """See `Tuning`."""
