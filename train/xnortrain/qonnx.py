# SPDX-License-Identifier: Apache-2.0
"""`import`: a QONNX network (as Brevitas exports it and FINN takes it) becomes a .xnor file.

The graph is walked once. What depends on the input is a Flow: an integer value of the .xnor network (bits, pixels, sums of a product) and the chain of float
operations that the graph applies to it. A quantizer ends a chain: the chain is evaluated at every integer that the value can reach, and the
switch points become thresholds (qonnx_fold.py). Nothing is derived by algebra. Constants are computed as they come."""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from . import qonnx_fold as fold
from .qonnx_graph import Graph, Node, Unsupported, read
from .xnorfile import FormatError, Network, Value


@dataclasses.dataclass
class Constant:
    """A constant tensor; where a quantizer made it, array = integers * scale (all of one shape)."""

    array: np.ndarray
    integers: np.ndarray | None = None
    scale: np.ndarray | None = None

    def moved(self, move: Callable[[np.ndarray], np.ndarray]) -> "Constant":
        return Constant(move(self.array), None if self.integers is None else move(self.integers), None if self.scale is None else move(self.scale))


@dataclasses.dataclass
class Flow:
    """What depends on the input. index: the ONNX tensor's shape, each element the number of the .xnor element ([h][w][c] flattened) that it is. shape: of
    the value, after pools that are still to be made. build(flip): the integer value, negated in the channels of `flip`."""

    index: np.ndarray
    shape: tuple[int, int, int]
    dtype: str
    levels: fold.Levels
    chain: fold.Chain
    build: Callable[[np.ndarray], Value]
    pools: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    is_input: bool = False

    @property
    def channels(self) -> int:
        return self.shape[2]

    def then(self, step: fold.Step) -> "Flow":
        return dataclasses.replace(self, chain=fold.Chain(self.chain.factor, [*self.chain.steps, step]))

    def plain(self) -> Value:
        return self.build(np.zeros(self.channels, bool))


@dataclasses.dataclass
class Report:
    """What was made of the graph, a line each, for people; zeros and uncertain: see fold.Thresholds."""

    lines: list[str] = dataclasses.field(default_factory=list)
    zeros: int = 0
    uncertain: int = 0
    disordered: int = 0


@dataclasses.dataclass
class Options:
    """How a uint8 pixel p becomes the float input: (p / divide - mean[c]) / std[c]. shape: [h, w, c] where the graph's input is flat."""

    divide: float = 255.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    shape: tuple[int, int, int] | None = None


CONSTANT_ELEMENTS_MAX = 1 << 28
LEVELS_MAX = 1 << 27

# ---- constants ------------------------------------------------------------------------------------------------------


def bipolar(x: np.ndarray) -> np.ndarray:
    return np.where(x >= 0, 1, -1).astype(x.dtype)


ROUNDINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"ROUND": np.rint, "CEIL": np.ceil, "FLOOR": np.floor, "ROUND_TO_ZERO": np.trunc}


@dataclasses.dataclass
class Quantizer:
    """A QONNX Quant node: integers low..high, real = integer * scale."""

    scale: np.ndarray
    low: int
    high: int
    rounding: Callable[[np.ndarray], np.ndarray]

    def integers(self, x: np.ndarray, scale: np.ndarray) -> np.ndarray:
        return self.rounding(np.clip(x / scale, self.low, self.high))


def quantizer(node: Node, scale: np.ndarray, zero: np.ndarray, width: np.ndarray) -> Quantizer:
    node.need(not zero.any(), "a zero point that is not 0 is not supported")
    node.need(width.size == 1 and float(width.ravel()[0]).is_integer() and 2 <= float(width.ravel()[0]) <= 8, f"a width of {width.ravel()[:4]} bits; 2 to 8 are supported")
    node.need(bool((scale > 0).all()), "its scale is not positive")
    mode = str(node.get("rounding_mode", "ROUND")).upper()
    node.need(mode in ROUNDINGS, f"rounding mode {mode} is not supported")
    bits, narrow = int(width.ravel()[0]), bool(node.get("narrow", 0))
    if node.get("signed", 1):
        return Quantizer(scale, -(1 << (bits - 1)) + narrow, (1 << (bits - 1)) - 1, ROUNDINGS[mode])
    return Quantizer(scale, 0, (1 << bits) - 1 - narrow, ROUNDINGS[mode])


def _axes(node: Node, inputs: list[Constant | None]) -> tuple[int, ...]:
    """Of Squeeze and Unsqueeze: an attribute up to opset 12, an input later."""
    if "axes" in node.attributes:
        return tuple(int(a) for a in node.attributes["axes"])
    given = inputs[1] if len(inputs) > 1 else None
    node.need(given is not None, "does not say its axes")
    return tuple(int(a) for a in given.array.ravel())  # type: ignore[union-attr]


def _reshape(node: Node, array: np.ndarray, target: np.ndarray) -> np.ndarray:
    dims = [int(n) for n in target.ravel()]
    if not node.get("allowzero", 0):
        dims = [array.shape[i] if n == 0 and i < array.ndim else n for i, n in enumerate(dims)]
    try:
        return array.reshape(dims)
    except ValueError:
        node.fail(f"cannot bring {list(array.shape)} into {dims}")
        raise


def _flatten(node: Node, array: np.ndarray) -> np.ndarray:
    axis = int(node.get("axis", 1)) % (array.ndim + 1)
    return array.reshape(int(np.prod(array.shape[:axis])), -1)


ARITHMETIC: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide, "Pow": np.power}
UNARY: dict[str, Callable[[np.ndarray], np.ndarray]] = {"Neg": np.negative, "Sqrt": np.sqrt, "Abs": np.abs, "Reciprocal": lambda x: (1 / x).astype(x.dtype)}
CAST = {1: np.float32, 6: np.int32, 7: np.int64, 9: np.bool_, 10: np.float16, 11: np.float64}


def move(node: Node, inputs: list[Constant | None], array: np.ndarray) -> np.ndarray | None:
    """What an operation that only moves elements makes of `array`; None where the operation computes."""
    if node.op in ("Identity", "Dropout"):
        return array
    if node.op == "Transpose":
        return array.transpose(node.get("perm", range(array.ndim)[::-1]))
    if node.op == "Flatten":
        return _flatten(node, array)
    if node.op == "Reshape":
        node.need(len(inputs) > 1 and inputs[1] is not None, "its shape is not a constant")
        return _reshape(node, array, inputs[1].array)  # type: ignore[union-attr]
    if node.op == "Squeeze":
        return np.squeeze(array, _axes(node, inputs) if "axes" in node.attributes or len(inputs) > 1 else None)
    if node.op == "Unsqueeze":
        return np.expand_dims(array, _axes(node, inputs))
    return None


def constant(node: Node, inputs: list[Constant | None]) -> Constant:
    """A node all of whose inputs are constants."""
    arrays = [i.array for i in inputs if i is not None]
    if node.op == "Constant":
        value = next((node.attributes[k] for k in ("value", "value_float", "value_int", "value_floats", "value_ints") if k in node.attributes), None)
        node.need(value is not None, "has no numbers")
        return Constant(np.asarray(value, np.float32) if isinstance(value, float) else np.asarray(value))
    if node.op == "BipolarQuant":
        node.need(len(arrays) == 2 and bool((arrays[1] > 0).all()), "needs a positive scale")
        ints, scale = bipolar(arrays[0]), np.broadcast_to(arrays[1], arrays[0].shape)
        return Constant(ints * scale, ints, scale)
    if node.op == "Quant":
        node.need(len(arrays) == 4, "needs x, scale, zero point and width")
        q = quantizer(node, *arrays[1:])
        scale = np.broadcast_to(q.scale, arrays[0].shape)
        ints = q.integers(arrays[0], scale)
        return Constant(ints * scale, ints, scale)
    if inputs and inputs[0] is not None and move(node, inputs, inputs[0].array) is not None:
        return inputs[0].moved(lambda array: move(node, inputs, array))  # type: ignore[arg-type, return-value]
    if node.op in ARITHMETIC and len(arrays) == 2:
        node.need(int(np.prod(np.broadcast_shapes(arrays[0].shape, arrays[1].shape))) <= CONSTANT_ELEMENTS_MAX, "makes a constant that is too large")
        return Constant(np.asarray(ARITHMETIC[node.op](*arrays)).astype(arrays[0].dtype))
    if node.op in UNARY and len(arrays) == 1:
        return Constant(np.asarray(UNARY[node.op](arrays[0])))
    if node.op == "Sign" and len(arrays) == 1:
        return Constant(np.sign(arrays[0]))
    if node.op == "Gather" and len(arrays) == 2:
        node.need(arrays[0].size * max(arrays[1].size, 1) <= CONSTANT_ELEMENTS_MAX, "makes a constant that is too large")
        return Constant(np.asarray(np.take(arrays[0], arrays[1].astype(np.int64), axis=int(node.get("axis", 0)))))
    if node.op == "Concat":
        node.need(sum(a.size for a in arrays) <= CONSTANT_ELEMENTS_MAX, "makes a constant that is too large")
        return Constant(np.concatenate(arrays, axis=int(node.get("axis", 0))))
    if node.op == "Cast":
        node.need(node.get("to", 0) in CAST, f"a cast to type {node.get('to', 0)} is not supported")
        return Constant(arrays[0].astype(CAST[node.attributes["to"]]))
    node.fail("this operation on constants is not supported")
    raise AssertionError


# ---- the walk -------------------------------------------------------------------------------------------------------

LAST = ("Softmax", "LogSoftmax", "ArgMax", "TopK")  # keep the order of the classes; xnord ranks by itself


class Importer:
    """One graph on its way into one network."""

    def __init__(self, graph: Graph, options: Options) -> None:
        self.graph, self.options, self.report = graph, options, Report()
        self.known: dict[str, Constant | Flow] = {name: Constant(array) for name, array in graph.constants.items()}
        self.net = self._input()

    def run(self) -> Network:
        last: Node | None = None
        for node in self.graph.nodes:
            if last is not None:
                last.fail(f"is only understood at the end of the graph, and {node} follows")
            inputs = [self._get(node, name) for name in node.inputs]
            try:
                with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                    result = self._node(node, inputs)
            except FormatError as error:
                node.fail(str(error))
            except (ValueError, IndexError, TypeError, KeyError, OverflowError, ZeroDivisionError) as error:
                if isinstance(error, Unsupported):
                    raise
                node.fail(f"does not fit its inputs: {error}")
            last = node if node.op in LAST else None
            for name in node.outputs:
                self.known[name] = result
        self._logits()
        return self.net

    def _get(self, node: Node, name: str) -> Constant | Flow | None:
        if name == "":
            return None
        if name not in self.known:
            node.fail(f"its input {name!r} is made nowhere before it")
        return self.known[name]

    # ---- input and output

    def _input(self) -> Network:
        shape, o = self.graph.input_shape, self.options
        if len(shape) not in (2, 3, 4) or shape[0] != 1:
            raise Unsupported(f"input {self.graph.input} has the shape {list(shape)}; [1, features], [1, c, h, w] and a batch of 1 are understood")
        c, h, w = shape[1:] if len(shape) == 4 else (1, *shape[1:]) if len(shape) == 3 else (o.shape[2], o.shape[0], o.shape[1]) if o.shape else (shape[1], 1, 1)
        if c * h * w != int(np.prod(shape)):
            raise Unsupported(f"input {self.graph.input} has the shape {list(shape)}, which is not {h}x{w}x{c}")
        net = Network((h, w, c), "uint8")
        for values, name in ((o.mean, "mean"), (o.std, "std")):
            if len(values) not in (0, 1, c):
                raise Unsupported(f"--{name} has {len(values)} numbers, the input {c} channels")
        index = np.arange(h * w * c).reshape(h, w, c).transpose(2, 0, 1).reshape(shape)
        flow = Flow(index, (h, w, c), "uint8", fold.Levels(np.zeros(c, np.int64), np.full(c, 255)), fold.Chain(np.ones(c), []), self._negated(net, net.input), is_input=True)
        if o.divide != 1:
            flow = flow.then(fold.Step("input / divide", lambda x, _: x / x.dtype.type(o.divide)))
        if any(o.mean):
            mean = np.broadcast_to(np.array(o.mean), (c,))
            flow = flow.then(fold.Step("input - mean", lambda x, channels: x - fold.per_channel(mean, x, channels)))
        if any(s != 1 for s in o.std):
            std = np.broadcast_to(np.array(o.std), (c,))
            flow = flow.then(fold.Step("input / std", lambda x, channels: x / fold.per_channel(std, x, channels)))
        self.known[self.graph.input] = flow
        return net

    @staticmethod
    def _negated(net: Network, value: Value) -> Callable[[np.ndarray], Value]:
        def build(flip: np.ndarray) -> Value:
            return net.scale(value, np.where(flip, -1, 1), np.zeros(value.c), 0, name="negate") if flip.any() else value
        return build

    def _logits(self) -> None:
        flow = self.known.get(self.graph.output)
        last = next((n for n in self.graph.nodes[::-1] if self.graph.output in n.outputs), self.graph.nodes[-1])
        if not isinstance(flow, Flow):
            last.fail("the output does not depend on the input")
        assert isinstance(flow, Flow)
        last.need(flow.dtype == "int32" and flow.shape[:2] == (1, 1) and not flow.pools,
                  f"the output must be scores of classes from a MatMul, Gemm or 1x1 map of a Conv; it is {flow.dtype} {flow.shape}")
        order = flow.index.ravel()
        last.need(np.array_equal(order, np.arange(len(order))), "the classes are not in the order of the last product")
        try:
            fitted = fold.fit_classes(flow.chain, flow.levels)
        except fold.NotMonotone as error:
            last.fail(str(error))
        self.net.logits(flow.plain(), multiplier=fitted.multiplier, bias=fitted.bias, scale=fitted.scale, offset=fitted.offset)
        self.report.disordered = fitted.disordered
        same = "the sums themselves" if (np.abs(fitted.multiplier) == 1).all() else "32-bit multipliers"
        self.report.lines.append(f"logits: {same}, score = {fitted.scale:.6g} * logit + {fitted.offset:.6g}")

    # ---- nodes

    def _node(self, node: Node, inputs: list[Constant | Flow | None]) -> Constant | Flow:
        flows = [i for i in inputs if isinstance(i, Flow)]
        if not flows:
            return constant(node, inputs)  # type: ignore[arg-type]
        if node.op == "Shape":
            return Constant(np.array(flows[0].index.shape, np.int64))
        if len(flows) > 1:
            node.fail("two inputs that both depend on the network's input are not supported")
        handler = {"BipolarQuant": self._sign, "Sign": self._sign, "Quant": self._quant, "MatMul": self._matmul, "Gemm": self._gemm, "Conv": self._conv,
                   "BatchNormalization": self._batchnorm, "MaxPool": self._maxpool, "Clip": self._clip, "Relu": self._clip}.get(node.op)
        if handler:
            node.need(isinstance(inputs[0], Flow), "its first input must depend on the network's input")
            return handler(node, inputs[0], inputs[1:])  # type: ignore[arg-type]
        if node.op in LAST:
            node.need(self.graph.output in node.outputs or node is self.graph.nodes[-1], "is only understood at the end of the graph")
            self.report.lines.append(f"{node}: left out; it does not change the order of the classes")
            return flows[0]
        if node.op in ARITHMETIC and node.op != "Pow" or node.op == "Neg":
            return self._arithmetic(node, inputs)
        moved = move(node, inputs, flows[0].index) if isinstance(inputs[0], Flow) else None  # type: ignore[arg-type]
        if moved is None:
            node.fail("this operation is not supported")
        return dataclasses.replace(flows[0], index=moved)  # type: ignore[arg-type]

    def _channel_values(self, node: Node, flow: Flow, array: np.ndarray) -> np.ndarray:
        """A constant that is broadcast against the flow, as one number a channel of the value."""
        wide = np.broadcast_shapes(array.shape, flow.index.shape)
        node.need(wide == flow.index.shape, f"a constant of shape {list(array.shape)} widens {list(flow.index.shape)}")
        elements = np.empty(flow.index.size, np.float64)
        elements[flow.index.ravel()] = np.broadcast_to(array, flow.index.shape).ravel()
        rows = elements.reshape(-1, flow.channels)
        node.need(bool((rows == rows[0]).all() | np.isnan(rows).any()), "its constant differs between pixels of one channel")
        node.need(bool(np.isfinite(rows).all()), "its constant is not finite")
        return rows[0]

    def _arithmetic(self, node: Node, inputs: list[Constant | Flow | None]) -> Flow:
        if node.op == "Neg":
            assert isinstance(inputs[0], Flow)
            return inputs[0].then(fold.Step(str(node), lambda x, _: -x))
        node.need(len(inputs) == 2 and all(i is not None for i in inputs), "needs two inputs")
        first, second = inputs
        function = ARITHMETIC[node.op]
        if isinstance(first, Flow):
            assert isinstance(second, Constant)
            values = self._channel_values(node, first, second.array)
            return first.then(fold.Step(str(node), lambda x, channels: function(x, fold.per_channel(values, x, channels))))
        assert isinstance(first, Constant) and isinstance(second, Flow)
        values = self._channel_values(node, second, first.array)
        return second.then(fold.Step(str(node), lambda x, channels: function(fold.per_channel(values, x, channels), x)))

    def _batchnorm(self, node: Node, flow: Flow, rest: list[Constant | None]) -> Flow:
        node.need(len(rest) >= 4 and all(isinstance(r, Constant) for r in rest[:4]), "its scale, bias, mean and variance must be constants")
        node.need(flow.index.ndim >= 2, "needs at least two dimensions")
        shape = (1, -1) + (1,) * (flow.index.ndim - 2)
        scale, bias, mean, variance = (self._channel_values(node, flow, r.array.reshape(shape)) for r in rest[:4])  # type: ignore[union-attr]
        node.need(bool((variance >= 0).all()), "a variance is negative")
        epsilon = float(node.get("epsilon", 1e-5))

        def normalize(x: np.ndarray, channels: slice) -> np.ndarray:
            g, b, m, v = (fold.per_channel(a, x, channels) for a in (scale, bias, mean, variance))
            return g * ((x - m) / np.sqrt(v + x.dtype.type(epsilon))) + b
        return flow.then(fold.Step(str(node), normalize))

    def _clip(self, node: Node, flow: Flow, rest: list[Constant | None]) -> Flow:
        low, high = (0.0, np.inf) if node.op == "Relu" else (float(node.get("min", -np.inf)), float(node.get("max", np.inf)))
        if node.op == "Clip" and rest:
            low = float(rest[0].array.ravel()[0]) if rest[0] is not None else low
            high = float(rest[1].array.ravel()[0]) if len(rest) > 1 and rest[1] is not None else high
        return flow.then(fold.Step(str(node), lambda x, _: np.clip(x, x.dtype.type(low), x.dtype.type(high))))

    # ---- quantizers

    def _finish(self, node: Node, flow: Flow, value: Value, scale: float) -> Flow:
        """The flow behind a quantizer: `value` after the pools that were drawn through it, each integer worth `scale`."""
        for pool in flow.pools:
            value = self.net.maxpool(value, **pool)
        low, high = {"bits": (-1, 1), "uint8": (0, 255), "int8": (-128, 127)}[value.dtype]
        levels = fold.Levels(np.full(value.c, low), np.full(value.c, high), 2 if value.dtype == "bits" else 1)
        return Flow(flow.index, flow.shape, value.dtype, levels, fold.Chain(np.full(value.c, scale), []), self._negated(self.net, value))

    def _sign(self, node: Node, flow: Flow, rest: list[Constant | None]) -> Flow:
        scale = 1.0
        if node.op == "BipolarQuant":
            node.need(len(rest) == 1 and isinstance(rest[0], Constant), "its scale must be a constant")
            scales = self._channel_values(node, flow, rest[0].array)  # type: ignore[union-attr]
            node.need(bool((scales == scales[0]).all() and scales[0] > 0), "its scale must be one positive number")
            scale = float(scales[0])
        if flow.dtype == "bits" and not flow.chain.steps and not flow.pools:
            return dataclasses.replace(flow, chain=fold.Chain(np.full(flow.channels, scale), []))
        node.need(flow.dtype != "bits", "a sign of bits that were changed by float operations is not supported")
        try:
            found = fold.thresholds(flow.chain, flow.levels)
        except fold.NotMonotone as error:
            node.fail(f"the float operations before it cannot be a threshold: {error}")
        value = self.net.threshold(flow.build(found.flip), found.values, name=short_name(node))
        self.report.zeros += found.zeros
        self.report.uncertain += found.uncertain
        self.report.lines.append(
            f"{node}: {flow.channels} thresholds by search over up to {flow.levels.count()} levels; {int(found.flip.sum())} channels negated, {found.constant} constant, "
            f"{found.zeros} levels exactly 0 (taken as +1), {found.uncertain} more that depend on rounding")
        return self._finish(node, flow, value, scale)

    def _quant(self, node: Node, flow: Flow, rest: list[Constant | None]) -> Flow:
        node.need(len(rest) == 3 and all(isinstance(r, Constant) for r in rest), "its scale, zero point and width must be constants")
        q = quantizer(node, *(r.array for r in rest))  # type: ignore[union-attr]
        scales = self._channel_values(node, flow, q.scale)
        node.need(bool((scales == scales[0]).all()), "a scale for each channel of activations is not supported")
        node.need(flow.dtype != "bits", "a quantizer of bits is not supported")
        unit = float(scales[0])
        dtype = "int8" if q.low < 0 else "uint8"
        if dtype == "uint8" and q.high <= 127 and flow.dtype == "int8":
            dtype = "int8"
        fitted = fold.fit_scaling(flow.chain, flow.levels, lambda x: q.integers(x, x.dtype.type(unit)), unit, q.low, q.high)
        node.need(fitted is not None, "no 16-bit multiplier and shift give its integers at every level")
        assert fitted is not None
        node.need((q.low, q.high) in ((-128, 127), (0, 255)) or self._stays_within(flow, fitted, q.low, q.high),
                  f"it clamps to {q.low}..{q.high}; only -128..127 and 0..255 clamp in a .xnor file")
        if flow.pools:
            node.need(bool((fitted.multiplier >= 0).all()), "a maximum before a falling quantizer is not supported")
        value = self.net.scale(flow.plain(), fitted.multiplier, fitted.bias, fitted.shift, dtype=dtype, name=short_name(node))
        self.report.lines.append(f"{node}: {dtype}, multiplier {int(fitted.multiplier.min())} to {int(fitted.multiplier.max())}, shift {fitted.shift}; "
                                 f"checked at up to {flow.levels.count()} levels")
        return self._finish(node, flow, value, unit)

    @staticmethod
    def _stays_within(flow: Flow, fitted: fold.Scaling, low: int, high: int) -> bool:
        half = 1 << (fitted.shift - 1) if fitted.shift else 0
        ends = [(fitted.multiplier * v + fitted.bias + half) >> fitted.shift for v in (flow.levels.low, flow.levels.high)]
        return bool((np.array(ends) >= low).all() and (np.array(ends) <= high).all())

    # ---- products

    def _integer_input(self, node: Node, flow: Flow) -> float:
        """What one count of the flow is worth where it enters a product."""
        node.need(flow.dtype in ("bits", "uint8", "int8") and not flow.pools, "its input is not quantized: a BipolarQuant or Quant must come before it")
        if not flow.chain.steps:
            return float(flow.chain.factor[0])
        node.need(flow.is_input, "its input is not quantized: a BipolarQuant or Quant must come before it")
        every = slice(0, flow.channels)
        at = flow.chain.evaluate(np.tile(np.arange(256), (flow.channels, 1)), every, np.float64)
        worth = at[0, 255] / 255
        node.need(bool(np.allclose(at, np.arange(256) * worth, rtol=0, atol=1e-9 * abs(worth)) and worth > 0),
                  "the input enters it with an offset or by channel; a Quant or BipolarQuant must come before it, or the offset must go")
        return float(worth)

    def _weights(self, node: Node, weights: Constant, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
        """rows: the constant's elements numbered, as [oc][n] in the order of the product. Returns integers [oc][n], what one is worth [oc], whether they are bits."""
        node.need(bool(np.isfinite(weights.array).all()), "its weights are not all finite")
        real = weights.array.ravel()[rows].astype(np.float64)
        size = np.abs(real)
        if (size == size[:, :1]).all() and (size > 0).all():
            return np.where(real > 0, 1, -1), size[:, 0], True
        node.need(weights.integers is not None, "its weights are neither of one magnitude a filter nor quantized: a BipolarQuant or Quant of the weights is needed")
        ints, scale = (a.ravel()[rows].astype(np.float64) for a in (weights.integers, weights.scale))  # type: ignore[union-attr]
        node.need(bool((scale == scale[:, :1]).all()), "the scale of its weights differs within a filter")
        node.need(bool((ints >= -128).all() and (ints <= 127).all()), "its weights do not fit int8")
        return ints, scale[:, 0], False

    def _product(self, node: Node, flow: Flow, ints: np.ndarray, worth: np.ndarray, bits: bool, padded: bool, shape: tuple[int, int, int],
                 make: Callable[[Value, np.ndarray], Value]) -> Flow:
        """ints [oc][n]; make(input value, integers) adds the layer. The flow of the sums."""
        unit = self._integer_input(node, flow)
        value = flow.plain()
        built: dict[bytes, Value] = {}

        def build(flip: np.ndarray) -> Value:
            key = flip.tobytes()
            if key not in built:
                built[key] = make(value, np.where(flip[:, None], -ints, ints))
            return built[key]
        low, high = {"bits": (-1, 1), "uint8": (0, 255), "int8": (-128, 127)}[value.dtype]
        if padded:
            low = min(low, 0)
        positive, negative = np.maximum(ints, 0).sum(axis=1), np.maximum(-ints, 0).sum(axis=1)
        levels = fold.Levels((positive * low - negative * high).astype(np.int64), (positive * high - negative * low).astype(np.int64),
                             2 if bits and value.dtype == "bits" and not padded else 1)
        node.need(levels.count() <= LEVELS_MAX, f"its sums can take {levels.count()} values; {LEVELS_MAX} at most")
        order = np.arange(int(np.prod(shape)))
        index = order.reshape(1, -1) if shape[:2] == (1, 1) and node.op != "Conv" else order.reshape(shape).transpose(2, 0, 1)[None]
        self.report.lines.append(f"{node}: {'binary' if bits else 'int8'} weights {list(ints.shape)} over {value.dtype}, sums {int(levels.low.min())} to {int(levels.high.max())}")
        return Flow(index, shape, "int32", levels, fold.Chain(unit * worth, []), build)

    def _dense(self, node: Node, flow: Flow, weights: Constant, rows: np.ndarray) -> Flow:
        """rows [oc][n]: numbers of the weights' elements, n in the order of the ONNX input."""
        elements = flow.index.ravel()
        node.need(rows.shape[1] == len(elements), f"{rows.shape[1]} weights a row for {len(elements)} inputs")
        columns = np.empty_like(rows)
        columns[:, elements] = rows
        ints, worth, bits = self._weights(node, weights, columns)
        return self._product(node, flow, ints, worth, bits, False, (1, 1, len(rows)), lambda x, w: self.net.dense(x, w, bits=bits, name=short_name(node)))

    def _matmul(self, node: Node, flow: Flow, rest: list[Constant | None]) -> Flow:
        weights = rest[0] if rest else None
        node.need(isinstance(weights, Constant) and weights.array.ndim == 2, "its second input must be a constant matrix")
        assert isinstance(weights, Constant)
        node.need(flow.index.ndim == 2 and flow.index.shape[0] == 1, f"its input has the shape {list(flow.index.shape)}, not [1, n]")
        return self._dense(node, flow, weights, np.arange(weights.array.size).reshape(weights.array.shape).T)

    def _gemm(self, node: Node, flow: Flow, rest: list[Constant | None]) -> Flow:
        weights = rest[0] if rest else None
        node.need(isinstance(weights, Constant) and weights.array.ndim == 2, "its second input must be a constant matrix")
        assert isinstance(weights, Constant)
        node.need(not node.get("transA", 0) and flow.index.ndim == 2 and flow.index.shape[0] == 1, f"its input has the shape {list(flow.index.shape)}, not [1, n]")
        numbers = np.arange(weights.array.size).reshape(weights.array.shape)
        result = self._dense(node, flow, weights, numbers if node.get("transB", 0) else numbers.T)
        alpha, beta = float(node.get("alpha", 1.0)), float(node.get("beta", 1.0))
        if alpha != 1:
            result = result.then(fold.Step(f"{node} alpha", lambda x, _: x * x.dtype.type(alpha)))
        if len(rest) > 1 and rest[1] is not None:
            result = self._bias(node, result, rest[1].array * rest[1].array.dtype.type(beta))
        return result

    def _bias(self, node: Node, flow: Flow, array: np.ndarray) -> Flow:
        values = self._channel_values(node, flow, array)
        return flow.then(fold.Step(f"{node} bias", lambda x, channels: x + fold.per_channel(values, x, channels)))

    def _window(self, node: Node, flow: Flow, kernel: list[int]) -> dict[str, Any]:
        """stride and pad of a window, as Network takes them."""
        h, w, c = flow.shape
        node.need(flow.index.shape == (1, c, h, w) and np.array_equal(flow.index[0], np.arange(h * w * c).reshape(h, w, c).transpose(2, 0, 1)),
                  f"its input, of shape {list(flow.index.shape)}, is not a map [1, c, h, w]")
        node.need(len(kernel) == 2, "only windows of two dimensions are supported")
        node.need(all(d == 1 for d in node.get("dilations", [1, 1])), "dilations are not supported")
        strides, pads = [int(s) for s in node.get("strides", [1, 1])], [int(p) for p in node.get("pads", [0, 0, 0, 0])]
        auto = node.get("auto_pad", "NOTSET")
        if auto in ("SAME_UPPER", "SAME_LOWER"):
            total = [max((-(-n // s) - 1) * s + k - n, 0) for n, s, k in zip((h, w), strides, kernel)]
            less = [t // 2 for t in total]
            more = [t - b for t, b in zip(total, less)]
            pads = [*less, *more] if auto == "SAME_UPPER" else [*more, *less]
        elif auto == "VALID":
            pads = [0, 0, 0, 0]
        else:
            node.need(auto == "NOTSET", f"auto_pad {auto} is not supported")
        return {"stride": (strides[0], strides[1]), "pad": (pads[0], pads[1], pads[2], pads[3])}

    def _conv(self, node: Node, flow: Flow, rest: list[Constant | None]) -> Flow:
        weights = rest[0] if rest else None
        node.need(isinstance(weights, Constant) and weights.array.ndim == 4, "its weights must be a constant [oc][c][kh][kw]")
        assert isinstance(weights, Constant)
        oc, icg, kh, kw = weights.array.shape
        window, groups = self._window(node, flow, [kh, kw]), int(node.get("group", 1))
        padded = any(window["pad"])
        rows = np.arange(weights.array.size).reshape(oc, icg, kh, kw).transpose(0, 2, 3, 1).reshape(oc, -1)
        ints, worth, bits = self._weights(node, weights, rows)
        h, w = Network._window(Value(0, *flow.shape, flow.dtype), (kh, kw), window["stride"], window["pad"])
        node.need(h > 0 and w > 0, f"a kernel of {kh}x{kw} does not fit on {flow.shape[0]}x{flow.shape[1]}")

        def make(x: Value, integers: np.ndarray) -> Value:
            return self.net.conv(x, integers.reshape(oc, kh, kw, icg), bits=bits, pad_mode="zero", groups=groups, name=short_name(node), **window)
        result = self._product(node, flow, ints, worth, bits, padded, (h, w, oc), make)
        if len(rest) > 1 and rest[1] is not None:
            result = self._bias(node, result, rest[1].array.reshape(1, -1, 1, 1))
        return result

    def _maxpool(self, node: Node, flow: Flow, rest: list[Constant | None]) -> Flow:
        kernel = [int(k) for k in node.get("kernel_shape", [])]
        node.need(not node.get("ceil_mode", 0), "ceil_mode is not supported")
        window = {"kernel": tuple(kernel), **self._window(node, flow, kernel)}
        h, w = Network._window(Value(0, *flow.shape, flow.dtype), window["kernel"], window["stride"], window["pad"])
        node.need(h > 0 and w > 0, f"a window of {kernel} does not fit on {flow.shape[0]}x{flow.shape[1]}")
        shape = (h, w, flow.channels)
        index = np.arange(int(np.prod(shape))).reshape(shape).transpose(2, 0, 1)[None]
        if flow.dtype in ("bits", "uint8", "int8") and not flow.chain.steps:
            value = self.net.maxpool(flow.plain(), name=short_name(node), **window)
            return dataclasses.replace(flow, index=index, shape=shape, build=self._negated(self.net, value))
        # The maximum of floats is drawn through the quantizer that follows: it becomes an OR of bits.
        pooled = flow.then(fold.Step(str(node), lambda x, _: x, pool=True))
        return dataclasses.replace(pooled, index=index, shape=shape, pools=[*flow.pools, {**window, "name": short_name(node)}])


def short_name(node: Node) -> str:
    """The node's name as a layer may be called: 31 bytes without control characters."""
    return re.sub(r"[^\x20-\x7e]", "?", node.name)[-31:]


def import_graph(graph: Graph, options: Options) -> tuple[Network, Report]:
    """Raises Unsupported, naming the node."""
    importer = Importer(graph, options)
    return importer.run(), importer.report


# ---- the command ----------------------------------------------------------------------------------------------------


def metadata(arguments: argparse.Namespace, net: Network, graph: Graph, report: Report) -> dict[str, Any]:
    labels = [line.rstrip("\n") for line in arguments.labels.read_text().splitlines()] if arguments.labels else [str(c) for c in range(net.classes)]
    meta: dict[str, Any] = {"name": arguments.name or re.sub(r"[^A-Za-z0-9._-]+", "-", arguments.file.stem).strip(".-")[:63] or "imported", "labels": labels}
    if arguments.license:
        meta["license"] = arguments.license
    if net.input.c in (1, 3) and net.input.h > 1 and net.input.w > 1:
        meta["input"] = {"name": "image", "image": {"color": "gray" if net.input.c == 1 else "rgb", "fit": "stretch"}}
    meta["provenance"] = {"tool": "xnor-train import", "source": {"file": arguments.file.name, "sha256": graph.sha256, "format": "QONNX"},
                          "pixel": {"divide": arguments.divide, "mean": list(arguments.mean), "std": list(arguments.std)},
                          "ties": {"zeros": report.zeros, "uncertain": report.uncertain}}
    return meta


def numbers(text: str) -> tuple[float, ...]:
    return tuple(float(n) for n in text.split(","))


def shape3(text: str) -> tuple[int, int, int]:
    h, w, c = (int(n) for n in text.split("x"))
    return h, w, c


def make(arguments: argparse.Namespace) -> int:
    graph = read(arguments.file)
    net, report = import_graph(graph, Options(arguments.divide, arguments.mean, arguments.std, arguments.shape))
    net.save(arguments.out, metadata(arguments, net, graph, report))
    for line in report.lines:
        print(line)
    said = "too many pairs to try" if report.disordered < 0 else f"{report.disordered} pairs of scores ordered otherwise than in float32"
    print(f"{arguments.out}: {len(net.layers)} layers, {net.classes} classes, {arguments.out.stat().st_size} bytes; ties: {report.zeros} levels exactly 0, "
          f"{report.uncertain} that depend on rounding, {said}")
    return 0


def add_command(commands) -> None:  # type: ignore[no-untyped-def]
    c = commands.add_parser("import", help="make a .xnor file of a QONNX network", description=__doc__)
    c.add_argument("file", type=Path)
    c.add_argument("-o", "--out", type=Path, required=True)
    c.add_argument("--divide", type=float, default=255.0, help="a pixel p of 0..255 enters the graph as (p / DIVIDE - mean) / std (255)")
    c.add_argument("--mean", type=numbers, default=(), metavar="M[,M,M]", help="of each channel (0)")
    c.add_argument("--std", type=numbers, default=(), metavar="S[,S,S]", help="of each channel (1)")
    c.add_argument("--shape", type=shape3, metavar="HxWxC", help="of the image, where the graph's input is flat (channels outermost, as PyTorch flattens)")
    c.add_argument("--name", help="of the network (the file's)")
    c.add_argument("--labels", type=Path, help="a text file with one label a line (0, 1, 2 ...)")
    c.add_argument("--license", help="of the weights")
    c.set_defaults(function=make)
