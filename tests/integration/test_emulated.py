# SPDX-License-Identifier: Apache-2.0
"""The kernel tests on processors that this machine is not, under qemu-user: an instruction that leaked into a lower level ends the program
there, and NEON's kernels run at all."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(os.environ.get("XN_ROOT", Path(__file__).resolve().parents[2]))
BUILD = Path(os.environ.get("XN_BUILD", ROOT / "build/release"))
LIMIT_S = 600

# qemu's name of a processor -> levels that must run on it, and those that it must be found to lack.
PROCESSORS = {
    "qemu64,-sse4.2,-popcnt": ({"portable"}, {"popcnt", "avx2", "avx512bw", "avx512"}),
    "Nehalem": ({"portable", "popcnt"}, {"avx2", "avx512bw", "avx512"}),
    "Haswell": ({"portable", "popcnt", "avx2"}, {"avx512bw", "avx512"}),
}


def run(command: list[str]) -> str:
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, timeout=LIMIT_S,
                          env={**os.environ, "CMOCKA_MESSAGE_OUTPUT": "TAP"})
    output = done.stdout.decode(errors="replace")
    assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}:\n{output[-3000:]}"
    return output


def ran(output: str) -> tuple[set[str], set[str]]:
    """Levels whose convolutions were tested, and those that were skipped."""
    skipped = set(re.findall(r"^# skipped (\w+):", output, re.M))
    tested = set(re.findall(r"^ok \d+ - convolutions \[(\w+)\]$", output, re.M)) - skipped
    return tested, skipped


@pytest.mark.skipif(not shutil.which("qemu-x86_64"), reason="qemu-x86_64 is not installed (Debian: qemu-user)")
@pytest.mark.skipif("asan" in BUILD.name or "tsan" in BUILD.name, reason="sanitizers do not run under qemu")
@pytest.mark.parametrize("program", ["checkasm/test_cpu_kernels", "conformance/test_exact"])
@pytest.mark.parametrize("processor", PROCESSORS)
def test_lower_x86_processors(program: str, processor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = BUILD / "tests" / program
    if not path.exists() or os.uname().machine != "x86_64":
        pytest.skip(f"{path} is not there, or not for this architecture")
    monkeypatch.setenv("XN_NETWORKS", "5")
    output = run(["qemu-x86_64", "-cpu", processor, str(path)])
    if "checkasm" in program:
        assert ran(output) == PROCESSORS[processor]


CROSS = ROOT / "build/aarch64"
QEMU = ["qemu-aarch64", "-cpu", "cortex-a53", "-L", str(ROOT / "build/sysroot-arm64")]
needs_cross = pytest.mark.skipif(not shutil.which("qemu-aarch64") or not shutil.which("aarch64-linux-gnu-gcc"),
                                 reason="qemu-aarch64 or aarch64-linux-gnu-gcc is not installed (Debian: qemu-user, gcc-aarch64-linux-gnu)")


def cross_build(*names: str) -> list[Path]:
    """Programs of build/aarch64. Skips the test where Debian's arm64 libraries cannot be had."""
    sysroot = subprocess.run(["packaging/sysroot", "arm64", "build/sysroot-arm64"], cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S, stdin=subprocess.DEVNULL)
    if sysroot.returncode:
        pytest.skip(f"Debian's arm64 libraries cannot be had: {sysroot.stderr[-300:]}")
    programs = [CROSS / name for name in names]
    subprocess.run(["make", "-s", "VARIANT=aarch64", *(str(path.relative_to(ROOT)) for path in programs)], cwd=ROOT, check=True, timeout=LIMIT_S,
                   stdin=subprocess.DEVNULL)
    return programs


@needs_cross
def test_aarch64(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels, then whole networks, shared out by rows too."""
    programs = cross_build("tests/checkasm/test_cpu_kernels", "tests/conformance/test_exact", "tests/conformance/test_rows")
    monkeypatch.setenv("XN_NETWORKS", "20")
    kernels, exact, _ = (run([*QEMU, str(path)]) for path in programs)
    assert ran(kernels)[0] == {"portable", "neon"}
    assert "ok" in exact and re.search(r"^ok \d+ - random_networks \[cpu neon\]$", exact, re.M)
