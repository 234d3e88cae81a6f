# SPDX-License-Identifier: Apache-2.0
"""A daemon for the tests of metrics and power: it serves the shipped network, and its metrics are read."""

from __future__ import annotations

import contextlib
import io
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import http_support
import pytest
from http_support import PATIENCE_S, ROOT, XNORD  # noqa: F401
from PIL import Image

MODEL = ROOT / "models/fashion-mnist/fashion-mnist.xnor"

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


class Daemon(http_support.Daemon):
    """A running xnord."""

    def infer(self) -> dict[str, Any]:
        answer = self.post("/infer", picture(), "image/png")
        assert answer.status == 200, answer.body
        return answer.json()

    def metrics_text(self) -> str:
        answer = self.get("/metrics")
        assert answer.status == 200, answer.body
        return answer.body.decode()

    def metrics(self) -> Samples:
        return parse(self.metrics_text())

    def wait_for(self, what: str, condition: Callable[[Samples], bool]) -> Samples:
        """Scrape until `condition` holds."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            samples = self.metrics()
            if condition(samples):
                return samples
            assert time.monotonic() < deadline, f"{what} did not come within {PATIENCE_S} s"


def picture() -> bytes:
    """A grey 28x28 PNG."""
    file = io.BytesIO()
    Image.linear_gradient("L").resize((28, 28)).save(file, "PNG")
    return file.getvalue()


def parse(text: str) -> Samples:
    samples: Samples = {}
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        match = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
        assert match, line
        labels = frozenset(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', match[2] or ""))
        key = (match[1], labels)
        assert key not in samples, f"{line} is there twice"
        samples[key] = float(match[3])
    return samples


def find(samples: Samples, family: str, **labels: str) -> list[float]:
    """Values of the family's samples that have these labels, perhaps among others."""
    return [value for (name, have), value in samples.items() if name == family and labels.items() <= dict(have).items()]


def total(samples: Samples, family: str, **labels: str) -> float:
    return sum(find(samples, family, **labels))


@contextlib.contextmanager
def daemon(tmp_path: Path, **settings: Any) -> Iterator[Daemon]:
    """xnord with the shipped network, or other models, and `settings` over a quiet configuration."""
    if not MODEL.exists():
        pytest.skip(f"{MODEL.relative_to(ROOT)} is not there: train it first")
    with http_support.daemon(tmp_path, settings.pop("models", [{"path": str(MODEL)}]), **settings) as server:
        yield Daemon(server.process, server.port, server.log)
