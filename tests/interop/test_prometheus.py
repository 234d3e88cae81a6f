# SPDX-License-Identifier: Apache-2.0
"""A Prometheus server, Debian's, with the shipped scrape configuration and rules: it finds the daemon up, its series, and values by the recording rules."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from interop_support import ROOT, write_model
from http_support import PATIENCE_S, daemon

SHIPPED = ROOT / "packaging/prometheus"
SERIES = ("xnord_build_info", "xnord_inferences_total", "xnord_http_requests_total", "xnord_stage_duration_seconds_bucket", "xnord_instance_healthy",
          "process_resident_memory_bytes", "xnord:power_watts:sum", "xnord:batch_size:mean5m")


def free_port() -> int:
    """Prometheus takes no port 0; whoever takes this one meanwhile makes it fail to start, not pass."""
    with contextlib.closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Prometheus:
    def __init__(self, url: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.url, self.process, self.log = url, process, log

    def api(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}", timeout=PATIENCE_S) as answer:
            return json.load(answer)["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        return list(self.api("query?" + urllib.parse.urlencode({"query": expression}))["result"])

    def wait_for(self, what: str, found: Any) -> Any:
        """Until `found()` is something true, which it returns."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                if value := found():
                    return value
            time.sleep(0.05)  # nothing depends on its length
        raise AssertionError(f"no {what} within {PATIENCE_S} s\n{self.log.read_text()[-4000:]}")


@contextlib.contextmanager
def prometheus(folder: Path, target: int) -> Iterator[Prometheus]:
    """The shipped files, with the address, the interval and the rules' place of here."""
    config = (SHIPPED / "scrape.example.yml").read_text()
    for shipped, here in (("127.0.0.1:8000", f"127.0.0.1:{target}"), ("scrape_interval: 5s", "scrape_interval: 500ms\n    scrape_timeout: 500ms"),
                          ("/usr/share/xnord/prometheus/xnord.rules.yml", str(SHIPPED / "xnord.rules.yml"))):
        assert config.count(shipped) == 1, shipped
        config = config.replace(shipped, here)
    (folder / "prometheus.yml").write_text("global: {evaluation_interval: 200ms}\n" + config)
    port, log = free_port(), folder / "prometheus.log"
    with open(log, "w") as to:
        process = subprocess.Popen(["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/tsdb",
                                    f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"], stdout=to, stderr=to)
    try:
        yield Prometheus(f"http://127.0.0.1:{port}", process, log)
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


@pytest.mark.skipif(not shutil.which("prometheus"), reason="Debian's prometheus is not installed")
def test_prometheus_scrapes(tmp_path: Path) -> None:
    power = {"kind": "cpu", "instances": 1, "threads": 1, "idle_watts": 1, "busy_watts": 2}
    with daemon(tmp_path, [{"path": str(write_model(tmp_path))}], accelerators=[power]) as server, prometheus(tmp_path, server.port) as monitor:
        picture = (tmp_path / "0.png").read_bytes()

        def scraped(series: str) -> list[dict[str, Any]]:
            assert server.post("/infer", picture).status == 200  # rates want counters that grow
            return monitor.query(series)

        up = monitor.wait_for("sample of up", lambda: [r for r in monitor.query("up") if r["value"][1] == "1"])
        assert [r["metric"]["job"] for r in up] == ["xnord"]
        for series in SERIES:
            monitor.wait_for(series, lambda: scraped(series))
        monitor.wait_for("scrape without an error", lambda: [(t["health"], t["lastError"]) for t in monitor.api("targets")["activeTargets"]] == [("up", "")])
        rules = [rule for group in monitor.api("rules")["groups"] for rule in group["rules"]]
        assert len(rules) == (SHIPPED / "xnord.rules.yml").read_text().count("expr:")
        monitor.wait_for("evaluation of every rule", lambda: all(r["health"] == "ok" for g in monitor.api("rules")["groups"] for r in g["rules"]))
        assert all(alert["state"] != "firing" for alert in monitor.api("alerts")["alerts"])
