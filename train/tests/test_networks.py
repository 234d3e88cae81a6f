# SPDX-License-Identifier: Apache-2.0
"""Every kind of network, at several mixes of precision: the training graph in exact mode and the exported file give the same logits, bit for bit, with random
weights, scales, statistics and thresholds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from xnortrain import interpret, networks
from xnortrain.data import to_input
from xnortrain.layers import set_binary_weights, set_exact
from xnortrain.networks import ConfigError
from xnortrain.xnorfile import Network


def shaken(model: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Random parameters and statistics, binary weights, exact mode, for evaluation."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() == 1 or "beta" in name:
                p.add_(torch.randn(p.shape, generator=g) * (0.2 if "log_step" in name else 0.4))
        for name, b in model.named_buffers():
            if name.endswith("running_mean"):
                b.copy_(torch.randn(b.shape, generator=g) * 0.5)
            if name.endswith("running_var"):
                b.copy_(torch.rand(b.shape, generator=g) + 0.3)
    set_binary_weights(model, True)
    set_exact(model, True)
    return model.eval()


def compare(model: torch.nn.Module, shape: tuple[int, int, int], seed: int, images: int = 6) -> Network:
    """The file's logits against the graph's; returns the network as read back."""
    x = np.random.default_rng(seed).integers(0, 256, (images, *shape), dtype=np.uint8)
    with torch.no_grad():
        graph = model.logits(to_input(x)).numpy()
    net = Network.from_bytes(model.export({"name": "test", "labels": [str(i) for i in range(graph.shape[1])]}).to_bytes())
    assert np.array_equal(graph, interpret.run(net, x)), f"seed {seed}"
    assert len(np.unique(graph, axis=0)) > 1, "the logits do not depend on the image"
    return net


MIXES = {
    "residual": [{}, {"block1.conv": "int8"}, {"*": {"weights": "binary", "activations": "int8"}}, {"block*": {"weights": "int8", "activations": "binary"}},
                 {"stem": "binary"}],
    "squeeze": [{}, {"*.squeeze": "int8"}, {"*.expand?": "int8", "block0.squeeze": {"weights": "int8"}}],
    "depthwise": [{}, {"*.depthwise": "int8"}, {"*": "int8"}, {"*.depthwise": {"weights": "int8", "activations": "binary"}}],
    "vgg": [{}, {"layer1": {"weights": "int8"}}],
}


@pytest.mark.parametrize("kind,precision", [(kind, mix) for kind, mixes in MIXES.items() for mix in mixes], ids=str)
def test_file_is_the_graph(kind: str, precision: dict) -> None:
    for seed in range(3):
        torch.manual_seed(seed)
        blocks = {"vgg": [1, 2], "depthwise": [2, 2]}.get(kind, [1, 2])
        model = networks.build(kind, (16, 16, 3), 7, width=12, blocks=blocks, stem_kernel=5, precision=precision)
        compare(shaken(model, seed), (16, 16, 3), seed)


@pytest.mark.parametrize("scales", ["trained", "analytic", "none"])
@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("kind", ["residual", "vgg"])
def test_scales(kind: str, scales: str, normalise: bool) -> None:
    torch.manual_seed(3)
    model = networks.build(kind, (16, 16, 1), 5, width=16, blocks=[1, 1], scales=scales, normalise=normalise)
    compare(shaken(model, 3), (16, 16, 1), 3)


RESTORED = [(kind, {"precision": mix}) for kind, mixes in MIXES.items() if kind != "vgg" for mix in mixes]
RESTORED += [("residual", {"scales": scales, "normalise": normalise}) for scales in ("trained", "analytic", "none") for normalise in (True, False)]


@pytest.mark.parametrize("kind,options", RESTORED, ids=str)
def test_a_file_gives_its_network_back(kind: str, options: dict) -> None:
    """Another network of the kind, with what the file and some images say, writes the same file, but for the last bits of a scale's integers."""
    x = np.random.default_rng(1).integers(0, 256, (64, 16, 16, 3), dtype=np.uint8)
    first, second = (networks.build(kind, (16, 16, 3), 7, width=16, blocks=[1, 2], stem_kernel=5, **options) for _ in range(2))
    net = Network.from_bytes(shaken(first, 1).export({"name": "first", "labels": list("abcdefg")}).to_bytes())
    assert second.restore(net, to_input(x)) == []
    set_binary_weights(second, True)
    set_exact(second, True)
    again = second.eval().export({})
    for found, wanted in zip(again.layers, net.layers):
        a, b = ([t.array * 2.0**-(layer.shift if layer.op == "scale" else 0) for t in layer.tensors] for layer in (found, wanted))
        bounds = [2.0**-wanted.shift, 0.01] if wanted.op == "scale" else [0, 0, 0]  # multipliers: one; biases: a hundredth of the stream's unit
        for i, bound in enumerate(bounds[:len(a)]):
            assert np.abs(a[i] - b[i]).max() <= bound, f"{wanted.name}, tensor {i}"
        assert found.scale == pytest.approx(wanted.scale, rel=1e-5)
    same = interpret.run(again, x).argmax(axis=1) == interpret.run(net, x).argmax(axis=1)
    assert same.mean() > 0.95


def test_a_shipped_file_gives_its_network_back() -> None:
    """With statistics of twelve images only; they do not matter to what it answers before it is trained."""
    folder = Path(__file__).resolve().parents[2] / "models/fashion-mnist"
    net = Network.load(folder / "fashion-mnist.xnor")
    samples = np.stack([np.asarray(Image.open(path))[:, :, None] for path in sorted((folder / "samples").glob("*.png"))])
    model = networks.build("residual", (28, 28, 1), 10, **net.metadata["provenance"]["recipe"]["options"])
    assert model.restore(net, to_input(samples)) == []
    set_binary_weights(model, True)
    set_exact(model, True)
    x = np.concatenate([samples, np.random.default_rng(1).integers(0, 256, (24, 28, 28, 1), dtype=np.uint8)])
    with torch.no_grad():
        graph = model.eval().logits(to_input(x)).numpy()
    expected = interpret.run(net, x)
    assert (graph.argmax(axis=1) == expected.argmax(axis=1)).all()
    assert (graph == expected).all(axis=1).mean() > 0.9


@pytest.mark.parametrize("kind,layers", [("residual18", 18), ("residual20", 20)])
def test_depth(kind: str, layers: int) -> None:
    torch.manual_seed(1)
    model = networks.build(kind, (32, 32, 3), 10, width=8)
    net = compare(shaken(model, 1), (32, 32, 3), 1, images=2)
    assert sum(layer.op in ("conv", "dense") for layer in net.layers) == layers


def test_precision_reaches_the_file() -> None:
    model = networks.build("depthwise", (16, 16, 1), 4, width=8, blocks=[1, 1], precision={"*.depthwise": "int8", "block1.depthwise": "binary"})
    net = model.export({})
    kinds = {layer.name: layer.tensors[0].dtype for layer in net.layers if layer.op == "conv"}
    assert kinds["block0.depthwise"] == "int8" and kinds["block1.depthwise"] == "bits" and kinds["block0.pointwise"] == "bits"


@pytest.mark.parametrize("options,told", [
    ({"kind": "resnet"}, "no network 'resnet'"), ({"precision": {"block9.*": "int8"}}, "no layer has such a name"),
    ({"precision": {"block0.conv": "int4"}}, "int4"), ({"scales": "learned"}, "learned"), ({"blocks": [1, 1, 1, 1, 1]}, "cannot be halved"),
    ({"kind": "vgg", "precision": {"layer1": "int8"}}, "bits only"), ({"kind": "squeeze", "precision": {"block0.expand1": "int8"}}, "same activations")])
def test_bad_configurations_are_named(options: dict, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        networks.build(options.pop("kind", "residual"), (28, 28, 1), 10, **options)
