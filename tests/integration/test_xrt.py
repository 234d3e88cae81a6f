# SPDX-License-Identifier: Apache-2.0
"""xnord -> real XRT -> virtual cards: the integers of every answer, whatever the cards do.

The soak is short in `make test`; `XN_SOAK=20000 tests/run integration` (or pytest on this file) is the long one. Skipped where XRT 2.13 or the virtual card is
not there."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lifecycle_support
import numpy as np
import pytest
from http_support import PATIENCE_S, ROOT, SEED, XNORD, Answer, Daemon, Network, ask, bits, daemon, expect, images, slow_network, small_network
from xrt_support import BUILD, VCARD, cards, needs_cards

SOAK = int(os.environ.get("XN_SOAK", "1200"))
CLIENTS = 16
TIMEOUT_S = 60
SANITIZED = BUILD.name in ("asan", "tsan")
pytestmark = needs_cards


def wait_for(what: str, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.01)  # between two looks


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


def heavy_network(path: Path, name: str) -> Network:
    """Its weights are more than half of a mebibyte, and its tensors next to nothing."""
    rng = np.random.default_rng(SEED)
    net = Network((4, 4, 8), "uint8")
    x = net.conv(net.input, rng.integers(-99, 99, (64, 3, 3, 8)).astype(np.int8), bits=False, pad=1, pad_mode="zero")
    x = net.threshold(x, rng.integers(-5000, 5000, x.c))
    for outputs in (2048, 2048):
        x = net.threshold(net.dense(x, bits(rng, outputs, x.h * x.w * x.c), bits=True), rng.integers(-40, 40, outputs))
    net.logits(net.dense(x, bits(rng, 10, x.c), bits=True), multiplier=rng.integers(1, 9, 10), scale=0.0625, offset=0.5)
    net.save(path, {"name": name, "version": "1"})
    return net


@pytest.mark.parametrize("fault", ["", "--fault hang@9"])
def test_weights_are_on_a_card_once(tmp_path: Path, fault: str) -> None:
    """A mebibyte of memory has no room for two copies of the weights, but both units run at once; with faults, also after resets."""
    net = heavy_network(tmp_path / "a.xnor", "a")
    assert (tmp_path / "a.xnor").stat().st_size > 1 << 19
    right: list[bool] = []
    with cards(tmp_path, f"--cards 1 --units 2 --memory 1 --geometry P4,PI2,PR2,AM1024,RM1024,WB100 {fault}") as xclbin, \
            daemon(tmp_path, [{"path": str(tmp_path / "a.xnor"), "max_batch": 1}], accelerators=[{"kind": "xrt", "image": str(xclbin)}]) as server:
        batch = images(net, 24)
        want = expect(net, batch)

        def work(first: int) -> None:
            with contextlib.closing(server.client()) as client:
                for i in range(first, len(batch), 4):
                    answer = infer(client, net, batch[i])
                    assert answer.status in (200, 503), answer.body
                    right.append(answer.status == 200 and bool((accumulators(answer) == want[i]).all()))

        threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wait_for("both units", lambda: server.metric("xnord_instance_healthy") == 2)
        resets = server.metric("xnord_instance_resets_total")
        print(f"# {sum(right)} of {len(right)} right, {resets:.0f} resets")
        assert all(server.metric("xnord_batches_total", accelerator=f"xrt0.{unit}") > 0 for unit in range(2))
        assert len(right) == len(batch) and sum(right) >= len(batch) // 2 if fault else all(right)
        assert (resets > 0) == bool(fault)


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
    """Short runs on one unit are answered while a long one is on its way on the other of the same card, which lasts many times as long as all of them."""
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

        def units_run() -> bool:
            return any(unit["running"] for unit in json.loads((tmp_path / "stats.json").read_text())["cards"][0]["units"])

        wait_for("the news that units are idle", lambda: not units_run())
        long = threading.Thread(target=work, args=("long", 64 * image))
        long.start()
        wait_for("the long run", units_run)
        for _ in range(4):
            work("short", image)
        long.join()
    assert order == 4 * ["short"] + ["long"]


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


def refused(tmp_path: Path, accelerators: list[dict[str, Any]], errors: int = 1) -> str:
    """What xnord says when it does not start: its last error, of so many."""
    config = {"listen": [{"address": "127.0.0.1", "port": 0}], "models": [{"path": str(tmp_path / "a.xnor")}], "accelerators": accelerators, "log": {"target": "stderr"}}
    (tmp_path / "refused.json").write_text(json.dumps(config))
    done = subprocess.run([str(XNORD), "--config", str(tmp_path / "refused.json")], capture_output=True, text=True, timeout=PATIENCE_S)
    said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    assert done.returncode == 1 and len(said) == errors, done.stderr
    return said[-1]


def another_xclbin(tmp_path: Path, name: str, options: str) -> Path:
    """That of other cards, which are gone."""
    (tmp_path / name).mkdir()
    with cards(tmp_path / name, options) as xclbin:
        return Path(shutil.copy(xclbin, tmp_path / f"{name}.xclbin"))


def test_wrong_files_are_refused(tmp_path: Path) -> None:
    """Each with its name, what is wrong and what to do."""
    small_network(tmp_path / "a.xnor", "a", (12, 12, 1), 10)
    options = "--cards 1 --units 1 --geometry P4,PI2,PR2,AM1024,RM1024,WB100"
    other = another_xclbin(tmp_path, "other", options.replace("P4", "P8"))
    with cards(tmp_path, options) as xclbin:
        good = xclbin.read_bytes()
        kernel, platform, hurt = (good.replace(old, new) for old, new in ((b"xnor_engine", b"vadd_engine"), (b"xnor_vcard", b"xnor_kv260"), (b"M_AXI_FETCH", b"M_AXI_FRESH")))
        assert platform != good != hurt
        sections = bytearray(good)
        sections[496 + 24:496 + 32] = (1 << 40).to_bytes(8, "little")  # struct axlf: the first section's offset, beyond the end
        for name, data, parts in (("absent", None, ("No such file",)), ("empty", b"", ("not a whole one", "anew")), ("short", good[:-100], ("not a whole one",)),
                                  ("text", b"#!/bin/sh" * 100, ("not an xclbin",)), ("kernel", kernel, ("no kernel xnor_engine", "another design")), ("platform", platform, ("platform", "xnor_vcard", "of another card or damaged")),
                                  ("hurt", hurt, ("card 0", "of another card or damaged")), ("sections", bytes(sections), ("not a whole one",)), ("other", other.read_bytes(), ("card 0", "of another card or damaged"))):
            path = tmp_path / f"{name}-is-wrong.xclbin"
            if data is not None:
                path.write_bytes(data)
            said = refused(tmp_path, [{"kind": "xrt", "image": str(path)}])
            print(said)
            assert said.startswith('ERROR cannot start: accelerator "xrt"') and str(path) in said and all(part in said for part in parts), said
        with daemon(tmp_path, [{"path": str(tmp_path / "a.xnor")}], accelerators=[{"kind": "xrt", "image": str(xclbin)}]) as server:
            assert server.get("/readyz").status == 200  # none of them has harmed the card


SMALL = "--geometry P4,PI2,PR2,AM1024,RM1024,WB100"


def test_a_card_that_another_process_has(tmp_path: Path) -> None:
    """A unit belongs to one process; the next gets it when that is over. So does a card with another file."""
    small_network(tmp_path / "a.xnor", "a", (12, 12, 1), 10)
    other = another_xclbin(tmp_path, "other", f"--cards 1 --units 1 {SMALL}")
    models = [{"path": str(tmp_path / "a.xnor")}]
    (tmp_path / "holder").mkdir()
    with cards(tmp_path, f"--cards 1 --units 2 {SMALL}") as xclbin:
        mine = [{"kind": "xrt", "image": str(xclbin), "instances": 1}]
        with daemon(tmp_path / "holder", models, accelerators=mine) as holder:
            said = refused(tmp_path, mine)
            print(said)
            assert all(part in said for part in ("cannot open unit xnor_engine_1 of card 0", "another process has it")), said
            said = refused(tmp_path, [{"kind": "xrt", "image": str(other)}])
            print(said)
            assert all(part in said for part in (f"cannot load {other} into card 0", "another process uses it with another file")), said
            assert holder.get("/readyz").status == 200
            without = [{**mine[0], "when_missing": "serve"}, {"kind": "cpu", "threads": 1}]
            with daemon(tmp_path, models, accelerators=without, log={"target": "stderr", "level": "error"}) as server:
                log = server.log.read_text()
                assert "another process has it" in log and log.rstrip().endswith("; serving without it until the next restart"), log
                assert server.metric("xnord_accelerators_missing") == 1 and server.get("/v1/status").json()["models"][0]["instances"] == ["cpu0"]
            assert "no accelerator" in refused(tmp_path, without[:1], errors=2)
            broken = tmp_path / "broken.xclbin"
            broken.write_bytes(b"xclbin2")
            assert "not a whole one" in refused(tmp_path, [{**without[0], "image": str(broken)}, without[1]])
        for image in (xclbin, other):
            with daemon(tmp_path, models, accelerators=[{"kind": "xrt", "image": str(image)}]) as server:
                assert server.get("/readyz").status == 200


def test_cards_that_stay_hung(tmp_path: Path) -> None:
    """One card stands still, and then is gone for ever: the other serves all requests, and the watchdog is fed. When both are gone it starves."""
    net = small_network(tmp_path / "a.xnor", "a", (12, 12, 1), 10)
    body = images(net, 1)[0].tobytes()
    with cards(tmp_path, f"--cards 2 --units 1 --revive-ms 3600000 {SMALL}") as xclbin, \
            lifecycle_support.daemon(tmp_path, {"models": [{"path": str(tmp_path / "a.xnor"), "max_batch": 1, "timeout_ms": 20000}],
                                                "accelerators": [{"kind": "xrt", "image": str(xclbin)}]}, WATCHDOG_USEC="400000") as d:
        def of(family: str) -> list[float]:
            return [d.metric(f"xnord_instance_{family}", accelerator=f"xrt{card}.0") for card in range(2)]

        def fed() -> None:
            at = d.mark()
            for _ in range(3):
                at = d.await_note("WATCHDOG=1", at)

        processes = [card["process"] for card in json.loads((tmp_path / "stats.json").read_text())["cards"]]
        load = lifecycle_support.Load(d, 4, body)
        wait_for("work for both", lambda: min(d.metric("xnord_batches_total", accelerator=f"xrt{card}.0") for card in range(2)) > 0)
        os.kill(processes[1], signal.SIGSTOP)
        wait_for("the hang", lambda: of("healthy") == [1, 0])
        fed()
        os.kill(processes[1], signal.SIGKILL)  # until now a reset waits for it
        wait_for("resets that fail", lambda: of("reset_failures_total")[1] >= 2)
        fed()
        load.end()
        assert not load.errors and {status for status, _ in load.answers} == {200}, (load.errors, load.answers[-1])
        assert of("quarantines_total") == [0, 1] and of("resets_total") == [0, 0] and of("retries_total")[1] >= 1
        assert "instance xrt1.0 is out of service: its reset failed: xrt: cannot open card 1" in d.log(), d.log()
        assert d.get("/readyz")[0] == 200

        os.kill(processes[0], signal.SIGKILL)
        assert d.infer(body)[0] == 503
        assert of("healthy") == [0, 0] and d.get("/readyz")[0] == 503 and d.get("/healthz")[0] == 200
        at = d.await_note("STATUS=1 model on 0 of 2 instances", d.mark())
        d.await_note("STATUS=", d.await_note("STATUS=", at))
        assert "WATCHDOG=1" not in d.notes[at:]


def fresh_stats(path: Path) -> dict[str, Any]:
    """What the cards have counted by now: the next file that they write."""
    before = json.loads(path.read_text())["uptime_s"]
    wait_for("fresh counters", lambda: json.loads(path.read_text())["uptime_s"] > before)
    return json.loads(path.read_text())


def check_counts(server: Daemon, instance: str, card: dict[str, Any]) -> None:
    """The daemon's counters of a card in service against the card's own. A reset of a card that died does not reach it; every other one does. A fault strikes a
    batch, which is a quarantine, or the run that a reset looks with whether the unit works, which then is a failed reset."""
    quarantines, resets, failed = (server.metric(f"xnord_instance_{family}_total", accelerator=instance) for family in ("quarantines", "resets", "reset_failures"))
    faults = card["units"][0]["faults"]
    assert resets == quarantines, (instance, resets, quarantines)
    assert quarantines <= card["resets"] + card["deaths"] <= quarantines + failed, (instance, quarantines, failed, card)
    assert sum(faults[kind] for kind in ("hang", "crash", "lost")) <= quarantines + failed, (instance, quarantines, failed, card)
    assert card["deaths"] == faults["crash"]


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
            if 504 not in soak.statuses and not beside:  # such a one is neither tried again nor refused for its accelerator
                assert failed == server.metric("xnord_instance_retries_total") + server.metric("xnord_requests_rejected_total", reason="accelerator")
            for at, card in enumerate(fresh_stats(tmp_path / "stats.json")["cards"]):
                check_counts(server, f"xrt{at}.0", card)
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
