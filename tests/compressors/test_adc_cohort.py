"""ADC over several clients against ADC on their samples in one batch, and what each message of it costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from compressors import BatchShape, Payload, Share, build
from compressors.adc import ADC
from compressors.adc_cohort import AdcCohort

Batch = tuple[Tensor, Tensor, Tensor]
SIZES = (7, 1, 12)
TOKENS, WIDTH, CLASSES = 17, 6, 10


def cohort_of(adc: ADC) -> AdcCohort:
    assert isinstance(adc.cohort, AdcCohort)
    return adc.cohort


def parts_of(batch: Batch, sizes: Sequence[int]) -> list[Batch]:
    """The batch cut into those of several clients, each with activations of its own to ask for a gradient."""
    z, y, s = batch
    each = zip(z.detach().split(list(sizes)), y.split(list(sizes)), s.split(list(sizes)))
    return [(z.clone().requires_grad_(), y, s) for z, y, s in each]


def sent(adc: ADC, parts: Sequence[Batch], start: Tensor) -> tuple[list[Payload], list[Share]]:
    """What the clients send, and their shares."""
    cohort = cohort_of(adc)
    shares = cohort.plan([cohort.propose(*part) for part in parts], start=start)
    return [cohort.compress(z, share.told) for (z, _, _), share in zip(parts, shares)], shares


def leaves(payloads: Sequence[Payload]) -> list[Payload]:
    """As received: detached, to be asked for gradients."""
    return [Payload((p.floats[0].detach().requires_grad_(),)) for p in payloads]


@pytest.mark.parametrize("vector", ["cls_score", "cls_token", "avg_token"])
@pytest.mark.parametrize("prefix", [1, 2])
def test_three_clients_are_one_batch(make_batch: Callable[..., Batch], vector: str, prefix: int, device: str) -> None:
    batch = make_batch(sum(SIZES), TOKENS, WIDTH, device=device)
    adc = ADC(ratio=0.3, vector=vector, scope="cohort").bind(tokens=TOKENS, width=WIDTH, prefix_tokens=prefix)
    start = torch.randperm(sum(SIZES), generator=torch.Generator().manual_seed(5))[: adc.clusters(sum(SIZES))]
    whole = adc.compress(*batch, start=start)
    cluster, clusters = whole.integers[0], len(whole.floats[0])

    parts = parts_of(batch, SIZES)
    payloads, shares = sent(adc, parts, start)
    found = torch.cat([share.clusters[share.told.integers[0]] for share in shares])
    assert torch.equal(found, cluster)
    assert any(share.groups < clusters for share in shares) and sum(share.groups for share in shares) > clusters
    tokens = torch.stack([share.told.integers[1][group] for share in shares for group in share.told.integers[0]])
    _, chosen = adc.grouped(*adc.compared(batch[0], batch[2]), batch[1], start=start)
    assert torch.equal(tokens, chosen[cluster][:, prefix:] - prefix)

    received = leaves(payloads)
    joined = cohort_of(adc).join(received, shares, CLASSES)
    shape = BatchShape(batch=sum(SIZES), tokens=TOKENS, width=WIDTH, classes=CLASSES)
    expected, targets = adc.decompress(whole, shape)
    torch.testing.assert_close(joined.activations, expected)
    assert torch.equal(joined.targets, targets)
    assert all(torch.equal(row, share.clusters) for row, share in zip(joined.rows, shares))

    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(6)).to(device)
    (expected.pow(3) * weights).sum().backward()
    (joined.activations.pow(3) * weights).sum().backward()
    for payload, arrived in zip(payloads, received):
        payload.floats[0].backward(arrived.floats[0].grad)
    z = batch[0]
    assert z.grad is not None
    torch.testing.assert_close(torch.cat([own.grad for own, _, _ in parts]), z.grad)


def test_one_client_is_the_client_alone_to_the_bit(make_batch: Callable[..., Batch], device: str) -> None:
    z, y, s = make_batch(24, TOKENS, WIDTH, device=device)
    alone, adc = ADC(ratio=0.2), ADC(ratio=0.2, scope="cohort")
    cohort, shape = cohort_of(adc), BatchShape(batch=24, tokens=TOKENS, width=WIDTH, classes=CLASSES)

    def generator() -> torch.Generator:
        return torch.Generator().manual_seed(7)

    expected = alone.compress(z, y, s, generator=generator())
    [share] = cohort.plan([cohort.propose(z, y, s)], generator=generator())
    payload = cohort.compress(z, share.told)
    assert torch.equal(payload.floats[0], expected.floats[0])
    assert torch.equal(share.told.integers[0], expected.integers[0])
    [received] = leaves([payload])
    joined, (merged, targets) = cohort.join([received], [share], CLASSES), alone.decompress(expected, shape)
    assert torch.equal(joined.activations, merged) and torch.equal(joined.targets, targets)
    F.cross_entropy(joined.activations.mean(1) @ torch.eye(WIDTH, CLASSES, device=device), joined.targets).backward()
    gradient = received.floats[0].grad
    merged = merged.detach().requires_grad_()
    F.cross_entropy(merged.mean(1) @ torch.eye(WIDTH, CLASSES, device=device), targets).backward()
    assert gradient is not None and merged.grad is not None and torch.equal(gradient, merged.grad)


def test_who_drops_out_is_in_no_mean(make_batch: Callable[..., Batch]) -> None:
    """The clusters stay as they were planned; those of the client's samples alone are no more."""
    batch = make_batch(sum(SIZES), TOKENS, WIDTH)
    adc = ADC(ratio=0.3, scope="cohort")
    start = torch.arange(adc.clusters(sum(SIZES)))
    parts = parts_of(batch, SIZES)
    payloads, shares = sent(adc, parts, start)
    joined = cohort_of(adc).join([payloads[0], payloads[2]], [shares[0], shares[2]], CLASSES)
    left = sorted({*shares[0].clusters.tolist(), *shares[2].clusters.tolist()})
    assert len(joined.activations) == len(left)
    z, y, _ = batch
    cluster = torch.cat([share.clusters[share.told.integers[0]] for share in shares])
    there = torch.tensor([at for at in range(sum(SIZES)) if not SIZES[0] <= at < SIZES[0] + SIZES[1]])
    tokens = {c: share.told.integers[1][at] + 1 for share in shares for at, c in enumerate(share.clusters.tolist())}
    for row, t in enumerate(left):
        members = there[cluster[there] == t]
        kept = torch.cat([torch.zeros(1, dtype=torch.int64), tokens[t]])
        torch.testing.assert_close(joined.activations[row], z[members][:, kept].mean(0))
        torch.testing.assert_close(joined.targets[row], F.one_hot(y[members], CLASSES).float().mean(0))


def test_what_is_not_finite_spoils_no_cluster_of_others(make_batch: Callable[..., Batch]) -> None:
    z, y, s = make_batch(12, TOKENS, WIDTH)
    adc = ADC(ratio=0.3, scope="cohort")
    cohort = cohort_of(adc)
    spoilt = Payload((torch.full((4, TOKENS), torch.nan),), labels=y[:4])
    shares = cohort.plan([cohort.propose(z, y, s), spoilt], start=torch.arange(adc.clusters(16)))
    assert shares[0].groups >= 5  # of 8
    assert set(shares[1].told.integers[0].tolist()) == set(range(shares[1].groups))
    assert torch.isfinite(cohort.compress(z, shares[0].told).floats[0]).all()


def test_prices_by_hand() -> None:
    """Three clients with 4, 2 and 3 samples of 5 tokens (CLS among them) and width 8, k = 3, ten classes."""
    adc = ADC(batch_ratio=0.5, token_ratio=0.6, scope="cohort")
    cohort = cohort_of(adc)
    groups = (3, 1, 2)
    shapes = [BatchShape(batch=b, tokens=5, width=8, classes=10, groups=g) for b, g in zip((4, 2, 3), groups)]
    assert [cohort.proposal(shape).uplink_bits for shape in shapes] == [b * (5 * 32 + 4) for b in (4, 2, 3)]
    assert all(cohort.proposal(shape).downlink_bits == 0 for shape in shapes)
    # Groups: 4 of 3, 2 of 1, 3 of 2. Tokens: two of the four behind CLS for each group.
    assert [cohort.answer(shape).uplink_bits for shape in shapes] == [
        4 * 2 + 3 * 2 * 2,
        0 + 1 * 2 * 2,
        3 * 1 + 2 * 2 * 2,
    ]
    vectors = [3 * 3 * 8 * 32, 1 * 3 * 8 * 32, 2 * 3 * 8 * 32]
    assert [cohort.layout(shape).uplink_bits for shape in shapes] == vectors
    assert [cohort.layout(shape).downlink_bits for shape in shapes] == vectors
    other = cohort_of(ADC(batch_ratio=0.5, token_ratio=0.6, vector="cls_token", scope="cohort"))
    assert other.proposal(shapes[0]).uplink_bits == 4 * ((5 + 8) * 32 + 4)


@pytest.mark.parametrize("vector", ["cls_score", "avg_token"])
@pytest.mark.parametrize(("ratio", "prefix"), [(0.3, 1), (1.0, 1), (1e-6, 1), (0.3, 17)])
def test_layouts_are_what_is_sent(make_batch: Callable[..., Batch], vector: str, ratio: float, prefix: int) -> None:
    adc = ADC(ratio=ratio, vector=vector, scope="cohort").bind(tokens=TOKENS, width=WIDTH, prefix_tokens=prefix)
    cohort, parts = cohort_of(adc), parts_of(make_batch(sum(SIZES), TOKENS, WIDTH), SIZES)
    payloads, shares = sent(adc, parts, torch.arange(adc.clusters(sum(SIZES))))
    for (z, y, s), payload, share in zip(parts, payloads, shares):
        shape = BatchShape(batch=len(z), tokens=TOKENS, width=WIDTH, classes=CLASSES, groups=share.groups)
        cohort.proposal(shape).check(cohort.propose(z, y, s))
        cohort.answer(shape).check(share.told)
        cohort.layout(shape).check(payload)
        few, many = cohort.bounds(BatchShape(batch=len(z), tokens=TOKENS, width=WIDTH, classes=CLASSES))
        for layout in (cohort.layout, cohort.answer):
            assert layout(few).uplink_bits <= layout(shape).uplink_bits <= layout(many).uplink_bits


def test_alone_it_is_the_same_method() -> None:
    shape = BatchShape(batch=8, tokens=16, width=4, classes=3)
    assert build("adc", scope="cohort").layout(shape) == build("adc").layout(shape)
    assert build("adc").cohort is None and build("topk").cohort is None


def test_scopes() -> None:
    with pytest.raises(ValueError, match=r"compressor\.scope must be one of client, cohort, got 'all'"):
        build("adc", scope="all")
    with pytest.raises(ValueError, match=r"compressor.scope is not an option of topk.*its options are rate"):
        build("topk", scope="cohort")
    adc = ADC(scope="cohort")
    with pytest.raises(ValueError, match=r"start must have shape \(4,\), got \(3,\)"):
        cohort_of(adc).plan([Payload((torch.rand(8, 5),), labels=torch.arange(8))], start=torch.arange(3))
