# SPDX-License-Identifier: Apache-2.0
"""A daemon for the tests of metrics and power: started on a free port, known to be ready by its own notification, ended by SIGTERM."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
XNORD = Path(os.environ.get("XN_BUILD", ROOT / "build/release")) / "xnord"
MODEL = ROOT / "models/fashion-mnist/fashion-mnist.xnor"
START_TIMEOUT_S = 60
PATIENCE_S = 30

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


class Daemon:
    """A running xnord."""

    def __init__(self, port: int) -> None:
        self.port = port

    def request(self, method: str, path: str, body: bytes | None = None, content_type: str = "image/png") -> tuple[int, bytes]:
        headers = {"Content-Type": content_type} if body is not None else {}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data=body, method=method, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read()

    def infer(self) -> dict[str, Any]:
        status, body = self.request("POST", "/infer", picture())
        assert status == 200, body
        return json.loads(body)

    def metrics_text(self) -> str:
        status, body = self.request("GET", "/metrics")
        assert status == 200, body
        return body.decode()

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
    """xnord with the shipped network and `settings` over a quiet configuration."""
    if not MODEL.exists():
        pytest.skip(f"{MODEL.relative_to(ROOT)} is not there: train it first")
    config = {"listen": [{"address": "127.0.0.1", "port": 0}], "models": [{"path": str(MODEL)}], "log": {"target": "stderr"}, **settings}
    config_path, port_path, socket_path = tmp_path / "xnord.json", tmp_path / "port", tmp_path / "notify"
    config_path.write_text(json.dumps(config))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify, open(tmp_path / "log", "w+") as log:
        notify.bind(str(socket_path))
        notify.settimeout(START_TIMEOUT_S)
        process = subprocess.Popen([str(XNORD), "--config", str(config_path), "--port-file", str(port_path)], stderr=log,
                                   env={**os.environ, "NOTIFY_SOCKET": str(socket_path)})
        try:
            notify.settimeout(0.2)
            deadline = time.monotonic() + START_TIMEOUT_S
            while True:
                with contextlib.suppress(TimeoutError):
                    if b"READY=1" in notify.recv(4096):
                        break
                assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()
            yield Daemon(int(port_path.read_text()))
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_S) == 0, (tmp_path / "log").read_text()
        finally:
            process.kill()
            process.wait()
