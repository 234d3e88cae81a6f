# SPDX-License-Identifier: Apache-2.0
"""check_tritonclient.py HOST:PORT FOLDER - drive a server, which may be changed over HTTP, with tritonclient.http as it comes from PyPI: every method of its client. FOLDER
holds model.json (name, version, input, shape, datatype, classes, labels), input.npy [n][h][w][c], logits.npy [n][classes] (the integers) and pictures
0.png ... Run by test_tritonclient.py."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
import tritonclient.utils.shared_memory as shared
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

EXTENSIONS = {"binary_tensor_data", "classification", "system_shared_memory", "model_repository", "model_configuration", "statistics", "logging"}


class Recorder(triton.InferenceServerClient):
    """The client, and which of its methods have been called."""

    called: set[str] = set()

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_"):
            Recorder.called.add(name)
        return super().__getattribute__(name)


def refused(call: Any, *arguments: Any, **named: Any) -> str:
    """Status and message of the error that `call` raises."""
    try:
        call(*arguments, **named)
    except InferenceServerException as error:
        return f"{error.status()}: {error.message()}"
    raise AssertionError("not refused")


def input_of(model: dict[str, Any], batch: np.ndarray, binary: bool = True) -> Any:
    given = triton.InferInput(model["input"], list(batch.shape), model["datatype"])
    given.set_data_from_numpy(batch, binary_data=binary)
    return given


def check_metadata(client: Any, model: dict[str, Any]) -> None:
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready(model["name"]) and client.is_model_ready(model["name"], model["version"])
    assert not client.is_model_ready("nobody")
    server = client.get_server_metadata()
    assert server["name"] == "xnord" and set(server["extensions"]) == EXTENSIONS
    for version in ("", model["version"]):
        meta = client.get_model_metadata(model["name"], version)
        assert meta["name"] == model["name"] and meta["versions"] == [model["version"]]
        assert meta["inputs"] == [{"name": model["input"], "datatype": model["datatype"], "shape": [-1, *model["shape"]]}]
        assert {output["name"]: output["datatype"] for output in meta["outputs"]} == {"logits": "FP32", "accumulators": "INT32"}


def check_tensors(client: Any, model: dict[str, Any], batch: np.ndarray, want: np.ndarray) -> None:
    """JSON and binary, each way, with outputs named and not."""
    for binary_in in (True, False):
        for binary_out in (True, False, None):
            given = triton.InferInput(model["input"], list(batch.shape), model["datatype"])
            given.set_data_from_numpy(batch, binary_data=binary_in)
            names = ("accumulators", "logits")
            wanted = None if binary_out is None else [triton.InferRequestedOutput(name, binary_data=binary_out) for name in names]
            result = client.infer(model["name"], [given], outputs=wanted, request_id="1-a", timeout=60_000_000, parameters={"custom": "kept"},
                                  headers={"X-Request-Id": "r"})
            assert np.array_equal(result.as_numpy("accumulators"), want)
            logits = result.as_numpy("logits")
            assert logits.dtype == np.float32 and np.array_equal(logits.argmax(1), want.argmax(1))
            response = result.get_response()
            assert response["id"] == "1-a" and response["model_name"] == model["name"] and response["model_version"] == model["version"]


def check_pictures(client: Any, model: dict[str, Any], pictures: list[bytes], want: np.ndarray) -> None:
    given = triton.InferInput(model["input"], [len(pictures)], "BYTES")
    given.set_data_from_numpy(np.array(pictures, dtype=np.object_))
    assert np.array_equal(client.infer(model["name"], [given]).as_numpy("accumulators"), want)
    waiting = [client.async_infer(model["name"], [given]) for _ in range(8)]
    for one in waiting:
        assert np.array_equal(one.get_result().as_numpy("accumulators"), want)


def check_compression(client: Any, model: dict[str, Any], batch: np.ndarray, want: np.ndarray) -> None:
    """Each way, each coding, JSON and binary."""
    for coding in ("gzip", "deflate"):
        for binary in (True, False):
            for request, response in ((coding, None), (None, coding), (coding, coding)):
                given = triton.InferInput(model["input"], list(batch.shape), model["datatype"])
                given.set_data_from_numpy(batch, binary_data=binary)
                wanted = [triton.InferRequestedOutput("accumulators", binary_data=binary)]
                result = client.infer(model["name"], [given], outputs=wanted, request_compression_algorithm=request, response_compression_algorithm=response)
                assert np.array_equal(result.as_numpy("accumulators"), want)


def check_classification(client: Any, model: dict[str, Any], batch: np.ndarray, want: np.ndarray) -> None:
    given = triton.InferInput(model["input"], list(batch.shape), model["datatype"])
    given.set_data_from_numpy(batch)
    for binary in (True, False):
        for output in ("logits", "accumulators"):
            result = client.infer(model["name"], [given], outputs=[triton.InferRequestedOutput(output, binary_data=binary, class_count=3)]).as_numpy(output)
            assert result.shape == (len(batch), 3)
            for row, z in zip(result, want):
                found = [one.decode() if isinstance(one, bytes) else one for one in row]
                assert [int(one.split(":")[1]) for one in found] == sorted(range(len(z)), key=lambda i: (-z[i], i))[:3]


def check_priority(client: Any, model: dict[str, Any], batch: np.ndarray, want: np.ndarray) -> None:
    given = triton.InferInput(model["input"], list(batch.shape), model["datatype"])
    given.set_data_from_numpy(batch)
    for priority in (0, 1, 2, 9):
        assert np.array_equal(client.infer(model["name"], [given], priority=priority, timeout=60_000_000).as_numpy("accumulators"), want)


def check_shared_memory(client: Any, model: dict[str, Any], batch: np.ndarray, want: np.ndarray) -> None:
    """As Triton's own example does it: one region for the input, one for both outputs; then batches at once, without waiting."""
    client.unregister_system_shared_memory()
    client.unregister_cuda_shared_memory()
    given, wanted = triton.InferInput(model["input"], list(batch.shape), model["datatype"]), []
    inputs = shared.create_shared_memory_region("in", "/xnord_conformance_in", batch.nbytes)
    outputs = shared.create_shared_memory_region("out", "/xnord_conformance_out", 2 * want.nbytes)
    try:
        shared.set_shared_memory_region(inputs, [batch])
        client.register_system_shared_memory("in", "/xnord_conformance_in", batch.nbytes)
        client.register_system_shared_memory("out", "/xnord_conformance_out", 2 * want.nbytes)
        assert {one["name"] for one in client.get_system_shared_memory_status()} == {"in", "out"}
        assert client.get_system_shared_memory_status("in")[0]["byte_size"] == batch.nbytes and client.get_cuda_shared_memory_status() == []
        given.set_shared_memory("in", batch.nbytes)
        for i, name in enumerate(("accumulators", "logits")):
            wanted.append(triton.InferRequestedOutput(name, binary_data=True))
            wanted[-1].set_shared_memory("out", want.nbytes, offset=i * want.nbytes)
        result = client.infer(model["name"], [given], outputs=wanted)
        output = result.get_output("accumulators")
        got = shared.get_contents_as_numpy(outputs, triton_to_np_dtype(output["datatype"]), output["shape"])
        assert np.array_equal(got, want)
        logits = shared.get_contents_as_numpy(outputs, np.float32, list(want.shape), offset=want.nbytes)
        assert np.array_equal(logits.argmax(1), want.argmax(1))
        for one in [client.async_infer(model["name"], [given], outputs=[triton.InferRequestedOutput("accumulators")]) for _ in range(16)]:
            assert np.array_equal(one.get_result().as_numpy("accumulators"), want)
        try:
            client.register_system_shared_memory("in", "/xnord_conformance_in", batch.nbytes)
            raise AssertionError("registered twice")
        except InferenceServerException as refused:
            assert "registered already" in refused.message()
        client.unregister_system_shared_memory("in")
        client.unregister_system_shared_memory()
        assert client.get_system_shared_memory_status() == []
    finally:
        shared.destroy_shared_memory_region(inputs)
        shared.destroy_shared_memory_region(outputs)


def check_errors(client: Any, model: dict[str, Any], batch: np.ndarray) -> None:
    def error(name: str, datatype: str = model["datatype"], shape: list[int] | None = None, timeout: int | None = None, array: np.ndarray = batch) -> str:
        given = triton.InferInput(model["input"], shape or list(array.shape), datatype)
        given.set_data_from_numpy(array)
        try:
            client.infer(name, [given], timeout=timeout)
        except InferenceServerException as refused:
            return f"{refused.status()}: {refused.message()}"
        raise AssertionError("not refused")

    assert error(model["name"], timeout=1).startswith("503: ")
    assert error("nobody").startswith("404: no model is called")
    wide = np.concatenate([batch, batch], axis=2)
    assert error(model["name"], array=wide).startswith("400: inputs[0].shape")
    assert error(model["name"], datatype="FP32", array=batch.astype(np.float32)).startswith("400: inputs[0].datatype")


def check_configuration(client: Any, model: dict[str, Any]) -> None:
    for version in ("", model["version"]):
        config = client.get_model_config(model["name"], version)
        assert config["name"] == model["name"] and config["max_batch_size"] >= 1
        assert config["input"][0]["name"] == model["input"] and config["input"][0]["dims"] == model["shape"]
        assert config["input"][0]["data_type"] == "TYPE_" + model["datatype"]
        assert {one["name"]: one["dims"] for one in config["output"]} == {"logits": [model["classes"]], "accumulators": [model["classes"]]}
    assert refused(client.get_model_config, "nobody").startswith("404: ")


def check_statistics(client: Any, model: dict[str, Any], batch: np.ndarray) -> None:
    """Counts grow by what has been done."""
    def of(**which: str) -> dict[str, Any]:
        entry, = client.get_inference_statistics(**which)["model_stats"]
        return dict(entry)

    before = of()
    for _ in range(3):
        client.infer(model["name"], [input_of(model, batch)])
    after = of(model_name=model["name"], model_version=model["version"])
    assert (after["name"], after["version"]) == (model["name"], model["version"])
    assert after["inference_count"] - before["inference_count"] == 3 * len(batch) and after["execution_count"] > before["execution_count"]
    for part in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
        assert after["inference_stats"][part]["count"] - before["inference_stats"][part]["count"] == 3, part
    assert sum(one["batch_size"] * one["compute_infer"]["count"] for one in after["batch_stats"]) == after["inference_count"]
    assert refused(client.get_inference_statistics, "nobody").startswith("400: ")


def check_repository(client: Any, model: dict[str, Any], batch: np.ndarray, want: np.ndarray) -> None:
    def state() -> str:
        row, = client.get_model_repository_index()
        assert row["name"] == model["name"]
        return str(row["state"])

    assert state() == "READY"
    client.unload_model(model["name"])
    assert state() == "UNAVAILABLE" and not client.is_model_ready(model["name"])
    assert refused(client.infer, model["name"], [input_of(model, batch)]).startswith("404: ")
    client.load_model(model["name"], config=json.dumps({"max_batch_size": 7}))
    assert state() == "READY" and client.get_model_config(model["name"])["max_batch_size"] == 7
    client.load_model(model["name"])
    assert np.array_equal(client.infer(model["name"], [input_of(model, batch)]).as_numpy("accumulators"), want)
    assert refused(client.load_model, "nobody").startswith("404: ")
    assert refused(client.load_model, model["name"], config="{}", files={"file:1/model.xnor": b"x"}).startswith("501: ")


def check_settings(client: Any, model: dict[str, Any]) -> None:
    log = client.get_log_settings()
    assert log["log_verbose_level"] == 0 and log["log_error"] is True
    assert client.update_log_settings({"log_verbose_level": 1})["log_verbose_level"] == 1
    assert client.update_log_settings(log) == log == client.get_log_settings()
    for name in (None, model["name"]):
        trace = client.get_trace_settings(name)
        assert trace["trace_level"] == ["OFF"]
        assert client.update_trace_settings(name, {"trace_level": ["OFF"], "trace_rate": None}) == trace
        assert refused(client.update_trace_settings, name, {"trace_level": ["TIMESTAMPS"]}).startswith("501: ")


def check_cuda(client: Any) -> None:
    assert client.get_cuda_shared_memory_status() == []
    client.unregister_cuda_shared_memory("nothing")
    assert refused(client.register_cuda_shared_memory, "r", b"handle", 0, 1).startswith("501: ")


def check_plugin(client: Any) -> None:
    """What signs requests in production: here it is a request id, which is to come back."""
    class Plugin(triton.InferenceServerClientPlugin):
        def __call__(self, request: Any) -> None:
            request.headers["X-Plugin"] = "1"

    client.register_plugin(Plugin())
    assert client.plugin() is not None and client.is_server_live()
    client.unregister_plugin()


def check_by_hand(client: Any, url: str, model: dict[str, Any], batch: np.ndarray, want: np.ndarray) -> None:
    """A body made by the client and sent by another, the answer given back to it."""
    import urllib.request

    body, json_bytes = client.generate_request_body([input_of(model, batch)])
    request = urllib.request.Request(f"http://{url}/v2/models/{model['name']}/infer", body, {"Inference-Header-Content-Length": str(json_bytes)})
    with urllib.request.urlopen(request) as answer:
        result = client.parse_response_body(answer.read(), header_length=int(answer.headers["Inference-Header-Content-Length"]))
    assert np.array_equal(result.as_numpy("accumulators"), want)


async def check_asyncio(url: str, model: dict[str, Any], batch: np.ndarray, want: np.ndarray) -> None:
    async with triton_aio.InferenceServerClient(url) as client:
        assert await client.is_server_ready() and await client.is_model_ready(model["name"])
        assert (await client.get_model_config(model["name"]))["name"] == model["name"]
        many = [client.infer(model["name"], [input_of(model, batch)], response_compression_algorithm="gzip") for _ in range(16)]
        for one in await asyncio.gather(*many):
            assert np.array_equal(one.as_numpy("accumulators"), want)


def check_everything_was_called() -> None:
    public = {name for name in dir(triton.InferenceServerClient) if not name.startswith("_")}
    assert public - Recorder.called == {"close"}, public - Recorder.called


def main(url: str, folder: Path) -> None:
    model = json.loads((folder / "model.json").read_text())
    batch, want = np.load(folder / "input.npy"), np.load(folder / "logits.npy")
    pictures = [(folder / f"{i}.png").read_bytes() for i in range(len(batch))]
    client = Recorder(url, concurrency=4)
    check_metadata(client, model)
    check_tensors(client, model, batch, want)
    check_pictures(client, model, pictures, want)
    check_compression(client, model, batch, want)
    check_classification(client, model, batch, want)
    check_priority(client, model, batch, want)
    check_shared_memory(client, model, batch, want)
    check_errors(client, model, batch)
    check_configuration(client, model)
    check_statistics(client, model, batch)
    check_repository(client, model, batch, want)
    check_settings(client, model)
    check_cuda(client)
    check_plugin(client)
    check_by_hand(client, url, model, batch, want)
    check_everything_was_called()
    client.close()
    asyncio.run(check_asyncio(url, model, batch, want))
    print("tritonclient: everything works")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
