# SPDX-License-Identifier: Apache-2.0
"""schemathesis sends what docs/openapi.json allows and what it forbids, and finds nothing: no 500, no status, header, content type or body that is not described,
nothing forbidden that is taken."""

from __future__ import annotations

from pathlib import Path

import pytest
from interop_support import HERE, ROOT, VENV, needs, run, small_network
from http_support import SEED, daemon

EXAMPLES = 15  # of each operation, besides the systematic ones


def attack(port: int, folder: Path, *more: str) -> str:
    output = run([VENV / "bin/schemathesis", "--config-file", HERE / "schemathesis.toml", "run", ROOT / "docs/openapi.json", "--url", f"http://127.0.0.1:{port}",
                  "--phases", "examples,coverage,fuzzing", "--max-examples", EXAMPLES, "--seed", SEED, "--no-color", "--warnings", "off",
                  "--report-junit-path", folder / "junit.xml", *more], timeout_s=600, folder=folder, HYPOTHESIS_STORAGE_DIRECTORY=str(folder))
    assert "Failures:" not in output and "Errors:" not in output, output
    return output


@needs("clients")
@pytest.mark.parametrize("control", ["none", "explicit"])
def test_schemathesis(tmp_path: Path, control: str) -> None:
    """Where the server may be changed, what changes it is sent as well; the model is unloaded and loaded meanwhile."""
    small_network(tmp_path / "net.xnor", "gray", (28, 28, 1), 10, image=True)
    only = [] if control == "none" else ["--include-path-regex", "repository|setting|logging|sharedmemory"]
    with daemon(tmp_path, [{"path": str(tmp_path / "net.xnor")}], repository={"control": control}) as server:
        output = attack(server.port, tmp_path, *only)
        assert "passed" in output
        assert server.metric("xnord_requests_rejected_total", reason="internal") == 0
        assert server.get("/healthz").status == 200
