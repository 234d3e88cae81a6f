# SPDX-License-Identifier: Apache-2.0
"""`samples`: a few images of a test set as PNG files, for demonstrations and tests."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import numpy as np
from PIL import Image

from . import data as datasets

LICENCE = """\
The images in this folder are from Fashion-MNIST, https://github.com/zalandoresearch/fashion-mnist

The MIT License (MIT)

Copyright (c) 2017 Zalando SE, https://tech.zalando.com

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated documentation files (the "Software"), to deal in the
Software without restriction, including without limitation the rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the
Software, and to permit persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A
PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION
OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


def slug(label: str) -> str:
    """ "T-shirt/top" -> "t-shirt-top"."""
    return re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")


def choose(labels: np.ndarray, classes: int, count: int) -> list[int]:
    """The first image of each class in turn, then the second of each, until there are `count`: never chosen for how a network answers."""
    queues = [list(np.flatnonzero(labels == c)) for c in range(classes)]
    chosen: list[int] = []
    while len(chosen) < count and any(queues):
        for queue in queues:
            if queue and len(chosen) < count:
                chosen.append(int(queue.pop(0)))
    return chosen


def write(folder: Path, data: datasets.Dataset, count: int) -> list[Path]:
    """PNG files NN-label.png, README.md and LICENSE in `folder`; returns the PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    lines, paths = [], []
    for number, index in enumerate(choose(data.test.labels, len(data.labels), count)):
        label = data.labels[int(data.test.labels[index])]
        path = folder / f"{number:02}-{slug(label)}.png"
        Image.fromarray(data.test.images[index].squeeze()).save(path, optimize=True)
        lines.append(f"| [{path.name}]({path.name}) | {index} | {label} |")
        paths.append(path)
    (folder / "LICENSE").write_text(LICENCE)
    (folder / "README.md").write_text(
        f"# Sample images\n\n{len(paths)} images of the {data.name} test set: the first of each class in turn, then the second, so not chosen for how a network answers."
        f"\n{data.name} is under the MIT licence, see [LICENSE](LICENSE). Made by `train/xnor-train samples --out {folder} --count {len(paths)}`.\n\n"
        "| file | number in the test set | label |\n| --- | ---: | --- |\n" + "\n".join(lines) + "\n")
    return paths


def samples(arguments: argparse.Namespace) -> int:
    paths = write(arguments.out, datasets.fashion_mnist(), arguments.count)
    print(f"{arguments.out}: {len(paths)} images")
    return 0


def add_command(commands) -> None:  # type: ignore[no-untyped-def]
    s = commands.add_parser("samples", help="write a few Fashion-MNIST test images as PNG", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    s.add_argument("--out", type=Path, default=Path("models/fashion-mnist/samples"))
    s.add_argument("--count", type=int, default=12)
    s.set_defaults(function=samples)
