# SPDX-License-Identifier: Apache-2.0
"""rtl/synth: a unit that grows by 5 % fails, every unit has a budget. (What yosys counts is `make rtl-synth`.)"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
from pathlib import Path

import pytest

PATH = Path(__file__).resolve().parents[2] / "rtl/synth"
loader = importlib.machinery.SourceFileLoader("rtl_synth", str(PATH))
spec = importlib.util.spec_from_loader("rtl_synth", loader)
assert spec
synth = importlib.util.module_from_spec(spec)
loader.exec_module(synth)

UNIT = {"LUT": 100, "FF": 200, "BRAM18": 0, "DSP": 4}


@pytest.mark.parametrize(
    ("change", "grown"),
    [({}, 0), ({"LUT": 104}, 0), ({"LUT": 90, "DSP": 3}, 0), ({"LUT": 105}, 1), ({"BRAM18": 1}, 1), ({"FF": 210, "DSP": 5}, 2)],
)
def test_growth(change: dict[str, int], grown: int) -> None:
    assert len(synth.overruns("unit", {**UNIT, **change}, {"unit": UNIT})) == grown


def test_no_budget() -> None:
    assert synth.overruns("new", UNIT, {"unit": UNIT}) == ["new: not in budget.json"]


def test_budget_is_complete() -> None:
    assert set(json.loads(synth.BUDGET.read_text())) == set(synth.UNITS)


def test_whole() -> None:
    units = {"binary PE": UNIT, "int8 PE": UNIT, "lane": UNIT, "reader": UNIT}
    assert synth.whole(units, 4, 2, 1, "LUT") == 100 * (64 + 32 + 16 + 1)
