# SPDX-License-Identifier: Apache-2.0
"""The ablation's bookkeeping: results line by line, going on, the table and the plot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from xnortrain import ablation, networks
from xnortrain import data as datasets
from xnortrain.cli import main
from xnortrain.data import Dataset, Split

EMPTY = Split(np.zeros((0, 28, 28, 1), np.uint8), np.zeros(0, np.int64))


def test_goes_on_and_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(datasets, "fashion_mnist", lambda: Dataset("none", "none", ["a"], "gray", EMPTY, EMPTY, EMPTY, ""))
    calls: list[tuple[str, int]] = []

    def run_one(data: Dataset, variant: ablation.Variant, seed: int) -> float:
        if len(calls) == 11:
            raise ValueError("interrupted")
        calls.append((variant.group + variant.name, seed))
        return 0.8 + 0.001 * len(calls)

    monkeypatch.setattr(ablation, "run_one", run_one)
    command = ["ablation", "--results", str(tmp_path / "a.csv"), "--plot", str(tmp_path / "a.png"), "--seeds", "2"]
    assert main(command) == 1 and len(calls) == 11
    done = list(calls)
    calls.clear()
    assert main(command) == 0
    assert len(calls) == 2 * len(ablation.VARIANTS) - 11 and not set(calls) & set(done[len(ablation.VARIANTS):])
    table = capsys.readouterr().out
    assert table.count("\n| ") == len(ablation.VARIANTS) + 1
    first = [line for line in table.splitlines() if ablation.BASE in line]
    assert first == [f"| - | {ablation.BASE} | 80.55 | 80.10, 81.00 |"]
    assert Image.open(tmp_path / "a.png").size[0] > 500


def test_every_variant_builds() -> None:
    for variant in ablation.VARIANTS:
        networks.build("residual", (28, 28, 1), 10, **{**ablation.OPTIONS, **variant.options})
