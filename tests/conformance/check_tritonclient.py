# SPDX-License-Identifier: Apache-2.0
"""check_tritonclient.py HOST:PORT FOLDER - drive a server with tritonclient.http as it comes from PyPI. FOLDER holds model.json (name, version, input,
shape, datatype, classes), input.npy [n][h][w][c], logits.npy [n][classes] (the integers) and pictures 0.png ... Run by test_http_tritonclient.py."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.http as triton
import tritonclient.utils.shared_memory as shared
from tritonclient.utils import InferenceServerException, triton_to_np_dtype


def check_metadata(client: Any, model: dict[str, Any]) -> None:
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready(model["name"]) and client.is_model_ready(model["name"], model["version"])
    assert not client.is_model_ready("nobody")
    server = client.get_server_metadata()
    assert server["name"] == "xnord" and {"binary_tensor_data", "classification", "system_shared_memory"} <= set(server["extensions"])
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

    assert error("nobody").startswith("404: no model is called")
    wide = np.concatenate([batch, batch], axis=2)
    assert error(model["name"], array=wide).startswith("400: inputs[0].shape")
    assert error(model["name"], datatype="FP32", array=batch.astype(np.float32)).startswith("400: inputs[0].datatype")


def check_management(client: Any, model: dict[str, Any]) -> None:
    name = model["name"]
    config = client.get_model_config(name)
    assert config["name"] == name and config["max_batch_size"] == 32 and config["input"][0]["dims"] == model["shape"]
    for stats in (client.get_inference_statistics(name), client.get_inference_statistics(name, model["version"]), client.get_inference_statistics()):
        [entry] = stats["model_stats"]
        assert entry["name"] == name and entry["inference_stats"]["queue"]["count"] > 0 and entry["batch_stats"]
    ready = [{"name": name, "version": model["version"], "state": "READY"}]
    assert client.get_model_repository_index() == ready
    client.unload_model(name)
    assert not client.is_model_ready(name) and client.get_model_repository_index() == [{"name": name, "state": "UNAVAILABLE", "reason": "unloaded"}]
    client.load_model(name, config=json.dumps({"max_batch_size": 8}))
    assert client.is_model_ready(name) and client.get_model_config(name)["max_batch_size"] == 8
    client.load_model(name)
    assert client.get_model_config(name) == config
    try:
        client.load_model("nobody")
        raise AssertionError("not refused")
    except InferenceServerException as refused:
        assert "no model is called" in refused.message()
    assert client.get_trace_settings() == client.update_trace_settings(name, {"trace_level": "OFF"}) == client.get_trace_settings(name)
    assert client.update_log_settings({"log_verbose_level": 1}) == client.get_log_settings() and client.get_log_settings()["log_verbose_level"] == 1
    client.unregister_cuda_shared_memory()
    assert client.get_cuda_shared_memory_status() == []


def main(url: str, folder: Path) -> None:
    model = json.loads((folder / "model.json").read_text())
    batch, want = np.load(folder / "input.npy"), np.load(folder / "logits.npy")
    pictures = [(folder / f"{i}.png").read_bytes() for i in range(len(batch))]
    client = triton.InferenceServerClient(url, concurrency=4)
    check_metadata(client, model)
    check_tensors(client, model, batch, want)
    check_pictures(client, model, pictures, want)
    check_compression(client, model, batch, want)
    check_classification(client, model, batch, want)
    check_priority(client, model, batch, want)
    check_shared_memory(client, model, batch, want)
    check_errors(client, model, batch)
    check_management(client, model)
    client.close()
    print("tritonclient: everything works")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
