# SPDX-License-Identifier: Apache-2.0
"""The recipe: binary activations first, then binary weights too, then a last stage through the exact integer operator.

    stage     weights  scale             learning rate      weight decay
    1 bits    real     float             cosine from lr     decay
    2 binary  binary   float             cosine from lr     0
    3 exact   binary   exported integers  cosine from lr/20  0     (batch statistics frozen)

A run folder holds config.json, metrics.csv (a line an epoch), and last.pt, from which an interrupted run goes on. The best exact epoch by validation accuracy is
what is exported; the test set is looked at once, at the end."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from .data import Batches, Dataset, Split, to_input
from .layers import scale_penalty, set_binary_weights, set_exact


class TrainingError(RuntimeError):
    """Training cannot go on; the text says why and what to change."""


@dataclasses.dataclass
class Config:
    """All that decides a run, besides the data."""

    network: str = "residual"
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    seed: int = 1
    batch: int = 128
    lr: float = 2e-3
    decay: float = 1e-5
    scale_l2: float = 1e-5
    smoothing: float = 0.05
    epochs: tuple[int, int, int] = (2, 6, 1)
    shift: int = 2
    flip: bool = True


STAGES = ("bits", "binary", "exact")


def configure_torch(threads: int) -> None:
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)


@torch.no_grad()
def predict(model: nn.Module, images: np.ndarray, chunk: int = 500) -> np.ndarray:
    """Integer logits of the training graph, int32 [n][classes]."""
    model.eval()
    return torch.cat([model.logits(to_input(images[i:i + chunk])) for i in range(0, len(images), chunk)]).numpy()  # type: ignore[operator]


def accuracy(model: nn.Module, split: Split) -> float:
    return float((predict(model, split.images).argmax(axis=1) == split.labels).mean())


class Run:
    """One training run in its folder."""

    def __init__(self, model: nn.Module, data: Dataset, config: Config, folder: Path) -> None:
        self.model, self.data, self.config, self.folder = model.to(memory_format=torch.channels_last), data, config, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.done = [0, 0, 0]
        self.best: tuple[float, dict[str, Any] | None] = (-1.0, None)
        self.seconds = 0.0
        self._check_folder()

    def _check_folder(self) -> None:
        """A folder of another configuration is refused before hours are spent."""
        wanted = json.loads(json.dumps(dataclasses.asdict(self.config)))
        path = self.folder / "config.json"
        if path.exists() and json.loads(path.read_text()) != wanted:
            raise TrainingError(f"{path} is of a run with other settings; choose another --run folder or remove it")
        path.write_text(json.dumps(wanted, indent=1))
        if (self.folder / "last.pt").exists():
            state = torch.load(self.folder / "last.pt")
            self.model.load_state_dict(state["model"])
            self.done, self.best, self.seconds = state["done"], state["best"], state["seconds"]
            print(f"going on after {self.done} epochs", file=sys.stderr)

    def _save(self) -> None:
        partial = self.folder / "last.pt.new"
        torch.save({"model": self.model.state_dict(), "done": self.done, "best": self.best, "seconds": self.seconds}, partial)
        partial.rename(self.folder / "last.pt")

    def _optimizer(self, stage: int) -> torch.optim.Optimizer:
        lr = self.config.lr / (20 if stage == 2 else 1)
        return torch.optim.Adam(self.model.parameters(), lr=lr, weight_decay=self.config.decay if stage == 0 else 0.0)

    def _loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        loss = F.cross_entropy(self.model(x), y, label_smoothing=self.config.smoothing)
        return loss + self.config.scale_l2 * scale_penalty(self.model)

    def _epoch(self, stage: int, epoch: int, optimizer: torch.optim.Optimizer) -> float:
        batches = Batches(self.data.train, self.config.batch, hash((self.config.seed, stage, epoch)) % 2**31, self.config.shift, self.config.flip)
        total, count, started = 0.0, 0, time.monotonic()
        self.model.train()
        steps = len(batches) * self.config.epochs[stage]
        for i, (x, y) in enumerate(batches):
            progress = (epoch * len(batches) + i) / steps
            for group in optimizer.param_groups:
                group["lr"] = (self.config.lr / (20 if stage == 2 else 1)) * 0.5 * (1 + math.cos(math.pi * progress))
            loss = self._loss(x, y)
            if not math.isfinite(float(loss)):
                raise TrainingError(f"the loss is {float(loss)} in stage {STAGES[stage]}, epoch {epoch}, batch {i}: lower --lr (now {self.config.lr})")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total, count = total + float(loss), count + 1
            if sys.stderr.isatty() or i % 100 == 99:
                rate = (i + 1) * self.config.batch / (time.monotonic() - started)
                end = "\r" if sys.stderr.isatty() else "\n"
                print(f"{STAGES[stage]} {epoch + 1}/{self.config.epochs[stage]}  {i + 1}/{len(batches)}  loss {total / count:.4f}  {rate:.0f} images/s ", end=end,
                      file=sys.stderr, flush=True)
        return total / max(count, 1)

    def _stage(self, stage: int) -> None:
        set_binary_weights(self.model, stage >= 1)
        set_exact(self.model, stage == 2)
        optimizer = self._optimizer(stage)
        for epoch in range(self.done[stage], self.config.epochs[stage]):
            started = time.monotonic()
            loss = self._epoch(stage, epoch, optimizer)
            validation = accuracy(self.model, self.data.validation)
            self.seconds += time.monotonic() - started
            self.done[stage] = epoch + 1
            if stage == 2 and validation > self.best[0]:
                self.best = (validation, {k: v.clone() for k, v in self.model.state_dict().items()})
            with open(self.folder / "metrics.csv", "a", newline="") as f:
                csv.writer(f).writerow([STAGES[stage], epoch + 1, f"{loss:.5f}", f"{validation:.4f}", f"{self.seconds:.0f}"])
            print(f"{STAGES[stage]} {epoch + 1}/{self.config.epochs[stage]}: loss {loss:.4f}, validation {100 * validation:.2f} %, {self.seconds:.0f} s in all",
                  file=sys.stderr, flush=True)
            self._save()

    def train(self) -> nn.Module:
        """All stages; the model comes back in exact mode, as the best exact epoch left it."""
        for stage in range(3):
            self._stage(stage)
        set_binary_weights(self.model, True)
        set_exact(self.model, True)
        if self.best[1] is not None:
            self.model.load_state_dict(self.best[1])
        return self.model.eval()
