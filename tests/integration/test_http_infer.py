# SPDX-License-Identifier: Apache-2.0
"""The Open Inference Protocol's extensions, over the wire: classification, pictures as BYTES, compression both ways, system shared memory, trace context and
the log of slow requests."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import os
import re
import struct
import threading
import zlib
from collections.abc import Iterator
from multiprocessing import shared_memory, resource_tracker
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from http_support import SEED, Answer, Daemon, daemon, expect, images, parse_answer, png, read_all, read_answer, small_network

LIMIT = 1 << 20
JSON_LIMIT = 256 << 10
CLASSES = 300  # so that an answer is worth compressing


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("infer")


@pytest.fixture(scope="module")
def gray(folder: Path) -> Any:
    return small_network(folder / "gray.xnor", "gray", (12, 12, 1), CLASSES, image=True)


@pytest.fixture(scope="module")
def server(folder: Path, gray: Any) -> Iterator[Daemon]:
    limits = {"body_bytes": LIMIT, "json_bytes": JSON_LIMIT, "buffer_bytes": 16 << 20, "shared_regions": 4, "shared_bytes": 1 << 20}
    with daemon(folder, [{"path": str(folder / "gray.xnor")}], limits=limits) as running:
        yield running


URL = "/v2/models/gray/infer"


def request_json(n: int, **members: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "pixels", "datatype": "UINT8", "shape": [n, 12, 12, 1], **members.pop("input", {})}], **members}


def with_data(batch: np.ndarray, **members: Any) -> bytes:
    return json.dumps(request_json(len(batch), input={"data": batch.ravel().tolist()}, **members)).encode()


def split(answer: Answer) -> tuple[dict[str, Any], bytes]:
    """JSON and the bytes behind it."""
    n = int(answer.headers.get("inference-header-content-length", len(answer.body)))
    return json.loads(answer.body[:n]), answer.body[n:]


# ---- classification -----------------------------------------------------------------------------------------------------------------------------


def classes(net: Any, z: np.ndarray, k: int, accumulators: bool) -> list[str]:
    order = sorted(range(len(z)), key=lambda i: (-z[i], i))[:k]
    logits = z.astype(np.float64) * net.logits_scale + net.logits_offset if hasattr(net, "logits_scale") else z * 0.0625 + 0.5
    return [f"{z[i] if accumulators else format(float(np.float32(logits[i])), '.6f')}:{i}:gray №{i}" for i in order]


@pytest.mark.parametrize("output", ["logits", "accumulators"])
@pytest.mark.parametrize("k", [1, 3, 1000])
def test_classification(server: Daemon, gray: Any, output: str, k: int) -> None:
    batch = images(gray, 2)
    want = [classes(gray, z, k, output == "accumulators") for z in expect(gray, batch)]
    asked = {"outputs": [{"name": output, "parameters": {"classification": k}}]}
    one = server.post(URL, with_data(batch, **asked)).json()["outputs"]
    assert one == [{"name": output, "datatype": "BYTES", "shape": [2, min(k, CLASSES)], "data": sum(want, [])}]
    asked["outputs"][0]["parameters"]["binary_data"] = True
    head, tail = split(server.post(URL, with_data(batch, **asked)))
    assert head["outputs"][0]["parameters"] == {"binary_data_size": len(tail)} and "data" not in head["outputs"][0]
    assert tail == b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in sum(want, []))


def test_classification_beside_numbers(server: Daemon, gray: Any) -> None:
    batch = images(gray, 1)
    outputs = [{"name": "logits", "parameters": {"classification": 2}}, {"name": "accumulators"}]
    answer = server.post(URL, with_data(batch, outputs=outputs)).json()["outputs"]
    assert answer[0]["data"] == classes(gray, expect(gray, batch)[0], 2, False) and answer[1]["data"] == expect(gray, batch)[0].tolist()
    assert not any("parameters" in one for one in answer)
    zero = server.post(URL, with_data(batch, outputs=[{"name": "logits", "parameters": {"classification": 0}}])).json()["outputs"]
    assert zero[0]["datatype"] == "FP32"


@pytest.mark.parametrize("value", [-1, 1001, "2", 1.5, True])
def test_classification_of_nonsense(server: Daemon, gray: Any, value: Any) -> None:
    answer = server.post(URL, with_data(images(gray, 1), outputs=[{"name": "logits", "parameters": {"classification": value}}]))
    assert answer.status == 400 and "classification: must be" in answer.error


# ---- parameters ---------------------------------------------------------------------------------------------------------------------------------


def test_parameters(server: Daemon, gray: Any) -> None:
    batch = images(gray, 1)
    for parameters in ({"priority": 0}, {"priority": 1}, {"priority": 3}, {"sequence_id": 7, "sequence_start": True, "custom": "kept"}, {}):
        answer = server.post(URL, with_data(batch, parameters=parameters, id="a"))
        assert answer.status == 200 and answer.json()["id"] == "a" and "parameters" not in answer.json()
    assert "id" not in server.post(URL, with_data(batch, id="")).json()
    for parameters, said in (({"priority": -1}, "priority: must be"), ({"priority": "high"}, "priority: must be"), ([], "must be an object"),
                             ({"binary_data_output": 1}, "binary_data_output: must be"), ({"timeout": "1"}, "timeout: must be")):
        answer = server.post(URL, with_data(batch, parameters=parameters))
        assert answer.status == 400 and said in answer.error
    assert server.post("/infer", json.dumps({"tensor": batch[0].ravel().tolist(), "priority": 1}).encode(), "application/json").status == 200
    answer = server.post("/infer", json.dumps({"tensor": batch[0].ravel().tolist(), "priority": "x"}).encode(), "application/json")
    assert answer.status == 400 and "priority: must be" in answer.error


def test_floats_are_exact(server: Daemon, gray: Any) -> None:
    """The text of an FP32 reads back as the very float that the binary form carries."""
    batch = images(gray, 3)
    text = server.post(URL, with_data(batch, outputs=[{"name": "logits"}])).json()["outputs"][0]["data"]
    _, tail = split(server.post(URL, with_data(batch, outputs=[{"name": "logits", "parameters": {"binary_data": True}}])))
    assert np.array_equal(np.array(text, np.float32), np.frombuffer(tail, "<f4"))


@pytest.mark.parametrize("nested", [False, True])
def test_pictures_as_json(server: Daemon, gray: Any, nested: bool) -> None:
    batch = images(gray, 2)
    texts: list[Any] = [base64.b64encode(png(one)).decode() for one in batch]
    data = [[text] for text in texts] if nested else texts
    body = {"inputs": [{"name": "pixels", "datatype": "BYTES", "shape": [2, 1] if nested else [2], "data": data}], "outputs": [{"name": "accumulators"}]}
    answer = server.post(URL, json.dumps(body).encode())
    assert answer.json()["outputs"][0]["data"] == expect(gray, batch).ravel().tolist()
    for wrong, said in ((data[:1], "array of 2 strings"), ([data[0], "%"], "image 1: not valid base64"), ([data[0], 7], "string of base64")):
        body["inputs"][0]["data"] = wrong
        answer = server.post(URL, json.dumps(body).encode())
        assert answer.status == 400 and said in answer.error, answer.error


# ---- compressed requests ------------------------------------------------------------------------------------------------------------------------

CODINGS = {"gzip": lambda data: gzip.compress(data), "deflate": lambda data: zlib.compress(data), "x-gzip": lambda data: gzip.compress(data, 1)}


@pytest.mark.parametrize("coding", CODINGS)
def test_compressed_request(server: Daemon, gray: Any, coding: str) -> None:
    batch = images(gray, 8)
    want = expect(gray, batch).ravel().tolist()
    pack = CODINGS[coding]
    plain = with_data(batch, outputs=[{"name": "accumulators"}])
    assert server.post(URL, pack(plain), Content_Encoding=coding).json()["outputs"][0]["data"] == want
    head = json.dumps(request_json(8, input={"parameters": {"binary_data_size": batch.nbytes}}, outputs=[{"name": "accumulators"}])).encode()
    answer = server.post(URL, pack(head + batch.tobytes()), Content_Encoding=coding, Inference_Header_Content_Length=str(len(head)))
    assert answer.json()["outputs"][0]["data"] == want
    results = server.post("/infer", pack(batch.tobytes()), Content_Encoding=coding).json()["results"]
    assert [one["class"] for one in results] == expect(gray, batch).argmax(1).tolist()


def test_compressed_byte_by_byte(server: Daemon, gray: Any) -> None:
    """Chunked, one byte a chunk, with sizes that end exactly where a buffer does."""
    for n in (1, 28, 29):  # 4,096 bytes are between 28 and 29 tensors of 144
        batch = images(gray, n)
        body = gzip.compress(batch.tobytes())
        with contextlib.closing(server.connect()) as client:
            client.sendall(b"POST /infer HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n")
            client.sendall(b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n")
            assert [one["class"] for one in read_answer(client).json()["results"]] == expect(gray, batch).argmax(1).tolist()


def test_inflated_size_is_limited(server: Daemon, gray: Any) -> None:
    """A bomb is refused while it is being inflated, and what just fits is taken (and refused for what it says)."""
    before = server.resident_bytes()
    for coding in ("gzip", "deflate"):
        bomb = CODINGS[coding](bytes(1 << 30)) if coding == "gzip" else zlib.compress(bytes(1 << 26), 9)
        assert len(bomb) < LIMIT * 2
        answer = server.post("/infer", bomb[:LIMIT - 1], Content_Encoding=coding)
        assert answer.status == 413 and f"limit of {LIMIT}" in answer.error
    assert server.resident_bytes() - before < 8 * LIMIT
    fits = server.post("/infer", gzip.compress(bytes(LIMIT)), Content_Encoding="gzip")
    assert fits.status == 400 and f"{LIMIT} bytes are neither" in fits.error
    over = server.post("/infer", gzip.compress(bytes(LIMIT + 1)), Content_Encoding="gzip")
    assert over.status == 413
    json_over = server.post(URL, gzip.compress(b" " * (JSON_LIMIT + 1)), Content_Encoding="gzip")
    assert json_over.status == 413 and f"limit of {JSON_LIMIT}" in json_over.error
    assert server.post(URL, gzip.compress(with_data(images(gray, 1))), Content_Encoding="gzip").status == 200


def test_corrupt_compression(server: Daemon, gray: Any) -> None:
    good = gzip.compress(images(gray, 1).tobytes())
    for body, coding, said in ((b"not gzip at all", "gzip", "not valid gzip"), (good, "deflate", "not valid deflate"), (good[:-1], "gzip", "cut short"),
                               (good + b"x", "gzip", "goes on after its end"), (good[:-8] + bytes(8), "gzip", "not valid gzip"), (b"", "gzip", "cut short"),
                               (zlib.compress(bytes(144))[2:-4], "deflate", "not valid deflate")):
        answer = server.post("/infer", body, Content_Encoding=coding)
        assert answer.status == 400 and said in answer.error, (body, answer)
    for coding in ("br", "gzip, gzip", "zstd", "compress", ""):
        answer = server.post("/infer", good, Content_Encoding=coding)
        assert answer.status == 501 and answer.headers["accept-encoding"] == "gzip, deflate" and answer.error
    assert server.post("/infer", images(gray, 1).tobytes(), Content_Encoding="identity").status == 200


def test_random_damage_of_compressed_bodies(server: Daemon, gray: Any) -> None:
    rng = np.random.default_rng(SEED)
    good = gzip.compress(images(gray, 4).tobytes())
    for _ in range(200):
        body = bytearray(good)
        for at in rng.integers(0, len(body), rng.integers(1, 4)):
            body[at] ^= int(rng.integers(1, 256))
        answer = server.post("/infer", bytes(body[:rng.integers(1, len(body) + 1)]), Content_Encoding="gzip")
        assert answer.status in (200, 400, 413, 415) and answer.body


# ---- compressed answers -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("accept,coding", [("gzip", "gzip"), ("deflate", "deflate"), ("gzip, deflate, br", "gzip"), ("deflate;q=0.9, gzip;q=0.8", "deflate"),
                                           ("gzip;q=0, deflate", "deflate"), ("*", "gzip"), ("gzip;q=0, *", "deflate"), ("x-gzip", "gzip"), ("GZIP", "gzip"),
                                           ("identity;q=1, gzip;q=0.5", None), ("gzip;q=0", None), ("br", None), ("", None), ("gzip;q=x", None),
                                           ("*;q=0", None), (" gzip ; q=1.000 ", "gzip")])
def test_answer_compression(server: Daemon, gray: Any, accept: str, coding: str | None) -> None:
    unpack = {"gzip": gzip.decompress, "deflate": zlib.decompress, None: bytes}[coding]
    batch = images(gray, 4)
    answer = server.post(URL, with_data(batch, outputs=[{"name": "accumulators"}]), Accept_Encoding=accept)
    assert answer.headers.get("content-encoding") == coding and answer.headers["vary"] == "Accept-Encoding"
    assert json.loads(unpack(answer.body))["outputs"][0]["data"] == expect(gray, batch).ravel().tolist()
    binary = server.post(URL, with_data(batch, outputs=[{"name": "accumulators", "parameters": {"binary_data": True}}]), Accept_Encoding=accept)
    whole = unpack(binary.body) if "content-encoding" in binary.headers else binary.body
    n = int(binary.headers["inference-header-content-length"])
    assert json.loads(whole[:n]) and np.array_equal(np.frombuffer(whole[n:], "<i4").reshape(4, -1), expect(gray, batch))
    page = server.request("GET", "/metrics", headers={"Accept-Encoding": accept})
    assert page.headers.get("content-encoding") == coding and b"xnord_build_info" in unpack(page.body)


def test_small_answers_stay_plain(server: Daemon, gray: Any) -> None:
    batch = images(gray, 1)
    for answer in (server.post(URL, with_data(batch, outputs=[{"name": "logits", "parameters": {"classification": 1}}]), Accept_Encoding="gzip"),
                   server.request("GET", "/healthz", headers={"Accept-Encoding": "gzip"}), server.post("/infer", b"x", Accept_Encoding="gzip")):
        assert "content-encoding" not in answer.headers and "vary" not in answer.headers and answer.body


# ---- shared memory ------------------------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def shared(size: int) -> Iterator[shared_memory.SharedMemory]:
    memory = shared_memory.SharedMemory(create=True, size=size)
    try:
        yield memory
    finally:
        memory.close()
        with contextlib.suppress(FileNotFoundError):
            memory.unlink()


def register(server: Daemon, name: str, key: str, size: int, offset: int | None = 0) -> Answer:
    body = {"key": key, "byte_size": size, **({} if offset is None else {"offset": offset})}
    return server.post(f"/v2/systemsharedmemory/region/{name}/register", json.dumps(body).encode())


def unregister(server: Daemon, name: str | None = None) -> Answer:
    return server.post(f"/v2/systemsharedmemory/region/{name}/unregister" if name else "/v2/systemsharedmemory/unregister", b"")


def status(server: Daemon, name: str | None = None) -> Answer:
    return server.get(f"/v2/systemsharedmemory/region/{name}/status" if name else "/v2/systemsharedmemory/status")


@pytest.fixture
def clean(server: Daemon) -> Iterator[None]:
    yield
    assert unregister(server).status == 200 and status(server).json() == []


def where(region: str, size: int, offset: int | None = None) -> dict[str, Any]:
    return {"parameters": {"shared_memory_region": region, "shared_memory_byte_size": size, **({} if offset is None else {"shared_memory_offset": offset})}}


def test_shared_memory(server: Daemon, gray: Any, clean: None) -> None:
    """Input and both outputs, at odd offsets, of one region and of two."""
    batch = images(gray, 3)
    want = expect(gray, batch)
    out = want.nbytes
    with shared(batch.nbytes + 2 * out + 64) as a, shared(4096) as b:
        assert register(server, "a", a.name, a.size).status == 200 and register(server, "b", "/" + b.name.lstrip("/"), 4000, 96).body == b""
        a.buf[7:7 + batch.nbytes] = batch.tobytes()
        at = batch.nbytes + 11
        body = request_json(3, input=where("a", batch.nbytes, 7), id="s",
                            outputs=[{"name": "accumulators", **where("a", out, at)}, {"name": "logits", **where("b", 4000)}])
        answer = server.post(URL, json.dumps(body).encode())
        assert answer.json() == {"id": "s", "model_name": "gray", "model_version": "3",
                                 "outputs": [{"name": "accumulators", "datatype": "INT32", "shape": [3, CLASSES]},
                                             {"name": "logits", "datatype": "FP32", "shape": [3, CLASSES]}]}
        assert np.array_equal(np.frombuffer(bytes(a.buf[at:at + out]), "<i4").reshape(3, -1), want)
        assert np.array_equal(np.frombuffer(bytes(b.buf[96:96 + out]), "<f4"), (want.ravel() * 0.0625 + 0.5).astype(np.float32))
        # input alone, outputs in the answer
        body = request_json(3, input=where("a", batch.nbytes, 7), outputs=[{"name": "accumulators"}])
        assert server.post(URL, json.dumps(body).encode()).json()["outputs"][0]["data"] == want.ravel().tolist()


def test_shared_pictures(server: Daemon, gray: Any, clean: None) -> None:
    batch = images(gray, 2)
    data = b"".join(struct.pack("<I", len(one)) + one for one in map(png, batch))
    with shared(len(data)) as memory:
        memory.buf[:len(data)] = data
        assert register(server, "p", memory.name, len(data), None).status == 200
        body = {"inputs": [{"name": "pixels", "datatype": "BYTES", "shape": [2], **where("p", len(data))}], "outputs": [{"name": "accumulators"}]}
        assert server.post(URL, json.dumps(body).encode()).json()["outputs"][0]["data"] == expect(gray, batch).ravel().tolist()


def test_shared_memory_registration(server: Daemon, clean: None) -> None:
    with shared(8192) as memory:
        key = memory.name
        assert register(server, "r", key, 8192).status == 200
        entry = {"name": "r", "key": key, "offset": 0, "byte_size": 8192}
        assert status(server).json() == [entry] == status(server, "r").json()
        for answer, said in ((register(server, "r", key, 10), "registered already"), (register(server, "x", key, 8193), "does not have"),
                             (register(server, "x", key, 1, 8192), "does not have"), (register(server, "x", key, 0), "at least 1"),
                             (register(server, "x", "nobody-has-this", 1), "No such file"), (register(server, "x", "../etc/passwd", 1), "key: must"),
                             (register(server, "x", "a b", 1), "key: must"), (register(server, "x", "", 1), "key: must"),
                             (register(server, "x", "a/../b", 1), "key: must"), (register(server, "x", "a/b", 1), "cannot open"),
                             (register(server, "x", "k" * 256, 1), "key: must"), (register(server, "x", "k" * 255, 1), "cannot open"),
                             (register(server, "x", key, 2**63 - 1, 2**63 - 1), "2^63"),
                             (server.post("/v2/systemsharedmemory/region/x/register", b"{}"), "key: must"),
                             (server.post("/v2/systemsharedmemory/region/x/register", b""), "key: must"),
                             (server.post("/v2/systemsharedmemory/region/x/register", b'{"key":"a","byte_size":"1"}'), "byte_size: must")):
            assert answer.status == 400 and said in answer.error, answer
        assert status(server, "x").status == 404 and status(server, "x").error
        assert unregister(server, "nobody").status == 200 and unregister(server, "r").status == 200 and status(server).json() == []
        assert server.post("/v2/systemsharedmemory/region/x/register", b" " * 200000).status == 413
        assert server.get("/v2/systemsharedmemory/region/x/register").headers["allow"] == "POST"


def test_a_name_that_is_too_long_is_nobodys(server: Daemon, clean: None) -> None:
    """Were all such names one, what one client registers under such a name another would find."""
    with shared(4096) as memory:
        for name in ("r" * 128, "r" * 1000):
            refused = register(server, name, memory.name, 4096)
            assert refused.status == 400 and "1 to 127 bytes" in refused.error
        assert status(server).json() == []
        assert register(server, "r" * 127, memory.name, 4096).status == 200 and len(status(server).json()) == 1


def test_shared_memory_limits(server: Daemon, clean: None) -> None:
    with shared(1 << 20) as memory:
        for i in range(4):
            assert register(server, f"r{i}", memory.name, 4096).status == 200
        many = register(server, "r4", memory.name, 4096)
        assert many.status == 503 and "shared_regions = 4" in many.error
        unregister(server, "r1")
        large = register(server, "r4", memory.name, (1 << 20) - 3 * 4096 + 1)
        assert large.status == 413 and "shared_bytes" in large.error
        assert register(server, "r4", memory.name, (1 << 20) - 3 * 4096).status == 200


@pytest.mark.parametrize("change,said", [
    ({"shared_memory_region": "nobody"}, "no shared memory region"), ({"shared_memory_region": 7}, "must be a name"),
    ({"shared_memory_byte_size": 143}, "1 tensors of 144 bytes expected, 143"), ({"shared_memory_byte_size": -1}, "number of bytes"),
    ({"shared_memory_offset": 3953}, "leave shared memory region"), ({"shared_memory_offset": 2**63 - 1}, "leave shared memory region"),
    ({"shared_memory_offset": "0"}, "number of bytes"), ({"binary_data_size": 144}, "exactly one of")])
def test_shared_input_that_is_wrong(server: Daemon, clean: None, change: dict[str, Any], said: str) -> None:
    with shared(4096) as memory:
        assert register(server, "a", memory.name, 4096).status == 200
        part = where("a", 144)
        part["parameters"].update(change)
        answer = server.post(URL, json.dumps(request_json(1, input=part)).encode())
        assert answer.status == 400 and said in answer.error


def test_shared_output_that_is_wrong(server: Daemon, gray: Any, clean: None) -> None:
    with shared(4096) as memory:
        assert register(server, "a", memory.name, 4096).status == 200
        need = 4 * CLASSES
        for output, said in (({"name": "logits", **where("a", need - 1)}, f"takes {need} bytes"), ({"name": "logits", **where("a", need, 4096 - need + 1)}, "leave"),
                             ({"name": "logits", "parameters": {**where("a", need)["parameters"], "classification": 2}}, "classification does not go")):
            answer = server.post(URL, with_data(images(gray, 1), outputs=[output]))
            assert answer.status == 400 and said in answer.error


def test_read_only_objects(server: Daemon, gray: Any, clean: None) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everything")
    with shared(4096) as memory:
        os.chmod(f"/dev/shm/{memory.name}", 0o400)
        assert register(server, "a", memory.name, 4096).status == 200
        body = request_json(1, input=where("a", 144), outputs=[{"name": "logits", **where("a", 4 * CLASSES)}])
        answer = server.post(URL, json.dumps(body).encode())
        assert answer.status == 400 and "may only read" in answer.error


def test_an_object_that_is_cut_short(server: Daemon, gray: Any, clean: None) -> None:
    """Truncated by its client after it was registered: the request fails, for input and output; the daemon and others go on."""
    batch = images(gray, 1)
    for part in ("input", "output"):
        with shared(8 * 4096) as memory:
            assert register(server, "t", memory.name, memory.size).status == 200
            os.truncate(f"/dev/shm/{memory.name}", 0)
            if part == "input":
                body = json.dumps(request_json(1, input=where("t", 144, 4090))).encode()
            else:
                body = with_data(batch, outputs=[{"name": "logits", **where("t", 4 * CLASSES, 5000)}])
            for _ in range(2):
                answer = server.post(URL, body)
                if part == "input":
                    assert answer.status == 400 and "no longer as large" in answer.error
            after = server.post(URL, body)
            assert after.status == 400 and "no longer as large" in after.error
            assert server.post(URL, with_data(batch)).status == 200
            # What is lost stays lost until it is registered anew.
            os.truncate(f"/dev/shm/{memory.name}", memory.size)
            assert server.post(URL, body).status == 400
            unregister(server, "t")
            assert register(server, "t", memory.name, memory.size).status == 200 and server.post(URL, body).status == 200
            unregister(server, "t")


def test_truncation_under_load(server: Daemon, gray: Any, clean: None) -> None:
    """Regions come, shrink and go while four clients use them: every request is answered, with results or with a reason."""
    stop = threading.Event()
    seen: list[int] = []

    def client(at: int) -> None:
        with contextlib.closing(server.client()) as connection:
            while not stop.is_set():
                body = request_json(8, input=where("u", 8 * 144, 4090), outputs=[{"name": "accumulators", **where("u", 32 * CLASSES, at)}])
                connection.request("POST", URL, json.dumps(body).encode())
                response = connection.getresponse()
                text = response.read()
                assert response.status in (200, 400) and text
                seen.append(response.status)

    clients = [threading.Thread(target=client, args=(8192 + 10000 * i,)) for i in range(4)]  # each has its own place for its results
    for one in clients:
        one.start()
    try:
        for _ in range(60):
            with shared(16 * 4096) as memory:
                assert register(server, "u", memory.name, memory.size).status == 200
                want = len(seen) + 8
                while len(seen) < want:
                    assert all(one.is_alive() for one in clients)
                    stop.wait(0.001)
                os.truncate(f"/dev/shm/{memory.name}", 4096)
                want = len(seen) + 8
                while len(seen) < want:
                    assert all(one.is_alive() for one in clients)
                    stop.wait(0.001)
                assert unregister(server, "u").status == 200
    finally:
        stop.set()
        for one in clients:
            one.join()
    assert {200, 400} == set(seen)


def test_descriptors_and_mappings_do_not_leak(server: Daemon, clean: None) -> None:
    def mappings() -> int:
        return Path(f"/proc/{server.process.pid}/maps").read_text().count("/dev/shm/")

    descriptors = server.descriptors()
    for _ in range(20):
        with shared(4096) as memory:
            assert register(server, "l", memory.name, 4096).status == 200 and mappings() == 1
            assert unregister(server, "l").status == 200 and mappings() == 0
    assert abs(server.descriptors() - descriptors) < 5


def test_cuda_twin(server: Daemon) -> None:
    assert server.post("/v2/cudasharedmemory/unregister", b"").status == 200
    assert server.post("/v2/cudasharedmemory/region/x/unregister", b"").status == 200
    assert server.get("/v2/cudasharedmemory/status").json() == []
    refused = server.post("/v2/cudasharedmemory/region/x/register", b"{}")
    assert refused.status == 501 and "CUDA" in refused.error


def test_switched_off(tmp_path: Path, gray: Any, folder: Path) -> None:
    with daemon(tmp_path, [{"path": str(folder / "gray.xnor")}], limits={"shared_regions": 0}) as server, shared(4096) as memory:
        refused = register(server, "a", memory.name, 4096)
        assert refused.status == 501 and "limits.shared_regions" in refused.error
        assert status(server).json() == [] and unregister(server).status == 200
        assert server.post(URL, json.dumps(request_json(1, input=where("a", 144))).encode()).status == 400


# ---- trace context, slow requests ---------------------------------------------------------------------------------------------------------------

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


def test_trace_context(server: Daemon, gray: Any) -> None:
    body = images(gray, 1).tobytes()
    spans = set()
    for path, data in (("/infer", body), ("/infer", b"x"), ("/infer?model=nobody", body), (URL, b"{")):
        answer = server.post(path, data, traceparent=PARENT, tracestate="a=1,b=2")
        match = re.fullmatch(rf"00-{TRACE}-([0-9a-f]{{16}})-01", answer.headers["traceparent"])
        assert match and match[1] != "00f067aa0ba902b7" and answer.headers["tracestate"] == "a=1,b=2"
        spans.add(match[1])
    assert len(spans) == 4
    later = server.post("/infer", body, traceparent=f"cc-{TRACE}-00f067aa0ba902b7-00-what-comes")
    assert re.fullmatch(rf"00-{TRACE}-[0-9a-f]{{16}}-00", later.headers["traceparent"]) and "tracestate" not in later.headers
    long = server.post("/infer", body, traceparent=PARENT, tracestate="a=" + "x" * 511)
    assert "traceparent" in long.headers and "tracestate" not in long.headers


@pytest.mark.parametrize("parent", ["", "x", PARENT[:-1], PARENT + "-", PARENT.upper(), "ff" + PARENT[2:], f"00-{'0' * 32}-00f067aa0ba902b7-01",
                                    f"00-{TRACE}-{'0' * 16}-01", PARENT.replace("-", "_"), "cc" + PARENT[2:] + "x", "0g" + PARENT[2:], PARENT[:-2] + "0x"])
def test_trace_context_that_is_none(server: Daemon, gray: Any, parent: str) -> None:
    answer = server.post("/infer", images(gray, 1).tobytes(), traceparent=parent, tracestate="a=1")
    assert answer.status == 200 and "traceparent" not in answer.headers and "tracestate" not in answer.headers


def test_slow_requests_are_logged(tmp_path: Path, gray: Any, folder: Path) -> None:
    """A batch that waits for others for 50 ms is slow; one that does not is not."""
    models = [{"path": str(folder / "gray.xnor"), "max_batch": 2, "max_delay_us": 0}]
    body = images(gray, 1).tobytes()
    with daemon(tmp_path, models, log={"target": "stderr", "level": "warning", "slow_ms": 1}) as server:
        with contextlib.closing(server.connect()) as client:  # its headers come, and its body after a second request has been answered
            client.sendall(f"POST /infer HTTP/1.1\r\nHost: x\r\nX-Request-Id: late\r\ntraceparent: {PARENT}\r\nContent-Length: {len(body)}\r\n\r\n".encode())
            for _ in range(20):
                server.post("/infer", body)
            client.sendall(body)
            assert read_answer(client).status == 200
        line = next(line for line in server.log.read_text().splitlines() if "late" in line)
        assert re.search(r"slow request: [\d.]+ ms: receive [\d.]+, decode 0.000, queue [\d.]+, execute [\d.]+, respond [\d.]+ ms; 1 images", line), line
        assert f"TRACE_ID={TRACE}" in line and "MODEL=gray" in line and "cpu0" in line
    with daemon(tmp_path, models, log={"target": "stderr", "level": "warning"}) as server:
        server.post("/infer", body)
        assert "slow request" not in server.log.read_text()
