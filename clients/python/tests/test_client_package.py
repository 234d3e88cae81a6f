# SPDX-License-Identifier: Apache-2.0
"""The module as a package: version, installation, types, what it needs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from client_support import PACKAGE, PATIENCE_S, ROOT

import xnord


def test_version() -> None:
    assert xnord.__version__ == (ROOT / "VERSION").read_text().strip()


def test_installs_without_a_network(tmp_path: Path) -> None:
    """From the source, with Debian's setuptools; what is installed is whole, and runs."""
    for module in ("pip", "setuptools", "wheel"):
        if subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True).returncode != 0:
            pytest.skip(f"python3-{module} is not installed")
    shutil.copytree(PACKAGE, tmp_path / "source", ignore=shutil.ignore_patterns("tests", "build", "*.egg-info", "__pycache__"))
    done = subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--target", str(tmp_path / "site"),
                           str(tmp_path / "source")], capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    installed = {path.name for path in (tmp_path / "site/xnord").iterdir() if path.is_file()}
    assert installed == {path.name for path in (PACKAGE / "xnord").iterdir() if path.is_file()}
    script = "import importlib.metadata, xnord; print(xnord.__file__, importlib.metadata.version('xnord'))"
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path / "site")})
    assert told.stdout.split() == [str(tmp_path / "site/xnord/__init__.py"), xnord.__version__], told.stderr


def test_nothing_but_the_standard_library() -> None:
    script = """
import sys
before = set(sys.modules)
import xnord, xnord.__main__
print(sorted({name.partition(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names) - {"xnord"}))
"""
    done = subprocess.run([sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(PACKAGE)!r}){script}"], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.skipif(not shutil.which("mypy"), reason="mypy is not installed")
def test_types(tmp_path: Path) -> None:
    """And nothing that the oldest Python has not."""
    done = subprocess.run(["mypy", "--python-executable", sys.executable, "--cache-dir", str(tmp_path), "xnord"], cwd=PACKAGE,
                          capture_output=True, text=True, timeout=2 * PATIENCE_S)
    assert done.returncode == 0, done.stdout
