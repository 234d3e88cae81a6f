# SPDX-License-Identifier: Apache-2.0
"""Tensors as bytes. NumPy arrays go in and come out where there is NumPy; nothing here needs it."""

from __future__ import annotations

import dataclasses
import math
import os
import struct
from array import array
from typing import Any, Protocol, Union, cast


class ArrayLike(Protocol):
    """A NumPy array, or what looks like one; it has the buffer protocol."""

    @property
    def __array_interface__(self) -> Any: ...


# The bytes of a picture, or a tensor: whatever has the buffer protocol.
Data = Union[bytes, bytearray, memoryview, "array[int]", ArrayLike]
# Data, or where they are: a path.
Image = Union[Data, str, "os.PathLike[str]"]

FORMATS = {"FP32": "f", "INT32": "i", "UINT8": "B", "INT8": "b"}  # of struct
DATATYPES = {"B": "UINT8", "b": "INT8"}  # of the buffer protocol's, what a network takes


@dataclasses.dataclass(frozen=True)
class Tensor:
    """`data` has the elements packed, row by row, little-endian: np.asarray(tensor) and `numpy()` are views of it."""

    datatype: str  # "FP32", "INT32", "UINT8" or "INT8"
    shape: tuple[int, ...]
    data: memoryview

    def tolist(self) -> list[Any]:
        """Numbers, nested as `shape`."""
        values: list[Any] = list(struct.unpack(f"<{math.prod(self.shape)}{FORMATS[self.datatype]}", self.data))
        for size in reversed(self.shape[1:]):
            values = [values[start:start + size] for start in range(0, len(values), size)]
        return values

    def numpy(self) -> Any:
        """An array, not to be written where it came over the network."""
        import numpy

        return numpy.frombuffer(self.data, f"<{FORMATS[self.datatype]}").reshape(self.shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        array = self.numpy() if dtype is None else self.numpy().astype(dtype, copy=False)
        return array.copy() if copy else array


def size_bytes(datatype: str, shape: tuple[int, ...]) -> int:
    return math.prod(shape) * struct.calcsize(f"<{FORMATS[datatype]}")


def view_of(data: Data) -> tuple[memoryview, str, tuple[int, ...]]:
    """Its elements as bytes, row by row; datatype; shape. Copied only where it does not lie so already. Raises TypeError for other elements than a network takes."""
    view = memoryview(cast(Any, data))
    if view.format not in DATATYPES:
        raise TypeError(f"elements of format {view.format!r}: a network takes uint8 or int8 (array.astype)")
    if view.nbytes == 0:
        raise ValueError("no data")
    flat = view.cast("B") if view.c_contiguous else memoryview(view.tobytes())
    return flat, DATATYPES[view.format], view.shape or ()


def contents(image: Image) -> tuple[memoryview, str, tuple[int, ...]]:
    """As view_of; of a path the file's. Raises OSError."""
    if isinstance(image, (str, os.PathLike)):
        with open(image, "rb") as file:
            return view_of(file.read())
    return view_of(image)


def is_picture(data: memoryview) -> bool:
    """What POST /infer takes for one: the first bytes of a JPEG or a PNG."""
    start = bytes(data[:8])
    return start.startswith(b"\xff\xd8\xff") or start == b"\x89PNG\r\n\x1a\n"
