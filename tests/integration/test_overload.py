# SPDX-License-Identifier: Apache-2.0
"""Three times as much asked as a card can do: what is admitted is answered in time, the rest is refused, and the card is used as if nothing were. Over the real XRT on a
virtual card, whose clock is so slow that neither server nor client is what bounds it. Skipped where XRT 2.13 is not there."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

from http_support import PATIENCE_S, ROOT, Daemon, daemon
from xrt_support import BUILD, cards, needs_cards

MODEL = ROOT / "models/fashion-mnist/fashion-mnist.xnor"
CLOCK_MHZ = 4  # some 400 images a second
MAX_BATCH = 32
TIMEOUT_MS = 500  # some six full batches, and the end of a bucket of the metric
SECONDS = 8
SANITIZED = BUILD.name in ("asan", "tsan")
pytestmark = needs_cards


def bench(xnord: Daemon, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen([str(BUILD / "xnorctl"), "bench", "--json", "--url", f"http://127.0.0.1:{xnord.port}", *options], stdout=subprocess.PIPE, text=True)


def told_by(client: subprocess.Popen[str]) -> dict[str, Any]:
    out, _ = client.communicate(timeout=4 * PATIENCE_S)
    assert client.returncode == 0
    return json.loads(out)


def unit(folder: Path) -> dict[str, Any]:
    """The unit's counters, just written."""
    stats, deadline = folder / "stats.json", time.monotonic() + PATIENCE_S
    before = json.loads(stats.read_text())["uptime_s"]
    while (now := json.loads(stats.read_text()))["uptime_s"] == before:
        assert time.monotonic() < deadline
        time.sleep(0.005)  # nothing depends on its length
    return now["cards"][0]["units"][0]


def capacity(xnord: Daemon, folder: Path) -> float:
    """Images a second in full batches, by the card's cycle model."""
    before = unit(folder)
    told_by(bench(xnord, "--images", str(MAX_BATCH), "--concurrency", "4", "--count", "12"))
    after = unit(folder)
    return (after["images"] - before["images"]) / (after["model_s"] - before["model_s"])


def inferences(xnord: Daemon) -> float:
    return xnord.metric("xnord_inferences_total", model="fashion-mnist")


def answers_in_time(xnord: Daemon) -> float:
    """Of all kinds, from the first header on by the server's clock: that the client of a busy machine is late is not the server's doing."""
    return xnord.metric("xnord_http_request_duration_seconds_bucket", route="infer", le=f"{TIMEOUT_MS / 1000:g}")


def test_three_times_the_capacity(tmp_path: Path) -> None:
    options = f"--cards 1 --clock {CLOCK_MHZ} --engine scalar --timing model --skip-compute"
    model = {"path": str(MODEL), "max_batch": MAX_BATCH}
    with cards(tmp_path, options) as xclbin, daemon(tmp_path, [model], accelerators=[{"kind": "xrt", "image": str(xclbin)}]) as xnord:
        able = capacity(xnord, tmp_path)
        counted, soon = inferences(xnord), answers_in_time(xnord)
        client = bench(xnord, "--rate", str(3 * able), "--timeout-ms", str(TIMEOUT_MS), "--connections", "512", "--seconds", str(SECONDS), "--warmup", "0")
        while inferences(xnord) - counted < able * SECONDS / 2 and client.poll() is None:
            time.sleep(0.05)  # between two looks
        resident = xnord.resident_bytes()  # the pools and all connections have their pages
        told = told_by(client)
        answered, refused, asked = told["ok"], told["refused"], told["requests"]
        in_time = answers_in_time(xnord) - soon - sum(told["errors"].values())
        print(f"# capacity {able:.0f} images/s, goodput {in_time / told['seconds']:.0f}; of {asked} {refused} refused, {in_time / (asked - refused):.4f} of the others in time; "
              f"{told['errors']}; refused after {told['refusal_sent_us']['p50']:.0f} us; as the client saw it {told['goodput_per_s']:.0f} images/s, {told['latency_sent_us']}")
        # Each request has one answer, and each that was run was answered: nothing is lost or done twice.
        assert set(told["errors"]) <= {"429", "503"} and answered + sum(told["errors"].values()) == asked
        assert answered <= inferences(xnord) - counted <= asked - refused
        assert refused > asked / 2
        assert in_time >= 0.9 * able * told["seconds"]
        assert in_time >= 0.99 * (asked - refused)
        assert told["reconnects"] == 0 and told["refusal_sent_us"]["p50"] < told["latency_sent_us"]["p50"] / 10
        if SANITIZED:
            print("SKIP resident memory: a sanitizer keeps freed memory")
        else:
            assert xnord.resident_bytes() <= resident + (2 << 20)
