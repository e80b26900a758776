"""Tensors in one piece of memory: what is written is read, and every view is where kernels expect it."""

from __future__ import annotations

import pytest
import torch

from flsplit.split.packed import Packed


@pytest.mark.parametrize("shapes", [[], [(3,)], [(16,), (4, 8)], [(3, 5), (), (64,), (17,), (32,), (2,)]])
def test_values_go_in_and_come_out_without_gaps(shapes: list[tuple[int, ...]]) -> None:
    tensors = [torch.randn(shape) for shape in shapes]
    packed = Packed(tensors, torch.device("cpu"))
    expected = torch.cat([torch.zeros(0), *(t.reshape(-1) for t in tensors)])
    assert packed.size == len(expected) and torch.equal(packed.read(), expected)
    packed.write(-expected)
    assert all(torch.equal(view, -t) for view, t in zip(packed.views, tensors, strict=True))
    for number, view in enumerate(packed.views):
        view.fill_(number)
    assert packed.read().tolist() == [n for n, t in enumerate(tensors) for _ in range(t.numel())]
    packed.clear()
    assert set(packed.read().tolist()) <= {0}


def test_views_lie_where_torch_would_put_tensors_and_reads_are_copies() -> None:
    packed = Packed([torch.ones(3), torch.ones(33), torch.ones(16)], torch.device("cpu"))
    assert all(view.data_ptr() % 64 == 0 for view in packed.views)
    before = packed.read()
    packed.clear()
    assert before.tolist() == [1] * 52
