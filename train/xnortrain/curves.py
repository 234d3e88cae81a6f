# SPDX-License-Identifier: Apache-2.0
"""The curves of a run, from its metrics.csv."""

from __future__ import annotations

import csv
from pathlib import Path


def draw(metrics: Path, out: Path, title: str) -> None:
    """Loss and validation accuracy by epoch, the stages told apart."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with open(metrics, newline="") as f:
        rows = list(csv.DictReader(f))
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for stage in dict.fromkeys(row["stage"] for row in rows):
        at = [i for i, row in enumerate(rows) if row["stage"] == stage]
        for axis, column, factor in ((axes[0], "loss", 1), (axes[1], "validation", 100)):
            axis.plot([i + 1 for i in at], [factor * float(rows[i][column]) for i in at], marker=".", label=stage)
    axes[0].set_ylabel("loss, training")
    axes[1].set_ylabel("accuracy, validation (%)")
    for axis in axes:
        axis.set_xlabel("epoch")
        axis.grid(alpha=0.3)
        axis.legend()
    figure.suptitle(title)
    figure.savefig(out, dpi=110, metadata={"Software": None})
    plt.close(figure)
