# SPDX-License-Identifier: Apache-2.0
"""xnord -> real XRT -> virtual cards: the integers of every answer, whatever the cards do.

The soak is short in `make test`; `XN_SOAK=20000 tests/run integration` (or pytest on this file) is the long one. Skipped where XRT 2.13 or the virtual card is
not there."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from http_support import PATIENCE_S, XNORD, Answer, Daemon, Network, ask, daemon, expect, images, slow_network, small_network
from xrt_support import BUILD, VCARD, cards, needs_cards

SOAK = int(os.environ.get("XN_SOAK", "1200"))
CLIENTS = 16
TIMEOUT_S = 60
SANITIZED = BUILD.name in ("asan", "tsan")
pytestmark = needs_cards


def accumulators(answer: Answer) -> np.ndarray:
    """The network's own integers in a binary /v2 answer."""
    at = int(answer.headers["inference-header-content-length"])
    for output in json.loads(answer.body[:at])["outputs"]:
        end = at + output["parameters"]["binary_data_size"]
        if output["name"] == "accumulators":
            break
        at = end
    return np.frombuffer(answer.body[at:end], "<i4")


def infer(client: Any, net: Network, image: np.ndarray) -> Answer:
    return ask(client, "POST", f"/v2/models/{net.metadata['name']}/infer", image.tobytes(), {"Inference-Header-Content-Length": "0"})


def test_every_answer_is_exact(tmp_path: Path) -> None:
    nets = [small_network(tmp_path / "a.xnor", "a", (12, 12, 1), 10), small_network(tmp_path / "b.xnor", "b", (9, 7, 2), 5, dtype="int8")]
    with cards(tmp_path, "--cards 2 --units 2 --geometry P4,PI2,PR2,AM1024,RM1024,WB100") as xclbin, \
            daemon(tmp_path, [{"path": str(tmp_path / "a.xnor")}, {"path": str(tmp_path / "b.xnor")}], accelerators=[{"kind": "xrt", "image": str(xclbin)}]) as server:
        for net in nets:
            batch = images(net, 24)
            want = expect(net, batch)
            done: dict[int, np.ndarray] = {}

            def work(first: int, net: Network = net, batch: np.ndarray = batch, done: dict[int, np.ndarray] = done) -> None:
                with contextlib.closing(server.client()) as client:
                    for i in range(first, len(batch), 8):
                        answer = infer(client, net, batch[i])
                        assert answer.status == 200, answer.body
                        done[i] = accumulators(answer)

            threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(done) == len(batch)
            for i, z in enumerate(want):
                assert (done[i] == z).all()
        names = [line.split('"')[1] for line in server.get("/metrics").body.decode().splitlines() if line.startswith("xnord_instance_healthy{")]
        assert names == ["xrt0.0", "xrt0.1", "xrt1.0", "xrt1.1"]


@pytest.mark.parametrize("options", ["--cards 1 --units 1", "--cards 1 --units 2", "--cards 2 --units 2"])
def test_the_contract_is_kept(options: str) -> None:
    """tests/conformance over the backend, as over any other."""
    for program, networks in (("test_contract", ""), ("test_exact", "12"), ("test_hot_path", "")):
        done = subprocess.run([str(VCARD), "run", *options.split(), "--geometry", "2T", "--engine", "scalar", "--", str(BUILD / "tests/conformance" / program)],
                              env={**os.environ, **({"XN_NETWORKS": networks} if networks else {})}, capture_output=True, text=True, timeout=4 * PATIENCE_S)
        text = done.stdout + done.stderr
        assert done.returncode == 0 and "# skipped xrt" not in text, text[-4000:]
        assert program == "test_hot_path" or "[xrt]" in text


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    small_network(tmp_path / "a.xnor", "a", (12, 12, 1), 10)
    (tmp_path / "bad.xclbin").write_bytes(b"xclbin2\0" + bytes(1000))
    for image, part in ((tmp_path / "no.xclbin", "no.xclbin"), (tmp_path / "bad.xclbin", "not a whole one")):
        config = {"listen": [{"address": "127.0.0.1", "port": 0}], "models": [{"path": str(tmp_path / "a.xnor")}], "accelerators": [{"kind": "xrt", "device": "0", "image": str(image)}]}
        (tmp_path / "bad.json").write_text(json.dumps(config))
        done = subprocess.run([str(XNORD), "--config", str(tmp_path / "bad.json")], capture_output=True, text=True, timeout=PATIENCE_S)
        assert done.returncode != 0 and part in done.stderr, done.stderr


class Soak:
    """Clients that ask one thing after another, and what they were told."""

    def __init__(self, server: Daemon, net: Network, n_images: int, clients: int) -> None:
        self.server, self.net, self.batch, self.clients = server, net, images(net, n_images), clients
        self.want = expect(net, self.batch)
        self.statuses: dict[int, int] = {}
        self.wrong: list[str] = []
        self.slowest_s = 0.0
        self.lock = threading.Lock()

    def check(self, i: int, answer: Answer, seconds: float) -> None:
        with self.lock:
            self.statuses[answer.status] = self.statuses.get(answer.status, 0) + 1
            self.slowest_s = max(self.slowest_s, seconds)
            if answer.status == 200 and not (accumulators(answer) == self.want[i % len(self.batch)]).all():
                self.wrong.append(f"request {i}: other integers")
            if answer.status != 200 and not answer.error:
                self.wrong.append(f"request {i}: {answer.status} without a reason")

    def work(self, numbers: Iterator[int]) -> None:
        with contextlib.closing(self.server.client()) as client:
            while True:
                with self.lock:
                    i = next(numbers, None)
                if i is None:
                    return
                started = time.monotonic()
                answer = infer(client, self.net, self.batch[i % len(self.batch)])
                self.check(i, answer, time.monotonic() - started)

    @contextlib.contextmanager
    def running(self, numbers: Iterator[int]) -> Iterator[None]:
        """Ends when `numbers` are used up."""
        threads = [threading.Thread(target=self.work, args=(numbers,)) for _ in range(self.clients)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            for thread in threads:
                thread.join()
        assert not self.wrong, self.wrong[:5]
        assert self.slowest_s < TIMEOUT_S, f"an answer took {self.slowest_s} s"

    def run(self, numbers: range) -> None:
        before = sum(self.statuses.values())
        with self.running(iter(numbers)):
            pass
        assert sum(self.statuses.values()) == before + len(numbers)


@contextlib.contextmanager
def occupied(server: Daemon, net: Network) -> Iterator[Soak]:
    """Meanwhile the CPU has a network to run that no card can hold."""
    over, soak = threading.Event(), Soak(server, net, 2, clients=2)
    with soak.running(itertools.takewhile(lambda _: not over.is_set(), itertools.count())):
        try:
            yield soak
        finally:
            over.set()


def counted_by_cards(stats: Path) -> Counter[str]:
    """What the cards did by their own account, once they have ended."""
    told = json.loads(stats.read_text())["cards"]
    units = [unit for card in told for unit in card["units"]]
    cards_did = Counter(deaths=sum(card["deaths"] for card in told), resets=sum(card["resets"] for card in told), runs=sum(unit["runs"] for unit in units))
    return sum((Counter(unit["faults"]) for unit in units), cards_did)


def shares(server: Daemon, instances: list[str]) -> dict[str, float]:
    """Of model a's batches, each instance's."""
    counts = {name: server.metric("xnord_batch_duration_seconds_count", model="a", accelerator=name) for name in instances}
    return {name: count / sum(counts.values()) for name, count in counts.items()}


@pytest.mark.parametrize("beside", ["", "cpu"])
def test_soak_under_faults(tmp_path: Path, beside: str) -> None:
    """Hangs, crashes, lost interrupts and slow runs on two cards, alone and beside a CPU that also runs a network too large for them, so that they share the rest:
    every request gets its integers, or an error that says why, before its deadline; nothing leaks; a fault is a quarantine and a reset; cards come back."""
    a, b = small_network(tmp_path / "a.xnor", "a", (12, 12, 1), 10), slow_network(tmp_path / "b.xnor", "b", 2)
    models = [{"path": str(tmp_path / f"{name}.xnor"), "max_batch": 2, "timeout_ms": 1000 * TIMEOUT_S} for name in ("a", "b")[: 1 + bool(beside)]]
    # 1999 and 211 are primes: no run is two faults.
    faults = "hang@500,crash@1999,lost@700,slow@300" if SOAK >= 10000 else "hang@97,crash@211,lost@131,slow@20"
    accelerators: list[dict[str, Any]] = [{"kind": "xrt"}, {"kind": "cpu", "threads": 1}][: 1 + bool(beside)]
    with cards(tmp_path, f"--cards 2 --units 1 --geometry P4,PI2,PR2,AM1024,RM1024,WB100 --fault {faults} --slow-ms 20 --revive-ms 200") as xclbin:
        accelerators[0]["image"] = str(xclbin)
        with daemon(tmp_path, models, accelerators=accelerators, log={"target": "stderr", "level": "error"}) as server:
            soak, files = Soak(server, a, 64, CLIENTS), server.descriptors()
            with occupied(server, b) if beside else contextlib.nullcontext():
                soak.run(range(SOAK // 4))
                early = server.resident_bytes()
                soak.run(range(SOAK // 4, SOAK))
            deadline = time.monotonic() + PATIENCE_S
            while server.metric("xnord_instance_healthy") < len(models) + 1 and time.monotonic() < deadline:
                time.sleep(0.1)
            failed, resets = server.metric("xnord_inference_failures_total", model="a"), server.metric("xnord_instance_resets_total", kind="xrt")
            share, files_after, grown = shares(server, ["xrt0.0", "xrt1.0", "cpu0"][: len(models) + 1]), server.descriptors(), server.resident_bytes() - early
            assert server.metric("xnord_instance_healthy") == len(models) + 1, "a card did not come back"
    did = counted_by_cards(tmp_path / "stats.json")
    print(f"# {soak.statuses}, slowest {soak.slowest_s:.2f} s; batches by { {name: f'{part:.0%}' for name, part in share.items()} }; {failed:.0f} images failed at first, "
          f"{resets:.0f} resets; descriptors {files} -> {files_after}, memory {early >> 10} KiB and {grown >> 10} more; the cards: {dict(did)}")
    assert soak.statuses.get(200, 0) >= (0.99 if beside else 0.9) * SOAK, soak.statuses
    assert min(share.values()) >= (0.2 if SOAK >= 10000 and beside else 0.02), "they did not share"
    assert files_after <= files + 2 and grown < (256 if SANITIZED else 8) << 20
    # A fault may hit a run of the reset itself, which is then tried again; and a busy machine may be too slow for a run without any fault.
    faulty = did["hang"] + did["crash"] + did["lost"]
    assert 0 < faulty - 1 - faulty // 10 <= resets <= did["resets"] + did["deaths"] and failed >= resets
