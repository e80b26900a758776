"""Train the last blocks of a side."""

from torch import nn

from flsplit.split.tuning.interface import Tuning, head_of


class Last(Tuning):
    """The last blocks are trained and whatever comes after them: norm and head of a server side.

    Args:
        blocks: how many, at least 1.

    Raises:
        ValueError: if that is not a number of blocks.
    """

    def __init__(self, *, blocks: int = 1) -> None:
        if blocks < 1:
            raise ValueError(f"model.tune_args.blocks must be at least 1, got {blocks}")
        self._blocks = blocks

    def apply(self, model: nn.Module) -> None:
        """See `Tuning`."""
        blocks = list(getattr(model, "blocks").children())  # noqa: B009
        if self._blocks > len(blocks):
            raise ValueError(
                f"model.tune_args.blocks must be at most {len(blocks)}, the blocks of this side, got {self._blocks}"
            )
        untouched = {id(p) for block in blocks[: -self._blocks] for p in block.parameters()}
        server = head_of(model) is not None
        own = {id(p) for block in blocks for p in block.parameters()}
        for parameter in model.parameters():
            after = server and id(parameter) not in own
            parameter.requires_grad_(after or (id(parameter) in own and id(parameter) not in untouched))
