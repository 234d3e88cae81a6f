# SPDX-License-Identifier: Apache-2.0
"""What tests/interop/install has put where, and a daemon to drive."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/integration"))

from http_support import expect, images, png, small_network  # noqa: E402

VENV = ROOT / ".venv-conformance"
HERE = Path(__file__).resolve().parent


def needs(group: str) -> pytest.MarkDecorator:
    """Skips, and says why, where `group` of tests/interop/install is not installed."""
    why = VENV / f"why-not-{group}"
    reason = why.read_text().strip() if why.exists() else "make conformance installs it"
    return pytest.mark.skipif(not (VENV / f"has-{group}").exists(), reason=f"no {group} from PyPI: {reason}")


def write_model(folder: Path, n: int = 5) -> Path:
    """A network, and beside it what a client's check reads: model.json, input.npy [n][h][w][c], logits.npy [n][classes] (the integers), 0.png ... Returns the
    network's file."""
    net = small_network(folder / "net.xnor", "gray", (28, 28, 1), 10, image=True)
    batch = images(net, n)
    x = net.input
    (folder / "model.json").write_text(json.dumps({"name": "gray", "version": "3", "input": "pixels", "shape": [x.h, x.w, x.c], "datatype": "UINT8",
                                                   "classes": net.classes, "labels": net.metadata["labels"]}))
    np.save(folder / "input.npy", batch)
    np.save(folder / "logits.npy", expect(net, batch))
    for i, one in enumerate(batch):
        (folder / f"{i}.png").write_bytes(png(one))
    return folder / "net.xnor"


def run(command: list[Any], timeout_s: int = 120, folder: Path = ROOT, **more: Any) -> str:
    """The standard output of the command, which works in `folder`; it must succeed. `more`: variables of its environment."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=timeout_s, stdin=subprocess.DEVNULL, cwd=folder,
                          env={**os.environ, **more})
    assert done.returncode == 0, (done.stdout + done.stderr)[-8000:]
    return done.stdout
