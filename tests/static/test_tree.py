# SPDX-License-Identifier: Apache-2.0
"""What can be told of the tree without running it: include rules, headers that compile alone, layout, man pages, shell scripts, links in documents."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
C_FLAGS = ["-std=c17", "-D_GNU_SOURCE", "-I.", "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Wvla", "-Werror"]

# Folder -> what it may include (prefixes), the include rules of docs/ARCHITECTURE.md. The longest matching folder counts.
MAY_INCLUDE = {
    "common": ["common/"],
    "model": ["common/", "model/"],
    "accel": ["common/", "model/", "accel/", "hls/include/"],
    "daemon": ["common/", "model/network.h", "accel/accel.h", "daemon/"],
    "daemon/http": ["common/", "model/network.h", "accel/accel.h", "daemon/http/", "daemon/observe/metrics.h", "daemon/request.h",
                    "daemon/regions.h", "daemon/models.h", "daemon/repository.h", "daemon/model_config.h", "daemon/config.h", "daemon/image/image.h"],
    "daemon/image": ["common/", "model/network.h", "daemon/image/", "daemon/request.h"],
    "daemon/sched": ["common/", "model/network.h", "accel/accel.h", "daemon/sched/", "daemon/request.h", "daemon/models.h"],
    "daemon/observe": ["common/", "accel/accel.h", "daemon/observe/", "daemon/request.h", "daemon/models.h", "daemon/config.h",
                       "daemon/sched/sched.h"],
    "clients/xnorctl": ["common/", "model/", "accel/accel.h", "accel/engine/engine.h", "clients/xnorctl/"],
}


def tracked(*patterns: str) -> list[str]:
    """Files that git knows, or that are new and not ignored."""
    out = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "--", *patterns], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [name for name in out.split("\n") if name and (ROOT / name).exists()]


def sources() -> list[str]:
    return tracked("common/*.[ch]", "model/*.[ch]", "accel/*.[ch]", "daemon/*.[ch]", "clients/*.[ch]")


def includes(name: str) -> list[str]:
    return re.findall(r'^\s*#\s*include\s+"([^"]+)"', (ROOT / name).read_text(), re.M)


@pytest.mark.parametrize("name", sources())
def test_include_rules(name: str) -> None:
    folder = max((f for f in MAY_INCLUDE if name.startswith(f + "/")), key=len)
    for included in includes(name):
        assert any(included.startswith(prefix) for prefix in MAY_INCLUDE[folder]), f"{name} may not include {included}"


@pytest.mark.parametrize("name", [n for n in tracked("*.h") if not n.startswith("tests/")])
def test_header_compiles_alone(name: str) -> None:
    level = ["-DXN_CPU_LEVEL=portable"] if name.startswith("accel/cpu/kernels/") else []  # as accel/cpu/cpu.mk gives it
    command = ["gcc", *C_FLAGS, *level, "-fsyntax-only", "-x", "c", name]
    if name.startswith("hls/") and not name.startswith("hls/include/"):  # as hls/hls.mk gives it
        geometry = [f"-DXN_{key}=16" for key in ("P", "PI", "PR", "AM_ROWS", "RM_ROWS", "WB_WORDS")]
        command = ["g++", "-std=c++14", "-Wall", "-Wno-unknown-pragmas", "-DXN_HLS_SIMULATION", *geometry, "-I.", "-Ihls/sim", "-fsyntax-only", "-x", "c++", name]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not shutil.which("clang-format"), reason="clang-format is not installed")
@pytest.mark.parametrize("name", tracked("*.c", "*.h"))
def test_layout(name: str) -> None:
    done = subprocess.run(["clang-format", "--dry-run", "--Werror", name], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:2000]


@pytest.mark.skipif(not shutil.which("mandoc"), reason="mandoc is not installed")
@pytest.mark.parametrize("name", tracked("docs/man/*"))
def test_man_page(name: str) -> None:
    done = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", name], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed")
@pytest.mark.parametrize("name", [n for n in tracked("packaging/*", "tests/*", ".ci/*", "train/*") if (ROOT / n).is_file()
                                  and re.match(rb"#!\s*/(usr/)?bin/(env )?(ba)?sh", (ROOT / n).read_bytes()[:40])])
def test_shell_script(name: str) -> None:
    done = subprocess.run(["shellcheck", name], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", tracked("*.md"))
def test_links_in_documents(name: str) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", (ROOT / name).read_text()):
        if not re.match(r"[a-z]+:", target):
            assert (ROOT / name).parent.joinpath(target).exists(), f"{name} links to {target}, which is not there"


@pytest.mark.parametrize("unit", ["xnord.service", "xnord.socket"])
def test_systemd_unit(unit: str) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(ROOT / "packaging/systemd" / unit)], capture_output=True, text=True)
    complaints = [line for line in done.stderr.splitlines() if unit in line and "is not executable" not in line]
    assert not complaints, "\n".join(complaints)


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
@pytest.mark.parametrize("command", [["check", "rules", "xnord.rules.yml"], ["test", "rules", "xnord.rules.test.yml"]])
def test_prometheus_rules(command: list[str]) -> None:
    done = subprocess.run(["promtool", *command], cwd=ROOT / "packaging/prometheus", capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
