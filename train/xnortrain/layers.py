# SPDX-License-Identifier: Apache-2.0
"""Layers of binary networks, trainable in PyTorch and exportable to integers without a difference of one bit.

The residual stream is int16 with one unit 2^-STREAM_BITS for the whole network. Every module computes it on that grid already while training (rounding
with a straight-through gradient); in *exact* mode (`set_exact`) the multiply-shift uses the very integers that are exported, so that the training graph and the
exported file give the same logits: what was trained is what runs.

Shapes are NCHW as PyTorch has them; weights are [oc][ic][kh][kw]. s is the sum of a convolution, always in counts (whole numbers once weights are binary), h the
stream in real units (h = integer * UNIT). Modules that have one write themselves down with `export`, and `restore` reads their parameters from what it wrote."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import fused
from .xnorfile import FormatError, Layer, Network, Value

STREAM_BITS = 8
UNIT = 2.0**-STREAM_BITS
STREAM_MAX = 32767
MULTIPLIER_MAX = 32767
SHIFT_MAX = 30
FLOAT32_EXACT = 2.0**24  # whole numbers up to here are exact in float32


def array(tensor: Tensor, dtype: type = np.int64) -> np.ndarray:
    return tensor.detach().cpu().double().numpy().astype(dtype)


def ohwi(weights: Tensor) -> np.ndarray:
    """[oc][ic][kh][kw] -> int8 [oc][kh][kw][ic]."""
    return array(weights, np.int8).transpose(0, 2, 3, 1)


def oihw(layer: Layer) -> Tensor:
    """The weights of a convolution in a file, as floats [oc][ic][kh][kw]."""
    weights = layer.tensors[0].array.reshape(layer.out.c, *layer.kernel, -1)
    return torch.from_numpy(weights.astype(np.float32).transpose(0, 3, 1, 2))


def column(layer: Layer, index: int) -> Tensor:
    """Numbers of a layer in a file, one a channel, as float64."""
    return torch.from_numpy(layer.tensors[index].array.astype(np.float64))


def one_factor(layer: Layer) -> float:
    """M / 2^n of a SCALE that is a quantizer: the same for every channel. Raises FormatError where it is not."""
    m, b = (column(layer, i) for i in range(2))
    if m[0] <= 0 or bool((m != m[0]).any()) or bool(b.any()):
        raise FormatError(f"{layer.name}: its channels have no factor in common, so xnor-train did not make it")
    return float(m[0]) / 2.0**layer.shift


def check_int8(largest: Tensor, layer: Layer) -> None:
    """The quantizer of weights makes the largest of each filter 127. Raises FormatError where it did not make these."""
    if not bool(((largest == 127) | (largest == 0)).all()):
        raise FormatError(f"{layer.name}: the largest of a filter's int8 weights is not 127, so xnor-train did not make it")


def fit_multiplier(largest: float) -> tuple[float, int]:
    """2^n and n for the largest shift n with which largest * 2^n still is a multiplier."""
    shift = SHIFT_MAX
    while shift > 0 and largest * 2.0**shift > MULTIPLIER_MAX:
        shift -= 1
    return 2.0**shift, shift


# ---- quantizers with straight-through gradients ---------------------------------------------------------------------


class _Replace(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, value: Tensor) -> Tensor:  # type: ignore[override]
        return value

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        return grad, None


def replace(x: Tensor, value: Tensor) -> Tensor:
    """`value`, exactly, with the gradient of `x`. (The common x + (value - x).detach() may round.)"""
    return _Replace.apply(x, value.detach().expand_as(x))


def round_ste(x: Tensor) -> Tensor:
    """floor(x + 1/2): to nearest, ties up, as (v + half) >> n does. Gradient 1."""
    return replace(x, torch.floor(x.detach() + 0.5))


def floor_ste(x: Tensor) -> Tensor:
    """floor(x), as >> does. Gradient 1."""
    return replace(x, torch.floor(x.detach()))


def to_stream(h: Tensor) -> Tensor:
    """Onto the grid of the stream, saturated to int16. Gradient 1 inside the range."""
    return torch.clamp(round_ste(h / UNIT), -STREAM_MAX - 1, STREAM_MAX) * UNIT


class _Sign(torch.autograd.Function):
    """sign(x) = x >= 0 ? +1 : -1, with a chosen derivative estimator."""

    @staticmethod
    def forward(ctx, x: Tensor, estimator: str) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x)
        ctx.estimator = estimator
        return (x >= 0).to(x.dtype).mul_(2).sub_(1)

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        (x,) = ctx.saved_tensors
        return grad * ESTIMATORS[ctx.estimator](x), None


def derivative_h(x: Tensor) -> Tensor:
    """The piecewise H(x) of Xu & Cheung (BMVC 2019, section 3.2): 2 - 4|x| for |x| <= 0.4, 0.4 for |x| <= 1, 0 beyond."""
    a = x.abs()
    return torch.where(a <= 0.4, 2 - 4 * a, torch.where(a <= 1, torch.full_like(a, 0.4), torch.zeros_like(a)))


def derivative_clip(x: Tensor) -> Tensor:
    """Straight-through with clipping (BinaryConnect): 1 for |x| <= 1."""
    return (x.abs() <= 1).to(x.dtype)


def derivative_approxsign(x: Tensor) -> Tensor:
    """ApproxSign (Bi-Real Net, section 3.2): 2 - 2|x| for |x| <= 1."""
    return torch.clamp(2 - 2 * x.abs(), min=0)


ESTIMATORS = {"h": derivative_h, "clip": derivative_clip, "approxsign": derivative_approxsign}


def sign(x: Tensor, estimator: str) -> Tensor:
    """+1 and -1; weights [oc][ic][k][k] by the fused library where it runs."""
    if isinstance(x, nn.Parameter) and x.dim() == 4 and fused.usable(x):
        return fused.WeightSign.apply(x, estimator)
    return _Sign.apply(x, estimator)


# ---- layers ---------------------------------------------------------------------------------------------------------


class RSign(nn.Module):
    """Bits from the stream: h >= threshold[c] (ReActNet, section 4.2). Integer: x >= T, T = ceil(threshold / UNIT)."""

    def __init__(self, channels: int, estimator: str = "h") -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.zeros(channels))
        self.estimator = estimator

    def applied(self) -> Tensor:
        """The threshold on the grid, where h >= t is h >= ceil(t): h - ceil(t) never changes sign by rounding of t."""
        return replace(self.threshold, torch.ceil(self.threshold.detach() / UNIT) * UNIT)

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """(bits, h): what else uses h takes the second, so that both gradients meet in one pass."""
        t = self.applied()
        if fused.usable(h):
            return fused.Sign.apply(h, t, self.estimator)
        return sign(h - t[:, None, None], self.estimator), h

    def integers(self) -> Tensor:
        """T int32 [c]."""
        return torch.ceil(self.threshold.detach() / UNIT).to(torch.int64)

    def export(self, net: Network, h: Value, name: str) -> Value:
        return net.threshold(h, array(self.integers()), name=name)

    @torch.no_grad()
    def restore(self, layer: Layer) -> None:
        """To the middle of what rounds up to T."""
        self.threshold.copy_((column(layer, 0) - 0.5) * UNIT)


class Int8Quantizer(nn.Module):
    """int8 activations from the stream: q = sat8((M*x + half) >> n), the step (M, n) = UNIT / step trained. Counts q, not q*step, go on: the scale behind the
    convolution makes up for it."""

    def __init__(self, step: float = 0.04) -> None:
        super().__init__()
        self.log_step = nn.Parameter(torch.tensor(step).log())

    def integers(self) -> tuple[int, int]:
        """M, n."""
        factor = UNIT / float(self.log_step.detach().double().exp())
        power, shift = fit_multiplier(factor)
        return min(round(factor * power), MULTIPLIER_MAX), shift

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """(q, h), as RSign."""
        m, shift = self.integers()
        if fused.usable(h):
            return fused.Quantize.apply(h, self.log_step.exp(), m, shift)
        half = 2.0 ** (shift - 1) if shift else 0.0
        integer = torch.floor(((h.detach() / UNIT).double() * m + half) / 2.0**shift).to(h.dtype)
        return torch.clamp(replace(h / self.log_step.exp(), integer), -128, 127), h

    def export(self, net: Network, h: Value, name: str) -> Value:
        m, shift = self.integers()
        return net.scale(h, np.full(h.c, m), np.zeros(h.c, np.int64), shift, dtype="int8", name=name)

    @torch.no_grad()
    def restore(self, layer: Layer) -> None:
        self.log_step.fill_(math.log(UNIT / one_factor(layer)))


class RPReLU(nn.Module):
    """h + a where h + a >= 0, else (h + a) * 2^-k, then + b (ReActNet, section 4.2, with slopes that are shifts). a, b are on the grid; k is 0..7, trained
    through its rounding; the product is rounded down to the grid, as the shift does."""

    def __init__(self, channels: int, k: float = 2.0) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.zeros(channels))
        self.k = nn.Parameter(torch.full((channels,), k))
        self.b = nn.Parameter(torch.zeros(channels))

    def exponents(self) -> Tensor:
        return torch.clamp(round_ste(self.k), 0, 7)

    def slopes(self) -> Tensor:
        """2^-k, exactly a power of two (exp2 may be off by an ulp), with the gradient of exp2."""
        k = self.exponents()
        table = torch.tensor([2.0**-i for i in range(8)], dtype=k.dtype, device=k.device)
        return replace(torch.exp2(-k), table[k.detach().long()])

    def vectors(self) -> tuple[Tensor, Tensor, Tensor]:
        """a, slope, b as they are applied, each [c]."""
        return to_stream(self.a), self.slopes(), to_stream(self.b)

    def forward(self, h: Tensor) -> Tensor:
        a, slope, b = (v[:, None, None] for v in self.vectors())
        t = h + a
        negative = floor_ste(t * slope / UNIT) * UNIT
        return torch.clamp(torch.where(t >= 0, t, negative) + b, -(STREAM_MAX + 1) * UNIT, STREAM_MAX * UNIT)

    def integers(self) -> tuple[Tensor, Tensor, Tensor]:
        """A int16, K uint8, B int16, each [c]."""
        return (to_stream(self.a.detach()) / UNIT, self.exponents().detach(), to_stream(self.b.detach()) / UNIT)

    def export(self, net: Network, h: Value, name: str) -> Value:
        a, k, b = self.integers()
        return net.rprelu(h, array(a), array(k), array(b), name=name)

    @torch.no_grad()
    def restore(self, layer: Layer) -> None:
        for parameter, values in ((self.a, column(layer, 0) * UNIT), (self.k, column(layer, 1)), (self.b, column(layer, 2) * UNIT)):
            parameter.copy_(values)


class BinaryConv(nn.Module):
    """s = conv(x, sign(W)), padded with true zeros; x bits or int8 counts. Until `binary_weights` is set (stage two of the recipe) W itself is used."""

    bits = True

    def __init__(self, ic: int, oc: int, kernel: int = 3, stride: int = 1, groups: int = 1, estimator: str = "h") -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(oc, ic // groups, kernel, kernel))
        nn.init.xavier_normal_(self.weight)
        self.stride, self.padding, self.groups, self.estimator = stride, kernel // 2, groups, estimator
        self.binary_weights = False

    def whole(self) -> Tensor | None:
        """The weights as whole numbers, once they are."""
        return sign(self.weight, self.estimator) if self.binary_weights else None

    def forward(self, x: Tensor) -> Tensor:
        weight = sign(self.weight, self.estimator) if self.binary_weights else self.weight
        return F.conv2d(x, weight, stride=self.stride, padding=self.padding, groups=self.groups)

    def integers(self) -> Tensor:
        """+1/-1 int8 [oc][ic][kh][kw]."""
        return (self.weight.detach() >= 0).to(torch.int8) * 2 - 1

    def export(self, net: Network, x: Value, name: str, flip: np.ndarray | None = None) -> Value:
        """flip bool [oc]: filters to negate."""
        weights = ohwi(self.integers())
        if flip is not None:
            weights[flip] *= -1
        return net.conv(x, weights, bits=True, stride=self.stride, pad=self.padding, pad_mode="zero", groups=self.groups, name=name)

    @torch.no_grad()
    def restore(self, layer: Layer) -> None:
        """The file has signs only; each weight is as large as those that training begins with."""
        self.weight.copy_(oihw(layer) * self.weight.std())


class Int8Conv(nn.Module):
    """s = conv(x, q), q int8 weights trained through their quantizer (a step for each output channel), x whole numbers (pixels 0..255, int8 counts or bits)."""

    bits = False

    def __init__(self, ic: int, oc: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(oc, ic // groups, kernel, kernel))
        nn.init.kaiming_normal_(self.weight)
        self.stride, self.padding, self.groups = stride, kernel // 2, groups

    def step(self) -> Tensor:
        """[oc]."""
        return self.weight.detach().abs().amax(dim=(1, 2, 3)).clamp(min=1e-8) / 127

    def quantized(self) -> Tensor:
        """Integers -127..127 as floats, [oc][ic][kh][kw]."""
        return torch.clamp(round_ste(self.weight / self.step()[:, None, None, None]), -127, 127)

    def whole(self) -> Tensor | None:
        return self.quantized()

    def forward(self, x: Tensor) -> Tensor:
        q = self.quantized()
        if float(q.detach().abs().sum(dim=(1, 2, 3)).max()) * 255 >= FLOAT32_EXACT:  # sums could round
            return F.conv2d(x.double(), q.double(), stride=self.stride, padding=self.padding, groups=self.groups).float()
        return F.conv2d(x, q, stride=self.stride, padding=self.padding, groups=self.groups)

    def export(self, net: Network, x: Value, name: str, flip: np.ndarray | None = None) -> Value:
        weights = ohwi(self.quantized())
        if flip is not None:
            weights[flip] *= -1
        return net.conv(x, weights, bits=False, stride=self.stride, pad=self.padding, pad_mode="zero", groups=self.groups, name=name)

    @torch.no_grad()
    def restore(self, layer: Layer) -> None:
        """Any step for a filter quantizes to the same integers: that with which its weights are as large as those that training begins with."""
        q = oihw(layer)
        check_int8(q.abs().amax(dim=(1, 2, 3)), layer)
        rms = q.square().mean(dim=(1, 2, 3), keepdim=True).sqrt().clamp(min=1)
        self.weight.copy_(q * (self.weight.std() / rms))


def convolve(quantizer: RSign | Int8Quantizer | None, conv: BinaryConv | Int8Conv, h: Tensor) -> tuple[Tensor, Tensor]:
    """(conv(quantizer(h)), h), on integer units where that can be; without a quantizer h are pixels."""
    weight = conv.whole() if fused.convolves(h, conv.weight, conv.groups, quantizer is not None) else None
    if weight is not None and quantizer is None:
        return fused.Convolve.apply(h, None, weight, "pixels", "h", (1, 0), conv.stride)
    if weight is not None and isinstance(quantizer, RSign):
        return fused.Convolve.apply(h, quantizer.applied(), weight, "sign", quantizer.estimator, (1, 0), conv.stride)
    if weight is not None and isinstance(quantizer, Int8Quantizer):
        return fused.Convolve.apply(h, quantizer.log_step.exp(), weight, "int8", "h", quantizer.integers(), conv.stride)
    x, h = quantizer(h) if quantizer is not None else (h, h)
    return conv(x), h


SCALES = ("trained", "analytic", "none")


class StreamScale(nn.Module):
    """Scaling factors, batch normalisation and the way into the stream: h' = sat(h + gamma * (alpha_c * beta * s - mean)/sigma + bias).

    alpha_c: scaling factor of the weights of an output channel; beta: of the activations (Xu & Cheung, section 3.1). `scales` says where they come from:
    "trained" with the rest, an L2 penalty keeping alpha small (`penalty`); "analytic", alpha_c the mean of |W| over the filter (XNOR-Net) and beta 1; "none", 1.
    Without `normalise` (for comparisons) there is no normalisation: h' = sat(h + gamma * alpha_c * beta * s + bias). `conv` made s; `unit` is a constant that
    brings s to about 1, so that the trained factors begin at 1.

    All of it folds into the integers M, B, n of SCALE: h' = sat16(h + ((M*s + B + half) >> n)). In exact mode the forward pass uses M, B, n (in float64, which
    holds them exactly) and the frozen statistics; gradients flow to gamma, bias, alpha and s as if it were real."""

    def __init__(self, conv: BinaryConv | Int8Conv, scales: str = "trained", normalise: bool = True, unit: float | None = None) -> None:
        super().__init__()
        channels, taps = conv.weight.shape[0], conv.weight[0].numel()
        self.scales, self.normalise = scales, normalise
        self.unit = unit or 1 / (taps**0.5 * (1 if conv.bits else 40))
        if scales == "trained":
            self.alpha, self.beta = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.tensor(1.0))
        if scales == "analytic":
            self.unit = 1.0
        self.conv = [conv]  # not a child: it is somebody else's
        self.bn = nn.BatchNorm2d(channels)
        self.exact = False

    def penalty(self) -> Tensor:
        """Sum of squares of the weights' scaling factors."""
        return (self.alpha**2).sum() if self.scales == "trained" else torch.zeros(())

    def parameter_list(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """alpha [c], beta, gamma [c], bias [c]."""
        gamma, bias = self.bn.weight, self.bn.bias
        if self.scales == "trained":
            return self.alpha, self.beta, gamma, bias
        if self.scales == "analytic":
            return self.conv[0].weight.abs().mean(dim=(1, 2, 3)), torch.ones(()), gamma, bias
        return torch.ones_like(gamma), torch.ones(()), gamma, bias

    def batch_statistics(self) -> bool:
        """Whether the forward pass normalises by the batch (else by the running statistics)."""
        return self.training and not self.exact and self.normalise

    @staticmethod
    def statistics(sums: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """mean, variance [c] in float64 from the sums of s and of s*s. Sums of integers are exact, so every way of making them gives the same bits."""
        mean = sums[0] / count
        return mean, torch.clamp(sums[1] / count - mean * mean, min=0)

    @torch.no_grad()
    def note_statistics(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Into the running statistics, which are of s * factor."""
        alpha, beta, _, _ = self.parameter_list()
        factor = (alpha * beta * self.unit).double()
        momentum, bn = self.bn.momentum, self.bn
        bn.running_mean.lerp_((factor * mean).float(), momentum)  # type: ignore[union-attr, arg-type]
        bn.running_var.lerp_((factor * factor * variance * (count / max(count - 1, 1))).float(), momentum)  # type: ignore[union-attr, arg-type]

    def fold(self, alpha: Tensor, beta: Tensor, gamma: Tensor, bias: Tensor, mean: Tensor | None = None, variance: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """m, b [c], in counts of the stream: y = m*s + b. From the statistics of s where given, else from the running ones."""
        factor = alpha * beta * self.unit
        if not self.normalise:
            return gamma * factor / UNIT, bias / UNIT
        if mean is None or variance is None:
            g = gamma / torch.sqrt(self.bn.running_var + self.bn.eps)  # type: ignore[operator]
            return g * factor / UNIT, (bias - g * self.bn.running_mean) / UNIT  # type: ignore[operator]
        g = gamma / torch.sqrt((factor * factor * variance).float() + self.bn.eps)
        return g * factor / UNIT, (bias - g * (factor * mean).float()) / UNIT

    def integers(self) -> tuple[Tensor, Tensor, int]:
        """M int16 [c], B int64 [c] as float64 holding integers, shift n: the largest shift with which every M fits."""
        m, b = (v.detach().double() for v in self.fold(*self.parameter_list()))
        factor, shift = fit_multiplier(float(m.abs().max()))
        return torch.clamp(torch.round(m * factor), -MULTIPLIER_MAX, MULTIPLIER_MAX), torch.round(b * factor), shift

    def _coefficients(self, s: Tensor) -> tuple[Tensor, Tensor]:
        """m, b [c] for these sums, noting their statistics where they count."""
        if not self.batch_statistics():
            return self.fold(*self.parameter_list())
        v, count = s.double(), s.numel() // s.shape[1]
        statistics = self.statistics(torch.stack((v.sum(dim=(0, 2, 3)), (v * v).sum(dim=(0, 2, 3)))), count)
        self.note_statistics(*(t.detach() for t in statistics), count)
        return self.fold(*self.parameter_list(), *statistics)

    def scaled(self, s: Tensor) -> Tensor:
        """y on the grid of the stream, before the residual is added."""
        m, b = (v[:, None, None] for v in self._coefficients(s))
        if not self.exact:
            return round_ste(s * m + b) * UNIT
        im, ib, shift = self.integers()
        half = 2.0 ** (shift - 1) if shift else 0.0
        integer = torch.floor((im[:, None, None] * s.detach().double() + ib[:, None, None] + half) / 2.0**shift)
        return replace(s * m + b, integer.to(s.dtype)) * UNIT

    def forward(self, s: Tensor, h: Tensor | None = None, act: RPReLU | None = None) -> Tensor:
        """The stream after the layer: h' = sat(h + y), then `act`."""
        if fused.usable(s):
            vectors = act.vectors() if act else (None, None, None)
            return fused.Epilogue.apply(s, h, self, *vectors, *self.parameter_list())
        y = self.scaled(s)
        y = torch.clamp(y if h is None else h + y, -(STREAM_MAX + 1) * UNIT, STREAM_MAX * UNIT)
        return act(y) if act else y

    def export(self, net: Network, s: Value, name: str, residual: Value | None = None) -> Value:
        m, b, shift = self.integers()
        return net.scale(s, array(m), array(b), shift, residual=residual, name=name)

    @torch.no_grad()
    def restore(self, layer: Layer, s: Tensor) -> None:
        """The statistics, which a file has not, from the sums s of some images; gamma and bias that fold with them to the layer's M and B."""
        m, b = (column(layer, i) * (UNIT / 2.0**layer.shift) for i in range(2))
        alpha, beta, gamma, bias = self.parameter_list()
        factor = (alpha * beta * self.unit).double()
        mean, deviation = torch.zeros(()), torch.ones(())
        if self.normalise:
            variance, mean = torch.var_mean(s.double(), dim=(0, 2, 3))
            mean = self.bn.running_mean.copy_(factor * mean).double()  # type: ignore[union-attr, operator]
            deviation = (self.bn.running_var.copy_(factor.square() * variance).double() + self.bn.eps).sqrt()  # type: ignore[union-attr, operator]
        gamma.copy_(m / factor * deviation)
        bias.copy_(b + m / factor * mean)


class FoldedSign(StreamScale):
    """Bits straight from sums, where no residual needs the stream: sign(m*s + b) >= 0, after the largest of each 2x2 where `pool`. The scales and the normalisation
    fold into a threshold on s, found by search over the whole numbers: the float expression itself is evaluated, so there is nothing to disagree. A filter whose m is
    negative is negated."""

    def __init__(self, conv: BinaryConv | Int8Conv, estimator: str, pool: bool, **options: object) -> None:
        super().__init__(conv, **options)  # type: ignore[arg-type]
        self.estimator, self.pool = estimator, pool

    def forward(self, s: Tensor, h: Tensor | None = None, act: RPReLU | None = None) -> Tensor:  # noqa: ARG002
        m, b = (v[:, None, None] for v in self._coefficients(s))
        y = (s * m + b) * UNIT
        return sign(F.max_pool2d(y, 2) if self.pool else y, self.estimator)

    def thresholds(self, limit: int) -> tuple[np.ndarray, np.ndarray]:
        """T int64 [c] and flip bool [c] with bit = (flip ? -s : s) >= T, for |s| <= limit."""
        m, b = (v.detach() for v in self.fold(*self.parameter_list()))
        flip = m < 0
        low, high = torch.full(m.shape, -limit - 1, dtype=torch.int64), torch.full(m.shape, limit + 1, dtype=torch.int64)
        while bool((high - low > 1).any()):  # bit is 0 at low and 1 at high
            middle = (low + high) // 2
            s = torch.where(flip, -middle, middle).to(m.dtype)
            one = (s * m + b) * UNIT >= 0
            low, high = torch.where(one, low, middle), torch.where(one, middle, high)
        return high.numpy(), flip.numpy()

    def export(self, net: Network, x: Value, name: str, residual: Value | None = None) -> Value:  # noqa: ARG002
        """With its convolution: x is that one's input."""
        conv = self.conv[0]
        limit = int(conv.integers().abs().sum(dim=(1, 2, 3)).max() if conv.bits else conv.quantized().abs().sum(dim=(1, 2, 3)).max()) * 255
        t, flip = self.thresholds(limit)
        bits = net.threshold(conv.export(net, x, f"{name}.conv", flip), t, name=f"{name}.sign")
        return net.maxpool(bits, 2, 2, name=f"{name}.pool") if self.pool else bits


class StreamAdd(nn.Module):
    """h' = act(sat(h + y)), both streams of `channels`."""

    exact = False

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def batch_statistics(self) -> bool:
        return False

    def fold(self) -> tuple[Tensor, Tensor]:
        """As a scale's, for fused.Epilogue: y as it is."""
        return torch.full((self.channels,), 1 / UNIT), torch.zeros(self.channels)

    def forward(self, y: Tensor, h: Tensor, act: RPReLU) -> Tensor:
        if fused.usable(y):
            return fused.Epilogue.apply(y, h, self, *act.vectors())
        return act(torch.clamp(h + y, -(STREAM_MAX + 1) * UNIT, STREAM_MAX * UNIT))


class Shortcut(nn.Module):
    """Down-sampling shortcut: mean of 2x2 with rounding, (sum + 2) >> 2, and the channels twice over."""

    def __init__(self, double: bool) -> None:
        super().__init__()
        self.double = double

    def forward(self, h: Tensor) -> Tensor:
        if fused.usable(h):
            return fused.Down.apply(h, 2 if self.double else 1)
        h = round_ste(F.avg_pool2d(h, 2) / UNIT) * UNIT
        return torch.cat((h, h), dim=1) if self.double else h

    def export(self, net: Network, h: Value, name: str) -> Value:
        h = net.avgpool(h, 2, 2, 1, 2, name=f"{name}.down")
        return net.concat([h, h], name=f"{name}.double") if self.double else h


class Int8Head(nn.Module):
    """Global mean, int8 activations, int8 fully connected, logits. The activation step is trained (log scale); the mean is a SCALE with one multiplier over the
    sum. z = q_w . q_a + bias, score = step_w * step_a * z."""

    def __init__(self, channels: int, classes: int, pixels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, channels))
        nn.init.xavier_normal_(self.weight)
        self.bias = nn.Parameter(torch.zeros(classes))
        self.log_step = nn.Parameter(torch.tensor(0.04).log())
        self.pixels = pixels

    def activation_integers(self) -> tuple[int, int]:
        """M, n with q_a = sat8((M*sum + half) >> n), sum in stream units over all pixels."""
        factor = UNIT / (self.pixels * float(self.log_step.detach().double().exp()))
        power, shift = fit_multiplier(factor)
        return min(round(factor * power), MULTIPLIER_MAX), shift

    def weight_step(self) -> Tensor:
        return self.weight.detach().abs().max().clamp(min=1e-8) / 127

    def quantized_weight(self) -> Tensor:
        return torch.clamp(round_ste(self.weight / self.weight_step()), -127, 127)

    def bias_integers(self) -> Tensor:
        step = self.weight_step() * self.log_step.detach().exp()
        return torch.round(self.bias.detach() / step)

    def forward(self, h: Tensor) -> Tensor:
        return self.forward_integers(h)[0]

    def forward_integers(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """(scores in real units, z as integers in floats)."""
        step_a, step_w = self.log_step.exp(), self.weight_step()
        total = h.sum(dim=(2, 3))
        m, shift = self.activation_integers()
        half = 2.0 ** (shift - 1) if shift else 0.0
        integer = torch.floor((m * (total.detach() / UNIT).double() + half) / 2.0**shift).to(total.dtype)
        real = total / (self.pixels * step_a)
        q = torch.clamp(replace(real, integer), -128, 127)
        z = F.linear(q, self.quantized_weight()) + replace(self.bias / (step_w * step_a), self.bias_integers())
        return z * step_w * step_a, z

    def export(self, net: Network, h: Value) -> Value:
        m, shift = self.activation_integers()
        total = net.global_avgpool(h, name="head.sum")
        q = net.scale(total, np.full(h.c, m), np.zeros(h.c, np.int64), shift, dtype="int8", name="head.mean")
        z = net.dense(q, array(self.quantized_weight(), np.int8), bits=False, name="head.dense")
        return net.logits(z, bias=array(self.bias_integers()), scale=float(self.weight_step() * self.log_step.detach().exp()))

    @torch.no_grad()
    def restore(self, mean: Layer, dense: Layer, logits: Layer, pixels: int) -> bool:
        """From the layers of a file, where the mean was over `pixels`. Whether the weights are of it: where it has as many classes."""
        step = UNIT / (pixels * one_factor(mean))
        self.log_step.fill_(math.log(step))
        if logits.out.c != len(self.bias):
            return False
        q, multiplier = torch.from_numpy(dense.tensors[0].array.astype(np.float32)), column(logits, 0)
        check_int8(q.abs().max(), dense)
        if not logits.scale > 0 or bool((multiplier != 1).any()):
            raise FormatError(f"{logits.name}: classes have factors or the scale is none, so xnor-train did not make it")
        self.weight.copy_(q * (logits.scale / step))
        self.bias.copy_(column(logits, 1) * logits.scale)
        return True


def set_exact(model: nn.Module, exact: bool) -> None:
    """Exact mode: integers of the export in the forward pass, batch statistics frozen."""
    for module in model.modules():
        if isinstance(module, StreamScale):
            module.exact = exact


def set_binary_weights(model: nn.Module, binary: bool) -> None:
    for module in model.modules():
        if isinstance(module, BinaryConv):
            module.binary_weights = binary


def scale_penalty(model: nn.Module) -> Tensor:
    """L2 on the weights' scaling factors, over all layers (Xu & Cheung, equation 7)."""
    return torch.stack([m.penalty() for m in model.modules() if isinstance(m, StreamScale)]).sum()
