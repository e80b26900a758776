"""Encoded images of any kind to RGB, and back to bytes after shrinking."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageOps

_LOSSY = {"JPEG", "MPO"}


def decode(encoded: bytes) -> Image.Image:
    """The RGB image in `encoded`, turned upright as its EXIF data says; the first frame of an animation.

    Raises:
        Exception: Whatever Pillow raises for bytes that are no image, or a broken one.
    """
    return rgb(upright(encoded))


def upright(encoded: bytes) -> Image.Image:
    """The same in the image's own mode."""
    with Image.open(io.BytesIO(encoded)) as image:
        image.load()
        return ImageOps.exif_transpose(image) if image.getexif() else image.copy()


def used_bits(image: Image.Image) -> int | None:
    """Of a grey image that has room for more than 8 bits, those that its levels need: 8 or 16; None for any other.

    Raises:
        ValueError: It holds something else than whole numbers of 8 or 16 bits.
    """
    if image.mode == "F":
        raise ValueError("its levels are floats; save whole numbers of 8 or 16 bits")
    if not image.mode.startswith("I"):
        return None
    levels = np.asarray(image)
    least, most = int(levels.min()), int(levels.max())
    if least < 0 or most >= 1 << 16:
        raise ValueError(f"its levels go from {least} to {most}; save whole numbers of 8 bits (0-255) or 16 (0-65535)")
    return 8 if most < 1 << 8 else 16


def rgb(image: Image.Image, bits: int | None = None) -> Image.Image:
    """An image of any mode as RGB.

    Args:
        image: As Pillow has opened it.
        bits: How many bits a grey image with room for more than 8 is scaled from; None: those that it uses.

    Raises:
        ValueError: It holds something else than whole numbers of 8 or 16 bits, or needs more than `bits`.
    """
    if image.mode == "RGB":
        return image
    if (used := used_bits(image)) is not None:  # Pillow would clip at 255 instead of scaling
        bits = bits or used
        if used > bits:
            raise ValueError("its levels are of 16 bits, those of the training images of 8; save both alike")
        return Image.fromarray((np.asarray(image).astype(np.int64) >> (bits - 8)).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def png(image: Image.Image) -> bytes:
    """The image as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def shrink(encoded: bytes, image: Image.Image, max_side: int) -> tuple[bytes, Image.Image]:
    """Brings the longer side down to `max_side` pixels; smaller images stay as they are, to the byte.

    Photographs stay JPEG (quality 95, colours not subsampled), everything else becomes PNG.

    Returns:
        The encoded image and its pixels.
    """
    scale = max_side / max(image.size)
    if scale >= 1:
        return encoded, image
    width, height = (max(1, round(side * scale)) for side in image.size)
    small = image.resize((width, height), Image.Resampling.LANCZOS)
    with Image.open(io.BytesIO(encoded)) as original:
        lossy = original.format in _LOSSY
    if not lossy:
        return png(small), small
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue(), decode(buffer.getvalue())
