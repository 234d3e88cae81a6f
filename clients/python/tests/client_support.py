# SPDX-License-Identifier: Apache-2.0
"""The module under test, the daemons of tests/integration, and a server that does what a test tells it."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
ROOT = PACKAGE.parents[1]
sys.path[:0] = [str(PACKAGE), str(ROOT / "tests/integration")]

PATIENCE_S = 60
INFERRED = (b'{"model": "a", "version": "1", "results": [{"class": 3, "label": "dress", "score": 0.5, "logit": 1.25, "batch_size": 1, "instance": "cpu0", '
            b'"timings_us": {"queue": 1, "execute": 2}}], "timings_us": {"receive": 3, "total": 4}}')


def answer(body: bytes = INFERRED, status: str = "200 OK", *headers: str) -> bytes:
    lines = "".join(f"{header}\r\n" for header in headers)
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{lines}\r\n".encode() + body


@dataclasses.dataclass
class Request:
    """What came, on which connection and as which request of it (both from 0)."""

    head: str
    body: bytes
    connection: int
    index: int


class Fake:
    """Answers each request with the bytes of `reply`; None ends the connection instead, and so does what says "Connection: close"."""

    def __init__(self, reply: Callable[[Request], bytes | None]) -> None:
        self.reply, self.requests = reply, list[Request]()
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self.listener.accept()
                self.sockets.append(sock)
                threading.Thread(target=self._serve, args=(sock, len(self.sockets) - 1), daemon=True).start()

    def _serve(self, sock: socket.socket, connection: int) -> None:
        with contextlib.suppress(OSError, ValueError), sock, sock.makefile("rb") as file:
            for index in range(1 << 30):
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    line = file.readline()
                    if not line:
                        return
                    head += line
                length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
                request = Request(head.decode(), file.read(int(length[1])) if length else b"", connection, index)
                with self.lock:
                    self.requests.append(request)
                said = self.reply(request)
                if said is None:
                    return
                sock.sendall(said)
                if b"\r\nConnection: close\r\n" in said:
                    return

    def connections(self) -> int:
        """On which there were requests."""
        return len({request.connection for request in self.requests})

    def end_connections(self) -> None:
        """The clients' ends notice at once."""
        for sock in self.sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def fake(reply: Callable[[Request], bytes | None]) -> Iterator[Fake]:
    server = Fake(reply)
    try:
        yield server
    finally:
        server.listener.close()
        server.end_connections()
