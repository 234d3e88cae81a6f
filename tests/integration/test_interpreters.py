# SPDX-License-Identifier: Apache-2.0
"""The two readings of docs/model-format.md, in C and in Python, give the same logits on random networks that reach every operation.

The networks and the C logits come from tests/tools/random_networks; $XN_SEED repeats a run.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("XN_BUILD", ROOT / "build/release"))
NETWORKS = 200

sys.path.insert(0, str(ROOT / "train"))

from xnortrain.interpret import run  # noqa: E402
from xnortrain.xnorfile import OPS, Network  # noqa: E402


def test_python_and_c_agree_on_random_networks(tmp_path: Path) -> None:
    seed = os.environ.get("XN_SEED") or str(int(time.time()))
    print(f"XN_SEED={seed}")
    tool = (ROOT / BUILD / "tests/tools/random_networks").resolve()
    subprocess.run([tool, seed, str(NETWORKS), tmp_path], check=True, timeout=120)
    seen: set[str] = set()
    for index in range(NETWORKS):
        network = Network.load(tmp_path / f"{index}.xnor")
        x = network.input
        image = np.fromfile(tmp_path / f"{index}.input", np.dtype(x.dtype)).reshape(1, x.h, x.w, x.c)
        want = np.fromfile(tmp_path / f"{index}.logits", "<i4")
        got = np.asarray(run(network, image)).ravel()
        assert np.array_equal(got, want), f"XN_SEED={seed}, network {index}: Python {got[:8]}, C {want[:8]}"
        seen |= {layer.op for layer in network.layers}
    assert seen == set(OPS), f"XN_SEED={seed}: no network had {set(OPS) - seen}"


def test_a_flipped_byte_is_refused_by_python_too(tmp_path: Path) -> None:
    data = bytearray((ROOT / "tests/fuzz/corpus/xnor/every-op.xnor").read_bytes())
    Network.from_bytes(bytes(data))
    for at in range(0, len(data), 7):
        data[at] ^= 0x10
        try:
            Network.from_bytes(bytes(data))
        except ValueError:
            pass
        else:
            raise AssertionError(f"byte {at} flipped, and still read")
        data[at] ^= 0x10
