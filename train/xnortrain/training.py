# SPDX-License-Identifier: Apache-2.0
"""`train`: from a configuration and a data set to a .xnor file, with everything that can be checked beforehand checked before hours are spent."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import hashlib
import os
import shlex
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from . import data as datasets
from . import settings as setting
from .networks import ConfigError, Exporting, build
from .recipe import Config, Run, TrainingError, accuracy, configure_torch, predict, preflight
from .settings import Settings

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
PRIVATE_OPTIONS = ("--run", "--out", "--threads")


def logits_sha256(logits: np.ndarray) -> str:
    return hashlib.sha256(logits.astype("<i4").tobytes()).hexdigest()


def told_command(command_line: list[str]) -> str:
    """The command as others can give it: without what is this machine's own."""
    out: list[str] = []
    words = iter(command_line)
    for word in words:
        option, _, value = word.partition("=")
        if option in PRIVATE_OPTIONS:
            if not value:
                next(words, None)
        elif option == "--data":
            if not value:
                next(words, None)
            out += ["--data", "FOLDER"]
        else:
            # A file of the project is told by its place in it.
            out.append(f"train/configs/{Path(word).name}" if Path(word).suffix == ".toml" and (CONFIGS / Path(word).name).exists() else word)
    return shlex.join(["xnor-train", *out])


def _settings(arguments: argparse.Namespace) -> Settings:
    settings = setting.load(arguments.config)
    for text in arguments.set:
        place, _, value = text.partition("=")
        section, _, key = place.strip().partition(".")
        try:
            parsed = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            parsed = value  # a text without quotes
        settings.set(section, key, parsed, f"--set {text}")
    for section, key, value in (("data", "name", arguments.dataset), ("training", "seed", arguments.seed)):
        if value is not None:
            settings.set(section, key, value, f"--{key}")
    return settings


def _data(settings: Settings, folder: Path | None, seed: int) -> datasets.Dataset:
    name = settings.get("data", "name", "fashion-mnist")
    given = settings.get("data", "folder")
    size = settings.get("data", "size", 32)
    shape = (size, size, 1 if settings.get("data", "gray", False) else 3)
    return datasets.load(name, folder or (Path(given) if given else None), seed, shape, settings.get("data", "fit", "stretch"))


def _teacher(config: Config, data: datasets.Dataset) -> Exporting | None:
    """The network to learn from."""
    if not config.teacher:
        if config.distill:
            raise ConfigError("[training] distill: there is no teacher; name the folder of its run, or its .xnor file")
        return None
    return Run.finished(Path(config.teacher), data)


def _metadata(settings: Settings, arguments: argparse.Namespace, data: datasets.Dataset, run: Run, model: Exporting) -> dict[str, Any]:
    """What the file tells of itself: accuracies are measured here."""
    logits = predict(model, data.test.images)
    integer = float((logits.argmax(axis=1) == data.test.labels).mean())
    return {
        "name": settings.get("model", "name", data.name.lower()), "version": str(settings.get("model", "version", 1)),
        "description": settings.get("model", "description", f"Binary network ({run.config.network}) on {data.name}"), "license": "Apache-2.0", "labels": data.labels,
        "input": {"name": "image", "image": {"color": data.color, "fit": settings.get("data", "fit", "stretch")}},
        "provenance": {
            "tool": "xnor-train", "command": told_command(arguments.command_line),
            "dataset": {"name": data.name, "license": data.licence, "sha256": data.sha256}, "seed": run.config.seed, "recipe": dataclasses.asdict(run.config),
            **({"start_sha256": run.start_sha256} if run.start_sha256 else {}),
            "seconds": round(run.seconds), "core_seconds": round(run.core_seconds), "created": datetime.date.today().isoformat(),
            "accuracy": {"integer": round(integer, 4), "float": round(run.float_accuracy(model), 4), "validation": round(accuracy(model, data.validation), 4),
                         "images": len(data.test), "split": data.split},
            "oracle": {"split": data.split, "images": len(data.test), "logits_sha256": logits_sha256(logits)}}}


def train(arguments: argparse.Namespace) -> int:
    settings = _settings(arguments)
    configure_torch(arguments.threads)
    seed = settings.get("training", "seed", 1)
    data = _data(settings, arguments.data, seed)
    config = settings.config(data.augment)
    torch.manual_seed(seed)
    model = build(config.network, data.test.images.shape[1:], len(data.labels), **config.options)
    preflight(model)
    name = settings.get("model", "name", data.name.lower())
    folder = arguments.run or Path("train/runs") / name
    run = Run(model, data, config, folder, _teacher(config, data))
    if torch.cuda.is_available() and arguments.device != "cpu":
        run.to("cuda")
    model = run.train()
    net = model.export(_metadata(settings, arguments, data, run, model))
    out = arguments.out or folder / f"{name}.xnor"
    out.parent.mkdir(parents=True, exist_ok=True)
    net.save(out)
    told = net.metadata["provenance"]["accuracy"]
    print(f"{out}: {100 * told['integer']:.2f} % of {len(data.test)} images ({data.split}) by integers, {100 * told['float']:.2f} % in float; "
          f"{out.stat().st_size} bytes; {run.seconds / 60:.0f} minutes, {run.core_seconds / 60:.0f} core-minutes")
    return 0


def write_test_set(arguments: argparse.Namespace) -> int:
    """The split that is reported, as arrays for `verify` and `card`."""
    settings = _settings(arguments)
    data = _data(settings, arguments.data, settings.get("training", "seed", 1))
    np.savez(arguments.out, images=data.test.images, labels=data.test.labels)
    print(f"{arguments.out}: {len(data.test)} images, {data.name}, {data.split}")
    return 0


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, default=CONFIGS / "fashion-mnist.toml", help="TOML file; those that come with it are in train/configs")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="override a setting of the file; repeatable")
    parser.add_argument("--dataset", choices=datasets.DATASETS, help="override [data] name")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="where the data set's files lie")
    parser.add_argument("--seed", type=int, help="override [training] seed")


def add_commands(commands) -> None:  # type: ignore[no-untyped-def]
    t = commands.add_parser("train", help="train a network and export it", description=__doc__)
    _add_common(t)
    t.add_argument("--run", type=Path, help="folder of the run (train/runs/NAME); an interrupted one goes on")
    t.add_argument("--out", type=Path, help="the file to write (NAME.xnor in the folder of the run)")
    t.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    t.add_argument("--device", choices=("auto", "cpu"), default="auto", help="auto: a GPU where there is one")
    t.set_defaults(function=train)
    s = commands.add_parser("test-set", help="write the reported split of a data set as .npz, for verify and card", description=write_test_set.__doc__)
    _add_common(s)
    s.add_argument("--out", type=Path, required=True)
    s.set_defaults(function=write_test_set)


def refuse(error: Exception) -> int:
    print(f"xnor-train: {error}", file=sys.stderr)
    return 1


EXPECTED_ERRORS = (TrainingError, ConfigError, FileNotFoundError, ValueError, MemoryError)
