# SPDX-License-Identifier: Apache-2.0
"""rtl/synth: a module that grows by 5 %, or an engine that its board does not hold, fails; every module has a budget. (What yosys counts is `make rtl-synth`.)"""

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

MODULE = {"LUT": 100, "FF": 200, "BRAM18": 0, "URAM": 0, "DSP": 4}
WHOLE = {"LUT": 1000, "FF": 2000, "BRAM18": 10, "URAM": 1, "DSP": 40}


@pytest.mark.parametrize(
    ("change", "grown"),
    [({}, 0), ({"LUT": 104}, 0), ({"LUT": 90, "DSP": 3}, 0), ({"LUT": 105}, 1), ({"BRAM18": 1}, 1), ({"FF": 210, "DSP": 5}, 2)],
)
def test_growth(change: dict[str, int], grown: int) -> None:
    budget = {"4T": {"post": MODULE, "whole": WHOLE}}
    assert len(synth.overruns("4T", {"post": {**MODULE, **change}, "whole": WHOLE}, budget)) == grown


def test_no_budget() -> None:
    assert synth.overruns("4T", {"new": MODULE, "whole": WHOLE}, {"4T": {"whole": WHOLE}}) == ["4T new: not in budget.json"]


@pytest.mark.parametrize(("kind", "share"), [("LUT", 0.7), ("DSP", 0.7), ("URAM", 1)])
def test_what_the_board_has(kind: str, share: float) -> None:
    has = synth.ENGINES["4T"].device[kind]
    for n, grown in ((int(has * share), 0), (int(has * share) + 1, 1)):
        whole = {**WHOLE, kind: n}
        assert len(synth.overruns("4T", {"whole": whole}, {"4T": {"whole": whole}})) == grown


def test_memories_are_one_entry() -> None:
    rows = [("post", 1, MODULE), ("memory", 2, MODULE), ("memory", 3, MODULE), ("whole", 1, WHOLE)]
    assert synth.merged(rows) == {"post": MODULE, "memory": {kind: 5 * n for kind, n in MODULE.items()}, "whole": WHOLE}


def test_budget_is_complete_and_fits() -> None:
    budget = json.loads(synth.BUDGET.read_text())
    assert set(budget) == set(synth.ENGINES)
    for engine, entries in budget.items():
        assert set(entries) == {*synth.MODULES.values(), "whole"}
        assert synth.overruns(engine, entries, budget) == []
