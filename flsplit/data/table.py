"""One split as memory-mapped files: pixels where all images have one small size, encoded bytes otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from flsplit.data.images import decode

UNIFORM_SIDE = 64  # pixels; larger images are kept encoded, even if all have one size


class Table:
    """Labels and images of one split; nothing is read before it is used.

    Attributes:
        labels: (n,) int64.
    """

    def __init__(
        self,
        labels: np.ndarray,
        *,
        pixels: np.ndarray | None = None,
        blob: np.ndarray | None = None,
        offsets: np.ndarray | None = None,
        columns: Path | None = None,
    ) -> None:
        """A table of `pixels`, (n, H, W, C) uint8 with C 1 or 3, or of encoded images.

        Image i of an encoded table is ``blob[offsets[i]:offsets[i + 1]]``. `columns` is the file of what else there
        is to a sample.
        """
        assert (pixels is None) != (blob is None or offsets is None)
        self.labels = labels
        self._pixels = pixels
        self._blob = blob
        self._offsets = offsets
        self._columns = columns

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def uniform(self) -> bool:
        """Whether the images have one size and lie there as pixels."""
        return self._pixels is not None

    @property
    def pixels(self) -> np.ndarray:
        """(n, H, W, C) uint8, C 1 (grey) or 3; only for uniform tables."""
        if self._pixels is None:
            raise AttributeError("images of many sizes have no common pixel array; use image(i)")
        return self._pixels

    def column(self, name: str) -> np.ndarray:
        """(n,) int64 or text: a further column that the table was built with (`load`); read at every call."""
        assert self._columns is not None, f"the table was built without {name}"
        with np.load(self._columns) as stored:
            return stored[f"arr_{stored['names'].tolist().index(name)}"]

    def encoded(self, index: int) -> bytes:
        """The encoded image `index`; only for tables that are not uniform."""
        if self._blob is None or self._offsets is None:
            raise AttributeError("a uniform table holds pixels, not encoded images")
        return self._blob[self._offsets[index] : self._offsets[index + 1]].tobytes()

    def image(self, index: int) -> Image.Image:
        """Image `index` in its native size, as RGB."""
        if self._pixels is None:
            return decode(self.encoded(index))
        pixels = np.ascontiguousarray(self._pixels[index])
        return Image.fromarray(pixels) if pixels.shape[-1] == 3 else Image.fromarray(pixels[..., 0]).convert("RGB")

    @classmethod
    def open(cls, folder: Path, split: str) -> Table:
        """Maps the files that a `TableWriter` left in `folder`.

        The maps are copy-on-write: all processes share the pages, and nothing can reach the files.
        """
        labels = np.load(folder / f"{split}.labels.npy")
        pixels, further = folder / f"{split}.pixels.npy", folder / f"{split}.columns.npz"
        columns = further if further.exists() else None
        if pixels.exists():
            return cls(labels, pixels=np.load(pixels, mmap_mode="c"), columns=columns)
        offsets = np.load(folder / f"{split}.offsets.npy")
        blob = np.memmap(folder / f"{split}.blob", np.uint8, mode="c")
        return cls(labels, blob=blob, offsets=offsets, columns=columns)


class TableWriter:
    """Writes a table image by image; which of the two forms it takes shows at the end."""

    def __init__(self, folder: Path, split: str, labels: np.ndarray, columns: Mapping[str, np.ndarray]) -> None:
        """Starts the table `split` of ``len(labels)`` images in `folder`, with further `columns` of that length."""
        self._folder, self._split, self._labels, self._columns = folder, split, labels, columns
        self._offsets = [0]
        self._blob = (folder / f"{split}.blob").open("wb")
        self._pixels: np.memmap | None = None
        self._pixels_path = folder / f"{split}.pixels.npy"
        self._count = 0

    def add(self, encoded: bytes, pixels: np.ndarray) -> None:
        """Appends one image: its bytes (empty if it has none) and its pixels (H, W, C)."""
        if self._count == 0 and max(pixels.shape[:2]) <= UNIFORM_SIDE:
            shape = (len(self._labels), *pixels.shape)
            self._pixels = np.lib.format.open_memmap(self._pixels_path, "w+", np.uint8, shape)
        if self._pixels is not None and pixels.shape == self._pixels.shape[1:]:
            self._pixels[self._count] = pixels
        else:
            self._pixels = None
        self._blob.write(encoded)
        self._offsets.append(self._offsets[-1] + len(encoded))
        self._count += 1

    def close(self) -> None:
        """Completes the table and drops the form that is not used."""
        assert self._count == len(self._labels)
        self._blob.close()
        np.save(self._folder / f"{self._split}.labels.npy", self._labels)
        if self._columns:
            names = np.array(list(self._columns))  # not as keywords: a column may have the name of one of NumPy's own
            np.savez(self._folder / f"{self._split}.columns.npz", *self._columns.values(), names=names)
        if self._pixels is not None:
            self._pixels.flush()
            (self._folder / f"{self._split}.blob").unlink()
        else:
            self._pixels_path.unlink(missing_ok=True)
            np.save(self._folder / f"{self._split}.offsets.npy", np.array(self._offsets, np.int64))
