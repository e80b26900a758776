"""Freeze a model but for its last blocks."""

from flsplit.split.tuning import Tuning


class LastBlocks(Tuning):
    """Train the last `blocks` blocks; the embedding and all blocks before them stay as they are."""

    def __init__(self, *, blocks: int = 1) -> None:
        self.blocks = blocks

    def apply(self, model):
        if self.blocks > len(model.blocks):
            raise ValueError(f"blocks must be at most {len(model.blocks)}, got {self.blocks}")
        model.requires_grad_(False)
        for block in model.blocks[len(model.blocks) - self.blocks :]:
            block.requires_grad_(True)
