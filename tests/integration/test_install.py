# SPDX-License-Identifier: Apache-2.0
"""`make install`: programs find from their installed place what belongs to them."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from http_support import PATIENCE_S, ROOT, small_network
from xrt_support import BUILD, needs_cards

ASK = """
set -eu
echo "{\\"listen\\": [{\\"address\\": \\"127.0.0.1\\", \\"port\\": 0}], \\"models\\": [{\\"path\\": \\"$MODEL\\"}], \\"log\\": {\\"target\\": \\"stderr\\"},
       \\"accelerators\\": [{\\"kind\\": \\"xrt\\", \\"image\\": \\"$XNOR_VCARD_XCLBIN\\"}]}" >xnord.json
"$BIN/xnord" --config xnord.json --port-file port 2>log & server=$!
trap 'kill $server; wait $server' EXIT
while [ ! -s port ]; do kill -0 $server || { cat log >&2; exit 1; }; sleep 0.02; done
"$BIN/xnorctl" infer --url "http://127.0.0.1:$(cat port)" "$INPUT"
"$BIN/xnorctl" status --url "http://127.0.0.1:$(cat port)"
"""


@needs_cards
@pytest.mark.skipif(not (BUILD / "libxnor-sim-hls-2t.so").exists() or BUILD.parent != ROOT / "build", reason="the C simulation is not built: make vcard")
def test_an_installed_card(tmp_path: Path) -> None:
    prefix, root = "/opt/xnord", tmp_path / "root"
    subprocess.run(["make", "-s", "install", f"VARIANT={BUILD.name}", f"DESTDIR={root}", f"PREFIX={prefix}"], cwd=ROOT, check=True, capture_output=True, timeout=10 * PATIENCE_S)
    home = root / prefix[1:]
    installed = {str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()}
    assert {"bin/xnord", "bin/xnorctl", "bin/xnor-vcard", "lib/xnord/xnor-xrt.so", "lib/xnord/vcard/xrt/lib/libxrt_core.so.2", "lib/xnord/vcard/libxnor-sim-hls-2t.so",
            "lib/xnord/vcard/libxnor-sim-hls-4t.so", "share/man/man1/xnor-vcard.1"} <= installed, installed
    module, = (path for path in home.rglob("xnord/__main__.py"))
    told = subprocess.run(["/usr/bin/python3", "-m", "xnord", "--version"], cwd=module.parents[1], check=True, capture_output=True, text=True, timeout=PATIENCE_S)
    assert told.stdout == f"xnord {(ROOT / 'VERSION').read_text().strip()}\n"
    models = {model["path"] for model in json.loads((root / "etc/xnord/xnord.json").read_text())["models"]}
    assert models <= {f"{prefix}/{path}" for path in installed}, models

    small_network(tmp_path / "a.xnor", "a", (12, 12, 1), 10)
    (tmp_path / "input").write_bytes(bytes(144))
    environment = {name: value for name, value in os.environ.items() if name not in ("XILINX_XRT", "XNORD_XRT_MODULE")}
    done = subprocess.run([home / "bin/xnor-vcard", "run", "--geometry", "2T", "--engine", "hls", "--", "sh", "-c", ASK], cwd=tmp_path, capture_output=True, text=True,
                          env={**environment, "BIN": str(home / "bin"), "MODEL": str(tmp_path / "a.xnor"), "INPUT": str(tmp_path / "input")}, timeout=PATIENCE_S)
    assert done.returncode == 0 and "xrt0.0" in done.stdout and "a №" in done.stdout, done.stdout + done.stderr
