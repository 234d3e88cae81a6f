# SPDX-License-Identifier: Apache-2.0
"""The Debian packages of `make deb`: control fields, contents, and the virtual card run from the unpacked ones. `make deb-test`; not part of make test."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEB = ROOT / "build/deb"
VERSION = (ROOT / "VERSION").read_text().strip()


def run(*command: object, **options: object) -> str:
    return subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True, timeout=120, **options).stdout  # type: ignore[call-overload]


def package(name: str) -> Path:
    found = sorted(DEB.glob(f"{name}_{VERSION}_*.deb"))
    if name == "xnord-vcard" and not found:
        pytest.skip("no xnord-vcard here: it is of amd64")
    assert len(found) == 1, found
    return found[0]


def fields(deb: Path) -> dict[str, str]:
    return dict(re.findall(r"^([\w-]+): (.*)", run("dpkg-deb", "-f", deb), re.M))


def contents(deb: Path) -> set[str]:
    return {line.split()[5] for line in run("dpkg-deb", "-c", deb).splitlines() if not line.startswith("d")}


def control(deb: Path, folder: Path) -> Path:
    run("dpkg-deb", "-e", deb, folder)
    return folder


def test_xnord() -> None:
    told, files = fields(package("xnord")), contents(package("xnord"))
    assert told["Version"] == VERSION and "libmicrohttpd" in told["Depends"]
    assert "libxrt" not in told["Depends"], "who has no card need not install XRT"
    assert told["Suggests"] == "libxrt1, xnord-vcard"
    assert {"./usr/bin/xnord", "./usr/bin/xnorctl", "./etc/xnord/xnord.json", "./usr/share/man/man8/xnord.8.gz", "./usr/share/man/man1/xnorctl.1.gz",
            "./lib/systemd/system/xnord.service", "./lib/systemd/system/xnord.socket", "./usr/share/xnord/models/fashion-mnist.xnor"} <= files
    assert not [path for path in files if "vcard" in path]
    if run("dpkg", "--print-architecture").strip() == "amd64":
        assert "./usr/lib/xnord/xnor-xrt.so" in files
    assert "/etc/xnord/xnord.json" in run("dpkg-deb", "-I", package("xnord"), "conffiles")


def test_xnord_vcard(tmp_path: Path) -> None:
    told, files = fields(package("xnord-vcard")), contents(package("xnord-vcard"))
    assert told["Version"] == VERSION and told["Recommends"] == f"xnord (= {VERSION})"
    assert "libxrt1 (>= 202210.2.13" in told["Depends"] and "libxrt1 (<< 202210.2.14)" in told["Depends"], "the driver is of XRT 2.13"
    assert set(os.listdir(control(package("xnord-vcard"), tmp_path))) == {"control", "md5sums"}, "its libraries are not for others (shlibs, ldconfig)"
    assert {path for path in files if "/doc/" not in path} == {"./usr/bin/xnor-vcard", "./usr/lib/xnord/vcard/xrt/lib/libxrt_core.so.2", "./usr/lib/xnord/vcard/libxnor-sim-hls-2t.so",
                                                              "./usr/lib/xnord/vcard/libxnor-sim-hls-4t.so", "./usr/share/man/man1/xnor-vcard.1.gz"}


def test_python3_xnord(tmp_path: Path) -> None:
    """Unpacked, not installed: the module is whole, and needs no other package than Python."""
    told, files = fields(package("python3-xnord")), contents(package("python3-xnord"))
    assert told["Version"] == VERSION and told["Architecture"] == "all" and told["Depends"] in ("python3:any", "python3") and told["Suggests"] == "python3-numpy"
    modules = {f"./usr/lib/python3/dist-packages/xnord/{path.name}" for path in (ROOT / "clients/python/xnord").iterdir() if path.is_file()}
    assert {path for path in files if "/doc/" not in path} == modules
    run("dpkg-deb", "-x", package("python3-xnord"), tmp_path)
    said = run("/usr/bin/python3", "-I", "-c", f"import sys; sys.path.insert(0, '{tmp_path}/usr/lib/python3/dist-packages'); import xnord; print(xnord.__version__)")
    assert said.strip() == VERSION


def test_they_run_together(tmp_path: Path) -> None:
    """Unpacked, not installed: the daemon starts on a virtual card, and its network has been tried on it when it is ready."""
    for name in ("xnord", "xnord-vcard"):
        run("dpkg-deb", "-x", package(name), tmp_path)
    script = """echo "{\\"listen\\": [{\\"address\\": \\"127.0.0.1\\", \\"port\\": 0}], \\"models\\": [{\\"path\\": \\"usr/share/xnord/models/fashion-mnist.xnor\\"}],
        \\"accelerators\\": [{\\"kind\\": \\"xrt\\", \\"image\\": \\"$XNOR_VCARD_XCLBIN\\"}], \\"log\\": {\\"target\\": \\"stderr\\"}}" >c.json
        usr/bin/xnord --config c.json --port-file port & server=$!
        while [ ! -s port ] && kill -0 $server; do sleep 0.02; done
        kill $server; wait $server"""
    environment = {name: value for name, value in os.environ.items() if name not in ("XILINX_XRT", "XNORD_XRT_MODULE")}
    done = subprocess.run([tmp_path / "usr/bin/xnor-vcard", "run", "--engine", "hls", "--", "sh", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True,
                          timeout=120)
    assert done.returncode == 0 and "instance xrt0.0" in done.stderr and "ready on port" in done.stderr, done.stdout + done.stderr
