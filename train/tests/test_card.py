# SPDX-License-Identifier: Apache-2.0
"""Model cards: what they say is what is so, and the same file gives the same bytes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from small import every_op, nearest_mean
from xnortrain import card, facts, labelled, oracle
from xnortrain import data as datasets
from xnortrain.cli import main
from xnortrain.xnorfile import Network

MODELS = Path(__file__).resolve().parents[2] / "models"


@pytest.fixture(scope="module")
def fashion_mnist() -> datasets.Dataset:
    return datasets.fashion_mnist()


@pytest.fixture()
def shipped_like(fashion_mnist: datasets.Dataset, tmp_path: Path) -> Path:
    """A file with the metadata of a shipped one."""
    net = nearest_mean(fashion_mnist.train.images, fashion_mnist.train.labels, 10, {
        "name": "means", "license": "Apache-2.0", "labels": ["a|b", *fashion_mnist.labels[1:]],
        "provenance": {"dataset": {"name": "Fashion-MNIST", "license": "MIT", "sha256": fashion_mnist.sha256}, "seed": 5, "seconds": 3600,
                       "command": "xnor-train train --seed 5", "recipe": {"lr": 0.5}, "accuracy": {"float": 0.7125, "images": 10000}}})
    path = tmp_path / "means.xnor"
    net.save(path)
    return path


def test_card_says_what_is_so(shipped_like: Path, fashion_mnist: datasets.Dataset) -> None:
    assert main(["card", str(shipped_like)]) == 0
    told = json.loads((shipped_like.parent / "card.json").read_text())
    net, test = Network.load(shipped_like), fashion_mnist.test
    answers = oracle.run(net, test.images).argmax(axis=1)
    right = int((answers == test.labels).sum())
    assert right > 6000, "the nearest mean is far better than chance"
    assert told["accuracy"] == {"integer": right / 10000, "float": 0.7125, "hits": right, "images": 10000, "of": "Fashion-MNIST test images"}
    confusion = np.array(told["confusion"])
    for true in range(10):
        for answered in range(10):
            assert confusion[true, answered] == ((test.labels == true) & (answers == answered)).sum()
    assert told["classes"][3]["recall"] == confusion[3, 3] / 1000 and told["classes"][3]["precision"] == confusion[3, 3] / confusion[:, 3].sum()
    data = shipped_like.read_bytes()
    assert told["bytes"] == len(data) and told["sha256"] == hashlib.sha256(data).hexdigest()
    assert told["parameters"] == {"binary weights": 0, "int8 weights": 7840, "thresholds, scales, offsets": 20}
    assert told["macs_per_image"] == {"binary": 0, "binary x 8 bit": 0, "int8": 7840}
    text = (shipped_like.parent / "README.md").read_text()
    for said in (told["sha256"], f"{100 * right / 10000:.2f} %", "71.25 %", "a\\|b", "Seed 5, 1.00 hours", "train/xnor-train train --seed 5", "licence MIT",
                 "(confusion.png)", "28 x 28 x 1, uint8", "Apache-2.0", "single pieces of clothing"):
        assert said in text, said


def test_card_is_the_same_every_time(shipped_like: Path, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        assert main(["card", str(shipped_like), "--out", str(tmp_path / folder)]) == 0
    for name in ("README.md", "card.json", "confusion.png"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_wrong_claim_is_refused(shipped_like: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = Network.load(shipped_like)
    net.metadata["provenance"]["accuracy"]["integer"] = 0.99
    net.save(shipped_like)
    assert main(["card", str(shipped_like)]) == 1
    assert "metadata says 0.9900 of 10000 images, measured" in capsys.readouterr().err


def test_a_card_needs_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    every_op().save(tmp_path / "net.xnor")
    assert main(["card", str(tmp_path / "net.xnor")]) == 1
    assert "a card needs labelled images" in capsys.readouterr().err
    np.savez(tmp_path / "some.npz", images=np.random.default_rng(1).integers(0, 256, (40, 9, 10, 3)).astype(np.uint8), labels=np.arange(40) % 5)
    assert main(["card", str(tmp_path / "net.xnor"), "--data", str(tmp_path / "some.npz")]) == 0
    assert json.loads((tmp_path / "card.json").read_text())["accuracy"]["of"] == "some.npz"


def test_cost_of_every_op(tmp_path: Path) -> None:
    net = every_op()
    net.save(tmp_path / "net.xnor")
    cost = facts.cost(net, tmp_path / "net.xnor")
    # stem 9x5x12 of 3x2x3; grouped 9x5x12 of 3x3x4; dense 5 of 24
    assert cost.macs == {"binary": 9 * 5 * 12 * 36, "binary x 8 bit": 0, "int8": 9 * 5 * 12 * 18 + 5 * 24}
    assert cost.parameters["binary weights"] == 12 * 36 and cost.parameters["int8 weights"] == 12 * 18 + 5 * 24


def test_quality_of_ties_and_empty_classes() -> None:
    q = facts.quality(np.array([[3, 3, 1], [0, 5, 5], [9, 0, 0]]), np.array([0, 1, 1]), 3)
    assert q.confusion.tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 0]] and q.hits == 2
    assert q.recall(2) is None and q.precision(2) is None and q.mistaken_for(1) == (0, 1) and q.mistaken_for(0) is None
    with pytest.raises(ValueError, match="no images"):
        facts.quality(np.zeros((0, 3)), np.zeros(0, np.int64), 3)


def test_images_that_do_not_fit_are_named(tmp_path: Path) -> None:
    net = every_op()
    good = np.zeros((4, 9, 10, 3), np.uint8)
    for arrays, match in (({"images": good[:, :8]}, r"uint8 \[8, 10, 3\], the network takes uint8 \[9, 10, 3\]"), ({"images": good.astype(np.int8)}, "int8"),
                          ({"images": good, "labels": np.zeros(3)}, "labels"), ({"images": good, "labels": np.full(4, 5)}, "labels 5 to 5, the network has 5"),
                          ({"pictures": good}, "no array called images"), ({"images": good[:0]}, "no images")):
        np.savez(tmp_path / "a.npz", **arrays)
        with pytest.raises(ValueError, match=match):
            labelled.find(net, str(tmp_path / "a.npz"), None)
    with pytest.raises(ValueError, match="not a data set known here"):
        labelled.find(net, "ImageNet", None)
    net.metadata["provenance"] = {"dataset": {"name": "GTSRB"}}
    with pytest.raises(ValueError, match="needs --data, the folder"):
        labelled.find(net, "gtsrb", None)
    random = labelled.find(net, "auto", 50, seed=3)
    assert random.labels is None and len(random.images) == 50 and np.array_equal(random.images, labelled.find(net, "random", 50, seed=3).images)
    assert (random.images[0] == 0).all() and (random.images[1] == 255).all() and len(np.unique(random.images[2:])) == 256


@pytest.mark.parametrize("path", sorted(MODELS.glob("*/*.xnor")), ids=str)
def test_shipped_cards_are_of_the_shipped_files(path: Path) -> None:
    """Each network has a card made from this very file."""
    told = json.loads((path.parent / "card.json").read_text())
    net = Network.load(path)
    cost = facts.cost(net, path)
    assert (told["file"], told["bytes"], told["sha256"], told["macs_per_image"], told["parameters"]) == (
        path.name, cost.file_bytes, cost.file_sha256, cost.macs, cost.parameters)
    confusion = np.array(told["confusion"])
    assert told["accuracy"]["hits"] == np.trace(confusion) and told["accuracy"]["images"] == confusion.sum()
    text = (path.parent / "README.md").read_text()
    assert cost.file_sha256 in text and (path.parent / "confusion.png").read_bytes().startswith(b"\x89PNG")


def test_the_list_of_networks_is_that_of_the_cards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (MODELS / "README.md").read_text() == card.index(MODELS), "make it anew: train/xnor-train card --index models"
    (tmp_path / "one").mkdir()
    (tmp_path / "one/card.json").write_text((MODELS / "fashion-mnist/card.json").read_text())
    assert main(["card", "--index", str(tmp_path)]) == 0
    text = (tmp_path / "README.md").read_text()
    assert text.count("| [") == 1 and "[fashion-mnist](one/)" in text
    assert main(["card"]) == 1 and "which network?" in capsys.readouterr().err
