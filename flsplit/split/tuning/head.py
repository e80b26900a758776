"""Train the classifier and nothing else."""

from torch import nn

from flsplit.split.tuning.interface import Tuning, head_of


class Head(Tuning):
    """Linear probing: the head is trained, of a server side; a client side has none."""

    def apply(self, model: nn.Module) -> None:
        """See `Tuning`."""
        head = head_of(model)
        if head is None:
            raise ValueError("model.tune=head: a client side has no head; take frozen, or another")
        model.requires_grad_(False)
        head.requires_grad_(True)
