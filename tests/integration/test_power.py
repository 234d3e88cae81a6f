# SPDX-License-Identifier: Apache-2.0
"""Energy of a running daemon: from a board's sensors (tests/fixtures/power), as an estimate where watts are declared, and absent where there is neither."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from observe_support import ROOT, daemon, find, total


def board(tmp_path: Path, name: str) -> dict[str, Any]:
    """Settings for a copy of the board's tree that a test may change."""
    tree = tmp_path / "sys"
    shutil.copytree(ROOT / "tests/fixtures/power" / name, tree, symlinks=True)
    return {"sample_ms": 10, "hwmon_root": str(tree / "hwmon"), "powercap_root": str(tree / "powercap"), "pci_root": str(tree / "pci")}


def nothing(tmp_path: Path) -> dict[str, Any]:
    absent = str(tmp_path / "absent")
    return {"sample_ms": 10, "hwmon_root": absent, "powercap_root": absent, "pci_root": absent}


def test_board_sensor(tmp_path: Path) -> None:
    power = board(tmp_path, "kv260")
    with daemon(tmp_path, power=power) as xnord:
        samples = xnord.wait_for("a first figure", lambda s: total(s, "xnord_energy_joules_total", source="hwmon") > 0)
        assert find(samples, "xnord_power_watts") == [7.35]
        assert find(samples, "xnord_power_sensor_up") == [1]
        xnord.infer()
        samples = xnord.wait_for("an attribution", lambda s: total(s, "xnord_inference_energy_joules_total") > 0)
        assert find(samples, "xnord_inference_energy_joules_total", source="sensor")
        assert not find(samples, "xnord_inference_energy_joules_total", source="estimate")

        # The sensor goes away: down, no watts at all, and its joules stand still.
        (Path(power["hwmon_root"]) / "hwmon1/power1_input").unlink()
        gone = xnord.wait_for("the loss", lambda s: find(s, "xnord_power_sensor_up") == [0])
        assert find(gone, "xnord_power_watts") == []
        attributed = total(gone, "xnord_inference_energy_joules_total")
        xnord.infer()
        later = xnord.metrics()
        assert total(later, "xnord_energy_joules_total") == total(gone, "xnord_energy_joules_total")
        assert total(later, "xnord_inference_energy_joules_total") == attributed


def test_estimate_is_labelled(tmp_path: Path) -> None:
    with daemon(tmp_path, power=nothing(tmp_path), accelerators=[{"kind": "cpu", "idle_watts": 2, "busy_watts": 8}]) as xnord:
        xnord.infer()
        samples = xnord.wait_for("an estimate", lambda s: total(s, "xnord_inference_energy_joules_total", source="estimate") > 0
                                 and total(s, "xnord_energy_joules_total", source="estimate") > 0)
        assert not find(samples, "xnord_inference_energy_joules_total", source="sensor")
        assert 0 < total(samples, "xnord_inference_active_energy_joules_total", source="estimate") < total(samples, "xnord_inference_energy_joules_total", source="estimate")
        assert find(samples, "xnord_idle_power_watts", source="estimate") == [2]
        watts = find(samples, "xnord_power_watts", source="estimate")
        assert len(watts) == 1 and 2 <= watts[0] <= 8
        assert find(samples, "xnord_power_sensor_up", sensor="none") == [0]


def test_nothing_is_invented(tmp_path: Path) -> None:
    with daemon(tmp_path, power=nothing(tmp_path)) as xnord:
        xnord.infer()
        samples = xnord.wait_for("the batch", lambda s: total(s, "xnord_inferences_total") == 1)
        for family in ("xnord_energy_joules_total", "xnord_power_watts", "xnord_inference_energy_joules_total", "xnord_inference_active_energy_joules_total",
                       "xnord_idle_energy_joules_total", "xnord_idle_power_watts"):
            assert find(samples, family) == [], family
        assert find(samples, "xnord_power_sensor_up", sensor="none") == [0]
