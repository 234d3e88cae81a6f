# SPDX-License-Identifier: Apache-2.0
"""perf_analyzer, Triton's load generator, by HTTP: sweeps over concurrency and over request rate run to their end, and the daemon counted what it reports. How stable the machine is is not asked: any
measurement counts as stable. What it says of GPUs is not there (--collect-metrics warns of that and goes on)."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest
from interop_support import VENV, needs, run, write_model
from http_support import Daemon, daemon

FOLDER = VENV / "perf-analyzer"
RUNTIME = FOLDER / "nvidia/cuda_runtime/lib"  # linked with, not used
STEADY = ["--measurement-interval", "300", "--stability-percentage", "999"]
SWEEPS = {
    "concurrency": (["--concurrency-range", "1:4:1", "--collect-metrics"], "Concurrency", ["1", "2", "3", "4"]),
    "concurrency-async": (["--async", "--concurrency-range", "8:16:8", "-b", "4"], "Concurrency", ["8", "16"]),
    "concurrency-json": (["--concurrency-range", "2:2", "--input-tensor-format", "json", "--output-tensor-format", "json"], "Concurrency", ["2"]),
    "request-rate": (["--request-rate-range", "50:150:50", "-b", "2"], "Request Rate", ["50", "100", "150"]),
    "request-rate-poisson": (["--request-rate-range", "100:100", "--request-distribution", "poisson"], "Request Rate", ["100"]),
    "shared-memory": (["--concurrency-range", "1:2:1", "-b", "3", "--shared-memory", "system", "--output-shared-memory-size", "4096"], "Concurrency", ["1", "2"]),
}


def success(server: Daemon) -> tuple[int, int]:
    """Requests of the model so far: answered, failed."""
    stats = server.get("/v2/models/gray/stats").json()["model_stats"][0]["inference_stats"]
    return stats["success"]["count"], stats["fail"]["count"]


@needs("perf-analyzer")
@pytest.mark.parametrize("sweep", SWEEPS)
def test_sweep(tmp_path: Path, sweep: str) -> None:
    options, column, steps = SWEEPS[sweep]
    with daemon(tmp_path, [{"path": str(write_model(tmp_path))}]) as server:
        url = f"127.0.0.1:{server.port}"
        metrics = ["--metrics-url", f"{url}/metrics"] if "--collect-metrics" in options else []
        output = run([FOLDER / "bin/perf_analyzer", "-m", "gray", "-x", "3", "-i", "http", "-u", url, *options, *metrics, *STEADY, "-f", tmp_path / "sweep.csv"],
                     LD_LIBRARY_PATH=os.pathsep.join([str(RUNTIME), os.environ.get("LD_LIBRARY_PATH", "")]))
        with open(tmp_path / "sweep.csv") as file:
            rows = list(csv.DictReader(file))
        assert sorted(row[column] for row in rows) == sorted(steps), output
        for row in rows:
            assert float(row["Inferences/Second"]) > 0 and int(row["p50 latency"]) > 0 and int(row["Server Compute Infer"]) > 0, row
        assert "error" not in output.lower() and "fail" not in output.lower(), output
        answered, failed = success(server)
        assert answered >= sum(map(int, (line.split()[-1] for line in output.splitlines() if "Successful request count" in line))) > 0
        assert failed == 0
