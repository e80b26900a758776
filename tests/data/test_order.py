import numpy as np
import pytest

from flsplit.data.order import step_indices, step_sizes


@pytest.mark.parametrize(
    ("samples", "batch", "epochs", "steps", "group", "expected"),
    [
        (100, 32, 1, None, 1, [32] * 3),
        (96, 32, 2, None, 1, [32] * 6),
        (20, 32, 1, None, 1, [20]),
        (20, 32, 3, None, 1, [20] * 3),
        (20, 32, 1, None, 8, [16]),
        (16, 32, 1, None, 8, [16]),
        (8, 32, 1, None, 8, [8]),
        (5, 32, 1, None, 8, [5]),
        (1, 32, 1, None, 8, [1]),
        (100, 32, 1, 2, 1, [32] * 2),
        (100, 32, 1, 7, 1, [32] * 7),
        (100, 32, None, 3, 1, [32] * 3),
        (20, 32, None, 4, 8, [16] * 4),
        (100, 32, 0, None, 1, []),
        (100, 32, None, 0, 1, []),
        (0, 32, 1, None, 1, []),
        (0, 32, None, 5, 1, []),
    ],
)
def test_sizes(
    samples: int, batch: int, epochs: int | None, steps: int | None, group: int, expected: list[int]
) -> None:
    assert step_sizes(samples, batch, epochs, steps, group) == expected


def test_neither_epochs_nor_steps() -> None:
    with pytest.raises(ValueError, match="local_epochs and local_steps"):
        step_sizes(100, 32, None, None)


def order(samples: int, sizes: list[int], *, seed: int = 0, client: int = 0, round: int = 0) -> list[np.ndarray]:
    indices = np.arange(samples) * 2 + 1000
    return list(step_indices(indices, sizes, seed=seed, client=client, round=round))


def test_an_epoch_meets_each_sample_at_most_once() -> None:
    steps = order(100, step_sizes(100, 32, 2))
    assert [len(step) for step in steps] == [32] * 6
    first, second = np.concatenate(steps[:3]), np.concatenate(steps[3:])
    for epoch in (first, second):
        assert len(np.unique(epoch)) == 96
        assert set(epoch) <= set(range(1000, 1200, 2))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("group", [1, 8, 19])
def test_a_short_batch_changes_from_epoch_to_epoch(group: int) -> None:
    sizes = step_sizes(20, 32, 5, None, group)
    steps = order(20, sizes)
    assert [len(step) for step in steps] == sizes
    assert len({tuple(step) for step in steps}) == 5
    assert all(len(np.unique(step)) == len(step) for step in steps)


def test_steps_beyond_an_epoch_go_on_with_the_next() -> None:
    long, epochs = order(100, [32] * 7), order(100, [32] * 6)
    assert len(long) == 7
    assert all(np.array_equal(a, b) for a, b in zip(long, epochs))


def test_the_order_has_its_own_key() -> None:
    base = np.concatenate(order(100, [32] * 3))
    assert np.array_equal(base, np.concatenate(order(100, [32] * 3)))
    for other in ({"seed": 1}, {"client": 1}, {"round": 1}):
        assert not np.array_equal(base, np.concatenate(order(100, [32] * 3, **other)))
