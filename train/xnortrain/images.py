# SPDX-License-Identifier: Apache-2.0
"""From the bytes of a JPEG or PNG file to a network's input tensor, as docs/model-format.md, "Images", states it: byte for byte what the daemon makes of the
same file. Pillow decodes (its JPEG decoder is libjpeg-turbo, as the daemon's); everything behind the decoder is here."""

from __future__ import annotations

import functools
import io
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

PRECISION_BITS = 22
SCALED_SIDE_MIN = 8
TAG_ORIENTATION = 0x0112
TYPE_SHORT = 3


class ImageError(ValueError):
    """A file that is not a picture which the format knows."""


def _tiff_orientation(tiff: bytes) -> int:
    if tiff[:4] not in (b"II*\0", b"MM\0*"):
        return 1
    order = "<" if tiff[:1] == b"I" else ">"
    try:
        directory, = struct.unpack_from(order + "I", tiff, 4)
        entries, = struct.unpack_from(order + "H", tiff, directory)
        for entry in range(entries):
            tag, kind, _, value, _ = struct.unpack_from(order + "HHIHH", tiff, directory + 2 + 12 * entry)
            if tag == TAG_ORIENTATION:
                return value if kind == TYPE_SHORT and 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


def _exif_segments(jpeg: bytes) -> Iterator[tuple[int, int]]:
    """(first byte, byte behind) of the segments before the first scan that hold EXIF."""
    at = 2
    while at + 4 <= len(jpeg) and jpeg[at] == 0xFF:
        marker, end = jpeg[at + 1], at + 2 + int.from_bytes(jpeg[at + 2:at + 4], "big")
        if marker == 0xFF:
            at += 1
            continue
        if marker in (0xDA, 0xD9) or end < at + 4 or end > len(jpeg):
            break
        if marker == 0xE1 and jpeg[at + 4:end].startswith(b"Exif\0\0"):
            yield at, end
        at = end


def orientation(jpeg: bytes) -> int:
    """EXIF orientation of a JPEG file; 1 where there is none or it makes no sense."""
    first = next(_exif_segments(jpeg), None)
    return _tiff_orientation(jpeg[first[0] + 10:first[1]]) if first else 1


def _without_exif(jpeg: bytes) -> bytes:
    """What Pillow is given: it refuses a picture whose EXIF it cannot read."""
    for start, end in reversed(list(_exif_segments(jpeg))):
        jpeg = jpeg[:start] + jpeg[end:]
    return jpeg


def turn_upright(pixels: np.ndarray, orientation_: int) -> np.ndarray:
    """pixels [h][w][c]."""
    if orientation_ >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation_ in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation_ in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels


def jpeg_divisor(size: tuple[int, int], wanted: tuple[int, int]) -> int:
    """1 / DCT scale for a picture of `size` and a network's input of `wanted`, both as (axis, other axis)."""
    for s in (8, 4, 2):
        if all(-(-n // s) >= max(2 * m, SCALED_SIDE_MIN) for n, m in zip(size, wanted)):
            return s
    return 1


def _decode_jpeg(image: Image.Image, data: bytes, width: int, height: int, gray: bool) -> np.ndarray:
    if image.mode not in ("L", "RGB"):
        raise ImageError(f"a JPEG of mode {image.mode}")
    turned = orientation(data)
    s = jpeg_divisor(image.size, (height, width) if turned >= 5 else (width, height))
    wanted = tuple(-(-side // s) for side in image.size)
    # draft() takes the largest scale that keeps at least this size; it also says "Y only" to the decoder.
    image.draft("L" if gray else "RGB", (image.width // s, image.height // s))
    if image.size != wanted:
        raise ImageError(f"the decoder gives {image.size} at 1/{s}, not {wanted}")
    return turn_upright(_channels(np.asarray(image)), turned)


def _decode_png(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I"):  # grey of 16 bits
        return _channels((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    return _channels(np.asarray(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB")))


def _channels(pixels: np.ndarray) -> np.ndarray:
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def to_color(pixels: np.ndarray, gray: bool) -> np.ndarray:
    """[h][w][1 or 3] uint8 to one channel or to three."""
    if gray and pixels.shape[2] == 3:
        r, g, b = (pixels[:, :, c].astype(np.uint32) for c in range(3))
        return ((19595 * r + 38470 * g + 7471 * b + 32768) >> 16).astype(np.uint8)[:, :, None]
    return pixels if gray or pixels.shape[2] == 3 else pixels.repeat(3, axis=2)


def ratio(a: int, b: int, c: int) -> int:
    """a * b / c to nearest, halves up, at least 1."""
    return max(1, (2 * a * b + c) // (2 * c))


@functools.lru_cache(maxsize=256)
def axis_weights(n: int, m: int) -> np.ndarray:
    """int64 [m][n]: weight of each of n elements in each of m outputs, in units of 2^-22."""
    scale = n / m
    f = max(scale, 1.0)
    weights = np.zeros((m, n), np.int64)
    for i in range(m):
        centre = (i + 0.5) * scale
        lo, hi = max(int(centre - f + 0.5), 0), min(int(centre + f + 0.5), n)
        taps = [max(0.0, 1.0 - abs((k + lo - centre + 0.5) * (1.0 / f))) for k in range(hi - lo)]
        total = 0.0
        for tap in taps:
            total += tap
        weights[i, lo:hi] = [int(0.5 + (tap / total if total else tap) * (1 << PRECISION_BITS)) for tap in taps]
    return weights


def _resize_axis(pixels: np.ndarray, axis: int, m: int) -> np.ndarray:
    if pixels.shape[axis] == m:
        return pixels
    weights = axis_weights(pixels.shape[axis], m)
    # Sums are below 2^31, so exact in double, whose matrix product is fast.
    sums = np.tensordot(weights.astype(np.float64), pixels.astype(np.float64), (1, axis)).astype(np.int64)
    rounded = np.clip((sums + (1 << (PRECISION_BITS - 1))) >> PRECISION_BITS, 0, 255).astype(np.uint8)
    return np.moveaxis(rounded, 0, axis)


def resize(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """uint8 [h][w][c] to [height][width][c]."""
    return _resize_axis(_resize_axis(pixels, 1, width), 0, height)


def fit(pixels: np.ndarray, how: str, width: int, height: int) -> np.ndarray:
    """uint8 [h][w][c] to [height][width][c]; `how`: stretch, crop or pad."""
    h, w, channels = pixels.shape
    wide = w * height > h * width
    if how == "crop":
        box_w, box_h = (min(ratio(h, width, height), w), h) if wide else (w, min(ratio(w, height, width), h))
        x, y = (w - box_w) // 2, (h - box_h) // 2
        pixels = pixels[y:y + box_h, x:x + box_w]
    elif how == "pad":
        new_w, new_h = (width, min(ratio(h, width, w), height)) if wide else (min(ratio(w, height, h), width), height)
        x, y = (width - new_w) // 2, (height - new_h) // 2
        padded = np.zeros((height, width, channels), np.uint8)
        padded[y:y + new_h, x:x + new_w] = resize(pixels, new_w, new_h)
        return padded
    elif how != "stretch":
        raise ImageError(f"no such fit: {how}")
    return resize(pixels, width, height)


def normalise(pixels: np.ndarray, image: dict[str, Any], dtype: str) -> np.ndarray:
    """uint8 [h][w][c] to the input's type, as `multiplier`, `offset` and `shift` of `image` say."""
    channels, shift = pixels.shape[2], int(image.get("shift", 0))
    multiplier = np.asarray(image.get("multiplier", [1] * channels), np.int64)
    offset = np.asarray(image.get("offset", [0] * channels), np.int64)
    limits = np.iinfo(dtype)
    half = 1 << (shift - 1) if shift else 0
    return np.clip((multiplier * pixels + offset + half) >> shift, limits.min, limits.max).astype(dtype)


def decode(data: bytes, shape: tuple[int, int, int], image: dict[str, Any], dtype: str = "uint8") -> np.ndarray:
    """The input tensor `dtype` [h][w][c] of a network with input `shape` and metadata `input.image` from a picture's file `data`."""
    height, width, _ = shape
    gray = image["color"] == "gray"
    try:
        is_jpeg = data[:3] == b"\xff\xd8\xff"
        with Image.open(io.BytesIO(_without_exif(data) if is_jpeg else data), formats=("JPEG", "PNG")) as opened:
            pixels = _decode_jpeg(opened, data, width, height, gray) if is_jpeg else _decode_png(opened)
    except (OSError, SyntaxError, Image.DecompressionBombError) as broken:
        raise ImageError(str(broken)) from broken
    pixels = fit(to_color(pixels, gray), image.get("fit", "stretch"), width, height)
    return normalise(pixels, image, dtype)
