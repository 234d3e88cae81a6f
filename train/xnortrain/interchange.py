# SPDX-License-Identifier: Apache-2.0
"""What other tools' binary networks need on their way into a .xnor file: popcount thresholds, packed and interleaved weights, other element orders.

A sum of n products of +1 and -1 of which p are +1 (p: the popcount of the XNOR) is 2*p - n. docs/import.md shows these at work."""

from __future__ import annotations

import numpy as np

from .xnorfile import FormatError


def popcount_thresholds(thresholds: np.ndarray, n: int | np.ndarray, *, above: bool = False) -> np.ndarray:
    """Thresholds on popcounts, for Network.threshold over +-1 sums: p >= T (or p > T where `above`) exactly where sum >= the result.

    thresholds [c], integers or not; n: products of each sum, one number or [c]. Returns int64 [c]."""
    given = np.asarray(thresholds, np.float64)
    if not np.isfinite(given).all():
        raise FormatError("popcount thresholds are finite numbers")
    least = np.floor(given) + 1 if above else np.ceil(given)  # of the popcounts that pass
    products = np.asarray(n, np.int64)
    # A threshold that every popcount passes, or none, stays so without leaving int32.
    return (2 * np.clip(least, -1, products + 1).astype(np.int64) - products).astype(np.int64)


def signed_weights(bits: np.ndarray) -> np.ndarray:
    """0 and 1 -> -1 and +1, int8, same shape."""
    given = np.asarray(bits)
    if not ((given == 0) | (given == 1)).all():
        raise FormatError("bits are 0 or 1")
    return (2 * given.astype(np.int8) - 1).astype(np.int8)


def unpack_words(words: np.ndarray, n: int) -> np.ndarray:
    """Rows packed into unsigned words of any width, element e of a row in bit e % width of word e // width: [...][words] -> int8 +-1 [...][n]."""
    given = np.ascontiguousarray(words)
    if given.dtype.kind != "u" or given.shape[-1] * given.dtype.itemsize * 8 < n:
        raise FormatError(f"{given.dtype} {list(given.shape)} does not hold {n} bits a row")
    little = given.astype(given.dtype.newbyteorder("<"))
    bits = np.unpackbits(little.view(np.uint8), axis=-1, bitorder="little")
    return signed_weights(bits[..., :n])


def matrix_of_tiles(tiles: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The weight memory of FINN's matrix-vector unit, [pe][tiles][simd], as a matrix [rows][columns]: row r is tile (r div PE)*(columns/SIMD) + ... of PE r mod PE."""
    given = np.asarray(tiles)
    if given.ndim != 3 or rows % given.shape[0] or columns % given.shape[2] or given.shape[1] != (rows // given.shape[0]) * (columns // given.shape[2]):
        raise FormatError(f"tiles {list(given.shape)} ([pe][tiles][simd]) do not make a matrix of {rows} x {columns}")
    pe, _, simd = given.shape
    return given.reshape(pe, rows // pe, columns // simd, simd).transpose(1, 0, 2, 3).reshape(rows, columns)


def columns_from_chw(weights: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Fully connected weights [oc][c*h*w] over a map that was flattened channels first (PyTorch, Theano) -> [oc][h*w*c]. shape: (h, w, c)."""
    h, w, c = shape
    given = np.asarray(weights)
    if given.ndim != 2 or given.shape[1] != h * w * c:
        raise FormatError(f"weights {list(given.shape)} do not fit a map of {h}x{w}x{c}")
    return given.reshape(-1, c, h, w).transpose(0, 2, 3, 1).reshape(-1, h * w * c)


def kernels_from_oihw(weights: np.ndarray) -> np.ndarray:
    """Convolution weights [oc][ic][kh][kw] -> [oc][kh][kw][ic]."""
    return np.ascontiguousarray(np.asarray(weights).transpose(0, 2, 3, 1))
