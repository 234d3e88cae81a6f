# SPDX-License-Identifier: Apache-2.0
"""Tensors in memory that a client and a server on the same machine share: what is inferred from is not sent, and what comes out is not received.

The memory is a file of /dev/shm (a POSIX shared memory object) that lives as long as this object. multiprocessing.shared_memory is not used: it lets nobody but the
own user open its objects, and starts a process to watch over them."""

from __future__ import annotations

import json
import mmap
import os
import secrets
import weakref
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from .client import id_headers
from .errors import Error, ServerError
from .results import Outputs
from .tensors import Tensor, size_bytes

if TYPE_CHECKING:
    from .client import Client

ALIGN_BYTES = 64  # of each tensor: a cache line
FOLDER = "/dev/shm"


def allocate(name: str, total_bytes: int, mode: int) -> mmap.mmap:
    """A new shared memory object. All of its pages are there: that the machine has no more is told now, by OSError."""
    descriptor = os.open(f"{FOLDER}/{name}", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.fchmod(descriptor, mode)
        os.posix_fallocate(descriptor, 0, total_bytes)
        return mmap.mmap(descriptor, total_bytes)
    except BaseException:
        remove(name, os.getpid())
        raise
    finally:
        os.close(descriptor)


def remove(name: str, owner_pid: int) -> None:
    if os.getpid() == owner_pid:  # and not a child of it
        with suppress(FileNotFoundError):
            os.unlink(f"{FOLDER}/{name}")


class SharedTensors:
    """Room for the tensors of up to `images` images and what a model makes of them: Client.shared() makes one. Also a context manager.

        with client.shared("gate", images=4) as region:
            region.array()[0] = frame                # or region.input[:n] = frame's bytes
            outputs = region.infer(1)                # Outputs whose tensors lie in the region
            print(outputs.classes)

    input  bytes of all input tensors [images][height][width][channels], to be written

    From infer() until it returns the region is the server's. What infer() returns is overwritten by the next one. One thread at a time uses a region; several regions
    work side by side. The daemon's user must be able to open the memory: `mode` is its permissions (0o600: the same user; 0o660: one of the process's group).
    After a NetworkError that says `timed_out` the server may still be at work on the region: close it and make another.
    With tokens it takes one of role "admin": that role registers shared memory.
    """

    def __init__(self, client: Client, model: str, images: int, version: str | None, outputs: Sequence[str], mode: int) -> None:
        metadata = client.metadata(model, version)
        if images < 1:
            raise ValueError(f"images: {images} is less than 1")
        self._client, self._model, self._version, self.images = client, model, version, images
        self._info = metadata.inputs[0]
        self.image_bytes = size_bytes(self._info.datatype, self._info.shape[1:])
        known = {output.name: output for output in metadata.outputs}
        if not set(outputs) <= known.keys():
            raise ValueError(f"outputs: {model} has {', '.join(known)}")
        self._outputs = [known[name] for name in outputs]
        end, self._offsets = self.image_bytes * images, []
        for output in self._outputs:
            self._offsets.append(-(-end // ALIGN_BYTES) * ALIGN_BYTES)
            end = self._offsets[-1] + size_bytes(output.datatype, (images, *output.shape[1:]))
        self.name = f"xnord-{os.getpid()}-{secrets.token_hex(8)}"
        self._memory = memoryview(allocate(self.name, end, mode))
        self._removal = weakref.finalize(self, remove, self.name, os.getpid())
        self.input = self._memory[:self.image_bytes * images]
        try:
            self._register()
        except BaseException:
            self._removal()
            raise

    def __enter__(self) -> SharedTensors:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def array(self) -> Any:
        """`input` as a NumPy array [images][height][width][channels]."""
        return Tensor(self._info.datatype, (self.images, *self._info.shape[1:]), self.input).numpy()

    def infer(self, images: int | None = None, *, deadline_ms: int | None = None, priority: int | None = None, request_id: str | None = None,
              traceparent: str | None = None) -> Outputs:
        """Of the first `images` (all) of `input`. Arguments and errors as Client.infer_batch(). A server that has been restarted is told of the region again."""
        if not self._removal.alive:
            raise RuntimeError("the region is closed")
        n = self.images if images is None else images
        if not 1 <= n <= self.images:
            raise ValueError(f"images: {n} is not 1 to {self.images}")
        here: dict[str, Any] = {"shared_memory_region": self.name}
        entry = {"name": self._info.name, "datatype": self._info.datatype, "shape": [n, *self._info.shape[1:]],
                 "parameters": {**here, "shared_memory_byte_size": n * self.image_bytes}}
        sizes = [size_bytes(output.datatype, (n, *output.shape[1:])) for output in self._outputs]
        wanted = [{"name": output.name, "parameters": {**here, "shared_memory_offset": offset, "shared_memory_byte_size": size}}
                  for output, offset, size in zip(self._outputs, self._offsets, sizes)]
        ask = (self._model, self._version, entry, wanted, (), deadline_ms, priority, id_headers(request_id, traceparent))
        try:
            answer = self._client._post_v2(*ask)
        except ServerError as error:
            if error.status != 400 or self._is_registered():
                raise
            self._register()
            answer = self._client._post_v2(*ask)
        tensors = {output.name: Tensor(output.datatype, (n, *output.shape[1:]), self._memory[offset:offset + size])
                   for output, offset, size in zip(self._outputs, self._offsets, sizes)}
        return self._client._parse_v2(answer, lambda told, rest: tensors)

    def close(self) -> None:
        """The server forgets the region, and the memory goes when nothing refers to it any more: `input`, outputs and arrays stay valid."""
        if self._removal.alive:
            self._removal()
            with suppress(Error):  # it is gone, or ends together with the server
                self._client._ask("POST", self._path("unregister"), repeatable=False)

    def _path(self, what: str) -> str:
        return f"/v2/systemsharedmemory/region/{quote(self.name)}/{what}"

    def _register(self) -> None:
        body = json.dumps({"key": self.name, "byte_size": self._memory.nbytes}).encode()
        self._client._ask("POST", self._path("register"), [body], repeatable=False)

    def _is_registered(self) -> bool:
        answer = self._client._ask("GET", "/v2/systemsharedmemory/status")
        return self._client._parse(answer, lambda told: any(region["name"] == self.name for region in told))
