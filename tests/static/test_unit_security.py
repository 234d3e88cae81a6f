# SPDX-License-Identifier: Apache-2.0
"""How much a broken into xnord.service could reach: systemd's own measure, 0 (nothing) to 10."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

UNIT = Path(__file__).resolve().parents[2] / "packaging/systemd/xnord.service"
EXPOSURE_MAX = 1.6


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_exposure() -> None:
    done = subprocess.run(["systemd-analyze", "security", "--offline=yes", "--no-pager", str(UNIT)], capture_output=True, text=True, timeout=60)
    found = re.search(r"Overall exposure level for xnord.service: ([\d.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found[1]) <= EXPOSURE_MAX, done.stdout
