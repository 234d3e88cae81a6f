# SPDX-License-Identifier: Apache-2.0
"""`verify` notices a difference, and says which witness, image and class. (That there is none is shown in tests/integration/test_witnesses.py, with the C witnesses.)"""

from __future__ import annotations

import hashlib
import re
import stat
from pathlib import Path

import numpy as np
import pytest
from small import every_op, nearest_mean
from xnortrain import data as datasets
from xnortrain import interpret, oracle, verify
from xnortrain.cli import main
from xnortrain.xnorfile import Network


@pytest.fixture()
def path(tmp_path: Path) -> Path:
    every_op().save(tmp_path / "net.xnor")
    return tmp_path / "net.xnor"


def test_python_witnesses_agree(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(path), "--python-only", "--images", "100"]) == 0
    out = capsys.readouterr().out
    assert "100 random inputs, seed 1" in out and out.count("identical") == 2


def test_one_wrong_logit_is_seen(path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    true_run = interpret.run

    def wrong(net: Network, images: np.ndarray) -> np.ndarray:
        logits = true_run(net, images).copy()
        logits[17, 3] += 1
        return logits

    monkeypatch.setattr(interpret, "run", wrong)
    assert main(["verify", str(path), "--python-only", "--images", "30"]) == 1
    assert "DIFFERS: 1 images differ; first image 17, class 3: " in capsys.readouterr().out


def test_c_is_not_left_out_silently(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(path), "--xnorctl", str(tmp_path / "none")]) == 1
    assert "build it with `make all`" in capsys.readouterr().err


@pytest.mark.parametrize("script, match", [("echo broken >&2; exit 3", "xnorctl run --backend cpu: broken"), (": > \"$6\"", "0 logits for 5 images of 5 classes")])
def test_a_failing_witness_is_named(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], script: str, match: str) -> None:
    fake = tmp_path / "xnorctl"
    fake.write_text(f"#!/bin/sh\n{script}\n")
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    assert main(["verify", str(path), "--xnorctl", str(fake), "--backend", "cpu", "--images", "5"]) == 1
    assert match in capsys.readouterr().err


def test_the_training_graph_is_a_witness(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = datasets.fashion_mnist()
    net = nearest_mean(data.train.images, data.train.labels, 10, {"name": "means"})
    logits = oracle.run(net, data.test.images)
    for digest, status, word in ((hashlib.sha256(logits.astype("<i4").tobytes()).hexdigest(), 0, "identical"), ("0" * 64, 1, "DIFFERS")):
        net.metadata["provenance"] = {"dataset": {"name": "Fashion-MNIST"}, "oracle": {"images": 10000, "logits_sha256": digest}}
        net.save(tmp_path / "net.xnor")
        assert main(["verify", str(tmp_path / "net.xnor"), "--python-only", "--images", "all"]) == status
        assert f"training graph       {word}" in capsys.readouterr().out


def test_levels_are_those_of_the_backend() -> None:
    """The names here are the names in accel/cpu/level.c, in its order."""
    runs, missing = verify.cpu_levels()
    assert runs[0] == "portable" and not set(runs) & set(missing)
    source = (Path(__file__).resolve().parents[2] / "accel/cpu/level.c").read_text()
    table = source[source.index("static const struct level levels[]"):source.index("#elif")]
    assert re.findall(r"&xn_cpu_kernels_(\w+)", table) == list(verify.X86_LEVELS)
