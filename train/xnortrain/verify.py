# SPDX-License-Identifier: Apache-2.0
"""`verify`: every implementation of the arithmetic over the same images, compared bit for bit.

The witnesses: the PyTorch oracle, the Python interpreter, the C reference, and the CPU backend at every instruction set level that this processor runs. Where the
file's provenance notes the SHA-256 of the training graph's own logits over the same images, that is a fifth."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from . import interpret, labelled, oracle
from .xnorfile import Network

# What accel/cpu/level.c asks of the processor, as /proc/cpuinfo names it.
X86_LEVELS = {"portable": set(), "popcnt": {"popcnt", "sse4_2"}, "avx2": {"avx2", "bmi1", "bmi2"},
              "avx512bw": {"avx512f", "avx512bw", "avx512dq", "avx512vl"},
              "avx512": {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vpopcntdq", "avx512_vnni"}}


def cpu_levels() -> tuple[list[str], list[str]]:
    """Levels of the CPU backend that this processor runs, and those that it does not."""
    if platform.machine() != "x86_64":
        return ["portable", "neon"] if platform.machine() == "aarch64" else ["portable"], []
    line = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")), "flags :")
    flags = set(line.partition(":")[2].split())
    runs: list[str] = []
    for level, needs in X86_LEVELS.items():
        if needs <= flags:
            runs.append(level)
        else:
            break
    return runs, [level for level in X86_LEVELS if level not in runs]


def run_c(xnorctl: Path, model: Path, images: np.ndarray, backend: str, classes: int) -> np.ndarray:
    """Logits by `xnorctl run` (backend "reference" or "cpu[:level]"), int32 [n][classes]."""
    with tempfile.TemporaryDirectory() as folder:
        raw, out = Path(folder) / "input", Path(folder) / "logits"
        raw.write_bytes(np.ascontiguousarray(images).tobytes())
        done = subprocess.run([str(xnorctl), "run", str(model), "--input", str(raw), "--output", str(out), "--backend", backend],
                              capture_output=True, text=True)
        if done.returncode != 0:
            raise ValueError(f"xnorctl run --backend {backend}: {done.stderr.strip()}")
        logits = np.fromfile(out, "<i4")
    if logits.size != len(images) * classes:
        raise ValueError(f"xnorctl run --backend {backend}: {logits.size} logits for {len(images)} images of {classes} classes")
    return logits.reshape(len(images), classes)


@dataclasses.dataclass
class Verdict:
    """What one witness said, beside the first one."""

    witness: str
    logits: np.ndarray
    difference: str  # "" where identical
    seconds: float


def first_difference(a: np.ndarray, b: np.ndarray) -> str:
    """"" where a and b [n][classes] are identical."""
    different = np.argwhere(a != b)
    if not len(different):
        return ""
    image, label = different[0]
    return f"{len(np.unique(different[:, 0]))} images differ; first image {image}, class {label}: {a[image, label]} and {b[image, label]}"


def witnesses(net: Network, path: Path, xnorctl: Path | None, backends: list[str]) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Name -> function from images to logits. xnorctl None: those in Python alone."""
    functions: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "PyTorch oracle": lambda images: oracle.run(net, images), "Python interpreter": lambda images: interpret.run(net, images)}
    for backend in backends if xnorctl else []:
        functions[f"C {backend}"] = lambda images, backend=backend: run_c(xnorctl, path, images, backend, net.classes)
    return functions


def compare(functions: dict[str, Callable[[np.ndarray], np.ndarray]], images: np.ndarray) -> Iterator[Verdict]:
    """A verdict a witness, as they finish; the first is what the others are compared with."""
    first: np.ndarray | None = None
    for name, function in functions.items():
        started = time.monotonic()
        logits = function(images)
        first = logits if first is None else first
        yield Verdict(name, logits, first_difference(first, logits), time.monotonic() - started)


def training_graph(net: Network, logits: np.ndarray) -> bool | None:
    """Whether the training graph gave these logits of its test set, by the SHA-256 noted at export; None where nothing is noted for as many images."""
    told = net.metadata.get("provenance", {}).get("oracle", {})
    if told.get("images") != len(logits) or "logits_sha256" not in told:
        return None
    return hashlib.sha256(logits.astype("<i4").tobytes()).hexdigest() == told["logits_sha256"]


def verify(arguments: argparse.Namespace) -> int:
    net = Network.load(arguments.file)
    count = None if arguments.images == "all" else int(arguments.images)
    found = labelled.find(net, arguments.data, count, arguments.seed, arguments.folder)
    xnorctl = None if arguments.python_only else arguments.xnorctl
    if xnorctl and not xnorctl.exists():
        raise FileNotFoundError(f"{xnorctl} is not there: build it with `make all`, name it with --xnorctl, or leave C out with --python-only")
    levels, missing = cpu_levels()
    backends = arguments.backend or ["reference", *(f"cpu:{level}" for level in levels)]
    print(f"{arguments.file}: {len(found.images)} {found.name}")
    if missing and xnorctl and not arguments.backend:
        print(f"{'skipped':20} cpu:{', cpu:'.join(missing)}: this processor does not have the instructions")
    status, first = 0, None
    for verdict in compare(witnesses(net, arguments.file, xnorctl, backends), found.images):
        first = verdict.logits if first is None else first
        status |= verdict.difference != ""
        hits = "" if found.labels is None else f"{float((verdict.logits.argmax(axis=1) == found.labels).mean()):9.2%} right"
        print(f"{verdict.witness:20} {'DIFFERS: ' + verdict.difference if verdict.difference else 'identical':10}{hits}  ({verdict.seconds:.1f} s)", flush=True)
    same = training_graph(net, first) if first is not None and found.dataset == labelled.named_dataset(net) else None
    if same is not None:
        status |= not same
        print(f"{'training graph':20} {'identical' if same else 'DIFFERS'} (SHA-256 of its logits, noted at export)")
    return status


def add_command(commands) -> None:  # type: ignore[no-untyped-def]
    v = commands.add_parser("verify", help="compare PyTorch oracle, Python interpreter, C reference and CPU backend", description=__doc__)
    v.add_argument("file", type=Path)
    v.add_argument("--images", default="1000", help="how many at most, or all (1000)")
    labelled.add_option(v)
    v.add_argument("--seed", type=int, default=1, help="of random inputs (1)")
    v.add_argument("--xnorctl", type=Path, default=Path("build/release/xnorctl"), help="(build/release/xnorctl)")
    v.add_argument("--python-only", action="store_true", help="leave the implementations in C out")
    v.add_argument("--backend", action="append", default=None, help="of xnorctl run; repeatable (reference, and cpu at every level of this processor)")
    v.set_defaults(function=verify)
