# SPDX-License-Identifier: Apache-2.0
"""xnorctl, each command, against a real daemon that serves networks with random weights; what it says is compared with the Python interpreter of the
file format. Its load generator also meets servers that answer strangely. $XN_SEED repeats a run."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import select
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from http_support import PATIENCE_S, ROOT, SEED, XNORD, Daemon, daemon, expect, images, png, small_network
from xrt_support import needs_cards
from xnortrain.xnorfile import Network

XNORCTL = XNORD.with_name("xnorctl")
COMMANDS = ("infer", "models", "load", "unload", "stats", "log", "status", "inspect", "run", "eval", "bench", "token")
SHIPPED = ROOT / "models/fashion-mnist/fashion-mnist.xnor"
FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
CLASSES = 6
N = 300


def ctl(*arguments: object, stdin: bytes | None = None, **environment: str) -> subprocess.CompletedProcess[bytes]:
    clean = {k: v for k, v in os.environ.items() if k != "XNORD_URL"}
    return subprocess.run([str(XNORCTL), *map(str, arguments)], input=stdin, capture_output=True, timeout=4 * PATIENCE_S, env={**clean, **environment})


def good(*arguments: object, stdin: bytes | None = None) -> str:
    done = ctl(*arguments, stdin=stdin)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def good_json(*arguments: object, stdin: bytes | None = None) -> Any:
    return json.loads(good(*arguments, "--json", stdin=stdin))


def bad(status: int, *arguments: object, stdin: bytes | None = None) -> str:
    """Fails with `status`; returns what it says."""
    done = ctl(*arguments, stdin=stdin)
    assert done.returncode == status, (done.stdout, done.stderr)
    assert done.stderr
    return done.stderr.decode()


class Served:
    """A daemon with the network `pixels` (plain grey pixels), and images for it with what it makes of them."""

    def __init__(self, running: Daemon, folder: Path, net: Network) -> None:
        self.daemon, self.folder, self.net = running, folder, net
        self.url = f"http://127.0.0.1:{running.port}"
        self.images = images(net, N)
        self.answers = expect(net, self.images).argmax(axis=1)
        self.labels = net.metadata["labels"]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("xnorctl")
    net = small_network(folder / "pixels.xnor", "pixels", (12, 10, 1), CLASSES, image=True)
    small_network(folder / "tensors.xnor", "tensors", (12, 10, 1), CLASSES, dtype="int8")
    large = small_network(folder / "large.xnor", "large", (17, 17, 1), 3, image=True)
    assert large.input.h == 17
    models = [{"path": str(folder / f"{name}.xnor")} for name in ("pixels", "tensors", "large")]
    with daemon(folder, models, http={"threads": 1, "connections": 1000}) as running:
        yield Served(running, folder, net)


# ---- command line -------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_help_and_man_page_know_the_same_options(command: str) -> None:
    text = good(command, "--help")
    page = (ROOT / "docs/man/xnorctl.1").read_text()
    section = re.search(rf"^\.Ss {command}\n(.*?)(?=^\.S[sh] )", page, re.M | re.S)
    assert section, f"xnorctl.1 has no section of {command}"
    common = {"url", "cacert", "insecure", "token-file", "json", "help"}
    has = set(re.findall(r"^ +(?:-\w, )?--([a-z0-9-]+)", text, re.M)) - common
    told = set(re.findall(r"^\.It Fl (?:\w , Fl )?-([a-z0-9-]+)", section[1], re.M))
    assert has == told


def test_wrong_command_lines() -> None:
    assert "no command given" in bad(2)
    assert 'no command is called "frobnicate"' in bad(2, "frobnicate")
    assert "whole number from 1 to 1000" in bad(2, "infer", "--top-k", "0", "x")
    assert "no FILE" in bad(2, "infer")
    assert "must be poisson or uniform" in bad(2, "bench", "--rate", "1", "--arrivals", "often")
    assert "choose one" in bad(2, "bench", "--rate", "1", "--concurrency", "1")
    assert "FOLDER" in bad(2, "eval")
    assert "--input and --output" in bad(2, "run", "x.xnor")
    assert "see xnorctl status --help" in bad(2, "status", "--nonsense")
    assert good("--version").startswith("xnorctl ")
    assert all(command in good("--help") for command in COMMANDS)


def test_no_server() -> None:
    with socket.socket() as taken:  # bound and not listening: nobody answers, and nobody else gets the port
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        for arguments in (["status"], ["models"], ["bench"], ["infer", __file__]):
            said = bad(1, *arguments, "--url", url)
            assert url in said and "is xnord running" in said
        done = ctl("status", XNORD_URL=url)
        assert done.returncode == 1 and url.encode() in done.stderr
    assert "not a URL" in bad(1, "status", "--url", "nowhere")


# ---- offline ------------------------------------------------------------------------------------------------------------------------------------


def test_inspect(served: Served) -> None:
    path = served.folder / "pixels.xnor"
    told = good_json("inspect", path)
    assert (told["name"], told["version"], told["classes"]) == ("pixels", "3", CLASSES)
    assert told["metadata"]["labels"] == served.labels
    assert [layer["op"] for layer in told["layers"]] == [layer.op for layer in served.net.layers]
    for layer, want in zip(told["layers"], served.net.layers):
        assert layer["output"]["shape"] == [want.out.h, want.out.w, want.out.c]
        assert layer["output"]["dtype"] == want.out.dtype
        assert layer["parameter_bytes"] == sum(len(t.to_bytes()) for t in want.tensors)
        if want.op == "conv":
            assert (layer["kernel"], layer["stride"], layer["pad"]) == ([*want.kernel], [*want.stride], [*want.pad])
    stem, conv = (layer for layer in told["layers"] if layer["op"] == "conv")
    assert (stem["int8_macs"], stem["binary_macs"]) == (6 * 5 * 24 * 9, 0)
    assert (conv["int8_macs"], conv["binary_macs"]) == (0, 6 * 5 * 40 * 9 * 24)
    assert told["totals"]["binary_macs"] == conv["binary_macs"] + 6 * 5 * 40 * CLASSES
    assert told["totals"]["parameter_bytes"] == sum(layer["parameter_bytes"] for layer in told["layers"])
    text = good("inspect", path)
    assert told["sha256"] in text and "SHA-256 matches" in text and served.labels[0] in text


def test_inspect_names_what_is_wrong(served: Served, tmp_path: Path) -> None:
    data = bytearray((served.folder / "pixels.xnor").read_bytes())
    data[-1] ^= 1
    broken = tmp_path / "broken.xnor"
    broken.write_bytes(data)
    said = bad(1, "inspect", broken)
    assert str(broken) in said and "SHA-256" in said
    assert "No such file" in bad(1, "inspect", tmp_path / "none.xnor")


def test_inspect_engine(served: Served) -> None:
    path = served.folder / "pixels.xnor"
    listing = good("inspect", "--engine", "-g", "2T", path)
    assert "pixels" in listing and "binary" in listing and listing.rstrip().endswith("end")
    assert "fit" in bad(1, "inspect", "--engine", "--geometry", "P8,PI4,PR4,AM1,RM1,WB1024", path)
    assert "geometry" in bad(2, "inspect", "--engine", "--geometry", "3T", path)
    assert "--engine" in bad(2, "inspect", "--geometry", "2T", path)


def test_estimate(served: Served) -> None:
    path = served.folder / "pixels.xnor"
    text = good("estimate", "--geometry", "2T", path)
    assert "pixels" in text and "binary" in text and text.rstrip().endswith("not placed and routed")
    for turn, few, many in ((1, 1, 10), (64, 64, 192)):
        one, more = (good_json("estimate", "-g", "2T", "--turn", turn, "--images", n, "--clock", 200, path) for n in (few, many))
        assert one["passes"][-1]["op"] in ("binary", "int8", "vector") and one["geometry"]["p"] == 4 and one["turn"] == turn
        assert sum(p["stream_bytes"] for p in one["passes"]) == one["stream_bytes"]
        assert more["cycles"] == round(more["images"] * 200e6 / more["images_per_second"])
        an_image = sum(p["cycles"] for p in more["passes"])
        assert 0 <= (more["cycles"] - one["cycles"]) / (many - few) - an_image < 50  # END, and what of the first image is not hidden
        assert all(p["cycles"] >= max(p["array_cycles"], p["post_cycles"]) for p in more["passes"])


def test_estimate_several(served: Served) -> None:
    path = served.folder / "pixels.xnor"
    assert len(good_json("estimate", path, path)) == 2
    assert good("estimate", path, path).count("pixels") == 2
    assert "fit" in bad(1, "estimate", "-g", "P8,PI4,PR4,AM1,RM1,WB1024", path)
    assert "geometry" in bad(2, "estimate", "-g", "3T", path)
    assert "FILE" in bad(2, "estimate")


@pytest.mark.parametrize("backend", ["reference", "cpu", "cpu:portable"])
@pytest.mark.parametrize("threads", [1, 3])
def test_run(served: Served, tmp_path: Path, backend: str, threads: int) -> None:
    (tmp_path / "in").write_bytes(served.images.tobytes())
    told = good_json("run", served.folder / "pixels.xnor", "-i", tmp_path / "in", "-o", tmp_path / "out", "--backend", backend, "--threads", threads)
    assert (told["images"], told["classes"]) == (N, CLASSES)
    assert np.array_equal(np.fromfile(tmp_path / "out", "<i4").reshape(N, CLASSES), expect(served.net, served.images))


def test_run_through_pipes(served: Served) -> None:
    done = ctl("run", served.folder / "pixels.xnor", "-i", "-", "-o", "-", stdin=served.images[:5].tobytes())
    assert done.returncode == 0, done.stderr
    assert np.array_equal(np.frombuffer(done.stdout, "<i4").reshape(5, CLASSES), expect(served.net, served.images[:5]))


def test_run_refuses(served: Served, tmp_path: Path) -> None:
    path, raw, out = served.folder / "pixels.xnor", tmp_path / "in", tmp_path / "out"
    raw.write_bytes(served.images[:2].tobytes()[:-1])
    out.write_bytes(b"precious")
    assert "whole tensors of 120 bytes" in bad(1, "run", path, "-i", raw, "-o", out)
    assert "ends within a tensor" in bad(1, "run", path, "-i", "-", "-o", "-", stdin=raw.read_bytes())
    raw.write_bytes(served.images[:2].tobytes())
    assert "no instruction set level" in bad(1, "run", path, "-i", raw, "-o", out, "--backend", "cpu:none")
    assert "no accelerator is called" in bad(1, "run", path, "-i", raw, "-o", out, "--backend", "abacus")
    assert out.read_bytes() == b"precious"
    assert "/none" in bad(1, "run", path, "-i", raw, "-o", tmp_path / "none/out")


# ---- infer, models, status ----------------------------------------------------------------------------------------------------------------------


def test_infer_pictures(served: Served, tmp_path: Path) -> None:
    files = []
    for i in range(5):
        files.append(tmp_path / f"{i}.png")
        files[-1].write_bytes(png(served.images[i]))
    for together in ([], ["--together"]):
        told = good_json("infer", "--url", served.url, *files, *together)
        assert [r["file"] for r in told["results"]] == [str(f) for f in files]
        assert [r["class"] for r in told["results"]] == served.answers[:5].tolist()
        assert [r["label"] for r in told["results"]] == [served.labels[k] for k in served.answers[:5]]
        assert not told["failures"] and told["model"] == "pixels"
        assert all(r["instance"] == "cpu0" and r["timings_us"]["execute"] >= 0 for r in told["results"])
    text = good("infer", "--url", served.url, files[0]).splitlines()
    assert text[0].split() == ["FILE", "LABEL", "SCORE", "DECODE", "QUEUE", "EXECUTE", "TOTAL", "INSTANCE", "BATCH"]
    assert served.labels[served.answers[0]] in text[1]


def test_infer_tensors_and_ranking(served: Served, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.write_bytes(served.images[:3].tobytes())
    told = good_json("infer", "--url", served.url, raw, "--top-k", 4)
    order = np.argsort(-expect(served.net, served.images[:3]), axis=1, kind="stable")[:, :4]
    assert [[t["class"] for t in r["top"]] for r in told["results"]] == order.tolist()
    assert [r["index"] for r in told["results"]] == [0, 1, 2]
    assert good_json("infer", "-u", served.url, "-", stdin=raw.read_bytes())["results"][2]["class"] == served.answers[2]
    assert good("infer", "-u", served.url, raw, "-k", 2).count("\n") == 1 + 3 * 2


def test_infer_goes_on_after_a_failure(served: Served, tmp_path: Path) -> None:
    (tmp_path / "good.png").write_bytes(png(served.images[0]))
    (tmp_path / "bad.png").write_bytes(png(served.images[0])[:40])
    files = [tmp_path / "bad.png", tmp_path / "none.png", tmp_path / "good.png"]
    done = ctl("infer", "--json", "--url", served.url, *files)
    told = json.loads(done.stdout)
    assert done.returncode == 1
    assert [f["file"] for f in told["failures"]] == [str(f) for f in files[:2]]
    assert [r["class"] for r in told["results"]] == [served.answers[0]]
    assert b"none.png: No such file" in done.stderr
    assert "it has" in bad(1, "bench", "--url", served.url, "--model", "nobody") and "no model" in bad(1, "infer", "-u", served.url, "-m", "x", files[2])


def test_models_and_status(served: Served) -> None:
    models = good_json("models", "--url", served.url)
    assert [m["name"] for m in models] == ["pixels", "tensors", "large"]
    assert models[0]["default"] and models[0]["plain_pixels"] and models[0]["takes_images"] and models[0]["input_type"] == "uint8"
    assert not models[1]["takes_images"] and not models[1]["plain_pixels"] and models[1]["input_type"] == "int8"
    assert re.search(r"^pixels \* +3 +12x10x1 +6", good("models", "--url", served.url), re.M)
    before = good_json("--url", served.url, "status")
    good("infer", "-u", served.url, "-", stdin=served.images[:7].tobytes())
    after = good_json("status", "--url", served.url + "/")
    assert after["models"][0]["inferences"] == before["models"][0]["inferences"] + 7
    assert after["ready"] and after["instances"][0]["healthy"] and "energy" in after and "rejected" in after
    assert all("watts" in sensor for sensor in after["power"] if sensor["up"])  # what cannot be read has no figure
    text = good("status", "--url", served.url)
    assert "ready" in text and re.search(r"^ +pixels +3 +0/1024 ", text, re.M)


def test_management(tmp_path: Path, served: Served) -> None:
    """load, unload, log, and what models and stats say of it."""
    repository = tmp_path / "repository"
    repository.mkdir()
    file = (served.folder / "pixels.xnor").read_bytes()
    (repository / "gate.xnor").write_bytes(file)
    (repository / "bad.xnor").write_bytes(file[:100])
    with daemon(tmp_path, [], repository={"path": str(repository), "control": "explicit"}) as server:
        url = f"http://127.0.0.1:{server.port}"
        models = good_json("models", "-u", url)
        assert {(m["name"], m.get("version"), m["state"]) for m in models} == {("gate", "3", "READY"), ("bad", None, "UNAVAILABLE")}
        assert re.search(r"^bad +UNAVAILABLE +\S*bad.xnor: truncated", good("models", "-u", url), re.M)
        assert good("unload", "gate", "-u", url) == "gate: unloaded\n"
        assert re.search(r"^gate +UNAVAILABLE +unloaded$", good("models", "-u", url), re.M)
        assert good_json("load", "gate", "-u", url, "--config", '{"max_batch_size": 7}') == [{"name": "gate", "done": "load"}]
        assert good_json("models", "-u", url)[0]["max_batch"] == 7
        assert "truncated" in bad(1, "load", "bad", "-u", url) and "no model is called" in bad(1, "unload", "no body", "-u", url)
        assert "max_batch_size" in bad(1, "load", "gate", "-u", url, "-c", '{"max_batch_size": 0}')
        assert "which model" in bad(2, "load") and "which model" in bad(2, "unload")
        good("infer", "-u", url, "-", stdin=served.images[:7].tobytes())
        [stats] = good_json("stats", "gate", "-u", url)
        assert stats["inference_count"] == 7 and stats["inference_stats"]["success"]["count"] == 1
        assert re.search(r"^gate +3 +1 +0 +7 +\d", good("stats", "-u", url), re.M)
        assert "no model is called" in bad(1, "stats", "nobody", "-u", url)
        assert good("log", "-u", url) == "warning\n" and good("log", "debug", "-u", url) == "debug\n"
        assert good_json("log", "-u", url) == {"level": "debug"} and good("log", "error", "-u", url) == "error\n"
        assert "must be error" in bad(2, "log", "loud", "-u", url)
    assert "repository.control" in bad(1, "load", "pixels", "-u", served.url) and "repository.control" in bad(1, "log", "debug", "-u", served.url)


def test_status_again_and_again(served: Served) -> None:
    lines = good("status", "--json", "--watch", "--count", 3, "--interval", 0.01, "--url", served.url).splitlines()
    assert len(lines) == 3
    spans = [json.loads(line)["span_seconds"] for line in lines]
    assert spans[0] > spans[1] > 0  # since the start, then between readings


# ---- eval ---------------------------------------------------------------------------------------------------------------------------------------


def write_idx(path: Path, array: np.ndarray) -> Path:
    data = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def some_truth(served: Served) -> np.ndarray:
    """Labels that are right for some images and wrong for others."""
    rng = np.random.default_rng(SEED)
    return np.where(rng.random(N) < 0.7, served.answers, rng.integers(0, CLASSES, N))


def check_eval(told: dict[str, Any], truth: np.ndarray, answers: np.ndarray) -> None:
    confusion = np.zeros((CLASSES, CLASSES), int)
    np.add.at(confusion, (truth, answers), 1)
    assert told["confusion"] == confusion.tolist()
    assert told["images"] == told["answered"] == len(truth)
    assert told["correct"] == int((truth == answers).sum())
    assert told["accuracy"] == pytest.approx(told["correct"] / len(truth))
    for k, entry in enumerate(told["classes"]):
        taken, real = confusion[:, k].sum(), confusion[k].sum()
        assert entry["precision"] == (pytest.approx(confusion[k, k] / taken) if taken else None)
        assert entry["recall"] == (pytest.approx(confusion[k, k] / real) if real else None)
    assert not told["failures"]


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("options", [["--batch", 1, "--concurrency", 1], ["--batch", 7, "--concurrency", 5], []])
def test_eval_idx(served: Served, tmp_path: Path, ending: str, options: list[Any]) -> None:
    truth = some_truth(served)
    files = ["--images", write_idx(tmp_path / f"images{ending}", served.images[..., 0]), "--labels", write_idx(tmp_path / f"labels{ending}", truth)]
    told = good_json("eval", *files, "--url", served.url, *options)
    check_eval(told, truth, served.answers)
    assert told["sent_as"] == "tensors" and told["passed"]
    told = good_json("eval", *files, "--url", served.url, *options, "--limit", 31)
    check_eval(told, truth[:31], served.answers[:31])


def test_eval_expects(served: Served, tmp_path: Path) -> None:
    truth = some_truth(served)
    write_idx(tmp_path / "t10k-images-idx3-ubyte.gz", served.images[..., 0])
    write_idx(tmp_path / "t10k-labels-idx1-ubyte", truth)
    percent = 100 * float((truth == served.answers).mean())
    assert "passed" in good("eval", tmp_path, "--url", served.url, "--expect", int(percent))
    done = ctl("eval", tmp_path, "--url", served.url, "--expect", int(percent) + 1)
    assert done.returncode == 1 and b"FAILED" in done.stdout


def test_eval_sends_pictures_where_tensors_do_not_fit(served: Served, tmp_path: Path) -> None:
    truth = np.zeros(8, int)
    files = ["--images", write_idx(tmp_path / "images", served.images[:8, ..., 0]), "--labels", write_idx(tmp_path / "labels", truth)]
    told = good_json("eval", *files, "--url", served.url, "--model", "large", "--batch", 3)
    want = [served.daemon.post("/infer?model=large", png(picture)).json()["results"][0]["class"] for picture in served.images[:8]]
    assert told["sent_as"] == "png" and told["confusion"][0] == np.bincount(want, minlength=3).tolist()
    assert "takes tensors only" in bad(1, "eval", *files, "--url", served.url, "--model", "tensors")


def make_folder(served: Served, folder: Path, n: int, names: list[str]) -> np.ndarray:
    """`n` pictures in folders of classes that go round; which one each is in."""
    truth = np.arange(n) % len(names)
    for i, k in enumerate(truth):
        (folder / names[k]).mkdir(exist_ok=True)
        (folder / names[k] / f"{i:04}.png").write_bytes(png(served.images[i]))
    return truth


def test_eval_folder(served: Served, tmp_path: Path) -> None:
    names = [served.labels[0], "1", served.labels[2], "3", "4", served.labels[5]]
    truth = make_folder(served, tmp_path, 60, names)
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "1" / ".note").write_text("not an image")
    check_eval(good_json("eval", tmp_path, "--url", served.url, "--batch", 4), truth, served.answers[:60])
    told = good_json("eval", tmp_path, "--url", served.url, "--limit", 6)
    assert [entry["images"] for entry in told["classes"]] == [1] * CLASSES  # spread over the classes


@pytest.mark.parametrize("batch", [1, 8])
def test_eval_counts_what_fails(served: Served, tmp_path: Path, batch: int) -> None:
    truth = make_folder(served, tmp_path, 40, [str(k) for k in range(CLASSES)])
    (tmp_path / "2" / "broken.png").write_bytes(png(served.images[0])[:50])
    (tmp_path / "3" / "text").write_text("no picture at all")
    done = ctl("eval", tmp_path, "--url", served.url, "--json", "--batch", batch)
    told = json.loads(done.stdout)
    assert done.returncode == 1 and not told["passed"]
    assert told["images"] == 42 and told["answered"] == 40 and sum(f["images"] for f in told["failures"]) == 2
    assert {f["kind"] for f in told["failures"]} <= {"400", "415"}
    assert told["correct"] == int((truth == served.answers[:40]).sum())
    assert told["accuracy"] == pytest.approx(told["correct"] / 42)


def test_eval_tells_what_does_not_fit(served: Served, tmp_path: Path) -> None:
    pictures = write_idx(tmp_path / "images", served.images[:4, ..., 0])
    few = write_idx(tmp_path / "few", np.zeros(3, int))
    high = write_idx(tmp_path / "high", np.array([0, 1, 9, 2]))
    ask = ["eval", "--url", served.url, "--images", pictures, "--labels"]
    assert re.search("3 labels, .* 4 images", bad(1, *ask, few))
    assert f"image 2 has label 9, but model pixels has {CLASSES} classes" in bad(1, *ask, high)
    assert "not an IDX file" in bad(1, *ask, __file__)
    folder = tmp_path / "set"
    folder.mkdir()
    assert "no sub-folder" in bad(1, "eval", "--url", served.url, folder)
    make_folder(served, folder, 4, ["0", "cat"])
    said = bad(1, "eval", "--url", served.url, folder)
    assert '"cat" is no class' in said and served.labels[0] in said
    assert "not a folder" in bad(1, "eval", "--url", served.url, pictures)


@pytest.mark.skipif(not SHIPPED.exists() or not FASHION_MNIST.is_dir(), reason="the shipped network or dataset-fashion-mnist is not there")
def test_eval_shipped_network(tmp_path: Path) -> None:
    with daemon(tmp_path, [{"path": str(SHIPPED)}]) as running:
        told = good_json("eval", FASHION_MNIST, "--url", f"http://127.0.0.1:{running.port}", "--expect", 89)
    claimed = Network.load(SHIPPED).metadata["provenance"]["accuracy"]
    assert told["images"] == claimed["images"] == 10000
    assert round(told["accuracy"], 4) == claimed["integer"]


# ---- bench --------------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("images_each", [1, 3])
def test_bench_closed_loop_sends_what_it_says(served: Served, images_each: int) -> None:
    before = served.daemon.metric("xnord_inferences_total", model="pixels"), served.daemon.metric("xnord_http_requests_total", route="infer")
    told = good_json("bench", "--url", served.url, "--count", 200, "--concurrency", 7, "--images", images_each)
    after = served.daemon.metric("xnord_inferences_total", model="pixels"), served.daemon.metric("xnord_http_requests_total", route="infer")
    assert told["mode"] == "closed" and told["requests"] == told["ok"] == 200 and told["errors"] == {}
    assert (after[0] - before[0], after[1] - before[1]) == (200 * images_each, 200)
    assert told["server"]["inferences"] == 200 * images_each
    assert told["images_per_s"] == pytest.approx(told["requests_per_s"] * images_each)
    assert sum(size["batches"] for size in told["server"]["batch_sizes"]) == told["server"]["batches"]
    assert sum(told["server"]["batch_reasons"].values()) == told["server"]["batches"]
    latency = told["latency_us"]
    assert 0 < latency["min"] <= latency["p50"] <= latency["p90"] <= latency["p99"] <= latency["p99.9"] <= latency["max"]
    assert "energy" not in told["server"]  # nothing measures, nothing is said


def test_bench_open_loop_keeps_to_its_schedule(served: Served) -> None:
    told = good_json("bench", "--url", served.url, "--rate", 200, "--arrivals", "uniform", "--seconds", 1, "--warmup", 0)
    assert told["mode"] == "open" and told["requests"] == told["ok"] == 200
    first = good_json("bench", "--url", served.url, "--rate", 200, "--seconds", 1, "--warmup", 0, "--seed", 7)
    again = good_json("bench", "--url", served.url, "--rate", 200, "--seconds", 1, "--warmup", 0, "--seed", 7)
    assert first["seed"] == 7 and first["requests"] == again["requests"]  # arrivals follow from the seed alone
    assert re.search(r"poisson, seed \d+", good("bench", "--url", served.url, "--rate", 50, "--count", 5))


def test_bench_files(served: Served, tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(png(served.images[i]))
    files = sorted(tmp_path.glob("*.png"))
    decoded = served.daemon.metric("xnord_stage_duration_seconds_count", model="pixels", stage="decode")
    assert good_json("bench", "--url", served.url, "--count", 30, *files)["ok"] == 30
    assert good_json("bench", "--url", served.url, "--count", 10, "--images", 5, "--file", files[0])["ok"] == 10
    assert served.daemon.metric("xnord_stage_duration_seconds_count", model="pixels", stage="decode") - decoded == 80


def test_bench_tells_errors_by_status(served: Served, tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(b"no tensor")
    done = ctl("bench", "--url", served.url, "--count", 20, "--json", tmp_path / "bad")
    told = json.loads(done.stdout)
    assert done.returncode == 1 and b"no request was answered with 200" in done.stderr
    status = served.daemon.post("/infer", b"no tensor").status
    assert status in (400, 415) and told["ok"] == 0 and told["errors"] == {str(status): 20} and told["latency_us"] == {}


@pytest.mark.parametrize("connections", [119, 127, 128, 129, 256])
def test_many_connections_do_not_stall_the_server(served: Served, connections: int) -> None:
    """As many connections as libmicrohttpd takes events at once: a thread of it once waited for more of them for ever."""
    for _ in range(4):
        told = good_json("bench", "--url", served.url, "--concurrency", connections, "--count", 10 * connections, "--timeout", PATIENCE_S)
        assert told["errors"] == {} and told["ok"] == 10 * connections


def test_energy_is_told_where_it_is_known(tmp_path: Path) -> None:
    small_network(tmp_path / "a.xnor", "a", (12, 10, 1), CLASSES)
    accelerator = {"kind": "cpu", "instances": 1, "threads": 1, "idle_watts": 5, "busy_watts": 50}
    nowhere = {"powercap_root": str(tmp_path / "none"), "hwmon_root": str(tmp_path / "none"), "pci_root": str(tmp_path / "none")}
    with daemon(tmp_path, [{"path": str(tmp_path / "a.xnor")}], accelerators=[accelerator], power={"sample_ms": 10, **nowhere}) as running:
        url = f"http://127.0.0.1:{running.port}"
        told = good_json("bench", "--url", url, "--seconds", 0.5, "--warmup", 0)
        (energy,) = told["server"]["energy"]
        assert energy["source"] == "estimate" and energy["joules"] > 0
        assert energy["joules_per_inference"] == pytest.approx(energy["joules"] / told["server"]["inferences"])
        assert 0 < energy["active_joules_per_inference"] < energy["joules_per_inference"]
        assert re.search(r"an inference, .* of them over idle .*declared, not measured", good("bench", "--url", url, "--seconds", 0.2, "--warmup", 0))
        text = good("infer", "--url", url, "-", stdin=bytes(120))
        assert "ENERGY" in text and "~" in text and "an estimate" in text
        told = good_json("status", "--url", url)
        assert told["energy"][0]["source"] == "estimate" and told["energy"][0]["joules_per_inference"] > told["energy"][0]["active_joules_per_inference"] > 0
        (power,) = (p for p in told["power"] if p["source"] == "estimate")
        assert power["domain"] == "cpu" and 5 <= power["watts"] <= 50
        text = good("status", "--url", url)
        assert re.search(r"power of cpu: ~[\d.]+ W \(estimate", text) and "not known" not in text


def test_energy_of_a_sensor(tmp_path: Path) -> None:
    """The INA260 of a KV260, as files."""
    small_network(tmp_path / "a.xnor", "a", (12, 10, 1), CLASSES)
    roots = {"hwmon_root": str(ROOT / "tests/fixtures/power/kv260/hwmon"), "powercap_root": str(tmp_path / "none"), "pci_root": str(tmp_path / "none")}
    with daemon(tmp_path, [{"path": str(tmp_path / "a.xnor")}], power={"sample_ms": 10, **roots}) as running:
        url = f"http://127.0.0.1:{running.port}"
        told = good_json("bench", "--url", url, "--seconds", 0.5, "--warmup", 0)
        assert [e["source"] for e in told["server"]["energy"]] == ["sensor"] and told["server"]["energy"][0]["joules_per_inference"] > 0
        (board,) = told["server"]["energy_of_domains"]
        assert board["domain"] == "board" and board["source"] == "hwmon" and board["joules"] > 0
        result = good_json("infer", "--url", url, "-", stdin=bytes(120))["results"][0]
        assert result["energy_source"] == "sensor" and result["energy_j"] > 0
        text = good("status", "--url", url)
        assert re.search(r"power of board: [\d.]+ W \(ina260", text) and "~" not in text


# ---- strange servers ----------------------------------------------------------------------------------------------------------------------------

STATUS = {"models": [{"name": "m", "default": True, "input_shape": [2, 2, 1], "classes": 2}], "instances": []}
BODY = b'{"results":[{"class":0}]}'
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n" + BODY[:5] + b"\r\n%x\r\n" % len(BODY[5:]) + BODY[5:] + b"\r\n0\r\n\r\n"

Answer = Callable[[socket.socket], bool]  # sends an answer; False: close


class Strange:
    """A server of one kind of answer to POST; GETs get what xnorctl needs to know."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.posts = 0
        self.open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                self.open.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection, connection.makefile("rb") as lines:
            while line := lines.readline():
                length = 0
                method, path, _ = line.decode().split()
                while (header := lines.readline().strip()) != b"":
                    name, _, value = header.partition(b":")
                    length = int(value) if name.lower() == b"content-length" else length
                lines.read(length)
                if method == "GET":
                    body = json.dumps(STATUS).encode() if path == "/v1/status" else b"up 1\n"
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                    continue
                self.posts += 1
                if not self.answer(connection):
                    return

    def close(self) -> None:
        """Be gone: nobody listens, and connections end."""
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for connection in self.open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def strange(answer: Answer) -> Iterator[Strange]:
    server = Strange(answer)
    try:
        yield server
    finally:
        with contextlib.suppress(OSError):
            server.close()


def send(*pieces: bytes, go_on: bool = True) -> Answer:
    def answer(connection: socket.socket) -> bool:
        for piece in pieces:
            connection.sendall(piece)
        return go_on

    return answer


@pytest.mark.parametrize("name,answer", [
    ("plain", send(PLAIN)),
    ("chunked", send(CHUNKED)),
    ("byte by byte", send(*(CHUNKED[i:i + 1] for i in range(len(CHUNKED))))),
    ("continue first", send(b"HTTP/1.1 100 Continue\r\n\r\n", PLAIN)),
    ("close after each", send(PLAIN.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n"), go_on=False)),
    ("until the end", send(b"HTTP/1.1 200 OK\r\n\r\n" + BODY, go_on=False)),
])
def test_bench_reads_every_kind_of_answer(name: str, answer: Answer) -> None:
    with strange(answer) as server:
        told = good_json("bench", "--url", server.url, "--count", 12, "--concurrency", 3)
        assert told["ok"] == 12 and told["errors"] == {} and server.posts == 12, name


@pytest.mark.parametrize("kind,answer", [
    ("connection", send(b"", go_on=False)),
    ("connection", send(PLAIN[:-3], go_on=False)),
    ("not_http", send(b"220 mail.example ESMTP\r\n")),
    ("not_http", send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n")),
    ("503", send(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")),
])
def test_bench_counts_every_kind_of_failure(kind: str, answer: Answer) -> None:
    with strange(answer) as server:
        done = ctl("bench", "--url", server.url, "--count", 6, "--concurrency", 2, "--json")
        assert json.loads(done.stdout)["errors"] == {kind: 6} and done.returncode == 1, done.stderr
        assert server.posts == 6


def test_bench_tells_refusals_and_late_answers_from_the_others() -> None:
    """Of four requests one is answered in time, one too late, one refused, and one fails without a word of when to come again."""
    lock, seen = threading.Lock(), {"n": 0}

    def answer(connection: socket.socket) -> bool:
        with lock:
            turn, seen["n"] = seen["n"] % 4, seen["n"] + 1
        if turn == 1:
            time.sleep(0.25)
        more = {2: b"Retry-After: 1\r\n", 3: b""}.get(turn)
        return send(PLAIN)(connection) if more is None else send(b"HTTP/1.1 503 No\r\n" + more + b"Content-Length: 0\r\n\r\n")(connection)

    with strange(answer) as server:
        told = good_json("bench", "--url", server.url, "--count", 12, "--concurrency", 1, "--timeout-ms", 200)
        assert (told["ok"], told["in_time"], told["in_time_sent"], told["refused"], told["errors"]) == (6, 3, 3, 3, {"503": 6})
        assert told["latency_us"]["max"] >= 250e3 > 200e3 > told["refusal_sent_us"]["max"]
        text = good("bench", "--url", server.url, "--count", 12, "--concurrency", 1, "--timeout-ms", 200)
        assert "answers/s within 200 ms: 50.000 % of those answered, 25.000 % of all" in text and "\nrefusals" in text


def test_bench_comes_from_where_it_is_told(served: Served) -> None:
    assert good_json("bench", "--url", served.url, "--count", 4, "--source", "127.0.0.9")["ok"] == 4
    assert "source nowhere" in bad(1, "bench", "--url", served.url, "--count", 4, "--source", "nowhere")


def test_bench_gives_up_what_takes_too_long() -> None:
    with strange(lambda connection: True) as server:
        told = json.loads(ctl("bench", "--url", server.url, "--count", 4, "--concurrency", 2, "--timeout", 0.2, "--json").stdout)
        assert told["errors"] == {"timeout": 4}


def test_latency_counts_from_when_a_request_was_due() -> None:
    """One stall, and one connection: all that was due meanwhile has waited, and is seen to have."""
    stall_s, rate = 1.0, 100
    stalled = threading.Event()

    def answer(connection: socket.socket) -> bool:
        if not stalled.is_set():
            stalled.set()
            time.sleep(stall_s)
        return send(PLAIN)(connection)

    with strange(answer) as server:
        told = good_json("bench", "--url", server.url, "--rate", rate, "--arrivals", "uniform", "--connections", 1, "--count", 2 * rate)
    # Half of the requests were due in the stall; the k-th of them waited at least (1 - k/100) s. From the send they all but one took no time.
    assert told["ok"] == 2 * rate
    assert told["latency_us"]["max"] >= 1e6 * stall_s
    assert told["latency_us"]["mean"] >= 1e6 * stall_s / 4 * 0.95
    assert told["latency_us"]["p90"] >= 1e6 * stall_s * 0.75
    assert told["send_delay_us"]["p90"] >= 1e6 * stall_s * 0.75


def test_what_could_not_be_sent_is_counted() -> None:
    with strange(lambda connection: True) as server:
        arguments = ["--rate", 50, "--arrivals", "uniform", "--seconds", 1, "--connections", 1, "--warmup", 0, "--timeout", 0.3, "--json"]
        told = json.loads(ctl("bench", "--url", server.url, *arguments).stdout)
    assert told["requests"] == 50 and told["ok"] == 0
    assert told["errors"]["unsent"] + told["errors"]["timeout"] == 50 and told["errors"]["unsent"] > 25


def test_a_server_that_goes_away_ends_the_bench() -> None:
    server: Strange

    def answer(connection: socket.socket) -> bool:
        if server.posts > 20:
            server.close()
            return False
        return send(PLAIN)(connection)

    with strange(answer) as server:
        assert "has the server stopped?" in bad(1, "bench", "--url", server.url, "--seconds", 4 * PATIENCE_S, "--concurrency", 2)


def test_eval_tries_again_where_there_was_no_room(tmp_path: Path) -> None:
    """Every image is refused twice, and then answered."""
    lock, seen = threading.Lock(), {"n": 0}
    label = b'{"results":[{"class":0,"label":"a","top":[{"class":0,"label":"a"},{"class":1,"label":"b"}]}]}'

    def answer(connection: socket.socket) -> bool:
        with lock:
            seen["n"] += 1
            room = seen["n"] == 1 or seen["n"] % 3 == 0  # the first one asks for the labels
        if not room:
            return send(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")(connection)
        return send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(label) + label)(connection)

    make = {"a": 4, "b": 2}
    for name, n in make.items():
        (tmp_path / name).mkdir()
        for i in range(n):
            (tmp_path / name / str(i)).write_bytes(b"anything")
    with strange(answer) as server:
        told = good_json("eval", tmp_path, "--url", server.url, "--concurrency", 2)
    assert told["confusion"] == [[4, 0], [2, 0]] and not told["failures"]
    assert seen["n"] > 1 + 6


# ---- the demonstration --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not SHIPPED.exists(), reason="the shipped network is not there")
def test_demo() -> None:
    environment = {**os.environ, "BUILD": str(XNORD.parent), "KEEP": "", "SECONDS_OF_LOAD": "0.3"}
    done = subprocess.run([ROOT / "packaging/demo"], capture_output=True, text=True, timeout=4 * PATIENCE_S, env=environment, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout + done.stderr
    for sample in ("Dress", "Ankle boot", "requests/s", "xnord_inferences_total", "in service", "Stopped."):
        assert sample in done.stdout


@pytest.mark.skipif(not SHIPPED.exists(), reason="the shipped network is not there")
def test_demo_says_that_its_port_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        environment = {**os.environ, "BUILD": str(XNORD.parent), "KEEP": "1", "PORT": str(taken.getsockname()[1])}
        done = subprocess.run([ROOT / "packaging/demo"], capture_output=True, text=True, timeout=PATIENCE_S, env=environment, stdin=subprocess.DEVNULL)
    assert done.returncode == 1 and "is port" in done.stderr and "cannot listen" in done.stderr


@needs_cards
@pytest.mark.skipif(not (XNORD.parent / "libxnor-sim-hls-2t.so").exists(), reason="the engine's C simulation is not built: make vcard")
def test_demo_on_a_virtual_card(tmp_path: Path) -> None:
    """KEEP=1: the card stays with the server, and goes with it."""
    environment = {**os.environ, "BUILD": str(XNORD.parent), "ACCEL": "vcard", "KEEP": "1", "PORT": "0", "SECONDS_OF_LOAD": "0.3", "TMPDIR": str(tmp_path)}
    done = subprocess.run([ROOT / "packaging/demo"], capture_output=True, text=True, timeout=4 * PATIENCE_S, env=environment, stdin=subprocess.DEVNULL)
    kept = re.search(r"kill (\d+)$", done.stdout, re.M)
    assert done.returncode == 0 and kept, done.stdout + done.stderr
    for said in ("There is no hardware in this", "Dress", "speed of the simulation", "xrt0.0"):
        assert said in done.stdout
    url = re.search(r"goes on at (\S+)", done.stdout)[1]
    sample = ROOT / "models/fashion-mnist/samples/08-bag.png"
    try:
        told = subprocess.run([XNORCTL, "infer", "--url", url, sample], capture_output=True, text=True, timeout=PATIENCE_S)
        assert told.returncode == 0 and "Bag" in told.stdout and "xrt0.0" in told.stdout, told.stdout + told.stderr
    finally:
        process = os.pidfd_open(int(kept[1]))
        signal.pidfd_send_signal(process, signal.SIGTERM)
    assert select.select([process], [], [], PATIENCE_S)[0], "it does not end"
