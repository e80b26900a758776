"""timm's ResNets (He et al., CVPR 2016), cut between two residual blocks.

The client-side model is the stem and the first `l` blocks of all stages, the server-side model the other blocks, the
pooling and the classifier. Smashed activations (B, C, H, W) cross as N = H W tokens of width D = C. There are no
attention scores and no prefix tokens. Batch normalisation keeps running statistics on both sides (`strategy.buffers`).
"""

from __future__ import annotations

import copy
from math import isqrt

from timm.models.resnet import ResNet
from torch import Tensor, nn

from flsplit.errors import UserError
from flsplit.split.families.from_timm import create
from flsplit.split.families.interface import ClientModel, Family, ServerModel


class ResNetClient(ClientModel):
    """Stem and first blocks: see `ClientModel`."""

    def __init__(self, model: ResNet, split_point: int) -> None:
        super().__init__()
        stem = [model.conv1, model.bn1, model.act1, model.maxpool]
        self.stem = copy.deepcopy(nn.Sequential(*stem))
        self.blocks = copy.deepcopy(nn.Sequential(*_blocks(model)[:split_point]))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """See `ClientModel`; N = H W places, row by row, D = C channels."""
        return self.blocks(self.stem(images)).flatten(2).mT, None


class ResNetServer(ServerModel):
    """Last blocks, pooling and classifier: see `ServerModel`."""

    def __init__(self, model: ResNet, split_point: int) -> None:
        super().__init__()
        self.blocks = copy.deepcopy(nn.Sequential(*_blocks(model)[split_point:]))
        self.pool, self.head = copy.deepcopy(model.global_pool), copy.deepcopy(model.fc)
        self.dropout = nn.Dropout(float(model.drop_rate))

    def forward(self, z: Tensor) -> Tensor:
        """See `ServerModel`; every place must be there, for N' = N is a square grid again."""
        side = isqrt(z.shape[1])
        grid = z.mT.unflatten(2, (side, side)).contiguous()
        return self.head(self.dropout(self.pool(self.blocks(grid))))


class ResNets(Family):
    """All of timm's models that are a `timm.models.resnet.ResNet`."""

    def build(self, name: str, *, classes: int, image_size: int, pretrained: bool | str) -> nn.Module:
        """See `Family`."""
        model = create(name, "a ResNet", classes=classes, pretrained=pretrained)
        if type(model) is not ResNet:
            raise UserError(f"model.name: {name} is a {type(model).__name__}, which model.family=resnet cannot cut")
        return model

    def depth(self, model: nn.Module) -> int:
        """See `Family`."""
        return len(_blocks(model))

    def cut(self, model: nn.Module, split_point: int) -> tuple[ClientModel, ServerModel]:
        """See `Family`."""
        assert isinstance(model, ResNet)
        return ResNetClient(model, split_point), ResNetServer(model, split_point)


def _blocks(model: nn.Module) -> list[nn.Module]:
    return [block for number in range(1, 5) for block in getattr(model, f"layer{number}")]
