# SPDX-License-Identifier: Apache-2.0
"""check_kserve.py HOST:PORT FOLDER - drive a server with KServe's InferenceRESTClient as it comes from PyPI; FOLDER as in check_tritonclient.py. Its client has no call for metadata."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput


async def check_health(client: Any, url: str, model: dict[str, Any]) -> None:
    assert await client.is_server_live(url) is True and await client.is_server_ready(url) is True
    assert await client.is_model_ready(url, model["name"]) is True and await client.is_model_ready(url, "nobody") is False


async def check_inference(client: Any, url: str, model: dict[str, Any], batch: np.ndarray, want: np.ndarray) -> None:
    """JSON and binary, each way, with outputs named and not; an object and a dict; many at once."""
    async def infer(binary_in: bool, outputs: list[Any], **parameters: Any) -> Any:
        given = InferInput(model["input"], list(batch.shape), model["datatype"])
        given.set_data_from_numpy(batch, binary_data=binary_in)
        asked = InferRequest(model_name=model["name"], infer_inputs=[given], request_id="1-a", request_outputs=outputs, parameters=parameters)
        return await client.infer(url, asked, model_name=model["name"])

    named = [RequestedOutput("accumulators", parameters={"binary_data": True}), RequestedOutput("logits")]
    for binary_in in (True, False):
        for outputs, parameters in (([], {}), ([], {"binary_data_output": True}), (named, {})):
            answer = await infer(binary_in, outputs, **parameters)
            assert (answer.id, answer.model_name) == ("1-a", model["name"])  # it drops the version
            assert np.array_equal(answer.get_output_by_name("accumulators").as_numpy(), want)
            assert np.array_equal(answer.get_output_by_name("logits").as_numpy().argmax(1), want.argmax(1))
    plain = {"inputs": [{"name": model["input"], "shape": list(batch.shape), "datatype": model["datatype"], "data": batch.tolist()}]}
    answer = await client.infer(url, plain, model_name=model["name"])
    assert np.array_equal(answer.get_output_by_name("accumulators").as_numpy(), want)
    for answer in await asyncio.gather(*[infer(True, []) for _ in range(16)]):
        assert np.array_equal(answer.get_output_by_name("accumulators").as_numpy(), want)


async def check_pictures(client: Any, url: str, model: dict[str, Any], pictures: list[bytes], want: np.ndarray) -> None:
    given = InferInput(model["input"], [len(pictures)], "BYTES")
    given.set_data_from_numpy(np.array(pictures, dtype=np.object_), binary_data=True)
    answer = await client.infer(url, InferRequest(model_name=model["name"], infer_inputs=[given]), model_name=model["name"])
    assert np.array_equal(answer.get_output_by_name("accumulators").as_numpy(), want)


async def check_errors(client: Any, url: str, model: dict[str, Any]) -> None:
    for name, body, status, text in (("nobody", {"inputs": []}, 404, "no model is called"), (model["name"], {"inputs": []}, 400, "inputs: must be")):
        try:
            await client.infer(url, body, model_name=name)
            raise AssertionError("not refused")
        except httpx.HTTPStatusError as refused:
            assert refused.response.status_code == status and text in str(refused)


async def main(url: str, folder: Path) -> None:
    model = json.loads((folder / "model.json").read_text())
    batch, want = np.load(folder / "input.npy"), np.load(folder / "logits.npy")
    pictures = [(folder / f"{i}.png").read_bytes() for i in range(len(batch))]
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        await check_health(client, url, model)
        await check_inference(client, url, model, batch, want)
        await check_pictures(client, url, model, pictures, want)
        await check_errors(client, url, model)
    print("kserve: everything works")


if __name__ == "__main__":
    asyncio.run(main(f"http://{sys.argv[1]}", Path(sys.argv[2])))
