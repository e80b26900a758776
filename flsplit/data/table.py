"""One split as memory-mapped files: pixels where all images have one small size, encoded bytes otherwise."""

from __future__ import annotations

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
    ) -> None:
        """A table of `pixels`, (n, H, W, C) uint8 with C 1 or 3, or of encoded images.

        Image i of an encoded table is ``blob[offsets[i]:offsets[i + 1]]``.
        """
        assert (pixels is None) != (blob is None or offsets is None)
        self.labels = labels
        self._pixels = pixels
        self._blob = blob
        self._offsets = offsets

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
        pixels = folder / f"{split}.pixels.npy"
        if pixels.exists():
            return cls(labels, pixels=np.load(pixels, mmap_mode="c"))
        offsets = np.load(folder / f"{split}.offsets.npy")
        return cls(labels, blob=np.memmap(folder / f"{split}.blob", np.uint8, mode="c"), offsets=offsets)


class TableWriter:
    """Writes a table image by image; which of the two forms it takes shows at the end."""

    def __init__(self, folder: Path, split: str, labels: np.ndarray) -> None:
        """Starts the table `split` of ``len(labels)`` images in `folder`."""
        self._folder, self._split, self._labels = folder, split, labels
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
        if self._pixels is not None:
            self._pixels.flush()
            (self._folder / f"{self._split}.blob").unlink()
        else:
            self._pixels_path.unlink(missing_ok=True)
            np.save(self._folder / f"{self._split}.offsets.npy", np.array(self._offsets, np.int64))
