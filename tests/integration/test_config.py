# SPDX-License-Identifier: Apache-2.0
"""The configuration as the daemon's table has it, as the JSON Schema says, and as the man page explains: one set of keys, types, ranges and defaults, and one
verdict on the same files."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

ROOT = Path(__file__).resolve().parents[2]
XNORD = Path(os.environ.get("XN_BUILD", ROOT / "build/release")) / "xnord"
SCHEMA: dict[str, Any] = json.loads((ROOT / "config/xnord.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)

MODEL = {"path": "m.xnor"}
BASE: dict[str, Any] = {"models": [MODEL]}


def xnord(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(XNORD), *arguments], capture_output=True, text=True, timeout=60)


def check(tmp_path: Path, text: str) -> tuple[bool, str]:
    """The daemon's verdict, and what it said."""
    path = tmp_path / "xnord.json"
    path.write_text(text)
    done = xnord("--check-config", "--config", str(path))
    assert done.returncode in (0, 1), done.stderr
    return done.returncode == 0, done.stdout + done.stderr


def assert_same_verdict(tmp_path: Path, document: Any) -> None:
    wanted = VALIDATOR.is_valid(document)
    good, said = check(tmp_path, json.dumps(document))
    assert good == wanted, f"{json.dumps(document)}: the schema says {wanted}, the daemon {said}"


def schema_keys(node: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, dict[str, Any], bool]]:
    """(key, its schema, required) of everything below `node`, spelled as --print-config-keys does."""
    for name, entry in node["properties"].items():
        key = f"{prefix}{name}"
        yield key, entry, name in node.get("required", [])
        if entry["type"] == "object":
            yield from schema_keys(entry, f"{key}.")
        elif entry["type"] == "array":
            yield from schema_keys(entry["items"], f"{key}[].")


def table() -> dict[str, dict[str, Any]]:
    return {entry["key"]: entry for entry in json.loads(xnord("--print-config-keys").stdout)}


def test_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_schema_has_the_tables_keys() -> None:
    keys = table()
    from_schema = {key: (entry, required) for key, entry, required in schema_keys(SCHEMA)}
    assert set(from_schema) == set(keys)
    for key, (entry, required) in from_schema.items():
        row = keys[key]
        low, high = ("minItems", "maxItems") if row["type"] == "array" else ("minimum", "maximum")
        assert entry["type"] == row["type"], key
        assert entry["description"] == row["help"], key
        assert required == row["required"], key
        assert entry.get("default") == row.get("default"), key
        assert entry.get("enum") == row.get("choices"), key
        assert entry.get(low, 0 if low == "minItems" and high in entry else None) == row.get("minimum"), key
        assert entry.get(high) == row.get("maximum"), key


def man_page_keys() -> dict[str, str]:
    """Key -> what its heading says in brackets."""
    keys: dict[str, str] = {}
    section = ""
    for line in (ROOT / "docs/man/xnord.json.5").read_text().splitlines():
        if heading := re.match(r"\.Ss (\S+)", line):
            section = "" if heading[1] == "Root" else heading[1]
        elif item := re.match(r"\.It Cm (\w+) No \((.*)\)", line):
            keys[f"{section}.{item[1]}".lstrip(".")] = item[2]
        elif line.startswith(".Sh"):
            section = line
    return keys


def test_man_page_has_the_tables_keys() -> None:
    described = man_page_keys()
    rows = {key.replace("[]", ""): row for key, row in table().items() if row["type"] not in ("array", "object")}
    assert set(described) == set(rows)
    for key, row in rows.items():
        says = described[key]
        assert ("required" in says) == row["required"], key
        if row["type"] == "string":
            assert says.startswith("string"), key
        else:
            assert says.startswith(f"{row['minimum']}..{row['maximum']}"), key
        if row["default"] is not None:
            assert re.search(rf"default (Dq )?{re.escape(str(row['default']))}( |$)", says), key


def test_shipped_configuration() -> None:
    path = ROOT / "config/xnord.json"
    VALIDATOR.validate(json.loads(path.read_text()))
    done = xnord("--check-config", "--config", str(path))
    assert done.returncode == 0 and "good" in done.stdout, done.stderr


def put(document: Any, key: str, value: Any) -> Any:
    """`document` with `value` at `key`, making what is missing on the way (with what is required beside it)."""
    document = copy.deepcopy(document)
    node = document
    steps = key.split(".")
    for step in steps[:-1]:
        if step.endswith("[]"):
            fresh = {"models": MODEL, "accelerators": {"kind": "cpu"}, "sensors": {"kind": "rapl"}, "listen": {}}[step[:-2]]
            node = node.setdefault(step[:-2], [copy.deepcopy(fresh)])[0]
        else:
            node = node.setdefault(step, {})
    if steps[0] == "limits":  # what the daemon alone knows: buffers must hold a body
        node.update(body_bytes=1024, buffer_bytes=1 << 36)
    if steps[-1] in ("idle_watts", "busy_watts"):
        node.update(idle_watts=0, busy_watts=100000)
    node[steps[-1]] = value
    return document


def candidates(entry: dict[str, Any]) -> list[Any]:
    """Values in and out of what a key may be."""
    values: list[Any] = [None, True, [], {}, "", "text", -1, 0, 1, 1.5, 3.0]
    for bound in ("minimum", "maximum"):
        if bound in entry:
            values += [entry[bound] - 1, entry[bound], entry[bound] + 1]
    return values + entry.get("enum", []) + ([entry["default"]] if "default" in entry else [])


@pytest.mark.parametrize("key", [key for key, entry, _ in schema_keys(SCHEMA) if entry["type"] not in ("array", "object")])
def test_same_verdict_on_values(tmp_path: Path, key: str) -> None:
    entry = next(e for k, e, _ in schema_keys(SCHEMA) if k == key)
    for value in candidates(entry):
        if key == "listen[].address" and value == "text":
            continue  # a schema cannot tell an address
        assert_same_verdict(tmp_path, put(BASE, key, value))


@pytest.mark.parametrize("key", [key for key, entry, _ in schema_keys(SCHEMA) if entry["type"] in ("array", "object")])
def test_same_verdict_on_sections(tmp_path: Path, key: str) -> None:
    entry = next(e for k, e, _ in schema_keys(SCHEMA) if k == key)
    for value in (None, 1, "text", [], {}, [{}], [1], {"wallpaper": 1}):
        if key == "models" and value == []:
            continue  # legal, with --model on the command line
        assert_same_verdict(tmp_path, put(BASE, key, value))
    if entry["type"] == "array":
        fresh = {"listen": {"port": 0}, "models": MODEL, "accelerators": {"kind": "cpu"}, "power.sensors": {"kind": "rapl"}}[key]
        for n in (entry["maxItems"], entry["maxItems"] + 1):
            assert_same_verdict(tmp_path, put(BASE, key, [fresh] * n))


@pytest.mark.parametrize("document", [
    [], 1, "text", None, {**BASE, "wallpaper": 1}, {**BASE, "power.sensors": []}, {"models": [{}]}, {"models": [{"path": "a", "x": 1}]},
    {**BASE, "accelerators": [{}]}, {**BASE, "accelerators": [{"kind": "cpu", "idle_watts": 1}]},
    {**BASE, "accelerators": [{"kind": "cpu", "idle_watts": 1, "busy_watts": 2.5}]}, {**BASE, "models": [{"path": "a", "name": "a b"}]},
    {**BASE, "models": [{"path": "a", "name": ".a"}]}, {**BASE, "models": [{"path": "a", "name": "a" * 63}]},
    {**BASE, "models": [{"path": "a", "name": "a" * 64}]}, {"models": [{"path": "a" * 4095}]}, {"models": [{"path": "a" * 4096}]},
    {**BASE, "listen": [{"address": "::1", "port": 1}, {"address": "127.0.0.1"}]},
    {**BASE, "listen": [{"certificate": "c", "key": "k", "name": "xnord.socket"}, {"unix": "s", "mode": "0600"}]}, {**BASE, "listen": [{"key": "k"}]},
], ids=lambda d: json.dumps(d)[:60])
def test_same_verdict(tmp_path: Path, document: Any) -> None:
    assert_same_verdict(tmp_path, document)


@pytest.mark.parametrize(("document", "message"), [
    ({"models": [{"path": "a", "name": "x"}, {"path": "b", "name": "x"}]}, "models[1].name: must differ from models[0].name"),
    ({**BASE, "listen": [{"unix": "a"}, {"unix": "a"}]}, "listen[1]: is the same as listen[0]"),
    ({"models": [{"path": "a", "name": "x"}], "default_model": "y"}, "default_model: must be the name of one of the models"),
    ({**BASE, "listen": [{"address": "localhost"}]}, "listen[0].address: must be an IPv4 or IPv6 address"),
    ({**BASE, "listen": [{}, {}]}, "listen[1]: is the same as listen[0]"),
    ({**BASE, "limits": {"buffer_bytes": 1 << 20}}, "limits.buffer_bytes: must be at least limits.body_bytes"),
    ({**BASE, "accelerators": [{"kind": "cpu", "idle_watts": 3, "busy_watts": 2}]}, "must be at least idle_watts"),
])
def test_what_only_the_daemon_can_tell(tmp_path: Path, document: Any, message: str) -> None:
    assert VALIDATOR.is_valid(document)
    good, said = check(tmp_path, json.dumps(document))
    assert not good and message in said


@pytest.mark.parametrize(("text", "message"), [
    ('{\n"models": [\n{"path": "m",\n"max_batch": 0}]}', 'xnord.json:4: key models[0].max_batch: must be 1..1024, is 0'),
    ('{\n"modles": []}', 'xnord.json:2: key modles: there is no such key; did you mean "models"?'),
    ('{"http": {"threads": 1,\n"threads": 2}}', 'xnord.json:2: duplicate object key near'),
    ('{"models": [{"path": "m"}],}', "xnord.json:1: "),
    ("[" * 100, "nest deeper than 8"),
    (" " * (1 << 20) + "{}", "more than 1048576 bytes"),
], ids=["range", "unknown", "twice", "comma", "depth", "size"])
def test_messages(tmp_path: Path, text: str, message: str) -> None:
    good, said = check(tmp_path, text)
    assert not good and message in said


def test_missing_file(tmp_path: Path) -> None:
    done = xnord("--check-config", "--config", str(tmp_path / "absent.json"))
    assert done.returncode == 1 and "absent.json: No such file or directory" in done.stderr
