# SPDX-License-Identifier: Apache-2.0
"""An interpreter of .xnor networks in NumPy, after docs/model-format.md: the witness that shares nothing with PyTorch or C.

Values are int64 arrays [n][h][w][c], bits as +1 and -1. Products of matrices go through floating point where its integers are exact: sums of magnitude up to
2^24 (float32) or 2^53 (float64), whatever the order of their terms; the format's own bound is 2^30."""

from __future__ import annotations

import numpy as np

from .xnorfile import Layer, Network

LIMITS = {"uint8": (0, 255), "int8": (-128, 127), "int16": (-32768, 32767)}


def _clamp(v: np.ndarray, dtype: str) -> np.ndarray:
    low, high = LIMITS[dtype]
    return np.clip(v, low, high)


def _half(shift: int) -> int:
    return 1 << (shift - 1) if shift else 0


def _windows(layer: Layer, x: np.ndarray, fill: int) -> np.ndarray:
    """[n][oh][ow][c][kh][kw], a view; elements outside the map = fill."""
    top, left, bottom, right = layer.pad
    padded = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=fill) if any(layer.pad) else x
    views = np.lib.stride_tricks.sliding_window_view(padded, layer.kernel, axis=(1, 2))
    return views[:, ::layer.stride[0], ::layer.stride[1]]


def _float(weights: np.ndarray, x: np.ndarray) -> type[np.floating]:
    """The narrowest type in which every partial sum of weights [...][k] times elements of x is an exact integer."""
    largest = int(np.abs(weights.astype(np.int64)).sum(axis=-1).max()) * max(int(x.max()), -int(x.min()), 1)
    return np.float32 if largest <= 1 << 24 else np.float64


def _conv(layer: Layer, x: np.ndarray) -> np.ndarray:
    (kh, kw), groups, oc, icg = layer.kernel, layer.groups, layer.out.c, x.shape[3] // layer.groups
    weights = layer.tensors[0].array.reshape(groups, oc // groups, kh * kw * icg)
    real = _float(weights, x)
    windows = _windows(layer, x.astype(real), -1 if layer.pad_mode == "minus_one" else 0)
    n, oh, ow = windows.shape[:3]
    rows = windows.reshape(n, oh, ow, groups, icg, kh, kw).transpose(3, 0, 1, 2, 5, 6, 4).reshape(groups, n * oh * ow, kh * kw * icg)
    sums = rows @ weights.astype(real).transpose(0, 2, 1)  # [groups][n*oh*ow][oc/groups]
    return sums.transpose(1, 0, 2).reshape(n, oh, ow, oc).astype(np.int64)


def _dense(layer: Layer, x: np.ndarray) -> np.ndarray:
    weights = layer.tensors[0].array
    real = _float(weights, x)
    return (x.reshape(len(x), -1).astype(real) @ weights.astype(real).T).astype(np.int64)[:, None, None, :]


def _scale(layer: Layer, x: np.ndarray, residual: np.ndarray | None) -> np.ndarray:
    m, b = (t.array.astype(np.int64) for t in layer.tensors)
    y = (m * x + (b + _half(layer.shift))) >> layer.shift
    return _clamp(y if residual is None else residual + y, layer.out.dtype)


def _rprelu(layer: Layer, x: np.ndarray) -> np.ndarray:
    a, k, b = (t.array.astype(np.int64) for t in layer.tensors)
    t = x + a
    return _clamp(np.where(t >= 0, t, t >> k) + b, "int16")


def _maxpool(layer: Layer, x: np.ndarray) -> np.ndarray:
    return _windows(layer, x, -(1 << 40)).max(axis=(4, 5))


def _mean(layer: Layer, total: np.ndarray) -> np.ndarray:
    y = (total * layer.multiplier + _half(layer.shift)) >> layer.shift
    return y if layer.out.dtype == "int32" else _clamp(y, "int16")


def run_layer(layer: Layer, inputs: list[np.ndarray]) -> np.ndarray:
    """One layer over a batch."""
    x = inputs[0]
    if layer.op == "conv":
        return _conv(layer, x)
    if layer.op == "dense":
        return _dense(layer, x)
    if layer.op == "threshold":
        return np.where(x >= layer.tensors[0].array, np.int64(1), np.int64(-1))
    if layer.op == "scale":
        return _scale(layer, x, inputs[1] if len(inputs) > 1 else None)
    if layer.op == "add":
        return _clamp(x + inputs[1], "int16")
    if layer.op == "rprelu":
        return _rprelu(layer, x)
    if layer.op == "maxpool":
        return _maxpool(layer, x)
    if layer.op == "avgpool":
        return _mean(layer, _windows(layer, x, 0).sum(axis=(4, 5)))
    if layer.op == "global_avgpool":
        return _mean(layer, x.sum(axis=(1, 2), keepdims=True))
    if layer.op == "concat":
        return np.concatenate(inputs, axis=3)
    if layer.op == "logits":
        m, b = (t.array.astype(np.int64) for t in layer.tensors)
        return m * x + b
    raise ValueError(f"unknown operation {layer.op}")


def run(net: Network, images: np.ndarray, chunk: int = 16) -> np.ndarray:
    """images [n][h][w][c] of the input's dtype -> logits int32 [n][classes]."""
    out = []
    for start in range(0, len(images), chunk):
        values: list[np.ndarray | None] = [images[start:start + chunk].astype(np.int64)]
        last_use = {i: max((k for k, l in enumerate(net.layers) if i in l.inputs), default=-1) for i in range(len(net.values))}
        for k, layer in enumerate(net.layers):
            values.append(run_layer(layer, [values[i] for i in layer.inputs]))  # type: ignore[misc]
            for i in layer.inputs:
                if last_use[i] == k:
                    values[i] = None
        out.append(values[-1].reshape(-1, net.classes).astype(np.int32))  # type: ignore[union-attr]
    return np.concatenate(out) if out else np.zeros((0, net.classes), np.int32)
