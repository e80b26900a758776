"""FedLite: its quantiser beside scikit-learn's, and its gradient by hand."""

from __future__ import annotations

import pytest
import torch
from sklearn.cluster import KMeans

from compressors import BatchShape, build
from flsplit.split.codec import pack, unpack
from flsplit.split.stages import Stages, go_back

SHAPE = BatchShape(batch=6, tokens=5, width=8, classes=10)
KEY = (0, 1, 0)


def batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    z = torch.randn(6, 5, 8, generator=torch.Generator().manual_seed(seed)).requires_grad_()
    return z, torch.arange(6) % 10


@pytest.mark.parametrize("groups", [1, 2])
def test_codebooks_are_those_of_k_means(groups: int) -> None:
    z, y = batch()
    made = build("fedlite", pieces=4, codewords=5, groups=groups, iterations=50)
    payload = made.compress(z, y, None, generator=torch.Generator().manual_seed(3))
    books, codes = payload.floats[0], payload.integers[0]
    stream = torch.Generator().manual_seed(3)
    pieces = z.detach().view(6, 5, groups, 4 // groups, 2)
    for group in range(groups):
        rows = pieces[:, :, group].reshape(-1, 2)
        start = torch.randperm(len(rows), generator=stream)[:5]
        reference = KMeans(5, init=rows[start].numpy(), n_init=1, max_iter=50, tol=1e-4, algorithm="lloyd").fit(rows)
        own = codes.view(6, 5, groups, 4 // groups)[:, :, group].reshape(-1)
        assert torch.equal(own, torch.from_numpy(reference.labels_).long())
        torch.testing.assert_close(books[group], torch.from_numpy(reference.cluster_centers_).float())


def test_what_arrives_is_the_mean_of_each_cluster() -> None:
    z, y = batch()
    made = build("fedlite", pieces=2, codewords=4)
    payload = made.compress(z, y, None, generator=torch.Generator().manual_seed(3))
    received, targets = made.decompress(payload, SHAPE)
    rows, codes = z.detach().view(-1, 4), payload.integers[0].view(-1)
    for code in range(4):
        member = received.detach().view(-1, 4)[codes == code]
        torch.testing.assert_close(member, rows[codes == code].mean(0).expand_as(member))
    assert torch.equal(targets, y)


@pytest.mark.parametrize("correction", [0.0, 0.5])
def test_gradients_pass_straight_with_the_papers_correction(correction: float) -> None:
    z, y = batch()
    made = build("fedlite", pieces=2, codewords=4, correction=correction)
    both = Stages(made)
    kept = both.compress(z, y, None, SHAPE, generator=torch.Generator().manual_seed(3), key=KEY)
    uplink = both.uplink(kept, SHAPE, key=KEY)
    crossed = unpack(pack(uplink, both.route(SHAPE).up[-1]), layout=both.route(SHAPE).up[-1], shape=SHAPE)
    assert crossed.payload.floats[1].shape == (6, 5, 8) and not crossed.payload.floats[1].any()
    arrived = both.received(uplink, torch.device("cpu"))
    received, _ = both.decompress(arrived, uplink)
    weights = torch.randn(6, 5, 8, generator=torch.Generator().manual_seed(4))
    (weights * received).sum().backward()
    downlink = both.downlink(uplink, arrived)
    assert [tuple(t.shape) for t in downlink.payload.floats] == [(6, 5, 8)]
    go_back(list(both.answered(kept, uplink, downlink)))
    expected = weights + correction / 6 * (z.detach() - received.detach())
    assert z.grad is not None
    torch.testing.assert_close(z.grad, expected)


def test_the_price_is_the_papers() -> None:
    layout = build("fedlite", pieces=4, codewords=5, groups=2).layout(SHAPE)
    assert layout.uplink_bits == 2 * 5 * 2 * 32 + 6 * 5 * 4 * 3 + 6 * 4
    assert layout.downlink_bits == 6 * 5 * 8 * 32
    assert build("fedlite", pieces=1, codewords=100).layout(SHAPE).integers[0].below == 30  # as many as there are


@pytest.mark.slow
def test_it_learns(tmp_path: object) -> None:
    import flsplit

    keys = ["engine=inline", "clients=1", "rounds=3", "dataset.train_limit=400", "dataset.test_limit=100", "lr=0.003"]
    run = flsplit.run([*keys, "compressor=fedlite", f"out={tmp_path}/run"])
    assert run.rounds.train_loss.iloc[-1] < run.rounds.train_loss.iloc[0] and run.summary["xi"] < 0.6


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"pieces": 0}, "compressor.pieces must be at least 1, got 0"),
        ({"codewords": -1}, "compressor.codewords must be at least 1, got -1"),
        ({"pieces": 4, "groups": 3}, "compressor.groups must divide compressor.pieces (4), got 3"),
        ({"correction": -1.0}, "compressor.correction must be a number of at least 0, got -1.0"),
        ({"correction": float("nan")}, "compressor.correction must be a number of at least 0, got nan"),
    ],
)
def test_what_cannot_be_is_one_line(options: dict[str, object], line: str) -> None:
    with pytest.raises(ValueError) as raised:
        build("fedlite", **options)
    assert str(raised.value) == line
    with pytest.raises(ValueError, match=r"pieces must divide the width of tokens \(10\), got 16"):
        build("fedlite").check(batch_size=4, tokens=5, width=10)
