# SPDX-License-Identifier: Apache-2.0
"""tritonclient from PyPI, unchanged, against a daemon."""

from __future__ import annotations

from pathlib import Path

from interop_support import HERE, VENV, needs, run, write_model
from http_support import daemon


@needs("clients")
def test_tritonclient(tmp_path: Path) -> None:
    with daemon(tmp_path, [{"path": str(write_model(tmp_path))}], repository={"control": "explicit"}) as server:
        run([VENV / "bin/python", HERE / "check_tritonclient.py", f"127.0.0.1:{server.port}", tmp_path])
