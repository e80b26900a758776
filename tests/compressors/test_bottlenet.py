"""BottleNet++ against its layers written as products over single tokens."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from compressors import BatchShape
from compressors.bottlenet import BottleNet

MakeBatch = Callable[..., tuple[Tensor, Tensor, Tensor]]


def widths(half: nn.Module | None) -> list[int]:
    assert half is not None
    layers = [layer for layer in half.modules() if isinstance(layer, nn.Linear)]
    return [layers[0].in_features, *(layer.out_features for layer in layers)]


@pytest.mark.parametrize(
    ("ratio", "width", "encoder"),
    [
        (0.1, 192, [192, 105, 19]),
        (0.1, 384, [384, 211, 38]),
        (0.5, 192, [192, 144, 96]),
        (0.001, 192, [192, 96, 1]),
    ],
)
def test_widths(ratio: float, width: int, encoder: list[int]) -> None:
    compressor = BottleNet(ratio=ratio).bind(tokens=5, width=width)
    assert widths(compressor.client_half) == encoder
    assert widths(compressor.server_half) == encoder[::-1]


@pytest.mark.parametrize("final_relu", [True, False])
@pytest.mark.parametrize("batch", [1, 4])
def test_equals_loops(make_batch: MakeBatch, batch: int, final_relu: bool, device: str) -> None:
    z, y, s = make_batch(batch, 5, 12)
    compressor = BottleNet(ratio=0.25, final_relu=final_relu).bind(tokens=5, width=12)
    encoder, decoder = compressor.client_half, compressor.server_half
    assert encoder is not None and decoder is not None
    weights = [
        half.get_parameter(f"{i}.{part}") for half in (encoder, decoder) for i in (0, 2) for part in ("weight", "bias")
    ]
    copies = [weight.detach().clone().requires_grad_() for weight in weights]
    copy = z.detach().requires_grad_()
    tokens, codes = [], []
    for token in copy.flatten(0, 1):
        w1, b1, w2, b2, w3, b3, w4, b4 = copies
        codes.append(w2 @ (w1 @ token + b1).clamp(min=0) + b2)
        out = w4 @ (w3 @ codes[-1] + b3).clamp(min=0) + b4
        tokens.append(out.clamp(min=0) if final_relu else out)
    expected = torch.stack(tokens).view(batch, 5, 12)

    encoder.to(device), decoder.to(device)
    z = z.detach().to(device).requires_grad_()
    payload = compressor.compress(z, y.to(device), s.to(device))
    shape = BatchShape(batch=batch, tokens=5, width=12, classes=10)
    received, targets = compressor.decompress(payload, shape)
    torch.testing.assert_close(payload.floats[0].cpu(), torch.stack(codes).view(batch, 5, 3))
    torch.testing.assert_close(received.cpu(), expected)
    assert torch.equal(targets.cpu(), y)
    assert bool((received < 0).any()) is not final_relu

    received.pow(3).sum().backward()
    expected.pow(3).sum().backward()
    assert z.grad is not None and copy.grad is not None
    torch.testing.assert_close(z.grad.cpu(), copy.grad)
    for weight, reference in zip([*encoder.parameters(), *decoder.parameters()], copies):
        assert weight.grad is not None and reference.grad is not None
        torch.testing.assert_close(weight.grad.cpu(), reference.grad)


def test_each_side_needs_only_its_half(make_batch: MakeBatch) -> None:
    z, y, s = make_batch(2, 5, 12)
    shape = BatchShape(batch=2, tokens=5, width=12, classes=10)
    compressor = BottleNet().bind(tokens=5, width=12)
    client_half, server_half = compressor.client_half, compressor.server_half
    compressor.server_half = None
    payload = compressor.compress(z, y, s)
    compressor.client_half, compressor.server_half = None, server_half
    compressor.decompress(payload, shape)
    with pytest.raises(ValueError, match="call bind"):
        compressor.compress(z, y, s)
    compressor.client_half, compressor.server_half = client_half, None
    with pytest.raises(ValueError, match="call bind"):
        compressor.decompress(payload, shape)


def test_weights_depend_on_the_generator_alone() -> None:
    def weights(seed: int) -> list[Tensor]:
        half = BottleNet().bind(tokens=5, width=12, generator=torch.Generator().manual_seed(seed))
        assert half.client_half is not None and half.server_half is not None
        return [*half.client_half.parameters(), *half.server_half.parameters()]

    torch.manual_seed(1)
    first = weights(5)
    after = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(after, torch.rand(3))  # the global generator stands where it stood
    assert all(torch.equal(a, b) for a, b in zip(first, weights(5)))
    assert not any(torch.equal(a, b) for a, b in zip(first, weights(6)))


def test_default_initialisation_encoder_first() -> None:
    compressor = BottleNet(ratio=0.25)
    torch.manual_seed(3)
    compressor.bind(tokens=5, width=12)
    torch.manual_seed(3)
    expected = [nn.Linear(12, 7), nn.Linear(7, 3), nn.Linear(3, 7), nn.Linear(7, 12)]
    assert compressor.client_half is not None and compressor.server_half is not None
    created = [*compressor.client_half.parameters(), *compressor.server_half.parameters()]
    wanted = [parameter for layer in expected for parameter in layer.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(created, wanted, strict=True))
