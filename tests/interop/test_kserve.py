# SPDX-License-Identifier: Apache-2.0
"""KServe's Python client from PyPI, unchanged, against a daemon."""

from __future__ import annotations

from pathlib import Path

from interop_support import HERE, VENV, needs, run, write_model
from http_support import daemon


@needs("kserve")
def test_kserve(tmp_path: Path) -> None:
    with daemon(tmp_path, [{"path": str(write_model(tmp_path))}]) as server:
        run([VENV / "bin/python", HERE / "check_kserve.py", f"127.0.0.1:{server.port}", tmp_path], PYTHONPATH=str(VENV / "kserve"))
