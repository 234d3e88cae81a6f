# SPDX-License-Identifier: Apache-2.0
"""Certificates, tokens and listening sockets, made for a test."""

from __future__ import annotations

import hashlib
import json
import socket
import subprocess
from pathlib import Path
from typing import Any

from lifecycle_support import PATIENCE_S, XNORD, put_file


def openssl(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=PATIENCE_S)


def make_authority(folder: Path) -> None:
    done = openssl(folder, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-days", "2",
                   "-subj", "/CN=throw-away authority")
    assert done.returncode == 0, done.stderr


def make_certificate(folder: Path, name: str) -> None:
    """NAME.pem and NAME.key, for 127.0.0.1."""
    (folder / "extensions").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    for arguments in (["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}"],
                      ["x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out", f"{name}.pem", "-days", "2",
                       "-extfile", "extensions"]):
        done = openssl(folder, *arguments)
        assert done.returncode == 0, done.stderr
    (folder / f"{name}.key").chmod(0o600)


def token_file(folder: Path, **tokens: str) -> None:
    """NAME=roles; the token is "secret-NAME"."""
    lines = [f"{name} {roles} {hashlib.sha256(f'secret-{name}'.encode()).hexdigest()}" for name, roles in tokens.items()]
    put_file(folder / "tokens", "\n".join(["# who", *lines, ""]).encode())
    (folder / "tokens").chmod(0o600)


def hand_over(folder: Path, config: dict[str, Any], names: str, sockets: list[socket.socket]) -> subprocess.Popen[str]:
    """A server that gets these sockets as descriptors 3, 4, ..., by the names."""
    (folder / "xnord.json").write_text(json.dumps({"log": {"target": "stderr"}, **config}))
    moves = "".join(f"exec {60 + i}<&{s.fileno()};" for i, s in enumerate(sockets)) + "".join(f"exec {3 + i}<&{60 + i};" for i in range(len(sockets)))
    line = f'{moves} export LISTEN_PID=$$ LISTEN_FDS={len(sockets)} LISTEN_FDNAMES={names}; exec "$@"'
    return subprocess.Popen(["bash", "-c", line, "bash", str(XNORD), "--config", str(folder / "xnord.json")], stderr=subprocess.PIPE, text=True,
                            pass_fds=[s.fileno() for s in sockets])
