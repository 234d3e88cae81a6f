# SPDX-License-Identifier: Apache-2.0
"""xnord -> real XRT -> virtual cards: the integers of every answer, whatever the cards do.

The soak is short in `make test`; `XN_SOAK=20000 tests/run integration` (or pytest on this file) is the long one. Skipped where XRT 2.13 or the virtual card is
not there."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from http_support import PATIENCE_S, ROOT, XNORD, Answer, Daemon, Network, ask, daemon, expect, images, small_network

BUILD = XNORD.parent
VCARD, DRIVER = BUILD / "xnor-vcard", BUILD / "vcard/xrt"
SOAK = int(os.environ.get("XN_SOAK", "600"))
CLIENTS = 16
pytestmark = pytest.mark.skipif(not (VCARD.exists() and (BUILD / "xnor-xrt.so").exists()), reason="no virtual card: it needs libxrt-dev 2.13 and uuid-dev")


@contextlib.contextmanager
def cards(folder: Path, options: str) -> Iterator[Path]:
    """Virtual cards that XRT finds from here on; the xclbin."""
    work, stats = folder / "cards", folder / "stats.json"
    work.mkdir()
    process = subprocess.Popen([str(VCARD), "serve", *options.split(), "--stats", str(stats), str(work)])
    mine = {"XILINX_XRT": str(DRIVER), "XNOR_VCARD_DIR": str(work), "XNOR_VCARD_CARDS": str(options.split()[options.split().index("--cards") + 1])}
    before = {name: os.environ.get(name) for name in mine}
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not list(work.glob("*.xclbin")) or len(list(work.glob("card-*"))) < int(mine["XNOR_VCARD_CARDS"]):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)  # nothing depends on its length
        os.environ.update(mine)
        yield next(work.glob("*.xclbin"))
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE_S)


def logits(answer: Answer) -> np.ndarray:
    """The integers of a /v2 answer about small_network: its scale and offset undone."""
    at = int(answer.headers["inference-header-content-length"])
    for output in json.loads(answer.body[:at])["outputs"]:
        end = at + output["parameters"]["binary_data_size"]
        if output["name"] == "logits":
            break
        at = end
    values = np.frombuffer(answer.body[at:end], "<f4")
    return np.round((values - 0.5) / 0.0625).astype(np.int64)


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
                        done[i] = logits(answer)

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


def test_units_do_not_wait_for_one_another(tmp_path: Path) -> None:
    """Short runs on one unit are answered while a long one is on its way on the other of the same card, which lasts four times as long as all of them."""
    image, order = bytes(28 * 28), []
    model = {"path": str(ROOT / "models/fashion-depthwise/fashion-depthwise.xnor"), "max_batch": 64}
    with cards(tmp_path, "--cards 1 --units 2 --geometry 2T --engine scalar --timing model --skip-compute --clock 1") as xclbin, \
            daemon(tmp_path, [model], accelerators=[{"kind": "xrt", "image": str(xclbin)}]) as server:

        def work(name: str, body: bytes) -> None:
            assert server.post("/infer", body, "application/octet-stream").status == 200
            order.append(name)

        while min(instance["batches"] for instance in server.get("/v1/status").json()["instances"]) == 0:  # so that it is known what they take
            pair = [threading.Thread(target=work, args=("before", 4 * image)) for _ in range(2)]
            for thread in pair:
                thread.start()
            for thread in pair:
                thread.join()
        order.clear()
        long = threading.Thread(target=work, args=("long", 64 * image))
        long.start()
        deadline = time.monotonic() + PATIENCE_S
        while not any(unit["running"] for unit in json.loads((tmp_path / "stats.json").read_text())["cards"][0]["units"]):
            assert long.is_alive() and time.monotonic() < deadline
            time.sleep(0.005)  # nothing depends on its length
        for _ in range(8):
            work("short", image)
        long.join()
    assert order == 8 * ["short"] + ["long"]


def test_units_are_kept_busy() -> None:
    """By the card's own counters, on cards that are slow enough for any host: busy at saturation, and four units do nearly four times what one does. Also what
    `make bench` prints of XRT."""
    command = [sys.executable, str(ROOT / "tests/bench/run"), "--build", str(BUILD), "--only-xrt", "--repeats", "1", "--seconds", "2", "--xrt-units", "1,4",
               "--xrt-clock", "10", "--xrt-network", str(ROOT / "models/fashion-mnist/fashion-mnist.xnor")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=4 * PATIENCE_S)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)["xrt"]
    print(f"# {seen['scaling']['units']}")
    assert [len(units["busy"]) for units in seen["scaling"]["units"].values()] == [1, 4]
    for units in seen["scaling"]["units"].values():
        assert all(0.95 <= busy <= 1 for busy in units["busy"]) and units["of_model"] <= 1.01, units
    assert seen["scaling"]["units"]["4"]["times_first"] >= 3.8, seen
    for run in seen["path"]["runs"]:
        assert 0 < run["copies_us"] < run["path_us"] < run["engine_us"], run


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

    def __init__(self, server: Daemon, net: Network) -> None:
        self.server, self.net, self.batch = server, net, images(net, 64)
        self.want = expect(net, self.batch)
        self.statuses: dict[int, int] = {}
        self.wrong: list[str] = []
        self.left, self.lock = iter(range(SOAK)), threading.Lock()

    def check(self, i: int, answer: Answer) -> None:
        with self.lock:
            self.statuses[answer.status] = self.statuses.get(answer.status, 0) + 1
            if answer.status == 200 and not (logits(answer) == self.want[i % len(self.batch)]).all():
                self.wrong.append(f"request {i}: other integers")
            if answer.status != 200 and not answer.error:
                self.wrong.append(f"request {i}: {answer.status} without a reason")

    def work(self) -> None:
        with contextlib.closing(self.server.client()) as client:
            while True:
                with self.lock:
                    i = next(self.left, None)
                if i is None:
                    return
                self.check(i, infer(client, self.net, self.batch[i % len(self.batch)]))

    def run(self) -> None:
        threads = [threading.Thread(target=self.work) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not self.wrong, self.wrong[:5]
        assert sum(self.statuses.values()) == SOAK


@pytest.mark.parametrize("beside", ["", "cpu"])
def test_soak_under_faults(tmp_path: Path, beside: str) -> None:
    """Hangs, crashes, lost interrupts and slow runs on two cards, alone and beside the CPU (which is faster than a simulated card, and so does most): every
    request gets its integers, or an error that says why; nothing leaks; cards come back."""
    net = small_network(tmp_path / "a.xnor", "a", (12, 12, 1), 10)
    faults = "hang@500,crash@2000,lost@700,slow@300" if SOAK >= 10000 else "hang@70,crash@110,lost@130,slow@25"
    accelerators: list[dict[str, Any]] = [{"kind": "xrt"}] + ([{"kind": "cpu", "threads": 1}] if beside else [])
    with cards(tmp_path, f"--cards 2 --units 1 --geometry P4,PI2,PR2,AM1024,RM1024,WB100 --fault {faults} --slow-ms 20 --revive-ms 200") as xclbin:
        accelerators[0]["image"] = str(xclbin)
        with daemon(tmp_path, [{"path": str(tmp_path / "a.xnor"), "max_batch": 2}], accelerators=accelerators, log={"target": "stderr", "level": "error"}) as server:
            soak = Soak(server, net)
            soak.run()
            deadline = time.monotonic() + PATIENCE_S
            while server.metric("xnord_instance_healthy") < 2 + len(beside) // 3 and time.monotonic() < deadline:
                time.sleep(0.1)
            failed, resets = server.metric("xnord_inference_failures_total", model="a"), server.metric("xnord_instance_resets_total", kind="xrt")
            stats = json.loads((tmp_path / "stats.json").read_text())["cards"]
            print(f"# {soak.statuses}, {failed:.0f} images failed at first, {resets:.0f} resets, {server.descriptors()} descriptors, {server.resident_bytes() >> 20} MiB; "
                  f"cards: {[(card['deaths'], card['resets'], card['units'][0]['runs'], card['units'][0]['faults']) for card in stats]}")
            assert server.metric("xnord_instance_healthy") == 2 + len(beside) // 3, "a card did not come back"
            assert soak.statuses.get(200, 0) >= (0.99 if beside else 0.9) * SOAK, soak.statuses
            assert beside or (failed > 0 and resets > 0)
            assert server.descriptors() < 200 and server.resident_bytes() < 400 << 20
