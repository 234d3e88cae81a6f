# SPDX-License-Identifier: Apache-2.0
"""Tensors in shared memory: in place, exact, gone when they are closed, there again after the server's restart."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from client_support import PACKAGE, PATIENCE_S

import xnord
from http_support import Daemon, daemon, expect, images, small_network
from lifecycle_support import daemon as restartable
from transport_support import token_file
from xnortrain.xnorfile import Network

IMAGES = 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def net(folder: Path) -> Network:
    return small_network(folder / "a.xnor", "a", (7, 9, 3), 11)  # sizes that no alignment is made of


@pytest.fixture(scope="module")
def server(folder: Path, net: Network) -> Iterator[Daemon]:
    signed = small_network(folder / "signed.xnor", "signed", (3, 5, 1), 2, dtype="int8")
    with daemon(folder, [{"path": str(folder / "a.xnor")}, {"path": str(folder / "signed.xnor")}]) as running:
        running.signed = signed  # type: ignore[attr-defined]
        yield running


@pytest.fixture
def client(server: Daemon) -> Iterator[xnord.Client]:
    with xnord.Client(f"http://127.0.0.1:{server.port}") as made:
        yield made


def objects() -> set[str]:
    return {name for name in os.listdir("/dev/shm") if name.startswith(f"xnord-{os.getpid()}-")}


def regions(server: Daemon) -> set[str]:
    return {region["name"] for region in server.get("/v2/systemsharedmemory/status").json()}


def test_in_place(server: Daemon, client: xnord.Client, net: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference's integers, without a tensor on the wire in either direction."""
    exchanged: list[int] = []
    exchange = client._transport.exchange

    def counted(method: str, path: str, pieces: Any = (), *more: Any, **named: Any) -> Any:
        answer = exchange(method, path, pieces, *more, **named)
        exchanged.append(sum(len(piece) for piece in pieces) + len(answer.body))
        return answer

    with client.shared("a", images=IMAGES) as region:
        monkeypatch.setattr(client._transport, "exchange", counted)
        for round_ in range(3):
            batch = images(net, IMAGES, seed=round_)
            if round_ == 1:
                region.input[:] = batch.tobytes()
            else:
                region.array()[:] = batch
            outputs = region.infer(request_id=f"r{round_}", deadline_ms=60000, priority=1)
            assert np.array_equal(outputs.accumulators, expect(net, batch)) and outputs.classes == expect(net, batch).argmax(1).tolist()
            assert np.array_equal(outputs.logits, client.infer_batch(batch, model="a").logits)
            assert (outputs.model, outputs.version, outputs.request_id) == ("a", "3", f"r{round_}")
            part = region.infer(2)
            assert part.accumulators.shape == (2, 11) and np.array_equal(part.accumulators, expect(net, batch[:2]))
            whole = np.frombuffer(region._memory, np.uint8)
            assert all(np.shares_memory(tensor.numpy(), whole) for tensor in outputs.tensors.values()) and np.shares_memory(region.array(), whole)
            assert not np.shares_memory(outputs.logits.numpy(), region.array())
        in_place = [size for size in exchanged if size < 1000]
        assert len(in_place) >= 6
        assert region.name in regions(server)
    assert region.name not in regions(server) and not objects()


def test_signed_and_fewer_outputs(server: Daemon, client: xnord.Client) -> None:
    net = server.signed  # type: ignore[attr-defined]
    batch = images(net, 1)
    with client.shared("signed", outputs=["accumulators"], version="3") as region:
        assert region.array().dtype == np.int8 and region.images == 1
        region.array()[:] = batch
        outputs = region.infer()
        assert set(outputs.tensors) == {"accumulators"} and np.array_equal(outputs.accumulators, expect(net, batch))


def test_several_at_a_time(client: xnord.Client, net: Network) -> None:
    with client.shared("a") as first, client.shared("a", images=2) as second:
        one, two = images(net, 1, seed=1), images(net, 2, seed=2)
        first.array()[:], second.array()[:] = one, two
        told = first.infer(), second.infer()
        assert np.array_equal(told[0].accumulators, expect(net, one)) and np.array_equal(told[1].accumulators, expect(net, two))


def test_close(client: xnord.Client, net: Network, server: Daemon) -> None:
    """Twice is once; what was taken from it stays readable; it is used no more."""
    region = client.shared("a")
    region.array()[:] = images(net, 1)
    outputs = region.infer()
    logits = outputs.logits.tolist()
    region.close()
    region.close()
    assert outputs.logits.tolist() == logits and region.array().shape == (1, 7, 9, 3) and not objects()
    with pytest.raises(RuntimeError, match="closed"):
        region.infer()
    forgotten = client.shared("a")
    assert objects()
    del forgotten
    assert not objects()


def test_what_is_refused(client: xnord.Client, tmp_path: Path) -> None:
    """No memory stays behind."""
    with client.shared("a", images=2) as region:
        for images_ in (0, 3):
            with pytest.raises(ValueError, match="1 to 2"):
                region.infer(images_)
        with pytest.raises(xnord.ServerError):
            region.infer(deadline_ms=600001)
        assert region.infer().logits.shape == (2, 11)
    with pytest.raises(ValueError, match="images"):
        client.shared("a", images=0)
    with pytest.raises(ValueError, match="a has logits, accumulators"):
        client.shared("a", outputs=["nothing"])
    with pytest.raises(xnord.ServerError):
        client.shared("nobody")
    assert not objects()
    small_network(tmp_path / "a.xnor", "a", (7, 9, 3), 11)
    with daemon(tmp_path, [{"path": str(tmp_path / "a.xnor")}], limits={"shared_regions": 0}) as without, xnord.Client(f"http://127.0.0.1:{without.port}") as other:
        with pytest.raises(xnord.ServerError) as raised:
            other.shared("a")
        assert raised.value.status == 501 and not objects()


def test_permissions(client: xnord.Client) -> None:
    old = os.umask(0o077)
    try:
        with client.shared("a", mode=0o660) as region, client.shared("a") as own:
            assert [os.stat(f"/dev/shm/{one.name}").st_mode & 0o777 for one in (region, own)] == [0o660, 0o600]
    finally:
        os.umask(old)


def test_who_may(tmp_path: Path) -> None:
    """With tokens, registering takes an admin's."""
    small_network(tmp_path / "a.xnor", "a", (7, 9, 3), 11)
    token_file(tmp_path, camera="infer", local="admin")
    with daemon(tmp_path, [{"path": str(tmp_path / "a.xnor")}], tokens="tokens") as server:
        url = f"http://127.0.0.1:{server.port}"
        with xnord.Client(url, token="secret-camera") as client, pytest.raises(xnord.ServerError) as raised:
            client.shared("a")
        assert raised.value.status == 403 and not objects()
        with xnord.Client(url, token="secret-local") as client, client.shared("a") as region:
            assert region.infer().logits.shape == (1, 11)


def test_a_server_that_comes_back(tmp_path: Path) -> None:
    """It is told of the region again."""
    net = small_network(tmp_path / "a.xnor", "a", (7, 9, 3), 11)
    config = {"models": [{"path": "a.xnor"}], "listen": [{"unix": "door"}, {"address": "127.0.0.1", "port": 0}]}
    batch = images(net, 2)
    with xnord.Client(f"unix:{tmp_path}/door") as client:
        with restartable(tmp_path, config):
            region = client.shared("a", images=2)
            region.array()[:] = batch
            assert np.array_equal(region.infer().accumulators, expect(net, batch))
        with pytest.raises(xnord.NetworkError):
            region.infer()
        with restartable(tmp_path, config):
            assert np.array_equal(region.infer().accumulators, expect(net, batch))
        region.close()  # with nobody there
    assert not objects()


def test_processes_that_end(server: Daemon) -> None:
    """One that does not close its region leaves no memory behind; a child that ends does not take its parent's away."""
    script = f"""
import os, sys
sys.path.insert(0, {str(PACKAGE)!r})
import xnord
client = xnord.Client("http://127.0.0.1:{server.port}")
region = client.shared("a")
child = os.fork()
if child == 0:
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
assert os.path.exists("/dev/shm/" + region.name)
region.infer()
print(region.name)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    assert not os.path.exists(f"/dev/shm/{done.stdout.strip()}")
