# SPDX-License-Identifier: Apache-2.0
"""An ONNX graph evaluated in floating point, node by node and as the operators are specified, for batches. It shares nothing with the importer: it reads the file by
itself, knows no integers and no thresholds, and is what the imported networks are compared with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper


def _pool_or_conv_windows(x: np.ndarray, kernel: list[int], attributes: dict[str, Any], fill: float) -> np.ndarray:
    """[n][c][oh][ow][kh][kw]."""
    top, left, bottom, right = attributes.get("pads", [0, 0, 0, 0])
    sh, sw = attributes.get("strides", [1, 1])
    if attributes.get("auto_pad") == b"SAME_UPPER":  # as many outputs as ceil(size / stride), the odd element behind
        rows, columns = (max((int(np.ceil(n / t)) - 1) * t + k - n, 0) for n, t, k in zip(x.shape[2:], (sh, sw), kernel))
        top, left, bottom, right = rows // 2, columns // 2, rows - rows // 2, columns - columns // 2
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=fill)
    return np.lib.stride_tricks.sliding_window_view(padded, tuple(kernel), axis=(2, 3))[:, :, ::sh, ::sw]


def _conv(x: np.ndarray, w: np.ndarray, bias: np.ndarray | None, attributes: dict[str, Any]) -> np.ndarray:
    groups = attributes.get("group", 1)
    windows = _pool_or_conv_windows(x, list(w.shape[2:]), attributes, 0.0)
    n, c, oh, ow, kh, kw = windows.shape
    split = windows.reshape(n, groups, c // groups, oh, ow, kh, kw)
    y = np.einsum("ngchwkl,gockl->ngohw", split, w.reshape(groups, -1, *w.shape[1:]), optimize=True).reshape(n, -1, oh, ow)
    return y if bias is None else y + bias.reshape(1, -1, 1, 1)


def _batchnorm(x: np.ndarray, rest: list[np.ndarray], epsilon: float) -> np.ndarray:
    shape = (1, -1) + (1,) * (x.ndim - 2)
    scale, bias, mean, variance = (r.reshape(shape).astype(x.dtype) for r in rest)
    factor = scale / np.sqrt(variance + x.dtype.type(epsilon))  # another order of operations than the importer's, on purpose
    return x * factor + (bias - mean * factor)


def _quant(x: np.ndarray, scale: np.ndarray, zero: np.ndarray, width: np.ndarray, attributes: dict[str, Any]) -> np.ndarray:
    bits, narrow, signed = int(width), attributes.get("narrow", 0), attributes.get("signed", 1)
    low, high = (-(2 ** (bits - 1)) + narrow, 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1 - narrow)
    rounding = {b"ROUND": np.round, b"FLOOR": np.floor, b"CEIL": np.ceil}[attributes.get("rounding_mode", b"ROUND")]
    return (rounding(np.clip(x / scale + zero, low, high)) - zero) * scale


def _node(node: Any, x: list[np.ndarray | None], a: dict[str, Any]) -> np.ndarray:
    op, first = node.op_type, x[0]
    if op in ("Add", "Sub", "Mul", "Div", "Pow"):
        return {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide, "Pow": np.power}[op](first, x[1])
    if op == "BipolarQuant":
        return np.where(first >= 0, x[1], -x[1])
    if op == "Quant":
        return _quant(first, x[1], x[2], x[3], a)
    if op == "Sign":
        return np.sign(first)
    if op == "MatMul":
        return first @ x[1]
    if op == "Gemm":
        y = a.get("alpha", 1.0) * (first @ (x[1].T if a.get("transB", 0) else x[1]))
        return y if len(x) < 3 else y + a.get("beta", 1.0) * x[2]
    if op == "Conv":
        return _conv(first, x[1], x[2] if len(x) > 2 else None, a)
    if op == "BatchNormalization":
        return _batchnorm(first, x[1:5], a.get("epsilon", 1e-5))
    if op == "MaxPool":
        return _pool_or_conv_windows(first, a["kernel_shape"], a, -np.inf).max(axis=(4, 5))
    if op == "Clip":
        return np.clip(first, x[1] if len(x) > 1 else a["min"], x[2] if len(x) > 2 else a["max"])
    if op == "Neg":
        return -first
    if op == "Relu":
        return np.maximum(first, 0)
    if op == "Transpose":
        return first.transpose(a["perm"])
    if op == "Flatten":
        return first.reshape(len(first), -1)
    if op == "Reshape":
        return first.reshape([int(n) for n in x[1]])
    if op == "Shape":
        return np.array(first.shape, np.int64)
    if op == "Gather":
        return np.take(first, x[1], axis=a.get("axis", 0))
    if op == "Unsqueeze":
        return np.expand_dims(first, tuple(a["axes"]))
    if op == "Concat":
        return np.concatenate(x, axis=a["axis"])
    if op == "Softmax":
        e = np.exp(first - first.max(axis=-1, keepdims=True))
        return e / e.sum(axis=-1, keepdims=True)
    raise NotImplementedError(op)


def evaluate(path: Path, images: np.ndarray, dtype: type = np.float64) -> np.ndarray:
    """images: float [n][...] as the graph's input, with any batch -> output [n][classes], all floats in `dtype`."""
    graph = onnx.load(str(path)).graph

    def cast(array: np.ndarray) -> np.ndarray:
        return array.astype(dtype) if array.dtype.kind == "f" else array
    values: dict[str, np.ndarray | None] = {t.name: cast(numpy_helper.to_array(t)) for t in graph.initializer}
    name = next(i.name for i in graph.input if i.name not in values)
    values[name], values[""] = images.astype(dtype), None
    for node in graph.node:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        values[node.output[0]] = np.asarray(_node(node, [values[i] for i in node.input], attributes))
    return values[graph.output[0].name]  # type: ignore[return-value]
