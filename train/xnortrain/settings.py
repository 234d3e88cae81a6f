# SPDX-License-Identifier: Apache-2.0
"""What to train, from a TOML file and options that override it: network, precision of each layer, recipe, augmentation, data.

    [model]      name, version, description
    [data]       name (fashion-mnist, gtsrb, cifar10-jpeg, folder), folder, size, gray, fit
    [network]    kind, width, blocks, stem_stride, stem_kernel, estimator, scales, normalise
    [network.precision]   "block*.depthwise" = "int8"; "stem" = {weights = "binary"}: the last pattern that fits a layer's name counts
    [training]   seed, batch, lr, decay, schedule, restarts, scale_l2, smoothing, epochs (of the three stages), teacher, distill, temperature, start
                 start, teacher: the folder of a finished run, or a .xnor file of this tool, whose weights the run begins with, or whose answers it learns
    [augment]    shift, flip, rotate, zoom, contrast, cutout: changes to the data set's own
"""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any

from .data import DATASETS, Augment
from .networks import ConfigError
from .recipe import Config

NETWORK_KEYS = ("width", "blocks", "stem_stride", "stem_kernel", "estimator", "scales", "normalise", "precision")
TRAINING_KEYS = tuple(f.name for f in dataclasses.fields(Config) if f.name not in ("network", "options", "augment"))
SECTIONS: dict[str, tuple[str, ...]] = {
    "model": ("name", "version", "description"),
    "data": ("name", "folder", "size", "gray", "fit"),
    "network": ("kind", *NETWORK_KEYS),
    "training": TRAINING_KEYS,
    "augment": tuple(f.name for f in dataclasses.fields(Augment)),
}
TYPES: dict[str, type | tuple[type, ...]] = {
    "name": str, "version": (int, str), "description": str, "folder": str, "size": int, "gray": bool, "fit": str, "kind": str, "width": int, "blocks": list,
    "stem_stride": int, "stem_kernel": int, "estimator": str, "scales": str, "normalise": bool, "precision": dict, "seed": int, "batch": int, "lr": float,
    "decay": float, "schedule": str, "restarts": list, "scale_l2": float, "smoothing": float, "epochs": list, "start": str, "teacher": str, "distill": float, "temperature": float, "shift": int,
    "flip": bool, "rotate": float, "zoom": float, "contrast": float, "cutout": int}
CHOICES = {"estimator": ("h", "clip", "approxsign"), "schedule": ("cosine", "linear"), "fit": ("stretch", "crop", "pad")}
POSITIVE = ("size", "width", "stem_stride", "stem_kernel", "batch", "lr", "temperature")


def _check(section: str, key: str, value: Any, where: str) -> Any:
    if section == "data" and key == "name" and value not in DATASETS:
        raise ConfigError(f"{where}: [data] name: {value!r} is none of {', '.join(DATASETS)}")
    wanted = TYPES[key]
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
        raise ConfigError(f"{where}: [{section}] {key}: {value!r} is not {'a ' + wanted.__name__ if isinstance(wanted, type) else 'a number or a text'}")
    if key in CHOICES and value not in CHOICES[key]:
        raise ConfigError(f"{where}: [{section}] {key}: {value!r} is none of {', '.join(CHOICES[key])}")
    if key in POSITIVE and value <= 0:
        raise ConfigError(f"{where}: [{section}] {key}: {value!r} is not more than 0")
    if key in ("blocks", "epochs", "restarts") and not all(isinstance(n, int) and n >= (key != "epochs") for n in value):
        raise ConfigError(f"{where}: [{section}] {key}: {value!r} is not a list of counts")
    if key == "epochs" and len(value) != 3:
        raise ConfigError(f"{where}: [{section}] {key}: {value!r} are not the epochs of three stages")
    return value


@dataclasses.dataclass
class Settings:
    """Sections as in the file; what is not given is absent."""

    sections: dict[str, dict[str, Any]] = dataclasses.field(default_factory=lambda: {name: {} for name in SECTIONS})

    def set(self, section: str, key: str, value: Any, where: str) -> None:
        if section not in SECTIONS:
            raise ConfigError(f"{where}: there is no section [{section}]; there are {', '.join(SECTIONS)}")
        if key not in SECTIONS[section]:
            raise ConfigError(f"{where}: [{section}] has no {key}; it has {', '.join(SECTIONS[section])}")
        self.sections[section][key] = _check(section, key, value, where)

    def get(self, section: str, key: str, default: Any = None) -> Any:
        return self.sections[section].get(key, default)

    def config(self, augment: Augment) -> Config:
        """The recipe; `augment` is the data set's own."""
        training = dict(self.sections["training"])
        for key in ("epochs", "restarts"):
            if key in training:
                training[key] = tuple(training[key])
        within = [0, *training.get("restarts", ()), training.get("epochs", Config.epochs)[1]]
        if "restarts" in training and within != sorted(set(within)):
            raise ConfigError(f"[training] restarts: {list(training['restarts'])} do not rise within the {within[-1]} epochs of the second stage")
        options = {key: self.sections["network"][key] for key in NETWORK_KEYS if key in self.sections["network"]}
        return Config(network=self.get("network", "kind", "residual"), options=options, augment=dataclasses.replace(augment, **self.sections["augment"]), **training)


def load(path: Path | None) -> Settings:
    """From a TOML file. Raises ConfigError naming the file, the section and the setting."""
    settings = Settings()
    if path is None:
        return settings
    try:
        table = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    for section, entries in table.items():
        if not isinstance(entries, dict):
            raise ConfigError(f"{path}: {section} stands outside of a section; there are {', '.join(SECTIONS)}")
        for key, value in entries.items():
            settings.set(section, key, value, str(path))
    return settings
