# SPDX-License-Identifier: Apache-2.0
"""One server's connections: kept between requests, each used by one thread at a time.

A connection is taken from the pool, or made; carries one request and its answer; and goes back unless either side ends it. The server ends connections that are
idle (and all of them at a restart). One that was ended before a request goes out is noticed and dropped. One that ends between the request and the first byte of
its answer leaves open whether the request was worked on: what may be done twice is then sent once more, on a new connection; what may not is always sent on a new
connection, where this cannot be mistaken. Answers are parsed by http.client."""

from __future__ import annotations

import dataclasses
import errno
import http.client
import os
import select
import socket
import ssl
import threading
import weakref
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from ._version import VERSION
from .errors import NetworkError

ANSWER_BYTES_MAX = 64 << 20  # a longer answer is an error
JOINED_BYTES = 64 << 10  # a request up to this long is copied together, and costs one system call
SLICE_BYTES = 256 << 10  # of a longer one; after each comes a look whether the answer is there already
LOST = (http.client.RemoteDisconnected, ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError)  # the other side has gone

Piece = bytes | memoryview


@dataclasses.dataclass(frozen=True)
class Target:
    """Where a URL leads."""

    unix_path: str | None
    host: str
    port: int
    tls: bool
    authority: str  # for Host
    prefix: str  # of paths


def parse_url(url: str) -> Target:
    """http://HOST[:PORT][/PREFIX], https://..., unix:PATH. Anything else is a ValueError."""
    if url.startswith("unix:"):
        path = url.removeprefix("unix:")
        if not path:
            raise ValueError(f"{url!r}: no path of a unix socket")
        return Target(path, "", 0, False, "localhost", "")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or "@" in parts.netloc or " " in parts.path:
        raise ValueError(f"{url!r} is not a URL of a server: http://HOST:PORT, https://HOST:PORT or unix:PATH")
    tls = parts.scheme == "https"
    prefix = header_value("path", parts.path.rstrip("/"))
    return Target(None, parts.hostname, parts.port or (443 if tls else 80), tls, parts.netloc, prefix)


def header_value(name: str, value: str) -> str:
    """`value`, which has to be printable ASCII: nothing in it can end the header."""
    if not (value.isascii() and value.isprintable()):
        raise ValueError(f"{name}: may have printable ASCII only")
    return value


@dataclasses.dataclass(frozen=True)
class Answer:
    status: int
    reason: str
    headers: http.client.HTTPMessage
    body: bytes


class Connection:
    """A socket to the server, and how to tell whether it has something to say."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.tls = isinstance(sock, ssl.SSLSocket)
        self.poll = select.poll()
        self.poll.register(sock, select.POLLIN)

    def is_readable(self) -> bool:
        """Between two requests: the other side has ended it, or says what nobody asked for."""
        return bool(self.poll.poll(0))

    def send(self, head: bytes, pieces: Sequence[Piece], total_bytes: int) -> None:
        """Returns early where the answer is there before all is sent: a refusal."""
        if total_bytes <= JOINED_BYTES:
            self.sock.sendall(b"".join((head, *pieces)))
            return
        self.sock.sendall(head)
        for piece in pieces:
            view = memoryview(piece).cast("B")
            for start in range(0, len(view), SLICE_BYTES):
                if not self.tls and self.is_readable():  # what is readable of TLS may be its own affair
                    return
                self.sock.sendall(view[start:start + SLICE_BYTES])

    def close(self) -> None:
        self.sock.close()


class Transport:
    """Requests to one server, from any number of threads. `idle_max` connections are kept when they are not in use; as many are open as there are requests under
    way."""

    def __init__(self, url: str, token: str | None, cacert: str | os.PathLike[str] | None, insecure: bool, timeout_s: float, idle_max: int) -> None:
        self.url, self.target, self.timeout_s, self.idle_max = url, parse_url(url), timeout_s, idle_max
        if not timeout_s > 0:
            raise ValueError(f"timeout_s: {timeout_s} is not more than 0")
        self.tls_context = tls_context(cacert, insecure) if self.target.tls else None
        authorization = f"Authorization: Bearer {header_value('token', token)}\r\n" if token else ""
        self.common = f"Host: {self.target.authority}\r\nUser-Agent: xnord-python/{VERSION}\r\n{authorization}"
        self.pool_lock = threading.Lock()
        self.idle: list[Connection] = []
        ALL.add(self)
        self.closed = threading.Event()

    def close(self) -> None:
        """Requests under way in other threads come to their end."""
        with self.pool_lock:
            self.closed.set()
            idle, self.idle = self.idle, []
        for connection in idle:
            connection.close()

    def after_fork(self) -> None:
        """In a child process: the connections are its parent's, and are closed here without a word to the server."""
        self.pool_lock = threading.Lock()
        for connection in self.idle:
            socket.close(connection.sock.detach())
        self.idle = []

    def exchange(self, method: str, path: str, pieces: Sequence[Piece] = (), headers: Mapping[str, str] | None = None, *, repeatable: bool, more_s: float = 0) -> Answer:
        """One request and its answer, whatever its status. The server may be silent for the time-out and `more_s`. Raises NetworkError."""
        more = "".join(f"{name}: {header_value(name, value)}\r\n" for name, value in (headers or {}).items())
        total_bytes = sum(memoryview(piece).nbytes for piece in pieces)
        length = f"Content-Length: {total_bytes}\r\n" if method == "POST" else ""
        head = f"{method} {self.target.prefix}{path} HTTP/1.1\r\n{self.common}{more}{length}\r\n".encode("ascii")
        wait_s = self.timeout_s + more_s
        try:
            kept = self._take() if repeatable else None
            if kept:
                try:
                    return self._ask(kept, method, head, pieces, total_bytes, wait_s)
                except LOST:
                    pass
            return self._ask(self._connect(), method, head, pieces, total_bytes, wait_s)
        except TimeoutError as error:
            raise NetworkError(f"{self.url}: no answer: silent for more than {wait_s:g} s", timed_out=True) from error
        except (OSError, http.client.HTTPException) as error:
            raise NetworkError(f"{self.url}: {explain(error)}") from error

    def _ask(self, connection: Connection, method: str, head: bytes, pieces: Sequence[Piece], total_bytes: int, wait_s: float) -> Answer:
        """The connection is put back, or closed."""
        keep = False
        try:
            connection.sock.settimeout(wait_s)
            sent = True
            try:
                connection.send(head, pieces, total_bytes)
            except LOST:
                sent = False  # it was refused, perhaps, and the answer says why
            response = http.client.HTTPResponse(connection.sock, method=method)
            with response:
                response.begin()
                answer = Answer(response.status, response.reason, response.headers, read_body(response))
                keep = sent and not response.will_close
            return answer
        finally:
            if keep:
                self._put(connection)
            else:
                connection.close()

    def _connect(self) -> Connection:
        if self.closed.is_set():
            raise RuntimeError("the client is closed")
        target = self.target
        try:
            if target.unix_path is not None:
                sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                try:
                    sock.settimeout(self.timeout_s)
                    sock.connect(target.unix_path)
                except BaseException:
                    sock.close()
                    raise
            else:
                sock = socket.create_connection((target.host, target.port), self.timeout_s)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self.tls_context:
                    sock = self.tls_context.wrap_socket(sock, server_hostname=target.host)
        except TimeoutError as error:
            raise NetworkError(f"{self.url}: no connection within {self.timeout_s:g} s", timed_out=True) from error
        except OSError as error:
            raise NetworkError(f"{self.url}: no connection: {explain(error)}") from error
        return Connection(sock)

    def _take(self) -> Connection | None:
        """A kept connection that is still there."""
        while True:
            with self.pool_lock:
                if not self.idle:
                    return None
                connection = self.idle.pop()
            if not connection.is_readable():
                return connection
            connection.close()

    def _put(self, connection: Connection) -> None:
        with self.pool_lock:
            if len(self.idle) < self.idle_max and not self.closed.is_set():
                self.idle.append(connection)
                return
        connection.close()


ALL: weakref.WeakSet[Transport] = weakref.WeakSet()


def after_fork() -> None:
    for transport in ALL:
        transport.after_fork()


os.register_at_fork(after_in_child=after_fork)


def tls_context(cacert: str | os.PathLike[str] | None, insecure: bool) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=cacert)
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def read_body(response: http.client.HTTPResponse) -> bytes:
    if response.length is None:  # chunked, or until the end of the connection
        body = response.read(ANSWER_BYTES_MAX + 1)
    else:
        body = response.read() if response.length <= ANSWER_BYTES_MAX else b""
    if len(body) > ANSWER_BYTES_MAX or response.length:
        raise OSError(errno.EFBIG, f"the answer is longer than {ANSWER_BYTES_MAX} bytes")
    return body


def explain(error: Exception) -> str:
    if isinstance(error, http.client.RemoteDisconnected):
        return "the connection ended without an answer"
    if isinstance(error, http.client.IncompleteRead):
        return "the answer was cut short"
    if isinstance(error, http.client.HTTPException):
        return f"what answers there is not HTTP: {error!r}"
    if isinstance(error, OSError) and error.strerror and not isinstance(error, ssl.SSLError):
        return error.strerror
    return str(error)
