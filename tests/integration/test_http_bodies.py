# SPDX-License-Identifier: Apache-2.0
"""Every kind of body through both doors: the integers that come back are those of the Python interpreter of the file format, exactly."""

from __future__ import annotations

import base64
import io
import json
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from http_support import SEED, Answer, Daemon, Network, ask, daemon, expect, images, png, read_answer, small_network
from xnortrain.images import decode

BATCH = 5


class World:
    """One daemon with three networks, for all tests of this file."""

    def __init__(self, server: Daemon, nets: dict[str, Network]) -> None:
        self.server, self.nets = server, nets


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("http")
    nets = {"gray": small_network(folder / "gray.xnor", "gray", (28, 28, 1), 10, image=True),
            "color-9.x_y": small_network(folder / "color.xnor", "color-9.x_y", (16, 20, 3), 7, image=True, labels=False),
            "signed": small_network(folder / "signed.xnor", "signed", (9, 7, 2), 5, dtype="int8")}
    with daemon(folder, [{"path": str(folder / f"{file}.xnor")} for file in ("gray", "color", "signed")], limits={"images_per_request": 8}) as server:
        yield World(server, nets)


def check_simple(answer: Answer, net: Network, batch: np.ndarray, **extra: Any) -> list[dict[str, Any]]:
    """An answer of POST /infer against the interpreter: class, logit = scale * integer + offset, softmax score."""
    assert answer.status == 200, (SEED, answer.body)
    assert answer.headers["content-type"] == "application/json"
    document = answer.json()
    assert document["model"] == net.metadata["name"] and document["version"] == net.metadata["version"]
    integers, layer = expect(net, batch), net.layers[-1]
    results = document["results"]
    assert len(results) == len(batch)
    for result, z in zip(results, integers, strict=True):
        assert result["class"] == int(np.argmax(z)), SEED
        check_class(result, net, z)
        assert result["batch_size"] >= 1 and result["instance"] == "cpu0"
        assert "energy_j" not in result or result["energy_source"] in ("sensor", "estimate")
        assert {"queue", "execute"} <= result["timings_us"].keys() <= {"decode", "queue", "execute"}
    assert document["timings_us"].keys() == {"receive", "total"}
    assert layer.op == "logits"
    return results


def check_class(entry: dict[str, Any], net: Network, z: np.ndarray) -> None:
    layer, k = net.layers[-1], entry["class"]
    assert entry["logit"] == pytest.approx(layer.scale * int(z[k]) + layer.offset, rel=1e-5), SEED
    shifted = np.exp(layer.scale * (z.astype(np.float64) - z.max()))
    assert entry["score"] == pytest.approx(shifted[k] / shifted.sum(), rel=1e-3), SEED
    labels = net.metadata.get("labels")
    assert entry.get("label") == (labels[k] if labels else None)


# ---- POST /infer --------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gray", "color-9.x_y", "signed"])
@pytest.mark.parametrize("count", [1, 2, BATCH])
def test_raw_tensors(world: World, name: str, count: int) -> None:
    batch = images(world.nets[name], count)
    check_simple(world.server.post(f"/infer?model={name}", batch.tobytes(), "application/octet-stream"), world.nets[name], batch)


def test_default_model_and_percent_encoding(world: World) -> None:
    gray, color = images(world.nets["gray"], 1), images(world.nets["color-9.x_y"], 1)
    check_simple(world.server.post("/infer", gray.tobytes()), world.nets["gray"], gray)
    check_simple(world.server.post("/infer?model=color%2D9%2ex%5Fy", color.tobytes()), world.nets["color-9.x_y"], color)


@pytest.mark.parametrize("name", ["gray", "color-9.x_y"])
def test_png(world: World, name: str) -> None:
    """A picture of the network's own size passes the decoder unchanged, so that the integers are still known."""
    batch = images(world.nets[name], 1)
    results = check_simple(world.server.post(f"/infer?model={name}", png(batch[0]), "image/png"), world.nets[name], batch)
    assert "decode" in results[0]["timings_us"]


@pytest.mark.parametrize("name", ["gray", "color-9.x_y"])
@pytest.mark.parametrize("kind,mode,size", [("JPEG", "L", (28, 28)), ("JPEG", "RGB", (61, 97)), ("JPEG", "RGB", (640, 480)), ("PNG", "RGBA", (33, 20)),
                                            ("PNG", "P", (50, 50)), ("PNG", "LA", (8, 9))])
def test_pictures_of_any_size_and_kind(world: World, name: str, kind: str, mode: str, size: tuple[int, int]) -> None:
    """Decoded, converted and resized as training does it (xnortrain.images), so that the integers are known here too."""
    net = world.nets[name]
    file = io.BytesIO()
    noise = np.random.default_rng(SEED).integers(0, 256, (size[1] // 4 + 1, size[0] // 4 + 1, 3)).astype(np.uint8)
    Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).convert(mode).save(file, kind)
    x = net.input
    batch = decode(file.getvalue(), (x.h, x.w, x.c), net.metadata["input"]["image"])[None]
    check_simple(world.server.post(f"/infer?model={name}", file.getvalue()), net, batch)
    check_oip(world.server.post(f"/v2/models/{name}/infer", file.getvalue(), Inference_Header_Content_Length="0"), net, batch)


def multipart(parts: list[bytes], boundary: str = "x-Boundary'()+_,-./:=?") -> tuple[bytes, str]:
    body = b""
    for i, part in enumerate(parts):
        body += f'--{boundary}\r\nContent-Disposition: form-data; name="file{i}"; filename="{i}"\r\n\r\n'.encode() + part + b"\r\n"
    return body + f"--{boundary}--\r\n".encode(), f'multipart/form-data; charset=utf-8; boundary="{boundary}"'


def test_multipart_of_pictures_and_tensors(world: World) -> None:
    net = world.nets["gray"]
    batch = images(net, 4)
    body, content_type = multipart([png(batch[0]), batch[1].tobytes(), png(batch[2]), batch[3].tobytes()])
    check_simple(world.server.post("/infer", body, content_type), net, batch)


def test_json_base64(world: World) -> None:
    net = world.nets["gray"]
    batch = images(net, 3)
    one = {"image": base64.b64encode(png(batch[0])).decode()}
    check_simple(world.server.post("/infer", json.dumps(one).encode(), "application/json"), net, batch[:1])
    many = {"images": [base64.b64encode(data).decode() for data in (png(batch[0]), batch[1].tobytes(), png(batch[2]))]}
    check_simple(world.server.post("/infer", json.dumps(many).encode(), "application/json; charset=utf-8"), net, batch)


@pytest.mark.parametrize("name", ["gray", "color-9.x_y", "signed"])
def test_json_arrays(world: World, name: str) -> None:
    """Flat, nested as [h][w][c], without dimensions of 1, or with more of them; whole numbers may be written as 7.0."""
    net = world.nets[name]
    batch = images(net, 2)
    for tensor in (batch[0].tolist(), batch[0].ravel().tolist(), batch[0].squeeze().tolist(), [batch[0].tolist()], batch[0].astype(float).tolist()):
        check_simple(world.server.post(f"/infer?model={name}", json.dumps({"tensor": tensor}).encode(), "application/json"), net, batch[:1])
    many = json.dumps({"tensors": [batch[0].tolist(), batch[1].ravel().tolist()], "top_k": 2}).encode()
    check_simple(world.server.post(f"/infer?model={name}", many, "application/json"), net, batch)


@pytest.mark.parametrize("top_k", [2, 5, 10, 1000])
def test_top_k(world: World, top_k: int) -> None:
    net = world.nets["gray"]
    batch = images(net, 2)
    for answer in (world.server.post(f"/infer?top_k={top_k}", batch.tobytes()),
                   world.server.post("/infer?top_k=3", json.dumps({"tensors": batch.tolist(), "top_k": top_k}).encode(), "application/json")):
        for result, z in zip(check_simple(answer, net, batch), expect(net, batch), strict=True):
            assert [entry["class"] for entry in result["top"]] == np.argsort(-z, kind="stable")[:top_k].tolist()
            for entry in result["top"]:
                check_class(entry, net, z)


def test_chunked_body_of_single_bytes(world: World) -> None:
    net = world.nets["signed"]
    batch = images(net, 2)
    with world.server.connect() as connection:
        connection.sendall(b"POST /infer?model=signed HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        for byte in batch.tobytes():
            connection.sendall(b"1\r\n%c\r\n" % byte)
        connection.sendall(b"0\r\n\r\n")
        check_simple(read_answer(connection), net, batch)


def test_chunked_body_that_outgrows_its_buffers(world: World) -> None:
    net = world.nets["color-9.x_y"]
    batch = images(net, 8)
    body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (batch.tobytes()[at:at + 701] for at in range(0, batch.size, 701)))
    with world.server.connect() as connection:
        connection.sendall(b"POST /infer?model=color-9.x_y HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + body + b"0\r\n\r\n")
        check_simple(read_answer(connection), net, batch)


def test_expect_100_continue(world: World) -> None:
    net = world.nets["gray"]
    batch = images(net, 1)
    with world.server.connect() as connection:
        connection.sendall(b"POST /infer HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % batch.nbytes)
        assert read_answer(connection).status == 100
        connection.sendall(batch.tobytes())
        check_simple(read_answer(connection), net, batch)


def test_pipelined_requests_are_answered_in_order(world: World) -> None:
    net = world.nets["gray"]
    batch = images(net, 6)
    with world.server.connect() as connection:
        connection.sendall(b"".join(b"POST /infer HTTP/1.1\r\nHost: x\r\nX-Request-Id: %d\r\nContent-Length: %d\r\n\r\n%s" % (i, one.nbytes, one.tobytes())
                                    for i, one in enumerate(batch)))
        file = connection.makefile("rb")
        for i, one in enumerate(batch):
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += file.readline()
            headers = dict(line.split(": ", 1) for line in head.decode().lower().splitlines()[1:-1])
            assert headers["x-request-id"] == str(i)
            check_simple(Answer(200, headers, file.read(int(headers["content-length"]))), net, one[None])


def test_keep_alive_goes_on_after_an_error_in_the_body(world: World) -> None:
    net = world.nets["gray"]
    batch = images(net, 1)
    client = world.server.client()
    client.connect()
    first = client.sock
    for _ in range(3):
        assert ask(client, "POST", "/infer", b"no tensor").status == 400
        check_simple(ask(client, "POST", "/infer", batch.tobytes()), net, batch)
        assert ask(client, "GET", "/nowhere").status == 404
        assert ask(client, "HEAD", "/metrics").body == b""
        assert ask(client, "GET", "/v2").status == 200
        assert ask(client, "POST", "/v2", b"").status == 405
        assert client.sock is first
    client.close()


def test_half_closed_client_gets_its_answer(world: World) -> None:
    net = world.nets["gray"]
    batch = images(net, 1)
    with world.server.connect() as connection:
        connection.sendall(b"POST /infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % batch.nbytes + batch.tobytes())
        connection.shutdown(socket.SHUT_WR)
        check_simple(read_answer(connection), net, batch)


def test_request_id_is_echoed(world: World) -> None:
    body = images(world.nets["gray"], 1).tobytes()
    assert world.server.post("/infer", body, X_Request_Id="a-1/ü".encode().decode("latin-1")).headers.get("x-request-id") is None
    assert world.server.post("/infer", body, X_Request_Id="r" * 129).headers.get("x-request-id") is None
    assert world.server.post("/infer", body, X_Request_Id="r" * 128).headers["x-request-id"] == "r" * 128
    for bad in ("/infer", "/infer?model=no"):
        assert world.server.post(bad, b"x", X_Request_Id="a-1").headers["x-request-id"] == "a-1"


# ---- Open Inference Protocol --------------------------------------------------------------------------------------------------------------------


def oip(net: Network, batch: np.ndarray, **more: Any) -> dict[str, Any]:
    datatype = {"uint8": "UINT8", "int8": "INT8"}[net.input.dtype]
    return {"inputs": [{"name": "pixels", "shape": list(batch.shape), "datatype": datatype, "data": batch.ravel().tolist()}], **more}


def check_oip(answer: Answer, net: Network, batch: np.ndarray, names: tuple[str, ...] = ("logits", "accumulators")) -> dict[str, Any]:
    """JSON and binary outputs alike; integers exactly, floats as float32 of scale * integer + offset."""
    assert answer.status == 200, (SEED, answer.body)
    length = answer.headers.get("inference-header-content-length")
    assert answer.headers["content-type"] == ("application/octet-stream" if length else "application/json")
    document, rest = json.loads(answer.body[:int(length)] if length else answer.body), answer.body[int(length):] if length else b""
    assert document["model_name"] == net.metadata["name"] and document["model_version"] == "3"
    assert [output["name"] for output in document["outputs"]] == list(names)
    integers, layer = expect(net, batch), net.layers[-1]
    wanted = {"accumulators": integers, "logits": (layer.scale * integers.astype(np.float64) + layer.offset).astype(np.float32)}
    for output in document["outputs"]:
        want = wanted[output["name"]]
        assert output["datatype"] == {"logits": "FP32", "accumulators": "INT32"}[output["name"]]
        assert output["shape"] == list(want.shape)
        if "data" in output:
            assert "parameters" not in output
            got = np.array(output["data"]).astype(want.dtype)
        else:
            size = output["parameters"]["binary_data_size"]
            got, rest = np.frombuffer(rest[:size], want.dtype), rest[size:]
        assert np.array_equal(got.reshape(want.shape), want), (SEED, output["name"])
    assert rest == b""
    return document


@pytest.mark.parametrize("name", ["gray", "color-9.x_y", "signed"])
@pytest.mark.parametrize("path", ["/v2/models/{}/infer", "/v2/models/{}/versions/3/infer"])
def test_oip_json(world: World, name: str, path: str) -> None:
    net = world.nets[name]
    batch = images(net, 3)
    request = oip(net, batch, id="a \"quoted\" ü\u2028 id")
    assert check_oip(world.server.post(path.format(name), json.dumps(request).encode()), net, batch)["id"] == request["id"]
    request["inputs"][0]["data"] = batch.tolist()
    check_oip(world.server.post(path.format(name), json.dumps(request).encode(), "application/json"), net, batch)


def test_oip_one_image_without_batch_dimension(world: World) -> None:
    net = world.nets["signed"]
    batch = images(net, 1)
    request = oip(net, batch, id="")
    request["inputs"][0]["shape"] = list(batch.shape[1:])
    assert "id" not in check_oip(world.server.post("/v2/models/signed/infer", json.dumps(request).encode()), net, batch)


@pytest.mark.parametrize("outputs", [("logits",), ("accumulators",), ("accumulators", "logits"), ("logits", "accumulators")])
@pytest.mark.parametrize("binary", [(True, True), (False, False), (True, False), (False, True), (None, None)])
def test_oip_outputs(world: World, outputs: tuple[str, ...], binary: tuple[bool | None, ...]) -> None:
    """binary_data of an output overrides binary_data_output of the request."""
    net = world.nets["gray"]
    batch = images(net, 2)
    wanted = [{"name": name, **({} if choice is None else {"parameters": {"binary_data": choice}})} for name, choice in zip(outputs, binary, strict=False)]
    request = oip(net, batch, outputs=wanted, parameters={"binary_data_output": True, "custom": [1, {"a": None}]})
    document = check_oip(world.server.post("/v2/models/gray/infer", json.dumps(request).encode()), net, batch, outputs)
    assert ["data" not in output for output in document["outputs"]] == [choice is not False for choice in binary[:len(outputs)]]


def binary_request(document: dict[str, Any], tensors: bytes) -> tuple[bytes, dict[str, str]]:
    head = json.dumps(document).encode()
    return head + tensors, {"Inference-Header-Content-Length": str(len(head)), "Expect": ""}


def test_oip_binary_tensors(world: World) -> None:
    for net in world.nets.values():
        batch = images(net, BATCH)
        request = oip(net, batch, parameters={"binary_data_output": True})
        del request["inputs"][0]["data"]
        request["inputs"][0]["parameters"] = {"binary_data_size": batch.nbytes}
        body, headers = binary_request(request, batch.tobytes())
        check_oip(world.server.request("POST", f"/v2/models/{net.metadata['name']}/infer", body, headers), net, batch)


def test_oip_pictures(world: World) -> None:
    net = world.nets["color-9.x_y"]
    batch = images(net, 3)
    packed = b"".join(struct.pack("<I", len(data)) + data for data in map(png, batch))
    for shape in ([3], [3, 1]):
        request = {"inputs": [{"name": "pixels", "shape": shape, "datatype": "BYTES", "parameters": {"binary_data_size": len(packed)}}]}
        body, headers = binary_request(request, packed)
        check_oip(world.server.request("POST", "/v2/models/color-9.x_y/infer", body, headers), net, batch)


def test_oip_raw_request(world: World) -> None:
    """Inference-Header-Content-Length 0: the body is the input, all outputs are binary."""
    net = world.nets["gray"]
    batch = images(net, 1)
    for body in (batch.tobytes(), png(batch[0])):
        answer = world.server.post("/v2/models/gray/infer", body, Inference_Header_Content_Length="0")
        assert "data" not in check_oip(answer, net, batch)["outputs"][0]


def test_oip_pure_json_with_header_length(world: World) -> None:
    net = world.nets["gray"]
    batch = images(net, 1)
    body, headers = binary_request(oip(net, batch), b"")
    check_oip(world.server.request("POST", "/v2/models/gray/infer", body, headers), net, batch)


def test_oip_metadata(world: World) -> None:
    assert world.server.get("/v2/health/live").json() == {"live": True}
    assert world.server.get("/v2/health/ready").json() == {"ready": True}
    meta = world.server.get("/v2").json()
    assert meta["name"] == "xnord" and meta["version"] and meta["extensions"] == ["binary_tensor_data", "classification", "system_shared_memory", "model_repository",
                                                                                      "model_configuration", "statistics", "logging"]
    for name, net in world.nets.items():
        for path in (f"/v2/models/{name}", f"/v2/models/{name}/versions/3", f"/v2/models/{name.replace('-', '%2d')}"):
            x = net.input
            assert world.server.get(path).json() == {
                "name": name, "versions": ["3"], "platform": "xnor",
                "inputs": [{"name": "pixels", "datatype": x.dtype.upper(), "shape": [-1, x.h, x.w, x.c]}],
                "outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, net.classes]},
                            {"name": "accumulators", "datatype": "INT32", "shape": [-1, net.classes]}]}
            assert world.server.get(f"{path}/ready").json() == {"name": name, "ready": True}
    for path in ("/v2/models/no", "/v2/models/gray/versions/4", "/v2/models/no/ready", f"/v2/models/{'n' * 300}"):
        answer = world.server.get(path)
        assert answer.status == 404 and answer.error


def test_pages(world: World) -> None:
    assert world.server.get("/healthz").body == b"ok\n"
    assert world.server.get("/readyz").body == b"ready\n"
    page = world.server.get("/")
    assert page.headers["content-type"].startswith("text/html") and b"color-9.x_y" in page.body
    status = world.server.get("/v1/status").json()
    assert [m["name"] for m in status["models"]] == ["gray", "color-9.x_y", "signed"]
    assert [m["input_shape"] for m in status["models"]] == [[28, 28, 1], [16, 20, 3], [9, 7, 2]]
    assert [i["name"] for i in status["instances"]] == ["cpu0"]
    for path in ("/", "/healthz", "/readyz", "/metrics", "/v1/status", "/v2"):
        answer = world.server.get(path)
        head = world.server.request("HEAD", path)
        assert answer.status == head.status == 200 and head.body == b"" and answer.headers["cache-control"] == "no-store"
