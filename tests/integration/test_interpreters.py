# SPDX-License-Identifier: Apache-2.0
"""All readings of docs/model-format.md give the same logits on random networks that reach every operation: the C reference, the CPU backend at every level
that this processor runs, the Python interpreter and the PyTorch oracle.

The networks and the C logits come from tests/tools/random_networks; $XN_SEED repeats a run.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("XN_BUILD", ROOT / "build/release"))
NETWORKS = 1000  # so many that the rarest pair of types (1 in 90) is missed once in 50,000 runs

sys.path.insert(0, str(ROOT / "train"))

from xnortrain import interpret, oracle  # noqa: E402
from xnortrain.xnorfile import OPS, Network  # noqa: E402


def seen_choices(network: Network) -> set[tuple[str, str]]:
    """What the network exercises, for a check that 200 of them leave nothing out."""
    seen = set()
    for layer in network.layers:
        seen.add(("op", layer.op))
        kind = network.values[layer.inputs[0]].dtype
        if layer.op in ("conv", "dense"):
            seen.add((layer.op, f"{kind} x {layer.tensors[0].dtype}"))
        if layer.op in ("conv", "maxpool", "avgpool"):
            seen |= {(layer.op, f"pad {layer.pad_mode}"), (layer.op, f"stride {layer.stride[0]}")}
        if layer.op == "conv":
            seen.add(("conv", "depthwise" if layer.groups == network.values[layer.inputs[0]].c > 1 else "groups" if layer.groups > 1 else "plain"))
        if layer.op in ("scale", "threshold"):
            seen.add((layer.op, f"{kind} to {layer.out.dtype}"))
    return seen


WANTED = {("op", op) for op in OPS} | {(op, f"{x} x {w}") for op in ("conv", "dense") for x in ("bits", "uint8", "int8") for w in ("bits", "int8")} | {
    ("conv", "pad none"), ("conv", "pad minus_one"), ("conv", "pad zero"), ("maxpool", "pad none"), ("maxpool", "pad zero"), ("avgpool", "pad none"),
    ("avgpool", "pad zero"), ("conv", "stride 1"), ("conv", "stride 2"), ("conv", "plain"), ("conv", "groups"), ("conv", "depthwise"),
    ("scale", "int32 to int16"), ("scale", "int32 to int8"), ("scale", "int32 to uint8"), ("threshold", "int32 to bits"), ("threshold", "int16 to bits")}


def test_all_implementations_agree_on_random_networks(tmp_path: Path) -> None:
    seed = os.environ.get("XN_SEED") or str(int(time.time()))
    print(f"XN_SEED={seed}")
    tool = (ROOT / BUILD / "tests/tools/random_networks").resolve()
    told = subprocess.run([tool, seed, str(NETWORKS), tmp_path], check=True, timeout=300, capture_output=True, text=True).stdout.splitlines()
    for line in told:
        if line.startswith("skip "):
            warnings.warn(f"{line}: this processor does not have the instructions")
    names = [line for line in told if not line.startswith("skip ")]
    assert {"reference", "cpu-portable"} <= set(names)
    seen: set[tuple[str, str]] = set()
    for index in range(NETWORKS):
        network = Network.load(tmp_path / f"{index}.xnor")
        x = network.input
        image = np.fromfile(tmp_path / f"{index}.input", np.dtype(x.dtype)).reshape(1, x.h, x.w, x.c)
        logits = {name: np.fromfile(tmp_path / f"{index}.{name}.logits", "<i4") for name in names}
        logits["Python interpreter"] = interpret.run(network, image)[0]
        logits["PyTorch oracle"] = oracle.run(network, image)[0]
        for name, got in logits.items():
            want = logits["reference"]
            assert np.array_equal(got, want), f"XN_SEED={seed}, network {index}: {name} {got[:8]}, reference {want[:8]}"
        seen |= seen_choices(network)
    assert not WANTED - seen, f"XN_SEED={seed}: no network had {sorted(WANTED - seen)}"


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
