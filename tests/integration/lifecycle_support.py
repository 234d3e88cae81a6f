# SPDX-License-Identifier: Apache-2.0
"""A daemon whose life is the test's subject: its notifications are kept, its signals are the test's, and its networks are made here."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("XN_BUILD", ROOT / "build/release"))
XNORD = ROOT / BUILD / "xnord"
PATIENCE_S = 120  # for what happens at once; a sanitizer on a busy machine is slow
HAS_FAULTS = b"XN_FAULT\0" in XNORD.read_bytes() if XNORD.exists() else False

sys.path.insert(0, str(ROOT / "train"))

from xnortrain.xnorfile import Network  # noqa: E402

FAST_INPUT = bytes(16)
SLOW_SHAPE = (96, 96, 8)
SLOW_INPUT = bytes(96 * 96 * 8)


def network(name: str, version: int = 1, *, slow: bool = False, image: bool = False) -> bytes:
    """A .xnor file whose answer's label is its name and version. `slow`: tens of milliseconds an image on the CPU."""
    net = Network(SLOW_SHAPE if slow else (4, 4, 1))
    x = net.input
    if slow:
        weights = np.random.default_rng(1).choice([-1, 1], (24, 7, 7, x.c)).astype(np.int8)
        x = net.conv(x, weights, bits=False, pad=3, pad_mode="zero")
        x = net.scale(x, np.full(24, 1, np.int16), np.zeros(24, np.int64), 8)
    x = net.global_avgpool(x)
    net.logits(x, multiplier=np.zeros(x.c, np.int32))
    labels = [f"{name} {version}"] * x.c
    net.metadata = {"name": name, "version": str(version), "labels": labels}
    if image:
        net.metadata["input"] = {"image": {"color": "gray"}}
    return net.to_bytes()


def put_file(path: Path, data: bytes) -> None:
    """At once: a reader sees the old or the new."""
    fresh = path.with_suffix(".new")
    fresh.write_bytes(data)
    fresh.rename(path)


def wait_until(what: str, condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (result := condition()):
        assert time.monotonic() < deadline, f"{what} did not come within {PATIENCE_S} s"
        time.sleep(0.005)  # between two looks
    return result


class Daemon:
    """A running xnord, its log and its notifications."""

    def __init__(self, folder: Path, config: dict[str, Any], arguments: list[str], environment: dict[str, str]) -> None:
        self.folder = folder
        self.config_path, self.log_path, self.port_path = folder / "xnord.json", folder / "log", folder / "port"
        self.write_config(config)
        self.notes: list[str] = []
        self.changed = threading.Condition()
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        (folder / "notify").unlink(missing_ok=True)  # of one before it in the folder
        self.notify.bind(str(folder / "notify"))
        sanitizer = f"{os.environ.get('ASAN_OPTIONS', 'allocator_may_return_null=1')}:quarantine_size_mb=8"
        self.started = time.monotonic()
        with self.log_path.open("w") as log:
            self.process = subprocess.Popen([str(XNORD), "--config", str(self.config_path), "--port-file", str(self.port_path), *arguments], stderr=log,
                                            env={**os.environ, "NOTIFY_SOCKET": str(folder / "notify"), "ASAN_OPTIONS": sanitizer, **environment})
        self.reader = threading.Thread(target=self._read_notes, daemon=True)
        self.reader.start()

    def _read_notes(self) -> None:
        with contextlib.suppress(OSError):
            while message := self.notify.recv(4096):
                with self.changed:
                    self.notes += message.decode().splitlines()
                    self.changed.notify_all()

    def write_config(self, config: dict[str, Any]) -> None:
        base = {"listen": [{"address": "127.0.0.1", "port": 0}], "log": {"target": "stderr"}, "http": {"threads": 1}}
        put_file(self.config_path, json.dumps({**base, **config}).encode())

    def log(self) -> str:
        return self.log_path.read_text()

    def mark(self) -> int:
        """How many notifications there have been: for await_note."""
        with self.changed:
            return len(self.notes)

    def await_note(self, wanted: str, after: int = 0) -> int:
        """Wait for a notification that begins so, after the first `after`; returns how many there were with it."""
        deadline = time.monotonic() + PATIENCE_S
        with self.changed:
            while True:
                for at in range(after, len(self.notes)):
                    if self.notes[at].startswith(wanted):
                        return at + 1
                assert self.process.poll() is None, f"it has ended with {self.process.returncode}:\n{self.log()}"
                assert time.monotonic() < deadline, f"{wanted} did not come; there were {self.notes[after:]}\n{self.log()}"
                self.changed.wait(0.2)

    def await_ready(self) -> None:
        self.await_note("READY=1")
        self.port = int(self.port_path.read_text())

    def reload(self) -> None:
        """SIGHUP, until it is over."""
        mark = self.mark()
        self.process.send_signal(signal.SIGHUP)
        self.await_note("READY=1", self.await_note("RELOADING=1", mark))

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=PATIENCE_S) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read().decode()

    def infer(self, body: bytes, model: str | None = None, connection: http.client.HTTPConnection | None = None) -> tuple[int, dict[str, Any]]:
        own = connection or self.connect()
        own.request("POST", "/infer" + (f"?model={model}" if model else ""), body)
        answer = own.getresponse()
        text = answer.read()
        if connection is None:
            own.close()
        return answer.status, json.loads(text)

    def label(self, model: str | None = None) -> str:
        """Name and version of the network that answers FAST_INPUT."""
        status, answer = self.infer(FAST_INPUT, model)
        assert status == 200, answer
        return answer["results"][0]["label"]

    def metric(self, name: str, **labels: str) -> float:
        """Sum of the family's samples with these labels."""
        total = 0.0
        for line in self.get("/metrics")[1].splitlines():
            if found := re.fullmatch(rf"{name}(?:{{(.*)}})? (\S+)", line):
                have = dict(re.findall(r'(\w+)="([^"]*)"', found[1] or ""))
                total += float(found[2]) if labels.items() <= have.items() else 0.0
        return total

    def stop(self, wanted: int = 0) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.await_exit(wanted)

    def await_exit(self, wanted: int) -> None:
        assert self.process.wait(PATIENCE_S) == wanted, self.log()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.notify.close()


@contextlib.contextmanager
def daemon(folder: Path, config: dict[str, Any], *arguments: str, **environment: str) -> Iterator[Daemon]:
    """Ready on entry. It has to have ended on exit; where the test has not seen to it, by SIGTERM and with 0."""
    d = Daemon(folder, config, list(arguments), environment)
    try:
        d.await_ready()
        yield d
        if d.process.poll() is None:
            d.stop()
        assert "Sanitizer" not in d.log(), d.log()
    finally:
        d.close()


class Threads:
    """One for each of `runs`, until `ending` is set."""

    def __init__(self, runs: Iterable[Callable[[], None]]) -> None:
        self.ending = threading.Event()
        self.threads = [threading.Thread(target=run, daemon=True) for run in runs]
        for thread in self.threads:
            thread.start()

    def end(self) -> None:
        self.ending.set()
        for thread in self.threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()


class Load(Threads):
    """Threads that ask without a pause, each on a connection of its own; nothing may fail."""

    def __init__(self, d: Daemon, threads: int, body: bytes, model: str | None = None) -> None:
        self.daemon, self.body, self.model = d, body, model
        self.answers: list[tuple[int, dict[str, Any]]] = []
        self.errors: list[str] = []
        super().__init__([self._run] * threads)

    def _run(self) -> None:
        connection = self.daemon.connect()
        try:
            while not self.ending.is_set():
                self.answers.append(self.daemon.infer(self.body, self.model, connection))
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.errors.append(repr(error))
        connection.close()
