# SPDX-License-Identifier: Apache-2.0
"""What can be told of a network from its file alone: sizes, parameters, operations, and how good its answers are on labelled images."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np

from .xnorfile import Layer, Network

KINDS = ("binary", "binary x 8 bit", "int8")


def kind(net: Network, layer: Layer) -> str:
    """How a conv or dense multiplies: bits by bits, bits by 8 bits (a sum of signed pixels), or int8 by anything."""
    if layer.tensors[0].dtype != "bits":
        return "int8"
    return "binary" if net.values[layer.inputs[0]].dtype == "bits" else "binary x 8 bit"


def macs(net: Network, layer: Layer) -> int:
    """Multiply-accumulates of one image, as docs/model-format.md counts them (padding counts); 0 for what does not multiply by weights."""
    if layer.op == "conv":
        return layer.out.h * layer.out.w * layer.out.c * layer.kernel[0] * layer.kernel[1] * (net.values[layer.inputs[0]].c // layer.groups)
    return int(layer.tensors[0].array.size) if layer.op == "dense" else 0


@dataclasses.dataclass
class Cost:
    """macs: multiply-accumulates of one image by kind; parameters: by type; tensor_bytes: of all tensors as stored."""

    macs: dict[str, int]
    parameters: dict[str, int]
    tensor_bytes: int
    file_bytes: int
    file_sha256: str


def cost(net: Network, path: Path) -> Cost:
    multiplies = {k: 0 for k in KINDS}
    parameters = {"binary weights": 0, "int8 weights": 0, "thresholds, scales, offsets": 0}
    tensor_bytes = 0
    for layer in net.layers:
        weighted = layer.op in ("conv", "dense")
        if weighted:
            multiplies[kind(net, layer)] += macs(net, layer)
        for tensor in layer.tensors:
            name = ("binary weights" if tensor.dtype == "bits" else "int8 weights") if weighted else "thresholds, scales, offsets"
            parameters[name] += int(tensor.array.size)
            tensor_bytes += len(tensor.to_bytes())
    data = path.read_bytes()
    return Cost(multiplies, parameters, tensor_bytes, len(data), hashlib.sha256(data).hexdigest())


@dataclasses.dataclass
class Quality:
    """confusion [true][predicted]; images; hits. Precision and recall by class, None where nothing counts."""

    confusion: np.ndarray

    @property
    def images(self) -> int:
        return int(self.confusion.sum())

    @property
    def hits(self) -> int:
        return int(np.trace(self.confusion))

    @property
    def accuracy(self) -> float:
        return self.hits / self.images

    def precision(self, c: int) -> float | None:
        column = int(self.confusion[:, c].sum())
        return int(self.confusion[c, c]) / column if column else None

    def recall(self, c: int) -> float | None:
        row = int(self.confusion[c].sum())
        return int(self.confusion[c, c]) / row if row else None

    def mistaken_for(self, c: int) -> tuple[int, int] | None:
        """(class, times) that images of class c were most often taken for wrongly; the first of equals."""
        row = self.confusion[c].copy()
        row[c] = 0
        return (int(row.argmax()), int(row.max())) if row.max() else None


def quality(logits: np.ndarray, labels: np.ndarray, classes: int) -> Quality:
    """logits [n][classes], labels [n]. The class of an answer is the lowest index of the largest logit."""
    if not len(labels):
        raise ValueError("no images to judge by")
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (labels, logits.argmax(axis=1)), 1)
    return Quality(confusion)
