# SPDX-License-Identifier: Apache-2.0
"""Arrays of other tools on their way into a .xnor file, each against its definition written out; and the script of docs/import.md as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small import signs
from xnortrain import interchange, interpret, oracle, qonnx
from xnortrain.xnorfile import FormatError, Network, pack_bits

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("above", [False, True])
def test_popcount_thresholds(above: bool) -> None:
    """Every popcount of every threshold, whole, half, and out of range."""
    for n in (1, 8, 9, 27, 576):
        for threshold in (-5, 0, 0.5, 1, n // 2, n / 2, n - 0.25, n, n + 3):
            t = int(interchange.popcount_thresholds(np.array([threshold]), n, above=above)[0])
            for p in range(n + 1):
                assert (2 * p - n >= t) == (p > threshold if above else p >= threshold), (n, threshold, p, t)
    assert interchange.popcount_thresholds(np.array([1e30, -1e30]), 9).tolist() == [11, -11]
    with pytest.raises(FormatError, match="finite"):
        interchange.popcount_thresholds(np.array([np.nan]), 9)


def test_a_neuron_of_popcounts_is_a_neuron_of_sums() -> None:
    """XNOR, popcount, threshold, written out with bits, against conv and threshold; the falling neurons negated as the page says."""
    r = np.random.default_rng(3)
    n, neurons = 64, 40
    bits, weights, thresholds = r.integers(0, 2, (200, n)), r.integers(0, 2, (neurons, n)), r.integers(20, 45, neurons)
    popcount = (bits[:, None] == weights[None]).sum(axis=2)
    falling = np.arange(neurons) % 2 == 1
    want = np.where(falling, popcount <= thresholds, popcount >= thresholds)
    net = Network((1, 1, n))
    x = net.threshold(net.input, np.full(n, 128))
    w = interchange.signed_weights(weights) * np.where(falling, -1, 1)[:, None]
    x = net.dense(x, w, bits=True)
    x = net.threshold(x, interchange.popcount_thresholds(np.where(falling, n - thresholds, thresholds), n))
    net.logits(net.dense(x, np.eye(neurons) * 2 - 1, bits=True))  # bit j -> 2 * bit - sum of all
    got = interpret.run(net, (bits * 255).astype(np.uint8)[:, None, None, :])
    signs_wanted = 2 * want - 1
    assert np.array_equal(got, 2 * signs_wanted - signs_wanted.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.uint64])
def test_packed_words(dtype: type) -> None:
    r = np.random.default_rng(4)
    width = np.dtype(dtype).itemsize * 8
    words = r.integers(0, np.iinfo(dtype).max, (3, 5, 2), dtype, endpoint=True)
    n = 2 * width - 3
    got = interchange.unpack_words(words, n)
    for index in np.ndindex(3, 5):
        for e in range(n):
            assert got[(*index, e)] == (1 if int(words[(*index, e // width)]) >> (e % width) & 1 else -1)
    assert np.array_equal(interchange.unpack_words(words.astype(words.dtype.newbyteorder(">")), n), got)
    with pytest.raises(FormatError, match="does not hold"):
        interchange.unpack_words(words, 2 * width + 1)


def test_packed_words_are_the_formats_own() -> None:
    values = signs(np.random.default_rng(5), 7, 130)
    assert np.array_equal(interchange.unpack_words(pack_bits(values), 130), values)


def test_tiles_of_a_matrix_vector_unit() -> None:
    """Row r is neuron fold r div PE on PE r mod PE; column c is synapse fold c div SIMD, lane c mod SIMD; folds of neurons outside."""
    pe, simd, rows, columns = 4, 3, 12, 15
    memory = np.arange(rows * columns).reshape(pe, -1, simd)
    got = interchange.matrix_of_tiles(memory, rows, columns)
    for r in range(rows):
        for c in range(columns):
            assert got[r, c] == memory[r % pe, (r // pe) * (columns // simd) + c // simd, c % simd]
    with pytest.raises(FormatError, match="do not make a matrix of 12 x 16"):
        interchange.matrix_of_tiles(memory, 12, 16)


def test_orders_of_other_frameworks() -> None:
    r = np.random.default_rng(6)
    x = r.integers(-9, 9, (4, 5, 3))  # h, w, c
    weights = r.integers(-9, 9, (7, 60))
    assert np.array_equal(weights @ x.transpose(2, 0, 1).ravel(), interchange.columns_from_chw(weights, (4, 5, 3)) @ x.ravel())
    kernels = r.integers(-9, 9, (7, 3, 2, 4))
    assert interchange.kernels_from_oihw(kernels).shape == (7, 2, 4, 3) and interchange.kernels_from_oihw(kernels)[5, 1, 2, 0] == kernels[5, 0, 1, 2]
    with pytest.raises(FormatError, match="do not fit a map of 4x5x4"):
        interchange.columns_from_chw(weights, (4, 5, 4))
    with pytest.raises(FormatError, match="0 or 1"):
        interchange.signed_weights(np.array([0, 2]))


def documented_script() -> str:
    return re.search(r"<!-- script: .*? -->\n```python\n(.*?)```", (ROOT / "docs/import.md").read_text(), re.S).group(1)  # type: ignore[union-attr]


def test_the_documented_script(tmp_path: Path) -> None:
    """It runs, its network answers by the image, and oracle and interpreter agree on it."""
    (tmp_path / "script.py").write_text(documented_script())
    subprocess.run([sys.executable, "script.py"], cwd=tmp_path, check=True, env={**os.environ, "PYTHONPATH": str(ROOT / "train")}, timeout=120)
    net = Network.load(tmp_path / "cnv.xnor")
    images = np.random.default_rng(7).integers(-128, 128, (30, 32, 32, 3)).astype(np.int8)
    logits = interpret.run(net, images)
    assert np.array_equal(oracle.run(net, images), logits) and len(np.unique(logits, axis=0)) == 30
    counts = logits * 0.5 + 128
    assert ((counts >= 0) & (counts <= 256) & (counts % 1 == 0)).all()
    assert [layer.op for layer in net.layers].count("maxpool") == 2


def test_what_the_page_names_is_there() -> None:
    text = (ROOT / "docs/import.md").read_text()
    for op in ("BipolarQuant", "Quant", "MatMul", "Gemm", "Conv", "MaxPool", *qonnx.LAST, *qonnx.UNARY):
        assert f"`{op}`" in text, op
    for name in re.findall(r"`(\w+)\(", text):
        assert hasattr(interchange, name) or name in ("p",), name
