# SPDX-License-Identifier: Apache-2.0
"""xnor-train: train, export, verify."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import hashlib
import os
import shlex
import sys
from pathlib import Path

import numpy as np
import torch

from . import data as datasets
from . import card, samples, verify
from .networks import NETWORKS
from .recipe import Config, Run, TrainingError, accuracy, configure_torch, predict


def logits_sha256(logits: np.ndarray) -> str:
    return hashlib.sha256(logits.astype("<i4").tobytes()).hexdigest()


def train(arguments: argparse.Namespace) -> int:
    configure_torch(arguments.threads)
    data = datasets.fashion_mnist(seed=arguments.seed)
    options = {"width": arguments.width, "blocks": [int(n) for n in arguments.blocks.split(",")], "stem_stride": arguments.stem_stride,
               "estimator": arguments.estimator}
    config = Config(network=arguments.network, options=options, seed=arguments.seed, batch=arguments.batch, lr=arguments.lr,
                    epochs=tuple(int(n) for n in arguments.epochs.split(",")))  # type: ignore[arg-type]
    torch.manual_seed(arguments.seed)
    model = NETWORKS[arguments.network](data.test.images.shape[1:], len(data.labels), **options)
    run = Run(model, data, config, arguments.run)
    model = run.train()
    logits = predict(model, data.test.images)
    score = float((logits.argmax(axis=1) == data.test.labels).mean())
    metadata = {
        "name": arguments.name, "version": str(arguments.version), "description": arguments.description, "license": "Apache-2.0", "labels": data.labels,
        "input": {"name": "image", "image": {"color": data.color, "fit": "stretch"}},
        "provenance": {
            "tool": "xnor-train", "command": shlex.join(["xnor-train", *arguments.command_line]),
            "dataset": {"name": data.name, "license": data.licence, "sha256": data.sha256}, "seed": arguments.seed,
            "recipe": dataclasses.asdict(config), "seconds": round(run.seconds), "created": datetime.date.today().isoformat(),
            "accuracy": {"integer": round(score, 4), "validation": round(accuracy(model, data.validation), 4), "images": len(data.test), "split": "test"},
            "oracle": {"split": "test", "images": len(data.test), "logits_sha256": logits_sha256(logits)}}}
    net = model.export(metadata)  # type: ignore[operator]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    net.save(arguments.out)
    print(f"{arguments.out}: {100 * score:.2f} % of {len(data.test)} test images by integers, {arguments.out.stat().st_size} bytes")
    return 0


def main(command_line: list[str] | None = None) -> int:
    command_line = sys.argv[1:] if command_line is None else command_line
    parser = argparse.ArgumentParser(prog="xnor-train", description="Train, export and verify binary neural networks.")
    commands = parser.add_subparsers(dest="command", required=True)

    t = commands.add_parser("train", help="train a network and export it", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    t.add_argument("--network", choices=sorted(NETWORKS), default="residual")
    t.add_argument("--width", type=int, default=64, help="channels of the first stage")
    t.add_argument("--blocks", default="2,3", help="residual blocks of each stage")
    t.add_argument("--stem-stride", type=int, default=2)
    t.add_argument("--estimator", choices=("h", "clip", "approxsign"), default="h", help="derivative of sign")
    t.add_argument("--epochs", default="2,6,1", help="of the three stages: binary activations, binary weights, exact integers")
    t.add_argument("--batch", type=int, default=128)
    t.add_argument("--lr", type=float, default=2e-3)
    t.add_argument("--seed", type=int, default=1)
    t.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    t.add_argument("--run", type=Path, default=Path("train/runs/fashion-mnist"), help="folder of the run; an interrupted one goes on")
    t.add_argument("--name", default="fashion-mnist", help="of the network")
    t.add_argument("--version", type=int, default=1)
    t.add_argument("--description", default="Residual binary network with trained scaling factors on Fashion-MNIST")
    t.add_argument("--out", type=Path, default=Path("models/fashion-mnist/fashion-mnist.xnor"))
    t.set_defaults(function=train)
    verify.add_command(commands)
    samples.add_command(commands)
    card.add_command(commands)

    arguments = parser.parse_args(command_line)
    arguments.command_line = command_line
    try:
        return arguments.function(arguments)
    except (TrainingError, FileNotFoundError, ValueError) as error:
        print(f"xnor-train: {error}", file=sys.stderr)
        return 1
