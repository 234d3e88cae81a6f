# SPDX-License-Identifier: Apache-2.0
"""docs/http-api.md is run: every example against a live daemon, its answer compared in shape with the one shown, and every table of the document
with what is there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from http_support import ROOT, Daemon, daemon, parse_answer, small_network

DOCUMENT = (ROOT / "docs/http-api.md").read_text()
LABELS = ["t-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"]
# A sh block, and the block right after it that shows its last answer.
EXAMPLES = re.findall(r"```sh\n(.*?)```\n(?:\n```(json|http)\n(.*?)```)?", DOCUMENT, re.S)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("document")
    (path / "models").symlink_to(ROOT / "models")
    return path


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Daemon]:
    net = small_network(folder / "net.xnor", "fashion-mnist", (28, 28, 1), 10, image=True)
    net.metadata = {**net.metadata, "version": "1", "labels": LABELS, "input": {**net.metadata["input"], "name": "image"}}
    net.save(folder / "net.xnor")
    (folder / "repository").mkdir()
    (folder / "repository/gate.xnor").write_bytes((folder / "net.xnor").read_bytes()[:1000])
    repository = {"path": str(folder / "repository"), "control": "explicit"}
    with daemon(folder, [{"path": str(folder / "net.xnor")}], repository=repository) as running:
        yield running


def shape(value: Any) -> Any:
    """What must be the same of an answer: members, lengths and types, not values."""
    if isinstance(value, dict):
        return {key: shape(member) for key, member in sorted(value.items()) if key not in ("energy_j", "energy_source")}
    if isinstance(value, list):
        return [shape(element) for element in value]
    return "number" if isinstance(value, (int, float)) and not isinstance(value, bool) else type(value).__name__


def run_example(script: str, folder: Path, server: Daemon) -> bytes:
    """The script's output; every command of it must succeed."""
    assert "localhost:8000" in script
    local = re.sub(r"\bcurl\b", "curl -sS", script.replace("localhost:8000", f"127.0.0.1:{server.port}"))
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", local], cwd=folder, capture_output=True, timeout=60)
    assert done.returncode == 0, (script, done.stdout, done.stderr)
    return done.stdout


@pytest.mark.skipif(not (shutil.which("curl") and shutil.which("jq")), reason="curl or jq is not installed")
@pytest.mark.parametrize("script,kind,shown", EXAMPLES, ids=range(len(EXAMPLES)))
def test_example(server: Daemon, folder: Path, script: str, kind: str, shown: str) -> None:
    output = run_example(script, folder, server)
    assert output or "-o " in script
    last = output.strip().split(b"\n")[-1]
    if kind == "json":
        assert shape(json.loads(last)) == shape(json.loads(shown)), last
    elif kind == "http":
        want, got = parse_answer(shown.replace("\n", "\r\n").encode()), parse_answer(output)
        assert want.status == got.status and want.headers.items() <= got.headers.items()
        assert want.json() == got.json()
    else:
        assert b'"error"' not in output


def test_examples_are_found() -> None:
    assert len(EXAMPLES) >= 10 and sum(bool(kind) for _, kind, _ in EXAMPLES) >= 5
    assert len(EXAMPLES) == DOCUMENT.count("```sh")


def test_every_route_is_listed() -> None:
    listed = {re.sub(r"\{\w+\}", "{}", path) for path in re.findall(r"`(/[^` ?]*)`", DOCUMENT.split("\n\nAnother method gets 405")[0])}
    listed |= {"/v2/models/{}/ready", "/v2/models/{}/versions/{}/ready"}  # "each with /ready"
    there = set(re.findall(r'^    \{"(/[^"]*)"', (ROOT / "daemon/http/routes.c").read_text(), re.M))
    assert there - listed == set() and there


def test_every_status_is_listed() -> None:
    there = {(int(code), reason.lower()) for code, reason in
             re.findall(r"\{(\d{3}), XN_REJECT_(\w+),", (ROOT / "daemon/http/status.c").read_text())}
    section = DOCUMENT.split("\n## Statuses\n")[1].split("\n## ")[0]
    listed = {(int(code), reason) for code, reason in re.findall(r"^\| (\d{3})\b.*\| `(\w+)` \|$", section, re.M)}
    assert there == listed


def test_status_page_has_the_members_listed(server: Daemon) -> None:
    text = re.search(r"^`/v1/status` is what(.*)$", DOCUMENT, re.M)
    assert text
    paragraph = DOCUMENT[text.start():].split("\n\n")[0]
    listed = set(re.findall(r"`(\w+)`", paragraph)) - {"xnorctl"}
    page = server.get("/v1/status").json()
    assert listed == page.keys() | page["models"][0].keys() | page["instances"][0].keys()
