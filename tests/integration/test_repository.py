# SPDX-License-Identifier: Apache-2.0
"""The management part of the Open Inference Protocol: model configuration, statistics, settings, and the model repository, whose files and calls change what
is served while requests come in."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import shutil
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from http_support import PATIENCE_S, Answer, Daemon, ask, daemon, expect, images, png, small_network

SHAPE = (12, 10, 1)
CLASSES = 7
SWAPS = 50


class Version:
    """A network, its file, and what it answers to one image."""

    def __init__(self, folder: Path, version: str, seed: int) -> None:
        self.version, self.path = version, folder / f"kept-{version}-{seed}.xnor"
        self.net = small_network(self.path, "net", SHAPE, CLASSES, image=True, seed=seed)
        self.net.metadata = {**self.net.metadata, "version": version}
        self.net.save(self.path)
        self.answer = expect(self.net, INPUT).astype("<i4").tobytes()

    def put(self, path: Path) -> None:
        """As who replaces a file should: written beside it, then renamed."""
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.parent / f".{path.name}.new"
        shutil.copyfile(self.path, new)
        new.rename(path)


class _Shape:
    """What `images` asks of a network."""

    class input:
        h, w, c = SHAPE
        dtype = "uint8"


INPUT = images(_Shape, 1, seed=1)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Version, Version]:
    folder = tmp_path_factory.mktemp("networks")
    one, two = Version(folder, "1", 11), Version(folder, "2", 22)
    assert one.answer != two.answer
    return one, two


@contextlib.contextmanager
def serving(folder: Path, poll_ms: int = 10, models: list[dict[str, Any]] | None = None, **settings: Any) -> Iterator[Daemon]:
    repository = {"path": "repository", "poll_ms": poll_ms, "control": "explicit", **settings}
    (folder / "repository").mkdir(exist_ok=True)
    with daemon(folder, models or [], repository=repository) as running:
        yield running


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.002)  # between two looks; nothing depends on its length


def index(server: Daemon, body: bytes | None = None) -> list[dict[str, str]]:
    answer = server.request("POST", "/v2/repository/index", body)
    assert answer.status == 200
    return answer.json()


def rows(server: Daemon, name: str) -> list[tuple[str, str]]:
    return [(row.get("version", ""), row["state"]) for row in index(server) if row["name"] == name]


def call(server: Daemon, name: str, verb: str, config: Any = None) -> Answer:
    body = json.dumps({"parameters": {"config": json.dumps(config)}}).encode() if config is not None else b""
    return server.post(f"/v2/repository/models/{name}/{verb}", body)


def infer(client: Any, path: str) -> tuple[int, str, bytes]:
    """Status, the version that answered, and its int32 accumulators."""
    answer = ask(client, "POST", f"/v2/models/{path}/infer", INPUT.tobytes(), {"Inference-Header-Content-Length": "0"})
    if answer.status != 200:
        return answer.status, answer.body.decode(), b""
    header = json.loads(answer.body[:int(answer.headers["inference-header-content-length"])])
    return 200, header["model_version"], answer.body[-4 * CLASSES:]


# ---- configuration, statistics, settings ------------------------------------------------------------------------------


def test_configuration_has_what_perf_analyzer_reads(tmp_path: Path, made: tuple[Version, Version]) -> None:
    made[0].put(tmp_path / "repository/m.xnor")
    with serving(tmp_path) as server:
        config = server.get("/v2/models/m/config").json()
        assert config == server.get("/v2/models/m/versions/1/config").json()
        assert config["max_batch_size"] == 32 and "dynamic_batching" in config and "sequence_batching" not in config
        assert [(i["name"], i["data_type"], i["dims"], i["optional"], i["is_shape_tensor"]) for i in config["input"]] == [
            ("pixels", "TYPE_UINT8", list(SHAPE), False, False)]
        assert [(o["name"], o["dims"]) for o in config["output"]] == [("logits", [CLASSES]), ("accumulators", [CLASSES])]
        assert config["model_transaction_policy"]["decoupled"] is False and config["response_cache"]["enable"] is False
        assert json.loads(config["parameters"]["labels"]["string_value"]) == made[0].net.metadata["labels"]
        assert server.get("/v2/models/m/versions/2/config").status == 404 and server.get("/v2/models/n/config").status == 404


def test_statistics(tmp_path: Path, made: tuple[Version, Version]) -> None:
    made[0].put(tmp_path / "repository/m.xnor")
    with serving(tmp_path) as server:
        before = time.time()
        for _ in range(5):
            assert server.post("/infer?model=m", INPUT.tobytes()).status == 200
        assert server.post("/infer?model=m", INPUT.tobytes() * 3).status == 200
        assert server.post("/infer?model=m", png(INPUT[0])).status == 200
        assert server.post("/infer?model=m", b"\x89PNG\r\n\x1a\nbroken").status == 400
        assert server.post("/infer?model=m", b"short").status == 400
        [stats] = server.get("/v2/models/m/stats").json()["model_stats"]
        assert [stats] == server.get("/v2/models/stats").json()["model_stats"] == server.get("/v2/models/m/versions/1/stats").json()["model_stats"]
        assert (stats["name"], stats["version"], stats["inference_count"]) == ("m", "1", 9)
        counts = {name: value["count"] for name, value in stats["inference_stats"].items()}
        assert counts == {"success": 7, "fail": 2, "queue": 7, "compute_input": 7, "compute_infer": 7, "compute_output": 7, "cache_hit": 0, "cache_miss": 0}
        assert all(value["ns"] > 0 for name, value in stats["inference_stats"].items() if not name.startswith("cache"))
        parts = sum(stats["inference_stats"][name]["ns"] for name in ("queue", "compute_input", "compute_infer", "compute_output"))
        assert parts <= stats["inference_stats"]["success"]["ns"]
        assert before - 1 <= stats["last_inference"] / 1000 <= time.time() + 1  # a coarse clock
        assert sum(b["batch_size"] * b["compute_infer"]["count"] for b in stats["batch_stats"]) == 9
        assert sum(b["compute_infer"]["count"] for b in stats["batch_stats"]) == stats["execution_count"]
        assert server.get("/v2/models/n/stats").status == 400 and server.get("/v2/models/m/versions/9/stats").status == 400
        made[1].put(tmp_path / "repository/m.xnor")
        until(lambda: rows(server, "m") == [("2", "READY")], "the new version")
        [stats] = server.get("/v2/models/m/stats").json()["model_stats"]
        assert stats["inference_count"] == stats["last_inference"] == 0 and stats["batch_stats"] == []
        made[0].put(tmp_path / "repository/m.xnor")
        until(lambda: rows(server, "m") == [("1", "READY")], "the old version")
        [stats] = server.get("/v2/models/m/stats").json()["model_stats"]
        assert stats["inference_count"] == 9  # the version's own


def test_settings(tmp_path: Path, made: tuple[Version, Version]) -> None:
    made[0].put(tmp_path / "repository/m.xnor")
    with serving(tmp_path) as server:
        def log(**change: Any) -> Answer:
            return server.post("/v2/logging", json.dumps(change).encode())

        now = server.get("/v2/logging").json()
        assert (now["log_verbose_level"], now["log_info"], now["log_warning"], now["log_error"]) == (0, False, True, True)  # the file says warning
        made[1].put(tmp_path / "repository/m.xnor")
        until(lambda: rows(server, "m") == [("2", "READY")], "the new version")
        assert "INFO" not in server.log.read_text()
        assert log(log_info=True, log_verbose_level=0).json()["log_info"] is True
        made[0].put(tmp_path / "repository/m.xnor")
        until(lambda: rows(server, "m") == [("1", "READY")], "the old version")
        until(lambda: "INFO model m version 1" in server.log.read_text(), "a line of the new level")
        assert log(log_verbose_level=2).json()["log_verbose_level"] == 1
        assert log(log_warning=False).json()["log_info"] is False
        assert log(log_error=True).status == 200 and log(log_error=False).status == 501 and log(log_file="/tmp/x").status == 501
        assert log(log_wallpaper=1).status == 400 and log(log_verbose_level="1").status == 400 and log(log_info=1).status == 400
        for path in ("/v2/trace/setting", "/v2/models/m/trace/setting"):
            assert server.get(path).json()["trace_level"] == ["OFF"]
            assert server.post(path, b'{"trace_level": ["OFF"], "trace_rate": null}').json() == server.get(path).json()
            assert server.post(path, b'{"trace_level": ["TIMESTAMPS"]}').status == 501 and server.post(path, b'{"x": 1}').status == 400
        assert server.get("/v2/models/n/trace/setting").status == 404
        cuda = "/v2/cudasharedmemory"
        assert server.get(f"{cuda}/status").json() == [] and server.get(f"{cuda}/region/r/status").status == 400
        assert server.post(f"{cuda}/unregister", b"").status == server.post(f"{cuda}/region/r/unregister", b"").status == 200
        assert server.post(f"{cuda}/region/r/register", b"{}").status == 501


# ---- the repository ---------------------------------------------------------------------------------------------------


def test_index(tmp_path: Path, made: tuple[Version, Version]) -> None:
    made[0].put(tmp_path / "repository/flat.xnor")
    made[1].put(tmp_path / "repository/deep/7/model.xnor")
    (tmp_path / "repository/bad.xnor").write_bytes(made[0].path.read_bytes()[:100])
    (tmp_path / "repository/bad config").mkdir()
    with serving(tmp_path, models=[{"name": "listed", "path": str(made[0].path)}]) as server:
        assert sorted((r["name"], r.get("version"), r["state"]) for r in index(server)) == [
            ("bad", None, "UNAVAILABLE"), ("deep", "7", "READY"), ("flat", "1", "READY"), ("listed", "1", "READY")]
        assert "truncated" in next(r["reason"] for r in index(server) if r["name"] == "bad")
        assert server.log.read_text().count("model bad is not loaded") == 1  # once, however often it is seen
        assert {r["name"] for r in index(server, b'{"ready": true}')} == {"deep", "flat", "listed"}
        assert server.post("/v2/repository/index", b'{"ready": 1}').status == 400 and server.post("/v2/repository/index", b"[]").status == 400
        with contextlib.closing(server.connect()) as connection:  # as tritonclient: no body, no length
            connection.sendall(b"POST /v2/repository/index HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert connection.makefile("rb").readline().startswith(b"HTTP/1.1 200")
        assert server.get("/v2/models/bad/ready").status == 503 and server.get("/v2/models/bad/ready").json() == {"name": "bad", "ready": False}
        assert server.get("/v2/models/nobody/ready").status == 404
        assert server.get("/v2/models/deep/ready").status == server.get("/v2/models/deep/versions/7/ready").status == 200


def test_versions_side_by_side(tmp_path: Path, made: tuple[Version, Version]) -> None:
    one, two = made
    one.put(tmp_path / "repository/m/3/model.xnor")
    two.put(tmp_path / "repository/m/12/model.xnor")
    with serving(tmp_path, versions=2) as server, contextlib.closing(server.client()) as client:
        assert server.get("/v2/models/m").json()["versions"] == ["12", "3"]
        assert infer(client, "m") == infer(client, "m/versions/12") == (200, "12", two.answer)
        assert infer(client, "m/versions/3") == (200, "3", one.answer)
        assert infer(client, "m/versions/4")[0] == 404
        assert server.metric("xnord_inferences_total", model="m", version="12") == 2
        assert server.metric("xnord_inferences_total", model="m", version="3") == 1
        assert {s["version"]: s["inference_count"] for s in server.get("/v2/models/m/stats").json()["model_stats"]} == {"12": 2, "3": 1}
        one.put(tmp_path / "repository/m/13/model.xnor")
        until(lambda: rows(server, "m") == [("13", "READY"), ("12", "READY")], "the newest two")
        assert infer(client, "m") == (200, "13", one.answer)
        shutil.rmtree(tmp_path / "repository/m/13")
        until(lambda: rows(server, "m") == [("12", "READY"), ("3", "READY")], "those that are left")
        assert call(server, "m", "load", {"version_policy": {"specific": {"versions": [3]}}}).status == 200
        assert infer(client, "m") == (200, "3", one.answer) and infer(client, "m/versions/12")[0] == 404


def test_load_and_unload(tmp_path: Path, made: tuple[Version, Version]) -> None:
    one, two = made
    one.put(tmp_path / "repository/m.xnor")
    with serving(tmp_path, poll_ms=0, models=[{"name": "listed", "path": str(two.path)}]) as server, contextlib.closing(server.client()) as client:
        for name, version, answer in (("m", "1", one.answer), ("listed", "2", two.answer)):
            unloaded = call(server, name, "unload")
            assert unloaded.status == 200 and unloaded.body == b""
            assert infer(client, name)[0] == 404 and rows(server, name) == [("", "UNAVAILABLE")] and server.get(f"/v2/models/{name}/ready").status == 503
            loaded = call(server, name, "load")
            assert loaded.status == 200 and loaded.body == b""
            assert infer(client, name) == (200, version, answer)
        assert server.post("/infer", INPUT.tobytes()).json()["model"] == "listed"
        assert call(server, "listed", "unload").status == 200 and server.post("/infer", INPUT.tobytes()).status == 404  # no other answers in its place
        assert call(server, "m", "load", {"max_batch_size": 5, "dynamic_batching": {"max_queue_delay_microseconds": 7, "preferred_batch_size": [4, 2]}}).status == 200
        config = server.get("/v2/models/m/config").json()
        assert config["max_batch_size"] == 5 and config["dynamic_batching"]["max_queue_delay_microseconds"] == 7
        assert call(server, "m", "load", {**config, "max_batch_size": 6}).status == 200  # what it says of itself it takes back
        assert server.get("/v2/models/m/config").json()["max_batch_size"] == 6
        for config in ({"max_batch_size": 0}, {"max_batch_size": 1.5}, {"platform": "onnx"}, {"input": []}, {"ensemble_scheduling": {}}, 7):
            answer = call(server, "m", "load", config)
            assert answer.status == 400 and answer.error, config
        assert server.get("/v2/models/m/config").json()["max_batch_size"] == 6
        assert server.post("/v2/repository/models/m/load", b'{"parameters": {"file:1/model.xnor": "AAAA"}}').status == 501
        assert server.post("/v2/repository/models/m/load", b'{"parameters": {"config": {}}}').status == 400
        assert server.post("/v2/repository/models/m/unload", b'{"parameters": {"unload_dependents": true}}').status == 200
        (tmp_path / "repository/m.xnor").write_bytes(b"no network")
        answer = call(server, "m", "load")
        assert answer.status == 400 and "m" in answer.error


@pytest.mark.parametrize("name", ["nobody", "%2e%2e", "..%2f..%2fetc%2fpasswd", "..%2frepository%2fm", ".hidden", "a" * 64, "m.xnor", "%00", "m%20"])
def test_no_name_leads_out_of_the_repository(tmp_path: Path, made: tuple[Version, Version], name: str) -> None:
    made[0].put(tmp_path / "repository/m.xnor")
    made[0].put(tmp_path / "repository/.hidden.xnor")
    made[0].put(tmp_path / "outside.xnor")
    with serving(tmp_path) as server:
        for verb in ("load", "unload"):
            assert server.post(f"/v2/repository/models/{name}/{verb}", b"").status in (400, 404)
        assert rows(server, "m") == [("1", "READY")]


def test_nobody_may_change_a_server_that_does_not_say_so(tmp_path: Path, made: tuple[Version, Version]) -> None:
    made[0].put(tmp_path / "repository/m.xnor")
    with serving(tmp_path, control="none") as server:
        for path in ("/v2/repository/models/m/load", "/v2/repository/models/m/unload", "/v2/repository/models/nobody/load", "/v2/logging"):
            answer = server.post(path, b"{}")
            assert answer.status == 403 and "repository.control" in answer.error
        assert rows(server, "m") == [("1", "READY")] and server.get("/v2/logging").status == 200
        assert server.metric("xnord_requests_rejected_total", reason="forbidden") == 4
        made[1].put(tmp_path / "repository/m.xnor")  # who may write the folder may
        until(lambda: rows(server, "m") == [("2", "READY")], "the new version")


def test_compressed_bodies(tmp_path: Path, made: tuple[Version, Version]) -> None:
    """As those of inference: inflated as they come, with the limit on what they become."""
    made[0].put(tmp_path / "repository/m.xnor")
    with serving(tmp_path) as server:
        def post(path: str, body: bytes, coding: str) -> Any:
            return server.request("POST", path, body, {"Content-Encoding": coding})

        for coding, pack in (("gzip", gzip.compress), ("deflate", zlib.compress), ("x-gzip", gzip.compress)):
            for level in (1, 0):
                assert post("/v2/logging", pack(json.dumps({"log_verbose_level": level}).encode()), coding).json()["log_verbose_level"] == level
            config = json.dumps({"parameters": {"config": json.dumps({"max_batch_size": 7}), "padding": "x" * 100000}}).encode()
            assert post("/v2/repository/models/m/load", pack(config), coding).status == 200
            assert server.get("/v2/models/m/config").json()["max_batch_size"] == 7
            assert post("/v2/repository/models/m/load", b"", coding).status == 400  # not even the end of a stream
            assert post("/v2/repository/models/m/load", pack(b""), coding).status == 200
        good = gzip.compress(b'{"ready": true}')
        for body, status, said in ((good[:-1], 400, "cut short"), (b"{}", 400, "not valid gzip"), (good + b"x", 400, "goes on after its end")):
            answer = post("/v2/repository/index", body, "gzip")
            assert answer.status == status and said in answer.error, answer
        for size, status in ((128 * 1024, 200), (128 * 1024 + 1, 413), (50_000_000, 413)):
            assert post("/v2/repository/index", gzip.compress(b'{"ready": true}'.ljust(size)), "gzip").status == status, size
        assert post("/v2/repository/index", good, "gzip").json()[0]["name"] == "m"


def test_bodies(tmp_path: Path, made: tuple[Version, Version]) -> None:
    made[0].put(tmp_path / "repository/m.xnor")
    with serving(tmp_path) as server:
        assert server.post("/v2/repository/models/m/load", b" " * (128 * 1024) + b"{}").status == 413
        unknown = server.request("POST", "/v2/repository/index", b"{}", {"Content-Encoding": "br"})
        assert unknown.status == 501 and unknown.headers["accept-encoding"] == "gzip, deflate"
        with contextlib.closing(server.connect()) as connection:  # longer than it may be, and the length not said before
            connection.sendall(b"POST /v2/repository/index HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            with contextlib.suppress(OSError):
                for _ in range(40):
                    connection.sendall(b"1000\r\n" + b" " * 4096 + b"\r\n")
            assert connection.makefile("rb").readline().startswith(b"HTTP/1.1 413")
        assert server.post("/v2/repository/models/m/load", b"{").status == server.post("/v2/repository/models/m/load", b"[]").status == 400
        for path, allow in (("/v2/repository/index", "POST"), ("/v2/repository/models/m/load", "POST")):
            answer = server.get(path)
            assert answer.status == 405 and answer.headers["allow"] == allow
        answer = server.request("PUT", "/v2/logging", b"{}")
        assert answer.status == 405 and answer.headers["allow"] == "GET, HEAD, POST"


def test_loads_queue_up_to_a_limit(tmp_path: Path, made: tuple[Version, Version]) -> None:
    made[0].put(tmp_path / "repository/m.xnor")
    answers: list[int] = []
    with serving(tmp_path, poll_ms=0) as server:
        def load(i: int) -> None:
            answers.append(call(server, "m", "load", {"max_batch_size": 1 + i}).status)

        threads = [threading.Thread(target=load, args=(i,)) for i in range(60)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(answers) <= {200, 503} and answers.count(200) >= 1
        assert call(server, "m", "load").status == 200 and rows(server, "m") == [("1", "READY")]


def test_a_file_that_is_being_written_is_left_alone(tmp_path: Path, made: tuple[Version, Version]) -> None:
    one, two = made
    poll_s = 0.3
    one.put(tmp_path / "repository/m.xnor")
    data = two.path.read_bytes()
    with serving(tmp_path, poll_ms=int(poll_s * 1000)) as server:
        (tmp_path / "repository/m.xnor").unlink()
        written = longest = 0.0
        begun = last = time.monotonic()
        with open(tmp_path / "repository/m.xnor", "wb", buffering=0) as file:  # in place, as cp does, for several looks
            while last - begun < 5 * poll_s:
                done = int(min(len(data) - 1, (last - begun) / (5 * poll_s) * len(data)))
                file.write(data[int(written):max(done, int(written))])
                written = max(written, done)
                os.utime(file.fileno())
                time.sleep(0.005)
                now = time.monotonic()
                longest, last = max(longest, now - last), now
            file.write(data[int(written):])
        until(lambda: rows(server, "m") == [("2", "READY")], "the whole file")
        if longest > poll_s:
            pytest.skip(f"the writer was held up for {longest:.2f} s: the machine is too busy to tell")
        assert "not loaded" not in server.log.read_text()


# ---- under load ---------------------------------------------------------------------------------------------------------


class Load:
    """Clients that ask as fast as they can, on connections that stay; what is not a right answer is kept."""

    def __init__(self, server: Daemon, name: str, versions: tuple[Version, Version], clients: int = 4) -> None:
        self.server, self.path, self.right = server, name, {(200, v.version, v.answer) for v in versions}
        self.stop, self.answered, self.wrong = threading.Event(), 0, list[Any]()
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.run) for _ in range(clients)]

    def run(self) -> None:
        with contextlib.closing(self.server.client()) as client:
            while not self.stop.is_set():
                try:
                    answer: Any = infer(client, self.path)
                except Exception as error:  # noqa: BLE001: whatever it is, it is a failed request
                    answer = repr(error)
                with self.lock:
                    self.answered += 1
                    if answer not in self.right:
                        self.wrong.append(answer)

    def answered_more(self, n: int) -> None:
        """Wait until `n` more requests have been answered."""
        goal = self.answered + n
        until(lambda: self.answered >= goal, "answers")

    def __enter__(self) -> Load:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join()


def test_replaced_by_its_folder_under_load(tmp_path: Path, made: tuple[Version, Version]) -> None:
    path = tmp_path / "repository/m.xnor"
    made[0].put(path)
    with serving(tmp_path, poll_ms=5) as server:
        with Load(server, "m", made) as load:
            for i in range(SWAPS):
                wanted = made[(i + 1) % 2]
                wanted.put(path)
                until(lambda: server.get("/v2/models/m").json()["versions"] == [wanted.version], "the other version")
                load.answered_more(4)
        assert load.wrong == [] and load.answered >= 4 * SWAPS
        print(f"{load.answered} requests answered over {SWAPS} swaps")
        until(lambda: rows(server, "m") == [("1", "READY")], "the last one alone, the old ones freed")


def test_replaced_under_its_own_version_by_load_calls_under_load(tmp_path: Path, made: tuple[Version, Version], tmp_path_factory: pytest.TempPathFactory) -> None:
    again = Version(tmp_path_factory.mktemp("again"), "1", 33)  # another network that calls itself version 1 too
    versions = (made[0], again)
    path = tmp_path / "repository/m.xnor"
    made[0].put(path)
    made[1].put(tmp_path / "repository/other.xnor")
    with serving(tmp_path, poll_ms=0) as server:
        with Load(server, "m", versions) as load:
            for i in range(SWAPS):
                wanted = versions[(i + 1) % 2]
                wanted.put(path)
                assert call(server, "m", "load").status == 200
                with contextlib.closing(server.client()) as client:
                    assert infer(client, "m") == (200, "1", wanted.answer)  # from the answer on it is the new one
                assert call(server, "other", "unload" if i % 2 == 0 else "load").status == 200  # costs others nothing
                load.answered_more(4)
        assert load.wrong == [] and load.answered >= 4 * SWAPS
        print(f"{load.answered} requests answered over {SWAPS} swaps")


def test_versions_swapped_by_policy_under_load(tmp_path: Path, made: tuple[Version, Version]) -> None:
    for version in made:
        version.put(tmp_path / f"repository/m/{version.version}/model.xnor")
    with serving(tmp_path, poll_ms=5) as server:
        with Load(server, "m", made) as load:
            for i in range(SWAPS):
                version = i % 2 + 1
                assert call(server, "m", "load", {"version_policy": {"specific": {"versions": [version]}}}).status == 200
                assert server.get("/v2/models/m").json()["versions"] == [str(version)]
                load.answered_more(4)
        assert load.wrong == [] and load.answered >= 4 * SWAPS
        print(f"{load.answered} requests answered over {SWAPS} swaps")


def test_a_stop_while_models_load(tmp_path: Path, made: tuple[Version, Version]) -> None:
    made[0].put(tmp_path / "repository/m.xnor")
    statuses: list[int] = []

    def load_on(server: Daemon) -> None:
        with contextlib.suppress(OSError), contextlib.closing(server.client()) as client:
            while True:
                statuses.append(ask(client, "POST", "/v2/repository/models/m/load", b"").status)

    with serving(tmp_path, poll_ms=1) as server:  # its end: SIGTERM, exit status 0
        threads = [threading.Thread(target=load_on, args=(server,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        until(lambda: len(statuses) >= 20, "loads")
    for thread in threads:
        thread.join()
    assert set(statuses) <= {200, 503}
