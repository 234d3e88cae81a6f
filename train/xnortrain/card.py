# SPDX-License-Identifier: Apache-2.0
"""`card`: a model card beside a .xnor file, made from the file's metadata and from what is measured here: README.md for people, card.json for
programs, confusion.png. The same file and images give the same bytes. `card --index FOLDER`: a README.md that lists the cards in its folders."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from . import facts, labelled, oracle
from .xnorfile import Network

ROOT = Path(__file__).resolve().parents[2]
DPI = 100
NUMBERED_CLASSES_MAX = 20  # with more the cells are too small for figures

GENERAL_LIMITS = [
    "It always answers with one of its labels, also for a picture that shows none of them.",
    "The scores rank the labels of one picture. They are not calibrated probabilities.",
    "The accuracy above is of pictures like those it was trained on; measure on your own before relying on it (`xnorctl eval`).",
]
LIMITS = {
    "Fashion-MNIST": [
        "It knows single pieces of clothing, photographed from the front, centred, bright on black, 28x28 pixels. A photograph of a person, or a piece of "
        "clothing on a light background, is not such a picture.",
        "Shirts, T-shirts, pullovers and coats look alike at this size; see the table."],
    "GTSRB": [
        "It knows 43 German signs, cut out of video frames of one camera. It finds no sign in a scene; a detector must cut it out.",
        "Not for use where a missed or misread sign can hurt anyone.",
        "The validation images are of other signs than the training images (split by track), but from the same recordings."],
    "CIFAR-10 (JPEG q75)": [
        "Trained and measured on JPEG images (quality 75, 4:2:0). Do not set its accuracy beside published figures for CIFAR-10, which are of lossless images."],
}


def thousands(n: int) -> str:
    return f"{n:,}"


def cell(text: str) -> str:
    """Text that keeps to its cell of a Markdown table."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("`", "'")


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f} %"


@dataclasses.dataclass
class Card:
    """All that a card says."""

    net: Network
    path: Path
    cost: facts.Cost
    quality: facts.Quality
    judged_by: labelled.Images

    @property
    def labels(self) -> list[str]:
        told = self.net.metadata.get("labels", [])
        return [told[c] if c < len(told) else str(c) for c in range(self.net.classes)]

    @property
    def provenance(self) -> dict[str, Any]:
        return self.net.metadata.get("provenance", {})


def measure(path: Path, net: Network, found: labelled.Images) -> Card:
    """Run the network over `found`. Raises ValueError where the file claims another accuracy for the same images."""
    if found.labels is None:
        raise ValueError(f"{path}: a card needs labelled images: name them with --data")
    judged = facts.quality(oracle.run(net, found.images), found.labels, net.classes)
    told = net.metadata.get("provenance", {}).get("accuracy", {})
    if found.dataset and found.dataset == labelled.named_dataset(net) and told.get("images") == judged.images:
        if "integer" in told and round(judged.accuracy, 4) != round(told["integer"], 4):
            raise ValueError(f"{path}: its metadata says {told['integer']:.4f} of {told['images']} images, measured {judged.accuracy:.4f}")
    return Card(net, path, facts.cost(net, path), judged, found)


# ---- the three files ------------------------------------------------------------------------------------------------


def to_json(card: Card) -> dict[str, Any]:
    x, q = card.net.input, card.quality
    classes = [{"label": label, "images": int(q.confusion[c].sum()), "recall": q.recall(c), "precision": q.precision(c)} for c, label in enumerate(card.labels)]
    return {
        "name": card.net.metadata.get("name"), "version": card.net.metadata.get("version", "1"), "description": card.net.metadata.get("description"),
        "license": card.net.metadata.get("license"), "file": card.path.name, "bytes": card.cost.file_bytes, "sha256": card.cost.file_sha256,
        "input": {"shape": [x.h, x.w, x.c], "dtype": x.dtype}, "parameters": card.cost.parameters, "tensor_bytes": card.cost.tensor_bytes,
        "macs_per_image": card.cost.macs,
        "accuracy": {"integer": q.accuracy, "float": card.provenance.get("accuracy", {}).get("float"), "hits": q.hits, "images": q.images, "of": card.judged_by.name},
        "classes": classes, "confusion": q.confusion.tolist(), "provenance": card.provenance}


def picture(card: Card, path: Path) -> None:
    """The confusion matrix: a row a true class, shares of the row."""
    import matplotlib  # here, so that only those who draw need it

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    q, labels = card.quality, card.labels
    n = len(labels)
    share = q.confusion / np.maximum(q.confusion.sum(axis=1, keepdims=True), 1)
    side = 2.6 + (0.52 if n <= NUMBERED_CLASSES_MAX else 0.2) * n
    figure, axes = plt.subplots(figsize=(side, side), dpi=DPI)
    axes.imshow(np.sqrt(share), cmap="Blues", vmin=0, vmax=1)  # the root shows the few that went wrong
    size = 9 if n <= NUMBERED_CLASSES_MAX else 6
    axes.set_xticks(range(n), labels, rotation=90, fontsize=size)
    axes.set_yticks(range(n), labels, fontsize=size)
    axes.set_xlabel("answered")
    axes.set_ylabel("true")
    axes.set_title(f"{card.net.metadata.get('name', card.path.stem)}: {percent(q.accuracy)} of {thousands(q.images)}", fontsize=11)
    for (row, column), count in np.ndenumerate(q.confusion) if n <= NUMBERED_CLASSES_MAX else ():
        if count:
            axes.text(column, row, str(count), ha="center", va="center", fontsize=8, color="white" if share[row, column] > 0.3 else "black")
    figure.tight_layout()
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)


def _facts_table(card: Card) -> list[str]:
    x, told = card.net.input, card.provenance.get("accuracy", {})
    rows = [("file", f"`{card.path.name}`, {thousands(card.cost.file_bytes)} bytes"), ("SHA-256", f"`{card.cost.file_sha256}`"),
            ("version", card.net.metadata.get("version", "1")), ("licence of the weights", card.net.metadata.get("license", "not stated")),
            ("input", f"{x.h} x {x.w} x {x.c}, {x.dtype}"), ("classes", str(card.net.classes)),
            ("accuracy by integers", f"**{percent(card.quality.accuracy)}** ({thousands(card.quality.hits)} of {thousands(card.quality.images)} {card.judged_by.name})")]
    if told.get("float") is not None:
        rows.append(("accuracy in float, before export", percent(told["float"])))
    if told.get("validation") is not None:
        rows.append(("accuracy on the validation split", percent(told["validation"])))
    rows += [(name, thousands(count)) for name, count in card.cost.parameters.items()]
    rows += [(f"multiply-accumulates an image, {name}", thousands(count)) for name, count in card.cost.macs.items() if count]
    return ["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows)]


def _class_table(card: Card) -> list[str]:
    rows = ["| label | images | found (recall) | right when answered (precision) | most often taken for |", "| --- | ---: | ---: | ---: | --- |"]
    for c, label in enumerate(card.labels):
        wrong = card.quality.mistaken_for(c)
        taken = f"{cell(card.labels[wrong[0]])} ({wrong[1]})" if wrong else ""
        rows.append(f"| {cell(label)} | {int(card.quality.confusion[c].sum())} | {percent(card.quality.recall(c))} | {percent(card.quality.precision(c))} | {taken} |")
    return rows


def _training(card: Card) -> list[str]:
    told = card.provenance
    dataset = told.get("dataset", {})
    lines = []
    if dataset:
        lines.append(f"Data: {dataset.get('name', 'not stated')}, licence {dataset.get('license', 'not stated')}"
                     + (f", SHA-256 of what was read `{dataset['sha256']}`." if dataset.get("sha256") else "."))
    if told.get("command"):
        lines += ["", "```sh", str(told["command"]), "```", ""]
    if told.get("start_sha256"):
        lines += [f"It began with a network's file of SHA-256 `{told['start_sha256']}`.", ""]
    if told.get("seed") is not None or told.get("seconds") is not None:
        lines.append(", ".join(([f"Seed {told['seed']}"] if told.get("seed") is not None else [])
                               + ([f"{told['seconds'] / 3600:.2f} hours"] if told.get("seconds") is not None else [])
                               + ([f"{told['core_seconds'] / 3600:.2f} core-hours"] if told.get("core_seconds") is not None else [])
                               + ([f"finished {told['created']}"] if told.get("created") else [])) + ".")
    if told.get("recipe"):
        lines += ["", "The recipe in full:", "", "```json", json.dumps(told["recipe"], indent=1), "```"]
    return lines or ["The file does not say how it was trained."]


def markdown(card: Card) -> str:
    meta, dataset = card.net.metadata, labelled.named_dataset(card.net)
    path = card.path.resolve()
    name = path.relative_to(ROOT) if path.is_relative_to(ROOT) else Path(path.name)
    judged_by = card.judged_by.dataset
    data = f" --data {labelled.SETS.get(judged_by or '', card.judged_by.name)}" if judged_by != dataset else "" if dataset == "Fashion-MNIST" else " --folder FOLDER"
    folder = " FOLDER=FOLDER" if data == " --folder FOLDER" else ""
    repeat = ["```sh", f"make verify MODEL={name}{folder}   # every implementation, bit for bit, on the whole test set",
              f"train/xnor-train card {name}{data}   # this page"]
    if card.provenance.get("command"):
        repeat.append(str(card.provenance["command"]).replace("xnor-train", "train/xnor-train", 1) + "   # the network itself")
    description = [str(meta["description"]), ""] if meta.get("description") else []
    lines = [f"# {meta.get('name', card.path.stem)}", "", *description, "<!-- made by `xnor-train card`: do not edit -->", "",
             *_facts_table(card), "", "## By class", "", *_class_table(card), "", "![Confusion matrix](confusion.png)", "",
             "## How it was trained", "", *_training(card), "", "## How to repeat", "", *repeat, "```", "",
             "The integers of the answers are the same on every accelerator. Training again with the same seed gives the same network on the same machine and "
             "libraries; elsewhere floating point may round otherwise, and the accuracy comes out a little different.", "",
             "## Limits of use", "", *(f"- {text}" for text in LIMITS.get(dataset, []) + GENERAL_LIMITS)]
    return "\n".join(lines) + "\n"


def write(card: Card, folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "README.md", folder / "card.json", folder / "confusion.png"]
    paths[0].write_text(markdown(card))
    paths[1].write_text(json.dumps(to_json(card), indent=1, ensure_ascii=False) + "\n")
    picture(card, paths[2])
    return paths


def index(folder: Path) -> str:
    """The table of the networks in `folder`/NAME, from their cards."""
    rows = []
    for path in sorted(folder.glob("*/card.json")):
        told = json.loads(path.read_text())
        provenance, macs = told["provenance"], told["macs_per_image"]
        minutes = f"{provenance['core_seconds'] / 60:.0f}" if "core_seconds" in provenance else "-"
        rows.append(f"| [{told['name']}]({path.parent.name}/) | {cell(provenance.get('dataset', {}).get('name', '-'))} | **{percent(told['accuracy']['integer'])}** "
                    f"of {thousands(told['accuracy']['images'])} | {macs['binary'] / 1e6:.2f} M | {macs['binary x 8 bit'] / 1e6:.2f} M | {macs['int8'] / 1e6:.2f} M "
                    f"| {thousands(told['bytes'])} | {minutes} |")
    return "\n".join(["# Networks", "", "<!-- made by `xnor-train card --index`: do not edit -->", "",
                      "Each folder has a network and its card: data, recipe, command, accuracy by class, limits of use. Accuracies are by integers, which every",
                      "accelerator computes; operations are multiply-accumulates an image, by the types of activation and weight.", "",
                      "| network | data | accuracy | binary | binary x 8 bit | int8 | bytes | core-minutes of training |",
                      "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |", *rows]) + "\n"


def make(arguments: argparse.Namespace) -> int:
    if arguments.index:
        (arguments.index / "README.md").write_text(index(arguments.index))
        print(arguments.index / "README.md")
        return 0
    if not arguments.file:
        raise ValueError("which network? name a .xnor file, or a folder of cards with --index")
    net = Network.load(arguments.file)
    card = measure(arguments.file, net, labelled.find(net, arguments.data, None, folder=arguments.folder))
    for path in write(card, arguments.out or arguments.file.parent):
        print(path)
    return 0


def add_command(commands) -> None:  # type: ignore[no-untyped-def]
    c = commands.add_parser("card", help="write the model card of a .xnor file", description=__doc__)
    c.add_argument("file", type=Path, nargs="?")
    c.add_argument("--index", type=Path, metavar="FOLDER", help="write FOLDER/README.md, a list of the cards in FOLDER/NAME, and nothing else")
    labelled.add_option(c)
    c.add_argument("--out", type=Path, help="folder (that of the file)")
    c.set_defaults(function=make)
