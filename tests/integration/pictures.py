# SPDX-License-Identifier: Apache-2.0
"""Pictures for the tests of decoding: PNG files of every kind, written here chunk by chunk (Pillow writes few), JPEG files of many kinds, and random ones."""

from __future__ import annotations

import io
import random
import struct
import zlib

import numpy as np
from PIL import Image, ImageFile

ImageFile.MAXBLOCK = 1 << 22  # Pillow's buffer for a whole optimised file: its own guess is too small for noise
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGB_ALPHA: 4}
DEPTHS = {GREY: (1, 2, 4, 8, 16), RGB: (8, 16), PALETTE: (1, 2, 4, 8), GREY_ALPHA: (8, 16), RGB_ALPHA: (8, 16)}
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))  # x, y, step x, step y


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def ihdr(width: int, height: int, depth: int = 8, color: int = RGB, interlace: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlace))


def _packed_rows(samples: np.ndarray, depth: int) -> np.ndarray:
    """uint16 [h][w][c] -> uint8 [h][row bytes]."""
    flat = samples.reshape(samples.shape[0], -1)
    if depth == 16:
        return flat.astype(">u2").view(np.uint8)
    if depth == 8:
        return flat.astype(np.uint8)
    bits = (flat[:, :, None] >> np.arange(depth - 1, -1, -1)) & 1
    return np.packbits(bits.reshape(flat.shape[0], -1).astype(np.uint8), axis=1)


def _filtered(rows: np.ndarray, bytes_a_pixel: int, chooser: random.Random) -> bytes:
    """Each row with a filter of its own."""
    out = bytearray()
    above = np.zeros(rows.shape[1], np.int32)
    for row in rows.astype(np.int32):
        left = np.concatenate([np.zeros(min(bytes_a_pixel, len(row)), np.int32), row[:-bytes_a_pixel]])
        corner = np.concatenate([np.zeros(min(bytes_a_pixel, len(row)), np.int32), above[:-bytes_a_pixel]])
        kind = chooser.randrange(5)
        estimate = left + above - corner
        distances = np.stack([abs(estimate - left), abs(estimate - above), abs(estimate - corner)])
        paeth = np.choose(distances.argmin(axis=0), [left, above, corner])
        predicted = [np.zeros_like(row), left, above, (left + above) // 2, paeth][kind]
        out.append(kind)
        out += ((row - predicted) & 0xFF).astype(np.uint8).tobytes()
        above = row
    return bytes(out)


def png(samples: np.ndarray, color: int, depth: int, *, interlaced: bool = False, palette: np.ndarray | None = None, seed: int = 0,
        extra: bytes = b"") -> bytes:
    """A file of `samples` uint16 [h][w][channels]; `extra`: chunks before the data."""
    h, w, channels = samples.shape
    assert channels == CHANNELS[color]
    chooser = random.Random(seed)
    bytes_a_pixel = max(1, channels * depth // 8)
    data = b""
    for x, y, step_x, step_y in ADAM7 if interlaced else ((0, 0, 1, 1),):
        part = samples[y::step_y, x::step_x]
        if part.size:
            data += _filtered(_packed_rows(part, depth), bytes_a_pixel, chooser)
    packed = zlib.compress(data)
    cut = chooser.randrange(len(packed))
    body = chunk(b"IDAT", packed[:cut]) + chunk(b"IDAT", packed[cut:])
    plte = b"" if palette is None else chunk(b"PLTE", palette.astype(np.uint8).tobytes())
    return PNG_SIGNATURE + ihdr(w, h, depth, color, int(interlaced)) + plte + extra + body + chunk(b"IEND", b"")


def random_samples(r: np.random.Generator, h: int, w: int, channels: int, high: int) -> np.ndarray:
    """uint16 [h][w][channels] of 0..high: noise, waves or flat areas with edges."""
    kind = r.integers(3)
    if kind == 0:
        return r.integers(0, high + 1, (h, w, channels), np.uint16)
    y, x = np.mgrid[0:h, 0:w]
    if kind == 1:
        waves = [np.sin(x * r.uniform(0, 0.5) + y * r.uniform(0, 0.5) + r.uniform(0, 6)) for _ in range(channels)]
        return np.round((np.stack(waves, axis=2) + 1) / 2 * high).astype(np.uint16)
    cells = r.integers(0, high + 1, (h // 5 + 1, w // 7 + 1, channels), np.uint16)
    return cells[y // 5, x // 7]


def random_png(r: np.random.Generator, h: int, w: int) -> tuple[str, bytes]:
    color = int(r.choice(list(CHANNELS)))
    depth = int(r.choice(DEPTHS[color]))
    interlaced = bool(r.integers(2))
    palette = r.integers(0, 256, (int(r.integers(1, 2**depth + 1)), 3)) if color == PALETTE else None
    high = 2**depth - 1 if palette is None else len(palette) - 1
    extra = b""
    if r.integers(2):  # transparency, which is dropped, and gamma, which is ignored
        extra = {GREY: chunk(b"tRNS", b"\0\1"), RGB: chunk(b"tRNS", bytes(6)), PALETTE: chunk(b"tRNS", b"\0")}.get(color, b"")
        extra = extra if palette is None else chunk(b"tRNS", b"\0")
    if r.integers(2):
        gamma = chunk(b"gAMA", struct.pack(">I", 100000))
        extra = extra if palette is not None else gamma + extra
    samples = random_samples(r, h, w, CHANNELS[color], high)
    name = f"png color {color} depth {depth}{' interlaced' if interlaced else ''}"
    return name, png(samples, color, depth, interlaced=interlaced, palette=palette, seed=int(r.integers(1 << 30)), extra=extra)


def exif(orientation: int, big_endian: bool = False) -> bytes:
    """The body of an APP1 segment that has an orientation and something before it."""
    order = ">" if big_endian else "<"
    head = b"MM\0*" if big_endian else b"II*\0"
    entries = struct.pack(order + "HHIHH", 0x0100, 3, 1, 9, 0) + struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0)
    return b"Exif\0\0" + head + struct.pack(order + "IH", 8, 2) + entries + bytes(4)


def with_segment(jpeg: bytes, marker: int, body: bytes) -> bytes:
    """`jpeg` with one segment more, before all others."""
    return jpeg[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


def jpeg(pixels: np.ndarray, *, orientation: int | None = None, big_endian: bool = False, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(file, "JPEG", **options)
    data = file.getvalue()
    return data if orientation is None else with_segment(data, 0xE1, exif(orientation, big_endian))


def jpeg_in_rgb(pixels: np.ndarray) -> bytes:
    """A JPEG whose components are R, G and B: what a YCbCr encoder made of these three planes, with the segment of Adobe that says so."""
    file = io.BytesIO()
    Image.fromarray(pixels, "YCbCr").save(file, "JPEG", subsampling=0)
    data = file.getvalue()
    length = int.from_bytes(data[4:6], "big")
    assert data[2:4] == b"\xff\xe0"
    return with_segment(data[:2] + data[4 + length:], 0xEE, b"Adobe\0\x64\0\0\0\0\0")


def many_scans(scans: int, width: int, height: int) -> bytes:
    """A progressive JPEG of one DC scan and then `scans` that refine nothing: each a few bytes of "end of band" for up to 32767 blocks."""
    def segment(marker: int, body: bytes) -> bytes:
        return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body

    blocks = -(-width // 8) * -(-height // 8)
    # DC: one code of one bit, difference 0. AC: code 0: end of band of 2^14 + 14 bits more.
    tables = segment(0xC4, b"\0" + bytes([1] + [0] * 15) + b"\0") + segment(0xC4, b"\x10" + bytes([1] + [0] * 15) + b"\xe0")
    frame = segment(0xC2, struct.pack(">BHHB", 8, height, width, 1) + b"\1\x11\0")
    dc = segment(0xDA, b"\1\1\0\0\0\0") + bytes(-(-blocks // 8))
    runs = -(-blocks // 32767)
    bits = ("0" + "1" * 14) * runs
    bits += "1" * (-len(bits) % 8)
    packed = bytes(int(bits[i:i + 8], 2) for i in range(0, len(bits), 8)).replace(b"\xff", b"\xff\0")
    # Every scan must be new to the decoder: one band each, successive bits of it, then again.
    ac = b"".join(segment(0xDA, bytes([1, 1, 0, k, k, 0])) + packed for k in (i % 63 + 1 for i in range(scans)))
    return b"\xff\xd8" + segment(0xDB, b"\0" + b"\1" * 64) + frame + tables + dc + ac + b"\xff\xd9"


def random_jpeg(r: np.random.Generator, h: int, w: int) -> tuple[str, bytes]:
    channels = int(r.choice([1, 3, 3]))
    pixels = random_samples(r, h, w, channels, 255).astype(np.uint8)
    if channels == 3 and r.integers(6) == 0:
        return "jpeg rgb", jpeg_in_rgb(pixels)
    options: dict[str, object] = {"quality": int(r.integers(5, 100)), "progressive": bool(r.integers(2)), "optimize": bool(r.integers(2))}
    if channels == 3:
        options["subsampling"] = int(r.integers(3))
    orientation = int(r.integers(0, 10)) if r.integers(2) else None
    name = f"jpeg channels {channels} orientation {orientation} {options}"
    return name, jpeg(pixels, orientation=orientation, big_endian=bool(r.integers(2)), **options)


def random_side(r: np.random.Generator, most: int) -> int:
    """Small ones often, large ones too."""
    return min(most, int(2 ** r.uniform(0, np.log2(most + 1))))


def random_picture(r: np.random.Generator, most: int) -> tuple[str, bytes]:
    h, w = random_side(r, most), random_side(r, most)
    name, data = (random_png, random_jpeg)[r.integers(2)](r, h, w)
    return f"{w} x {h} {name}", data
