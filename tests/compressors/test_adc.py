"""ADC against loops over clusters and members: shapes of the protocol's table, values, labels, gradients."""

from collections.abc import Callable
from functools import partial
from math import log
from typing import Any

import pytest
import torch
from torch import Tensor

from compressors import BatchShape, Floats, build
from compressors.adc import ADC
from compressors.kmeans import kmeans

# xi: (T, k) of 128 samples and 197 tokens, and the ratio really sent
PROTOCOL = {
    "pow_1_5_4_5": {
        0.01: (50, 4, 0.0079),
        0.05: (70, 17, 0.0472),
        0.1: (80, 31, 0.0984),
        0.2: (92, 54, 0.197),
        0.3: (100, 75, 0.2974),
        0.4: (106, 94, 0.3951),
        0.5: (111, 113, 0.4974),
    },
    "sqrt": {
        0.01: (12, 19, 0.0090),
        0.05: (28, 44, 0.0489),
        0.1: (40, 62, 0.0984),
        0.2: (57, 88, 0.1989),
        0.3: (70, 107, 0.297),
        0.4: (80, 124, 0.3934),
        0.5: (90, 139, 0.4961),
    },
    "release2026": {
        0.01: (12, 62, 0.0295),
        0.05: (28, 93, 0.1033),
        0.1: (40, 110, 0.1745),
        0.2: (57, 131, 0.2961),
        0.3: (70, 145, 0.4025),
        0.4: (80, 156, 0.4949),
        0.5: (90, 165, 0.5889),
    },
}


@pytest.mark.parametrize(("rule", "ratio"), [(rule, ratio) for rule in PROTOCOL for ratio in PROTOCOL[rule]])
def test_protocol_table(rule: str, ratio: float) -> None:
    clusters, kept, sent = PROTOCOL[rule][ratio]
    compressor = ADC(ratio=ratio, rule=rule)
    assert (compressor.clusters(128), compressor.kept_tokens(197)) == (clusters, kept)
    shape = BatchShape(batch=128, tokens=197, width=192, classes=100)
    assert compressor.layout(shape).floats == (Floats((clusters, kept, 192)),)
    full = build("base").layout(shape)
    # Four decimals, which the table cuts or rounds.
    assert compressor.layout(shape).downlink_bits / full.downlink_bits == pytest.approx(sent, abs=1e-4)
    assert compressor.nominal_ratios(shape) == (ratio, ratio)


@pytest.mark.parametrize(
    ("options", "batch", "tokens", "expected"),
    [
        ({"batch_ratio": 0.29, "token_ratio": 0.57}, 100, 100, (29, 57)),  # both products fall just short
        ({"batch_ratio": 0.7, "token_ratio": 0.7}, 10, 10, (7, 7)),
        ({"ratio": 1.0}, 128, 197, (128, 197)),
        ({"ratio": 0.25}, 128, 196, (64, 98)),
        ({"ratio": 1e-6}, 128, 197, (2, 1)),
        ({"ratio": 0.1}, 1, 17, (1, 5)),
        ({"ratio": 0.1}, 2, 17, (2, 5)),
        ({"ratio": 0.1}, 3, 1, (2, 1)),
    ],
)
def test_counts(options: dict[str, Any], batch: int, tokens: int, expected: tuple[int, int]) -> None:
    compressor = ADC(**options)
    assert (compressor.clusters(batch), compressor.kept_tokens(tokens)) == expected


def test_explicit_factors_replace_the_rule() -> None:
    compressor = ADC(ratio=0.5, rule="release2026", batch_ratio=0.5, token_ratio=0.25)
    shape = BatchShape(batch=8, tokens=16, width=4, classes=3)
    assert compressor.layout(shape).floats == (Floats((4, 4, 4)),)
    assert compressor.nominal_ratios(shape) == (0.125, 0.125)


def test_a_clients_own_ratio_is_divided_as_that_of_the_others() -> None:
    """By their rule; or the two logarithms, of samples and of tokens, keep their proportion."""
    assert ADC(**{"rule": "release2026", **ADC(rule="release2026").options_for(0.1)}).token_ratio == 0.1**0.25
    others = ADC(batch_ratio=0.9, token_ratio=0.2)
    same, half = ADC(**others.options_for(0.18)), ADC(**others.options_for(0.09))
    assert (same.batch_ratio, same.token_ratio) == pytest.approx((0.9, 0.2))
    assert half.ratio == pytest.approx(0.09) and half.batch_ratio == pytest.approx(0.9 ** (log(0.09) / log(0.18)))
    whole = ADC(batch_ratio=1.0, token_ratio=1.0).options_for(0.25)
    assert (whole["batch_ratio"], whole["token_ratio"]) == (0.5, 0.5)


def slow_adc(
    z: Tensor, y: Tensor, s: Tensor, cluster: list[int], kept: int, prefix: int, classes: int
) -> tuple[Tensor, Tensor]:
    """Equations 4 and 5 and the token choice, one cluster and one token after the other."""
    merged, labels = [], []
    for t in range(max(cluster) + 1):
        members = [i for i in range(len(z)) if cluster[i] == t]
        score = sum(s[i] for i in members) / len(members)
        assert isinstance(score, Tensor)
        rest = sorted(range(prefix, z.shape[1]), key=lambda n: (-float(score[n]), n))
        tokens = [*range(prefix), *rest[: kept - prefix]]
        merged.append(torch.stack([torch.stack([z[i, n] for i in members]).mean(0) for n in tokens]))
        label = torch.zeros(classes)
        for i in members:
            label[y[i]] += 1 / len(members)
        labels.append(label)
    return torch.stack(merged), torch.stack(labels)


@pytest.mark.parametrize("vector", ["cls_score", "cls_token", "avg_token"])
@pytest.mark.parametrize(("batch", "tokens", "prefix"), [(24, 17, 1), (24, 18, 2), (13, 50, 1), (3, 9, 5)])
def test_equals_loops(
    make_batch: Callable[..., tuple[Tensor, Tensor, Tensor]],
    vector: str,
    batch: int,
    tokens: int,
    prefix: int,
    device: str,
) -> None:
    z, y, s = make_batch(batch, tokens, 6, device=device)
    compressor = ADC(ratio=0.15, vector=vector)
    assert compressor.bind(tokens=tokens, width=6, prefix_tokens=prefix) is compressor
    start = torch.randperm(batch)[: compressor.clusters(batch)]
    payload = compressor.compress(z, y, s, start=start)
    cluster = payload.integers[0]

    seen = {"cls_score": s, "cls_token": z[:, 0], "avg_token": z.mean(1)}[vector]
    assert torch.equal(cluster, kmeans(seen, start.to(device))[0])

    shape = BatchShape(batch=batch, tokens=tokens, width=6, classes=10)
    received, targets = compressor.decompress(payload, shape)
    kept = compressor.kept_tokens(tokens)
    copy = z.detach().cpu().requires_grad_()
    expected, labels = slow_adc(copy, y.cpu(), s.cpu(), cluster.tolist(), kept, prefix, 10)
    assert kept >= prefix
    torch.testing.assert_close(received.cpu(), expected)
    torch.testing.assert_close(targets.cpu(), labels)

    weights = torch.randn(expected.shape)
    (received.pow(3) * weights.to(device)).sum().backward()
    (expected.pow(3) * weights).sum().backward()
    assert z.grad is not None and copy.grad is not None
    torch.testing.assert_close(z.grad.cpu(), copy.grad)


def test_prefix_tokens_come_first_whatever_their_score(
    make_batch: Callable[..., tuple[Tensor, Tensor, Tensor]],
) -> None:
    z, y, _ = make_batch(1, 6, 2)
    scores = torch.tensor([[0.0, 0.0, 0.3, 0.1, 0.4, 0.2]])
    compressor = ADC(batch_ratio=1.0, token_ratio=0.7).bind(tokens=6, width=2, prefix_tokens=2)
    assert torch.equal(compressor.compress(z, y, scores).floats[0], z[:, [0, 1, 4, 2]])
    ties = torch.full((1, 6), 0.1)
    assert torch.equal(compressor.compress(z, y, ties).floats[0], z[:, [0, 1, 2, 3]])


def test_ratio_one_sends_every_sample(make_batch: Callable[..., tuple[Tensor, Tensor, Tensor]]) -> None:
    z, y, s = make_batch(6, 5, 3)
    payload = ADC(ratio=1.0).compress(z, y, s, start=torch.arange(6))
    order = s[:, 1:].argsort(1, descending=True) + 1
    tokens = torch.cat([torch.zeros(6, 1, dtype=torch.int64), order], 1)
    assert torch.equal(payload.integers[0], torch.arange(6))
    assert torch.equal(payload.floats[0], torch.stack([z[i, tokens[i]] for i in range(6)]))


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_short_batches(make_batch: Callable[..., tuple[Tensor, Tensor, Tensor]], batch: int) -> None:
    z, y, s = make_batch(batch, 17, 4)
    compressor = ADC(ratio=0.1)
    received, targets = compressor.decompress(
        compressor.compress(z, y, s), BatchShape(batch=batch, tokens=17, width=4, classes=10)
    )
    assert received.shape == (min(2, batch), 5, 4)
    assert targets.shape == (min(2, batch), 10)
    torch.testing.assert_close(targets.sum(1), torch.ones(min(2, batch)))


def test_expand_gives_each_sample_its_clusters_logits(
    make_batch: Callable[..., tuple[Tensor, Tensor, Tensor]],
) -> None:
    payload = ADC(ratio=0.2).compress(*make_batch(12, 9, 4))
    clusters = payload.integers[0].tolist()
    logits = torch.randn(max(clusters) + 1, 10)
    expanded = ADC(ratio=0.2).expand(logits, payload)
    assert torch.equal(expanded, torch.stack([logits[t] for t in clusters]))


def test_start_comes_from_the_generator(make_batch: Callable[..., tuple[Tensor, Tensor, Tensor]]) -> None:
    z, y, s = make_batch(40, 17, 4)
    compressor = ADC(ratio=0.1)
    start = torch.randperm(40, generator=torch.Generator().manual_seed(7))[: compressor.clusters(40)]
    drawn = compressor.compress(z, y, s, generator=torch.Generator().manual_seed(7))
    assert torch.equal(drawn.integers[0], compressor.compress(z, y, s, start=start).integers[0])
    other = compressor.compress(z, y, s, generator=torch.Generator().manual_seed(8))
    assert not torch.equal(drawn.integers[0], other.integers[0])


def test_start_of_the_wrong_length(make_batch: Callable[..., tuple[Tensor, Tensor, Tensor]]) -> None:
    z, y, s = make_batch(40, 17, 4)
    with pytest.raises(ValueError, match=r"start must have shape \(12,\), got \(3,\)"):
        ADC(ratio=0.1).compress(z, y, s, start=torch.arange(3))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_never_waits_for_the_device_but_to_end_kmeans(
    make_batch: Callable[..., tuple[Tensor, Tensor, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compressors.adc.kmeans", partial(kmeans, look_every=1000))
    z, y, s = make_batch(40, 17, 4, device="cuda")
    start = torch.arange(12, device="cuda")
    compressor = ADC(ratio=0.1)
    torch.cuda.set_sync_debug_mode("error")
    try:
        payload = compressor.compress(z, y, s, start=start)
        compressor.decompress(payload, BatchShape(batch=40, tokens=17, width=4, classes=10))[0].sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
