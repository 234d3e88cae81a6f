# SPDX-License-Identifier: Apache-2.0
"""PNG pictures over HTTP -> xnord -> real XRT -> the engine, simulated: every shipped network's integers are the scalar reference's, and those of the well-known
shapes.

XN_XRT_IMAGES=n: so many images of each shipped network (3), and a third of them where that takes long. Skipped where XRT 2.13, the virtual card or the engine's simulation is not there."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from http_support import ROOT, Daemon, daemon, png, small_network
from PIL import Image
from xrt_support import BUILD, cards, needs_cards

sys.path.insert(0, str(ROOT / "train"))

from xnortrain import verify  # noqa: E402
from xnortrain.xnorfile import Network  # noqa: E402

SHIPPED = sorted((ROOT / "models").glob("*/*.xnor"))
SAMPLES = sorted((ROOT / "models/fashion-mnist/samples").glob("*.png"))
N_IMAGES = int(os.environ.get("XN_XRT_IMAGES", "3"))
AT_ONCE = 8  # in a request
BENCH = BUILD / "xnor-bench"
HLS = BUILD / "libxnor-sim-hls-4t.so"
RTL_4T, RTL_SMALL = ROOT / "build/rtl/8-8-4-12288-4096-1024.so", ROOT / "build/rtl/2-1-1-256-256-64.so"
pytestmark = needs_cards


def needs(library: Path, target: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not library.exists(), reason=f"{library} is not built: make {target}")


def photographs(net: Network, n: int) -> np.ndarray:
    """[n][h][w][c]: the sample pictures in the network's size. Colours are three of them, one behind another; after all have been seen they are shifted."""
    x = net.input
    grey = [np.asarray(Image.open(path).convert("L").resize((x.w, x.h))) for path in SAMPLES]
    planes = (np.roll(grey[i % len(grey)], i // len(grey), axis=1) for i in itertools.count())
    return np.stack([np.stack([next(planes) for _ in range(x.c)], axis=-1) for _ in range(n)])


def is_for_pictures(net: Network) -> bool:
    return "image" in net.metadata.get("input", {})


def accumulators(server: Daemon, net: Network, batch: np.ndarray) -> np.ndarray:
    """The network's own integers [n][classes] about a batch, in one request: PNG pictures where it takes them, else tensors."""
    if is_for_pictures(net):
        pictures = [png(image) for image in batch]
        data, what = b"".join(struct.pack("<I", len(picture)) + picture for picture in pictures), {"datatype": "BYTES", "shape": [len(batch)]}
    else:
        data, what = batch.tobytes(), {"datatype": "UINT8", "shape": list(batch.shape)}
    name = net.metadata.get("input", {}).get("name", "input")
    question = {"inputs": [{"name": name, **what, "parameters": {"binary_data_size": len(data)}}],
                "outputs": [{"name": "accumulators", "parameters": {"binary_data": True}}]}
    head = json.dumps(question).encode()
    answer = server.post(f"/v2/models/{net.metadata['name']}/infer", head + data, Inference_Header_Content_Length=str(len(head)))
    assert answer.status == 200, answer.body
    return np.frombuffer(answer.body[int(answer.headers["inference-header-content-length"]):], "<i4").reshape(len(batch), -1)


@contextlib.contextmanager
def served(folder: Path, options: str, models: list[Path]) -> Iterator[Daemon]:
    with cards(folder, options) as xclbin, daemon(folder, [{"path": str(path), "timeout_ms": 600000} for path in models],
                                                  accelerators=[{"kind": "xrt", "image": str(xclbin)}]) as server:
        yield server


def check(server: Daemon, path: Path, n: int) -> None:
    """n images through the door for tensors, and one through the simple door: integers, and the class that follows from them."""
    net = Network.load(path)
    batch = photographs(net, n)
    got = np.concatenate([accumulators(server, net, batch[i : i + AT_ONCE]) for i in range(0, n, AT_ONCE)])
    want = verify.run_c(BUILD / "xnorctl", path, batch, "reference", got.shape[1])
    assert not verify.first_difference(got, want), f"{path.name}: {verify.first_difference(got, want)} (card, reference)"
    answer = server.post(f"/infer?model={net.metadata['name']}", png(batch[0]) if is_for_pictures(net) else batch[0].tobytes())
    assert answer.status == 200 and answer.json()["results"][0]["class"] == int(want[0].argmax()), answer.body


@needs(HLS, "hls-programs")
def test_shipped_networks(tmp_path: Path) -> None:
    """All of them side by side on one card of two units."""
    assert SHIPPED and SAMPLES
    with served(tmp_path, "--cards 1 --units 2 --geometry 4T --engine hls", SHIPPED) as server:
        for path in SHIPPED:
            check(server, path, N_IMAGES)


@needs(HLS, "hls-programs")
@pytest.mark.skipif(not BENCH.exists(), reason=f"{BENCH} is not built: make test-programs")
def test_well_known_shapes(tmp_path: Path) -> None:
    """VGG-small and two of ResNet-18, with random weights."""
    subprocess.run([BENCH, "write", tmp_path], check=True)
    paths = sorted(tmp_path.glob("*.xnor"))
    assert len(paths) == 3
    with served(tmp_path, "--cards 1 --units 2 --geometry 4T --engine hls", paths) as server:
        for path in paths:
            check(server, path, max(1, N_IMAGES // 3))


@needs(RTL_SMALL, "rtl-programs")
def test_a_small_network_in_verilated_rtl(tmp_path: Path) -> None:
    small_network(tmp_path / "a.xnor", "a", (6, 6, 1), 4, image=True)
    with served(tmp_path, f"--cards 1 --units 1 --geometry P2,PI1,PR1,AM256,RM256,WB64 --engine {RTL_SMALL}", [tmp_path / "a.xnor"]) as server:
        check(server, tmp_path / "a.xnor", 4)


@needs(RTL_4T, "rtl-networks")
def test_shipped_networks_in_verilated_rtl(tmp_path: Path) -> None:
    with served(tmp_path, f"--cards 1 --units 1 --geometry 4T --engine {RTL_4T}", SHIPPED) as server:
        for path in SHIPPED:
            check(server, path, max(1, N_IMAGES // 3))
