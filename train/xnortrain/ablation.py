# SPDX-License-Identifier: Apache-2.0
"""`ablation`: what each part of the method is worth, on Fashion-MNIST: one small network, one short recipe, one change at a time, several seeds each.

Results go to a CSV file line by line; an interrupted ablation goes on where it was. From the file come the table and the plot of docs/training.md."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from . import data as datasets
from .data import Augment, Dataset, Split
from .networks import build
from .recipe import Config, Run, accuracy, configure_torch

OPTIONS: dict[str, Any] = {"width": 32, "blocks": [1, 2], "stem_kernel": 5}
EPOCHS = (1, 4, 1)
BASE = "trained scales, H(x), two stages"


@dataclasses.dataclass(frozen=True)
class Variant:
    group: str
    name: str
    options: dict[str, Any]
    epochs: tuple[int, int, int] = EPOCHS


VARIANTS = [
    Variant("all", BASE, {}),
    Variant("scales", "analytic scales (XNOR-Net)", {"scales": "analytic"}),
    Variant("scales", "no scales", {"scales": "none"}),
    Variant("scales, no normalisation", "trained scales", {"normalise": False}),
    Variant("scales, no normalisation", "analytic scales (XNOR-Net)", {"scales": "analytic", "normalise": False}),
    Variant("scales, no normalisation", "no scales", {"scales": "none", "normalise": False}),
    Variant("derivative of sign", "clip", {"estimator": "clip"}),
    Variant("derivative of sign", "ApproxSign", {"estimator": "approxsign"}),
    Variant("stages", "one stage, weights binary from the start", {}, (0, EPOCHS[0] + EPOCHS[1], EPOCHS[2])),
]


def subset(data: Dataset, images: int) -> Dataset:
    validation = Split(data.validation.images[:1000], data.validation.labels[:1000])
    return dataclasses.replace(data, train=Split(data.train.images[:images], data.train.labels[:images]), validation=validation)


def run_one(data: Dataset, variant: Variant, seed: int) -> float:
    """Accuracy by integers on the test set."""
    config = Config(options={**OPTIONS, **variant.options}, seed=seed, batch=64, lr=2e-3, epochs=variant.epochs, augment=Augment(shift=1, flip=True))
    torch.manual_seed(seed)
    model = build(config.network, data.test.images.shape[1:], len(data.labels), **config.options)
    with tempfile.TemporaryDirectory() as folder:
        return accuracy(Run(model, data, config, Path(folder)).train(), data.test)


def read(path: Path) -> dict[tuple[str, str, int], float]:
    """{(group, name, seed): accuracy}."""
    if not path.exists():
        return {}
    with open(path, newline="") as f:
        return {(row["group"], row["variant"], int(row["seed"])): float(row["accuracy"]) for row in csv.DictReader(f)}


def note(path: Path, variant: Variant, seed: int, score: float) -> None:
    with open(path, "a", newline="") as f:
        if f.tell() == 0:
            csv.writer(f).writerow(["group", "variant", "seed", "accuracy"])
        csv.writer(f).writerow([variant.group, variant.name, seed, f"{score:.4f}"])


def summary(results: dict[tuple[str, str, int], float]) -> list[tuple[Variant, list[float]]]:
    """In the order of VARIANTS, what there are results of."""
    rows = [(v, [score for (group, name, _), score in results.items() if (group, name) == (v.group, v.name)]) for v in VARIANTS]
    return [(v, scores) for v, scores in rows if scores]


def table(results: dict[tuple[str, str, int], float]) -> str:
    lines = ["| changed | to | accuracy (%), mean | seeds |", "| --- | --- | ---: | --- |"]
    for variant, scores in summary(results):
        each = ", ".join(f"{100 * s:.2f}" for s in scores)
        lines.append(f"| {variant.group if variant.group != 'all' else '-'} | {variant.name} | {100 * statistics.mean(scores):.2f} | {each} |")
    return "\n".join(lines)


def plot(results: dict[tuple[str, str, int], float], out: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = summary(results)[::-1]
    figure, axis = plt.subplots(figsize=(8, 0.42 * len(rows) + 0.9), layout="constrained")
    for y, (variant, scores) in enumerate(rows):
        axis.barh(y, 100 * statistics.mean(scores), color="#4878a8" if variant.name == BASE else "#b0c4d8")
        axis.plot([100 * s for s in scores], [y] * len(scores), "k.", markersize=4)
    axis.set_yticks(range(len(rows)), [v.name if v.group in ("all", "stages") else f"{v.group}: {v.name}" for v, _ in rows], fontsize=8)
    everything = [100 * s for _, scores in rows for s in scores]
    axis.set_xlim(max(0, min(everything) - 2), max(everything) + 1)
    axis.set_xlabel("accuracy by integers, Fashion-MNIST test set (%); dots: seeds")
    axis.grid(axis="x", alpha=0.3)
    figure.savefig(out, dpi=110, metadata={"Software": None})
    plt.close(figure)


def ablation(arguments: argparse.Namespace) -> int:
    configure_torch(arguments.threads)
    data = subset(datasets.fashion_mnist(), arguments.images)
    results = read(arguments.results)
    for seed in range(1, arguments.seeds + 1):  # seed by seed, so that an early end leaves a fair comparison
        for variant in VARIANTS:
            if (variant.group, variant.name, seed) in results:
                continue
            print(f"{variant.group}: {variant.name}, seed {seed}", file=sys.stderr, flush=True)
            score = run_one(data, variant, seed)
            results[(variant.group, variant.name, seed)] = score
            note(arguments.results, variant, seed, score)
    print(table(results))
    if arguments.plot:
        plot(results, arguments.plot)
    return 0


def add_command(commands) -> None:  # type: ignore[no-untyped-def]
    a = commands.add_parser("ablation", help="what each part of the method is worth", description=__doc__)
    a.add_argument("--results", type=Path, required=True, help="CSV file, appended to")
    a.add_argument("--plot", type=Path, help="PNG file to write")
    a.add_argument("--seeds", type=int, default=3)
    a.add_argument("--images", type=int, default=12000, help="of the training set")
    a.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    a.set_defaults(function=ablation)
