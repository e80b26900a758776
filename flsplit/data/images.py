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
    with Image.open(io.BytesIO(encoded)) as image:
        image.load()
        return _rgb(ImageOps.exif_transpose(image) if image.getexif() else image)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image.copy()
    if image.mode.startswith("I"):  # 16-bit grey: Pillow would clip at 255 instead of scaling
        levels = np.asarray(image).astype(np.int64)
        return Image.fromarray((levels >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


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
    buffer = io.BytesIO()
    if lossy:
        small.save(buffer, "JPEG", quality=95, subsampling=0)
    else:
        small.save(buffer, "PNG")
    return buffer.getvalue(), decode(buffer.getvalue())
