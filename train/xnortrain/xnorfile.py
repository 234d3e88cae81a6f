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
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np

from . import check
from .check import FormatError

__all__ = ["FormatError", "Layer", "Network", "Tensor", "Value", "pack_bits", "unpack_bits"]

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
FILE_BYTES_MAX = 1 << 30
META_BYTES_MAX = 1 << 20
LAYERS_MAX = 4096
TENSORS_MAX = 16384


def pack_bits(values: np.ndarray) -> np.ndarray:
    """[rows][n] of +1/-1 -> [rows][ceil(n/64)] uint64: element e in bit e%64 of word e//64, unused bits 0."""
    rows, n = values.shape
    if not ((values == 1) | (values == -1)).all():
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
    if given.dtype.kind not in "iuf" or (given.size and (not given.min() >= info.min or not given.max() <= info.max or not np.array_equal(given, np.floor(given)))):
        raise FormatError(f"{what}: not all values are {dtype}")
    return Tensor(dtype, given.astype(NUMPY[dtype]))


def _bits(array: Any, rows: int, what: str) -> Tensor:
    """A tensor of bits [rows][n] from an array of +1 and -1."""
    given = np.asarray(array).reshape(rows, -1)
    if not ((given == 1) | (given == -1)).all():
        raise FormatError(f"{what}: bits are +1 or -1")
    return Tensor("bits", given.astype(np.int8))


class Network:
    """A network as a list of layers, to be built, saved, loaded and interpreted."""

    def __init__(self, shape: tuple[int, int, int], dtype: str = "uint8") -> None:
        if dtype not in ("uint8", "int8"):
            raise FormatError(f"input dtype is uint8 or int8, not {dtype}")
        check.check_shape(*shape, "input")
        self.values = [Value(0, *(int(n) for n in shape), dtype)]
        self.intervals: list[check.Interval] = [check.RANGES[dtype]]  # of each value, as docs/model-format.md defines them
        self.layers: list[Layer] = []
        self.metadata: dict[str, Any] = {}

    @property
    def input(self) -> Value:
        return self.values[0]

    @property
    def classes(self) -> int:
        return self.values[-1].c

    def append(self, layer: Layer) -> Value:
        """Add a layer whose inputs are there. Raises FormatError, and adds nothing, where it breaks a rule of the format."""
        if len(self.layers) == LAYERS_MAX:
            raise FormatError(f"more than {LAYERS_MAX} layers")
        if self.layers and self.layers[-1].op == "logits":
            raise FormatError("the last layer is logits, and there is one: nothing comes behind it")
        if not layer.inputs or not all(0 <= i < len(self.values) for i in layer.inputs):
            raise FormatError(f"{layer.op} {layer.name!r}: inputs {layer.inputs} are not all values before it")
        inputs = [self.values[i] for i in layer.inputs]
        check.check_layer(layer, inputs)
        interval = check.bound(layer, [self.intervals[i] for i in layer.inputs], inputs[0])
        self.layers.append(layer)
        self.values.append(layer.out)
        self.intervals.append(interval)
        return layer.out

    def _add(self, op: str, inputs: list[Value], shape: tuple[int, int, int], dtype: str, **fields: Any) -> Value:
        for value in inputs:
            if value.id >= len(self.values) or self.values[value.id] is not value:
                raise FormatError(f"{op}: an input is not a value of this network")
        return self.append(Layer(op, [v.id for v in inputs], Value(len(self.values), *shape, dtype), **fields))

    @staticmethod
    def _window(x: Value, kernel: tuple[int, int], stride: tuple[int, int], pad: tuple[int, int, int, int]) -> tuple[int, int]:
        """Size of the map that a window gives; what makes no sense is left to the check of the layer."""
        return tuple((n + a + b - k) // max(t, 1) + 1 for n, a, b, k, t in zip((x.h, x.w), pad[:2], pad[2:], kernel, stride))  # type: ignore[return-value]

    def conv(self, x: Value, weights: np.ndarray, *, bits: bool, stride: int | tuple[int, int] = 1, pad: int | tuple[int, ...] = 0, pad_mode: str = "none",
             groups: int = 1, name: str = "") -> Value:
        """weights [oc][kh][kw][ic/groups], +1/-1 where `bits`, else int8. Returns the int32 sums."""
        weights = np.asarray(weights)
        if weights.ndim != 4 or weights.shape[3] * groups != x.c:
            raise FormatError(f"{name or 'conv'}: weights {weights.shape} with {groups} groups do not fit {x.c} channels")
        oc, kh, kw, _ = weights.shape
        tensor = _bits(weights, oc, "conv weights") if bits else _integers(weights, "int8", "conv weights")
        kernel, strides, pads = (kh, kw), _pair(stride), _four(pad)
        mode = pad_mode if any(pads) else "none"
        return self._add("conv", [x], (*self._window(x, kernel, strides, pads), oc), "int32", tensors=[tensor], kernel=kernel, stride=strides,
                         pad=pads, pad_mode=mode, groups=groups, name=name)

    def dense(self, x: Value, weights: np.ndarray, *, bits: bool, name: str = "") -> Value:
        """weights [oc][h*w*c], as conv. Returns int32 [1][1][oc]."""
        weights = np.asarray(weights)
        if weights.ndim != 2 or weights.shape[1] != x.h * x.w * x.c:
            raise FormatError(f"{name or 'dense'}: weights {weights.shape} do not fit {x.h * x.w * x.c} inputs")
        tensor = _bits(weights, len(weights), "dense weights") if bits else _integers(weights, "int8", "dense weights")
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
        if not 2 <= len(values) <= 8:
            raise FormatError(f"{name or 'concat'}: {len(values)} inputs, not 2 to 8")
        x = values[0]
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
        meta["input"] = {"name": "image", **meta.get("input", {}), "shape": [self.input.h, self.input.w, self.input.c], "dtype": self.input.dtype}
        check.check_metadata(meta, self.input, self.classes)
        text = json.dumps(meta, ensure_ascii=False, indent=1, allow_nan=False).encode()
        if len(text) > META_BYTES_MAX:
            raise FormatError(f"metadata of {len(text)} bytes; {META_BYTES_MAX} at most")
        return text

    def check_whole(self) -> None:
        """The rules that hold for a network, not for a layer."""
        if not self.layers or self.layers[-1].op != "logits":
            raise FormatError("the last layer is logits")
        multiplies = sum(layer.out.h * layer.out.w * math.prod(layer.tensors[0].array.shape) for layer in self.layers if layer.op in ("conv", "dense"))
        if multiplies > check.MACS_MAX:
            raise FormatError(f"{multiplies} multiply-accumulates; 2^40 at most")

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
        self.check_whole()
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
        """Read and check a whole file. Raises FormatError, naming what is wrong, and nothing else."""
        head = _read_header(data)
        try:
            meta = json.loads(data[head.meta_offset:head.meta_offset + head.meta_bytes].decode("utf-8"), object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise FormatError(f"metadata: not a JSON object in UTF-8: {error}") from None
        net = cls(head.shape, head.dtype)
        net.metadata = meta
        tensors: list[Tensor] = []
        end = head.data_offset
        for i in range(head.tensor_count):
            tensor, end = _read_tensor(data, head, i, end)
            tensors.append(tensor)
        for i in range(head.layer_count):
            net.append(net._read_layer(data, head.layer_offset + i * head.layer_bytes, tensors))
        net.check_whole()
        check.check_metadata(meta, net.input, net.classes)
        return net

    def _read_layer(self, data: bytes, at: int, tensors: list[Tensor]) -> Layer:
        f = LAYER.unpack_from(data, at)
        name_bytes, inputs, ids = f[34].rstrip(b"\0"), f[18:26], f[26:30]
        where = f"layer {len(self.layers)}"
        if f[0] not in OP_NAMES or f[1] not in VALUE_TYPES or f[2] not in PAD_NAMES:
            raise FormatError(f"{where}: operation {f[0]}, type {f[1]} or padding {f[2]} is not known to this reader")
        try:
            name = name_bytes.decode("utf-8")
        except UnicodeDecodeError:
            raise FormatError(f"{where}: its name is not UTF-8") from None
        if len(name_bytes) > 31 or any(ord(c) < 0x20 or ord(c) == 0x7f for c in name):
            raise FormatError(f"{where}: its name has more than 31 bytes or a control character")
        if f[13] or f[33]:
            raise FormatError(f"{where}: a reserved field is not 0; a newer reader may know it")
        if not 1 <= f[11] <= 8 or any(i != NONE for i in inputs[f[11]:]):
            raise FormatError(f"{where}: {f[11]} inputs do not fit the list {list(inputs)}")
        used = [i for i in ids if i != NONE]
        if any(i >= len(tensors) for i in used) or list(ids[:len(used)]) != used:
            raise FormatError(f"{where}: tensors {list(ids)}, there are {len(tensors)}")
        out = Value(len(self.values), f[15], f[16], f[17], VALUE_TYPES[f[1]])
        return Layer(OP_NAMES[f[0]], list(inputs[:f[11]]), out, [tensors[i] for i in used], (f[3], f[4]), (f[5], f[6]), (f[7], f[8], f[9], f[10]), PAD_NAMES[f[2]],
                     f[14], f[12], f[30], f[31], f[32], name)


# ---- reading --------------------------------------------------------------------------------------------------------

VALUE_TYPES = {code: name for code, name in DTYPE_NAMES.items() if name != "int64"}


@dataclasses.dataclass
class _Header:
    """What the reader needs of the header; everything in it has been checked."""

    meta_offset: int
    meta_bytes: int
    layer_offset: int
    layer_count: int
    layer_bytes: int
    tensor_offset: int
    tensor_count: int
    tensor_bytes: int
    data_offset: int
    data_bytes: int
    shape: tuple[int, int, int]
    dtype: str


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a key appears twice")
    return dict(pairs)


def _check_digest(data: bytes, digest: bytes) -> None:
    at = HEADER.size - 32
    if hashlib.sha256(data[:at] + bytes(32) + data[HEADER.size:]).digest() != digest:
        raise FormatError("SHA-256 does not match: the file is damaged")


def _check_regions(head: _Header, header_bytes: int, file_bytes: int) -> None:
    regions = {"header": (0, header_bytes), "metadata": (head.meta_offset, head.meta_bytes), "layer table": (head.layer_offset, head.layer_count * head.layer_bytes),
               "tensor table": (head.tensor_offset, head.tensor_count * head.tensor_bytes), "data": (head.data_offset, head.data_bytes)}
    for name, (offset, size) in regions.items():
        if offset + size > file_bytes:
            raise FormatError(f"{name}: {size} bytes at {offset} do not lie within the file")
    taken = sorted((offset, offset + size, name) for name, (offset, size) in regions.items() if size)
    for (_, end, first), (start, _, second) in zip(taken, taken[1:]):
        if start < end:
            raise FormatError(f"{first} and {second} overlap")


def _read_header(data: bytes) -> _Header:
    if len(data) < HEADER.size or data[:8] != MAGIC:
        raise FormatError("not an .xnor file")
    if len(data) > FILE_BYTES_MAX:
        raise FormatError(f"{len(data)} bytes; 2^30 at most")
    (_, major, _, header_bytes, file_bytes, meta_offset, meta_bytes, layer_offset, layer_count, layer_bytes, tensor_offset, tensor_count, tensor_bytes, data_offset,
     data_bytes, h, w, c, dtype, reserved, digest) = HEADER.unpack_from(data)
    if major != 1:
        raise FormatError(f"format version {major}; this reader knows 1")
    if file_bytes != len(data):
        raise FormatError(f"{len(data)} bytes, the header says {file_bytes}")
    _check_digest(data, digest)
    rules = {"header_bytes": 160 <= header_bytes <= 4096 and header_bytes % 8 == 0, "meta_bytes": 2 <= meta_bytes <= META_BYTES_MAX,
             "layer_offset": layer_offset % 8 == 0, "layer_count": 1 <= layer_count <= LAYERS_MAX,
             "layer_record_bytes": LAYER.size <= layer_bytes <= 1024 and layer_bytes % 8 == 0, "tensor_offset": tensor_offset % 8 == 0,
             "tensor_count": tensor_count <= TENSORS_MAX, "tensor_record_bytes": TENSOR.size <= tensor_bytes <= 1024 and tensor_bytes % 8 == 0,
             "data_offset": data_offset % ALIGN == 0, "input_dtype": DTYPE_NAMES.get(dtype) in ("uint8", "int8"), "reserved": not any(reserved)}
    for name, holds in rules.items():
        if not holds:
            raise FormatError(f"header: {name} breaks its rule")
    head = _Header(meta_offset, meta_bytes, layer_offset, layer_count, layer_bytes, tensor_offset, tensor_count, tensor_bytes, data_offset, data_bytes, (h, w, c),
                   DTYPE_NAMES[dtype])
    _check_regions(head, header_bytes, file_bytes)
    return head


def _read_tensor(data: bytes, head: _Header, index: int, after: int) -> tuple[Tensor, int]:
    """Tensor `index`, which must begin at `after` or behind, and where it ends."""
    code, rank, reserved0, reserved1, *dims4, offset, size, reserved2 = TENSOR.unpack_from(data, head.tensor_offset + index * head.tensor_bytes)
    where = f"tensor {index}"
    if code not in DTYPE_NAMES:
        raise FormatError(f"{where}: type {code} is not known to this reader")
    if reserved0 or reserved1 or reserved2:
        raise FormatError(f"{where}: a reserved field is not 0; a newer reader may know it")
    dtype, dims = DTYPE_NAMES[code], tuple(dims4[:rank])
    if not 1 <= rank <= 4 or (dtype == "bits" and rank != 2) or min(dims) < 1 or any(n != 1 for n in dims4[rank:]):
        raise FormatError(f"{where}: {dtype} of rank {rank} with dimensions {dims4}")
    wanted = dims[0] * -(-dims[1] // 64) * 8 if dtype == "bits" else math.prod(dims) * np.dtype(NUMPY[dtype]).itemsize
    if size != wanted:
        raise FormatError(f"{where}: {size} bytes, {dtype} {dims} needs {wanted}")
    if offset % ALIGN or offset < after or offset + size > head.data_offset + head.data_bytes:
        raise FormatError(f"{where}: {size} bytes at {offset} are not aligned, not in order, or not in the data")
    body = data[offset:offset + size]
    if dtype != "bits":
        return Tensor(dtype, np.frombuffer(body, NUMPY[dtype]).reshape(dims)), offset + size
    words = np.frombuffer(body, "<u8").reshape(dims[0], -1)
    if dims[1] % 64 and (words[:, -1] >> np.uint64(dims[1] % 64)).any():
        raise FormatError(f"{where}: bits that no element uses are not 0")
    return Tensor(dtype, unpack_bits(words, dims[1])), offset + size
