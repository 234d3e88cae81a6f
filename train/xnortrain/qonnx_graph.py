# SPDX-License-Identifier: Apache-2.0
"""An ONNX file as a list of nodes and constants, with what is wrong in it said by the name of the node. Reads nothing but the one file."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np

FILE_BYTES_MAX = 1 << 30
NODES_MAX = 100_000


class Unsupported(ValueError):
    """A graph that cannot become a .xnor network; the text names the node and the reason."""


@dataclasses.dataclass
class Node:
    """One operation. `attributes` by name; strings as str."""

    op: str
    name: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any]

    def __str__(self) -> str:
        return f"node {self.name or '(without a name)'} ({self.op})"

    def fail(self, why: str) -> None:
        raise Unsupported(f"{self}: {why}")

    def need(self, holds: bool, why: str) -> None:
        if not holds:
            self.fail(why)

    def get(self, name: str, otherwise: Any) -> Any:
        return self.attributes.get(name, otherwise)


@dataclasses.dataclass
class Graph:
    """nodes in order; constants by name; the one input with its shape (the batch, and what is not stated, as 1) and the one output."""

    nodes: list[Node]
    constants: dict[str, np.ndarray]
    input: str
    input_shape: tuple[int, ...]
    output: str
    sha256: str


def _text(value: str | bytes) -> str:
    """Protobuf gives what is not UTF-8 as bytes."""
    return value if isinstance(value, str) else value.decode("utf-8", "replace")


def _attribute(value: Any) -> Any:
    from onnx import TensorProto

    if isinstance(value, bytes):
        return _text(value)
    return _array(value, "an attribute") if isinstance(value, TensorProto) else list(value) if hasattr(value, "__len__") else value


def _array(tensor: Any, what: str) -> np.ndarray:
    from onnx import TensorProto, numpy_helper

    if tensor.data_location == TensorProto.EXTERNAL:
        raise Unsupported(f"{what} {tensor.name}: its data lie in another file; save the model with all data inside")
    try:
        return numpy_helper.to_array(tensor)
    except Exception as error:  # whatever the library raises on damaged tensors
        raise Unsupported(f"{what} {tensor.name}: cannot be read: {error}") from None


def _node(node: Any) -> Node:
    from onnx import helper

    attributes = {}
    for attribute in node.attribute:
        try:
            attributes[_text(attribute.name)] = _attribute(helper.get_attribute_value(attribute))
        except ValueError as error:
            if isinstance(error, Unsupported):
                raise
            raise Unsupported(f"node {node.name} ({node.op_type}): its attribute {attribute.name!r} cannot be read") from None
    return Node(_text(node.op_type), _text(node.name), [_text(i) for i in node.input], [_text(o) for o in node.output], attributes)


def read(path: Path) -> Graph:
    """Raises Unsupported for what is not an ONNX file with one input and one output."""
    try:
        import onnx
    except ModuleNotFoundError:
        raise Unsupported("reading ONNX needs the Debian package python3-onnx") from None
    if path.stat().st_size > FILE_BYTES_MAX:
        raise Unsupported(f"{path}: more than {FILE_BYTES_MAX} bytes")
    data = path.read_bytes()
    try:
        model = onnx.load_model_from_string(data)
    except Exception:  # protobuf's own error type depends on its implementation
        raise Unsupported(f"{path}: not an ONNX file") from None
    graph = model.graph
    if not graph.node or len(graph.node) > NODES_MAX:
        raise Unsupported(f"{path}: {len(graph.node)} nodes; 1 to {NODES_MAX} can be read")
    constants = {_text(t.name): _array(t, "initializer") for t in graph.initializer}
    inputs = [i for i in graph.input if _text(i.name) not in constants]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise Unsupported(f"{path}: {len(inputs)} inputs and {len(graph.output)} outputs; there must be one of each")
    shape = tuple(max(d.dim_value, 1) for d in inputs[0].type.tensor_type.shape.dim)
    return Graph([_node(n) for n in graph.node], constants, _text(inputs[0].name), shape, _text(graph.output[0].name), hashlib.sha256(data).hexdigest())
