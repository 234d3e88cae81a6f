# SPDX-License-Identifier: Apache-2.0
"""Data sets: splits, folders of images and what is wrong with them, augmentation."""

from __future__ import annotations

import io
import lzma
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from xnortrain import data as datasets
from xnortrain.data import Augment, Batches, Split


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def folder_of(tmp_path: Path, counts: dict[str, int], seed: int = 1) -> Path:
    random = np.random.default_rng(seed)
    for label, count in counts.items():
        (tmp_path / label).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(random.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(tmp_path / label / f"{i}.png")
    return tmp_path


def test_folder_by_class(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "mine", {"dog": 40, "cat": 20})
    data = datasets.image_folder(folder, (16, 16, 3))
    assert data.labels == ["cat", "dog"] and data.name == "mine"
    assert len(data.train) + len(data.validation) + len(data.test) == 60
    for split in (data.train, data.validation, data.test):
        assert set(split.labels) == {0, 1} and split.images.shape[1:] == (16, 16, 3)
    assert len(data.test) == 9, "15 % of each class"
    again = datasets.image_folder(folder, (16, 16, 3))
    assert np.array_equal(again.test.images, data.test.images) and again.sha256 == data.sha256
    gray = datasets.image_folder(folder, (8, 8, 1))
    assert gray.color == "gray" and gray.train.images.shape[1:] == (8, 8, 1)
    other = datasets.image_folder(folder, (16, 16, 3), seed=2)
    assert not np.array_equal(other.test.images, data.test.images)


def test_folder_with_test_part(tmp_path: Path) -> None:
    folder_of(tmp_path / "mine" / "train", {"a": 20, "b": 20})
    folder_of(tmp_path / "mine" / "test", {"a": 3, "b": 4}, seed=2)
    data = datasets.image_folder(tmp_path / "mine", (16, 16, 3))
    assert len(data.test) == 7 and data.split == "test"
    (tmp_path / "mine" / "test" / "b").rename(tmp_path / "mine" / "test" / "c")
    with pytest.raises(ValueError, match="different classes: b, c"):
        datasets.image_folder(tmp_path / "mine", (16, 16, 3))


def test_what_is_wrong_with_a_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        datasets.image_folder(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="neither train-images-idx3-ubyte.gz nor train-images-idx3-ubyte"):
        datasets.fashion_mnist(tmp_path)
    folder = folder_of(tmp_path / "mine", {"dog": 20, "cat": 20, "empty": 0})
    with pytest.raises(ValueError, match="no images .* in class empty"):
        datasets.image_folder(folder)
    (folder / "empty").rmdir()
    (folder / "dog" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    (folder / "cat" / "3.png").write_bytes((folder / "cat" / "3.png").read_bytes()[:60])
    with pytest.raises(ValueError, match="2 of .* images cannot be read: cat/3.png: .*; dog/broken.jpg: "):
        datasets.image_folder(folder)
    only = folder_of(tmp_path / "only", {"one": 5})
    with pytest.raises(ValueError, match="1 classes"):
        datasets.image_folder(only)
    with pytest.raises(ValueError, match="needs --data"):
        datasets.load("gtsrb", None)


def test_split_by_track() -> None:
    random = np.random.default_rng(3)
    labels, tracks = [], []
    for label in range(5):
        for track in range(7 + 3 * label):
            labels += [label] * 30
            tracks += [track] * 30
    order = random.permutation(len(labels))
    labels, tracks = np.array(labels)[order], np.array(tracks)[order]
    held = datasets.split_by_track(labels, tracks, 0.12, 1)
    pairs = lambda mask: set(zip(labels[mask], tracks[mask]))  # noqa: E731
    assert not pairs(held) & pairs(~held), "a track is on one side"
    assert set(labels[held]) == set(range(5)) and 0.08 < held.mean() < 0.2
    assert np.array_equal(held, datasets.split_by_track(labels, tracks, 0.12, 1))
    assert not np.array_equal(held, datasets.split_by_track(labels, tracks, 0.12, 2))


def test_gtsrb_records(tmp_path: Path) -> None:
    random = np.random.default_rng(4)
    labels = np.repeat(np.arange(43), 8)
    tracks = np.tile(np.arange(8) // 2, 43).astype(np.int16)
    planes = random.integers(0, 256, (len(labels), 3, 32, 32), dtype=np.uint8)
    records = b"".join(bytes([label]) + plane.tobytes() for label, plane in zip(labels, planes))
    (tmp_path / "gtsrb-train.bin.xz").write_bytes(lzma.compress(records, preset=0))
    np.save(tmp_path / "gtsrb-train-track.npy", tracks)
    data = datasets.load("gtsrb", tmp_path)
    assert len(data.labels) == 43 and len(data.train) + len(data.test) == len(labels) and "by track" in data.split
    assert not data.choose() and not data.augment.flip
    known = {p.transpose(1, 2, 0).tobytes() for p in planes}
    assert data.test.images[0].tobytes() in known
    np.save(tmp_path / "gtsrb-train-track.npy", tracks[:-1])
    with pytest.raises(ValueError, match="as many as"):
        datasets.load("gtsrb", tmp_path)


def test_cifar10_archive(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    with tarfile.open(tmp_path / "cifar10-jpeg.tar.xz", "w:xz") as archive:
        for part, count in (("train", 20), ("test", 3)):
            for label in ("cat", "ship"):
                for i in range(count):
                    file = io.BytesIO()
                    Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(file, "JPEG", quality=75)
                    member = tarfile.TarInfo(f"{part}/{label}/{i:04}.jpg")
                    member.size = file.tell()
                    file.seek(0)
                    archive.addfile(member, file)
    data = datasets.load("cifar10-jpeg", tmp_path)
    assert data.name == "CIFAR-10 (JPEG q75)" and len(data.test) == 6 and len(data.train) + len(data.validation) == 40


def test_augmentation_keeps_pixels_whole_and_follows_its_seed() -> None:
    random = np.random.default_rng(6)
    split = Split(random.integers(0, 256, (32, 24, 20, 3), dtype=np.uint8), np.arange(32))
    augment = Augment(shift=2, flip=True, rotate=12, zoom=0.1, contrast=0.3, cutout=6)
    (a, labels), = Batches(split, 32, 7, augment)
    (b, _), = Batches(split, 32, 7, augment)
    (c, _), = Batches(split, 32, 8, augment)
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert a.shape == (32, 3, 24, 20) and a.min() >= 0 and a.max() <= 255 and torch.equal(a, a.round())
    assert sorted(labels.tolist()) == list(range(32))
    (plain, order), = Batches(split, 32, 7, Augment())
    assert torch.equal(plain, datasets.to_input(split.images[order]))
    (shifted, order), = Batches(split, 32, 7, Augment(shift=1))
    for x, i in zip(shifted, order):
        image = np.pad(split.images[i], ((1, 1), (1, 1), (0, 0))).transpose(2, 0, 1)
        assert any(np.array_equal(x.numpy(), image[:, y:y + 24, z:z + 20]) for y in range(3) for z in range(3))
