# SPDX-License-Identifier: Apache-2.0
"""docs/openapi.json: it describes the routes, methods and roles that daemon/http/routes.c has, and the statuses of daemon/http/status.c; its examples are valid;
and what a running daemon answers is as it says. tests/interop/test_schemathesis.py sends what it allows and what it forbids."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from http_support import ROOT, Daemon, daemon, images, png, small_network

TEXT = (ROOT / "docs/openapi.json").read_text()
DOCUMENT: dict[str, Any] = json.loads(TEXT)
ROUTES = (ROOT / "daemon/http/routes.c").read_text()
# {"/path", KIND, ROUTE, roles, page, handler}
ROW = re.compile(r'\{"(/[^"]*)",\s*(\w+),\s*\w+,\s*(\w+),\s*(\w+),\s*(\w+)\}')
OPERATIONS = [(path, method, operation) for path, item in DOCUMENT["paths"].items() for method, operation in item.items()]
ROLES = {"XN_ROLE_ANYONE": None, "XN_ROLE_ANY": {"infer", "read"}, "XN_ROLE_INFER": {"infer"}, "XN_ROLE_READ": {"read"}, "XN_ROLE_ADMIN": set()}


def resolve(node: Any) -> Any:
    while "$ref" in node:
        target: Any = DOCUMENT
        for key in node["$ref"].removeprefix("#/").split("/"):
            target = target[key]
        node = target
    return node


def check(schema: Any, value: Any) -> None:
    """`value` is as `schema` says, whose references are into the document."""
    jsonschema.Draft202012Validator({**schema, "components": DOCUMENT["components"]}).validate(value)


def served() -> dict[tuple[str, str], set[str] | None]:
    """Path without names of parameters, and method, to the roles of which one is enough; None: no token is asked for."""
    found: dict[tuple[str, str], set[str] | None] = {}
    for path, kind, roles, page, handler in ROW.findall(ROUTES):
        if page != "NULL":
            found[path, "get"] = found[path, "head"] = ROLES[roles]
        if handler != "NULL" or kind == "INFER":
            found[path, "post"] = ROLES["XN_ROLE_ADMIN" if page != "NULL" else roles]
    assert len(found) >= 40
    return found


def test_every_route_is_there_and_no_other() -> None:
    described = {(re.sub(r"\{[\w-]+\}", "{}", path), method): None if operation.get("security") == [] else set(operation["x-roles"])
                 for path, method, operation in OPERATIONS}
    assert described == served()


def test_every_status_is_there_and_no_other() -> None:
    there = {code for code in re.findall(r"\{(\d{3}), XN_REJECT_\w+,", (ROOT / "daemon/http/status.c").read_text())} | {"200", "500"}
    described = {status for _, _, operation in OPERATIONS for status in operation["responses"]} | {"405"}  # 405 is the answer to what is not described
    assert described == there


def test_every_reference_and_component_is_used() -> None:
    used = set(re.findall(r'"\$ref": "#/components/(\w+)/([\w-]+)"', TEXT))
    there = {(kind, name) for kind, group in DOCUMENT["components"].items() for name in group if kind != "securitySchemes"}
    assert used == there
    identifiers = [operation["operationId"] for _, _, operation in OPERATIONS]
    assert len(set(identifiers)) == len(identifiers)
    assert DOCUMENT["info"]["version"] == (ROOT / "VERSION").read_text().strip()


@pytest.mark.parametrize("path,method,operation", OPERATIONS, ids=[f"{method} {path}" for path, method, _ in OPERATIONS])
def test_operation_is_whole(path: str, method: str, operation: dict[str, Any]) -> None:
    parameters = [resolve(p) for p in operation.get("parameters", [])]
    assert {p["name"] for p in parameters if p["in"] == "path"} == set(re.findall(r"\{([\w-]+)\}", path))
    bodies = list(operation.get("requestBody", {}).get("content", {}).values())
    for response in map(resolve, operation["responses"].values()):
        assert response["description"]
        bodies += response.get("content", {}).values()
    for body in bodies:
        jsonschema.Draft202012Validator.check_schema(body["schema"])
        if "example" in body:
            check(body["schema"], body["example"])
    for parameter in parameters:
        if "example" in parameter:
            check(parameter["schema"], parameter["example"])


def test_roles_are_what_tokens_open(tmp_path: Path) -> None:
    roles = ("infer", "read", "admin")
    tokens = tmp_path / "tokens"
    tokens.write_text("".join(f"{role} {role} {hashlib.sha256(role.encode()).hexdigest()}\n" for role in roles))
    tokens.chmod(0o600)
    small_network(tmp_path / "net.xnor", "gray", (28, 28, 1), 10)
    with daemon(tmp_path, [{"path": str(tmp_path / "net.xnor")}], tokens=str(tokens)) as server:
        for path, method, operation in OPERATIONS:
            url = path.format(model="gray", version="3", name="nothing")
            body = b"" if method == "post" else None
            answer = server.request(method.upper(), url, body)
            if operation.get("security") == []:
                assert answer.status == 200, url
                continue
            assert answer.status == 401 and answer.headers["www-authenticate"], url
            for role in roles:
                allowed = server.request(method.upper(), url, body, {"Authorization": f"Bearer {role}"}).status
                # repository.control is another 403, which "admin" meets where it gets past the token
                assert (allowed != 403) == (role in operation["x-roles"] or role == "admin") or (role == "admin" and operation["x-roles"] == []), (url, role)


# ---- a running daemon -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("openapi")
    net = small_network(folder / "net.xnor", "gray", (28, 28, 1), 10, image=True)
    with daemon(folder, [{"path": str(folder / "net.xnor")}], repository={"control": "explicit"}) as running:
        assert running.post("/infer?top_k=2", png(images(net, 1)[0])).status == 200
        yield running


def check_answer(operation: dict[str, Any], answer: Any) -> None:
    described = resolve(operation["responses"][str(answer.status)])
    content = described.get("content")
    if not content:
        assert answer.body == b""
        return
    kind = answer.headers["content-type"]
    assert kind in content, kind
    if kind == "application/json":
        check(content[kind]["schema"], answer.json())


@pytest.mark.parametrize("path", [path for path, method, _ in OPERATIONS if method == "get"])
@pytest.mark.parametrize("model", ["gray", "nobody"])
def test_pages_answer_as_described(server: Daemon, path: str, model: str) -> None:
    answer = server.get(path.format(model=model, version="3", name="nothing"))
    check_answer(DOCUMENT["paths"][path]["get"], answer)
    head = server.request("HEAD", path.format(model=model, version="3", name="nothing"))
    assert (head.status, head.body) == (answer.status, b"")


def test_inference_answers_as_described(server: Daemon) -> None:
    tensor = bytes(784)
    for query in ("", "?top_k=3", "?top_k=0", "?model=nobody"):
        check_answer(DOCUMENT["paths"]["/infer"]["post"], server.post(f"/infer{query}", tensor))
    path = "/v2/models/{model}/infer"
    asked = {"inputs": [{"name": "pixels", "shape": [1, 28, 28, 1], "datatype": "UINT8", "data": [0] * 784}]}
    check(DOCUMENT["components"]["schemas"]["InferenceRequest"], asked)
    for body in (asked, {**asked, "id": "x", "outputs": [{"name": "logits", "parameters": {"classification": 2}}]}, {"inputs": []}):
        check_answer(DOCUMENT["paths"][path]["post"], server.post("/v2/models/gray/infer", json.dumps(body).encode()))


def test_what_changes_the_server_answers_as_described(server: Daemon) -> None:
    for path, method, operation in OPERATIONS:
        if method == "post" and "infer" not in path:
            content = operation["requestBody"]["content"]["application/json"]
            check_answer(operation, server.post(path.format(model="gray", name="nothing"), json.dumps(content["example"]).encode()))
            check_answer(operation, server.post(path.format(model="nobody", name="nothing"), b"[" * 100))
