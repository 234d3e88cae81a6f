# SPDX-License-Identifier: Apache-2.0
"""Imported networks answer as the ONNX file does in floating point, by an evaluator that shares nothing with the importer (onnx_float.py)."""

from __future__ import annotations

import os
import time
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnx_networks
import pytest
from onnx import helper
from onnx_float import evaluate
from onnx_networks import Writer
from xnortrain import data as datasets
from xnortrain import interpret, oracle, qonnx, qonnx_fold
from xnortrain.cli import main
from xnortrain.qonnx_graph import Unsupported, read
from xnortrain.xnorfile import FormatError, Network

ROOT = Path(__file__).resolve().parents[2]
# A data file of other people, which is not part of the project: $XN_TFC_ONNX names it, or it lies beside the checkout.
TFC = Path(os.environ.get("XN_TFC_ONNX", ROOT.parent / "shared/data/TFC_1W1A.onnx"))


@pytest.fixture()
def seed() -> int:
    chosen = int(os.environ.get("XN_SEED") or time.time())
    print(f"XN_SEED={chosen}")
    return chosen


def load(path: Path, options: qonnx.Options = qonnx.Options()) -> tuple[Network, qonnx.Report]:
    net, report = qonnx.import_graph(read(path), options)
    net.metadata = {"name": "imported"}
    return Network.from_bytes(net.to_bytes()), report


def scores(net: Network, logits: np.ndarray) -> np.ndarray:
    last = net.layers[-1]
    return logits * float(last.scale) + float(last.offset)


def compare(path: Path, images: np.ndarray, options: qonnx.Options = qonnx.Options(), softmax: bool = False) -> tuple[Network, qonnx.Report, int]:
    """images uint8 NHWC. Every score must be the float evaluation's; returns how many images have two best classes."""
    net, report = load(path, options)
    channels = np.arange(images.shape[3])
    mean, std = (np.broadcast_to(np.array(v or d), channels.shape) for v, d in ((options.mean, 0.0), (options.std, 1.0)))
    floats = ((images / options.divide - mean) / std).transpose(0, 3, 1, 2)
    want = evaluate(path, floats)
    logits = interpret.run(net, images)
    got = scores(net, logits)
    if softmax:
        e = np.exp(got - got.max(axis=1, keepdims=True))
        got = e / e.sum(axis=1, keepdims=True)
    assert np.allclose(got, want, rtol=1e-4, atol=1e-5 * np.abs(want).max()), np.abs(got - want).max()
    best = np.sort(want, axis=1)
    tied = best[:, -1] - best[:, -2] <= 1e-6 * np.abs(best).max()
    assert (logits.argmax(axis=1) == want.argmax(axis=1))[~tied].all()
    return net, report, int(tied.sum())


def alive(net: Network, images: np.ndarray) -> None:
    """A network whose answers do not depend on the image would agree with anything."""
    different = len(np.unique(interpret.run(net, images), axis=0))
    assert different > len(images) / 8, different


# ---- the sample -----------------------------------------------------------------------------------------------------


def test_tfc_1w1a_as_its_float_graph(capsys: pytest.CaptureFixture[str], seed: int) -> None:
    """TFC_1W1A.onnx on 10,000 random inputs of MNIST's shape and the 10,000 images of Fashion-MNIST, which has it too."""
    if not TFC.exists():
        warnings.warn(f"{TFC} is not there: name TFC_1W1A.onnx with XN_TFC_ONNX")
        pytest.skip(f"{TFC} is not there: name TFC_1W1A.onnx with XN_TFC_ONNX")
    random = np.random.default_rng(seed)
    noise = random.integers(0, 256, (5000, 28, 28, 1)).astype(np.uint8)
    strokes = np.where(random.random((5000, 28, 28, 1)) < random.random((5000, 1, 1, 1)), 255, 0).astype(np.uint8)
    for name, images in (("noise", noise), ("black and white", strokes), ("Fashion-MNIST", datasets.fashion_mnist().test.images)):
        net, report, tied = compare(TFC, images)
        alive(net, images)
        assert (report.zeros, report.uncertain, report.disordered) == (0, 0, 0)
        # The graph's own scores are exact in float64 up to rounding far below one count: equal scores are equal sums, and nothing else is a tie.
        logits = interpret.run(net, images)
        equal = (np.sort(logits, axis=1)[:, -1] == np.sort(logits, axis=1)[:, -2]).sum()
        assert tied == equal
        with capsys.disabled():
            print(f"\nTFC_1W1A, {len(images)} x {name}: all scores as in float; {tied} images with two best classes (exact ties), all others answered alike", flush=True)


# ---- small ones -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", range(4))
def test_tfc_shape(tmp_path: Path, seed: int, offset: int) -> None:
    path = onnx_networks.tfc(tmp_path / "tfc.onnx", seed + offset)
    images = np.random.default_rng(seed).integers(0, 256, (500, 12, 11, 1)).astype(np.uint8)
    net, report, _ = compare(path, images)
    alive(net, images)
    assert [layer.op for layer in net.layers] == ["threshold"] + ["dense", "threshold"] * 3 + ["dense", "logits"]
    assert all(layer.tensors[0].dtype == "bits" for layer in net.layers if layer.op == "dense")


@pytest.mark.parametrize("scales", [False, True])
def test_cnv_shape(tmp_path: Path, seed: int, scales: bool) -> None:
    path = onnx_networks.cnv(tmp_path / "cnv.onnx", seed, scales)
    images = np.random.default_rng(seed).integers(0, 256, (80, 22, 22, 3)).astype(np.uint8)
    net, _, _ = compare(path, images)
    alive(net, images)
    assert [layer.op for layer in net.layers] == ["scale", *["conv", "threshold", "conv", "threshold", "maxpool"] * 2, "dense", "threshold", "dense", "logits"]
    assert net.values[1].dtype == "int8" and all(layer.tensors[0].dtype == "bits" for layer in net.layers if layer.op in ("conv", "dense"))


@pytest.mark.parametrize("offset", range(6))
def test_everything_else_that_is_understood(tmp_path: Path, seed: int, offset: int) -> None:
    """The scale of 8-bit activations is not a power of two: sums at which float32 rounds across a half may differ, and none does here."""
    path = onnx_networks.mixed(tmp_path / "mixed.onnx", seed + offset)
    images = np.random.default_rng(seed).integers(0, 256, (200, 9, 10, 2)).astype(np.uint8)
    net, report, _ = compare(path, images, softmax=True)
    assert any("Softmax" in line and "left out" in line for line in report.lines)
    alive(net, images)
    assert {"conv", "scale", "threshold", "maxpool", "dense", "logits"} == {layer.op for layer in net.layers}



def test_ties_are_counted(tmp_path: Path, seed: int) -> None:
    """Means on levels that sums reach: exactly 0 counts as +1, as sign(0) does, and the report says how many such levels there are."""
    path = onnx_networks.tfc(tmp_path / "ties.onnx", seed, ties=True)
    net, report = load(path)
    assert report.zeros == 3 * 48
    images = np.random.default_rng(seed).integers(0, 256, (500, 12, 11, 1)).astype(np.uint8)
    floats = (images / 255).transpose(0, 3, 1, 2)
    # The evaluator multiplies first and subtracts the product: where the mean sits on a level it may miss 0 by a rounding, on either side. So it is compared
    # with the exact 0 made just positive.
    graph = onnx.load(str(path))
    for node in graph.graph.node:
        if node.op_type == "BatchNormalization":
            bias = next(t for t in graph.graph.initializer if t.name == node.input[2])
            gamma = next(t for t in graph.graph.initializer if t.name == node.input[1])
            bias.CopyFrom(onnx.numpy_helper.from_array(np.full_like(onnx.numpy_helper.to_array(gamma), 1e-6), bias.name))
    onnx.save(graph, str(tmp_path / "nudged.onnx"))
    assert np.allclose(scores(net, interpret.run(net, images)), evaluate(tmp_path / "nudged.onnx", floats), atol=1e-5)


def test_pixels_enter_as_the_options_say(tmp_path: Path, seed: int) -> None:
    images = np.random.default_rng(seed).integers(0, 256, (60, 22, 22, 3)).astype(np.uint8)
    for options in (qonnx.Options(divide=200.0), qonnx.Options(mean=(0.4, 0.5, 0.1), std=(0.5, 0.9, 0.7)), qonnx.Options(divide=1.0, mean=(127.5,), std=(300.0,))):
        w = Writer((1, 3, 22, 22), seed)
        x = w.node("Conv", w.quant("input", 2.0**-5), w.weights((8, 3, 5, 5)), kernel_shape=[5, 5], strides=[2, 2])
        x = w.node("Flatten", w.sign(w.batchnorm(x, 8, 4.0)))
        path = w.save(tmp_path / "net.onnx", w.node("MatMul", x, w.node("Transpose", w.weights((5, 8 * 81)), perm=[1, 0])))
        net, _, _ = compare(path, images, options)
        alive(net, images)
    with pytest.raises(Unsupported, match="--mean has 2 numbers, the input 3 channels"):
        load(path, qonnx.Options(mean=(0.5, 0.5)))


def test_a_flat_input_takes_a_shape(tmp_path: Path, seed: int) -> None:
    w = Writer((1, 2 * 4 * 3), seed)
    x = w.sign(w.node("Sub", "input", w.constant(np.random.default_rng(seed).uniform(0.2, 0.8, 1))))
    path = w.save(tmp_path / "flat.onnx", w.node("MatMul", x, w.node("Transpose", w.weights((5, 24)), perm=[1, 0])))
    images = np.random.default_rng(seed).integers(0, 256, (50, 4, 3, 2)).astype(np.uint8)
    net, _ = load(path, qonnx.Options(shape=(4, 3, 2)))
    assert net.values[0].h == 4 and np.allclose(scores(net, interpret.run(net, images)), evaluate(path, (images / 255).transpose(0, 3, 1, 2).reshape(50, -1)))
    flat, _ = load(path)
    assert (flat.input.h, flat.input.w, flat.input.c) == (1, 1, 24)
    with pytest.raises(Unsupported, match="which is not 4x4x2"):
        load(path, qonnx.Options(shape=(4, 4, 2)))


def test_scores_of_classes_keep_their_order(tmp_path: Path, seed: int) -> None:
    """Each class with its own scale and offset: 32-bit multipliers order every pair of sums as float32 does, or the report counts where not."""
    w = Writer((1, 1, 8, 8), seed)
    x = w.sign(w.node("Sub", w.node("Flatten", "input"), w.constant(0.5)))
    x = w.node("MatMul", x, w.node("Transpose", w.weights((7, 64)), perm=[1, 0]))
    path = w.save(tmp_path / "net.onnx", w.node("Add", w.node("Mul", x, w.constant(w.random.uniform(-2, 2, 7))), w.constant(w.random.normal(0, 9, 7))))
    _, report, _ = compare(path, np.random.default_rng(seed).integers(0, 256, (300, 8, 8, 1)).astype(np.uint8))
    assert report.disordered == 0


# ---- the search -----------------------------------------------------------------------------------------------------


def test_thresholds_are_where_the_float_function_switches(seed: int) -> None:
    """Against every level one by one; with falling, constant and tied channels."""
    r = np.random.default_rng(seed)
    n = 300
    a, b = np.where(r.random(n) < 0.05, 0, r.normal(0, 1, n)), np.where(r.random(n) < 0.2, 0, r.normal(0, 40, n))
    b = np.where(r.random(n) < 0.3, -a * r.integers(-50, 50, n) * 2, b)  # exactly 0 on a level, as far as float64 goes
    chain = qonnx_fold.Chain(np.ones(n), [qonnx_fold.Step("affine", lambda x, c: x * qonnx_fold.per_channel(a, x, c) + qonnx_fold.per_channel(b, x, c))])
    high = r.integers(1, 120, n)
    found = qonnx_fold.thresholds(chain, qonnx_fold.Levels(-high, high, 2))
    zeros = 0
    for c in range(n):
        for v in range(-high[c], high[c] + 1, 2):
            value = np.float32(v) * np.float32(a[c]) + np.float32(b[c])
            zeros += int(value == 0)
            assert ((-v if found.flip[c] else v) >= found.values[c]) == (value >= 0), (c, v)
    assert found.zeros == zeros and found.flip.any() and found.constant > 0


def test_what_is_not_monotone_is_refused() -> None:
    levels = qonnx_fold.Levels(np.array([-5]), np.array([5]))
    with pytest.raises(qonnx_fold.NotMonotone, match="more than once"):
        qonnx_fold.thresholds(qonnx_fold.Chain(np.ones(1), [qonnx_fold.Step("square", lambda x, _: x * x - 4)]), levels)
    with pytest.raises(qonnx_fold.NotMonotone, match="not a number"), np.errstate(invalid="ignore"):
        qonnx_fold.thresholds(qonnx_fold.Chain(np.ones(1), [qonnx_fold.Step("root", lambda x, _: np.sqrt(x))]), levels)
    with pytest.raises(qonnx_fold.NotMonotone, match="what follows the maximum falls"):
        qonnx_fold.thresholds(qonnx_fold.Chain(np.ones(1), [qonnx_fold.Step("max", lambda x, _: x, pool=True), qonnx_fold.Step("minus", lambda x, _: -x)]), levels)
    with pytest.raises(qonnx_fold.NotMonotone, match="not affine"):
        qonnx_fold.fit_classes(qonnx_fold.Chain(np.ones(1), [qonnx_fold.Step("square", lambda x, _: x * x)]), levels)


def test_scaling_gives_the_quantizers_integers_at_every_level(seed: int) -> None:
    r = np.random.default_rng(seed)
    for low, high, reach in ((-128, 127, 255), (0, 255, 900), (-128, 127, 4608)):
        n = 20
        # Slopes that a 16-bit multiplier can be: others need not have a fit.
        a, b = r.integers(-32767, 32768, n) * 0.25 * 2.0**-(14 + reach // 600), r.normal(0, 20, n)
        chain = qonnx_fold.Chain(np.ones(n), [qonnx_fold.Step("affine", lambda x, c: x * qonnx_fold.per_channel(a, x, c) + qonnx_fold.per_channel(b, x, c))])

        def quantize(x: np.ndarray) -> np.ndarray:
            return np.rint(np.clip(x / x.dtype.type(0.25), low, high))
        levels = qonnx_fold.Levels(np.full(n, -reach), np.full(n, reach))
        found = qonnx_fold.fit_scaling(chain, levels, quantize, 0.25, low, high)
        assert found is not None
        v = np.tile(np.arange(-reach, reach + 1), (n, 1))
        half = 1 << (found.shift - 1)
        got = np.clip((found.multiplier[:, None] * v + found.bias[:, None] + half) >> found.shift, low, high)
        assert np.array_equal(got, quantize(chain.evaluate(v, slice(0, n), np.float32)))
    steep = qonnx_fold.Chain(np.ones(1), [qonnx_fold.Step("root", lambda x, _: np.sqrt(np.abs(x)))])
    assert qonnx_fold.fit_scaling(steep, qonnx_fold.Levels(np.array([0]), np.array([255])), lambda x: np.rint(x), 1.0, 0, 255) is None


# ---- refusals -------------------------------------------------------------------------------------------------------


def broken(tmp_path: Path, build, shape: tuple[int, ...] = (1, 1, 6, 6)) -> Path:  # type: ignore[no-untyped-def]
    w = Writer(shape, 1)
    return w.save(tmp_path / "broken.onnx", build(w))


def conv(w: Writer, x: str, **attributes) -> str:  # type: ignore[no-untyped-def]
    return w.node("Conv", x, w.weights((4, 1, 3, 3)), **{"kernel_shape": [3, 3], **attributes})


REFUSALS = {
    "LSTM": (lambda w: w.node("LSTM", "input"), r"node LSTM_0 \(LSTM\): this operation is not supported"),
    "shortcut": (lambda w: w.node("Add", x := conv(w, w.sign("input")), x), r"node Add_3 \(Add\): two inputs that both depend"),
    "float weights": (lambda w: w.node("Conv", "input", w.constant(w.random.normal(size=(4, 1, 3, 3)))), r"node Conv_0 \(Conv\): its weights are neither"),
    "float activations": (lambda w: w.node("MatMul", w.node("Flatten", conv(w, w.sign("input"))), w.weights((64, 3))), r"node MatMul_5 \(MatMul\): its input is not quantized"),
    "offset input": (lambda w: conv(w, w.node("Sub", "input", w.constant(0.5))), r"node Conv_2 \(Conv\): the input enters it with an offset"),
    "dilation": (lambda w: conv(w, w.sign("input"), dilations=[2, 2]), r"node Conv_2 \(Conv\): dilations"),
    "stride": (lambda w: w.sign(conv(w, w.sign("input"), strides=[3, 3])), r"node BipolarQuant_3 \(BipolarQuant\): conv 'Conv_2': stride"),
    "zero point": (lambda w: w.quant("input", 0.1, zero=3.0), r"node Quant_0 \(Quant\): a zero point"),
    "width": (lambda w: w.quant("input", 0.1, bits=16.0), r"node Quant_0 \(Quant\): a width of \[16.\] bits"),
    "narrow": (lambda w: w.quant("input", 0.001, narrow=1), r"node Quant_0 \(Quant\): it clamps to -127..127"),
    "rounding": (lambda w: w.quant("input", 0.1, rounding_mode="HALF_MOON"), r"node Quant_0 \(Quant\): rounding mode HALF_MOON"),
    "ceil": (lambda w: w.node("MaxPool", w.sign("input"), kernel_shape=[2, 2], ceil_mode=1), r"node MaxPool_1 \(MaxPool\): ceil_mode"),
    "large pool": (lambda w: w.node("MaxPool", w.sign("input"), kernel_shape=[9, 9]), r"node MaxPool_1 \(MaxPool\): a window of \[9, 9\] does not fit on 6x6"),
    "pixels": (lambda w: w.sign(w.node("Add", conv(w, w.sign("input")), w.constant(w.random.normal(size=(1, 4, 4, 4))))), r"node Add_3 \(Add\): its constant differs between pixels"),
    "batch": (lambda w: w.node("Reshape", "input", w.constant([3, 5])), r"node Reshape_0 \(Reshape\): cannot bring \[1, 1, 6, 6\] into \[3, 5\]"),
    "pool before a fall": (lambda w: w.sign(w.node("Neg", w.node("MaxPool", conv(w, w.sign("input")), kernel_shape=[2, 2]))), r"node BipolarQuant_5 .*what follows the maximum falls"),
    "map at the end": (lambda w: conv(w, w.sign("input")), r"node Conv_2 \(Conv\): the output must be scores"),
    "bits at the end": (lambda w: w.sign("input"), r"node BipolarQuant_0 .*the output must be scores"),
    "constant at the end": (lambda w: w.weights((2, 2)), r"node BipolarQuant_0 .*does not depend on the input"),
    "middle softmax": (lambda w: w.node("Add", w.node("Softmax", "input"), w.constant(1.0)), r"node Softmax_0 \(Softmax\): is only understood at the end"),
    "not finite": (lambda w: w.node("Mul", "input", w.constant(float("nan"))), r"node Mul_0 \(Mul\): its constant is not finite"),
    "unknown input": (lambda w: w.node("Neg", "nowhere"), r"node Neg_0 \(Neg\): its input 'nowhere' is made nowhere"),
    "huge constant": (lambda w: w.node("Add", w.constant(np.zeros((1 << 17, 1))), w.constant(np.zeros((1, 1 << 17)))), r"node Add_0 \(Add\): makes a constant that is too large"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_is_not_supported_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    build, match = REFUSALS[name]
    path = broken(tmp_path, build)
    with pytest.raises(Unsupported, match=match):
        load(path)
    assert main(["import", str(path), "-o", str(tmp_path / "out.xnor")]) == 1
    assert capsys.readouterr().err.startswith("xnor-train: ") and not (tmp_path / "out.xnor").exists()


def test_two_inputs_external_data_and_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("not a network\n")
    with pytest.raises(Unsupported, match="not an ONNX file"):
        read(tmp_path / "text.onnx")
    (tmp_path / "empty.onnx").write_bytes(b"")
    with pytest.raises(Unsupported, match="0 nodes"):
        read(tmp_path / "empty.onnx")
    model = onnx.load(str(onnx_networks.tfc(tmp_path / "tfc.onnx", 1)))
    tensor = model.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    (tmp_path / "external.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(Unsupported, match="its data lie in another file"):
        read(tmp_path / "external.onnx")
    two = helper.make_graph([helper.make_node("Add", ["a", "b"], ["c"])], "g", [helper.make_tensor_value_info(n, 1, (1, 2)) for n in "ab"],
                            [helper.make_tensor_value_info("c", 1, (1, 2))])
    (tmp_path / "two.onnx").write_bytes(helper.make_model(two).SerializeToString())
    with pytest.raises(Unsupported, match="2 inputs and 1 outputs"):
        read(tmp_path / "two.onnx")


def test_damaged_files_are_refused_or_read_and_nothing_else(tmp_path: Path, seed: int) -> None:
    """Thirty prefixes, and bytes changed at random: a message or a network, never another exception."""
    random = np.random.default_rng(seed)
    path = tmp_path / "damaged.onnx"
    for whole in (onnx_networks.tfc(tmp_path / "a.onnx", 3, hidden=8).read_bytes(), onnx_networks.mixed(tmp_path / "b.onnx", 3).read_bytes()):
        structure = np.flatnonzero(np.frombuffer(whole, np.uint8) < 0x7f)
        cases = [whole[:n] for n in range(0, len(whole), max(len(whole) // 30, 1))]
        for _ in range(100):
            changed = bytearray(whole)
            for at in random.choice(structure, random.integers(1, 4)):
                changed[at] = random.integers(0, 256)
            cases.append(bytes(changed))
        outcomes = {True: 0, False: 0}
        for case in cases:
            path.write_bytes(case)
            try:
                if np.prod(read(path).input_shape) < 10_000:  # larger ones are fine and take long
                    load(path)
                outcomes[True] += 1
            except (Unsupported, FormatError):
                outcomes[False] += 1
        assert outcomes[False] > 30, outcomes


def test_the_command_writes_a_file_that_says_where_it_is_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = onnx_networks.tfc(tmp_path / "my net (1).onnx", 5)
    (tmp_path / "labels").write_text("".join(f"digit {c}\n" for c in range(10)))
    assert main(["import", str(path), "-o", str(tmp_path / "out.xnor"), "--labels", str(tmp_path / "labels"), "--license", "BSD-3-Clause"]) == 0
    out = capsys.readouterr().out
    assert "node BipolarQuant_7 (BipolarQuant): 1 thresholds" in out and "ties: 0 levels exactly 0" in out
    net = Network.load(tmp_path / "out.xnor")
    meta = net.metadata
    assert meta["name"] == "my-net-1" and meta["labels"][3] == "digit 3" and meta["license"] == "BSD-3-Clause" and meta["input"]["image"]["color"] == "gray"
    assert meta["provenance"]["source"] == {"file": "my net (1).onnx", "sha256": read(path).sha256, "format": "QONNX"}
    images = np.random.default_rng(1).integers(0, 256, (20, 12, 11, 1)).astype(np.uint8)
    assert np.array_equal(interpret.run(net, images), oracle.run(net, images))
