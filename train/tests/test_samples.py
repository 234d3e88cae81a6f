# SPDX-License-Identifier: Apache-2.0
"""The shipped sample images are what `xnor-train samples` writes, pixel for pixel test images of Fashion-MNIST."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from xnortrain import data as datasets
from xnortrain import samples

SHIPPED = Path(__file__).resolve().parents[2] / "models/fashion-mnist/samples"


@pytest.fixture(scope="module")
def fashion_mnist() -> datasets.Dataset:
    return datasets.fashion_mnist()


def test_slug() -> None:
    assert [samples.slug(label) for label in ("T-shirt/top", "Ankle boot", "speed limit 20 km/h!")] == ["t-shirt-top", "ankle-boot", "speed-limit-20-km-h"]


def test_choice_goes_round_the_classes() -> None:
    labels = np.array([2, 2, 0, 1, 0, 2, 1])
    assert samples.choose(labels, 3, 5) == [2, 3, 0, 4, 6]
    assert sorted(samples.choose(labels, 3, 100)) == list(range(7))


def test_shipped_samples_are_test_images(fashion_mnist: datasets.Dataset, tmp_path: Path) -> None:
    written = samples.write(tmp_path, fashion_mnist, 12)
    shipped = sorted(SHIPPED.glob("*.png"))
    assert [p.name for p in shipped] == [p.name for p in written]
    rows = re.findall(r"^\| \[(.+?)\].* \| (\d+) \| (.+) \|$", (SHIPPED / "README.md").read_text(), re.M)
    assert [row[0] for row in rows] == [p.name for p in shipped]
    for path, (_, index, label) in zip(shipped, rows):
        assert np.array_equal(np.asarray(Image.open(path)), fashion_mnist.test.images[int(index), :, :, 0])
        assert fashion_mnist.labels[fashion_mnist.test.labels[int(index)]] == label


def test_licence_is_said() -> None:
    assert "MIT License" in (SHIPPED / "LICENSE").read_text() and "Zalando" in (SHIPPED / "LICENSE").read_text()
