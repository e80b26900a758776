"""The digits that ship with scikit-learn: 1,797 grey images of 8x8 pixels, ten classes; needs no download."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from flsplit.data.sources.reader import Source, Split, no_column
from flsplit.data.subset import stratified
from flsplit.streams import numpy_stream

_TEST_SAMPLES = 360  # a fifth; the same ones whatever the seed of the run


def check(columns: Sequence[str]) -> None:
    """Refuse further columns.

    Raises:
        DataError: Some are asked for.
    """
    if columns:
        raise no_column(columns[0], (), "dataset=digits")


def source(columns: Sequence[str]) -> Source:
    """The digits with a fixed stratified split: 1,437 to train, 360 to test."""
    from sklearn.datasets import load_digits

    check(columns)
    digits = load_digits()
    labels = digits.target.astype(np.int64)
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    test = stratified(labels, _TEST_SAMPLES, numpy_stream(0, "digits", "test"))
    train = np.setdiff1d(np.arange(len(labels)), test)
    return Source(
        _split(pixels[train], labels[train]),
        _split(pixels[test], labels[test]),
        tuple(str(name) for name in digits.target_names),
    )


def _split(pixels: np.ndarray, labels: np.ndarray) -> Split:
    def read(rows: np.ndarray) -> Iterator[bytes | np.ndarray]:
        yield from pixels[rows]

    return Split(labels, read, lambda row: f"dataset=digits: image {row}")
