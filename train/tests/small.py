# SPDX-License-Identifier: Apache-2.0
"""Small networks for the tests."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from xnortrain.xnorfile import HEADER, Network


def signs(random: np.random.Generator, *shape: int) -> np.ndarray:
    return (2 * random.integers(0, 2, shape) - 1).astype(np.int8)


def every_op(seed: int = 1, classes: int = 5) -> Network:
    """All eleven operations, each field that one uses away from its default; 9x10x3."""
    r = np.random.default_rng(seed)
    net = Network((9, 10, 3), "uint8")
    stem = net.conv(net.input, r.integers(-128, 128, (12, 3, 2, 3)), bits=False, stride=(1, 2), pad=(1, 0, 1, 1), pad_mode="zero", name="stem")
    h = net.scale(stem, r.integers(-3000, 3000, 12), r.integers(-(1 << 24), 1 << 24, 12), 16, name="stem.scale")
    h = net.rprelu(h, r.integers(-90, 90, 12), r.integers(0, 9, 12), r.integers(-90, 90, 12), name="act")
    bits = net.threshold(h, r.integers(-50, 50, 12), name="sign")
    s = net.conv(bits, signs(r, 12, 3, 3, 4), bits=True, pad=1, pad_mode="minus_one", groups=3, name="grouped")
    h = net.scale(s, r.integers(-99, 99, 12), r.integers(-99, 99, 12), 2, residual=h, name="residual")
    pooled = net.maxpool(h, (2, 3), (2, 1), (0, 1), name="max")
    mean = net.avgpool(h, 2, (2, 1), 3, 4, (0, 1, 0, 1), name="mean")
    both = net.add(pooled, net.maxpool(mean, (1, 2), 1), name="sum")
    wide = net.concat([both, pooled], name="wide")
    summed = net.global_avgpool(wide, 3, 1, dtype="int16", name="global")
    small = net.scale(summed, r.integers(-50, 50, wide.c), r.integers(-50, 50, wide.c), 4, dtype="int8", name="small")
    z = net.dense(small, r.integers(-128, 128, (classes, wide.c)), bits=False, name="dense")
    net.logits(z, multiplier=r.integers(-3, 9, classes), bias=r.integers(-99, 99, classes), scale=0.125, offset=-1.5)
    net.metadata = {"name": "every-op", "labels": [f"label {c}" for c in range(classes)], "description": "äöü"}
    return net


def nearest_mean(images: np.ndarray, labels: np.ndarray, classes: int, metadata: dict[str, Any]) -> Network:
    """A dense int8 network that answers far better than chance without any training: the centred mean image of each class."""
    means = np.stack([images[labels == c].reshape(-1, images[0].size).mean(axis=0) for c in range(classes)])
    centred = means - means.mean(axis=0)
    weights = np.clip(np.round(centred / np.abs(centred).max() * 127), -127, 127)
    net = Network(images.shape[1:], "uint8")
    z = net.dense(net.input, weights, bits=False)
    net.logits(z, bias=-np.round((weights * (means + means.mean(axis=0)) / 2).sum(axis=1)), scale=1e-5)
    net.metadata = metadata
    return net


def resealed(data: bytes) -> bytes:
    """The bytes with the SHA-256 that fits them: damage that only the rules find."""
    at = HEADER.size - 32
    return data[:at] + hashlib.sha256(data[:at] + bytes(32) + data[HEADER.size:]).digest() + data[HEADER.size:]
