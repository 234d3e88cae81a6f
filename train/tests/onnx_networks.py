# SPDX-License-Identifier: Apache-2.0
"""Small QONNX networks with random weights, in the shapes that Brevitas exports: fully connected (TFC) and convolutional (CNV)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper


class Writer:
    """A graph under construction: each method adds a node and returns the name of its output."""

    def __init__(self, shape: tuple[int, ...], seed: int) -> None:
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.shape = shape
        self.random = np.random.default_rng(seed)

    def constant(self, array: np.ndarray | float | list[int]) -> str:
        name = f"const{len(self.initializers)}"
        given = np.asarray(array)
        self.initializers.append(numpy_helper.from_array(given.astype(np.float32) if given.dtype.kind == "f" else given.astype(np.int64), name))
        return name

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        name = f"{op}_{len(self.nodes)}"
        domain = "onnx.brevitas" if op in ("BipolarQuant", "Quant") else ""
        self.nodes.append(helper.make_node(op, list(inputs), [f"out{len(self.nodes)}"], name=name, domain=domain, **attributes))
        return f"out{len(self.nodes) - 1}"

    def sign(self, x: str, scale: float = 1.0) -> str:
        return self.node("BipolarQuant", x, self.constant(scale))

    def quant(self, x: str, scale: float | np.ndarray, bits: float = 8.0, zero: float = 0.0, **attributes: Any) -> str:
        return self.node("Quant", x, self.constant(np.asarray(scale, float)), self.constant(zero), self.constant(bits),
                         **{"signed": 1, "narrow": 0, "rounding_mode": "ROUND", **attributes})

    def weights(self, shape: tuple[int, ...], scale: float | np.ndarray = 1.0) -> str:
        return self.sign(self.constant(self.random.normal(size=shape)), scale)  # type: ignore[arg-type]

    def batchnorm(self, x: str, channels: int, spread: float | np.ndarray, on_levels: bool = False) -> str:
        """spread: of the values that come. on_levels: means that sums hit exactly, with no offset, so that there are ties."""
        r = self.random
        mean = r.integers(-spread / 4, spread / 4 + 1, channels) * 2.0 if on_levels else r.normal(0, 0.5, channels) * spread
        bias = np.zeros(channels) if on_levels else r.normal(0, 0.5, channels)
        parameters = (r.normal(0, 1, channels), bias, mean, r.uniform(0.5, 1.5, channels) * spread**2)
        return self.node("BatchNormalization", x, *(self.constant(p) for p in parameters), epsilon=1e-5)

    def save(self, path: Path, output: str) -> Path:
        """Tensors as raw bytes, the graph with one input and one output."""
        graph = helper.make_graph(self.nodes, "net", [helper.make_tensor_value_info("input", TensorProto.FLOAT, self.shape)],
                                  [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)], self.initializers)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 12), helper.make_opsetid("onnx.brevitas", 1)])
        path.write_bytes(model.SerializeToString())
        return path


def tfc(path: Path, seed: int, hidden: int = 48, ties: bool = False) -> Path:
    """[1, 1, 12, 11] -> reshape -> 2x - 1 -> sign -> 3 x (binary matrix, BN, sign) -> binary matrix -> scalar affine; as TFC_1W1A.onnx."""
    w = Writer((1, 1, 12, 11), seed)
    batch = w.node("Unsqueeze", w.node("Gather", w.node("Shape", "input"), w.constant(np.array(0)), axis=0), axes=[0])
    x = w.node("Reshape", "input", w.node("Concat", batch, w.constant([-1]), axis=0))
    x = w.sign(w.node("Sub", w.node("Mul", x, w.constant(2.0)), w.constant([1.0])))
    n = 132
    for _ in range(3):
        x = w.node("MatMul", x, w.node("Transpose", w.weights((hidden, n)), perm=[1, 0]))
        x = w.sign(w.batchnorm(x, hidden, n**0.5, on_levels=ties))
        n = hidden
    x = w.node("MatMul", x, w.node("Transpose", w.weights((10, n)), perm=[1, 0]))
    root = w.node("Pow", w.constant([318.0]), w.constant(0.5))
    x = w.node("Mul", w.node("Div", w.node("Sub", x, w.constant([0.45])), root), w.constant([0.73]))
    return w.save(path, w.node("Add", x, w.constant([-1.1])))


def cnv(path: Path, seed: int, scales: bool = False) -> Path:
    """[1, 3, 22, 22] -> 2x - 1 -> 8-bit Quant -> (conv, BN, sign) x 2, pool, (conv, BN, sign) x 2, pool, flatten -> binary matrices -> scores; as FINN's CNV.

    scales: weights and activations worth powers of two other than 1."""
    w = Writer((1, 3, 22, 22), seed)
    r = w.random
    x = w.node("Sub", w.node("Mul", "input", w.constant(2.0)), w.constant([1.0]))
    x = w.quant(x, 2.0**-7)
    channels, spread = 3, 3.0
    for i, oc in enumerate((16, 24, 20, 32)):
        scale = 2.0 ** r.integers(-3, 3, (oc, 1, 1, 1)) if scales else np.ones((1, 1, 1, 1))
        x = w.node("Conv", x, w.weights((oc, channels, 3, 3), scale), kernel_shape=[3, 3], strides=[1, 1], pads=[0, 0, 0, 0], group=1, dilations=[1, 1])
        x = w.sign(w.batchnorm(x, oc, spread * scale.ravel()), 0.5 if scales else 1.0)
        if i % 2:
            x = w.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2], pads=[0, 0, 0, 0])
        channels, spread = oc, (9 * oc) ** 0.5 * (0.5 if scales else 1.0)
    x = w.node("Reshape", x, w.constant([-1, 32 * 4]))
    x = w.node("MatMul", x, w.node("Transpose", w.weights((40, 128)), perm=[1, 0]))
    x = w.sign(w.batchnorm(x, 40, 5.5 if scales else 11.0))
    x = w.node("MatMul", x, w.node("Transpose", w.weights((10, 40), 0.25), perm=[1, 0]))
    return w.save(path, w.node("Mul", x, w.constant(0.125)))


def mixed(path: Path, seed: int) -> Path:
    """What the two do not have: an input straight into int8 weights, padding, groups, biases, a pool of floats, activations of 8 bits, clipping, Gemm, channels last,
    scores of each class with their own scale, a Softmax at the end."""
    w = Writer((1, 2, 9, 10), seed)
    r = w.random
    kernels = r.normal(0, 0.4, (8, 2, 3, 3))
    first = w.quant(w.constant(kernels - kernels.mean(axis=(1, 2, 3), keepdims=True)), np.full((8, 1, 1, 1), 1 / 64))
    x = w.node("Conv", "input", first, w.constant(r.normal(-0.4, 0.1, 8)), kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[1, 1])
    x = w.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = w.node("Clip", w.node("Mul", x, w.constant(r.uniform(0.3, 2, (8, 1, 1)))), w.constant(-3.0), w.constant(3.0))
    x = w.sign(w.node("Add", x, w.constant(r.normal(0, 0.1, (8, 1, 1)))))
    x = w.node("Conv", x, w.weights((12, 4, 3, 3)), kernel_shape=[3, 3], auto_pad="SAME_UPPER", strides=[2, 2], group=2)
    x = w.quant(w.node("Mul", x, w.constant(0.037)), 1 / 32)
    x = w.node("Conv", x, w.weights((6, 12, 1, 1)), kernel_shape=[1, 1])
    x = w.node("Sign", w.node("Neg", w.batchnorm(x, 6, 0.6)))
    x = w.node("Flatten", w.node("Transpose", x, perm=[0, 2, 3, 1]))
    classes = w.quant(w.constant(r.normal(0, 0.5, (5, 6 * 2 * 3))), 1 / 50)
    x = w.node("Gemm", x, classes, w.constant(r.normal(0, 1, 5)), alpha=0.5, beta=2.0, transB=1)
    x = w.node("Mul", x, w.constant(r.uniform(0.5, 2, 5)))
    return w.save(path, w.node("Softmax", x))
