# SPDX-License-Identifier: Apache-2.0
"""Virtual cards that XRT finds, for tests of the daemon over real XRT."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from http_support import PATIENCE_S, XNORD

BUILD = XNORD.parent
VCARD, DRIVER = BUILD / "xnor-vcard", BUILD / "vcard/xrt"
needs_cards = pytest.mark.skipif(not (VCARD.exists() and (BUILD / "xnor-xrt.so").exists()), reason="no virtual card: it needs libxrt-dev 2.13 and uuid-dev")


@contextlib.contextmanager
def cards(folder: Path, options: str) -> Iterator[Path]:
    """Virtual cards that XRT finds from here on; the xclbin. Their counters are in folder/stats.json."""
    work, stats = folder / "cards", folder / "stats.json"
    work.mkdir()
    process = subprocess.Popen([str(VCARD), "serve", *options.split(), "--stats", str(stats), str(work)])
    mine = {"XILINX_XRT": str(DRIVER), "XNOR_VCARD_DIR": str(work), "XNOR_VCARD_CARDS": str(options.split()[options.split().index("--cards") + 1])}
    before = {name: os.environ.get(name) for name in mine}
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not list(work.glob("*.xclbin")) or len(list(work.glob("card-*"))) < int(mine["XNOR_VCARD_CARDS"]):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)  # nothing depends on its length
        os.environ.update(mine)
        yield next(work.glob("*.xclbin"))
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE_S)
