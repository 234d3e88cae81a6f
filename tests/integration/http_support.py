# SPDX-License-Identifier: Apache-2.0
"""A daemon that serves networks with random weights, and clients that behave badly on purpose."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
XNORD = (ROOT / os.environ.get("XN_BUILD", "build/release") / "xnord").resolve()
START_TIMEOUT_S = 60
PATIENCE_S = 60

sys.path.insert(0, str(ROOT / "train"))

from xnortrain.interpret import run  # noqa: E402
from xnortrain.xnorfile import Network, Value  # noqa: E402

SEED = int(os.environ.get("XN_SEED") or time.time())
print(f"XN_SEED={SEED}")


# ---- networks -----------------------------------------------------------------------------------------------------------------------------------


def bits(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.choice(np.array([-1, 1], np.int8), shape)


def small_network(path: Path, name: str, shape: tuple[int, int, int], classes: int, *, dtype: str = "uint8", image: bool = False, seed: int = SEED,
                  labels: bool = True) -> Network:
    """int8 stem, thresholds, a binary convolution, a binary classifier."""
    rng = np.random.default_rng(seed)
    net = Network(shape, dtype)
    x: Value = net.conv(net.input, rng.integers(-99, 99, (24, 3, 3, shape[2])).astype(np.int8), bits=False, stride=2, pad=1, pad_mode="zero")
    x = net.threshold(x, rng.integers(-5000, 5000, x.c))
    x = net.conv(x, bits(rng, 40, 3, 3, 24), bits=True, pad=1, pad_mode="minus_one")
    x = net.threshold(x, rng.integers(-9, 9, x.c))
    x = net.dense(x, bits(rng, classes, x.h * x.w * x.c), bits=True)
    net.logits(x, multiplier=rng.integers(1, 9, classes), bias=rng.integers(-99, 99, classes), scale=0.0625, offset=0.5)
    metadata: dict[str, Any] = {"name": name, "version": "3", "input": {"name": "pixels"}}
    if labels:
        metadata["labels"] = [f"{name} №{k}" for k in range(classes)]
    if image:
        metadata["input"]["image"] = {"color": "gray" if shape[2] == 1 else "rgb", "fit": "stretch"}
    net.save(path, metadata)
    return net


def slow_network(path: Path, name: str, layers: int) -> Network:
    """As many layers as it takes for a run to be long."""
    rng = np.random.default_rng(SEED)
    net = Network((96, 96, 1), "uint8")
    x: Value = net.conv(net.input, rng.integers(-99, 99, (64, 3, 3, 1)).astype(np.int8), bits=False, pad=1, pad_mode="zero")
    for _ in range(layers):
        x = net.scale(x, np.full(64, 3), np.zeros(64, np.int64), 8, dtype="int8")
        x = net.conv(x, rng.integers(-9, 9, (64, 3, 3, 64)).astype(np.int8), bits=False, pad=1, pad_mode="zero")
    net.logits(net.global_avgpool(net.scale(x, np.full(64, 3), np.zeros(64, np.int64), 6)))
    net.save(path, {"name": name, "version": "1"})
    return net


def images(net: Network, n: int, seed: int = SEED) -> np.ndarray:
    """[n][h][w][c] of the input's type."""
    rng = np.random.default_rng(seed)
    info = np.iinfo(np.dtype(net.input.dtype))
    return rng.integers(info.min, info.max + 1, (n, net.input.h, net.input.w, net.input.c)).astype(net.input.dtype)


def expect(net: Network, batch: np.ndarray) -> np.ndarray:
    """int32 logits [n][classes] by the Python interpreter of the file format."""
    return run(net, batch)


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(file, "PNG")
    return file.getvalue()


# ---- daemon -------------------------------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        return self.json()["error"]


class Daemon:
    """A running xnord."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process, self.port, self.log = process, port, log

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE_S)

    def client(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)

    def request(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Answer:
        with contextlib.closing(self.client()) as client:
            return ask(client, method, path, body, headers)

    def post(self, path: str, body: bytes, content_type: str | None = None, **headers: str) -> Answer:
        extra = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.request("POST", path, body, {**({"Content-Type": content_type} if content_type else {}), **extra})

    def get(self, path: str) -> Answer:
        return self.request("GET", path)

    def metric(self, family: str, **labels: str) -> float:
        """Sum of the family's samples that have these labels."""
        total = 0.0
        for line in self.get("/metrics").body.decode().splitlines():
            match = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
            if match and match[1] == family and labels.items() <= dict(re.findall(r'(\w+)="([^"]*)"', match[2] or "")).items():
                total += float(match[3])
        return total

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def resident_bytes(self) -> int:
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", text)[1]) * 1024  # type: ignore[index]


def ask(client: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Answer:
    client.request(method, path, body, headers or {})
    response = client.getresponse()
    return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())


@contextlib.contextmanager
def daemon(folder: Path, models: list[dict[str, Any]], fault: str = "", **settings: Any) -> Iterator[Daemon]:
    """xnord with `models` and `settings` over a quiet configuration; ended by SIGTERM, exit status 0."""
    config = {"listen": [{"address": "127.0.0.1", "port": 0}], "models": models, "accelerators": [{"kind": "cpu", "instances": 1, "threads": 1}],
              "log": {"target": "stderr", "level": "warning"}, **settings}
    config_path, port_path, log_path = folder / "xnord.json", folder / "port", folder / "log"
    port_path.unlink(missing_ok=True)
    config_path.write_text(json.dumps(config))
    with open(log_path, "w") as log:
        process = subprocess.Popen([str(XNORD), "--config", str(config_path), "--port-file", str(port_path)], stderr=log,
                                   env={**os.environ, **({"XN_FAULT": fault} if fault else {})})
        try:
            deadline = time.monotonic() + START_TIMEOUT_S
            while not port_path.exists():
                assert process.poll() is None and time.monotonic() < deadline, log_path.read_text()
                time.sleep(0.005)  # nothing depends on its length
            yield Daemon(process, int(port_path.read_text()), log_path)
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_S) == 0, log_path.read_text()
        finally:
            process.kill()
            process.wait()


# ---- raw clients --------------------------------------------------------------------------------------------------------------------------------


def read_all(connection: socket.socket) -> bytes:
    """Until the server closes."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := connection.recv(65536):
            received += chunk
    return received


def parse_answer(data: bytes) -> Answer:
    """The first answer in `data`; the rest is dropped."""
    head, _, rest = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    match = re.fullmatch(r"HTTP/1\.[01] (\d{3}) .*", lines[0])
    assert match, data[:200]
    headers = {name.strip().lower(): value.strip() for name, value in (line.split(":", 1) for line in lines[1:])}
    return Answer(int(match[1]), headers, rest[:int(headers.get("content-length", len(rest)))])


def read_answer(connection: socket.socket) -> Answer:
    """One answer of a connection that stays open."""
    file = connection.makefile("rb")
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = file.readline()
        assert line, f"closed after {head!r}"
        head += line
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    return parse_answer(head + (file.read(int(length[1])) if length else b""))
