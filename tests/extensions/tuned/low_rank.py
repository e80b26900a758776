"""Low-rank adaptation (Hu et al., ICLR 2022): two trained matrices in every block, all else frozen."""

from torch import nn

from flsplit.split.tuning import Tuning


class Adapted(nn.Module):
    """A frozen linear layer plus the product of two thin ones, which is zero at first."""

    def __init__(self, layer: nn.Linear, rank: int) -> None:
        super().__init__()
        self.layer = layer
        self.down = nn.Linear(layer.in_features, rank, bias=False)
        self.up = nn.Linear(rank, layer.out_features, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x):
        return self.layer(x) + self.up(self.down(x))


class LowRank(Tuning):
    """Adapt the projection to queries, keys and values of each block.

    Args:
        rank: of the product.
    """

    def __init__(self, *, rank: int = 4) -> None:
        self.rank = rank

    def apply(self, model):
        model.requires_grad_(False)
        for block in model.blocks:
            block.attn.qkv = Adapted(block.attn.qkv, self.rank)
