# SPDX-License-Identifier: Apache-2.0
"""Connections: which are kept, what happens when one ends, ways in, refusals that are followed, servers that are restarted, answers that make no sense."""

from __future__ import annotations

import contextlib
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from client_support import INFERRED, PATIENCE_S, Request, answer, fake

import xnord
from lifecycle_support import FAST_INPUT, SLOW_INPUT, Daemon, daemon, network, put_file, wait_until
from transport_support import hand_over, make_authority, make_certificate, token_file
from xnord.connection import ANSWER_BYTES_MAX, JOINED_BYTES, SLICE_BYTES

SEED = int(os.environ.get("XN_SEED") or time.time())
DAMAGED = 300
TCP = {"address": "127.0.0.1", "port": 0}
BUSY = answer(b'{"error": "later"}', "503 Service Unavailable", "Retry-After: 0")


def models(folder: Path, slow: bool = False, **settings: Any) -> list[dict[str, Any]]:
    put_file(folder / "net.xnor", network("net", slow=slow))
    return [{"path": "net.xnor", "max_delay_us": 0, **settings}]


# ---- kept connections ---------------------------------------------------------------------------------------------------------------------------


def test_one_connection_for_one_request_after_another() -> None:
    with fake(lambda request: answer()) as server, xnord.Client(server.url) as client:
        for _ in range(20):
            client.infer(b"x")
        assert (server.connections(), len(server.requests)) == (1, 20)


def test_as_many_connections_as_requests_under_way() -> None:
    """And so many of them are kept as was said."""
    n, gate = 6, threading.Barrier(6)

    def reply(request: Request) -> bytes:
        gate.wait(PATIENCE_S)
        return answer()

    with fake(reply) as server, xnord.Client(server.url, connections=2) as client, ThreadPoolExecutor(n) as pool:
        list(pool.map(client.infer, [b"x"] * n))
        assert server.connections() == n
        list(pool.map(client.infer, [b"x"] * n))
        assert server.connections() == n + (n - 2)


def test_a_connection_that_the_server_ends() -> None:
    """By a word with the answer; silently, between two requests."""
    for header in ("Connection: close", "Connection:close"):  # and it does; and it waits for the client to
        with fake(lambda request: answer(INFERRED, "200 OK", header)) as server, xnord.Client(server.url) as client:
            client.infer(b"x")
            client.infer(b"x")
            assert server.connections() == 2
    with fake(lambda request: answer()) as server, xnord.Client(server.url) as client:
        for _ in range(3):
            client.infer(b"x")
            server.end_connections()
        assert (server.connections(), len(server.requests)) == (3, 3)


def test_what_nobody_asked_for() -> None:
    """A server that says on an idle connection that it has had enough: that is no answer to the next request."""
    with fake(lambda request: answer()) as server, xnord.Client(server.url) as client:
        client.infer(b"x")
        server.sockets[0].sendall(answer(b'{"error": "headers did not arrive in time"}', "408 Request Timeout", "Connection: close"))
        select.select([client._transport.idle[0].sock], [], [], PATIENCE_S)
        client.infer(b"x")
        assert server.connections() == 2


def test_no_answer_on_a_kept_connection() -> None:
    """Inference is asked for again, once, on a new connection; two in a row without an answer are an error, and so is one on a connection that was new."""
    with fake(lambda request: answer() if request.index == 0 else None) as server, xnord.Client(server.url) as client:
        for _ in range(3):
            client.infer(b"x")
        assert [(request.connection, request.index) for request in server.requests] == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]
    with fake(lambda request: answer() if len(server.requests) == 1 else None) as server, xnord.Client(server.url) as client:
        client.infer(b"x")
        with pytest.raises(xnord.NetworkError, match="without an answer"):
            client.infer(b"x")
        assert len(server.requests) == 3
    with fake(lambda request: None) as server, xnord.Client(server.url) as client:
        with pytest.raises(xnord.NetworkError, match="without an answer") as raised:
            client.infer(b"x")
        assert len(server.requests) == 1 and not raised.value.timed_out and server.url in str(raised.value)


def test_what_may_not_be_done_twice_is_sent_once() -> None:
    """Not on a connection of which it could not be told whether it was taken."""
    with fake(lambda request: answer() if "/infer" in request.head else None) as server, xnord.Client(server.url) as client:
        client.infer(b"x")
        for call in (client.load, client.unload):
            with pytest.raises(xnord.NetworkError):
                call("a")
        assert [(request.connection, request.index) for request in server.requests] == [(0, 0), (1, 0), (2, 0)]
        client.infer(b"x")
        assert server.requests[-1].connection == 0


def test_a_client_in_a_child_process() -> None:
    """The parent's connection is left to it."""
    with fake(lambda request: answer()) as server, xnord.Client(server.url) as client:
        client.infer(b"x")
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                client.infer(b"child")
                client.infer(b"child")
                os._exit(0)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        client.infer(b"x")
        assert [(request.body, request.connection) for request in server.requests] == [(b"x", 0), (b"child", 1), (b"child", 1), (b"x", 0)]


def test_closed() -> None:
    with fake(lambda request: answer()) as server:
        with xnord.Client(server.url) as client:
            client.infer(b"x")
        with pytest.raises(RuntimeError, match="closed"):
            client.infer(b"x")
        assert len(server.requests) == 1


@pytest.mark.parametrize("size", [1, JOINED_BYTES, JOINED_BYTES + 1, SLICE_BYTES, 3 * SLICE_BYTES + 1])
def test_bodies_of_every_size_arrive(size: int) -> None:
    body = random.Random(SEED).randbytes(size)
    with fake(lambda request: answer()) as server, xnord.Client(server.url) as client:
        client.infer(body)
        client.infer(body)
        assert [request.body for request in server.requests] == [body, body] and server.connections() == 1, SEED


# ---- where, and how long ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["gateway:8000", "ftp://gateway", "http://", "unix:", "http://a/?b", "http://user:word@a", "http://a/b c"])
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(ValueError):
        xnord.Client(url)


def test_nobody_there(tmp_path: Path) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        for url, why in ((f"http://127.0.0.1:{bound.getsockname()[1]}", "refused"), (f"unix:{tmp_path}/door", "No such file")):
            with xnord.Client(url) as client, pytest.raises(xnord.NetworkError, match=why) as raised:
                client.is_live()
            assert raised.value.message.startswith(f"{url}: no connection: ") and raised.value.__cause__


def test_a_server_that_is_silent() -> None:
    """The time-out counts from the request's deadline."""
    with fake(lambda request: threading.Event().wait(PATIENCE_S) and None) as server, xnord.Client(server.url, timeout_s=0.2) as client:
        for deadline_ms, waited in ((None, "0.2 s"), (100, "0.3 s")):
            with pytest.raises(xnord.NetworkError, match=f"silent for more than {waited}") as raised:
                client.infer(b"x", deadline_ms=deadline_ms)
            assert raised.value.timed_out
        assert len(server.requests) == 2
    with pytest.raises(ValueError, match="timeout_s"):
        xnord.Client(timeout_s=0)


# ---- answers that make no sense -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("said", "why"), [
    (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "not HTTP"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\nConnection: close\r\n\r\nabc", "cut short"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\nab", "cut short"),
    (f"HTTP/1.1 200 OK\r\nContent-Length: {ANSWER_BYTES_MAX + 1}\r\nConnection: close\r\n\r\n".encode(), "longer than"),
    (answer(b"<html>welcome</html>"), "not xnord"),
    (answer(b"[]"), "not xnord"),
    (answer(b"[" * 200000), "not xnord"),
    (answer(INFERRED.replace(b'"class": 3', b'"class": 1e999')), "not xnord"),
    (answer(INFERRED.replace(b'"top": ', b"")[:-2] + b'}, "results": null}'), "not xnord"),
    (answer(b'{"results": [{}]}'), "not xnord"),
])
def test_answers_of_others(said: bytes, why: str) -> None:
    with fake(lambda request: said + (b"" if b"Connection: close" in said or why == "not xnord" else b"\r\nConnection: close\r\n")) as server, \
            xnord.Client(server.url) as client:
        with pytest.raises(xnord.NetworkError, match=why):
            client.infer(b"x")


def damage(r: random.Random, said: bytes) -> bytes:
    """A few bytes changed, left out or put in; or the end cut off."""
    text = bytearray(said)
    for _ in range(r.randint(1, 4)):
        at = r.randrange(len(text))
        kind = r.randrange(4)
        if kind == 0:
            text[at] = r.randrange(256)
        elif kind == 1:
            del text[at:at + r.randint(1, 20)]
        elif kind == 2:
            text[at:at] = r.choice([b"\r\n", b"-1", b"99999999999999999999", b"null", b"[", b'"', b"\0", b"{}", b"1e999", b": "])
        else:
            del text[at + 1:]
        if not text:
            return b"\n"
    return bytes(text)


def test_damaged_answers(tmp_path: Path) -> None:
    """Whatever comes is a result, or one of the two errors; nothing hangs. The answers are a real server's."""
    real: dict[str, bytes] = {}
    with daemon(tmp_path, {"models": models(tmp_path)}) as d:
        for name, request in {
            "simple": b"POST /infer?top_k=2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 16\r\n\r\n" + FAST_INPUT,
            "raw": b"POST /v2/models/net/infer HTTP/1.1\r\nHost: x\r\nConnection: close\r\nInference-Header-Content-Length: 0\r\nContent-Length: 16\r\n\r\n" + FAST_INPUT,
            "meta": b"GET /v2/models/net HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            "stats": b"GET /v2/models/stats HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            "index": b"POST /v2/repository/index HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
            "error": b"POST /infer?top_k=0 HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 16\r\n\r\n" + FAST_INPUT,
        }.items():
            with socket.create_connection(("127.0.0.1", d.port), PATIENCE_S) as sock:
                sock.sendall(request)
                real[name] = sock.makefile("rb").read()
    r = random.Random(SEED)
    said = b""

    def reply(request: Request) -> bytes | None:
        server.sockets[request.connection].sendall(real["meta"] if request.head.startswith("GET /v2/models/net HTTP") and call == "raw" else said)
        return None

    calls = {"simple": lambda client: client.infer(FAST_INPUT), "raw": lambda client: client.infer_batch(FAST_INPUT, model="net").classes,
             "meta": lambda client: client.metadata("net"), "stats": lambda client: client.statistics(), "index": lambda client: client.models(),
             "error": lambda client: client.infer(FAST_INPUT)}
    ends = {"answered": 0, "refused": 0, "failed": 0}
    with fake(reply) as server:
        for turn in range(DAMAGED):
            call = r.choice(list(calls))
            said = damage(r, real[call])
            with xnord.Client(server.url, timeout_s=PATIENCE_S) as client:
                try:
                    calls[call](client)
                    ends["answered"] += 1
                except xnord.ServerError:
                    ends["refused"] += 1
                except xnord.NetworkError as error:
                    assert not error.timed_out
                    ends["failed"] += 1
                except Exception as error:
                    raise AssertionError(f"XN_SEED={SEED}, turn {turn}: {call} {said!r}: {error!r}") from error
    assert min(ends.values()) > 0, ends


# ---- refusals -----------------------------------------------------------------------------------------------------------------------------------


def test_refusals_are_followed_where_it_was_asked_for() -> None:
    with fake(lambda request: BUSY if len(server.requests) % 3 else answer()) as server:
        with xnord.Client(server.url, retry_s=60) as client:
            client.infer(b"x")
            assert len(server.requests) == 3
            client.infer(b"x")
        assert (len(server.requests), server.connections()) == (6, 1)
        with xnord.Client(server.url) as client, pytest.raises(xnord.ServerError) as raised:
            client.infer(b"x")
        assert (raised.value.status, raised.value.retry_after, raised.value.message, len(server.requests)) == (503, 0, "later", 7)


@pytest.mark.parametrize(("status", "headers"), [("503 Service Unavailable", ()), ("500 Internal Server Error", ("Retry-After: 0",)), ("400 Bad Request", ()),
                                                  ("503 Service Unavailable", ("Retry-After: 3600",)), ("429 Too Many Requests", ("Retry-After: soon",))])
def test_other_refusals_are_not(status: str, headers: tuple[str, ...]) -> None:
    """None that does not say when, and none that says later than there is time."""
    with fake(lambda request: answer(b"{}", status, *headers)) as server, xnord.Client(server.url, retry_s=60) as client:
        with pytest.raises(xnord.ServerError) as raised:
            client.infer(b"x")
        assert len(server.requests) == 1 and raised.value.status == int(status[:3])
        assert raised.value.retry_after == (float(headers[0].split()[1]) if headers and headers[0].split()[1].isdigit() else None)


def test_a_client_over_its_rate(tmp_path: Path) -> None:
    """429 of a real server: an error for who does not ask again, a delay for who does."""
    with daemon(tmp_path, {"models": models(tmp_path), "listen": [TCP, {"unix": "door"}], "limits": {"client_requests_per_s": 1}}) as d:
        with xnord.Client(f"unix:{tmp_path}/door") as client, pytest.raises(xnord.ServerError) as raised:
            while True:
                client.infer(FAST_INPUT)
        assert raised.value.status == 429 and raised.value.retry_after == 1 and "client_requests_per_s" in raised.value.message
        with xnord.Client(f"http://127.0.0.1:{d.port}", retry_s=PATIENCE_S) as client:
            assert [client.infer(FAST_INPUT).label for _ in range(2)] == ["net 1"] * 2


def test_overload(tmp_path: Path) -> None:
    """More than there is room for: each request has its answer, a result or a refusal that says when to come again; who comes again is served."""
    n = 24
    with daemon(tmp_path, {"models": models(tmp_path, slow=True, max_batch=1, queue_limit=4, timeout_ms=600000)}) as d:
        url = f"http://127.0.0.1:{d.port}"
        with xnord.Client(url) as client:
            told = list(client.infer_many([SLOW_INPUT] * n, in_flight=n))
            assert len(told) == n and {type(one) for one in told} == {xnord.Result, xnord.ServerError}, told
            assert {(one.status, (one.retry_after or 0) >= 1) for one in told if isinstance(one, xnord.ServerError)} <= {(429, True), (503, True)}
            hurried = list(client.infer_many([SLOW_INPUT] * n, in_flight=n, deadline_ms=1))
            assert all(isinstance(one, xnord.ServerError) and one.status in (429, 503) for one in hurried), hurried
        with xnord.Client(url, retry_s=PATIENCE_S) as client:
            patient = list(client.infer_many([SLOW_INPUT] * 8, in_flight=8))
            assert all(isinstance(one, xnord.Result) for one in patient), patient


# ---- ways in ------------------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    make_authority(tmp_path)
    make_certificate(tmp_path, "server")
    return tmp_path


def test_tls(authority: Path) -> None:
    """Trusted by the authority that is named, by nobody otherwise; kept connections; bodies of many pieces; a refusal while one is sent."""
    with daemon(authority, {"models": models(authority), "listen": [{**TCP, "certificate": "server.pem", "key": "server.key"}], "limits": {"body_bytes": 1 << 20}}) as d:
        url = f"https://127.0.0.1:{d.port}"
        with xnord.Client(url, cacert=authority / "ca.pem") as client:
            client.infer(FAST_INPUT)
            kept = client._transport.idle[0]
            for _ in range(10):
                assert client.infer(FAST_INPUT).label == "net 1"
            assert client._transport.idle == [kept]
            assert client.infer_batch(bytes(16 * 20), model="net").logits.shape[0] == 20
            with pytest.raises(xnord.ServerError, match="larger than the limit"):
                client.infer(bytes(30 << 20))
        with xnord.Client(url) as client, pytest.raises(xnord.NetworkError, match="certificate verify failed"):
            client.is_live()
        other_name = f"https://127.1:{d.port}"  # leads there, and is not in the certificate
        with xnord.Client(other_name, cacert=authority / "ca.pem") as client, pytest.raises(xnord.NetworkError, match="certificate verify failed"):
            client.is_live()
        with xnord.Client(other_name, insecure=True) as client:
            assert client.is_live()
        with xnord.Client(f"http://127.0.0.1:{d.port}") as client, pytest.raises(xnord.Error):
            client.is_live()
    with pytest.raises(FileNotFoundError):
        xnord.Client(url, cacert=authority / "nowhere.pem")


def test_tokens(tmp_path: Path) -> None:
    token_file(tmp_path, camera="infer", scrape="read")
    with daemon(tmp_path, {"models": models(tmp_path), "tokens": "tokens"}) as d:
        url = f"http://127.0.0.1:{d.port}"

        def status(call: str, token: str | None) -> int:
            with xnord.Client(url, token=token) as client:
                try:
                    client.infer(FAST_INPUT) if call == "infer" else client.statistics()
                except xnord.ServerError as error:
                    assert error.message
                    return error.status
            return 200

        assert [status("infer", token) for token in ("secret-camera", "secret-scrape", "wrong", None)] == [200, 403, 401, 401]
        assert [status("statistics", token) for token in ("secret-camera", "secret-scrape")] == [403, 200]
        with xnord.Client(url) as client:
            assert client.is_live() and client.is_ready()
            assert "secret" not in repr(xnord.Client(url, token="secret-camera"))
    with pytest.raises(ValueError, match="token"):
        xnord.Client(url, token="a\nb")


# ---- restarts -----------------------------------------------------------------------------------------------------------------------------------


def test_a_server_that_comes_back(tmp_path: Path) -> None:
    """On the same unix socket: the next request finds it, without an error. Nobody there meanwhile is one."""
    config = {"models": models(tmp_path), "listen": [{"unix": "door"}, TCP]}
    with xnord.Client(f"unix:{tmp_path}/door") as client:
        for _ in range(3):
            with daemon(tmp_path, config):
                for _ in range(3):
                    assert client.infer(FAST_INPUT).label == "net 1"
            with pytest.raises(xnord.NetworkError, match="no connection"):
                client.infer(FAST_INPUT)


def serving(process: subprocess.Popen[str], url: str) -> bool:
    assert process.poll() is None
    with xnord.Client(url) as client:
        return client.status()["pid"] == process.pid


def test_restarts_on_a_socket_that_stays(tmp_path: Path) -> None:
    """Restarted by whoever has the socket, under load: not one request fails."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    config = {"models": models(tmp_path), "listen": [{"name": "a"}]}
    ending, answered, failed = threading.Event(), [0] * 4, list[Exception]()

    def endless() -> Iterator[bytes]:
        while not ending.is_set():
            yield FAST_INPUT

    def ask(index: int) -> None:
        for outcome in client.infer_many(endless(), in_flight=2):
            if isinstance(outcome, Exception):
                failed.append(outcome)
            else:
                answered[index] += 1

    process = hand_over(tmp_path, config, "a", [listener])
    try:
        with xnord.Client(url) as client, ThreadPoolExecutor(len(answered)) as pool:
            asking = [pool.submit(ask, index) for index in range(len(answered))]
            try:
                for _ in range(4):
                    before = list(answered)
                    wait_until("answers of all", lambda: failed or all(now > then + 20 for now, then in zip(answered, before)))
                    process.send_signal(signal.SIGTERM)
                    assert process.wait(PATIENCE_S) == 0
                    process.communicate()
                    process = hand_over(tmp_path, config, "a", [listener])
                    wait_until("the next server", lambda: serving(process, url))
            finally:
                ending.set()
            for one in asking:
                one.result(PATIENCE_S)
        assert not failed
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE_S)
        listener.close()


def test_a_daemon_that_is_killed(tmp_path: Path) -> None:
    """In the middle of a request: an error, not a result, and no hang."""
    with contextlib.ExitStack() as stack:
        d = Daemon(tmp_path, {"models": models(tmp_path, slow=True, max_batch=1, timeout_ms=600000)}, [], {})
        stack.callback(d.close)
        d.await_ready()
        client = stack.enter_context(xnord.Client(f"http://127.0.0.1:{d.port}"))
        pool = stack.enter_context(ThreadPoolExecutor(1))
        asked = pool.submit(lambda: list(client.infer_many([SLOW_INPUT] * 300, in_flight=20)))
        wait_until("work", lambda: client.status()["requests_active"] > 5)
        d.process.kill()
        told = asked.result(PATIENCE_S)
        assert len(told) == 300 and isinstance(told[-1], xnord.NetworkError) and all(isinstance(one, (xnord.Result, xnord.NetworkError)) for one in told)
