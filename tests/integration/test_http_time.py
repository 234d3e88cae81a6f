# SPDX-License-Identifier: Apache-2.0
"""Time: clients that are too slow, deadlines while an instance is busy or hangs, queues that are full. Order is asserted, durations are not."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from http_support import PATIENCE_S, XNORD, Answer, Daemon, daemon, expect, images, parse_answer, read_all, read_answer, small_network, slow_network

TENSOR = bytes(784)
QUEUE_LIMIT = 8
RUN_S = 0.3  # what the slow network is made to take for an image, about

# ---- slow clients ---------------------------------------------------------------------------------------------------------------------------------

HEAD = b"POST /infer HTTP/1.1\r\nHost: x\r\n"
SLOW = {
    "header": (b"GET /healthz HTTP/1.1\r\nX-Slow: ", b"a", "headers did not arrive"),
    "request line": (b"G", b"E", "headers did not arrive"),
    "body": (HEAD + b"Content-Length: 784\r\n\r\n", b"a", "body did not arrive"),
    "body after 100": (HEAD + b"Content-Length: 784\r\nExpect: 100-continue\r\n\r\n", b"a", "body did not arrive"),
    "one-byte chunks": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n", "body did not arrive"),
    "stalled header": (b"GET /healthz HTTP/1.1\r\nX-Slow: ", b"", "headers did not arrive"),
    "stalled body": (HEAD + b"Content-Length: 784\r\n\r\nabc", b"", "body did not arrive"),
}


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("hasty")
    small_network(folder / "gray.xnor", "gray", (28, 28, 1), 10)
    with daemon(folder, [{"path": str(folder / "gray.xnor")}], http={"idle_timeout_s": 1, "body_timeout_s": 1, "threads": 2}) as running:
        yield running


def drip(server: Daemon, start: bytes, piece: bytes, before: bytes = b"") -> bytes:
    """Send `start`, then `piece` again and again, until the server has had enough; what it said."""
    deadline = time.monotonic() + PATIENCE_S
    with server.connect() as connection:
        if before:
            connection.sendall(before)
            assert b"\r\n\r\nok\n" in connection.recv(65536)
        connection.sendall(start)
        connection.settimeout(0.1)
        received = b""
        while time.monotonic() < deadline:
            try:
                chunk = connection.recv(65536)
                if not chunk:
                    return received
                received += chunk
            except TimeoutError:
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    connection.sendall(piece)
            except ConnectionResetError:
                return received
    raise AssertionError("the server never had enough")


def test_slow_clients_get_408_while_others_are_served(hasty: Daemon) -> None:
    before = hasty.metric("xnord_requests_rejected_total", reason="slow_client")
    with ThreadPoolExecutor(2 * len(SLOW)) as pool:
        earlier = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
        waits = [(name, words, pool.submit(drip, hasty, start, piece, before))
                 for name, (start, piece, words) in SLOW.items() for before in ((b"", earlier) if piece else (b"",))]
        while not all(wait.done() for _, _, wait in waits):
            assert hasty.post("/infer", TENSOR).status == 200
        for name, words, wait in waits:
            received = wait.result().removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
            answer = parse_answer(received)
            assert answer.status == 408 and answer.headers["connection"] == "close", name
            assert words in answer.error, name
    assert hasty.metric("xnord_requests_rejected_total", reason="slow_client") == before + len(waits)


def test_idle_connections_end_without_a_word(hasty: Daemon) -> None:
    with hasty.connect() as silent, hasty.connect() as served:
        served.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"\r\n\r\nok\n" in served.recv(65536)
        assert (read_all(silent), read_all(served)) == (b"", b"")


def test_busy_keep_alive_connection_is_not_swept(hasty: Daemon) -> None:
    """Each request starts the connection's time anew: one that asks on stays open for longer than any limit."""
    client = hasty.client()
    client.connect()
    first = client.sock
    started = time.monotonic()
    while time.monotonic() < started + 4:
        client.request("GET", "/metrics")
        client.getresponse().read()
        assert client.sock is first
    client.close()


def test_client_that_does_not_take_its_answers(hasty: Daemon) -> None:
    """Sends requests and never reads: its connection ends, and its requests with it."""
    with hasty.connect() as connection:
        connection.settimeout(0.5)
        with contextlib.suppress(OSError):
            while True:
                connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
        deadline = time.monotonic() + PATIENCE_S
        with pytest.raises(OSError):
            while time.monotonic() < deadline:
                with contextlib.suppress(TimeoutError):
                    connection.sendall(b"x")
    assert hasty.get("/healthz").status == 200


# ---- deadlines and queues -------------------------------------------------------------------------------------------------------------------------


class Busy:
    """A daemon with one instance, a network that keeps it busy, and a quick one."""

    def __init__(self, server: Daemon, run_s: float, models: list[dict[str, Any]]) -> None:
        self.server, self.run_s, self.models = server, run_s, models
        self.pool = ThreadPoolExecutor(64)

    def occupy(self, count: int = 6) -> Future[Answer]:
        """Some runs' worth of work for the instance; returns once it is running."""
        done = self.pool.submit(self.server.post, "/infer?model=slow&timeout_ms=600000", bytes(96 * 96 * count))
        self.wait(lambda status: status["instances"][0]["busy_seconds"] >= 0 and queued(status, "slow") == count - 1)
        return done

    def wait(self, condition) -> None:  # type: ignore[no-untyped-def]
        deadline = time.monotonic() + PATIENCE_S
        while not condition(self.server.get("/v1/status").json()):
            assert time.monotonic() < deadline


def queued(status: dict, name: str) -> int:  # type: ignore[type-arg]
    return next(model["queue_depth"] for model in status["models"] if model["name"] == name)


def one_run_s(folder: Path, layers: int) -> float:
    """Seconds that the accelerator takes for an image of the slow network."""
    slow_network(folder / "slow.xnor", "slow", layers)
    with daemon(folder, [{"path": str(folder / "slow.xnor")}]) as server:
        times = [server.post("/infer", bytes(96 * 96)).json()["results"][0]["timings_us"]["execute"] for _ in range(3)]
    return float(np.median(times)) / 1e6


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Busy]:
    folder = tmp_path_factory.mktemp("busy")
    layers = 2
    run_s = one_run_s(folder, layers)
    if run_s < RUN_S:
        layers = min(math.ceil(layers * RUN_S / run_s), 300)
        run_s = one_run_s(folder, layers)
    small_network(folder / "quick.xnor", "quick", (28, 28, 1), 10)
    models = [{"path": str(folder / "quick.xnor")}, {"path": str(folder / "slow.xnor"), "max_batch": 1, "queue_limit": QUEUE_LIMIT}]
    with daemon(folder, models) as server:
        yield Busy(server, run_s, models)


def test_what_cannot_be_done_in_time_is_refused_at_once(busy: Busy) -> None:
    """The only instance is busy for several runs; requests that want to be done before it is free are told so before it is, wherever they say it."""
    before = busy.server.metric("xnord_requests_rejected_total", reason="deadline")
    work = busy.occupy()
    milliseconds = max(int(busy.run_s * 200), 1)
    for answer in (busy.server.post(f"/infer?timeout_ms={milliseconds}", TENSOR),
                   busy.server.post("/infer", json.dumps({"tensor": [0] * 784, "timeout_ms": milliseconds}).encode(), "application/json"),
                   busy.server.post("/v2/models/quick/infer", json.dumps({
                       "parameters": {"timeout": 1000 * milliseconds},
                       "inputs": [{"name": "pixels", "datatype": "UINT8", "shape": [1, 28, 28, 1], "data": [0] * 784}]}).encode())):
        assert answer.status == 503 and f"could not be done within {milliseconds} ms" in answer.error
        assert int(answer.headers["retry-after"]) >= 1
        assert not work.done()
    assert busy.server.metric("xnord_requests_rejected_total", reason="deadline") == before + 3
    assert work.result().status == 200


@pytest.mark.parametrize("pieces", [1, 3])
def test_a_refusal_for_want_of_time_keeps_the_connection(busy: Busy, pieces: int) -> None:
    """Where the body is small; the next request on the connection is read from its first byte."""
    milliseconds = max(int(busy.run_s * 200), 1)
    work = busy.occupy()
    with busy.server.connect() as connection:
        request = b"POST /infer?timeout_ms=%d HTTP/1.1\r\nHost: x\r\nX-Request-Id: a\r\nContent-Length: 784\r\n\r\n" % milliseconds + TENSOR
        for i in range(pieces):
            connection.sendall(request[len(request) * i // pieces:len(request) * (i + 1) // pieces])
        answer = read_answer(connection)
        assert answer.status == 503 and "could not be done within" in answer.error and "connection" not in answer.headers
        assert answer.headers["x-request-id"] == "a" and int(answer.headers["retry-after"]) >= 1
        assert not work.done()
        connection.sendall(b"POST /infer?timeout_ms=600000 HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 784\r\n\r\n" + TENSOR)
        assert read_answer(connection).status == 200
    assert work.result().status == 200


@pytest.mark.parametrize("headers", [b"Expect: 100-continue\r\nContent-Length: 784\r\n", b"Content-Length: 65537\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_a_refusal_does_not_wait_for_what_may_not_come(busy: Busy, headers: bytes) -> None:
    work = busy.occupy()
    with busy.server.connect() as connection:
        connection.sendall(b"POST /infer?timeout_ms=%d HTTP/1.1\r\nHost: x\r\n%s\r\n" % (max(int(busy.run_s * 200), 1), headers))
        answer = parse_answer(read_all(connection))  # until the end
    assert answer.status == 503 and answer.headers["connection"] == "close" and not work.done()
    assert work.result().status == 200


def test_less_time_than_a_run_takes_is_refused_by_an_idle_server_too(busy: Busy) -> None:
    answer = busy.server.post(f"/infer?model=slow&timeout_ms={max(int(busy.run_s * 200), 1)}", bytes(96 * 96))
    assert answer.status == 503 and "could not be done within" in answer.error
    assert busy.server.post("/infer", TENSOR).status == 200


def test_full_queue_refuses_before_the_body(busy: Busy) -> None:
    """No 100 asks for the body; Retry-After says when to come again; other models are not concerned."""
    work = [busy.pool.submit(busy.server.post, "/infer?model=slow&timeout_ms=600000", bytes(96 * 96)) for _ in range(QUEUE_LIMIT + 1)]
    busy.wait(lambda status: queued(status, "slow") == QUEUE_LIMIT)
    with busy.server.connect() as connection:
        connection.sendall(b"POST /infer?model=slow HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9216\r\n\r\n")
        received = read_all(connection)
    answer = parse_answer(received)
    assert answer.status == 503 and answer.headers["retry-after"] == "1"
    assert "model slow: no room for 1 image in its queue" in answer.error
    assert busy.server.post("/infer?timeout_ms=600000", TENSOR).status == 200
    assert busy.server.metric("xnord_requests_rejected_total", reason="queue_full") >= 1
    assert all(done.result().status == 200 for done in work)


def test_full_queue_is_429_where_configured(busy: Busy, tmp_path: Path) -> None:
    """For nothing else: what cannot be done in time is 503 still. Counted, and to be repeated, as ever, before the body and behind a small one."""
    with daemon(tmp_path, busy.models, http={"queue_full_status": "429"}) as server:
        full = Busy(server, busy.run_s, busy.models)
        work = full.occupy(QUEUE_LIMIT)
        late = server.post("/infer?model=slow&timeout_ms=600000", bytes(96 * 96 * 2))
        assert (late.status, late.headers["retry-after"]) == (429, "1") and "no room for 2 images in its queue" in late.error
        fill = full.pool.submit(server.post, "/infer?model=slow&timeout_ms=600000", bytes(96 * 96))
        full.wait(lambda status: queued(status, "slow") == QUEUE_LIMIT)
        early = server.post("/infer?model=slow&timeout_ms=600000", bytes(96 * 96))
        assert early.status == 429 and int(early.headers["retry-after"]) >= 1 and "no room for 1 image" in early.error
        assert server.metric("xnord_requests_rejected_total", reason="queue_full") == 2
        assert server.post(f"/infer?timeout_ms={max(int(busy.run_s * 200), 1)}", TENSOR).status == 503
        assert work.result().status == fill.result().status == 200


def test_more_images_than_the_queue_has_room_for(busy: Busy) -> None:
    answer = busy.server.post("/infer?model=slow&timeout_ms=600000", bytes(96 * 96 * (QUEUE_LIMIT + 8)))
    assert answer.status == 413 and f"its queue holds {QUEUE_LIMIT}" in answer.error
    work = busy.occupy(3)
    answer = busy.server.post("/infer?model=slow&timeout_ms=600000", bytes(96 * 96 * QUEUE_LIMIT))
    assert answer.status == 503 and int(answer.headers["retry-after"]) >= 1
    assert f"no room for {QUEUE_LIMIT} images" in answer.error
    assert work.result().status == 200


def test_clients_that_leave_while_their_requests_wait(busy: Busy) -> None:
    work = busy.occupy(3)
    for _ in range(5):
        with busy.server.connect() as connection:
            connection.sendall(b"POST /infer?model=slow HTTP/1.1\r\nHost: x\r\nContent-Length: 9216\r\n\r\n" + bytes(9216))
    assert work.result().status == 200
    busy.wait(lambda status: status["requests_active"] == 0)
    assert busy.server.post("/infer", TENSOR).status == 200


def test_drain_answers_what_was_admitted(tmp_path: Path) -> None:
    """SIGTERM while requests wait: readiness goes, new connections are refused, every admitted request gets its answer, exit status 0."""
    net = slow_network(tmp_path / "slow.xnor", "slow", 4)
    batch = images(net, 3)
    with daemon(tmp_path, [{"path": str(tmp_path / "slow.xnor"), "max_batch": 1, "timeout_ms": 600000}], drain_timeout_s=600) as server, ThreadPoolExecutor(8) as pool:
        open_connection = server.client()
        open_connection.request("GET", "/readyz")
        assert open_connection.getresponse().read() == b"ready\n"
        work = [pool.submit(server.post, "/v2/models/slow/infer", one.tobytes(), Inference_Header_Content_Length="0") for one in batch]
        while server.get("/v1/status").json()["requests_active"] < len(batch) and not all(done.done() for done in work):
            pass
        server.process.terminate()
        for done, want in zip(work, expect(net, batch), strict=True):
            answer = done.result()
            assert answer.status == 200
            got = np.frombuffer(answer.body[-4 * net.classes:], np.int32)
            assert np.array_equal(got, want)
        open_connection.close()
        assert server.process.wait(PATIENCE_S) == 0


def test_hung_accelerator(tmp_path: Path) -> None:
    """The deadline is kept while the only instance hangs; after its reset it serves again."""
    if b"accel.cpu.hang" not in XNORD.read_bytes():
        pytest.skip(f"{XNORD} is built without fault injection (VARIANT=debug, asan and tsan have it)")
    net = small_network(tmp_path / "quick.xnor", "quick", (28, 28, 1), 10)
    with daemon(tmp_path, [{"path": str(tmp_path / "quick.xnor")}], fault="accel.cpu.hang:3") as server:
        answers = [server.post("/infer?timeout_ms=500", TENSOR) for _ in range(6)]
        assert {answer.status for answer in answers} == {200, 503}, [answer.body for answer in answers]
        refused = next(answer for answer in answers if answer.status == 503)
        assert "deadline" in refused.error or "failed" in refused.error
        assert server.get("/healthz").status == 200
        deadline = time.monotonic() + PATIENCE_S
        while (last := server.post("/infer?timeout_ms=2000", images(net, 1).tobytes())).status != 200:
            assert time.monotonic() < deadline, last.body
        assert last.json()["results"][0]["class"] == int(np.argmax(expect(net, images(net, 1))[0]))
