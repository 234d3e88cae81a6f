# SPDX-License-Identifier: Apache-2.0
"""`verify`: every implementation of the arithmetic over the same images, compared bit for bit."""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from . import data as datasets
from . import interpret, oracle
from .xnorfile import Network


def run_c(xnorctl: Path, model: Path, images: np.ndarray, backend: str, classes: int) -> np.ndarray:
    """Logits by `xnorctl run` (backend "reference" or "cpu[:level]"), int32 [n][classes]."""
    with tempfile.TemporaryDirectory() as folder:
        raw, out = Path(folder) / "input", Path(folder) / "logits"
        raw.write_bytes(np.ascontiguousarray(images).tobytes())
        done = subprocess.run([str(xnorctl), "run", str(model), "--input", str(raw), "--output", str(out), "--backend", backend],
                              capture_output=True, text=True)
        if done.returncode != 0:
            raise ValueError(f"xnorctl run --backend {backend}: {done.stderr.strip()}")
        return np.fromfile(out, "<i4").reshape(len(images), classes)


def first_difference(a: np.ndarray, b: np.ndarray) -> str:
    different = np.argwhere(a != b)
    if not len(different):
        return "identical"
    image, label = different[0]
    return f"DIFFERS: {len(np.unique(different[:, 0]))} images; first image {image}, class {label}: {a[image, label]} and {b[image, label]}"


def verify(arguments: argparse.Namespace) -> int:
    net = Network.load(arguments.file)
    test = datasets.fashion_mnist().test
    n = len(test) if arguments.images == "all" else min(int(arguments.images), len(test))
    images, labels = test.images[:n], test.labels[:n]
    witnesses: list[tuple[str, Callable[[], np.ndarray]]] = [
        ("PyTorch oracle", lambda: oracle.run(net, images)),
        ("Python interpreter", lambda: interpret.run(net, images)),
    ]
    if arguments.xnorctl.exists():
        witnesses += [(f"C {backend}", lambda backend=backend: run_c(arguments.xnorctl, arguments.file, images, backend, net.classes))
                      for backend in ("reference", *arguments.backend)]
    else:
        print(f"{arguments.xnorctl} is not built: the C implementations are left out")
    status, first = 0, None
    for name, function in witnesses:
        started = time.monotonic()
        logits = function()
        first = logits if first is None else first
        verdict = first_difference(first, logits)
        status |= verdict != "identical"
        hits = int((logits.argmax(axis=1) == labels).sum())
        print(f"{name:20} {n} images  {hits / n:8.4%}  {verdict}  ({time.monotonic() - started:.1f} s)", flush=True)
    told = net.metadata.get("provenance", {}).get("oracle", {})
    if first is not None and n == told.get("images"):
        same = hashlib.sha256(first.astype("<i4").tobytes()).hexdigest() == told.get("logits_sha256")
        status |= not same
        print(f"{'training graph':20} {'identical' if same else 'DIFFERS'} (SHA-256 of its logits, noted at export)")
    return status


def add_command(commands) -> None:  # type: ignore[no-untyped-def]
    v = commands.add_parser("verify", help="compare PyTorch oracle, Python interpreter, C reference and CPU backend", description=__doc__)
    v.add_argument("file", type=Path)
    v.add_argument("--images", default="1000", help="how many of the Fashion-MNIST test set, or all")
    v.add_argument("--xnorctl", type=Path, default=Path("build/release/xnorctl"))
    v.add_argument("--backend", action="append", default=None, help="of xnorctl run, besides reference; repeatable (cpu)")
    v.set_defaults(function=lambda a: verify(argparse.Namespace(**{**vars(a), "backend": a.backend or ["cpu"]})))
