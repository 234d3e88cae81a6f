# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime on networks of the same topology: ort.py NETWORK int8|fp32 BATCH. Weights are random: time does not depend on them."""

from __future__ import annotations

import sys

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from peer import serve

SCALE = 0.02  # of activations


class Graph:
    """Layers one after another, in int8 (QOperator format) or fp32."""

    def __init__(self, quantized: bool, shape: list[int]) -> None:
        self.quantized, self.shape = quantized, shape
        self.random = np.random.default_rng(1)
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []
        if quantized:
            self.scale, self.weight_scale = self.constant(np.float32(SCALE)), self.constant(np.float32(0.01))
            self.zero, self.weight_zero = self.constant(np.uint8(0)), self.constant(np.int8(0))

    def constant(self, value: np.ndarray | np.generic) -> str:
        name = f"c{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def op(self, kind: str, inputs: list[str], domain: str = "", **attributes: object) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], domain=domain, **attributes))
        return name

    def start(self) -> str:
        return self.op("QuantizeLinear", ["x", self.scale, self.zero]) if self.quantized else "x"

    def conv(self, x: str, c: int, oc: int, kernel: int, stride: int = 1, relu: bool = True) -> str:
        pad = kernel // 2
        where = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4}
        if self.quantized:
            weights = self.constant(self.random.integers(-63, 64, (oc, c, kernel, kernel)).astype(np.int8))
            bias = self.constant(self.random.integers(-100, 100, oc).astype(np.int32))
            out_scale = self.constant(np.float32(SCALE * c * kernel * kernel * 0.05))
            return self.op("QLinearConv", [x, self.scale, self.zero, weights, self.weight_scale, self.weight_zero, out_scale, self.zero, bias], **where)
        weights = self.constant((self.random.standard_normal((oc, c, kernel, kernel)) / np.sqrt(c * kernel * kernel)).astype(np.float32))
        y = self.op("Conv", [x, weights, self.constant(np.zeros(oc, np.float32))], **where)
        return self.op("Relu", [y]) if relu else y

    def max_pool(self, x: str, kernel: int, stride: int, pad: int = 0) -> str:
        return self.op("MaxPool", [x], kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4)

    def add(self, a: str, b: str) -> str:
        if self.quantized:
            return self.op("QLinearAdd", [a, self.scale, self.zero, b, self.scale, self.zero, self.scale, self.zero], domain="com.microsoft")
        return self.op("Relu", [self.op("Add", [a, b])])

    def dense(self, x: str, c: int, oc: int, relu: bool = True) -> str:
        if self.quantized:
            weights = self.constant(self.random.integers(-63, 64, (c, oc)).astype(np.int8))
            out_scale = self.constant(np.float32(SCALE * c * 0.05))
            return self.op("QLinearMatMul", [x, self.scale, self.zero, weights, self.weight_scale, self.weight_zero, out_scale, self.zero])
        y = self.op("MatMul", [x, self.constant((self.random.standard_normal((c, oc)) / np.sqrt(c)).astype(np.float32))])
        return self.op("Relu", [y]) if relu else y

    def dequantize(self, x: str) -> str:
        return self.op("DequantizeLinear", [x, self.scale, self.zero]) if self.quantized else x

    def model(self, y: str, classes: int) -> bytes:
        graph = helper.make_graph(self.nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, self.shape)],
                                  [helper.make_tensor_value_info(y, TensorProto.FLOAT, [self.shape[0], classes])], self.tensors)
        opsets = [helper.make_opsetid("", 13), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def vgg_small(quantized: bool, batch: int) -> bytes:
    g = Graph(quantized, [batch, 3, 32, 32])
    x, c = g.start(), 3
    for i, oc in enumerate((128, 128, 256, 256, 512, 512)):
        x, c = g.conv(x, c, oc, 3), oc
        if i % 2:
            x = g.max_pool(x, 2, 2)
    x = g.op("Flatten", [x])
    x = g.dense(g.dense(x, 8192, 1024), 1024, 1024)
    return g.model(g.dequantize(g.dense(x, 1024, 10, relu=False)), 10)


def resnet18(quantized: bool, batch: int) -> bytes:
    """With a shortcut round every convolution, as binary residual networks have it."""
    g = Graph(quantized, [batch, 3, 224, 224])
    x, c = g.max_pool(g.conv(g.start(), 3, 64, 7, 2), 3, 2, 1), 64
    for oc in (64, 128, 256, 512):
        for i in range(4):
            stride = 2 if oc > 64 and i == 0 else 1
            shortcut = g.conv(x, c, oc, 1, 2, relu=False) if stride == 2 else x
            x, c = g.add(g.conv(x, c, oc, 3, stride, relu=False), shortcut), oc
    x = g.op("Flatten", [g.op("GlobalAveragePool", [g.dequantize(x)])])
    return g.model(g.op("MatMul", [x, g.constant((g.random.standard_normal((512, 1000)) / 22).astype(np.float32))]), 1000)


def main() -> None:
    network, kind, batch = sys.argv[1], sys.argv[2], int(sys.argv[3])
    model = {"vgg-small": vgg_small, "resnet18": resnet18}[network](kind == "int8", batch)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(2).uniform(0, 1, session.get_inputs()[0].shape).astype(np.float32)
    serve(f"ONNX Runtime {onnxruntime.__version__} {kind}", lambda: session.run(None, {"x": x}))


if __name__ == "__main__":
    main()
