# SPDX-License-Identifier: Apache-2.0
"""The module as a program; the examples of docs/python.md."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from client_support import PACKAGE, PATIENCE_S, ROOT, answer, fake

import xnord
from http_support import XNORD, Daemon, daemon

SAMPLES = ROOT / "models/fashion-mnist/samples"
DRESS = str(SAMPLES / "03-dress.png")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with daemon(tmp_path_factory.mktemp("module"), [{"path": str(ROOT / "models/fashion-mnist/fashion-mnist.xnor")}]) as running:
        yield running


def program(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("XNORD_")}
    return subprocess.run([sys.executable, "-m", "xnord", *words], capture_output=True, text=True, timeout=PATIENCE_S, cwd=ROOT,
                          env={**environment, "PYTHONPATH": str(PACKAGE), **variables})


def url_of(server: Daemon) -> str:
    return f"http://127.0.0.1:{server.port}"


# ---- python3 -m xnord ---------------------------------------------------------------------------------------------------------------------------


def test_program(server: Daemon) -> None:
    """A line a file; what fails is said and costs the others nothing."""
    done = program(DRESS, str(SAMPLES / "08-bag.png"), "--url", url_of(server))
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert done.returncode == 0 and not done.stderr
    assert [line[:3] for line in lines] == [[DRESS, "3", "Dress"], [str(SAMPLES / "08-bag.png"), "8", "Bag"]] and all(0.1 < float(line[3]) <= 1 for line in lines)
    partly = program("nowhere.png", DRESS, str(ROOT / "README.md"), XNORD_URL=url_of(server))
    assert partly.returncode == 1 and partly.stdout == done.stdout.splitlines(keepends=True)[0]
    assert re.fullmatch(r"xnord: nowhere.png: .*No such file.*\nxnord: .*README.md: 400 Bad Request: .*\n", partly.stderr)
    three = program("-k", "3", "-m", "fashion-mnist", "-t", "60000", DRESS, "-u", url_of(server)).stdout.splitlines()
    assert len(three) == 3 and three[0] == done.stdout.splitlines()[0]


def test_program_json(server: Daemon) -> None:
    """The entries of `xnorctl infer --json` have other names for the same: which of them are the same is compared."""
    done = program("--json", DRESS, "nowhere.png", "--url", url_of(server))
    told = json.loads(done.stdout)
    assert done.returncode == 1 and [failure["file"] for failure in told["failures"]] == ["nowhere.png"]
    other = subprocess.run([str(XNORD.parent / "xnorctl"), "infer", "--json", "--url", url_of(server), DRESS], capture_output=True, text=True, timeout=PATIENCE_S)
    theirs, = json.loads(other.stdout)["results"]
    ours, = told["results"]
    assert (ours["file"], ours["index"], ours["label"], ours["score"]) == (theirs["file"], theirs["class"], theirs["label"], theirs["score"])


@pytest.mark.parametrize("words", [(), ("--nothing", DRESS), ("--url", "gateway", DRESS), ("--top-k", "many", DRESS)])
def test_program_used_wrongly(words: tuple[str, ...]) -> None:
    done = program(*words)
    assert done.returncode == 2 and done.stderr and not done.stdout


def test_program_says_what_it_is() -> None:
    assert program("--version").stdout == f"xnord {xnord.__version__}\n"
    told = program("--help")
    assert told.returncode == 0 and "Exit status: 0 all classified, 1 some were not, 2 wrong command line." in " ".join(told.stdout.split())


def test_program_sends_a_token(tmp_path: Path) -> None:
    with fake(lambda request: answer()) as other:
        (tmp_path / "token").write_text("of-a-file\n")
        assert program(DRESS, "--url", other.url, "--token-file", str(tmp_path / "token")).returncode == 0
        assert program(DRESS, "--url", other.url, XNORD_TOKEN="of-the-environment").returncode == 0
        assert program(DRESS, "--url", other.url).returncode == 0
        assert [re.findall(r"Authorization: (.*)\r\n", request.head) for request in other.requests] == [["Bearer of-a-file"], ["Bearer of-the-environment"], []]
        assert program(DRESS, "--url", other.url, "--token-file", str(tmp_path / "none")).returncode == 1


# ---- documentation ------------------------------------------------------------------------------------------------------------------------------


def test_examples_of_the_documentation(server: Daemon, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """One after another, as they stand, against a server at another port."""
    import xnord.client

    monkeypatch.chdir(ROOT)
    real = xnord.Client

    def here(url: str = "http://127.0.0.1:8000", **named: Any) -> xnord.Client:
        assert url == "http://127.0.0.1:8000"
        return real(url_of(server), **named)

    monkeypatch.setattr(xnord, "Client", here)
    examples = re.findall(r"```python\n(.*?)```", (ROOT / "docs/python.md").read_text() + (ROOT / "README.md").read_text(), re.S)
    assert len(examples) >= 6
    names: dict[str, Any] = {}
    for example in examples:
        exec(compile(example, "docs/python.md", "exec"), names)
    told = capsys.readouterr().out
    assert told.startswith("Dress 0.") and "03-dress.png Dress\n" in told and "README.md 400 " in told and told.count("Result(") == 2
