# SPDX-License-Identifier: Apache-2.0
"""Data sets in memory: uint8 images [n][h][w][c] and labels, with SHA-256 of what was read."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

FASHION_MNIST_FOLDER = Path("/usr/share/datasets/fashion-mnist")  # Debian package dataset-fashion-mnist
FASHION_MNIST_LABELS = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]


@dataclasses.dataclass
class Split:
    """images uint8 [n][h][w][c], labels int64 [n]."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclasses.dataclass
class Dataset:
    name: str
    licence: str
    labels: list[str]
    color: str  # "gray" or "rgb"
    train: Split
    validation: Split  # for choosing; never the test set
    test: Split
    sha256: str  # of all that was read, in order


def read_idx(path: Path) -> np.ndarray:
    """An IDX file of unsigned bytes, gzip-compressed or not. Raises ValueError naming what is wrong."""
    data = path.read_bytes()
    if path.suffix == ".gz":
        data = gzip.decompress(data)
    if len(data) < 4 or data[0] or data[1] or data[2] != 8:
        raise ValueError(f"{path}: not an IDX file of unsigned bytes")
    rank = data[3]
    dims = [int.from_bytes(data[4 + 4 * i:8 + 4 * i], "big") for i in range(rank)]
    if len(data) != 4 + 4 * rank + int(np.prod(dims)):
        raise ValueError(f"{path}: {len(data)} bytes do not fit dimensions {dims}")
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(dims)


def fashion_mnist(folder: Path = FASHION_MNIST_FOLDER, validation: int = 5000, seed: int = 1) -> Dataset:
    """Fashion-MNIST: 60,000 images for training (of which `validation`, chosen by `seed`, are set aside) and 10,000 for the test."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not there: install the Debian package dataset-fashion-mnist")
    digest = hashlib.sha256()

    def load(stem: str) -> Split:
        arrays = []
        for kind, rank in (("images", 3), ("labels", 1)):
            path = next(p for p in (folder / f"{stem}-{kind}-idx{rank}-ubyte.gz", folder / f"{stem}-{kind}-idx{rank}-ubyte") if p.exists())
            arrays.append(read_idx(path))
            digest.update(arrays[-1].tobytes())
        return Split(arrays[0][..., None], arrays[1].astype(np.int64))

    train, test = load("train"), load("t10k")
    order = np.random.default_rng(seed).permutation(len(train))
    held, kept = order[:validation], order[validation:]
    return Dataset("Fashion-MNIST", "MIT", FASHION_MNIST_LABELS, "gray", Split(train.images[kept], train.labels[kept]),
                   Split(train.images[held], train.labels[held]), test, digest.hexdigest())


def to_input(images: np.ndarray) -> Tensor:
    """uint8 [n][h][w][c] -> float32 pixels 0..255 [n][c][h][w], channels last in memory."""
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float().contiguous(memory_format=torch.channels_last)


class Batches:
    """An epoch of augmented batches: each image shifted by up to `shift` pixels (black comes in) and, where `flip`, mirrored half of the time."""

    def __init__(self, split: Split, batch: int, seed: int, shift: int = 2, flip: bool = True) -> None:
        self.images = torch.from_numpy(split.images)
        self.labels = torch.from_numpy(split.labels)
        self.batch, self.shift, self.flip = batch, shift, flip
        self.generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return len(self.labels) // self.batch

    def _augment(self, x: Tensor) -> Tensor:
        """x uint8 [n][h][w][c]."""
        n, h, w, _ = x.shape
        if self.flip:
            mirrored = torch.rand(n, generator=self.generator) < 0.5
            x = torch.where(mirrored[:, None, None, None], x.flip(2), x)
        s = self.shift
        if s:
            padded = torch.nn.functional.pad(x, (0, 0, s, s, s, s))
            dy, dx = torch.randint(0, 2 * s + 1, (2, n), generator=self.generator)
            rows = (dy[:, None] + torch.arange(h))[:, :, None]
            columns = (dx[:, None] + torch.arange(w))[:, None, :]
            x = padded[torch.arange(n)[:, None, None], rows, columns]
        return x

    def __iter__(self):
        order = torch.randperm(len(self.labels), generator=self.generator)
        for i in range(len(self)):
            chosen = order[i * self.batch:(i + 1) * self.batch]
            x = self._augment(self.images[chosen])
            yield x.permute(0, 3, 1, 2).float().contiguous(memory_format=torch.channels_last), self.labels[chosen]
