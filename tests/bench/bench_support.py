# SPDX-License-Identifier: Apache-2.0
"""What the programs of this folder share: a daemon of their own, virtual cards that keep a real card's time, and the load generator."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "models/fashion-mnist/fashion-mnist.xnor"
START_LIMIT_S = 30
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Server:
    """A daemon of our own on a port that the kernel chose."""

    def __init__(self, build: Path, folder: Path, *options: str, env: dict[str, str] | None = None) -> None:
        self.port_file = folder / "port"
        self.port_file.unlink(missing_ok=True)
        started = time.monotonic()
        self.process = subprocess.Popen([str(build / "xnord"), "--config", str(folder / "xnord.json"), "--listen", "127.0.0.1:0",
                                         "--port-file", str(self.port_file), *options], stderr=subprocess.PIPE, env={**os.environ, **(env or {})})
        while not self.port_file.exists():
            if self.process.poll() is not None or time.monotonic() - started > START_LIMIT_S:
                raise SystemExit(f"xnord did not start: {self.process.stderr.read().decode()}")
            time.sleep(0.001)
        self.ready_s = time.monotonic() - started
        self.url = f"http://127.0.0.1:{self.port_file.read_text().strip()}"

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS

    def resident_bytes(self) -> int:
        return int(re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self.process.pid}/status").read_text()).group(1)) * 1024

    def metric_sum(self, name: str) -> float:
        """Sum over all series of one metric."""
        text = urllib.request.urlopen(f"{self.url}/metrics").read().decode()
        return sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)", text, re.M))

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=60)
        return self.process.returncode


@contextlib.contextmanager
def server(build: Path, *options: str, env: dict[str, str] | None = None, **settings: object) -> Iterator[Server]:
    """One thread of the CPU with the shipped network, unless `settings` of the configuration say otherwise."""
    with tempfile.TemporaryDirectory() as folder:
        config = {"models": [{"path": str(MODEL), "max_delay_us": 0}], "accelerators": [{"kind": "cpu", "instances": 1, "threads": 1}],
                  "log": {"level": "warning"}, **settings}
        (Path(folder) / "xnord.json").write_text(json.dumps(config))
        running = Server(build, Path(folder), *options, env=env)
        try:
            yield running
        finally:
            if running.stop() != 0:
                note("warning: xnord did not end with 0")


def ctl_bench(build: Path, url: str, *options: str) -> dict:
    done = subprocess.run([str(build / "xnorctl"), "bench", "--url", url, "--json", *options], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"xnorctl bench {' '.join(options)} failed: {done.stderr}")
    return json.loads(done.stdout)


class Card:
    """Virtual cards that keep a real card's time and compute nothing, and the counters of the first."""

    def __init__(self, build: Path, folder: Path, units: int, clock_mhz: int, cards: int, power: str) -> None:
        self.folder, self.stats_file = folder, folder / "stats.json"
        self.process = subprocess.Popen([str(build / "xnor-vcard"), "serve", "--cards", str(cards), "--units", str(units), "--power", power, "--clock", str(clock_mhz), "--engine", "scalar",
                                         "--timing", "model", "--skip-compute", "--stats", str(self.stats_file), str(folder)])
        self.xclbin, self.units = folder / "xnor.xclbin", units
        self.env = {"XILINX_XRT": str(build / "vcard/xrt"), "XNOR_VCARD_DIR": str(folder), "XNOR_VCARD_CARDS": str(cards)}
        while not (self.xclbin.exists() and all((folder / f"card-{i}").is_socket() for i in range(cards)) and self.stats_file.exists()):
            if self.process.poll() is not None:
                raise SystemExit("xnor-vcard did not start")
            time.sleep(0.001)

    def counters(self) -> list[dict]:
        """Of each unit; written anew four times a second."""
        return json.loads(self.stats_file.read_text())["cards"][0]["units"]

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


@contextlib.contextmanager
def card(build: Path, units: int, clock_mhz: int, cards: int = 1, power: str = "10,25") -> Iterator[Card]:
    with tempfile.TemporaryDirectory() as folder:
        running = Card(build, Path(folder), units, clock_mhz, cards, power)
        try:
            yield running
        finally:
            running.stop()
