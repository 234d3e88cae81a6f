# SPDX-License-Identifier: Apache-2.0
"""Restarts on listening sockets that outlive the server: connections that come meanwhile wait in the kernel's queue, and not one request fails.

A client here does what RFC 9112 asks of one: it closes a connection when it is told to, and where a connection that was used before ends without a byte of an answer,
it asks again on a new one (9.3.1). How often that was is printed; on a fresh connection it counts as a failure."""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lifecycle_support import FAST_INPUT, PATIENCE_S, XNORD, Threads, network, put_file, wait_until

RESTARTS = int(os.environ.get("XN_RESTARTS", "50"))
BUSY_CLIENTS, THINKING_CLIENTS = 6, 2


class Connection(http.client.HTTPConnection):
    """To whatever `dial` connects to."""

    def __init__(self, dial: Callable[[], socket.socket]) -> None:
        super().__init__("xnord", timeout=PATIENCE_S)
        self.dial = dial

    def connect(self) -> None:
        self.sock = self.dial()


class Clients(Threads):
    """Threads that ask over and over."""

    def __init__(self, dial: Callable[[], socket.socket]) -> None:
        self.dial = dial
        self.lock = threading.Lock()
        self.answers, self.again, self.closed, self.failures = 0, 0, 0, []  # type: int, int, int, list[str]
        pauses = [0.0] * BUSY_CLIENTS + [0.7] * THINKING_CLIENTS
        super().__init__([functools.partial(self._run, pause) for pause in pauses])

    def _ask(self, connection: Connection) -> bool:
        """Returns whether the connection goes on."""
        connection.request("POST", "/infer", FAST_INPUT)
        answer = connection.getresponse()
        body = answer.read()
        with self.lock:
            self.answers += 1
            if answer.status != 200 or not json.loads(body)["results"]:
                self.failures.append(f"{answer.status} {body!r}")
        return answer.headers.get("Connection") != "close"

    def _ask_patiently(self, connection: Connection) -> None:
        used = connection.sock is not None
        try:
            keep = self._ask(connection)
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
            connection.close()
            if not used:
                raise
            with self.lock:
                self.again += 1
            keep = self._ask(connection)
        if not keep:
            connection.close()
            with self.lock:
                self.closed += 1

    def _run(self, pause: float) -> None:
        connection = Connection(self.dial)
        while not self.ending.wait(pause):
            try:
                self._ask_patiently(connection)
            except (OSError, http.client.HTTPException, ValueError) as error:
                connection.close()
                with self.lock:
                    self.failures.append(repr(error))
        connection.close()


def ask_pid(dial: Callable[[], socket.socket]) -> int:
    connection = Connection(dial)
    connection.request("GET", "/v1/status")
    status = json.loads(connection.getresponse().read())
    connection.close()
    return int(status["pid"])


def restart(dial: Callable[[], socket.socket], clients: Clients) -> None:
    """SIGTERM; over when the next server answers, and the load too."""
    old = ask_pid(dial)
    os.kill(old, signal.SIGTERM)
    wait_until("the next server", lambda: ask_pid(dial) != old)
    answers = clients.answers
    wait_until("answers", lambda: clients.answers > answers or clients.failures)


def write_config(folder: Path, listener: dict[str, Any]) -> Path:
    put_file(folder / "net.xnor", network("net"))
    config = {"listen": [listener], "models": [{"path": "net.xnor", "max_delay_us": 0}], "log": {"target": "stderr", "level": "warning"},
              "accelerators": [{"kind": "cpu", "instances": 1, "threads": 1}], "http": {"threads": 2}}
    (folder / "xnord.json").write_text(json.dumps(config))
    return folder / "xnord.json"


def keeper(folder: Path, config: Path) -> list[str]:
    """What systemd does for a service with Restart=always and a socket, as a line of shell: it has the sockets and starts the server again and again."""
    again = f'while [ ! -e {folder}/stop ]; do sh -c "LISTEN_PID=\\$\\$ exec {XNORD} --config {config}" || echo "exit $?" >>{folder}/bad; done'
    return ["sh", "-c", again]


def check(folder: Path, process: subprocess.Popen[bytes], dial: Callable[[], socket.socket]) -> None:
    try:
        wait_until("the first server", lambda: ask_pid(dial))
        clients = Clients(dial)
        for _ in range(RESTARTS):
            restart(dial, clients)
        clients.end()
        (folder / "stop").touch()
        os.kill(ask_pid(dial), signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    print(f"{RESTARTS} restarts, {clients.answers} answers, {clients.closed} with Connection: close, {clients.again} asked again on a new connection")
    assert not clients.failures, clients.failures[:5]
    assert clients.closed >= RESTARTS  # the load was there while it drained
    assert not (folder / "bad").exists(), (folder / "log").read_text()
    assert "Sanitizer" not in (folder / "log").read_text(), (folder / "log").read_text()


def test_restarts_under_load_by_socket_activation(tmp_path: Path) -> None:
    """The real systemd-socket-activate hands over a unix socket."""
    if not shutil.which("systemd-socket-activate"):
        pytest.skip("systemd-socket-activate is not installed (Debian: systemd)")
    path = tmp_path / "door"
    config = write_config(tmp_path, {"unix": str(path)})

    def dial() -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(PATIENCE_S)
        connection.connect(str(path))
        return connection

    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(["systemd-socket-activate", f"--listen={path}", *keeper(tmp_path, config)], stderr=log, start_new_session=True)

    def listening() -> bool:
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):  # not there, or not listened on yet
            dial().close()
            return True
        return False

    wait_until("the socket", listening)
    check(tmp_path, process, dial)


def test_restarts_under_load_by_hand(tmp_path: Path) -> None:
    """Any parent can hand over a socket: descriptors from 3 on, LISTEN_FDS, LISTEN_FDNAMES, LISTEN_PID. The port is not in the configuration: its name tells."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
        config = write_config(tmp_path, {"name": "door"})
        address = listening.getsockname()
        command = keeper(tmp_path, config)
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(["bash", "-c", f'exec 3<&{listening.fileno()}; exec "$@"', "keeper", *command], stderr=log, pass_fds=(listening.fileno(),),
                                       start_new_session=True, env={**os.environ, "LISTEN_FDS": "1", "LISTEN_FDNAMES": "door"})
    check(tmp_path, process, lambda: socket.create_connection(address, PATIENCE_S))
