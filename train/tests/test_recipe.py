# SPDX-License-Identifier: Apache-2.0
"""The recipe: what is interrupted goes on as if nothing had been, what cannot go well is refused beforehand, and the command does the whole way."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small import every_op, nearest_mean
from xnortrain import data as datasets
from xnortrain import interpret, networks, recipe, settings, training
from xnortrain.cli import main
from xnortrain.data import Augment, Dataset, Split
from xnortrain.networks import ConfigError
from xnortrain.recipe import Config, Run, TrainingError
from xnortrain.xnorfile import Network


def bars(n: int, seed: int) -> Split:
    """16x16: a bright bar, upright (0) or lying (1), somewhere, in noise."""
    random = np.random.default_rng(seed)
    images = random.integers(0, 120, (n, 16, 16, 1), dtype=np.uint8)
    labels = random.integers(0, 2, n)
    for image, label, at in zip(images, labels, random.integers(2, 14, n)):
        if label:
            image[at] = 250
        else:
            image[:, at] = 250
    return Split(images, labels.astype(np.int64))


@pytest.fixture(scope="module")
def data() -> Dataset:
    return Dataset("bars", "none", ["upright", "lying"], "gray", bars(256, 1), bars(64, 2), bars(200, 3), "00" * 32)


CONFIG = Config(options={"width": 16, "blocks": [1, 1]}, batch=32, lr=3e-3, epochs=(1, 3, 1), augment=Augment(shift=1))


def run_in(folder: Path, data: Dataset, config: Config = CONFIG, teacher=None) -> Run:
    recipe.configure_torch(1)
    torch.manual_seed(config.seed)
    return Run(networks.build(config.network, (16, 16, 1), 2, **config.options), data, config, folder, teacher)


def test_learns_and_exports_what_it_learnt(data: Dataset, tmp_path: Path) -> None:
    run = run_in(tmp_path, data)
    model = run.train()
    assert recipe.accuracy(model, data.test) > 0.9
    logits = interpret.run(model.export({"labels": data.labels}), data.test.images)
    assert np.array_equal(logits, recipe.predict(model, data.test.images))
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    assert [row["stage"] for row in rows] == ["bits", "binary", "binary", "binary", "exact"]
    assert Image.open(tmp_path / "curves.png").size[0] > 300
    assert run.float_accuracy(model) > 0.9


def test_restarts_rise_within_the_second_stage(tmp_path: Path) -> None:
    (tmp_path / "late.toml").write_text("[training]\nepochs = [1, 4, 1]\nrestarts = [2, 4]")
    with pytest.raises(ConfigError, match="do not rise within the 4 epochs"):
        settings.load(tmp_path / "late.toml").config(Augment())


def test_the_learning_rate_begins_anew_at_a_restart(data: Dataset, tmp_path: Path) -> None:
    once, again = (run_in(tmp_path / name, data, dataclasses.replace(CONFIG, epochs=epochs, restarts=restarts))
                   for name, epochs, restarts in (("once", (1, 4, 1), ()), ("again", (1, 10, 1), (4,))))
    assert [once._rate(1, done) for done in (0, 1.5, 3.9)] == [again._rate(1, done) for done in (0, 1.5, 3.9)]
    assert again._rate(1, 4) == CONFIG.lr and again._rate(1, 7) == pytest.approx(CONFIG.lr / 2) and again._rate(1, 9.99) < 1e-4 * CONFIG.lr
    assert again._rate(0, 0.5) == once._rate(0, 0.5) and again._rate(2, 0) == CONFIG.lr / 20


def test_goes_on_after_an_interruption(data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run_in(tmp_path / "whole", data).train()

    class Interrupted(Exception):
        pass

    save, epochs = Run._save, []

    def save_twice(self: Run, optimizer: torch.optim.Optimizer) -> None:
        save(self, optimizer)
        epochs.append(1)
        if len(epochs) in (2, 4):  # within the second stage, and at its end
            raise Interrupted

    monkeypatch.setattr(Run, "_save", save_twice)
    for _ in range(2):
        with pytest.raises(Interrupted):
            run_in(tmp_path / "parts", data).train()
    resumed = run_in(tmp_path / "parts", data).train()
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values()):
        assert torch.equal(a, b), name


def test_other_settings_are_refused(data: Dataset, tmp_path: Path) -> None:
    run_in(tmp_path, data)
    with pytest.raises(TrainingError, match=r"other settings \(lr, options\)"):
        run_in(tmp_path, data, Config(**{**CONFIG.__dict__, "lr": 1e-4, "options": {"width": 32, "blocks": [1, 1]}}))


def test_divergence_is_named(data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="the loss is (nan|inf) in stage bits, epoch 1, batch [0-9]+: lower"):
        run_in(tmp_path, data, Config(**{**CONFIG.__dict__, "lr": 1e30})).train()


def test_too_few_images(data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="fewer than a batch"):
        run_in(tmp_path, data, Config(**{**CONFIG.__dict__, "batch": 512})).train()


def test_networks_that_no_accelerator_runs_are_refused_at_once() -> None:
    with pytest.raises(TrainingError, match="no accelerator can run this network: conv 'stem'.*"):
        recipe.preflight(networks.build("residual", (32, 32, 1), 4, width=16, blocks=[1], stem_kernel=9))
    recipe.preflight(networks.build("residual", (32, 32, 1), 4, width=16, blocks=[1], stem_kernel=7))


def test_distillation(data: Dataset, tmp_path: Path) -> None:
    run_in(tmp_path / "teacher", data).train()
    teacher = Run.finished(tmp_path / "teacher", data)
    config = Config(**{**CONFIG.__dict__, "options": {"width": 16, "blocks": [1, 1], "estimator": "clip"}, "distill": 0.5, "teacher": str(tmp_path / "teacher")})
    assert recipe.accuracy(run_in(tmp_path / "pupil", data, config, teacher).train(), data.test) > 0.9
    with pytest.raises(TrainingError, match="no finished run"):
        Run.finished(tmp_path / "nowhere", data)
    with pytest.raises(TrainingError, match="another SHA-256"):
        Run.finished(tmp_path / "teacher", Dataset(**{**data.__dict__, "sha256": "11" * 32}))


def test_begins_with_the_weights_of_another_run(data: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = run_in(tmp_path / "first", data)
    first.train()
    short = dataclasses.replace(CONFIG, epochs=(0, 0, 1), lr=1e-4, start=str(tmp_path / "first"))
    again = run_in(tmp_path / "again", data, short)
    assert again.core_seconds == first.core_seconds and "anew" not in capsys.readouterr().err
    assert recipe.accuracy(again.train(), data.test) > 0.9  # which an epoch of stage 3 alone does not learn
    assert run_in(tmp_path / "again", data, short).done == [0, 0, 1]  # goes on with its own
    other = dataclasses.replace(short, options={"width": 16, "blocks": [1, 1], "stem_kernel": 5})
    run_in(tmp_path / "other", data, other)
    assert "; anew: stem." in capsys.readouterr().err
    with pytest.raises(TrainingError, match="another network"):
        run_in(tmp_path / "wide", data, dataclasses.replace(short, network="vgg", options={"width": 24}))
    with pytest.raises(TrainingError, match="no finished run"):
        run_in(tmp_path / "none", data, dataclasses.replace(short, start=str(tmp_path / "nowhere")))


@pytest.fixture(scope="module")
def learnt(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a network that knows bars."""
    folder = tmp_path_factory.mktemp("learnt")
    run = run_in(folder, data)
    told = {"seconds": 20, "core_seconds": 30, "recipe": dataclasses.asdict(CONFIG), "dataset": {"name": data.name, "sha256": data.sha256}}
    run.train().export({"name": "bars", "labels": data.labels, "provenance": told}).save(folder / "bars.xnor")
    return folder / "bars.xnor"


def test_learns_from_a_file(data: Dataset, learnt: Path, tmp_path: Path) -> None:
    teacher = Run.finished(learnt, data)
    assert np.array_equal(recipe.predict(teacher, data.test.images), interpret.run(Network.load(learnt), data.test.images))
    with pytest.raises(TrainingError, match="bars.xnor was trained on .* with another SHA-256"):
        Run.finished(learnt, Dataset(**{**data.__dict__, "sha256": "11" * 32}))
    (tmp_path / "text.xnor").write_text("no network")
    with pytest.raises(TrainingError, match="teacher: .*text.xnor is not a file of this tool"):
        Run.finished(tmp_path / "text.xnor", data)
    with pytest.raises(TrainingError, match="teacher: there is no file"):
        Run.finished(tmp_path / "none.xnor", data)


def test_begins_with_a_file(data: Dataset, learnt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = dataclasses.replace(CONFIG, epochs=(0, 0, 1), lr=1e-4, start=str(learnt))
    run = run_in(tmp_path / "run", data, short)
    assert "anew" not in capsys.readouterr().err and (run.seconds, run.core_seconds) == (20, 30)
    assert recipe.accuracy(run.train(), data.test) > 0.9  # which an epoch of stage 3 alone does not learn
    digest = hashlib.sha256(learnt.read_bytes()).hexdigest()
    assert json.loads((tmp_path / "run/config.json").read_text())["start_sha256"] == digest
    again = run_in(tmp_path / "run", data, short)
    assert again.done == [0, 0, 1] and again.start_sha256 == digest


def test_binary_stage_goes_on_from_a_file(data: Dataset, learnt: Path, tmp_path: Path) -> None:
    run = run_in(tmp_path, data, dataclasses.replace(CONFIG, epochs=(0, 1, 0), lr=1e-4, start=str(learnt)))
    recipe.set_binary_weights(run.model, True)
    with torch.no_grad():  # normalising by the batch, as training does
        scores = run.model.train()(datasets.to_input(data.test.images))
    assert (scores.argmax(dim=1).numpy() == data.test.labels).mean() > 0.9


def test_a_file_of_other_classes_and_sizes(data: Dataset, learnt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def larger(split: Split) -> Split:
        return Split(split.images.repeat(2, axis=1).repeat(2, axis=2), split.labels)

    other = Dataset("squares", "none", ["upright", "lying", "none"], "gray", larger(data.train), larger(data.validation), larger(data.test), "22" * 32)
    model = networks.build("residual", (32, 32, 1), 3, **CONFIG.options)
    Run(model, other, dataclasses.replace(CONFIG, start=str(learnt)), tmp_path)
    assert "; anew: head.bias, head.weight" in capsys.readouterr().err
    net, again = Network.load(learnt), model.export({})
    signs = [[layer.tensors[0].array for layer in n.layers if layer.name == "block1.conv"][0] for n in (net, again)]
    assert np.array_equal(*signs)


@pytest.mark.parametrize("options,told", [
    ({"options": {"width": 32, "blocks": [1, 1]}}, r"layer 0 is conv 'stem' .*int8 \[16, 3, 3, 1\].*of this one .*int8 \[32, 3, 3, 1\].*tells of {\"network\": \"residual\", \"options\": {\"width\": 16"),
    ({"options": {"width": 16, "blocks": [1, 2]}}, "global_avgpool 'head.sum'.*of this one threshold 'block2.sign'"),
    ({"options": {"width": 16, "blocks": [1, 1], "precision": {"block1.conv": {"activations": "int8"}}}}, "is threshold 'block1.sign'.*of this one scale 'block1.sign'"),
    ({"network": "depthwise"}, "is conv 'block0.conv'.*of this one conv 'block0.depthwise'"),
    ({"network": "vgg"}, "folds all it learns into thresholds")], ids=str)
def test_a_file_of_another_network_is_refused(data: Dataset, learnt: Path, tmp_path: Path, options: dict, told: str) -> None:
    with pytest.raises(TrainingError, match=f"start: .*bars.xnor: .*{told}"):
        run_in(tmp_path, data, dataclasses.replace(CONFIG, start=str(learnt), **options))
    assert not (tmp_path / "config.json").exists()  # the folder is free for the start that fits


def changed(path: Path, name: str, tensor: int, value: int) -> Network:
    """The network of a file with one number of a layer another one."""
    net = Network.load(path)
    layer = next(layer for layer in net.layers if layer.name == name)
    array = layer.tensors[tensor].array.copy()
    array.flat[np.abs(array).argmax()] = value
    layer.tensors[tensor].array = array
    return net


def test_files_that_this_tool_did_not_make_are_refused(data: Dataset, learnt: Path, tmp_path: Path) -> None:
    every_op().save(tmp_path / "other.xnor")
    nearest_mean(data.test.images, data.test.labels, 2, {"name": "dense", "labels": data.labels, "provenance": {"recipe": "secret"}}).save(tmp_path / "dense.xnor")
    (tmp_path / "short.xnor").write_bytes(learnt.read_bytes()[:-100])
    (tmp_path / "text.xnor").write_text("no network")
    for name, layer, tensor, value in (("mean", "head.mean", 0, 5), ("stem", "stem", 0, 100), ("dense8", "head.dense", 0, 9), ("logits", "logits", 0, 3)):
        changed(learnt, layer, tensor, value).save(tmp_path / f"{name}.xnor")
    for name, told in (("other", "layer 0 is conv 'stem'"), ("dense", "layer 0 is dense"), ("short", "the header says"), ("text", "not an .xnor file"), ("none", "there is no file"),
                       ("mean", "head.mean: its channels"), ("stem", "stem: the largest"), ("dense8", "head.dense: the largest"), ("logits", "logits: classes")):
        with pytest.raises(TrainingError, match=f"start: .*{name}.xnor.*{told}" if name != "none" else told):
            run_in(tmp_path / "run", data, dataclasses.replace(CONFIG, start=str(tmp_path / f"{name}.xnor")))


@pytest.mark.parametrize("text,told", [
    ("[network]\nwidht = 3", "no widht"), ("[nets]\nwidth = 3", r"no section \[nets\]"), ("width = 3", "outside of a section"), ("[network]\nwidth = \"wide\"", "width"),
    ("[training]\nepochs = [1, 2]", "three stages"), ("[training]\nlr = 0", "not more than 0"), ("[data]\nname = \"mnist\"", "mnist"), ("[training\n", "line 1"),
    ("[training]\nschedule = \"step\"", "step"), ("[training]\nrestarts = [0]", "restarts")])
def test_bad_settings_are_named(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=told) as error:
        settings.load(path)
    assert "bad.toml" in str(error.value)


def test_every_shipped_configuration_builds() -> None:
    files = sorted(training.CONFIGS.glob("*.toml"))
    assert len(files) >= 6
    for path in files:
        loaded = settings.load(path)
        config = loaded.config(Augment())
        shape = (28, 28, 1) if loaded.get("data", "name") == "fashion-mnist" else (32, 32, 3)
        recipe.preflight(networks.build(config.network, shape, 10, **config.options))


def test_command_from_a_folder_of_images(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """As a user would: a folder of PNG files of Fashion-MNIST, three classes."""
    if not datasets.FASHION_MNIST_FOLDER.is_dir():
        pytest.skip("Debian package dataset-fashion-mnist is not installed")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source = datasets.fashion_mnist().test
    for label, name in ((1, "trouser"), (7, "sneaker"), (8, "bag")):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in np.flatnonzero(source.labels == label)[:150]:
            Image.fromarray(source.images[i, :, :, 0]).save(tmp_path / "pictures" / name / f"{i}.png")
    out = tmp_path / "mine.xnor"
    command = ["train", "--dataset", "folder", "--data", str(tmp_path / "pictures"), "--run", str(tmp_path / "run"), "--out", str(out), "--threads", "1"]
    for setting in ("data.size=28", "data.gray=true", "network.width=16", "network.blocks=[1, 1]", "training.epochs=[2, 6, 1]", "training.batch=16", "training.lr=3e-3",
                    "model.name=mine"):
        command += ["--set", setting]
    assert main(command) == 0
    assert "by integers" in capsys.readouterr().out
    net = Network.load(out)
    told = net.metadata["provenance"]
    assert net.metadata["labels"] == ["bag", "sneaker", "trouser"] and net.metadata["name"] == "mine"
    assert str(tmp_path) not in json.dumps(net.metadata) and "--data FOLDER" in told["command"]
    assert told["accuracy"]["integer"] > 0.8
    test = datasets.image_folder(tmp_path / "pictures", (28, 28, 1)).test
    assert hashlib.sha256(interpret.run(net, test.images).astype("<i4").tobytes()).hexdigest() == told["oracle"]["logits_sha256"]
    tuned = command[:command.index("--run")] + ["--run", str(tmp_path / "tuned"), "--out", str(tmp_path / "tuned.xnor")] + command[command.index("--threads"):]
    assert main([*tuned, "--set", f"training.start={out}", "--set", "training.epochs=[0, 1, 0]"]) == 0
    after = Network.load(tmp_path / "tuned.xnor").metadata["provenance"]
    assert after["start_sha256"] == hashlib.sha256(out.read_bytes()).hexdigest() and after["core_seconds"] >= told["core_seconds"]
    assert after["accuracy"]["integer"] > 0.8
    assert main([*command[:-2], "--set", "network.estimator=sign"]) == 1
    assert "'sign' is none of" in capsys.readouterr().err
