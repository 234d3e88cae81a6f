# SPDX-License-Identifier: Apache-2.0
"""What comes out of each door is what the reference computes; and what the module makes of answers and errors."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from client_support import PACKAGE, PATIENCE_S, ROOT, Request, answer, fake

import xnord
from http_support import Daemon, daemon, expect, images, png, small_network
from PIL import Image
from xnortrain import images as reference_images
from xnortrain.xnorfile import Network

SHIPPED = ROOT / "models/fashion-mnist/fashion-mnist.xnor"
SAMPLES = sorted((ROOT / "models/fashion-mnist/samples").glob("*.png"))
BODY_BYTES = 1 << 20
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def jpeg(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=92)
    return file.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("infer")


@pytest.fixture(scope="module")
def rgb(folder: Path) -> Network:
    return small_network(folder / "rgb.xnor", "rgb", (9, 11, 3), 7)


@pytest.fixture(scope="module")
def signed(folder: Path) -> Network:
    return small_network(folder / "signed.xnor", "signed", (5, 6, 2), 4, dtype="int8", labels=False)


@pytest.fixture(scope="module")
def server(folder: Path, rgb: Network, signed: Network) -> Iterator[Daemon]:
    paths = (SHIPPED, folder / "rgb.xnor", folder / "signed.xnor")
    with daemon(folder, [{"path": str(path)} for path in paths], repository={"control": "explicit"}, limits={"body_bytes": BODY_BYTES, "json_bytes": BODY_BYTES},
                default_model="fashion-mnist") as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Daemon) -> Iterator[xnord.Client]:
    with xnord.Client(f"http://127.0.0.1:{server.port}") as made:
        yield made


# ---- exactness ----------------------------------------------------------------------------------------------------------------------------------


def floats(net: Network, z: np.ndarray) -> np.ndarray:
    layer = net.layers[-1]
    return (layer.scale * z.astype(np.float64) + layer.offset).astype(np.float32)


@pytest.fixture(scope="module")
def pictures(folder: Path) -> tuple[Network, list[Path], np.ndarray, np.ndarray]:
    """The shipped network, PNG and JPEG files, the tensors that they are by the training tool's reader, and their logits by its interpreter."""
    net = Network.load(SHIPPED)
    paths = list(SAMPLES)
    for index, sample in enumerate(SAMPLES[:4]):
        pixels = np.asarray(Image.open(sample))
        for name, picture in (("same", pixels), ("large", np.asarray(Image.fromarray(pixels).convert("RGB").resize((131, 97))))):
            paths.append(folder / f"{index}-{name}.jpg")
            paths[-1].write_bytes(jpeg(picture))
    shape = (net.input.h, net.input.w, net.input.c)
    tensors = np.stack([reference_images.decode(path.read_bytes(), shape, net.metadata["input"]["image"]) for path in paths])
    return net, paths, tensors, expect(net, tensors)


def assert_result(result: xnord.Result, net: Network, z: np.ndarray) -> None:
    order = sorted(range(len(z)), key=lambda k: (-z[k], k))
    labels = net.metadata.get("labels", [None] * len(z))
    assert [one.index for one in result.top] == order[:len(result.top)]
    assert [one.label for one in result.top] == [labels[k] for k in order[:len(result.top)]]
    assert [one.logit for one in result.top] == pytest.approx(floats(net, z[order[:len(result.top)]]), rel=1e-5, abs=1e-5)
    assert (result.index, result.label, result.logit, result.score) == (result.top[0].index, result.top[0].label, result.top[0].logit, result.top[0].score)
    softmax = np.exp(floats(net, z).astype(np.float64) - floats(net, z).max())
    assert result.score == pytest.approx(softmax.max() / softmax.sum(), rel=1e-3)


def test_the_simple_door(client: xnord.Client, pictures: Any) -> None:
    """A picture by its path, as text and not, and its bytes; its tensor as an array and as bytes: one result, that of the reference."""
    net, paths, tensors, logits = pictures
    for path, tensor, z in zip(paths, tensors, logits):
        for forms in ((str(path), path, path.read_bytes(), bytearray(path.read_bytes())), (tensor, tensor.tobytes(), memoryview(tensor))):
            results = [client.infer(image, top_k=10) for image in forms]
            for result in results:
                assert_result(result, net, z)
                assert len(result.top) == 10 and (result.model, result.version) == ("fashion-mnist", net.metadata["version"])
                assert (result.timings.decode_us is None) == (len(results) == 3)


def test_batches(client: xnord.Client, pictures: Any) -> None:
    """Every form of several images gives the reference's integers, and the floats that follow from them, to the bit."""
    net, paths, tensors, logits = pictures
    upside_down = np.ascontiguousarray(tensors[::-1])[::-1]  # does not lie row by row
    forms = (tensors, upside_down, np.asfortranarray(tensors), list(tensors), tuple(tensors), tensors.tobytes(), paths, [str(path) for path in paths],
             [path.read_bytes() for path in paths])
    for batch in forms:
        outputs = client.infer_batch(batch, model="fashion-mnist")
        assert np.array_equal(outputs.accumulators, logits) and outputs.accumulators.numpy().dtype == np.int32
        assert np.array_equal(outputs.logits, floats(net, logits)) and np.asarray(outputs.logits).dtype == np.float32
        assert outputs.accumulators.tolist() == logits.tolist() and outputs["logits"] is outputs.logits
        assert outputs.classes == logits.argmax(1).tolist()
        assert (outputs.model, outputs.version) == ("fashion-mnist", net.metadata["version"])
    one = client.infer_batch(tensors[3], model="fashion-mnist", version=net.metadata["version"], outputs=["accumulators"])  # [height][width][channels]
    assert one.accumulators.shape == (1, 10) and np.array_equal(one.accumulators, logits[3:4]) and set(one.tensors) == {"accumulators"}
    assert one.classes == logits[3:4].argmax(1).tolist()


@pytest.mark.parametrize("start", [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"], ids=["JPEG", "PNG"])
@pytest.mark.parametrize("name", ["rgb", "signed"])
def test_a_tensor_that_begins_like_a_picture(client: xnord.Client, request: pytest.FixtureRequest, name: str, start: bytes) -> None:
    """An array is a tensor, whatever is in it."""
    net = request.getfixturevalue(name)
    tensor = images(net, 1)
    tensor.reshape(-1).view(np.uint8)[:len(start)] = list(start)
    z = expect(net, tensor)[0]
    assert_result(client.infer(tensor[0], model=name, top_k=4), net, z)
    assert np.array_equal(client.infer_batch(tensor, model=name).accumulators, z[None])


def test_signed_tensors_and_no_labels(client: xnord.Client, signed: Network) -> None:
    batch = images(signed, 3)
    result = client.infer(batch[0], model="signed")
    assert result.label is None
    assert_result(result, signed, expect(signed, batch)[0])
    assert np.array_equal(client.infer_batch(batch, model="signed").accumulators, expect(signed, batch))
    assert np.array_equal(client.infer_batch(batch.tobytes(), model="signed").accumulators, expect(signed, batch))


def test_without_numpy(server: Daemon, pictures: Any) -> None:
    """Bytes in, lists out."""
    _, _, tensors, logits = pictures
    script = f"""
import sys
sys.modules["numpy"] = None
sys.path.insert(0, {str(PACKAGE)!r})
import xnord
data = bytes.fromhex({tensors[:2].tobytes().hex()!r})
with xnord.Client("http://127.0.0.1:{server.port}") as client:
    print(client.infer(data[:784]).index, client.infer_batch(data, model="fashion-mnist").accumulators.tolist())
    with client.shared("fashion-mnist", images=2) as region:
        region.input[:] = data
        print(region.infer().accumulators.tolist())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.stdout == f"{logits[0].argmax()} {logits[:2].tolist()}\n{logits[:2].tolist()}\n", done.stderr


# ---- what cannot be sent ------------------------------------------------------------------------------------------------------------------------


def test_what_no_network_takes(client: xnord.Client, rgb: Network) -> None:
    batch = images(rgb, 2)
    with pytest.raises(TypeError, match="format 'f': a network takes uint8 or int8"):
        client.infer(batch[0].astype(np.float32), model="rgb")
    with pytest.raises(ValueError, match="no data"):
        client.infer(b"", model="rgb")
    with pytest.raises(ValueError, match="no images"):
        client.infer_batch([], model="rgb")
    with pytest.raises(ValueError, match="arrays of one shape"):
        client.infer_batch([batch[0], batch[1][1:]], model="rgb")
    with pytest.raises(ValueError, match="arrays of one shape"):
        client.infer_batch([batch[0], png(batch[0])], model="rgb")
    with pytest.raises(ValueError, match="2 images: infer_batch"):
        client.infer(batch.tobytes(), model="rgb")
    with pytest.raises(FileNotFoundError, match="nowhere.png"):
        client.infer("nowhere.png", model="rgb")
    for call in (client.infer, client.infer_batch):
        with pytest.raises(ValueError, match="deadline_ms"):
            call(batch[0], model="rgb", deadline_ms=0)
    with pytest.raises(ValueError, match="X-Request-Id"):
        client.infer(batch[0], model="rgb", request_id="a\r\nX-Evil: b")
    with pytest.raises(ValueError, match="Traceparent"):
        client.infer(batch[0], model="rgb", traceparent="№")


# ---- errors -------------------------------------------------------------------------------------------------------------------------------------


def refused(call: Any, *arguments: Any, **named: Any) -> xnord.ServerError:
    with pytest.raises(xnord.ServerError) as raised:
        call(*arguments, **named)
    error = raised.value
    assert error.message and str(error) == f"{error.status} {error.reason}: {error.message}"
    return error


def test_errors_as_the_server_says_them(client: xnord.Client, rgb: Network) -> None:
    batch = images(rgb, 2)
    unknown = refused(client.infer, batch[0], model="no body/?&", request_id="mine")
    assert (unknown.status, unknown.retry_after, unknown.request_id) == (404, None, "mine") and 'no model is called "no body/?&"' in unknown.message
    assert refused(client.infer_batch, batch, model="no body").status == 404
    short = refused(client.infer, b"abc", model="rgb")
    assert short.status == 400 and "3 bytes" in short.message
    assert refused(client.infer, png(batch[0])[:60], model="fashion-mnist").status == 400
    assert refused(client.infer, png(batch[0]), model="rgb").status == 415
    shape = refused(client.infer_batch, np.ascontiguousarray(batch.transpose(0, 2, 1, 3)), model="rgb")
    assert shape.status == 400 and "shape" in shape.message
    assert refused(client.infer_batch, batch.tobytes()[:-1], model="rgb").status == 400
    assert "timeout_ms" in refused(client.infer, batch[0], model="rgb", deadline_ms=600001).message
    assert "top_k" in refused(client.infer, batch[0], model="rgb", top_k=0).message
    assert refused(client.infer_batch, batch, model="rgb", outputs=["nothing"]).status == 400
    assert refused(client.metadata, "rgb", "99").status == 404 and refused(client.statistics, "nobody").status == 400


def test_refused_before_the_body(client: xnord.Client) -> None:
    """What is far over the limit is refused while it is sent, and the answer found."""
    for size in (BODY_BYTES + 1, 40 * BODY_BYTES):
        error = refused(client.infer, bytes(size))
        assert error.status == 413 and "larger than the limit" in error.message


def test_errors_that_are_not_the_servers() -> None:
    """libmicrohttpd's, or a proxy's."""
    with fake(lambda request: answer(b"<html>too much</html>", "431 Request Header Fields Too Large")) as server, xnord.Client(server.url) as client:
        error = refused(client.server)
        assert (error.status, error.message) == (431, "<html>too much</html>")
    with fake(lambda request: answer(b'["error"]', "302 Found", "Location: /elsewhere")) as server, xnord.Client(server.url) as client:
        assert refused(client.server).status == 302


# ---- what is said of a request, and of an answer ------------------------------------------------------------------------------------------------


def test_ids_and_traces(client: xnord.Client, rgb: Network) -> None:
    batch = images(rgb, 1)
    for told in (client.infer(batch[0], model="rgb", request_id="r-1", traceparent=TRACE), client.infer_batch(batch, model="rgb", request_id="r-1", traceparent=TRACE)):
        assert told.request_id == "r-1" and told.traceparent is not None
        assert told.traceparent[:36] == TRACE[:36] and told.traceparent[36:52] != TRACE[36:52]
    plain = client.infer(batch[0], model="rgb")
    assert plain.request_id is None and plain.traceparent is None


def test_deadline_and_priority_are_sent() -> None:
    def reply(request: Request) -> bytes:
        if request.head.startswith("GET"):
            return answer(b'{"name": "a", "versions": ["1"], "platform": "xnor", "inputs": [{"name": "x", "datatype": "UINT8", "shape": [-1, 2]}], "outputs": []}')
        if "/infer?" in request.head:
            return answer()
        told = (b'{"model_name": "a", "model_version": "1", "outputs": [{"name": "accumulators", "datatype": "INT32", "shape": [1, 1], '
                b'"parameters": {"binary_data_size": 4}}]}')
        return answer(told + b"\2\1\0\0", "200 OK", f"Inference-Header-Content-Length: {len(told)}")

    with fake(reply) as server, xnord.Client(server.url + "/base/") as client:
        client.infer(b"x", model="a b&c", top_k=3, deadline_ms=70, priority=1)
        outputs = client.infer_batch(b"xy", model="a b/c", version="2", outputs=["accumulators"], deadline_ms=70, priority=3)
        assert outputs.accumulators.tolist() == [[258]]
    assert server.requests[0].head.startswith("POST /base/infer?model=a+b%26c&top_k=3&timeout_ms=70&priority=1 HTTP/1.1\r\n")
    assert server.requests[1].head.startswith("GET /base/v2/models/a%20b%2Fc/versions/2 HTTP/1.1\r\n")
    assert server.requests[2].head.startswith("POST /base/v2/models/a%20b%2Fc/versions/2/infer HTTP/1.1\r\n")
    assert b'"parameters": {"timeout": 70000, "priority": 3}' in server.requests[2].body and server.requests[2].body.endswith(b"}xy")


def test_energy(tmp_path: Path) -> None:
    """Absent where nothing measures, and labelled where it is an estimate."""
    power = {root: str(tmp_path / "absent") for root in ("hwmon_root", "powercap_root", "pci_root")}
    with daemon(tmp_path, [{"path": str(SHIPPED)}], power=power, accelerators=[{"kind": "cpu", "idle_watts": 2, "busy_watts": 8}]) as server:
        with xnord.Client(f"http://127.0.0.1:{server.port}") as client:
            result = client.infer(bytes(784))
            assert result.energy_source == "estimate" and result.energy_j is not None and result.energy_j > 0
    with daemon(tmp_path, [{"path": str(SHIPPED)}], power=power) as server, xnord.Client(f"http://127.0.0.1:{server.port}") as client:
        result = client.infer(bytes(784))
        assert result.energy_j is None and result.energy_source is None
        assert min(result.timings.queue_us, result.timings.receive_us) >= 0 and result.timings.total_us >= result.timings.execute_us > 0
        assert (result.batch_size, result.instance) == (1, "cpu0")


# ---- many at a time -----------------------------------------------------------------------------------------------------------------------------


def test_many_in_order_with_errors_in_place(client: xnord.Client, pictures: Any) -> None:
    net, paths, tensors, logits = pictures
    asked: list[Any] = [image for pair in zip(paths, tensors) for image in (*pair, b"bad", "nowhere.png", tensors[0].astype(np.float64))]
    told = list(client.infer_many(asked, in_flight=5, top_k=10))
    assert len(told) == len(asked)
    for index, z in enumerate(logits):
        picture, tensor, bad, nowhere, wrong = told[5 * index:5 * index + 5]
        assert_result(picture, net, z)
        assert_result(tensor, net, z)
        assert isinstance(bad, xnord.ServerError) and bad.status == 400 and isinstance(nowhere, FileNotFoundError) and isinstance(wrong, TypeError)
    assert list(client.infer_many([])) == []
    with pytest.raises(ValueError, match="in_flight"):
        client.infer_many([], in_flight=0)


def test_as_many_under_way_as_asked_for() -> None:
    """The server answers nobody before `n` are there; they come from `n` threads, one each; and no more images are taken ahead than promised."""
    n, rounds = 4, 5
    gate, taken, most = threading.Barrier(n), 0, 0
    threads: set[int] = set()

    class Client(xnord.Client):
        def infer(self, *arguments: Any, **named: Any) -> xnord.Result:
            threads.add(threading.get_ident())
            return super().infer(*arguments, **named)

    def reply(request: Request) -> bytes:
        gate.wait(PATIENCE_S)
        return answer()

    def source() -> Iterator[bytes]:
        nonlocal taken
        for _ in range(n * rounds):
            taken += 1
            yield b"x"

    with fake(reply) as server, Client(server.url, connections=n) as client:
        for done, result in enumerate(client.infer_many(source(), in_flight=n)):
            assert isinstance(result, xnord.Result), result
            most = max(most, taken - done)
    assert len(server.requests) == taken == n * rounds and most <= 2 * n and len(threads) == n


def test_many_ended_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has begun comes to its end, the rest is not sent."""
    four_taken, ended = threading.Event(), threading.Event()

    class Pool(ThreadPoolExecutor):
        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            super().shutdown(wait=False, cancel_futures=cancel_futures)
            ended.set()
            super().shutdown(wait=wait)

    def source() -> Iterator[bytes]:
        for index in range(1000):
            if index == 3:
                four_taken.set()
            yield b"first" if index == 0 else b"other"

    def reply(request: Request) -> bytes:
        assert (four_taken if request.body == b"first" else ended).wait(PATIENCE_S)
        return answer()

    monkeypatch.setattr("xnord.client.ThreadPoolExecutor", Pool)
    with fake(reply) as server, xnord.Client(server.url) as client:
        results = client.infer_many(source(), in_flight=2)
        assert isinstance(next(results), xnord.Result)
        results.close()  # type: ignore[attr-defined]
        assert [request.body for request in server.requests if request.body == b"first"] == [b"first"] and len(server.requests) <= 3


# ---- models and server --------------------------------------------------------------------------------------------------------------------------


def test_models(client: xnord.Client, rgb: Network, signed: Network) -> None:
    metadata = client.metadata("rgb")
    assert metadata == client.metadata("rgb", "3") and (metadata.name, metadata.versions, metadata.platform) == ("rgb", ("3",), "xnor")
    assert metadata.inputs == (xnord.TensorInfo("pixels", "UINT8", (-1, 9, 11, 3)),)
    assert metadata.outputs == (xnord.TensorInfo("logits", "FP32", (-1, 7)), xnord.TensorInfo("accumulators", "INT32", (-1, 7)))
    assert client.labels("rgb") == rgb.metadata["labels"] and client.labels("signed", "3") == []
    assert {(model.name, model.version, model.state) for model in client.models()} >= {("rgb", "3", "READY"), ("signed", "3", "READY")}
    assert client.is_ready("rgb") and client.is_ready("rgb", "3") and not client.is_ready("rgb", "4") and not client.is_ready("nobody")


def test_statistics(client: xnord.Client, signed: Network) -> None:
    before = client.statistics("signed", "3")[0]
    client.infer_batch(images(signed, 3), model="signed")
    refused(client.infer, b"abc", model="signed")
    after = client.statistics("signed")[0]
    assert (after.inferences - before.inferences, after.executions - before.executions, after.success.count - before.success.count) == (3, 1, 1)
    assert after.fail.count > before.fail.count and after.compute_infer.ns > before.compute_infer.ns and after.batches[3].count >= 1
    assert after.compute_infer.mean_us == after.compute_infer.ns / after.compute_infer.count / 1000 and xnord.Count(0, 0).mean_us is None
    assert {one.name for one in client.statistics()} >= {"rgb", "signed", "fashion-mnist"} and after.last_inference_ms > 1.5e12


def test_load_and_unload(tmp_path: Path) -> None:
    """A model whose input has become another one under the client is asked about anew."""
    net = small_network(tmp_path / "a.xnor", "a", (4, 5, 1), 3)
    with daemon(tmp_path, [{"path": str(tmp_path / "a.xnor")}], repository={"control": "explicit"}) as server, xnord.Client(f"http://127.0.0.1:{server.port}") as client:
        assert client.infer_batch(bytes(40), model="a").logits.shape == (2, 3)
        client.unload("a")
        assert [(model.state, model.version) for model in client.models()] == [("UNAVAILABLE", None)] and not client.is_ready("a")
        assert refused(client.infer, bytes(20), model="a").status == 404
        net = small_network(tmp_path / "a.xnor", "a", (6, 5, 1), 4)
        client.load("a", {"max_batch_size": 2})
        assert client.is_ready("a")
        with pytest.raises(xnord.ServerError):
            client.infer_batch(bytes(40), model="a")
        batch = images(net, 2)
        assert np.array_equal(client.infer_batch(batch.tobytes(), model="a").accumulators, expect(net, batch))
        (tmp_path / "a.xnor").write_bytes(b"not a network")
        assert refused(client.load, "a").status == 400 and client.is_ready("a")
        assert refused(client.load, "nobody").status == 404
    with daemon(tmp_path, [{"path": str(SHIPPED)}]) as server, xnord.Client(f"http://127.0.0.1:{server.port}") as client:
        assert refused(client.unload, "fashion-mnist").status == 403 and client.is_ready("fashion-mnist")


def test_server(client: xnord.Client, server: Daemon) -> None:
    assert client.is_live() and client.is_ready()
    told = client.server()
    assert (told.name, told.version) == ("xnord", xnord.__version__) and "binary_tensor_data" in told.extensions
    assert client.status()["pid"] == server.process.pid
    with fake(lambda request: answer(b'{"ready":false}', "503 Service Unavailable")) as other, xnord.Client(other.url, retry_s=60) as asking:
        assert not asking.is_ready() and not asking.is_ready("a") and not asking.is_live() and len(other.requests) == 3
    with fake(lambda request: answer(b'{"error":"no"}', "401 Unauthorized")) as other, xnord.Client(other.url) as asking:
        assert refused(asking.is_ready).status == 401
