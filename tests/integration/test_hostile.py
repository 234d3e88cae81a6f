# SPDX-License-Identifier: Apache-2.0
"""Clients that mean harm, many of them: others are served meanwhile, without one failure, and not much slower than without them."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from lifecycle_support import FAST_INPUT, PATIENCE_S, XNORD, Daemon, daemon, network, put_file, wait_until

XNORCTL = XNORD.with_name("xnorctl")
IDLE_CONNECTIONS = 10000
REQUESTS = 4000
# A request of the good clients may take so many times as long as without the attack. They, the attackers and the server share this machine's CPUs, so it says
# that the server is there for them; a server that waits for a slow client would take thousands of times as long.
SLOWER_MAX = 100.0


@contextlib.contextmanager
def served(folder: Path, connections: int = 1024, **http_settings: int) -> Iterator[Daemon]:
    put_file(folder / "net.xnor", network("net"))
    with daemon(folder, {"models": [{"path": "net.xnor", "max_delay_us": 0}], "accelerators": [{"kind": "cpu", "instances": 1, "threads": 1}],
                         "http": {"connections": connections, "threads": 2, **http_settings}}) as d:
        yield d


def good_clients(d: Daemon) -> float:
    """Requests a second of four connections that ask in turn; each was answered."""
    done = subprocess.run([str(XNORCTL), "bench", "--url", f"http://127.0.0.1:{d.port}", "--concurrency", "4", "--count", str(REQUESTS), "--json"],
                          capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert not said["errors"], said["errors"]
    return float(said["requests_per_s"])


def new_client(d: Daemon, source: str = "127.0.0.1") -> int:
    """Status of a request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", d.port, timeout=PATIENCE_S, source_address=(source, 0))
    connection.request("POST", "/infer", FAST_INPUT)
    status = connection.getresponse().status
    connection.close()
    return status


def check(d: Daemon, alone: float, what: str) -> None:
    """Now, under attack."""
    beside = good_clients(d)
    print(f"{what}: {alone:.0f} requests a second without, {beside:.0f} with")
    assert [new_client(d) for _ in range(20)] == [200] * 20
    assert beside * SLOWER_MAX >= alone, f"{what}: {alone:.0f} requests a second without, {beside:.0f} with"


# ---- slowhttptest -------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "path"), [(["-H"], "/healthz"), (["-B", "-s", "8192"], "/infer"), (["-X", "-w", "10", "-y", "20", "-z", "5", "-k", "3"], "/v2/models/net")],
                         ids=["slow headers", "slow body", "slow read"])
def test_slowhttptest(tmp_path: Path, mode: list[str], path: str) -> None:
    """Eight hundred connections of the tool that others test with; the server has room for a thousand."""
    if not shutil.which("slowhttptest"):
        pytest.skip("slowhttptest is not installed (packaging/install-deps test)")
    connections = 800
    with served(tmp_path) as d:
        alone = good_clients(d)
        with (tmp_path / "attack").open("wb") as log:
            attack = subprocess.Popen(["slowhttptest", *mode, "-c", str(connections), "-r", "2000", "-i", "1", "-x", "10", "-l", "600", "-p", "30",
                                       "-u", f"http://127.0.0.1:{d.port}{path}"], stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            wait_until("the attack", lambda: attack.poll() is not None or len(os.listdir(f"/proc/{d.process.pid}/fd")) > connections)
            assert attack.poll() is None, (tmp_path / "attack").read_text()[-2000:]
            check(d, alone, f"slowhttptest {mode[0]}")
        finally:
            attack.kill()
            attack.wait()


# ---- our own ------------------------------------------------------------------------------------------------------------------------------------


def raise_descriptors(need: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < need:
        pytest.skip(f"{need} file descriptors are needed here, and ulimit -Hn is {hard}")
    if soft != resource.RLIM_INFINITY and soft < need:
        resource.setrlimit(resource.RLIMIT_NOFILE, (need, hard))


def test_ten_thousand_idle_connections(tmp_path: Path) -> None:
    """They cost memory and nothing else, and an end of them leaves nothing behind."""
    raise_descriptors(IDLE_CONNECTIONS + 1000)
    with served(tmp_path, connections=IDLE_CONNECTIONS + 500, idle_timeout_s=3600) as d:
        alone = good_clients(d)
        before = len(os.listdir(f"/proc/{d.process.pid}/fd"))
        idle = []
        try:
            for _ in range(IDLE_CONNECTIONS):
                idle.append(socket.create_connection(("127.0.0.1", d.port), PATIENCE_S))
            wait_until("all to be accepted", lambda: len(os.listdir(f"/proc/{d.process.pid}/fd")) >= before + IDLE_CONNECTIONS)
            check(d, alone, f"{IDLE_CONNECTIONS} idle connections")
            for s in idle[:: IDLE_CONNECTIONS // 50]:  # they are still served
                s.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                assert s.recv(12) == b"HTTP/1.1 200"
        finally:
            for s in idle:
                s.close()
        wait_until("the end of them", lambda: len(os.listdir(f"/proc/{d.process.pid}/fd")) <= before + 10)


ATTACKER = """
import socket, sys, threading
port, kind, n = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
HALF = b"POST /infer HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 16\\r\\n\\r\\n1234"
CHUNKED = b"POST /infer HTTP/1.1\\r\\nHost: x\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n"
GET = b"GET /v2/models/net HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n"
rounds = [0] * n

def half_closed(s):
    s.sendall(HALF); s.shutdown(socket.SHUT_WR)
    while s.recv(65536): pass

def pipelined(s):
    for _ in range(20):
        s.sendall(GET * 50)
        got = b""
        while got.count(b"HTTP/1.1 200") < 50 or not got.endswith(b"}"):
            more = s.recv(65536)
            assert more, "closed in the middle"
            got += more
        assert got.count(b"HTTP/1.1 ") == 50

def chunks(s):
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    s.sendall(CHUNKED)
    for _ in range(16): s.sendall(b"1\\r\\n\\0\\r\\n")
    s.sendall(b"0\\r\\n\\r\\n")
    assert s.recv(12) == b"HTTP/1.1 200"

def run(i):
    while True:
        s = socket.create_connection(("127.0.0.1", port), 60)
        try: {"half-closed": half_closed, "pipelined": pipelined, "one-byte chunks": chunks}[kind](s)
        except (ConnectionError,) as error:
            if kind != "half-closed": raise
        s.close()
        rounds[i] += 1
        if rounds[i] == 1: print("round", flush=True)

for i in range(n): threading.Thread(target=run, args=(i,)).start()
"""


@pytest.mark.parametrize(("kind", "n"), [("half-closed", 64), ("pipelined", 8), ("one-byte chunks", 32)], ids=lambda v: str(v))
def test_flood(tmp_path: Path, kind: str, n: int) -> None:
    """Without an end, from a process of its own. Pipelined requests are all answered in turn, and a body in chunks of a byte is as good as another."""
    with served(tmp_path) as d:
        alone = good_clients(d)
        with (tmp_path / "attack").open("wb") as log:
            attack = subprocess.Popen([sys.executable, "-c", ATTACKER, str(d.port), kind, str(n)], stdout=log, stderr=subprocess.STDOUT)
        try:
            said = lambda: (tmp_path / "attack").read_text()  # noqa: E731
            wait_until("the attack", lambda: attack.poll() is not None or said().count("round") == n or "Error" in said())
            check(d, alone, kind)
            assert attack.poll() is None and "Error" not in said(), said()[-2000:]
        finally:
            attack.kill()
            attack.wait()


def test_one_thread_has_any_number_of_connections(tmp_path: Path) -> None:
    """All of them ask at once and wait. libmicrohttpd takes 128 events at a time; on a thread of its own it would wait, after exactly that many, for more."""
    with served(tmp_path, threads=1) as d, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(contextlib.closing(http.client.HTTPConnection("127.0.0.1", d.port, timeout=PATIENCE_S))) for _ in range(512)]
        for client in clients:
            client.connect()
        for n in (127, 128, 129, 256, 512):
            for client in clients[:n]:
                client.request("POST", "/infer", FAST_INPUT)
            answers = [client.getresponse() for client in clients[:n]]
            assert [(answer.read() and answer.status) for answer in answers] == [200] * n


def test_one_address_cannot_have_all_connections(tmp_path: Path) -> None:
    """With http.connections_per_ip, whoever opens all it can leaves room for others."""
    with served(tmp_path, connections=240, connections_per_ip=100) as d:
        with contextlib.ExitStack() as stack:
            for _ in range(400):
                s = stack.enter_context(socket.create_connection(("127.0.0.1", d.port), PATIENCE_S))
                s.sendall(b"GET /healthz HTTP/1.1\r\nX-Slow: ")
            assert [new_client(d, "127.0.0.2") for _ in range(50)] == [200] * 50
