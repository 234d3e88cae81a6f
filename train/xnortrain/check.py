# SPDX-License-Identifier: Apache-2.0
"""The rules of docs/model-format.md, for the writer and the reader of .xnor files: what a layer may be, what its values can become, what metadata must say.

Independent of the C loader, from the same page. All functions raise FormatError, naming the layer and the rule."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .xnorfile import Layer, Value

Interval = tuple[int, int]

RANGES: dict[str, Interval] = {"bits": (-1, 1), "uint8": (0, 255), "int8": (-128, 127), "int16": (-32768, 32767), "int32": (-(1 << 31), (1 << 31) - 1)}
SMALL = ("bits", "uint8", "int8", "int16")
# Operation -> (types that its first input may have, fewest and most inputs, types that its output may have; None: the input's own).
SIGNATURES: dict[str, tuple[tuple[str, ...], int, int, tuple[str, ...] | None]] = {
    "conv": (("bits", "uint8", "int8"), 1, 1, ("int32",)), "dense": (("bits", "uint8", "int8"), 1, 1, ("int32",)),
    "threshold": (("uint8", "int8", "int16", "int32"), 1, 1, ("bits",)), "scale": (("int32", "int16", "int8", "uint8"), 1, 2, ("int16", "int8", "uint8")),
    "add": (("int16",), 2, 2, ("int16",)), "rprelu": (("int16",), 1, 1, ("int16",)), "maxpool": (SMALL, 1, 1, None), "avgpool": (SMALL, 1, 1, ("int16",)),
    "global_avgpool": (SMALL, 1, 1, ("int16", "int32")), "concat": (SMALL, 2, 8, None), "logits": (("int32", "int16"), 1, 1, ("int32",))}
# Tensors by role, of the operations that have channel-wise constants.
CHANNEL_TENSORS = {"threshold": (("thresholds", "int32"),), "scale": (("multipliers", "int16"), ("biases", "int64")),
                   "rprelu": (("A", "int16"), ("K", "uint8"), ("B", "int16")), "logits": (("multipliers", "int32"), ("biases", "int32"))}
SUM_MAX = 1 << 30
BIAS_MAX = 1 << 46
ELEMENTS_MAX = 1 << 26
MACS_MAX = 1 << 40
KERNEL_MAX = 7
SHIFT_MAX = 30


class FormatError(ValueError):
    """A file or a network that breaks a rule of the format."""


def refuse(layer: Layer, why: str) -> None:
    raise FormatError(f"{layer.op} {layer.name!r}: {why}" if layer.name else f"{layer.op}: {why}")


def need(layer: Layer, holds: bool, why: str) -> None:
    if not holds:
        refuse(layer, why)


def check_shape(h: int, w: int, c: int, what: str) -> None:
    if not (1 <= h <= 4096 and 1 <= w <= 4096 and 1 <= c <= 65536 and h * w * c <= ELEMENTS_MAX):
        raise FormatError(f"{what}: a shape of {h}x{w}x{c} is not 1 to 4096 high and wide, 1 to 65536 deep, and at most 2^26 elements")


def half_up_shift(v: Any, shift: int) -> Any:
    """round_shift of the format, on Python integers or int64 arrays."""
    return (v + (1 << (shift - 1))) >> shift if shift else v


# ---- one layer --------------------------------------------------------------------------------------------------------


def _check_types(layer: Layer, inputs: list[Value]) -> None:
    types, fewest, most, outputs = SIGNATURES[layer.op]
    need(layer, fewest <= len(inputs) <= most, f"{len(inputs)} inputs, not {fewest} to {most}" if fewest != most else f"{len(inputs)} inputs, not {fewest}")
    x = inputs[0]
    need(layer, x.dtype in types, f"takes {', '.join(types)}, not {x.dtype}")
    need(layer, layer.out.dtype == x.dtype if outputs is None else layer.out.dtype in outputs, f"cannot give {layer.out.dtype}")
    if layer.op == "add":
        need(layer, inputs[1].dtype == "int16", f"takes int16, not {inputs[1].dtype}")
    if layer.op == "scale" and len(inputs) == 2:
        need(layer, inputs[1].dtype == "int16" and layer.out.dtype == "int16", f"a residual is int16, and so is the sum; not {inputs[1].dtype} to {layer.out.dtype}")
    if layer.op in ("add", "scale") and len(inputs) == 2:
        r = inputs[1]
        need(layer, (r.h, r.w, r.c) == (x.h, x.w, x.c), f"second input (residual) {r.h}x{r.w}x{r.c}, first {x.h}x{x.w}x{x.c}")
    if layer.op == "concat":
        need(layer, all((v.h, v.w, v.dtype) == (x.h, x.w, x.dtype) for v in inputs), "inputs differ in size or type")


def _check_window(layer: Layer, x: Value) -> None:
    stride_max = 2 if layer.op == "conv" else 7
    need(layer, all(1 <= k <= KERNEL_MAX for k in layer.kernel), f"kernel {layer.kernel} is not 1 to {KERNEL_MAX}")
    need(layer, all(1 <= t <= stride_max for t in layer.stride), f"stride {layer.stride} is not 1 to {stride_max}")
    kernels = (*layer.kernel, *layer.kernel)
    need(layer, all(0 <= p < k for p, k in zip(layer.pad, kernels)), f"padding {layer.pad} is not less than the kernel {layer.kernel}")
    need(layer, layer.pad_mode != "none" or not any(layer.pad), f"padding {layer.pad} needs a pad_mode: zero, or minus_one for a conv over bits")
    need(layer, layer.pad_mode != "minus_one" or (layer.op == "conv" and x.dtype == "bits"), "pad_mode minus_one is for a conv over bits")
    room = (x.h + layer.pad[0] + layer.pad[2] - layer.kernel[0], x.w + layer.pad[1] + layer.pad[3] - layer.kernel[1])
    need(layer, min(room) >= 0, f"a kernel of {layer.kernel} does not fit on {x.h}x{x.w} with padding {layer.pad}")


def _check_weights(layer: Layer, shapes: dict[str, tuple[int, ...]]) -> None:
    need(layer, len(layer.tensors) == 1, f"{len(layer.tensors)} tensors, not 1")
    weights = layer.tensors[0]
    need(layer, weights.dtype in shapes, f"weights are bits or int8, not {weights.dtype}")
    need(layer, tuple(weights.array.shape) == shapes[weights.dtype], f"weights {weights.array.shape}, not {shapes[weights.dtype]}")


def _check_channel_tensors(layer: Layer, channels: int) -> None:
    roles = CHANNEL_TENSORS.get(layer.op, ())
    need(layer, len(layer.tensors) == len(roles), f"{len(layer.tensors)} tensors, not {len(roles)}")
    for (role, dtype), tensor in zip(roles, layer.tensors):
        need(layer, tensor.dtype == dtype, f"{role} are {dtype}, not {tensor.dtype}")
        need(layer, tensor.array.shape == (channels,), f"{role} {tensor.array.shape} for {channels} channels")
    if layer.op == "scale":
        need(layer, bool((np.abs(layer.tensors[1].array) <= BIAS_MAX).all()), "biases are not within 2^46")
    if layer.op == "rprelu":
        need(layer, bool((layer.tensors[1].array <= 15).all()), "K is not 0 to 15")


def _output_shape(layer: Layer, inputs: list[Value]) -> tuple[int, int, int]:
    x = inputs[0]
    if layer.op in ("conv", "maxpool", "avgpool"):
        h = (x.h + layer.pad[0] + layer.pad[2] - layer.kernel[0]) // layer.stride[0] + 1
        w = (x.w + layer.pad[1] + layer.pad[3] - layer.kernel[1]) // layer.stride[1] + 1
        return h, w, layer.out.c if layer.op == "conv" else x.c
    if layer.op == "dense":
        return 1, 1, layer.out.c
    if layer.op == "global_avgpool":
        return 1, 1, x.c
    return x.h, x.w, sum(v.c for v in inputs) if layer.op == "concat" else x.c


def _check_unused(layer: Layer) -> None:
    """A field that an operation does not use is 0."""
    if layer.op not in ("conv", "maxpool", "avgpool"):
        need(layer, layer.kernel == layer.stride == (0, 0) and layer.pad == (0, 0, 0, 0) and layer.pad_mode == "none", "has a window, which it does not use")
    need(layer, layer.op == "conv" or layer.groups == 0, "has groups, which it does not use")
    need(layer, layer.op in ("scale", "avgpool", "global_avgpool") or layer.shift == 0, "has a shift, which it does not use")
    need(layer, layer.op in ("avgpool", "global_avgpool") or layer.multiplier == 0, "has a multiplier, which it does not use")
    if layer.op != "logits":
        need(layer, all(v == 0 and math.copysign(1, v) > 0 for v in (layer.scale, layer.offset)), "has a scale or an offset, which it does not use")


def check_layer(layer: Layer, inputs: list[Value]) -> None:
    """One layer on its own: types, tensors, window, fields, and the shape that it gives."""
    x = inputs[0]
    _check_types(layer, inputs)
    _check_unused(layer)
    if layer.op in ("conv", "maxpool", "avgpool"):
        _check_window(layer, x)
    if layer.op == "conv":
        (kh, kw), g = layer.kernel, layer.groups
        need(layer, 1 <= g <= x.c and x.c % g == 0 and layer.out.c % g == 0, f"{g} groups do not divide {x.c} channels in and {layer.out.c} out")
        _check_weights(layer, {"bits": (layer.out.c, kh * kw * (x.c // g)), "int8": (layer.out.c, kh, kw, x.c // g)})
    elif layer.op == "dense":
        n = x.h * x.w * x.c
        _check_weights(layer, {"bits": (layer.out.c, n), "int8": (layer.out.c, n)})
    else:
        _check_channel_tensors(layer, x.c)
    need(layer, 0 <= layer.shift <= SHIFT_MAX, f"shift {layer.shift} is not 0 to {SHIFT_MAX}")
    if layer.op in ("avgpool", "global_avgpool"):
        need(layer, 1 <= layer.multiplier <= 65536, f"multiplier {layer.multiplier} is not 1 to 65536")
    if layer.op == "logits":
        need(layer, (x.h, x.w) == (1, 1), f"takes a map of 1x1, not {x.h}x{x.w}")
        with np.errstate(over="ignore"):
            scale, offset = np.float32(layer.scale), np.float32(layer.offset)
        need(layer, bool(np.isfinite(scale) and scale > 0 and np.isfinite(offset)), f"scale {layer.scale} and offset {layer.offset} are not finite, the scale above 0")
    shape = _output_shape(layer, inputs)
    need(layer, (layer.out.h, layer.out.w, layer.out.c) == shape, f"says that it gives {layer.out.h}x{layer.out.w}x{layer.out.c}, and gives {shape}")
    check_shape(*shape, f"{layer.op} {layer.name!r}")


# ---- what its values can become -----------------------------------------------------------------------------------------


def _hull(values: Any) -> Interval:
    return int(np.min(values)), int(np.max(values))


def _clamp(interval: Interval, dtype: str) -> Interval:
    low, high = RANGES[dtype]
    return min(max(interval[0], low), high), min(max(interval[1], low), high)


def _sums(layer: Layer, a: int, b: int) -> Interval:
    weights = layer.tensors[0].array.reshape(layer.out.c, -1).astype(np.int64)
    positive, negative = np.maximum(weights, 0).sum(axis=1), np.maximum(-weights, 0).sum(axis=1)
    largest = int((positive + negative).max()) * max(abs(a), abs(b))
    need(layer, largest <= SUM_MAX, f"sums can reach {largest}, more than 2^30")
    return min(_hull(positive * a - negative * b)[0], _hull(positive * b - negative * a)[0]), max(_hull(positive * b - negative * a)[1], _hull(positive * a - negative * b)[1])


def _mean(layer: Layer, a: int, b: int, elements: int) -> Interval:
    need(layer, elements * max(abs(a), abs(b)) <= SUM_MAX, f"sums can reach {elements * max(abs(a), abs(b))}, more than 2^30")
    low, high = (half_up_shift(elements * v * layer.multiplier, layer.shift) for v in (a, b))
    if layer.out.dtype == "int32":
        need(layer, max(abs(low), abs(high)) <= SUM_MAX, "the mean can leave 2^30")
        return low, high
    return _clamp((low, high), "int16")


def _channelwise(layer: Layer, v: int) -> np.ndarray:
    """The formula of a scale, rprelu or logits at x = v, for each channel, before any clamp."""
    tensors = [t.array.astype(np.int64) for t in layer.tensors]
    if layer.op == "rprelu":
        t = v + tensors[0]
        return np.where(t >= 0, t, t >> tensors[1]) + tensors[2]
    return half_up_shift(tensors[0] * v + tensors[1], layer.shift)


def bound(layer: Layer, inputs: list[Interval], x: Value) -> Interval:
    """The interval of the layer's output as the format defines it, from those of its inputs; x: the first input."""
    a, b = inputs[0]
    if layer.pad_mode == "zero" and any(layer.pad) and layer.op in ("conv", "avgpool"):
        a, b = min(a, 0), max(b, 0)
    if layer.op in ("conv", "dense"):
        return _sums(layer, a, b)
    if layer.op == "threshold":
        return -1, 1
    if layer.op in ("scale", "rprelu", "logits"):
        low, high = _hull([_channelwise(layer, a), _channelwise(layer, b)])
        if len(inputs) == 2:
            low, high = low + inputs[1][0], high + inputs[1][1]
        if layer.op == "logits":
            need(layer, low >= RANGES["int32"][0] and high <= RANGES["int32"][1], f"logits from {low} to {high} do not fit int32")
            return low, high
        return _clamp((low, high), layer.out.dtype)
    if layer.op == "add":
        return _clamp((a + inputs[1][0], b + inputs[1][1]), "int16")
    if layer.op == "maxpool":
        return a, b
    if layer.op == "avgpool":
        return _mean(layer, a, b, layer.kernel[0] * layer.kernel[1])
    if layer.op == "global_avgpool":
        return _mean(layer, a, b, x.h * x.w)
    return min(i[0] for i in inputs), max(i[1] for i in inputs)  # concat


# ---- metadata -----------------------------------------------------------------------------------------------------------


def _text(value: Any, what: str, most: int) -> None:
    if not isinstance(value, str) or len(value.encode()) > most or any(ord(c) < 0x20 or ord(c) == 0x7f for c in value):
        raise FormatError(f"metadata: {what} is not one line of text of up to {most} bytes: {value!r:.80}")


def _name(value: Any, what: str) -> None:
    allowed = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
    if not isinstance(value, str) or not 1 <= len(value) <= 63 or not set(value) <= allowed or value.startswith("."):
        raise FormatError(f"metadata: {what} is 1 to 63 of A-Z a-z 0-9 . _ -, not beginning with '.'; not {value!r:.80}")


def _integer(value: Any, what: str, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise FormatError(f"metadata: {what} is an integer from {low} to {high}, not {value!r:.80}")


def _check_image(image: Any, channels: int) -> None:
    if not isinstance(image, dict) or image.get("color") not in ("gray", "rgb"):
        raise FormatError("metadata: input.image needs a color, gray or rgb")
    if channels != (1 if image["color"] == "gray" else 3):
        raise FormatError(f"metadata: input.image.color is {image['color']}, the input has {channels} channels")
    if image.get("fit", "stretch") not in ("stretch", "crop", "pad"):
        raise FormatError(f"metadata: input.image.fit is stretch, crop or pad, not {image['fit']!r:.80}")
    for key in ("multiplier", "offset"):
        values = image.get(key, [0] * channels)
        if not isinstance(values, list) or len(values) != channels:
            raise FormatError(f"metadata: input.image.{key} is an array of {channels} integers")
        for value in values:
            _integer(value, f"input.image.{key}", -(1 << 24), 1 << 24)
    _integer(image.get("shift", 0), "input.image.shift", 0, 24)


def check_metadata(meta: Any, x: Value, classes: int) -> None:
    """What a reader checks in the metadata of a network with input x."""
    if not isinstance(meta, dict):
        raise FormatError("metadata: not a JSON object")
    _name(meta.get("name"), "name")
    version = meta.get("version", "1")
    if not isinstance(version, str) or not 1 <= len(version) <= 15 or not set(version) <= set("0123456789"):
        raise FormatError(f"metadata: version is a decimal number of up to 15 digits as a string, not {version!r:.80}")
    _text(meta.get("description", ""), "description", 4095)
    _text(meta.get("license", ""), "license", 4095)
    labels = meta.get("labels", [""] * classes)
    if not isinstance(labels, list) or len(labels) != classes:
        raise FormatError(f"metadata: {len(labels) if isinstance(labels, list) else 'no array of'} labels for {classes} classes")
    for label in labels:
        _text(label, "a label", 255)
    given = meta.get("input", {})
    if not isinstance(given, dict):
        raise FormatError("metadata: input is an object")
    _name(given.get("name", "input"), "input.name")
    if given.get("shape", [x.h, x.w, x.c]) != [x.h, x.w, x.c] or given.get("dtype", x.dtype) != x.dtype:
        raise FormatError(f"metadata: input is {given.get('shape')} {given.get('dtype')}, the network takes {[x.h, x.w, x.c]} {x.dtype}")
    if "image" in given:
        _check_image(given["image"], x.c)
    if not isinstance(meta.get("provenance", {}), dict):
        raise FormatError("metadata: provenance is an object")
