# SPDX-License-Identifier: Apache-2.0
"""The recipe: binary activations first, then binary weights too, then a last stage through the exact integer operator.

    stage     weights  scale             learning rate      weight decay
    1 bits    real     float             cosine from lr     decay
    2 binary  binary   float             cosine from lr     0             (again from lr after each of `restarts`)
    3 exact   binary   exported integers  cosine from lr/20  0     (batch statistics frozen)

A run folder holds config.json, metrics.csv (a line an epoch), curves.png, and last.pt, from which an interrupted run goes on. The best exact epoch by validation accuracy is
what is exported; the test set is looked at once, at the end."""

from __future__ import annotations

import copy
import csv
import ctypes
import dataclasses
import hashlib
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

from . import curves, fused, interpret
from .data import Augment, Batches, Dataset, Split, to_input
from .layers import scale_penalty, set_binary_weights, set_exact
from .networks import Exporting, build
from .progress import Progress
from .xnorfile import FormatError, Network


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
    schedule: str = "cosine"  # or "linear": how the learning rate falls to 0 within a stage
    restarts: tuple[int, ...] = ()  # epochs of stage 2 after which its learning rate begins anew from lr (SGDR, arXiv 1608.03983)
    scale_l2: float = 1e-5
    smoothing: float = 0.05
    epochs: tuple[int, int, int] = (2, 6, 1)
    augment: Augment = dataclasses.field(default_factory=Augment)
    start: str = ""  # folder of a finished run, or a .xnor file, whose weights this one begins with
    teacher: str = ""  # folder of a finished run, or a .xnor file, to learn from
    distill: float = 0.0  # share of the loss that is the teacher's soft labels
    temperature: float = 2.0  # of those


M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h
KEPT_BYTES = 1 << 30
STATISTICS_PIXELS = 1 << 20  # of images, from which the statistics come where a run begins with a file

STAGES = ("bits", "binary", "exact")


def configure_torch(threads: int) -> None:
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    keep_memory()


def keep_memory() -> None:
    """Have malloc keep what is freed: giving large maps back to the kernel after each layer costs a tenth of the time in page faults."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return
    mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)
    mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
    mallopt(M_TOP_PAD, 64 << 20)


@torch.no_grad()
def predict(model: nn.Module, images: np.ndarray, chunk: int = 500) -> np.ndarray:
    """Integer logits of the training graph, int32 [n][classes]."""
    model.eval()
    device = next(model.parameters()).device
    return torch.cat([model.logits(to_input(images[i:i + chunk]).to(device)).cpu() for i in range(0, len(images), chunk)]).numpy()  # type: ignore[operator]


def accuracy(model: nn.Module, split: Split) -> float:
    return float((predict(model, split.images).argmax(axis=1) == split.labels).mean())


@torch.no_grad()
def preflight(model: Exporting, images: int = 2) -> None:
    """Before hours are spent: the untrained network, exported, keeps every rule of the format, which all accelerators share, and gives the graph's own logits.
    Raises TrainingError naming the layer and the rule."""
    x = np.random.default_rng(0).integers(0, 256, (images, *model.shape), dtype=np.uint8)
    probe = copy.deepcopy(model).eval()
    set_binary_weights(probe, True)
    set_exact(probe, True)
    try:
        net = Network.from_bytes(probe.export({"name": "untrained"}).to_bytes())
    except FormatError as error:
        raise TrainingError(f"no accelerator can run this network: {error}") from error
    if not np.array_equal(probe.logits(to_input(x)).numpy(), interpret.run(net, x)):
        raise TrainingError("the exported network does not give the training graph's logits: this is an error of the program")


def finished_state(folder: Path) -> dict[str, Any]:
    """The checkpoint of a finished run. Raises TrainingError where there is none."""
    if not (folder / "last.pt").exists() or not (folder / "config.json").exists():
        raise TrainingError(f"{folder} holds no finished run")
    state: dict[str, Any] = torch.load(folder / "last.pt", map_location="cpu")
    if state["best"][1] is None:
        raise TrainingError(f"{folder} is not finished: it has no epoch of stage {STAGES[2]}")
    return state


def _read_network(path: Path, what: str) -> tuple[Network, str]:
    """The network of a .xnor file, and the file's SHA-256. `what`: the setting that names it. Raises TrainingError."""
    if not path.is_file():
        raise TrainingError(f"{what}: there is no file {path}")
    content = path.read_bytes()
    try:
        return Network.from_bytes(content), hashlib.sha256(content).hexdigest()
    except FormatError as error:
        raise TrainingError(f"{what}: {path} is not a file of this tool: {error}") from error


def _restore(model: Exporting, net: Network, data: Dataset, path: Path, what: str) -> list[str]:
    """Weights from the network of a file, statistics from training images. Returns what begins anew. Raises TrainingError naming what does not fit."""
    h, w, _ = model.shape
    images = min(len(data.train), max(STATISTICS_PIXELS // (h * w), 1))
    try:
        return model.restore(net, next(iter(Batches(data.train, images, 0, data.augment)))[0])
    except FormatError as error:
        raise TrainingError(f"{what}: {path}: {error}") from error


def _check_data(path: Path, told: Any, data: Dataset) -> None:
    if not isinstance(told, dict) or told.get("sha256") != data.sha256:
        name = told.get("name") if isinstance(told, dict) else None
        raise TrainingError(f"{path} was trained on {name or 'data that it does not name'} with another SHA-256, not on this {data.name}")


def _finished_run(folder: Path, data: Dataset) -> Exporting:
    state = finished_state(folder)
    told = json.loads((folder / "config.json").read_text())
    _check_data(folder, told["data"], data)
    model = build(told["network"], data.test.images.shape[1:], len(data.labels), **told["options"])
    model.load_state_dict(state["best"][1])
    return model


def _finished_file(path: Path, data: Dataset) -> Exporting:
    net, _ = _read_network(path, "teacher")
    try:
        recipe = net.metadata["provenance"]["recipe"]
        network, options = recipe["network"], recipe["options"]
    except (KeyError, TypeError) as error:
        raise TrainingError(f"teacher: {path} is not a file of this tool: it does not tell its {error}") from error
    _check_data(path, net.metadata["provenance"].get("dataset"), data)
    model = build(network, data.test.images.shape[1:], len(data.labels), **options)
    _restore(model, net, data, path, "teacher")
    return model


class Run:
    """One training run in its folder."""

    def __init__(self, model: Exporting, data: Dataset, config: Config, folder: Path, teacher: Exporting | None = None) -> None:
        self.model, self.data, self.config, self.folder = model.to(memory_format=torch.channels_last), data, config, folder
        self.teacher = teacher
        folder.mkdir(parents=True, exist_ok=True)
        self.done = [0, 0, 0]
        self.best: tuple[float, dict[str, Any] | None] = (-1.0, None)
        self.seconds, self.core_seconds = 0.0, 0.0
        self.start_sha256 = ""  # of the file it began with
        self._check_folder()

    def _check_folder(self) -> None:
        """A folder of another configuration is refused before hours are spent."""
        wanted = json.loads(json.dumps({**dataclasses.asdict(self.config), "data": {"name": self.data.name, "sha256": self.data.sha256}}))
        path = self.folder / "config.json"
        found = {**json.loads(json.dumps(dataclasses.asdict(Config()))), **json.loads(path.read_text())} if path.exists() else dict(wanted)
        began_sha256 = found.pop("start_sha256", "")
        if found != wanted:
            different = sorted(k for k in wanted.keys() | found.keys() if wanted.get(k) != found.get(k))
            raise TrainingError(f"{path} is of a run with other settings ({', '.join(different)}); choose another --run folder or remove it")
        if not (self.folder / "last.pt").exists():
            if self.config.start:
                self._start_from(Path(self.config.start))
        else:
            self.start_sha256 = began_sha256
            state = torch.load(self.folder / "last.pt", map_location="cpu")
            self.model.load_state_dict(state["model"])
            self.done, self.best, self.seconds, self.core_seconds = state["done"], state["best"], state["seconds"], state["core_seconds"]
            print(f"going on after {self.done} epochs", file=sys.stderr)
        path.write_text(json.dumps({**wanted, **({"start_sha256": self.start_sha256} if self.start_sha256 else {})}, indent=1) + "\n")

    def _start_from(self, path: Path) -> None:
        """Weights of another network, whose time counts as this run's."""
        anew = self._start_from_file(path) if path.suffix == ".xnor" else self._start_from_run(path)
        print(f"starting from {path}" + (f"; anew: {', '.join(anew)}" if anew else ""), file=sys.stderr)

    def _start_from_file(self, path: Path) -> list[str]:
        """A file that this tool made, of the same network but for the classes. Returns what begins anew."""
        net, self.start_sha256 = _read_network(path, "start")
        anew = _restore(self.model, net, self.data, path, "start")
        told = net.metadata.get("provenance", {})
        if isinstance(told.get("seconds"), (int, float)) and isinstance(told.get("core_seconds"), (int, float)):
            self.seconds, self.core_seconds = told["seconds"], told["core_seconds"]
        else:
            print(f"{path} does not tell how long its training took: that time is not counted", file=sys.stderr)
        return anew

    def _start_from_run(self, folder: Path) -> list[str]:
        """A finished run, of these or other data, where shapes agree. Returns what begins anew."""
        state = finished_state(folder)
        own, found = self.model.state_dict(), state["best"][1]
        fits = {name: value for name, value in found.items() if name in own and own[name].shape == value.shape}
        if 2 * len(fits) < len(own):
            raise TrainingError(f"start: {folder} is of another network: {len(fits)} of this one's {len(own)} tensors fit")
        self.model.load_state_dict(fits, strict=False)
        self.seconds, self.core_seconds = state["seconds"], state["core_seconds"]
        return sorted(own.keys() - fits.keys())

    def to(self, device: str) -> None:
        """Train on a GPU, in whole float32; the checkpoint stays the same."""
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        self.model.to(device)
        if self.teacher is not None:
            self.teacher.to(device)

    @staticmethod
    def finished(path: Path, data: Dataset) -> Exporting:
        """The network that a finished run left in its folder, or that a file of this tool holds, in exact mode. Raises TrainingError where there is none, it
        is of other data, or it is no network of this tool."""
        model = _finished_file(path, data) if path.suffix == ".xnor" else _finished_run(path, data)
        set_binary_weights(model, True)
        set_exact(model, True)
        return model.eval()

    def float_accuracy(self, model: nn.Module) -> float:
        """On the reported split with scales and normalisation in floating point, as before folding."""
        set_exact(model, False)
        try:
            return accuracy(model, self.data.test)
        finally:
            set_exact(model, True)

    def _save(self, optimizer: torch.optim.Optimizer) -> None:
        partial = self.folder / "last.pt.new"
        torch.save({"model": self.model.state_dict(), "optimizer": optimizer.state_dict(), "done": self.done, "best": self.best, "seconds": self.seconds,
                    "core_seconds": self.core_seconds}, partial)
        partial.rename(self.folder / "last.pt")

    def _rate(self, stage: int, done: float) -> float:
        """The learning rate after `done` epochs of the stage, 0..epochs[stage]."""
        bounds = [0, *(self.config.restarts if stage == 1 else ()), self.config.epochs[stage]]
        first, last = next(((a, b) for a, b in zip(bounds, bounds[1:]) if done < b), (0, max(bounds[-1], 1)))
        progress = (done - first) / (last - first)
        fall = 0.5 * (1 + math.cos(math.pi * progress)) if self.config.schedule == "cosine" else 1 - progress
        return self.config.lr / (20 if stage == 2 else 1) * fall

    def _optimizer(self, stage: int) -> torch.optim.Optimizer:
        optimizer = fused.Adam(self.model.parameters(), lr=self._rate(stage, 0), weight_decay=self.config.decay if stage == 0 else 0.0)
        if 0 < self.done[stage] < self.config.epochs[stage]:  # in the midst of a stage
            optimizer.load_state_dict(torch.load(self.folder / "last.pt")["optimizer"])
        return optimizer

    def _loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        scores = self.model(x)
        loss = F.cross_entropy(scores, y, label_smoothing=self.config.smoothing)
        if self.teacher is not None:
            t = self.config.temperature
            with torch.no_grad():
                soft = F.softmax(self.teacher(x) / t, dim=1)
            loss = (1 - self.config.distill) * loss + self.config.distill * t * t * F.kl_div(F.log_softmax(scores / t, dim=1), soft, reduction="batchmean")
        return loss + self.config.scale_l2 * scale_penalty(self.model)

    def _epoch(self, stage: int, epoch: int, optimizer: torch.optim.Optimizer) -> float:
        batches = Batches(self.data.train, self.config.batch, hash((self.config.seed, stage, epoch)) % 2**31, self.config.augment)
        total = 0.0
        self.model.train()
        shown = Progress(batches, f"{STAGES[stage]} {epoch + 1}/{self.config.epochs[stage]}", scale=self.config.batch)
        device = next(self.model.parameters()).device
        for i, (x, y) in enumerate(shown):
            x, y = x.to(device), y.to(device)
            for group in optimizer.param_groups:
                group["lr"] = self._rate(stage, epoch + i / len(batches))
            loss = self._loss(x, y)
            value = float(loss)
            if not math.isfinite(value):
                raise TrainingError(f"the loss is {value} in stage {STAGES[stage]}, epoch {epoch + 1}, batch {i + 1}: lower --lr (now {self.config.lr})")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += value
            shown.note(f"loss {total / (i + 1):.4f}")
        return total / max(len(batches), 1)

    def _note(self, stage: int, epoch: int, loss: float, validation: float) -> None:
        """A line to metrics.csv and to the terminal."""
        path = self.folder / "metrics.csv"
        with open(path, "a", newline="") as f:
            if f.tell() == 0:
                csv.writer(f).writerow(["stage", "epoch", "loss", "validation", "seconds", "core_seconds"])
            csv.writer(f).writerow([STAGES[stage], epoch + 1, f"{loss:.5f}", f"{validation:.4f}", f"{self.seconds:.0f}", f"{self.core_seconds:.0f}"])
        print(f"{STAGES[stage]} {epoch + 1}/{self.config.epochs[stage]}: loss {loss:.4f}, validation {100 * validation:.2f} %, {self.seconds:.0f} s in all",
              file=sys.stderr, flush=True)

    def _stage(self, stage: int) -> None:
        set_binary_weights(self.model, stage >= 1)
        set_exact(self.model, stage == 2)
        optimizer = self._optimizer(stage)
        for epoch in range(self.done[stage], self.config.epochs[stage]):
            started, cpu_started = time.monotonic(), time.process_time()
            loss = self._epoch(stage, epoch, optimizer)
            validation = accuracy(self.model, self.data.validation)
            self.seconds += time.monotonic() - started
            self.core_seconds += time.process_time() - cpu_started
            self.done[stage] = epoch + 1
            if stage == 2 and (validation > self.best[0] or not self.data.choose()):
                self.best = (validation, {k: v.clone() for k, v in self.model.state_dict().items()})
            self._note(stage, epoch, loss, validation)
            self._save(optimizer)

    def train(self) -> Exporting:
        """All stages; the model comes back in exact mode, as the best exact epoch left it (the last one, where choosing would be by what is reported)."""
        if self.config.batch > len(self.data.train):
            raise TrainingError(f"{len(self.data.train)} images for training are fewer than a batch of {self.config.batch}: lower --batch")
        for stage in range(3):
            self._stage(stage)
            if (self.folder / "metrics.csv").exists():
                curves.draw(self.folder / "metrics.csv", self.folder / "curves.png", f"{self.data.name}, {self.config.network}")
        set_binary_weights(self.model, True)
        set_exact(self.model, True)
        if self.best[1] is not None:
            self.model.load_state_dict(self.best[1])
        return self.model.cpu().eval()
