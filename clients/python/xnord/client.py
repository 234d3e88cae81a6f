# SPDX-License-Identifier: Apache-2.0
"""The client: docs/http-api.md as methods. One object for a server and all threads of a process."""

from __future__ import annotations

import json
import math
import os
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import quote, urlencode

from .connection import Answer, Piece, Transport
from .errors import NetworkError, ServerError
from .results import Metadata, ModelState, Outputs, Result, Server, Statistics
from .tensors import FORMATS, Data, Image, Tensor, contents, is_picture, size_bytes, view_of

if TYPE_CHECKING:
    from .shared import SharedTensors

URL = "http://127.0.0.1:8000"
OUTPUTS = ("logits", "accumulators")
JSON_LENGTH = "Inference-Header-Content-Length"
NONSENSE = (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError)  # of JSON that is not as it is documented
Parsed = TypeVar("Parsed")


class Client:
    """A client of the server at `url`: http://HOST:PORT, https://HOST:PORT (a path may follow, of a proxy), or unix:PATH.

    token        sent with each request; who listens on plain http can read it
    cacert       of https: PEM file of the authorities to trust, instead of the system's
    insecure     of https: any certificate will do
    timeout_s    how long the server may be silent, beyond a request's deadline, before the request fails with NetworkError
    retry_s      for how long in all a request is made again that was refused with Retry-After (429, 503), each time after the time that the server says and up to a
                 quarter more. 0: the refusal is raised at once. A deadline counts anew each time
    connections  that are kept when they are not in use

    Methods raise ServerError or NetworkError (both are Error), and may be called from any number of threads. Also a context manager.
    """

    def __init__(self, url: str = URL, *, token: str | None = None, cacert: str | os.PathLike[str] | None = None, insecure: bool = False, timeout_s: float = 30,
                 retry_s: float = 0, connections: int = 8) -> None:
        self._transport = Transport(url, token, cacert, insecure, timeout_s, connections)
        self._retry_s = retry_s
        self._inputs: dict[tuple[str, str | None], Metadata] = {}  # known until the server refuses what is sent

    def __repr__(self) -> str:
        return f"xnord.Client({self._transport.url!r})"

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. Requests of other threads come to their end; new ones raise RuntimeError."""
        self._transport.close()

    # ---- inference --------------------------------------------------------------------------------------------------------------------------------

    def infer(self, image: Image, *, model: str | None = None, top_k: int = 1, deadline_ms: int | None = None, priority: int | None = None,
              request_id: str | None = None, traceparent: str | None = None) -> Result:
        """Classify one image.

        image        a path; or the bytes of a JPEG or PNG; or a tensor as the network takes it: an array [height][width][channels] of uint8 or int8, or its bytes
        model        the server's default where it is None
        top_k        classes in Result.top
        deadline_ms  time from the first header to the answer; what cannot be done in it is refused at once
        priority     1 high, 2 normal, 3 and more low
        request_id   for logs; comes back
        traceparent  W3C trace context

        OSError: the file cannot be read.
        """
        check_deadline(deadline_ms)
        data, datatype, shape = contents(image)
        headers = id_headers(request_id, traceparent)
        if len(shape) > 1 and is_picture(data):  # a tensor that begins like one: only JSON says which it is
            body: Piece = json.dumps({"tensor": data.cast("b").tolist() if datatype == "INT8" else data.tolist()}).encode()
            headers["Content-Type"] = "application/json"
        else:
            body = data
            headers["Content-Type"] = "application/octet-stream"
        given = {"model": model, "top_k": top_k if top_k != 1 else None, "timeout_ms": deadline_ms, "priority": priority}
        query = urlencode({name: value for name, value in given.items() if value is not None})
        answer = self._ask("POST", f"/infer?{query}" if query else "/infer", [body], headers, deadline_ms=deadline_ms)
        results = self._parse(answer, lambda told: [Result.parse(told, one, answer.headers) for one in told["results"]])
        if len(results) != 1:
            raise ValueError(f"these bytes are {len(results)} images: infer_batch() takes several")
        return results[0]

    def infer_batch(self, images: Data | Sequence[Image], *, model: str, version: str | None = None, outputs: Sequence[str] = OUTPUTS, deadline_ms: int | None = None,
                    priority: int | None = None, request_id: str | None = None, traceparent: str | None = None) -> Outputs:
        """The numbers that a network gives for several images in one request.

        images   an array [n][height][width][channels] of uint8 or int8; or a sequence of arrays [height][width][channels]; or a sequence of pictures, each a path or
                 the bytes of a JPEG or PNG; or the bytes of tensors, one behind the other
        outputs  of "logits" (FP32) and "accumulators" (INT32)
        others   as of infer()

        Nothing is copied but what does not lie row by row.
        """
        entry, pieces = self._input(images, model, version)
        wanted = [{"name": name, "parameters": {"binary_data": True}} for name in outputs]
        answer = self._post_v2(model, version, entry, wanted, pieces, deadline_ms, priority, id_headers(request_id, traceparent))
        return self._parse_v2(answer, lambda told, data: split_tensors(told, data, outputs))

    def infer_many(self, images: Iterable[Image], *, in_flight: int = 8, model: str | None = None, top_k: int = 1, deadline_ms: int | None = None,
                   priority: int | None = None, traceparent: str | None = None) -> Iterator[Result | Exception]:
        """infer() of each of `images`, with `in_flight` requests under way at a time, each from a thread of its own. Yields results in the order of `images`; where
        an image has none, the error in its place. At most twice `in_flight` images are taken before their turn."""

        def one(image: Image) -> Result | Exception:
            try:
                return self.infer(image, model=model, top_k=top_k, deadline_ms=deadline_ms, priority=priority, traceparent=traceparent)
            except Exception as error:
                return error

        if in_flight < 1:
            raise ValueError(f"in_flight: {in_flight} is less than 1")
        return in_order(one, images, in_flight)

    def shared(self, model: str, *, images: int = 1, version: str | None = None, outputs: Sequence[str] = OUTPUTS, mode: int = 0o600) -> SharedTensors:
        """Memory shared with a server on the same machine, for batches of up to `images`: see SharedTensors."""
        from .shared import SharedTensors

        return SharedTensors(self, model, images, version, outputs, mode)

    # ---- models -----------------------------------------------------------------------------------------------------------------------------------

    def models(self) -> list[ModelState]:
        """What the repository has, each version for itself: served or not, and why not."""
        return self._parse(self._ask("POST", "/v2/repository/index"), lambda told: [ModelState.parse(one) for one in told])

    def metadata(self, model: str, version: str | None = None) -> Metadata:
        """Versions, inputs and outputs. 404: not served."""
        return self._parse(self._ask("GET", model_path(model, version)), Metadata.parse)

    def labels(self, model: str, version: str | None = None) -> list[str]:
        """Of the classes in order; none where the model has none."""

        def parse(told: Any) -> list[str]:
            text = told["parameters"].get("labels", {"string_value": "[]"})["string_value"]
            return [str(label) for label in json.loads(text)]

        return self._parse(self._ask("GET", model_path(model, version) + "/config"), parse)

    def statistics(self, model: str | None = None, version: str | None = None) -> list[Statistics]:
        """Of each version that is served; of all models where `model` is None."""
        path = "/v2/models" if model is None else model_path(model, version)
        return self._parse(self._ask("GET", path + "/stats"), lambda told: [Statistics.parse(one) for one in told["model_stats"]])

    def load(self, model: str, config: Mapping[str, Any] | None = None) -> None:
        """Load a model from its files as they are now, perhaps with settings until its next load, such as {"max_batch_size": 16}. Done when it returns; what is wrong
        is told by ServerError, and then what was served is served still. The server must allow it (repository.control)."""
        body = {"parameters": {"config": json.dumps(config)}} if config is not None else {}
        self._ask("POST", f"/v2/repository/models/{quote(model, safe='')}/load", [json.dumps(body).encode()], repeatable=False)

    def unload(self, model: str) -> None:
        """End the service of a model, all versions, until it is loaded again."""
        self._ask("POST", f"/v2/repository/models/{quote(model, safe='')}/unload", repeatable=False)

    # ---- server -----------------------------------------------------------------------------------------------------------------------------------

    def is_live(self) -> bool:
        """It answers."""
        return self._yes_or_no("/v2/health/live")

    def is_ready(self, model: str | None = None, version: str | None = None) -> bool:
        """The server, or a model, would take requests now. A model that is not there is not ready."""
        return self._yes_or_no("/v2/health/ready" if model is None else model_path(model, version) + "/ready")

    def server(self) -> Server:
        return self._parse(self._ask("GET", "/v2"), Server.parse)

    def status(self) -> dict[str, Any]:
        """/v1/status as it is: queues, instances, counts."""
        return self._parse(self._ask("GET", "/v1/status"), dict)

    # ---- beneath ----------------------------------------------------------------------------------------------------------------------------------

    def _ask(self, method: str, path: str, pieces: Sequence[Piece] = (), headers: Mapping[str, str] | None = None, *, repeatable: bool = True,
             deadline_ms: int | None = None) -> Answer:
        """The answer, which is 200. Refusals that say when to come again are followed for `retry_s`."""
        end = time.monotonic() + self._retry_s
        while True:
            answer = self._transport.exchange(method, path, pieces, headers, repeatable=repeatable, more_s=(deadline_ms or 0) / 1000)
            if answer.status == 200:
                return answer
            error = error_of(answer)
            if error.status not in (429, 503) or error.retry_after is None:
                raise error
            pause_s = error.retry_after * random.uniform(1, 1.25)  # what was refused together does not come back together
            if time.monotonic() + pause_s > end or self._transport.closed.wait(pause_s):
                raise error

    def _yes_or_no(self, path: str) -> bool:
        answer = self._transport.exchange("GET", path, repeatable=True)
        if answer.status not in (200, 404, 503):
            raise error_of(answer)
        return answer.status == 200

    def _parse(self, answer: Answer, parse: Callable[[Any], Parsed]) -> Parsed:
        return self._understand(lambda: parse(json.loads(answer.body)))

    def _parse_v2(self, answer: Answer, tensors_of: Callable[[Any, memoryview], dict[str, Tensor]]) -> Outputs:
        def parse() -> Outputs:
            length = int(answer.headers.get(JSON_LENGTH, len(answer.body)))
            told = json.loads(answer.body[:length])
            tensors = tensors_of(told["outputs"], memoryview(answer.body)[length:])
            return Outputs(told["model_name"], told["model_version"], tensors, answer.headers.get("X-Request-Id"), answer.headers.get("Traceparent"))

        return self._understand(parse)

    def _understand(self, parse: Callable[[], Parsed]) -> Parsed:
        try:
            return parse()
        except NONSENSE as error:
            raise NetworkError(f"{self._transport.url}: what answers there is not xnord: {error!r}") from error

    def _metadata(self, model: str, version: str | None) -> Metadata:
        """As it was last time."""
        known = self._inputs.get((model, version))
        if known is None:
            known = self._inputs[model, version] = self.metadata(model, version)
        return known

    def _input(self, images: Data | Sequence[Image], model: str, version: str | None) -> tuple[dict[str, Any], list[Piece]]:
        """The entry of "inputs", and what follows the JSON."""
        wanted = self._metadata(model, version).inputs[0]
        if isinstance(images, (list, tuple)):
            entry, pieces = several(images)
        else:
            data, datatype, shape = view_of(cast("Data", images))
            if len(shape) == 1:
                datatype, shape = wanted.datatype, (-(-len(data) // math.prod(wanted.shape[1:])), *wanted.shape[1:])
            entry, pieces = {"datatype": datatype, "shape": shape}, [data]
        size = sum(len(piece) for piece in pieces)
        return {"name": wanted.name, **entry, "parameters": {"binary_data_size": size}}, pieces

    def _post_v2(self, model: str, version: str | None, entry: Mapping[str, Any], outputs: Sequence[Mapping[str, Any]], pieces: Sequence[Piece],
                 deadline_ms: int | None, priority: int | None, headers: Mapping[str, str]) -> Answer:
        check_deadline(deadline_ms)
        parameters = {"timeout": 1000 * deadline_ms if deadline_ms is not None else None, "priority": priority}
        request = {"inputs": [entry], "outputs": outputs, "parameters": {name: value for name, value in parameters.items() if value is not None}}
        head = json.dumps(request).encode()
        try:
            return self._ask("POST", model_path(model, version) + "/infer", [head, *pieces], {**headers, JSON_LENGTH: str(len(head))}, deadline_ms=deadline_ms)
        except ServerError:
            self._inputs.pop((model, version), None)  # the model may be another one now
            raise


def model_path(model: str, version: str | None) -> str:
    return f"/v2/models/{quote(model, safe='')}" + (f"/versions/{quote(version, safe='')}" if version else "")


def check_deadline(deadline_ms: int | None) -> None:
    """In the protocol 0 is none."""
    if deadline_ms is not None and deadline_ms < 1:
        raise ValueError(f"deadline_ms: {deadline_ms} is less than 1")


def id_headers(request_id: str | None, traceparent: str | None) -> dict[str, str]:
    return {**({"X-Request-Id": request_id} if request_id else {}), **({"Traceparent": traceparent} if traceparent else {})}


def error_of(answer: Answer) -> ServerError:
    try:
        message = str(json.loads(answer.body)["error"])
    except NONSENSE:  # not the server's own: libmicrohttpd's, or a proxy's
        message = answer.body[:1000].decode(errors="replace").strip()
    after = answer.headers.get("Retry-After", "")
    return ServerError(answer.status, answer.reason, message, float(after) if after.isdecimal() else None, answer.headers.get("X-Request-Id"))


def several(images: Sequence[Image]) -> tuple[dict[str, Any], list[Piece]]:
    """Arrays of one shape and type, or pictures."""
    found = [contents(image) for image in images]
    if not found:
        raise ValueError("no images")
    kinds = {(datatype, shape) if len(shape) > 1 else None for _, datatype, shape in found}
    if len(kinds) > 1:
        raise ValueError("images: neither arrays of one shape and type nor pictures alone")
    kind = kinds.pop()
    if kind is not None:
        return {"datatype": kind[0], "shape": [len(found), *kind[1]]}, [data for data, _, _ in found]
    pieces: list[Piece] = []
    for data, _, _ in found:
        pieces += [len(data).to_bytes(4, "little"), data]
    return {"datatype": "BYTES", "shape": [len(found)]}, pieces


def split_tensors(entries: Any, data: memoryview, outputs: Sequence[str]) -> dict[str, Tensor]:
    """The binary tensors behind an answer's JSON, which are those of `outputs`."""
    tensors = {}
    for told in entries:
        size, shape = told["parameters"]["binary_data_size"], tuple(told["shape"])
        tensors[told["name"]] = Tensor(told["datatype"], shape, checked(data[:size], told["datatype"], shape))
        data = data[size:]
    if data.nbytes or tensors.keys() != set(outputs):
        raise ValueError(f"tensors {', '.join(tensors)} and {data.nbytes} bytes more")
    return tensors


def checked(data: memoryview, datatype: str, shape: tuple[int, ...]) -> memoryview:
    """[n][classes], all there."""
    if datatype not in FORMATS or len(shape) != 2 or not all(isinstance(size, int) and size > 0 for size in shape) or size_bytes(datatype, shape) != data.nbytes:
        raise ValueError(f"a tensor {datatype} {shape} of {data.nbytes} bytes")
    return data


def in_order(call: Callable[[Image], Parsed], images: Iterable[Image], in_flight: int) -> Iterator[Parsed]:
    """`call` of each, in threads, yielded in order. Ended early, it waits for the calls that have begun."""
    pool = ThreadPoolExecutor(in_flight, "xnord")
    under_way: deque[Future[Parsed]] = deque()
    try:
        for image in images:
            under_way.append(pool.submit(call, image))
            while len(under_way) >= 2 * in_flight or (under_way and under_way[0].done()):
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
