# SPDX-License-Identifier: Apache-2.0
"""Data sets in memory: uint8 images [n][h][w][c] and labels, with SHA-256 of what was read."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import lzma
import math
import os
import tarfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from . import images as pictures
from .progress import Progress

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
class Augment:
    """What training does to an image: each drawn anew for each image and epoch. Black comes in at the edges."""

    shift: int = 0  # pixels, up to
    flip: bool = False  # left and right, half of the time
    rotate: float = 0.0  # degrees, up to
    zoom: float = 0.0  # 0.1: 0.9 to 1.1 times
    contrast: float = 0.0  # 0.4: 0.6 to 1.4 times, and a brightness of up to 0.4 * 32
    cutout: int = 0  # side of a black square


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
    split: str = "test"  # what `test` is, for reports
    augment: Augment = dataclasses.field(default_factory=Augment)

    def choose(self) -> bool:
        """Whether the best epoch may be chosen by `validation`: not where it is what is reported."""
        return self.validation is not self.test


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
            name = f"{stem}-{kind}-idx{rank}-ubyte"
            path = next((p for p in (folder / f"{name}.gz", folder / name) if p.exists()), None)
            if path is None:
                raise FileNotFoundError(f"{folder} holds neither {name}.gz nor {name}: it is no folder of Fashion-MNIST; without one, the Debian package's is read")
            arrays.append(read_idx(path))
            digest.update(arrays[-1].tobytes())
        return Split(arrays[0][..., None], arrays[1].astype(np.int64))

    train, test = load("train"), load("t10k")
    order = np.random.default_rng(seed).permutation(len(train))
    held, kept = order[:validation], order[validation:]
    return Dataset("Fashion-MNIST", "MIT", FASHION_MNIST_LABELS, "gray", Split(train.images[kept], train.labels[kept]),
                   Split(train.images[held], train.labels[held]), test, digest.hexdigest(), augment=Augment(shift=2, flip=True))


def to_input(images: np.ndarray) -> Tensor:
    """uint8 [n][h][w][c] -> float32 pixels 0..255 [n][c][h][w], channels last in memory."""
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float().contiguous(memory_format=torch.channels_last)


class Batches:
    """An epoch of augmented batches in an order of `seed`."""

    def __init__(self, split: Split, batch: int, seed: int, augment: Augment) -> None:
        self.images = torch.from_numpy(split.images)
        self.labels = torch.from_numpy(split.labels)
        self.batch, self.augment = batch, augment
        self.generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return len(self.labels) // self.batch

    def _uniform(self, n: int, limit: float) -> Tensor:
        return (torch.rand(n, generator=self.generator) * 2 - 1) * limit

    def _moved(self, x: Tensor) -> Tensor:
        """Mirrored and shifted by whole pixels. x uint8 [n][h][w][c]."""
        n, h, w, _ = x.shape
        if self.augment.flip:
            mirrored = torch.rand(n, generator=self.generator) < 0.5
            x = torch.where(mirrored[:, None, None, None], x.flip(2), x)
        s = self.augment.shift
        if s and not self._warps():
            padded = F.pad(x, (0, 0, s, s, s, s))
            dy, dx = torch.randint(0, 2 * s + 1, (2, n), generator=self.generator)
            rows = (dy[:, None] + torch.arange(h))[:, :, None]
            columns = (dx[:, None] + torch.arange(w))[:, None, :]
            x = padded[torch.arange(n)[:, None, None], rows, columns]
        return x

    def _warps(self) -> bool:
        return self.augment.rotate > 0 or self.augment.zoom > 0

    def _warped(self, x: Tensor) -> Tensor:
        """Rotated, zoomed and shifted by parts of pixels. x float [n][c][h][w]."""
        n, _, h, w = x.shape
        angle = self._uniform(n, math.radians(self.augment.rotate))
        zoom = 1 / (1 + self._uniform(n, self.augment.zoom))
        shift = self._uniform(2 * n, 2 * self.augment.shift / h).reshape(2, n)
        cos, sin = zoom * torch.cos(angle), zoom * torch.sin(angle)
        theta = torch.stack((torch.stack((cos, -sin, shift[0]), 1), torch.stack((sin, cos, shift[1]), 1)), 1)
        return F.grid_sample(x, F.affine_grid(theta, list(x.shape), align_corners=False), align_corners=False)

    def _lit(self, x: Tensor) -> Tensor:
        """Contrast about the image's mean, and brightness."""
        limit, n = self.augment.contrast, len(x)
        gain, offset = 1 + self._uniform(n, limit), self._uniform(n, limit * 32)
        mean = x.mean(dim=(1, 2, 3))
        return x * gain[:, None, None, None] + ((1 - gain) * mean + offset)[:, None, None, None]

    def _cut(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        side = self.augment.cutout
        y0, x0 = (torch.randint(-side // 2, size - side // 2, (n, 1), generator=self.generator) for size in (h, w))
        rows, columns = torch.arange(h)[None], torch.arange(w)[None]
        inside = ((rows >= y0) & (rows < y0 + side))[:, :, None] & ((columns >= x0) & (columns < x0 + side))[:, None, :]
        return x.masked_fill(inside[:, None], 0)

    def _augmented(self, x: Tensor) -> Tensor:
        """uint8 [n][h][w][c] to float [n][c][h][w], whole numbers 0..255."""
        out = self._moved(x).permute(0, 3, 1, 2).float()
        if self._warps():
            out = self._warped(out)
        if self.augment.contrast:
            out = self._lit(out)
        if self._warps() or self.augment.contrast:
            out = torch.clamp(torch.round(out), 0, 255)
        if self.augment.cutout:
            out = self._cut(out)
        return out.contiguous(memory_format=torch.channels_last)

    def __iter__(self):
        order = torch.randperm(len(self.labels), generator=self.generator)
        for i in range(len(self)):
            chosen = order[i * self.batch:(i + 1) * self.batch]
            yield self._augmented(self.images[chosen]), self.labels[chosen]


# ---- GTSRB ----------------------------------------------------------------------------------------------------------

GTSRB_LABELS = [
    "speed limit 20", "speed limit 30", "speed limit 50", "speed limit 60", "speed limit 70", "speed limit 80", "end of speed limit 80", "speed limit 100",
    "speed limit 120", "no passing", "no passing for lorries", "right of way at next intersection", "priority road", "give way", "stop", "no vehicles",
    "no lorries", "no entry", "general caution", "dangerous curve left", "dangerous curve right", "double curve", "bumpy road", "slippery road",
    "road narrows on the right", "road works", "traffic signals", "pedestrians", "children", "cyclists", "ice or snow", "wild animals", "end of all limits",
    "turn right", "turn left", "straight ahead", "straight or right", "straight or left", "keep right", "keep left", "roundabout", "end of no passing",
    "end of no passing for lorries"]
GTSRB_RECORD_BYTES = 1 + 3 * 32 * 32


def split_by_track(labels: np.ndarray, tracks: np.ndarray, share: float, seed: int) -> np.ndarray:
    """bool [n], True for what is held out: of every class about `share` of its tracks, at least one, whole."""
    random = np.random.default_rng(seed)
    held = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        mine = random.permutation(np.unique(tracks[labels == label]))
        chosen = mine[:max(1, round(share * len(mine)))]
        held |= (labels == label) & np.isin(tracks, chosen)
    return held


def gtsrb(folder: Path, seed: int = 1, share: float = 0.12) -> Dataset:
    """The German traffic sign benchmark's training images as 32x32 records, with a split by track: frames of one sign never meet on both sides. There is no other
    test set here, so that split is what is reported, and no epoch is chosen by it."""
    path, track_path = folder / "gtsrb-train.bin.xz", folder / "gtsrb-train-track.npy"
    packed = path.read_bytes()
    raw, tracks = lzma.decompress(packed), np.load(track_path)
    if len(raw) % GTSRB_RECORD_BYTES or len(raw) // GTSRB_RECORD_BYTES != len(tracks):
        raise ValueError(f"{path}: {len(raw)} bytes are not {len(tracks)} records of {GTSRB_RECORD_BYTES}, as many as {track_path} has tracks")
    records = np.frombuffer(raw, np.uint8).reshape(-1, GTSRB_RECORD_BYTES)
    labels = records[:, 0].astype(np.int64)
    images = np.ascontiguousarray(records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    held = split_by_track(labels, tracks, share, seed)
    test = Split(images[held], labels[held])
    digest = hashlib.sha256(raw + tracks.astype("<i2").tobytes()).hexdigest()
    return Dataset("GTSRB", "for research; no image is shipped", GTSRB_LABELS, "rgb", Split(images[~held], labels[~held]), test, test, digest,
                   f"validation by track ({100 * share:.0f} % of each class's tracks, seed {seed})", Augment(shift=3, rotate=10, zoom=0.15, contrast=0.4))


# ---- images in folders by class ---------------------------------------------------------------------------------------

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
UNREADABLE_NAMED = 5


def _cache(key: str) -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "xnord" / f"images-{key[:16]}.npz"


def _decode_all(files: list[tuple[str, bytes]], shape: tuple[int, int, int], fit: str) -> np.ndarray:
    """uint8 [n][h][w][c], as the daemon makes them; cached by the hash of everything."""
    digest = hashlib.sha256(repr((shape, fit, len(files))).encode())
    for name, data in files:
        digest.update(name.encode() + b"\0" + data)
    cached = _cache(digest.hexdigest())
    if cached.exists():
        return np.load(cached)["images"]
    image = {"color": "gray" if shape[2] == 1 else "rgb", "fit": fit}
    out, bad = np.empty((len(files), *shape), np.uint8), []
    for i, (name, data) in enumerate(Progress(files, "decoding")):
        try:
            out[i] = pictures.decode(data, shape, image)
        except pictures.ImageError as error:
            bad.append(f"{name}: {error}")
    if bad:
        more = f" and {len(bad) - UNREADABLE_NAMED} more" if len(bad) > UNREADABLE_NAMED else ""
        raise ValueError(f"{len(bad)} of {len(files)} images cannot be read: {'; '.join(bad[:UNREADABLE_NAMED])}{more}")
    cached.parent.mkdir(parents=True, exist_ok=True)
    partial = cached.with_suffix(f".{os.getpid()}.npz")
    np.savez(partial, images=out)
    partial.rename(cached)
    return out


def _from_files(files: dict[str, bytes], labels: list[str], shape: tuple[int, int, int], fit: str) -> Split:
    """files by "class/name", in that order."""
    names = sorted(files)
    images = _decode_all([(name, files[name]) for name in names], shape, fit)
    return Split(images, np.array([labels.index(name.split("/")[0]) for name in names], np.int64))


def _check_classes(labels: list[str], counts: dict[str, int], where: str) -> None:
    if len(labels) < 2:
        raise ValueError(f"{where}: {len(labels)} classes (a class is a folder of images); a network needs at least 2")
    empty = [label for label in labels if not counts.get(label)]
    if empty:
        raise ValueError(f"{where}: no images ({', '.join(IMAGE_SUFFIXES)}) in class {', '.join(empty)}")


def hold_out(split: Split, share: float, seed: int) -> tuple[Split, Split]:
    """(kept, held): of every class about `share`, at least one image."""
    random = np.random.default_rng(seed)
    held = np.zeros(len(split), bool)
    for label in np.unique(split.labels):
        mine = random.permutation(np.flatnonzero(split.labels == label))
        held[mine[:max(1, round(share * len(mine)))]] = True
    return Split(split.images[~held], split.labels[~held]), Split(split.images[held], split.labels[held])


def _assemble(name: str, licence: str, parts: dict[str, dict[str, bytes]], shape: tuple[int, int, int], fit: str, seed: int, augment: Augment) -> Dataset:
    """parts: {"train": files, "test": files} or {"": files}, files by "class/name"."""
    labels = sorted({key.split("/")[0] for files in parts.values() for key in files})
    digest = hashlib.sha256()
    for part in sorted(parts):
        for key in sorted(parts[part]):
            digest.update(f"{part}/{key}".encode() + b"\0" + hashlib.sha256(parts[part][key]).digest())
    splits = {part: _from_files(files, labels, shape, fit) for part, files in parts.items()}
    if "" in splits:
        splits["train"], splits["test"] = hold_out(splits[""], 0.15, seed)
    train, validation = hold_out(splits["train"], 0.06, seed + 1)
    described = "test" if "" not in splits else f"test (15 % of each class, seed {seed})"
    return Dataset(name, licence, labels, "gray" if shape[2] == 1 else "rgb", train, validation, splits["test"], digest.hexdigest(), described, augment)


def _class_files(folder: Path) -> dict[str, bytes]:
    labels = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    found = {label: [p for p in sorted((folder / label).iterdir()) if p.suffix.lower() in IMAGE_SUFFIXES] for label in labels}
    _check_classes(labels, {label: len(paths) for label, paths in found.items()}, str(folder))
    return {f"{label}/{p.name}": p.read_bytes() for label, paths in found.items() for p in paths}


def image_folder(folder: Path, shape: tuple[int, int, int] = (32, 32, 3), fit: str = "stretch", seed: int = 1) -> Dataset:
    """FOLDER/CLASS/*.jpg, *.png, of which a part is set aside for the test; or FOLDER/train/CLASS/* and FOLDER/test/CLASS/*."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder")
    parts = ("train", "test") if (folder / "train").is_dir() and (folder / "test").is_dir() else ("",)
    files = {part: _class_files(folder / part) for part in parts}
    if len(parts) == 2:
        labels = [sorted({key.split("/")[0] for key in files[part]}) for part in parts]
        if labels[0] != labels[1]:
            raise ValueError(f"{folder}: train and test have different classes: {', '.join(sorted(set(labels[0]) ^ set(labels[1])))}")
    return _assemble(folder.name, "the user's own", files, shape, fit, seed, Augment(shift=shape[0] // 12, flip=True))


def cifar10_jpeg(folder: Path, seed: int = 1) -> Dataset:
    """CIFAR-10 as JPEG files of quality 75 (cifar10-jpeg.tar.xz: train/CLASS/*.jpg, test/CLASS/*.jpg). Never to be set beside figures of the lossless original."""
    path = folder / "cifar10-jpeg.tar.xz"
    parts: dict[str, dict[str, bytes]] = {"train": {}, "test": {}}
    with tarfile.open(path) as archive:
        for member in archive:
            part, _, rest = member.name.partition("/")
            if member.isfile() and part in parts and rest.lower().endswith(IMAGE_SUFFIXES):
                parts[part][rest] = archive.extractfile(member).read()  # type: ignore[union-attr]
    return _assemble("CIFAR-10 (JPEG q75)", "none stated", parts, (32, 32, 3), "stretch", seed, Augment(shift=4, flip=True))


DATASETS = ("fashion-mnist", "gtsrb", "cifar10-jpeg", "folder")


def load(name: str, folder: Path | None, seed: int = 1, shape: tuple[int, int, int] = (32, 32, 3), fit: str = "stretch") -> Dataset:
    """The data set `name`; `folder` is where its files lie (only Fashion-MNIST has a place of its own)."""
    if name == "fashion-mnist":
        return fashion_mnist(folder or FASHION_MNIST_FOLDER, seed=seed)
    if folder is None:
        raise ValueError(f"{name} needs --data, the folder where its files lie")
    if name == "gtsrb":
        return gtsrb(folder, seed)
    return cifar10_jpeg(folder, seed) if name == "cifar10-jpeg" else image_folder(folder, shape, fit, seed)
