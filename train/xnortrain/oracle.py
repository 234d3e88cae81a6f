# SPDX-License-Identifier: Apache-2.0
"""The integer oracle: a .xnor network evaluated by PyTorch's own convolutions, pools and products, independent of interpret.py.

Sums of integers are exact in floating point while no partial sum leaves 2^24 (float32) or 2^53 (float64; the format's own bound is 2^30), with any algorithm that
only adds products, as PyTorch's direct convolutions do; the multiply-shift runs in int64. Tensors are NCHW."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .xnorfile import Layer, Network

RANGE = {"uint8": (0, 255), "int8": (-128, 127), "int16": (-32768, 32767)}


def _column(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array.astype(np.int64))[:, None, None]


def _shift(v: Tensor, n: int) -> Tensor:
    return torch.bitwise_right_shift(v + ((1 << (n - 1)) if n else 0), n)


def _padded(layer: Layer, x: Tensor, value: float) -> Tensor:
    top, left, bottom, right = layer.pad
    return F.pad(x, (left, right, top, bottom), value=value)


def _real(weights: Tensor, x: Tensor) -> torch.dtype:
    """The narrowest floating-point type that holds every partial sum of a filter [oc][...] over elements of x."""
    largest = int(weights.abs().flatten(1).sum(dim=1).max()) * max(int(x.abs().max()), 1)
    return torch.float32 if largest <= 1 << 24 else torch.float64


def _conv(layer: Layer, x: Tensor) -> Tensor:
    oc, (kh, kw), groups = layer.out.c, layer.kernel, layer.groups
    weights = torch.from_numpy(layer.tensors[0].array.astype(np.int64).reshape(oc, kh, kw, -1)).permute(0, 3, 1, 2)
    real = _real(weights, x)
    padded = _padded(layer, x.to(real), -1.0 if layer.pad_mode == "minus_one" else 0.0)
    return F.conv2d(padded, weights.to(real).contiguous(), stride=layer.stride, groups=groups).long()


def _scale(layer: Layer, x: Tensor, r: Tensor | None) -> Tensor:
    y = _shift(x * _column(layer.tensors[0].array) + _column(layer.tensors[1].array), layer.shift)
    return torch.clamp(y if r is None else y + r, *RANGE[layer.out.dtype])


def _rprelu(layer: Layer, x: Tensor) -> Tensor:
    a, k, b = (_column(t.array) for t in layer.tensors)
    t = x + a
    return torch.clamp(torch.where(t >= 0, t, torch.bitwise_right_shift(t, k.expand_as(t))) + b, *RANGE["int16"])


def _mean(layer: Layer, total: Tensor) -> Tensor:
    y = _shift(total * layer.multiplier, layer.shift)
    return y if layer.out.dtype == "int32" else torch.clamp(y, *RANGE["int16"])


def _avgpool(layer: Layer, x: Tensor) -> Tensor:
    mean = F.avg_pool2d(_padded(layer, x.double(), 0.0), layer.kernel, layer.stride, divisor_override=1)
    return _mean(layer, mean.round().long())


def _layer(layer: Layer, inputs: list[Tensor]) -> Tensor:
    x = inputs[0]
    if layer.op == "conv":
        return _conv(layer, x)
    if layer.op == "dense":
        flat = x.permute(0, 2, 3, 1).reshape(len(x), -1).double()
        return F.linear(flat, torch.from_numpy(layer.tensors[0].array.astype(np.float64))).long()[:, :, None, None]
    if layer.op == "threshold":
        return (x >= _column(layer.tensors[0].array)).long() * 2 - 1
    if layer.op == "scale":
        return _scale(layer, x, inputs[1] if len(inputs) > 1 else None)
    if layer.op == "add":
        return torch.clamp(x + inputs[1], *RANGE["int16"])
    if layer.op == "rprelu":
        return _rprelu(layer, x)
    if layer.op == "maxpool":
        return F.max_pool2d(_padded(layer, x.double(), float("-inf")), layer.kernel, layer.stride).long()
    if layer.op == "avgpool":
        return _avgpool(layer, x)
    if layer.op == "global_avgpool":
        return _mean(layer, x.sum(dim=(2, 3), keepdim=True))
    if layer.op == "concat":
        return torch.cat(inputs, dim=1)
    if layer.op == "logits":
        return x * _column(layer.tensors[0].array) + _column(layer.tensors[1].array)
    raise ValueError(f"unknown operation {layer.op}")


@torch.no_grad()
def run(net: Network, images: np.ndarray, chunk: int = 64) -> np.ndarray:
    """images [n][h][w][c] of the input's dtype -> logits int32 [n][classes]."""
    out = []
    for start in range(0, len(images), chunk):
        values = [torch.from_numpy(images[start:start + chunk].astype(np.int64)).permute(0, 3, 1, 2)]
        for layer in net.layers:
            values.append(_layer(layer, [values[i] for i in layer.inputs]))
        out.append(values[-1].reshape(-1, net.classes).to(torch.int32).numpy())
    return np.concatenate(out) if out else np.zeros((0, net.classes), np.int32)
