"""ADC's options for skewed data against a few lines of plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from compressors import BatchShape, build
from compressors.adc import ADC

Batch = tuple[Tensor, Tensor, Tensor]


def lloyd_by_class(x: Tensor, y: Tensor, start: list[int]) -> Tensor:
    """Every class has its own K-means; all stop together."""
    centroids = x[start].clone()
    for _ in range(50):
        cluster = torch.zeros(len(x), dtype=torch.int64)
        for label in y.unique():
            own = [t for t, sample in enumerate(start) if y[sample] == label]
            distances = (x[y == label].unsqueeze(1) - centroids[own]).square().sum(2)
            cluster[y == label] = torch.tensor(own)[distances.argmin(1)]
        new = torch.stack([x[cluster == t].mean(0) for t in range(len(start))])
        shift = (new - centroids).norm(dim=1).sum()
        centroids = new
        if shift**2 < 1e-4:
            break
    return cluster


@pytest.mark.parametrize("vector", ["cls_score", "cls_token"])
@pytest.mark.parametrize("seed", range(5))
def test_clusters_within_a_class(make_batch: Callable[..., Batch], vector: str, seed: int, device: str) -> None:
    z, y, s = make_batch(40, 17, 6, classes=5, seed=seed, device=device)
    adc = ADC(ratio=0.1, vector=vector, merge="within_class")
    payload = adc.compress(z, y, s, generator=torch.Generator().manual_seed(seed))
    cluster = payload.integers[0].cpu()
    order = torch.randperm(40, generator=torch.Generator().manual_seed(seed)).tolist()
    first = [i for at, i in enumerate(order) if y[i] not in y[order[:at]]]
    start = [*first, *(i for i in order if i not in first)][: adc.clusters(40)]
    expected = lloyd_by_class((s if vector == "cls_score" else z.detach()[:, 0]).cpu(), y.cpu(), start)
    assert len(expected.unique()) == len(start)  # none was empty
    assert torch.equal(cluster, expected)
    _, targets = adc.decompress(payload, BatchShape(batch=40, tokens=17, width=6, classes=5))
    assert targets.max(1).values.eq(1).all()  # all of them hard


def test_classes_stay_apart_whatever_the_samples() -> None:
    """Alike samples, whose empty clusters are refilled; single ones of a class; large labels."""
    adc = ADC(batch_ratio=0.5, token_ratio=1.0, merge="within_class")
    for y in (torch.tensor([0] * 13 + [1, 2, 999]), torch.arange(8).repeat(2), torch.arange(992, 1000).repeat(2)):
        s = torch.full((16, 5), 0.2)
        payload = adc.compress(torch.randn(16, 5, 3), y, s, generator=torch.Generator().manual_seed(1))
        cluster = payload.integers[0]
        assert set(cluster.tolist()) == set(range(8))
        assert all(len(y[cluster == t].unique()) == 1 for t in range(8))


def test_more_classes_than_clusters_are_merged_as_any(make_batch: Callable[..., Batch]) -> None:
    z, _, s = make_batch(12, 9, 4)
    y = torch.arange(12)
    found, plain = (
        ADC(ratio=0.2, merge=merge).compress(z, y, s, generator=torch.Generator().manual_seed(2))
        for merge in ("within_class", "any")
    )
    assert torch.equal(found.integers[0], plain.integers[0]) and torch.equal(found.floats[0], plain.floats[0])


@pytest.mark.parametrize("merge", ["any", "within_class"])
def test_the_loss_counts_members(make_batch: Callable[..., Batch], merge: str, device: str) -> None:
    z, y, s = make_batch(30, 9, 6, classes=4, device=device)
    shape = BatchShape(batch=30, tokens=9, width=6, classes=4)
    plain, sized = (ADC(ratio=0.2, merge=merge, loss_weight=weight) for weight in ("none", "size"))
    payload = sized.compress(z, y, s, generator=torch.Generator().manual_seed(3))
    head = torch.randn(6, 4, generator=torch.Generator().manual_seed(4)).to(device)
    cluster = payload.integers[0]
    received, soft = plain.decompress(payload, shape)
    each = -(soft * (received.mean(1) @ head).log_softmax(1)).sum(1)
    members = torch.stack([(cluster == t).sum() for t in range(len(each))])
    merged, targets = sized.decompress(payload, shape)
    assert len(members.unique()) > 1
    torch.testing.assert_close(F.cross_entropy(merged.mean(1) @ head, targets), (members * each).sum() / 30)
    torch.testing.assert_close(F.cross_entropy(merged.mean(1) @ head, soft), each.mean())


def test_a_cohort_has_them_as_well(make_batch: Callable[..., Batch]) -> None:
    z, y, s = make_batch(24, 9, 6, classes=4)
    adc = ADC(ratio=0.2, merge="within_class", loss_weight="size", scope="cohort")
    parts = list(zip(z.detach().split([10, 14]), y.split([10, 14]), s.split([10, 14])))
    assert adc.cohort is not None
    shares = adc.cohort.plan(
        [adc.cohort.propose(*part) for part in parts], generator=torch.Generator().manual_seed(5)
    )  # fmt: skip
    sent = [adc.cohort.compress(part[0], share.told) for part, share in zip(parts, shares)]
    joined = adc.cohort.join(sent, shares, 4)
    whole = adc.compress(z, y, s, generator=torch.Generator().manual_seed(5))
    merged, targets = adc.decompress(whole, BatchShape(batch=24, tokens=9, width=6, classes=4))
    torch.testing.assert_close(joined.activations, merged)
    assert torch.equal(joined.targets, targets) and targets.gt(0).sum(1).eq(1).all()


def test_neither_costs_anything() -> None:
    shape = BatchShape(batch=16, tokens=9, width=6, classes=4)
    assert build("adc", merge="within_class", loss_weight="size").layout(shape) == build("adc").layout(shape)
    with pytest.raises(ValueError, match=r"compressor\.merge must be one of any, within_class, got 'class'"):
        build("adc", merge="class")
    with pytest.raises(ValueError, match=r"compressor\.loss_weight must be one of none, size, got 'members'"):
        build("adc", loss_weight="members")
