# SPDX-License-Identifier: Apache-2.0
"""tritonclient from PyPI, unchanged, against a daemon. `make conformance` installs it; without it these tests are skipped."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from http_support import ROOT, daemon, expect, images, png, small_network

PYTHON = ROOT / ".venv-conformance/bin/python"


@pytest.mark.skipif(not PYTHON.exists(), reason="tritonclient is not installed: make conformance")
def test_tritonclient(tmp_path: Path) -> None:
    net = small_network(tmp_path / "net.xnor", "gray", (28, 28, 1), 10, image=True)
    batch = images(net, 5)
    x = net.input
    (tmp_path / "model.json").write_text(json.dumps({"name": "gray", "version": "3", "input": "pixels", "shape": [x.h, x.w, x.c],
                                                     "datatype": "UINT8", "classes": net.classes}))
    np.save(tmp_path / "input.npy", batch)
    np.save(tmp_path / "logits.npy", expect(net, batch))
    for i, one in enumerate(batch):
        (tmp_path / f"{i}.png").write_bytes(png(one))
    with daemon(tmp_path, [{"path": str(tmp_path / "net.xnor")}], repository={"control": "explicit"}) as server:
        done = subprocess.run([PYTHON, ROOT / "tests/conformance/check_tritonclient.py", f"127.0.0.1:{server.port}", tmp_path], capture_output=True,
                              text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
