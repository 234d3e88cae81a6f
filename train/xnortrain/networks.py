# SPDX-License-Identifier: Apache-2.0
"""Networks as short definitions. Each knows how to run in PyTorch and how to write itself down layer by layer (`export`); those with a stream also how to begin
with what such a file says (`restore`), whose layers they name (`parts`).

Which layers are binary and which int8 is not theirs to say: every convolution asks a Precision by its name (`block3.depthwise`), as it will be named in the file."""

from __future__ import annotations

import dataclasses
import fnmatch
import itertools
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import (SCALES, BinaryConv, FoldedSign, Int8Conv, Int8Head, Int8Quantizer, RPReLU, RSign, Shortcut, StreamAdd, StreamScale, array, convolve, replace, round_ste,
                     set_binary_weights)
from .xnorfile import FormatError, Layer, Network, Value


class ConfigError(ValueError):
    """A configuration that makes no network; the text names the setting."""


# ---- flexible binarization --------------------------------------------------------------------------------------------

PRECISIONS = ("binary", "int8")
IMAGE_WEIGHTS_UNIT = 1.0 / (64 * 127)


@dataclasses.dataclass(frozen=True)
class LayerPrecision:
    weights: str = "binary"
    activations: str = "binary"


class Precision:
    """Each layer's precision, from {pattern: "binary" | "int8" | {"weights": ..., "activations": ...}}; the last pattern that fits a layer's name counts."""

    def __init__(self, table: dict[str, Any] | None = None) -> None:
        self.table = dict(table or {})
        self.asked: set[str] = set()

    @staticmethod
    def _parse(pattern: str, value: Any) -> LayerPrecision:
        if isinstance(value, str):
            value = {"weights": value, "activations": value}
        if not isinstance(value, dict) or set(value) - {"weights", "activations"} or not set(value.values()) <= set(PRECISIONS):
            raise ConfigError(f'precision of "{pattern}": {value!r} is none of {", ".join(PRECISIONS)} nor a table of "weights" and "activations" with them')
        return LayerPrecision(**value)

    def __call__(self, name: str, default: LayerPrecision = LayerPrecision()) -> LayerPrecision:
        found = default
        for pattern, value in self.table.items():
            if fnmatch.fnmatchcase(name, pattern):
                found = self._parse(pattern, value)
        self.asked.add(name)
        return found

    def check(self) -> None:
        """Every pattern names some layer."""
        for pattern in self.table:
            if not any(fnmatch.fnmatchcase(name, pattern) for name in self.asked):
                raise ConfigError(f'precision of "{pattern}": no layer has such a name; there are {", ".join(sorted(self.asked))}')


@dataclasses.dataclass
class Style:
    """What all layers of a network share."""

    estimator: str = "h"
    scales: str = "trained"
    normalise: bool = True
    precision: Precision = dataclasses.field(default_factory=Precision)

    def convolution(self, name: str, ic: int, oc: int, kernel: int, stride: int = 1, groups: int = 1, default: LayerPrecision = LayerPrecision()) -> nn.Module:
        if self.precision(name, default).weights == "binary":
            return BinaryConv(ic, oc, kernel, stride, groups, self.estimator)
        return Int8Conv(ic, oc, kernel, stride, groups)

    def quantizer(self, name: str, channels: int) -> nn.Module:
        """What makes the input of convolution `name` from the stream."""
        return RSign(channels, self.estimator) if self.precision(name).activations == "binary" else Int8Quantizer()

    def scale(self, name: str, conv: nn.Module) -> StreamScale:
        unit = None
        if self.scales != "analytic" and self.precision(name).activations == "int8":
            unit = StreamScale(conv).unit / 32  # type: ignore[arg-type]
        return StreamScale(conv, self.scales, self.normalise, unit)  # type: ignore[arg-type]


# ---- blocks -----------------------------------------------------------------------------------------------------------


class ResidualBlock(nn.Module):
    """stream -> bits -> 3x3 -> scale -> + shortcut -> RPReLU -> stream (Bi-Real and ReActNet style). stride 2 halves the map and doubles the channels."""

    def __init__(self, name: str, ic: int, oc: int, stride: int, style: Style) -> None:
        super().__init__()
        self.name = name
        self.sign = style.quantizer(f"{name}.conv", ic)
        self.conv = style.convolution(f"{name}.conv", ic, oc, 3, stride)
        self.scale = style.scale(f"{name}.conv", self.conv)
        self.shortcut = Shortcut(double=oc == 2 * ic) if stride == 2 else None
        self.act = RPReLU(oc)

    def forward(self, h: Tensor) -> Tensor:
        s, h = convolve(self.sign, self.conv, h)
        return self.scale(s, self.shortcut(h) if self.shortcut else h, self.act)

    def export(self, net: Network, h: Value) -> Value:
        s = self.conv.export(net, self.sign.export(net, h, f"{self.name}.sign"), f"{self.name}.conv")
        if self.shortcut:
            h = self.shortcut.export(net, h, self.name)
        return self.act.export(net, self.scale.export(net, s, f"{self.name}.scale", h), f"{self.name}.act")

    def parts(self) -> dict[str, nn.Module]:
        return {f"{self.name}.{kind}": part for kind, part in (("sign", self.sign), ("conv", self.conv), ("scale", self.scale), ("act", self.act))}


class SqueezeBlock(nn.Module):
    """stream -> bits -> 1x1 to oc / `ratio` channels -> bits -> 1x1 and 3x3 side by side, half of the channels each -> + shortcut -> RPReLU -> stream
    (SqueezeNet's fire module round a shortcut)."""

    def __init__(self, name: str, ic: int, oc: int, stride: int, style: Style, ratio: int = 2) -> None:
        super().__init__()
        self.name = name
        narrow = oc // ratio
        self.sign = style.quantizer(f"{name}.squeeze", ic)
        self.squeeze = style.convolution(f"{name}.squeeze", ic, narrow, 1)
        self.squeeze_scale, self.squeeze_act = style.scale(f"{name}.squeeze", self.squeeze), RPReLU(narrow)
        if style.precision(f"{name}.expand1").activations != style.precision(f"{name}.expand3").activations:
            raise ConfigError(f'precision of "{name}.expand1" and "{name}.expand3": they read the same activations')
        self.expand_sign = style.quantizer(f"{name}.expand1", narrow)
        self.expand1 = style.convolution(f"{name}.expand1", narrow, oc // 2, 1, stride)
        self.expand3 = style.convolution(f"{name}.expand3", narrow, oc // 2, 3, stride)
        self.scale1, self.scale3 = style.scale(f"{name}.expand1", self.expand1), style.scale(f"{name}.expand3", self.expand3)
        self.shortcut = Shortcut(double=oc == 2 * ic) if stride == 2 else None
        self.add, self.act = StreamAdd(oc), RPReLU(oc)

    def forward(self, h: Tensor) -> Tensor:
        s, h = convolve(self.sign, self.squeeze, h)
        narrow = self.squeeze_scale(s, None, self.squeeze_act)
        s1, narrow = convolve(self.expand_sign, self.expand1, narrow)
        s3, _ = convolve(self.expand_sign, self.expand3, narrow)
        y = torch.cat((self.scale1(s1), self.scale3(s3)), dim=1)
        return self.add(y, self.shortcut(h) if self.shortcut else h, self.act)

    def export(self, net: Network, h: Value) -> Value:
        name = self.name
        s = self.squeeze.export(net, self.sign.export(net, h, f"{name}.sign"), f"{name}.squeeze")
        q = self.squeeze_act.export(net, self.squeeze_scale.export(net, s, f"{name}.squeeze.scale"), f"{name}.squeeze.act")
        bits = self.expand_sign.export(net, q, f"{name}.expand.sign")
        y = net.concat([scale.export(net, conv.export(net, bits, f"{name}.{kind}"), f"{name}.{kind}.scale")
                        for kind, conv, scale in (("expand1", self.expand1, self.scale1), ("expand3", self.expand3, self.scale3))], name=f"{name}.concat")
        if self.shortcut:
            h = self.shortcut.export(net, h, name)
        return self.act.export(net, net.add(y, h, name=f"{name}.add"), f"{name}.act")

    def parts(self) -> dict[str, nn.Module]:
        return {f"{self.name}.{kind}": part for kind, part in (
            ("sign", self.sign), ("squeeze", self.squeeze), ("squeeze.scale", self.squeeze_scale), ("squeeze.act", self.squeeze_act), ("expand.sign", self.expand_sign),
            ("expand1", self.expand1), ("expand1.scale", self.scale1), ("expand3", self.expand3), ("expand3.scale", self.scale3), ("act", self.act))}


class DepthwiseBlock(nn.Module):
    """stream -> depthwise 3x3 -> + shortcut -> RPReLU -> pointwise 1x1 -> + shortcut -> RPReLU -> stream (MobileNet style, a shortcut round each as in ReActNet).
    stride 2 halves the map in the depthwise part and doubles the channels in the pointwise one."""

    def __init__(self, name: str, ic: int, oc: int, stride: int, style: Style) -> None:
        super().__init__()
        self.name = name
        self.sign = style.quantizer(f"{name}.depthwise", ic)
        self.depthwise = style.convolution(f"{name}.depthwise", ic, ic, 3, stride, groups=ic)
        self.depthwise_scale, self.depthwise_act = style.scale(f"{name}.depthwise", self.depthwise), RPReLU(ic)
        self.shortcut = Shortcut(double=False) if stride == 2 else None
        self.pointwise_sign = style.quantizer(f"{name}.pointwise", ic)
        self.pointwise = style.convolution(f"{name}.pointwise", ic, oc, 1)
        self.pointwise_scale, self.act = style.scale(f"{name}.pointwise", self.pointwise), RPReLU(oc)
        self.double = oc == 2 * ic

    def forward(self, h: Tensor) -> Tensor:
        s, h = convolve(self.sign, self.depthwise, h)
        h = self.depthwise_scale(s, self.shortcut(h) if self.shortcut else h, self.depthwise_act)
        s, h = convolve(self.pointwise_sign, self.pointwise, h)
        return self.pointwise_scale(s, torch.cat((h, h), dim=1) if self.double else h, self.act)

    def export(self, net: Network, h: Value) -> Value:
        name = self.name
        s = self.depthwise.export(net, self.sign.export(net, h, f"{name}.sign"), f"{name}.depthwise")
        if self.shortcut:
            h = self.shortcut.export(net, h, name)
        h = self.depthwise_act.export(net, self.depthwise_scale.export(net, s, f"{name}.depthwise.scale", h), f"{name}.depthwise.act")
        s = self.pointwise.export(net, self.pointwise_sign.export(net, h, f"{name}.pointwise.sign"), f"{name}.pointwise")
        if self.double:
            h = net.concat([h, h], name=f"{name}.double")
        return self.act.export(net, self.pointwise_scale.export(net, s, f"{name}.pointwise.scale", h), f"{name}.act")

    def parts(self) -> dict[str, nn.Module]:
        return {f"{self.name}.{kind}": part for kind, part in (
            ("sign", self.sign), ("depthwise", self.depthwise), ("depthwise.scale", self.depthwise_scale), ("depthwise.act", self.depthwise_act),
            ("pointwise.sign", self.pointwise_sign), ("pointwise", self.pointwise), ("pointwise.scale", self.pointwise_scale), ("act", self.act))}


# ---- networks ---------------------------------------------------------------------------------------------------------


def told(layer: Layer | None) -> str:
    """All that makes a layer but its numbers and, in the head, the classes."""
    if layer is None:
        return "none"
    facts = [f"kernel {layer.kernel}, stride {layer.stride}, padding {layer.pad} {layer.pad_mode}"] if any(layer.kernel) else []
    facts += [f"{layer.groups} groups"] if layer.groups > 1 else []
    facts += [f"times {layer.multiplier} >> {layer.shift}"] if layer.multiplier else []
    for tensor in layer.tensors:
        dims = tensor.dims()[1:] if layer.op in ("dense", "logits") else tensor.dims()
        facts.append(f"{tensor.dtype} {list(dims)}")
    return f"{layer.op} {layer.name!r} ({', '.join([*facts, f'of values {layer.inputs}, makes {layer.out.dtype}'])})"


def check_same_layers(net: Network, own: Network) -> None:
    """Raises FormatError naming the first layer of a file that is not as in this network."""
    if net.input.dtype != own.input.dtype:
        raise FormatError(f"of another network: its input is {net.input.dtype}, of this one {own.input.dtype}")
    for i, (found, wanted) in enumerate(itertools.zip_longest(net.layers, own.layers)):
        if told(found) != told(wanted):
            recipe = net.metadata.get("provenance", {}).get("recipe")
            network = {key: recipe[key] for key in ("network", "options") if key in recipe} if isinstance(recipe, dict) else {}
            raise FormatError(f"of another network: layer {i} is {told(found)}, of this one {told(wanted)}" + (f"; the file tells of {json.dumps(network)}" if network else ""))


class Exporting(nn.Module):
    """What every network here can do; `trunk` and `head` are the network's."""

    shape: tuple[int, int, int]
    head: nn.Module

    def trunk(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def export_trunk(self, net: Network) -> Value:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """x: pixels 0..255 as floats [n][c][h][w] -> scores [n][classes]."""
        return self.head(self.trunk(x))

    @torch.no_grad()
    def logits(self, x: Tensor) -> Tensor:
        """The integer logits of the training graph itself, int32 [n][classes]: in exact mode those of the exported file."""
        return self.head.forward_integers(self.trunk(x))[1].round().to(torch.int32)  # type: ignore[operator]

    def export(self, metadata: dict[str, Any]) -> Network:
        net = Network(self.shape, "uint8")
        net.metadata = metadata
        self.head.export(net, self.export_trunk(net))  # type: ignore[operator]
        return net

    def restore(self, net: Network, x: Tensor) -> list[str]:
        """The parameters from a file that such a network wrote, and statistics, which it has not, from the pixels x. Returns the parameters that begin anew.
        Raises FormatError naming what does not fit."""
        raise FormatError("this kind of network folds all it learns into thresholds, from which it cannot begin; give the folder of a run")


def _halved(size: int, what: str) -> int:
    if size % 2 or size < 2:
        raise ConfigError(f"{what}: a map {size} wide cannot be halved; choose another input size, stem_stride or fewer stages")
    return size // 2


class StreamNet(Exporting):
    """A stem (`stem_kernel` wide, stride `stem_stride`) and stages of blocks with a residual stream; each stage after the first halves the map and doubles the
    channels; a mean over the map and an int8 fully connected layer."""

    def __init__(self, block: Callable[..., nn.Module], shape: tuple[int, int, int], classes: int, style: Style, width: int, blocks: list[int], stem_stride: int,
                 stem_kernel: int) -> None:
        super().__init__()
        self.shape = shape
        h, w, c = shape
        self.stem = style.convolution("stem", c, width, stem_kernel, stem_stride, default=LayerPrecision("int8", "int8"))
        self.stem_scale = StreamScale(self.stem, "none" if style.scales == "none" else "trained", True, IMAGE_WEIGHTS_UNIT)  # type: ignore[arg-type]
        self.stem_act = RPReLU(width)
        stages: list[nn.Module] = []
        h, w = (-(-size // stem_stride) for size in (h, w))
        for i, count in enumerate(blocks):
            for k in range(count):
                down = i > 0 and k == 0
                stages.append(block(f"block{len(stages)}", width // 2 if down else width, width, 2 if down else 1, style))
            if i + 1 < len(blocks):
                width, h, w = 2 * width, _halved(h, f"stage {i + 1}"), _halved(w, f"stage {i + 1}")
        self.blocks = nn.ModuleList(stages)
        self.head = Int8Head(width, classes, h * w)

    def trunk(self, x: Tensor) -> Tensor:
        h = self.stem_scale(convolve(None, self.stem, x)[0], None, self.stem_act)  # type: ignore[arg-type]
        for block in self.blocks:
            h = block(h)
        return h

    def export_trunk(self, net: Network) -> Value:
        h = self.stem_act.export(net, self.stem_scale.export(net, self.stem.export(net, net.input, "stem"), "stem.scale"), "stem.act")
        for block in self.blocks:
            h = block.export(net, h)  # type: ignore[operator]
        return h

    def parts(self) -> dict[str, nn.Module]:
        """What has parameters, but for the head, by the name of its layer in a file."""
        parts: dict[str, nn.Module] = {"stem": self.stem, "stem.scale": self.stem_scale, "stem.act": self.stem_act}
        for block in self.blocks:
            parts.update(block.parts())  # type: ignore[operator]
        return parts

    @torch.no_grad()
    def restore(self, net: Network, x: Tensor) -> list[str]:
        check_same_layers(net, self.export({}))
        layers = {layer.name: layer for layer in net.layers}
        hooks = []
        for name, part in self.parts().items():
            if isinstance(part, StreamScale):  # when its sums come, made by what is restored before it
                hooks.append(part.register_forward_pre_hook(lambda scale, inputs, layer=layers[name]: scale.restore(layer, inputs[0])))
            else:
                part.restore(layers[name])  # type: ignore[operator]
        stream = net.values[layers["head.sum"].inputs[0]]
        whole = self.head.restore(layers["head.mean"], layers["head.dense"], layers["logits"], stream.h * stream.w)
        set_binary_weights(self, True)
        self.eval().trunk(x)
        for hook in hooks:
            hook.remove()
        set_binary_weights(self, False)
        return [] if whole else ["head.bias", "head.weight"]


class BitsHead(nn.Module):
    """An int8 fully connected layer over the bits of the whole map, in the order [h][w][c]. z = q . bits + bias, score = step * z."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, features))
        nn.init.xavier_normal_(self.weight)
        self.bias = nn.Parameter(torch.zeros(classes))

    def step(self) -> Tensor:
        return self.weight.detach().abs().max().clamp(min=1e-8) / 127

    def quantized(self) -> Tensor:
        return torch.clamp(round_ste(self.weight / self.step()), -127, 127)

    def bias_integers(self) -> Tensor:
        return torch.round(self.bias.detach() / self.step())

    def forward(self, bits: Tensor) -> Tensor:
        return self.forward_integers(bits)[0]

    def forward_integers(self, bits: Tensor) -> tuple[Tensor, Tensor]:
        flat = bits.permute(0, 2, 3, 1).flatten(1)
        z = F.linear(flat, self.quantized()) + replace(self.bias / self.step(), self.bias_integers())
        return z * self.step(), z

    def export(self, net: Network, bits: Value) -> Value:
        z = net.dense(bits, array(self.quantized(), np.int8), bits=False, name="head.dense")
        return net.logits(z, bias=array(self.bias_integers()), scale=float(self.step()))


class VggNet(Exporting):
    """VGG-small (Xu & Cheung, section 4.1): pairs of 3x3 at `width`, twice and four times `width`, the largest of 2x2
    behind each pair, an int8 fully connected layer. No stream: scales and normalisation fold into thresholds."""

    def __init__(self, shape: tuple[int, int, int], classes: int, style: Style, width: int, blocks: list[int], stem_stride: int, stem_kernel: int) -> None:
        super().__init__()
        self.shape = shape
        h, w, channels = shape
        h, w = (-(-size // stem_stride) for size in (h, w))
        layers: list[FoldedSign] = []
        convs: list[nn.Module] = []
        for i, count in enumerate(blocks):
            for k in range(count):
                first = not layers
                name = "stem" if first else f"layer{len(layers)}"
                default = LayerPrecision("int8", "int8") if first else LayerPrecision()
                if not first and style.precision(name).activations != "binary":
                    raise ConfigError(f'precision of "{name}": between the layers of a vgg network there are bits only; use another network, or binary activations')
                conv = style.convolution(name, channels, width * 2**i, stem_kernel if first else 3, stem_stride if first else 1, default=default)
                pool = k == count - 1
                if pool:
                    h, w = _halved(h, name), _halved(w, name)
                unit = IMAGE_WEIGHTS_UNIT if first else None
                scales = "trained" if first and style.scales == "analytic" else style.scales
                layers.append(FoldedSign(conv, style.estimator, pool, scales=scales, normalise=style.normalise or first, unit=unit))  # type: ignore[arg-type]
                convs.append(conv)
                channels = width * 2**i
        self.convs, self.folds = nn.ModuleList(convs), nn.ModuleList(layers)
        self.head = BitsHead(h * w * channels, classes)

    def trunk(self, x: Tensor) -> Tensor:
        for conv, fold in zip(self.convs, self.folds):
            x = fold(conv(x))
        return x

    def export_trunk(self, net: Network) -> Value:
        x = net.input
        for i, fold in enumerate(self.folds):
            x = fold.export(net, x, f"layer{i}" if i else "stem")  # type: ignore[operator]
        return x


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of network: what builds it and its usual options."""

    build: Callable[..., Exporting]
    width: int
    blocks: tuple[int, ...]
    stem_stride: int
    described: str


def _stream(block: Callable[..., nn.Module]) -> Callable[..., Exporting]:
    return lambda *arguments: StreamNet(block, *arguments)


NETWORKS = {
    "residual": Kind(_stream(ResidualBlock), 64, (2, 3), 2, "residual, a shortcut round every 3x3 (Bi-Real Net, ReActNet)"),
    "residual18": Kind(_stream(ResidualBlock), 64, (4, 4, 4, 4), 2, "residual with the 18 layers of ResNet-18"),
    "residual20": Kind(_stream(ResidualBlock), 16, (6, 6, 6), 1, "residual with the 20 layers of ResNet-20"),
    "squeeze": Kind(_stream(SqueezeBlock), 64, (2, 3), 2, "1x1 squeeze, then 1x1 and 3x3 expand (SqueezeNet), round shortcuts"),
    "depthwise": Kind(_stream(DepthwiseBlock), 64, (2, 3), 2, "depthwise 3x3 and pointwise 1x1 (MobileNet), a shortcut round each"),
    "vgg": Kind(VggNet, 128, (2, 2, 2), 1, "VGG-small, without shortcuts; everything folds into thresholds"),
}


def build(kind: str, shape: tuple[int, int, int], classes: int, *, width: int | None = None, blocks: list[int] | tuple[int, ...] | None = None,
          stem_stride: int | None = None, stem_kernel: int = 3, estimator: str = "h", scales: str = "trained", normalise: bool = True,
          precision: dict[str, Any] | None = None) -> Exporting:
    """The network `kind` for images of `shape` [h][w][c]. Options not given are the kind's own."""
    if kind not in NETWORKS:
        raise ConfigError(f"no network {kind!r}; there are {', '.join(NETWORKS)}")
    if scales not in SCALES:
        raise ConfigError(f"scales: {scales!r} is none of {', '.join(SCALES)}")
    usual = NETWORKS[kind]
    style = Style(estimator, scales, normalise, Precision(precision))
    model = usual.build(shape, classes, style, width or usual.width, list(blocks or usual.blocks), stem_stride or usual.stem_stride, stem_kernel)
    style.precision.check()
    return model
