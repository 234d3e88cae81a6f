# SPDX-License-Identifier: Apache-2.0
"""What a server's answers say, as values. Each is made from the JSON of docs/http-api.md; members that are not known here are left out, as the server may have
more of them in a later version."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from email.message import Message
from typing import Any

from .tensors import Tensor


@dataclasses.dataclass(frozen=True)
class Class:
    """One class of one image."""

    index: int
    label: str | None  # None: the model has none
    score: float  # softmax, 0 to 1
    logit: float

    @classmethod
    def parse(cls, told: Any) -> Class:
        return cls(int(told["class"]), told.get("label"), float(told["score"]), float(told["logit"]))


@dataclasses.dataclass(frozen=True)
class Timings:
    """Times in the server, microseconds."""

    decode_us: int | None  # picture to tensor; None: a tensor was sent
    queue_us: int  # waiting for a batch and an instance
    execute_us: int  # running
    receive_us: int  # first header to last byte of the request
    total_us: int  # first header to the answer


@dataclasses.dataclass(frozen=True)
class Result:
    """The answer for one image."""

    index: int  # of the largest logit, the lowest of equals
    label: str | None  # None: the model has none
    score: float  # softmax, 0 to 1
    logit: float
    top: tuple[Class, ...]  # the best classes, best first: as many as were asked for, or all there are
    model: str
    version: str
    timings: Timings
    batch_size: int  # images that ran together
    instance: str  # of an accelerator
    energy_j: float | None  # joules; None: nothing measures them
    energy_source: str | None  # "sensor", "estimate" or "simulated"
    request_id: str | None
    traceparent: str | None  # with the server's span

    @classmethod
    def parse(cls, answer: Any, told: Any, headers: Message) -> Result:
        """`told` is of results[] of `answer`."""
        best = Class.parse(told)
        own, whole = told["timings_us"], answer["timings_us"]
        return cls(best.index, best.label, best.score, best.logit, tuple(Class.parse(one) for one in told["top"]) if "top" in told else (best,), answer["model"],
                   answer["version"], Timings(own.get("decode"), own["queue"], own["execute"], whole["receive"], whole["total"]), told["batch_size"],
                   told["instance"], told.get("energy_j"), told.get("energy_source"), headers.get("X-Request-Id"), headers.get("Traceparent"))


@dataclasses.dataclass(frozen=True)
class Outputs:
    """The numbers of a batch: tensors [n][classes], by name. `logits` are floats, `accumulators` the network's own integers, the same on every accelerator."""

    model: str
    version: str
    tensors: Mapping[str, Tensor]
    request_id: str | None
    traceparent: str | None

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    @property
    def logits(self) -> Tensor:
        return self.tensors["logits"]

    @property
    def accumulators(self) -> Tensor:
        return self.tensors["accumulators"]

    @property
    def classes(self) -> list[int]:
        """Of each image the class with the largest logit, the lowest of equals."""
        rows = (self.tensors.get("logits") or self.tensors["accumulators"]).tolist()
        return [row.index(max(row)) for row in rows]


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """An input or output of a model; -1 stands for the number of images."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Metadata:
    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]

    @classmethod
    def parse(cls, told: Any) -> Metadata:
        inputs, outputs = (tuple(TensorInfo(one["name"], one["datatype"], tuple(one["shape"])) for one in told[kind]) for kind in ("inputs", "outputs"))
        return cls(told["name"], tuple(told["versions"]), told["platform"], inputs, outputs)


@dataclasses.dataclass(frozen=True)
class ModelState:
    """An entry of the repository's index."""

    name: str
    version: str | None  # None: no file of it could be read
    state: str  # "READY", "LOADING", "UNLOADING" or "UNAVAILABLE"
    reason: str | None  # why it, or a newer file of it, is not served

    @classmethod
    def parse(cls, told: Any) -> ModelState:
        return cls(told["name"], told.get("version"), told["state"], told.get("reason"))


@dataclasses.dataclass(frozen=True)
class Count:
    """How many, and how long in all."""

    count: int
    ns: int

    @property
    def mean_us(self) -> float | None:
        """None: there was none."""
        return self.ns / self.count / 1000 if self.count else None

    @classmethod
    def parse(cls, told: Any) -> Count:
        return cls(told["count"], told["ns"])


@dataclasses.dataclass(frozen=True)
class Statistics:
    """What a server has counted of one version of a model since it started."""

    name: str
    version: str
    inferences: int  # images
    executions: int  # batches
    last_inference_ms: int  # since 1970; 0: none yet
    success: Count  # requests answered with results
    fail: Count  # requests answered with an error
    compute_input: Count  # decoding
    queue: Count  # waiting
    compute_infer: Count  # running
    compute_output: Count  # answering
    batches: Mapping[int, Count]  # runs by their number of images

    @classmethod
    def parse(cls, told: Any) -> Statistics:
        parts = {name: Count.parse(told["inference_stats"][name]) for name in ("success", "fail", "compute_input", "queue", "compute_infer", "compute_output")}
        return cls(told["name"], told["version"], told["inference_count"], told["execution_count"], told["last_inference"],
                   batches={one["batch_size"]: Count.parse(one["compute_infer"]) for one in told["batch_stats"]}, **parts)


@dataclasses.dataclass(frozen=True)
class Server:
    name: str
    version: str
    extensions: tuple[str, ...]

    @classmethod
    def parse(cls, told: Any) -> Server:
        return cls(told["name"], told["version"], tuple(told["extensions"]))
