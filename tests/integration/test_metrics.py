# SPDX-License-Identifier: Apache-2.0
"""/metrics of a running daemon: what it counts, what Prometheus' own tool says of it, and that docs/metrics.md lists exactly what is there."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from observe_support import ROOT, daemon, find, total

REQUESTS = 20


def test_counts(tmp_path: Path) -> None:
    with daemon(tmp_path) as xnord:
        before = xnord.metrics()
        for _ in range(REQUESTS):
            xnord.infer()
        assert xnord.get("/nowhere").status == 404
        assert xnord.post("/infer", b"no picture").status in (400, 415)
        # An answer may be read before its thread has counted it.
        after = xnord.wait_for("the last request's count", lambda s: total(s, "xnord_http_requests_total", route="infer") >= REQUESTS + 1)

        def grown(family: str, **labels: str) -> float:
            return total(after, family, **labels) - total(before, family, **labels)

        assert grown("xnord_inferences_total") == REQUESTS
        assert grown("xnord_inference_failures_total") == 0
        assert grown("xnord_http_requests_total", route="infer", code="200") == REQUESTS
        assert grown("xnord_http_requests_total", code="404") == 1
        assert grown("xnord_http_request_duration_seconds_count", route="infer") == REQUESTS + 1
        assert grown("xnord_requests_rejected_total", reason="not_found") == 1
        assert grown("xnord_batch_size_sum") == REQUESTS
        assert grown("xnord_batch_size_count") == grown("xnord_batches_total") == grown("xnord_batch_duration_seconds_count") > 0
        for stage in ("decode", "queue", "execute"):
            assert grown("xnord_stage_duration_seconds_count", stage=stage) == REQUESTS, stage
        assert grown("xnord_instance_busy_seconds_total") > 0
        assert find(after, "xnord_instance_healthy") == [1] and find(after, "xnord_instance_info") == [1]
        assert find(after, "xnord_queue_depth") == [0]
        assert find(after, "xnord_build_info") == [1] and find(after, "xnord_model_info") == [1]
        assert total(after, "process_resident_memory_bytes") > 0


def test_promtool_has_nothing_to_say(tmp_path: Path) -> None:
    if not shutil.which("promtool"):
        pytest.skip("promtool is not installed")
    with daemon(tmp_path, accelerators=[{"kind": "cpu", "instances": 2, "threads": 1, "idle_watts": 1, "busy_watts": 2}]) as xnord:
        xnord.infer()
        xnord.get("/nowhere")
        text = xnord.metrics_text()
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_document_lists_what_is_there(tmp_path: Path) -> None:
    document = (ROOT / "docs/metrics.md").read_text()
    documented = set(re.findall(r"`((?:xnord|process)_[a-z_]+)", document.split("## Questions")[0]))
    with daemon(tmp_path) as xnord:
        text = xnord.metrics_text()
    families = set(re.findall(r"^# TYPE (\S+) ", text, re.M))
    assert documented == families
    assert families == set(re.findall(r"^# HELP (\S+) \S", text, re.M))
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M))
    for name, kind in re.findall(r"^\| `(xnord_\w+)` \| (\w+) \|", document, re.M):
        assert types[name] == kind, name
