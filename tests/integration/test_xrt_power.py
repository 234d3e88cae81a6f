# SPDX-License-Identifier: Apache-2.0
"""Energy from the cards' sensors to a model's joules: xnord over the real XRT on virtual cards of different power, against the account that each card keeps of
itself by the same model. Nothing here is a measurement of a card, and xnord says so: `simulated`. Skipped where XRT 2.13 or the virtual card is not there."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from observe_support import PATIENCE_S, ROOT, XNORD, Daemon, Samples, daemon, find, total

BUILD = XNORD.parent
VCARD, XNORCTL = BUILD / "xnor-vcard", BUILD / "xnorctl"
TOLERANCE = 0.05  # of the energy drawn: the ends of a span are a reading of the sensor (250 ms) apart at most
SPAN_J = 150.0  # of load, by the first card's account
IDLE_W, BUSY_W = (10.0, 20.0), (30.0, 70.0)
MODELS = [ROOT / "models/fashion-mnist/fashion-mnist.xnor", ROOT / "models/fashion-squeeze/fashion-squeeze.xnor"]
pytestmark = pytest.mark.skipif(not (VCARD.exists() and (BUILD / "xnor-xrt.so").exists()), reason="no virtual card: it needs libxrt-dev 2.13 and uuid-dev")


class Cards:
    """Virtual cards that keep a real card's time and compute nothing."""

    def __init__(self, process: subprocess.Popen[bytes], work: Path, stats: Path) -> None:
        self.process, self.work, self.stats = process, work, stats

    def read(self) -> dict[str, Any]:
        return json.loads(self.stats.read_text())

    def fresh(self) -> dict[str, Any]:
        """The account as it is now: just written."""
        before, deadline = self.read()["uptime_s"], time.monotonic() + PATIENCE_S
        while (now := self.read())["uptime_s"] == before:
            assert time.monotonic() < deadline
            time.sleep(0.002)  # nothing depends on its length
        return now

    def sensor(self, card: int) -> Path:
        return self.work / f"sys/bus/pci/devices/ffff:0{card + 1}:00.1/hwmon/hwmon0/power1_input"


@contextlib.contextmanager
def cards(folder: Path, options: str) -> Iterator[Cards]:
    work, stats = folder / "cards", folder / "stats.json"
    work.mkdir()
    options += " --timing model --skip-compute --engine scalar --power " + "/".join(f"{idle},{busy}" for idle, busy in zip(IDLE_W, BUSY_W))
    process = subprocess.Popen([str(VCARD), "serve", *options.split(), "--stats", str(stats), str(work)])
    n = int(options.split()[options.split().index("--cards") + 1])
    mine = {"XILINX_XRT": str(BUILD / "vcard/xrt"), "XNOR_VCARD_DIR": str(work), "XNOR_VCARD_CARDS": str(n)}
    before = {name: os.environ.get(name) for name in mine}
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not stats.exists():  # written once all cards are up
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)  # nothing depends on its length
        os.environ.update(mine)
        yield Cards(process, work, stats)
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.wait(PATIENCE_S)


def settings(vcards: Cards) -> dict[str, Any]:
    nothing = str(vcards.work / "nothing")
    return {"models": [{"path": str(path)} for path in MODELS], "accelerators": [{"kind": "xrt", "image": str(vcards.work / "xnor.xclbin")}],
            "power": {"sample_ms": 10, "hwmon_root": nothing, "powercap_root": nothing, "pci_root": str(vcards.work / "sys/bus/pci/devices")}}


def load(xnord: Daemon, vcards: Cards, until_j: float) -> None:
    """Both models, several requests at a time, until the first card has drawn so much more."""
    end_j, stop = vcards.read()["cards"][0]["energy_j"] + until_j, threading.Event()
    clients = [subprocess.Popen([str(XNORCTL), "bench", "--url", f"http://127.0.0.1:{xnord.port}", "--model", path.stem, "--images", "16", "--concurrency", "8", "--seconds", "600"],
                                stdout=subprocess.DEVNULL) for path in MODELS]
    try:
        deadline = time.monotonic() + 4 * PATIENCE_S
        while vcards.read()["cards"][0]["energy_j"] < end_j:
            assert time.monotonic() < deadline and all(client.poll() is None for client in clients)
            stop.wait(0.05)
    finally:
        for client in clients:
            client.terminate()
            client.wait(PATIENCE_S)


def gained(before: Samples, after: Samples, family: str, **labels: str) -> float:
    return total(after, family, **labels) - total(before, family, **labels)


def span(xnord: Daemon, vcards: Cards) -> tuple[list[float], Samples, Samples, float]:
    """Load between two idle moments: joules of each card's account, xnord's samples before and after, seconds."""
    xnord.wait_for("a first figure", lambda s: len(find(s, "xnord_power_watts", source="simulated")) == len(vcards.read()["cards"]))
    account, before = vcards.fresh(), xnord.metrics()
    load(xnord, vcards, SPAN_J)
    for _ in range(3):  # the last busy quarter of a second is shown in the one after it
        vcards.fresh()
    last, after = vcards.fresh(), xnord.metrics()
    joules = [b["energy_j"] - a["energy_j"] for a, b in zip(account["cards"], last["cards"])]
    return joules, before, after, last["uptime_s"] - account["uptime_s"]


def test_joules_are_the_cards(tmp_path: Path) -> None:
    with cards(tmp_path, "--cards 2 --units 1") as vcards, daemon(tmp_path, **settings(vcards)) as xnord:
        drawn, before, after, seconds = span(xnord, vcards)
        per_image = []
        for card, name in ((0, "xrt0.0"), (1, "xrt1.0")):
            domain = f"ffff:0{card + 1}:00.1"
            joules = gained(before, after, "xnord_energy_joules_total", domain=domain, source="simulated")
            busy_s = gained(before, after, "xnord_instance_busy_seconds_total", accelerator=name)
            attributed = gained(before, after, "xnord_inference_energy_joules_total", accelerator=name, source="simulated")
            images = gained(before, after, "xnord_instance_inferences_total", accelerator=name)
            active = gained(before, after, "xnord_inference_active_energy_joules_total", accelerator=name, source="simulated")
            idle = gained(before, after, "xnord_idle_energy_joules_total", domain=domain)
            per_image.append(attributed / images)
            print(f"# {name}: {active:.2f} J over idle, {active / images * 1e3:.3f} mJ an image; {idle:.2f} J to nobody")
            print(f"# {name}: card {drawn[card]:.2f} J, xnord {joules:.2f} J, attributed {attributed:.2f} J in {busy_s:.2f} of {seconds:.2f} s, {per_image[-1] * 1e3:.3f} mJ an image")
            assert joules == pytest.approx(drawn[card], rel=TOLERANCE)
            # What the models are told is what was drawn but for the idle time, and of each model and in all the same.
            assert attributed == pytest.approx(joules - IDLE_W[card] * (seconds - busy_s), rel=2 * TOLERANCE)
            assert attributed + idle == pytest.approx(joules, rel=1e-3)  # all of it, once: the two ends are one reading of /metrics each, and a sample may lie in it
            assert active == pytest.approx(joules - IDLE_W[card] * seconds, rel=TOLERANCE)
            assert find(after, "xnord_idle_power_watts", domain=domain) == pytest.approx([IDLE_W[card]], rel=TOLERANCE)
            assert attributed == pytest.approx(sum(gained(before, after, "xnord_inference_energy_joules_total", accelerator=name, model=path.stem) for path in MODELS))
        assert per_image[1] > 1.5 * per_image[0]  # the second card takes more for the same work
        status = json.loads(subprocess.run([str(XNORCTL), "--json", "status", "--url", f"http://127.0.0.1:{xnord.port}"], capture_output=True, check=True).stdout)
        told = {entry.get("accelerator") or entry["model"]: entry for entry in status["energy"]}
        assert set(told) == {"xrt0.0", "xrt1.0", *(path.stem for path in MODELS)} and all(entry["source"] == "simulated" for entry in told.values())
        assert told["xrt1.0"]["joules_per_inference"] > 1.5 * told["xrt0.0"]["joules_per_inference"]


def test_short_batches_far_between(tmp_path: Path) -> None:
    """Far less work than the sensor's quarter of a second, all the time: an inference takes what the card does for it, not the mean of a time in which it is mostly idle."""
    with cards(tmp_path, "--cards 1 --units 1") as vcards, daemon(tmp_path, **settings(vcards)) as xnord:
        xnord.wait_for("idle power", lambda s: find(s, "xnord_idle_power_watts") == [IDLE_W[0]])
        account, before = vcards.fresh(), xnord.metrics()
        subprocess.run([str(XNORCTL), "bench", "--url", f"http://127.0.0.1:{xnord.port}", "--model", MODELS[0].stem, "--rate", "500", "--seconds", "4", "--warmup", "0"], check=True, stdout=subprocess.DEVNULL)
        (result,) = xnord.infer()["results"]
        for _ in range(4):
            last = vcards.fresh()
        after = xnord.metrics()
        whole = last["cards"][0]["energy_j"] - account["cards"][0]["energy_j"]
        drawn = whole - IDLE_W[0] * (last["uptime_s"] - account["uptime_s"])
        active, images = gained(before, after, "xnord_inference_active_energy_joules_total"), gained(before, after, "xnord_inferences_total")
        busy_s = gained(before, after, "xnord_instance_busy_seconds_total")
        print(f"# over idle: card {drawn:.4f} J, xnord {active:.4f} J, {active / images * 1e3:.3f} mJ an image, the last answer {result['active_energy_j'] * 1e3:.3f}; busy for {busy_s / images * 1e6:.0f} us an image")
        assert active == pytest.approx(drawn, rel=TOLERANCE, abs=0.01 * whole)  # a difference of two large figures
        assert 0 < result["active_energy_j"] < result["energy_j"]


def test_units_share_their_card(tmp_path: Path) -> None:
    with cards(tmp_path, "--cards 1 --units 2") as vcards, daemon(tmp_path, **settings(vcards)) as xnord:
        drawn, before, after, seconds = span(xnord, vcards)
        attributed = [gained(before, after, "xnord_inference_energy_joules_total", accelerator=name) for name in ("xrt0.0", "xrt0.1")]
        busy_s = [gained(before, after, "xnord_instance_busy_seconds_total", accelerator=name) for name in ("xrt0.0", "xrt0.1")]
        print(f"# card {drawn[0]:.2f} J in {seconds:.2f} s; units {attributed[0]:.2f} and {attributed[1]:.2f} J, busy {busy_s[0]:.2f} and {busy_s[1]:.2f} s")
        assert gained(before, after, "xnord_energy_joules_total") == pytest.approx(drawn[0], rel=TOLERANCE)
        assert sum(attributed) <= drawn[0] * (1 + TOLERANCE)  # no joule twice
        assert sum(attributed) >= drawn[0] - IDLE_W[0] * (seconds - min(busy_s)) - 2 * TOLERANCE * drawn[0]
        assert attributed[0] / sum(attributed) == pytest.approx(busy_s[0] / sum(busy_s), abs=2 * TOLERANCE)


def test_a_lost_sensor_is_no_data(tmp_path: Path) -> None:
    with cards(tmp_path, "--cards 1 --units 1") as vcards, daemon(tmp_path, **settings(vcards)) as xnord:
        xnord.wait_for("a first figure", lambda s: find(s, "xnord_power_watts") == [IDLE_W[0]] and total(s, "xnord_energy_joules_total") > 0)
        (result,) = xnord.infer()["results"]
        assert result["energy_source"] == "simulated" and result["energy_j"] > 0
        xnord.wait_for("its joules", lambda s: total(s, "xnord_inference_energy_joules_total") > 0)
        vcards.process.send_signal(signal.SIGSTOP)  # who keeps the sensor; the card goes on
        vcards.sensor(0).unlink()
        gone = xnord.wait_for("the loss", lambda s: find(s, "xnord_power_sensor_up") == [0])
        (result,) = xnord.infer()["results"]
        assert "energy_j" not in result and "energy_source" not in result
        later = xnord.metrics()
        assert find(later, "xnord_power_watts") == [] and total(later, "xnord_instance_inferences_total") == 2
        for family in ("xnord_energy_joules_total", "xnord_inference_energy_joules_total"):
            assert total(later, family) == total(gone, family) > 0
        vcards.process.send_signal(signal.SIGCONT)
        xnord.wait_for("the sensor's return", lambda s: find(s, "xnord_power_sensor_up") == [1] and total(s, "xnord_energy_joules_total") > total(gone, "xnord_energy_joules_total"))
