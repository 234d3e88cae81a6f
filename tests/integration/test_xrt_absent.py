# SPDX-License-Identifier: Apache-2.0
"""Where XRT, or xnord's module for it, is not: who does not ask for cards notices nothing, who does is told what to install. The same on AArch64, under qemu."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import pytest
from http_support import PATIENCE_S, XNORD, daemon, small_network
from test_emulated import CROSS, QEMU, cross_build, needs_cross


def start(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    """What xnord says that ends at once, with an accelerator of kind xrt beside the CPU."""
    small_network(folder / "a.xnor", "a", (12, 12, 1), 10)
    config = {"listen": [{"address": "127.0.0.1", "port": 0}], "models": [{"path": str(folder / "a.xnor")}], "log": {"target": "stderr"},
              "accelerators": [{"kind": "xrt", "image": str(folder / "engine.xclbin")}, {"kind": "cpu"}]}
    (folder / "xnord.json").write_text(json.dumps(config))
    done = subprocess.run([*command, "--config", str(folder / "xnord.json")], env={**os.environ, **environment}, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 1, done.stderr
    return done.stderr


def test_a_module_that_is_not_there(tmp_path: Path) -> None:
    said = start([str(XNORD)], tmp_path, {"XNORD_XRT_MODULE": str(tmp_path / "none.so")})
    assert 'accelerator "xrt"' in said and "none.so" in said and "libxrt1" in said, said


def test_a_program_without_its_module(tmp_path: Path) -> None:
    """It looks beside itself and where libraries are, and nowhere above."""
    (tmp_path / "bin").mkdir()
    shutil.copy(XNORD, tmp_path / "bin")
    (tmp_path / "xnor-xrt.so").write_text("not to be found")
    said = start([str(tmp_path / "bin/xnord")], tmp_path, {})
    assert "there is no xnor-xrt.so beside the program" in said and "libxrt1" in said, said
    (tmp_path / "bin/xnor-xrt.so").write_text("not a library")
    assert "bin/xnor-xrt.so: " in start([str(tmp_path / "bin/xnord")], tmp_path, {})


def test_nobody_misses_it_who_has_no_cards(tmp_path: Path) -> None:
    small_network(tmp_path / "a.xnor", "a", (12, 12, 1), 10)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XNORD_XRT_MODULE", str(tmp_path / "none.so"))
        with daemon(tmp_path, [{"path": str(tmp_path / "a.xnor")}]) as server:
            assert server.get("/readyz").status == 200
            assert "xrt" not in Path(f"/proc/{server.process.pid}/maps").read_text()


@needs_cross
def test_aarch64_has_no_xrt(tmp_path: Path) -> None:
    cross_build("xnord")
    said = start([*QEMU, str(CROSS / "xnord")], tmp_path, {})
    assert "there is no xnor-xrt.so" in said and "libxrt1" in said, said
