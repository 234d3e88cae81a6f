# SPDX-License-Identifier: Apache-2.0
"""Networks as short definitions. Each knows how to run in PyTorch and how to write itself down layer by layer (`export`)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .layers import BinaryConv, Int8Conv, Int8Head, RPReLU, RSign, Shortcut, StreamScale
from .xnorfile import Network, Value


def _array(tensor: Tensor, dtype: type = np.int64) -> np.ndarray:
    return tensor.detach().cpu().double().numpy().astype(dtype)


def _oihw_to_ohwi(weights: Tensor) -> np.ndarray:
    return _array(weights, np.int8).transpose(0, 2, 3, 1)


def export_scale(net: Network, x: Value, scale: StreamScale, residual: Value | None, name: str) -> Value:
    m, b, shift = scale.integers()
    return net.scale(x, _array(m), _array(b), shift, residual=residual, name=name)


def export_rprelu(net: Network, x: Value, act: RPReLU, name: str) -> Value:
    a, k, b = act.integers()
    return net.rprelu(x, _array(a), _array(k), _array(b), name=name)


class ResidualBlock(nn.Module):
    """stream -> RSign -> binary 3x3 -> scale -> + shortcut -> RPReLU -> stream (Bi-Real and ReActNet style). stride 2 halves the map and doubles the channels."""

    def __init__(self, ic: int, oc: int, stride: int, estimator: str) -> None:
        super().__init__()
        self.sign = RSign(ic, estimator)
        self.conv = BinaryConv(ic, oc, 3, stride, estimator=estimator)
        self.scale = StreamScale(oc, unit=1.0 / (3 * ic**0.5))
        self.shortcut = Shortcut(double=oc == 2 * ic) if stride == 2 else None
        self.act = RPReLU(oc)

    def forward(self, h: Tensor) -> Tensor:
        bits, h = self.sign(h)
        return self.scale(self.conv(bits), self.shortcut(h) if self.shortcut else h, self.act)

    def export(self, net: Network, h: Value, name: str) -> Value:
        bits = net.threshold(h, _array(self.sign.integers()), name=f"{name}.sign")
        s = net.conv(bits, _oihw_to_ohwi(self.conv.integers()), bits=True, stride=self.conv.stride, pad=self.conv.padding, pad_mode="zero", name=f"{name}.conv")
        if self.shortcut:
            h = net.avgpool(h, 2, 2, 1, 2, name=f"{name}.down")
            if self.shortcut.double:
                h = net.concat([h, h], name=f"{name}.double")
        return export_rprelu(net, export_scale(net, s, self.scale, h, f"{name}.scale"), self.act, f"{name}.act")


class ResidualNet(nn.Module):
    """int8 stem (3x3, stride `stem_stride`) and stages of residual blocks; each stage after the first halves the map and doubles the channels."""

    def __init__(self, shape: tuple[int, int, int], classes: int, width: int = 64, blocks: tuple[int, ...] = (2, 3), stem_stride: int = 2,
                 estimator: str = "h") -> None:
        super().__init__()
        self.shape = shape
        h, w, c = shape
        self.stem = Int8Conv(c, width, 3, stem_stride)
        self.stem_scale = StreamScale(width, unit=1.0 / (64 * 127))
        self.stem_act = RPReLU(width)
        stages: list[nn.Module] = []
        h, w = (h + 1) // stem_stride, (w + 1) // stem_stride
        for i, count in enumerate(blocks):
            for k in range(count):
                down = i > 0 and k == 0
                stages.append(ResidualBlock(width // 2 if down else width, width, 2 if down else 1, estimator))
            if i + 1 < len(blocks):
                width, h, w = 2 * width, h // 2, w // 2
        self.blocks = nn.ModuleList(stages)
        self.head = Int8Head(width, classes, h * w)

    def stream(self, x: Tensor) -> Tensor:
        h = self.stem_scale(self.stem(x), None, self.stem_act)
        for block in self.blocks:
            h = block(h)
        return h

    def forward(self, x: Tensor) -> Tensor:
        """x: pixels 0..255 as floats [n][c][h][w] -> scores [n][classes]."""
        return self.head(self.stream(x))

    @torch.no_grad()
    def logits(self, x: Tensor) -> Tensor:
        """The integer logits of the training graph itself, int32 [n][classes]: in exact mode those of the exported file."""
        return self.head.forward_integers(self.stream(x))[1].round().to(torch.int32)

    def export(self, metadata: dict[str, Any]) -> Network:
        net = Network(self.shape, "uint8")
        net.metadata = metadata
        s = net.conv(net.input, _oihw_to_ohwi(self.stem.quantized()), bits=False, stride=self.stem.stride, pad=self.stem.padding, pad_mode="zero", name="stem")
        h = export_rprelu(net, export_scale(net, s, self.stem_scale, None, "stem.scale"), self.stem_act, "stem.act")
        for i, block in enumerate(self.blocks):
            h = block.export(net, h, f"block{i}")  # type: ignore[operator]
        m, shift = self.head.activation_integers()
        total = net.global_avgpool(h, name="head.sum")
        q = net.scale(total, np.full(h.c, m), np.zeros(h.c, np.int64), shift, dtype="int8", name="head.mean")
        z = net.dense(q, _array(self.head.quantized_weight(), np.int8), bits=False, name="head.dense")
        step = float(self.head.weight_step() * self.head.log_step.detach().exp())
        net.logits(z, bias=_array(self.head.bias_integers()), scale=step)
        return net


NETWORKS = {"residual": ResidualNet}
