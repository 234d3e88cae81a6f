# SPDX-License-Identifier: Apache-2.0
"""Writer and reader of .xnor files, after docs/model-format.md alone: no code is shared with the C loader.

Build a network layer by layer; every method returns the value that the layer makes:

    net = Network((28, 28, 1), "uint8")
    s = net.conv(net.input, weights, stride=2, pad=1, pad_mode="zero")   # weights [oc][kh][kw][ic/groups]: +1/-1 (int8 array, bits=True) or int8
    b = net.threshold(s, thresholds)
    ...
    net.logits(s, scale=0.01)
    net.save("network.xnor", {"name": "mine", "labels": [...]})
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

MAGIC = b"\x89XNOR\r\n\x1a"
NONE = 0xFFFFFFFF
ALIGN = 64
HEADER = struct.Struct("<8sHHIQQQQIIQIIQQIIIB27s32s")
LAYER = struct.Struct("<HBB8BBBHIIII8I4IiffI32s")
TENSOR = struct.Struct("<BBHI4IQQQ")
assert (HEADER.size, LAYER.size, TENSOR.size) == (160, 128, 48)

DTYPES = {"bits": 1, "uint8": 2, "int8": 3, "int16": 4, "int32": 5, "int64": 6}
DTYPE_NAMES = {code: name for name, code in DTYPES.items()}
NUMPY = {"uint8": "<u1", "int8": "<i1", "int16": "<i2", "int32": "<i4", "int64": "<i8"}
PADS = {"none": 0, "minus_one": 1, "zero": 2}
PAD_NAMES = {code: name for name, code in PADS.items()}
OPS = {"conv": 1, "dense": 2, "threshold": 3, "scale": 4, "add": 5, "rprelu": 6, "maxpool": 7, "avgpool": 8, "global_avgpool": 9, "concat": 10,
       "logits": 11}
OP_NAMES = {code: name for name, code in OPS.items()}


class FormatError(ValueError):
    """A file or a network that breaks a rule of the format."""


def pack_bits(values: np.ndarray) -> np.ndarray:
    """[rows][n] of +1/-1 -> [rows][ceil(n/64)] uint64: element e in bit e%64 of word e//64, unused bits 0."""
    rows, n = values.shape
    if not np.isin(values, (-1, 1)).all():
        raise FormatError("bits are +1 or -1")
    padded = np.zeros((rows, -(-n // 64) * 64), np.uint8)
    padded[:, :n] = values > 0
    return np.packbits(padded, axis=1, bitorder="little").view("<u8")


def unpack_bits(words: np.ndarray, n: int) -> np.ndarray:
    """The inverse of pack_bits: int8 +1/-1."""
    bits = np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=1, bitorder="little")[:, :n]
    return (2 * bits.astype(np.int8) - 1).astype(np.int8)


@dataclasses.dataclass
class Tensor:
    """Constant data of a layer. bits: array [rows][n] of +1/-1; else an array of the dtype."""

    dtype: str
    array: np.ndarray

    def dims(self) -> tuple[int, ...]:
        return self.array.shape

    def to_bytes(self) -> bytes:
        if self.dtype == "bits":
            return pack_bits(self.array).tobytes()
        return np.ascontiguousarray(self.array, NUMPY[self.dtype]).tobytes()


@dataclasses.dataclass
class Value:
    """What a layer makes: id, shape [h][w][c], dtype."""

    id: int
    h: int
    w: int
    c: int
    dtype: str


@dataclasses.dataclass
class Layer:
    """One operation; fields that it does not use keep their defaults."""

    op: str
    inputs: list[int]
    out: Value
    tensors: list[Tensor] = dataclasses.field(default_factory=list)
    kernel: tuple[int, int] = (0, 0)
    stride: tuple[int, int] = (0, 0)
    pad: tuple[int, int, int, int] = (0, 0, 0, 0)  # top, left, bottom, right
    pad_mode: str = "none"
    groups: int = 0
    shift: int = 0
    multiplier: int = 0
    scale: float = 0.0
    offset: float = 0.0
    name: str = ""


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _four(value: int | tuple[int, ...]) -> tuple[int, int, int, int]:
    if isinstance(value, int):
        return (value, value, value, value)
    if len(value) == 2:
        return (value[0], value[1], value[0], value[1])
    return (value[0], value[1], value[2], value[3])


def _integers(array: Any, dtype: str, what: str) -> Tensor:
    """A tensor of `dtype`, refusing values that it cannot hold."""
    given = np.asarray(array)
    info = np.iinfo(NUMPY[dtype])
    if given.size and (given.min() < info.min or given.max() > info.max or not np.array_equal(given, np.floor(given))):
        raise FormatError(f"{what}: not all values are {dtype}")
    return Tensor(dtype, given.astype(NUMPY[dtype]))


class Network:
    """A network as a list of layers, to be built, saved, loaded and interpreted."""

    def __init__(self, shape: tuple[int, int, int], dtype: str = "uint8") -> None:
        if dtype not in ("uint8", "int8"):
            raise FormatError(f"input dtype is uint8 or int8, not {dtype}")
        self.values = [Value(0, *shape, dtype)]
        self.layers: list[Layer] = []
        self.metadata: dict[str, Any] = {}

    @property
    def input(self) -> Value:
        return self.values[0]

    @property
    def classes(self) -> int:
        return self.values[-1].c

    def _add(self, op: str, inputs: list[Value], shape: tuple[int, int, int], dtype: str, **fields: Any) -> Value:
        out = Value(len(self.values), *shape, dtype)
        self.layers.append(Layer(op, [v.id for v in inputs], out, **fields))
        self.values.append(out)
        return out

    @staticmethod
    def _window(x: Value, kernel: tuple[int, int], stride: tuple[int, int], pad: tuple[int, int, int, int]) -> tuple[int, int]:
        h, w = x.h + pad[0] + pad[2] - kernel[0], x.w + pad[1] + pad[3] - kernel[1]
        if h < 0 or w < 0:
            raise FormatError(f"a kernel of {kernel} does not fit on {x.h}x{x.w} with padding {pad}")
        return h // stride[0] + 1, w // stride[1] + 1

    def conv(self, x: Value, weights: np.ndarray, *, bits: bool, stride: int | tuple[int, int] = 1, pad: int | tuple[int, ...] = 0, pad_mode: str = "none",
             groups: int = 1, name: str = "") -> Value:
        """weights [oc][kh][kw][ic/groups], +1/-1 where `bits`, else int8. Returns the int32 sums."""
        oc, kh, kw, icg = weights.shape
        if icg * groups != x.c or oc % groups:
            raise FormatError(f"{name or 'conv'}: weights {weights.shape} with {groups} groups do not fit {x.c} channels")
        tensor = Tensor("bits", weights.reshape(oc, -1)) if bits else _integers(weights, "int8", "conv weights")
        kernel, strides, pads = (kh, kw), _pair(stride), _four(pad)
        mode = pad_mode if any(pads) else "none"
        return self._add("conv", [x], (*self._window(x, kernel, strides, pads), oc), "int32", tensors=[tensor], kernel=kernel, stride=strides,
                         pad=pads, pad_mode=mode, groups=groups, name=name)

    def dense(self, x: Value, weights: np.ndarray, *, bits: bool, name: str = "") -> Value:
        """weights [oc][h*w*c], as conv. Returns int32 [1][1][oc]."""
        if weights.shape[1] != x.h * x.w * x.c:
            raise FormatError(f"{name or 'dense'}: weights {weights.shape} do not fit {x.h * x.w * x.c} inputs")
        tensor = Tensor("bits", weights) if bits else _integers(weights, "int8", "dense weights")
        return self._add("dense", [x], (1, 1, weights.shape[0]), "int32", tensors=[tensor], name=name)

    def threshold(self, x: Value, thresholds: np.ndarray, *, name: str = "") -> Value:
        """bit = x >= T[c]."""
        return self._add("threshold", [x], (x.h, x.w, x.c), "bits", tensors=[_integers(thresholds, "int32", "thresholds")], name=name)

    def scale(self, x: Value, multiplier: np.ndarray, bias: np.ndarray, shift: int, *, residual: Value | None = None, dtype: str = "int16",
              name: str = "") -> Value:
        """clamp(residual + ((M[c]*x + B[c] + half) >> shift))."""
        tensors = [_integers(multiplier, "int16", "multipliers"), _integers(bias, "int64", "biases")]
        return self._add("scale", [x] if residual is None else [x, residual], (x.h, x.w, x.c), dtype, tensors=tensors, shift=shift, name=name)

    def add(self, x: Value, r: Value, *, name: str = "") -> Value:
        return self._add("add", [x, r], (x.h, x.w, x.c), "int16", name=name)

    def rprelu(self, x: Value, a: np.ndarray, k: np.ndarray, b: np.ndarray, *, name: str = "") -> Value:
        """t = x + A[c]; sat16((t >= 0 ? t : t >> K[c]) + B[c])."""
        tensors = [_integers(a, "int16", "A"), _integers(k, "uint8", "K"), _integers(b, "int16", "B")]
        return self._add("rprelu", [x], (x.h, x.w, x.c), "int16", tensors=tensors, name=name)

    def _pool(self, op: str, x: Value, kernel: int | tuple[int, int], stride: int | tuple[int, int], pad: int | tuple[int, ...], dtype: str,
              **fields: Any) -> Value:
        kernels, strides, pads = _pair(kernel), _pair(stride), _four(pad)
        mode = "zero" if any(pads) else "none"
        return self._add(op, [x], (*self._window(x, kernels, strides, pads), x.c), dtype, kernel=kernels, stride=strides, pad=pads,
                         pad_mode=mode, **fields)

    def maxpool(self, x: Value, kernel: int | tuple[int, int], stride: int | tuple[int, int], pad: int | tuple[int, ...] = 0, *,
                name: str = "") -> Value:
        return self._pool("maxpool", x, kernel, stride, pad, x.dtype, name=name)

    def avgpool(self, x: Value, kernel: int | tuple[int, int], stride: int | tuple[int, int], multiplier: int, shift: int,
                pad: int | tuple[int, ...] = 0, *, name: str = "") -> Value:
        return self._pool("avgpool", x, kernel, stride, pad, "int16", multiplier=multiplier, shift=shift, name=name)

    def global_avgpool(self, x: Value, multiplier: int = 1, shift: int = 0, *, dtype: str = "int32", name: str = "") -> Value:
        return self._add("global_avgpool", [x], (1, 1, x.c), dtype, multiplier=multiplier, shift=shift, name=name)

    def concat(self, values: list[Value], *, name: str = "") -> Value:
        x = values[0]
        if any((v.h, v.w, v.dtype) != (x.h, x.w, x.dtype) for v in values):
            raise FormatError(f"{name or 'concat'}: inputs differ in size or type")
        return self._add("concat", values, (x.h, x.w, sum(v.c for v in values)), x.dtype, name=name)

    def logits(self, x: Value, *, multiplier: np.ndarray | None = None, bias: np.ndarray | None = None, scale: float = 1.0,
               offset: float = 0.0, name: str = "logits") -> Value:
        """z = M[c]*x + B[c]; the class is the argmax, its score scale*z + offset."""
        m = np.ones(x.c, np.int32) if multiplier is None else multiplier
        b = np.zeros(x.c, np.int32) if bias is None else bias
        return self._add("logits", [x], (1, 1, x.c), "int32", tensors=[_integers(m, "int32", "multipliers"), _integers(b, "int32", "biases")],
                         scale=scale, offset=offset, name=name)

    # ---- files ----------------------------------------------------------------------------------------------------

    def _metadata_bytes(self) -> bytes:
        meta = dict(self.metadata)
        given = dict(meta.get("input", {}))
        meta["input"] = {"name": "image", **given, "shape": [self.input.h, self.input.w, self.input.c], "dtype": self.input.dtype}
        return json.dumps(meta, ensure_ascii=False, indent=1).encode()

    @staticmethod
    def _pack_layer(layer: Layer, tensor_ids: list[int]) -> bytes:
        name = layer.name.encode()
        if len(name) > 31:
            raise FormatError(f"layer name {layer.name!r} is longer than 31 bytes")
        inputs = layer.inputs + [NONE] * (8 - len(layer.inputs))
        tensors = tensor_ids + [NONE] * (4 - len(tensor_ids))
        return LAYER.pack(OPS[layer.op], DTYPES[layer.out.dtype], PADS[layer.pad_mode], *layer.kernel, *layer.stride, *layer.pad,
                          len(layer.inputs), layer.shift, 0, layer.groups, layer.out.h, layer.out.w, layer.out.c, *inputs, *tensors,
                          layer.multiplier, layer.scale, layer.offset, 0, name)

    def to_bytes(self) -> bytes:
        """The whole file."""
        if not self.layers or self.layers[-1].op != "logits":
            raise FormatError("the last layer is logits")
        meta = self._metadata_bytes()
        n_tensors = sum(len(layer.tensors) for layer in self.layers)
        layer_offset = -(-(HEADER.size + len(meta)) // 8) * 8
        tensor_offset = layer_offset + LAYER.size * len(self.layers)
        data_offset = -(-(tensor_offset + TENSOR.size * n_tensors) // ALIGN) * ALIGN
        layers, tensors, data = b"", b"", b""
        count = 0
        for layer in self.layers:
            ids = []
            for tensor in layer.tensors:
                body = tensor.to_bytes()
                dims = list(tensor.dims())
                tensors += TENSOR.pack(DTYPES[tensor.dtype], len(dims), 0, 0, *(dims + [1] * (4 - len(dims))), data_offset + len(data), len(body), 0)
                data += body + bytes(-len(body) % ALIGN)
                ids.append(count)
                count += 1
            layers += self._pack_layer(layer, ids)
        file_bytes = data_offset + len(data)

        def header(digest: bytes) -> bytes:
            return HEADER.pack(MAGIC, 1, 0, HEADER.size, file_bytes, HEADER.size, len(meta), layer_offset, len(self.layers), LAYER.size, tensor_offset,
                               n_tensors, TENSOR.size, data_offset, len(data), self.input.h, self.input.w, self.input.c, DTYPES[self.input.dtype],
                               bytes(27), digest)

        rest = meta + bytes(layer_offset - HEADER.size - len(meta)) + layers + tensors
        rest += bytes(data_offset - HEADER.size - len(rest)) + data
        return header(hashlib.sha256(header(bytes(32)) + rest).digest()) + rest

    def save(self, path: str | Path, metadata: dict[str, Any] | None = None) -> None:
        if metadata is not None:
            self.metadata = metadata
        Path(path).write_bytes(self.to_bytes())

    @classmethod
    def load(cls, path: str | Path) -> "Network":
        return cls.from_bytes(Path(path).read_bytes())

    @classmethod
    def from_bytes(cls, data: bytes) -> "Network":
        """Read a file. Checks the digest and sizes; the C loader checks the rest."""
        if len(data) < HEADER.size or data[:8] != MAGIC:
            raise FormatError("not an .xnor file")
        (_, major, _, _, file_bytes, meta_offset, meta_bytes, layer_offset, layer_count, layer_bytes, tensor_offset, tensor_count, tensor_bytes, _, _,
         h, w, c, dtype, _, digest) = HEADER.unpack_from(data)
        if major != 1:
            raise FormatError(f"format version {major}; this reader knows 1")
        if file_bytes != len(data):
            raise FormatError(f"{len(data)} bytes, the header says {file_bytes}")
        sha_offset = HEADER.size - 32
        if hashlib.sha256(data[:sha_offset] + bytes(32) + data[HEADER.size:]).digest() != digest:
            raise FormatError("SHA-256 does not match: the file is damaged")
        net = cls((h, w, c), DTYPE_NAMES[dtype])
        net.metadata = json.loads(data[meta_offset:meta_offset + meta_bytes])
        tensors = [cls._read_tensor(data, tensor_offset + i * tensor_bytes) for i in range(tensor_count)]
        for i in range(layer_count):
            net._read_layer(data, layer_offset + i * layer_bytes, tensors)
        return net

    @staticmethod
    def _read_tensor(data: bytes, at: int) -> Tensor:
        code, rank, _, _, d0, d1, d2, d3, offset, size, _ = TENSOR.unpack_from(data, at)
        dims, dtype = (d0, d1, d2, d3)[:rank], DTYPE_NAMES[code]
        body = data[offset:offset + size]
        if dtype == "bits":
            return Tensor(dtype, unpack_bits(np.frombuffer(body, "<u8").reshape(dims[0], -1), dims[1]))
        return Tensor(dtype, np.frombuffer(body, NUMPY[dtype]).reshape(dims))

    def _read_layer(self, data: bytes, at: int, tensors: list[Tensor]) -> None:
        f = LAYER.unpack_from(data, at)
        op, dtype, pad_mode = OP_NAMES[f[0]], DTYPE_NAMES[f[1]], PAD_NAMES[f[2]]
        out = Value(len(self.values), f[15], f[16], f[17], dtype)
        layer = Layer(op, [i for i in f[18:18 + f[11]]], out, [tensors[i] for i in f[26:30] if i != NONE], (f[3], f[4]), (f[5], f[6]),
                      (f[7], f[8], f[9], f[10]), pad_mode, f[14], f[12], f[30], f[31], f[32], f[34].rstrip(b"\0").decode())
        self.layers.append(layer)
        self.values.append(out)
