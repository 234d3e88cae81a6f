# SPDX-License-Identifier: Apache-2.0
"""Images to judge or to compare with: the test set that a network's file names, a file of arrays, or random inputs."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np

from . import data as datasets
from .xnorfile import Network


@dataclasses.dataclass
class Images:
    """images [n][h][w][c] of the network's input type; labels int64 [n] or None; what they are, for people; which data set's test split, if one's."""

    images: np.ndarray
    labels: np.ndarray | None
    name: str
    dataset: str | None = None

    def first(self, n: int) -> "Images":
        return Images(self.images[:n], None if self.labels is None else self.labels[:n], self.name, self.dataset)


# The data sets that a file's provenance may name, as `xnor-train train` calls them. All but the first lie in a folder that must be given.
SETS = {"Fashion-MNIST": "fashion-mnist", "GTSRB": "gtsrb", "CIFAR-10 (JPEG q75)": "cifar10-jpeg"}


def add_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", default="auto", metavar="WHAT",
                        help="images: auto (the test set that the file's provenance names, else random), a data set's name "
                             f"({', '.join(SETS.values())}), an .npz file with arrays images [n][h][w][c] and, if known, labels [n], or random (auto)")
    parser.add_argument("--folder", type=Path, help="where the data set's files lie (Fashion-MNIST has a place of its own)")


def random_images(net: Network, count: int, seed: int) -> Images:
    """Every value of the input type equally likely; the first two are constant, at the ends of the range."""
    info = np.iinfo(net.input.dtype)
    shape = (count, net.input.h, net.input.w, net.input.c)
    images = np.random.default_rng(seed).integers(info.min, info.max, shape, endpoint=True).astype(net.input.dtype)
    images[:1], images[1:2] = info.min, info.max
    return Images(images, None, f"random inputs, seed {seed}")


def from_npz(path: Path) -> Images:
    with np.load(path) as arrays:
        if "images" not in arrays:
            raise ValueError(f"{path}: there is no array called images")
        labels = arrays["labels"].astype(np.int64) if "labels" in arrays else None
        return Images(arrays["images"], labels, path.name)


def named_dataset(net: Network) -> str:
    """The data set that the file says it was trained on, "" where it does not."""
    return str(net.metadata.get("provenance", {}).get("dataset", {}).get("name", ""))


def from_dataset(net: Network, what: str, folder: Path | None) -> Images:
    """The split that training reports: with the seed of the file, which may decide how it was split."""
    seed = net.metadata.get("provenance", {}).get("seed", 1)
    data = datasets.load(what, folder, seed if isinstance(seed, int) else 1)
    return Images(data.test.images, data.test.labels, f"{data.name} {data.split} images", data.name)


def find(net: Network, what: str, count: int | None, seed: int = 1, folder: Path | None = None) -> Images:
    """`count`: how many at most; None: all (of random inputs: 1000). Raises ValueError where they do not fit the network."""
    if what == "auto":
        what = SETS.get(named_dataset(net), "random")
        if what not in ("random", "fashion-mnist") and folder is None:
            print(f"the network is of {named_dataset(net)}, whose files --folder would name: random inputs instead")
            what = "random"
    if what == "random":
        return random_images(net, count or 1000, seed)
    if what in SETS.values():
        found = from_dataset(net, what, folder)
    elif what.endswith(".npz"):
        found = from_npz(Path(what))
    else:
        raise ValueError(f"--data {what}: not a data set known here ({', '.join(SETS.values())}), not an .npz file, not random")
    return check(net, found if count is None else found.first(count))


def check(net: Network, found: Images) -> Images:
    x = net.input
    if found.images.shape[1:] != (x.h, x.w, x.c) or found.images.dtype != np.dtype(x.dtype):
        raise ValueError(f"{found.name}: {found.images.dtype} {list(found.images.shape[1:])}, the network takes {x.dtype} {[x.h, x.w, x.c]}")
    if not len(found.images):
        raise ValueError(f"{found.name}: no images")
    if found.labels is not None:
        if found.labels.shape != (len(found.images),):
            raise ValueError(f"{found.name}: labels {list(found.labels.shape)} for {len(found.images)} images")
        if found.labels.min() < 0 or found.labels.max() >= net.classes:
            raise ValueError(f"{found.name}: labels {found.labels.min()} to {found.labels.max()}, the network has {net.classes} classes")
    return found
