# SPDX-License-Identifier: Apache-2.0
"""The daemon's life: start and what keeps it from starting, what it tells systemd, drain, reload under load, a hung instance, and memory over many requests."""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import resource
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lifecycle_support import BUILD, FAST_INPUT, HAS_FAULTS, PATIENCE_S, SLOW_INPUT, XNORD, Daemon, Load, daemon, network, put_file, wait_until

NO_DELAY = {"max_delay_us": 0}
ONE_CPU = [{"kind": "cpu", "instances": 1, "threads": 1}]
QUEUED = 24
RELOADS = 20


def fast(tmp_path: Path, name: str = "m", version: int = 1, **settings: Any) -> dict[str, Any]:
    put_file(tmp_path / f"{name}.xnor", network(name, version))
    return {"path": str(tmp_path / f"{name}.xnor"), **settings}


def slow(tmp_path: Path) -> dict[str, Any]:
    """One image a batch, one after another."""
    put_file(tmp_path / "slow.xnor", network("slow", slow=True))
    return {"path": str(tmp_path / "slow.xnor"), "max_batch": 1, **NO_DELAY, "timeout_ms": 600000}


def post(body: bytes, length: int | None = None) -> bytes:
    return f"POST /infer HTTP/1.1\r\nHost: x\r\nContent-Length: {length or len(body)}\r\n\r\n".encode() + body


def dial(d: Daemon) -> socket.socket:
    return socket.create_connection(("127.0.0.1", d.port), timeout=PATIENCE_S)


def read_answer(s: socket.socket) -> tuple[int, bytes] | None:
    """None: the connection ended before an answer began."""
    answer = http.client.HTTPResponse(s)
    try:
        answer.begin()
        return answer.status, answer.read()
    except (http.client.BadStatusLine, ConnectionResetError):
        return None


def enqueue(d: Daemon, n: int) -> list[socket.socket]:
    """`n` requests, all admitted and none answered yet but perhaps the first."""
    sockets = [dial(d) for _ in range(n)]
    for s in sockets:
        s.sendall(post(SLOW_INPUT))
    wait_until("admission", lambda: d.metric("xnord_requests_active") + d.metric("xnord_http_requests_total", route="infer") >= n)
    return sockets


# ---- start ----------------------------------------------------------------------------------------------------------------------------------------------


def test_start(tmp_path: Path) -> None:
    with daemon(tmp_path, {"models": [fast(tmp_path)]}) as d:
        assert d.port > 0 and d.port_path.read_text() == f"{d.port}\n"
        assert d.infer(FAST_INPUT)[0] == 200
        ready = re.search(r"INFO ready on port (\d+) after (\d+) ms", d.log())
        assert ready and int(ready[1]) == d.port
        print(f"ready after {ready[2]} ms by its own clock")


def test_every_thread_has_a_name(tmp_path: Path) -> None:
    with daemon(tmp_path, {"models": [fast(tmp_path)], "accelerators": [{"kind": "cpu", "instances": 2, "threads": 2}], "image": {"threads": 2},
                           "http": {"threads": 1, "connections": 16}}) as d:
        assert d.infer(FAST_INPUT)[0] == 200
        names = sorted(p.read_text().strip() for p in Path(f"/proc/{d.process.pid}/task").glob("*/comm"))
        kinds = {re.sub(r"\d+", "N", name) for name in names}
        assert kinds == {"xnord", "xn-http-N", "xn-http-sweep", "xn-image-N", "xn-accel-N", "xn-cpuN-N", "xn-timer", "xn-power", "xn-models"}, names
        assert {"xn-image-0", "xn-image-1", "xn-accel-0", "xn-accel-1"} <= set(names)


def refused_start(tmp_path: Path, config: dict[str, Any], *arguments: str, status: int = 1, limits: dict[int, int] | None = None) -> str:
    path = tmp_path / "xnord.json"
    path.write_text(json.dumps({"listen": [{"address": "127.0.0.1", "port": 0}], "log": {"target": "stderr"}, **config}))

    def limit() -> None:
        for kind, value in (limits or {}).items():
            resource.setrlimit(kind, (value, value))

    done = subprocess.run([str(XNORD), "--config", str(path), *arguments], capture_output=True, text=True, timeout=PATIENCE_S, preexec_fn=limit)
    assert done.returncode == status, (done.returncode, done.stderr)
    assert "Sanitizer" not in done.stderr, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR") or status == 2]
    assert len(errors) == 1, done.stderr  # one failure, one line
    return errors[0]


def test_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refused_start(tmp_path, {"models": [fast(tmp_path)], "listen": [{"address": "127.0.0.1", "port": port}]})
    assert said == f"ERROR cannot start: cannot listen on 127.0.0.1 port {port}: Address already in use"


def test_address_that_is_not_ours(tmp_path: Path) -> None:
    said = refused_start(tmp_path, {"models": [fast(tmp_path)], "listen": [{"address": "192.0.2.1", "port": 1}]})
    assert said == "ERROR cannot start: cannot listen on 192.0.2.1 port 1: Cannot assign requested address"


@pytest.mark.parametrize(("damage", "why"), [
    (lambda data: data[:300], "bytes"), (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "SHA-256"), (lambda data: b"PNG" + data[3:], "magic"), (lambda data: b"", "bytes"),
], ids=["truncated", "changed", "other", "empty"])
def test_broken_model(tmp_path: Path, damage: Any, why: str) -> None:
    path = tmp_path / "m.xnor"
    path.write_bytes(damage(network("m")))
    said = refused_start(tmp_path, {"models": [{"path": str(path)}]})
    assert f"model {path}" in said and why.lower() in said.lower(), said


def test_missing_model(tmp_path: Path) -> None:
    said = refused_start(tmp_path, {"models": [{"path": str(tmp_path / "absent.xnor")}]})
    assert str(tmp_path / "absent.xnor") in said and "No such file or directory" in said, said


def test_accelerator_that_is_not_there(tmp_path: Path) -> None:
    said = refused_start(tmp_path, {"models": [fast(tmp_path)], "accelerators": [{"kind": "cpu", "cpu_mask": "abacus"}]})
    assert 'accelerator "cpu"' in said and "abacus" in said and "portable" in said, said
    said = refused_start(tmp_path, {"models": [fast(tmp_path)], "accelerators": [{"kind": "abacus"}]})
    assert "accelerators[0].kind" in said and '"abacus"' in said and "cpu" in said, said


def test_no_model(tmp_path: Path) -> None:
    assert "no model to serve" in refused_start(tmp_path, {"models": []})


def test_default_model_that_is_not_there(tmp_path: Path) -> None:
    said = refused_start(tmp_path, {"models": [fast(tmp_path)], "default_model": "z"})
    assert "default_model" in said and '"z"' in said, said


def test_two_models_of_one_name(tmp_path: Path) -> None:
    put_file(tmp_path / "n.xnor", network("m", 2))
    said = refused_start(tmp_path, {"models": [fast(tmp_path), {"path": str(tmp_path / "n.xnor")}]})
    assert f"{tmp_path}/n.xnor" in said and 'already called "m"' in said, said


def test_too_few_descriptors(tmp_path: Path) -> None:
    said = refused_start(tmp_path, {"models": [fast(tmp_path)], "http": {"connections": 4000}}, limits={resource.RLIMIT_NOFILE: 128})
    assert "http.connections = 4000" in said and "128" in said and "LimitNOFILE" in said, said


def test_port_file_that_cannot_be_written(tmp_path: Path) -> None:
    said = refused_start(tmp_path, {"models": [fast(tmp_path)]}, "--port-file", str(tmp_path / "absent/port"))
    assert f"--port-file {tmp_path}/absent/port: No such file or directory" in said


@pytest.mark.parametrize("arguments", [["--wallpaper"], ["stray"], ["--config"]], ids=" ".join)
def test_options(tmp_path: Path, arguments: list[str]) -> None:
    done = subprocess.run([str(XNORD), *arguments], capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 2 and done.stderr, done


# ---- systemd --------------------------------------------------------------------------------------------------------------------------------------------


def test_notifications(tmp_path: Path) -> None:
    with daemon(tmp_path, {"models": [fast(tmp_path)]}, WATCHDOG_USEC="400000") as d:
        at = d.await_note("READY=1")
        for _ in range(3):
            at = d.await_note("WATCHDOG=1", at)
        d.await_note("STATUS=1 model on ")
        d.reload()
        assert any(re.fullmatch(r"MONOTONIC_USEC=\d+", note) for note in d.notes)
        assert "STOPPING=1" not in d.notes
        at = d.mark()
        d.stop()
        d.await_note("STOPPING=1", at)


def test_no_watchdog_without_being_asked(tmp_path: Path) -> None:
    with daemon(tmp_path, {"models": [fast(tmp_path)]}) as d:
        d.await_note("STATUS=", d.await_note("STATUS="))
        assert "WATCHDOG=1" not in d.notes


def test_log_on_stderr(tmp_path: Path) -> None:
    with daemon(tmp_path, {"models": [fast(tmp_path, "net")], "accelerators": ONE_CPU}) as d:
        pass
    lines = d.log().splitlines()
    assert all(re.match(r"(ERROR|WARNING|INFO|DEBUG) ", line) for line in lines), d.log()
    assert re.search(r"^INFO instance cpu0: .* DEVICE=cpu0$", d.log(), re.M), d.log()
    assert re.search(r"^INFO model net version 1: .* MODEL=net$", d.log(), re.M), d.log()
    assert [line for line in lines if line in ("INFO SIGTERM: draining", "INFO stopped")] == ["INFO SIGTERM: draining", "INFO stopped"]


JOURNAL_SCRIPT = """
set -e
mount -t tmpfs none /run
mkdir -p /run/systemd/journal
exec "$@"
"""
JOURNAL_PROGRAM = """
import json, os, socket, subprocess, sys
journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
journal.bind("/run/systemd/journal/socket")
journal.settimeout(60)
read, write = os.pipe()
status = os.fstat(write)
process = subprocess.Popen(sys.argv[1:], stderr=write, env={**os.environ, "JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})
entries = []
while not entries or "ready on port" not in entries[-1]["MESSAGE"]:
    entries.append(dict(line.split("=", 1) for line in journal.recv(65536).decode().splitlines()))
process.terminate()
assert process.wait(60) == 0
print(json.dumps(entries))
"""


def test_log_in_the_journal(tmp_path: Path) -> None:
    """A journal of our own, in a mount namespace where its socket can be put."""
    config = tmp_path / "xnord.json"
    config.write_text(json.dumps({"listen": [{"address": "127.0.0.1", "port": 0}], "models": [fast(tmp_path, "net")], "accelerators": ONE_CPU}))
    unshare = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    if subprocess.run([*unshare, "sh", "-c", "mount -t tmpfs none /run"], capture_output=True).returncode != 0:
        pytest.skip("no mount namespace may be made here (unshare --mount)")
    done = subprocess.run([*unshare, "sh", "-c", JOURNAL_SCRIPT, "sh", "/usr/bin/python3", "-c", JOURNAL_PROGRAM, str(XNORD), "--config", str(config)],
                          capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    entries = json.loads(done.stdout)
    assert all(entry["SYSLOG_IDENTIFIER"] == "xnord" and entry["PRIORITY"] in "3467" for entry in entries)
    assert any(entry.get("DEVICE") == "cpu0" and entry["PRIORITY"] == "6" for entry in entries)
    assert any(entry.get("MODEL") == "net" and entry["MESSAGE"].startswith("model net version 1") for entry in entries)


# ---- drain ----------------------------------------------------------------------------------------------------------------------------------------------


def test_sigterm_under_load(tmp_path: Path) -> None:
    """Every admitted request is answered, and one more on each open connection, which it closes then; no new connection is taken, and it says so."""
    with daemon(tmp_path, {"models": [slow(tmp_path)], "accelerators": ONE_CPU, "drain_timeout_s": 300}) as d:
        probe, late = d.connect(), d.connect()
        for connection in (probe, late):  # opened before it stops listening
            assert d.infer(SLOW_INPUT, None, connection)[0] == 200
        sockets = enqueue(d, QUEUED)
        half = dial(d)  # admitted by its headers; the rest of its body comes during the drain
        half.sendall(post(SLOW_INPUT[:100], len(SLOW_INPUT)))
        wait_until("admission", lambda: d.metric("xnord_requests_active") + d.metric("xnord_http_requests_total", route="infer") >= QUEUED + 1)
        at = d.mark()
        d.process.send_signal(signal.SIGTERM)
        d.await_note("STOPPING=1", at)
        probe.request("GET", "/readyz")
        answer = probe.getresponse()
        assert (answer.status, answer.read()) == (503, b"not ready\n")
        late.request("POST", "/infer", SLOW_INPUT)
        with pytest.raises(ConnectionRefusedError):
            wait_until("the end of listening", lambda: dial(d).close())
        half.sendall(SLOW_INPUT[100:])
        answer = late.getresponse()
        assert (answer.status, answer.headers["Connection"], len(answer.read()) > 0) == (200, "close", True)
        for s in [*sockets, half]:
            got = read_answer(s)
            assert got and got[0] == 200, got
        d.await_exit(0)


def test_the_drain_does_not_wait_for_clients_that_say_nothing(tmp_path: Path) -> None:
    """One that has been answered, one that never asked, one that is at its headers for ever: the drain ends long before any of their times."""
    with daemon(tmp_path, {"models": [fast(tmp_path)], "drain_timeout_s": 3600, "http": {"threads": 1, "idle_timeout_s": 3600, "body_timeout_s": 3600}}) as d:
        used, fresh, slow_headers = d.connect(), dial(d), dial(d)
        assert d.infer(FAST_INPUT, None, used)[0] == 200
        slow_headers.sendall(b"POST /infer HTTP/1.1\r\nX-Slow: ")
        d.stop()
        got = read_answer(slow_headers)
        assert got and got[0] == 408 and read_answer(fresh) is None
        used.close()


def test_second_sigterm(tmp_path: Path) -> None:
    """The wait ends: what runs is still answered, what waits gets 503, the exit status tells."""
    with daemon(tmp_path, {"models": [slow(tmp_path)], "accelerators": ONE_CPU, "drain_timeout_s": 300}) as d:
        sockets = enqueue(d, QUEUED)
        stuck = dial(d)
        stuck.sendall(post(SLOW_INPUT[:100], len(SLOW_INPUT)))
        at = d.mark()
        d.process.send_signal(signal.SIGTERM)
        d.await_note("STOPPING=1", at)
        d.process.send_signal(signal.SIGTERM)
        answers = [read_answer(s) for s in sockets]
        d.await_exit(1)
        assert all(answer and answer[0] in (200, 503) for answer in answers), answers
        refused = [answer for answer in answers if answer and answer[0] == 503]
        assert {answer[1] for answer in refused} == {b'{"error":"the server is stopping"}\n'}
        assert "ended by a second signal" in d.log()


def test_drain_timeout(tmp_path: Path) -> None:
    with daemon(tmp_path, {"models": [fast(tmp_path)], "drain_timeout_s": 1}) as d:
        stuck = dial(d)
        stuck.sendall(post(FAST_INPUT[:1], len(FAST_INPUT)))
        wait_until("admission", lambda: d.metric("xnord_requests_active") == 1)
        d.stop(1)
        assert "drain_timeout_s has passed" in d.log() and d.log().rstrip().endswith("INFO stopped")


def test_bodies_that_arrive_while_it_stops(tmp_path: Path) -> None:
    """They are refused by whatever has stopped already, not handed to what is gone."""
    with daemon(tmp_path, {"models": [fast(tmp_path, **NO_DELAY)], "drain_timeout_s": 1}) as d:
        sockets = [dial(d) for _ in range(64)]
        for s in sockets:
            s.sendall(post(FAST_INPUT[:1], len(FAST_INPUT)))
        wait_until("admission", lambda: d.metric("xnord_requests_active") == len(sockets))
        ending = threading.Event()

        def finish_some() -> None:
            for s in sockets:
                if ending.wait(0.03):
                    return
                try:
                    s.sendall(FAST_INPUT[1:])
                except OSError:
                    return

        thread = threading.Thread(target=finish_some)
        thread.start()
        d.process.send_signal(signal.SIGTERM)
        d.await_exit(1)
        ending.set()
        thread.join()
        answers = [read_answer(s) for s in sockets]
        assert answers[0] and answers[0][0] == 200  # long before the time was up
        assert {answer[0] for answer in answers if answer} <= {200, 503}


def test_watchdog_is_fed_during_the_drain(tmp_path: Path) -> None:
    with daemon(tmp_path, {"models": [fast(tmp_path)], "drain_timeout_s": 300}, WATCHDOG_USEC="200000") as d:
        stuck = dial(d)
        stuck.sendall(post(FAST_INPUT[:1], len(FAST_INPUT)))
        wait_until("admission", lambda: d.metric("xnord_requests_active") == 1)
        at = d.mark()
        d.process.send_signal(signal.SIGTERM)
        at = d.await_note("STOPPING=1", at)
        for _ in range(3):
            at = d.await_note("WATCHDOG=1", at)
        d.process.send_signal(signal.SIGHUP)  # too late for a reload, and no reason to end
        d.await_note("WATCHDOG=1", at)
        stuck.sendall(FAST_INPUT[1:])
        got = read_answer(stuck)
        assert got and got[0] == 200
        d.await_exit(0)


# ---- reload ---------------------------------------------------------------------------------------------------------------------------------------------


def test_reload_under_load(tmp_path: Path) -> None:
    """Not one request fails, over many changes of the file; after each the new network answers."""
    models = [fast(tmp_path, "m", 0), fast(tmp_path, "n", 0)]
    with daemon(tmp_path, {"models": models}) as d:
        load = Load(d, 6, FAST_INPUT)
        for version in range(1, RELOADS + 1):
            put_file(tmp_path / "m.xnor", network("m", version))
            if version % 5 == 0:  # and another comes and goes
                d.write_config({"models": models[:1] if version % 10 == 0 else models})
            d.reload()
            assert d.label() == f"m {version}"
            before = len(load.answers)
            wait_until("answers", lambda: len(load.answers) > before + 20)
        load.end()
        assert not load.errors, load.errors[:3]
        statuses = {status for status, _ in load.answers}
        assert statuses == {200}, [a for a in load.answers if a[0] != 200][:3]
        seen = {answer["results"][0]["label"] for _, answer in load.answers}
        assert {f"m {version}" for version in range(1, RELOADS + 1)} <= seen
        assert d.metric("xnord_inferences_total", model="m") == len(load.answers) + RELOADS
        print(f"{len(load.answers)} requests over {RELOADS} reloads")


def test_reload_of_a_broken_file(tmp_path: Path) -> None:
    models = [fast(tmp_path, "m"), fast(tmp_path, "n")]
    with daemon(tmp_path, {"models": models}) as d:
        put_file(tmp_path / "n.xnor", network("n", 2))
        put_file(tmp_path / "m.xnor", network("m", 2)[:400])
        d.reload()
        assert re.search(rf"^ERROR reload failed, everything stays as it was: model {tmp_path}/m.xnor: ", d.log(), re.M), d.log()
        assert d.label() == "m 1"
        assert d.label("n") == "n 1"
        d.config_path.write_text('{"models": 1}')
        d.reload()
        assert "key models: must be" in d.log()
        assert d.infer(FAST_INPUT)[0] == 200
        d.write_config({"models": models})
        put_file(tmp_path / "m.xnor", network("m", 3))
        d.reload()
        assert d.label() == "m 3"
        assert d.label("n") == "n 2"


def test_models_come_and_go(tmp_path: Path) -> None:
    m, n, o = (fast(tmp_path, name) for name in "mno")
    with daemon(tmp_path, {"models": [m]}) as d:
        assert d.infer(FAST_INPUT, "n")[0] == 404
        d.write_config({"models": [m, n]})
        d.reload()
        assert d.label("n") == "n 1"
        assert d.label() == "m 1"
        d.write_config({"models": [n, o], "default_model": "o"})
        d.reload()
        assert "INFO model m version 1 is no longer served MODEL=m" in d.log()
        assert d.infer(FAST_INPUT, "m")[0] == 404
        assert d.label() == "o 1"
        assert d.metric("xnord_inferences_total", model="o") == 1
        assert d.metric("xnord_inferences_total", model="n") == 1
        assert d.metric("xnord_model_info", model="m") == 0 and d.metric("xnord_model_info", model="o") == 1


def test_reload_names_what_needs_a_restart(tmp_path: Path) -> None:
    config: dict[str, Any] = {"models": [fast(tmp_path)], "accelerators": ONE_CPU}
    with daemon(tmp_path, config) as d:
        d.reload()
        assert "WARNING" not in d.log()
        d.write_config({**config, "listen": [{"address": "127.0.0.1", "port": 1}], "accelerators": [{**ONE_CPU[0], "threads": 2}], "http": {"threads": 2},
                        "limits": {"requests": 7}, "shared_memory": "on", "image": {"threads": 3}, "power": {"sample_ms": 50}, "drain_timeout_s": 5,
                        "log": {"target": "stderr", "level": "warning"}})
        d.reload()
        named = re.findall(r"^WARNING reload: (\S+) is changed, which takes effect at the next restart$", d.log(), re.M)
        assert named == ["listen", "accelerators", "http", "limits", "shared_memory", "image", "power", "drain_timeout_s"]
        before = d.log().count("INFO")
        d.reload()
        assert d.log().count("INFO") == before  # the level has changed at once


def test_requests_under_way_keep_their_model(tmp_path: Path) -> None:
    """Requests that were admitted before a reload are answered by the network that they were admitted with, removed or not."""
    with daemon(tmp_path, {"models": [slow(tmp_path)], "accelerators": ONE_CPU}) as d:
        sockets = enqueue(d, 8)
        d.write_config({"models": [fast(tmp_path, "m")]})
        d.reload()
        assert d.label() == "m 1"
        for s in sockets:
            got = read_answer(s)
            assert got and got[0] == 200 and json.loads(got[1])["results"][0]["label"] == "slow 1", got


# ---- a reload that takes its time -----------------------------------------------------------------------------------------------------------------------


REPOSITORY = {"path": "repository", "poll_ms": 0}  # looked at in a reload alone


def late_model(tmp_path: Path) -> Path:
    """In tmp_path/repository, a model that takes as long to load as its config.json takes to come: until `release`."""
    folder = tmp_path / "repository/late"
    (folder / "1").mkdir(parents=True)
    put_file(folder / "1/model.xnor", network("late"))
    os.mkfifo(folder / "config.json")
    return folder / "config.json"


def release(fifo: Path) -> None:
    fifo.write_text("{}")


def begin_long_reload(d: Daemon) -> int:
    at = d.mark()
    d.process.send_signal(signal.SIGHUP)
    at = d.await_note("RELOADING=1", at)
    for _ in range(3):
        at = d.await_note("WATCHDOG=1", at)
    return at


def test_the_server_goes_on_while_a_reload_loads(tmp_path: Path) -> None:
    """The watchdog is fed, requests are answered, the service manager is told to wait, and SIGHUPs meanwhile come to one more reload, which sees the configuration
    as it is then."""
    m = fast(tmp_path)
    fifo = late_model(tmp_path)
    with daemon(tmp_path, {"models": [m]}, WATCHDOG_USEC="200000") as d:
        began_us = time.monotonic_ns() // 1000
        d.write_config({"models": [m], "repository": REPOSITORY})
        at = begin_long_reload(d)
        assert d.label() == "m 1"
        d.await_note("EXTEND_TIMEOUT_USEC=")
        assert any(note.startswith("STATUS=1 model on ") and note.endswith(", reloading") for note in d.notes)
        for _ in range(3):
            d.process.send_signal(signal.SIGHUP)
            at = d.await_note("WATCHDOG=1", at)
        assert d.notes.count("RELOADING=1") == 1 and d.notes.count("READY=1") == 1
        d.write_config({"models": [fast(tmp_path, "m", 2), fast(tmp_path, "n")]})
        release(fifo)
        again = d.await_note("RELOADING=1", d.await_note("READY=1", at))
        d.await_note("READY=1", again)
        assert (d.label(), d.label("n")) == ("m 2", "n 1")
        assert d.log().count("INFO reloaded") == 2 and d.log().index("INFO model late version 1: ") < d.log().index("INFO model late version 1 is no longer served")
        at = d.mark()
        for _ in range(3):
            at = d.await_note("WATCHDOG=1", at)
        assert d.notes.count("RELOADING=1") == 2 and d.notes.count("READY=1") == 3
        stamps = [int(note.split("=")[1]) for note in d.notes if note.startswith("MONOTONIC_USEC=")]
        assert began_us < stamps[0] < stamps[1] < time.monotonic_ns() // 1000
        assert "reloading" not in d.notes[-1]


def test_sigterm_while_a_reload_loads(tmp_path: Path) -> None:
    """What is asked on open connections is answered, the watchdog is fed while the load lasts, and the server ends in good order."""
    m = fast(tmp_path)
    fifo = late_model(tmp_path)
    with daemon(tmp_path, {"models": [m], "drain_timeout_s": 3000}, WATCHDOG_USEC="200000") as d:
        d.write_config({"models": [m], "repository": REPOSITORY})
        at = begin_long_reload(d)
        connection = d.connect()
        assert d.infer(FAST_INPUT, None, connection)[0] == 200
        d.process.send_signal(signal.SIGTERM)
        at = d.await_note("STOPPING=1", at)
        extended = next(int(note.split("=")[1]) for note in d.notes[at:] if note.startswith("EXTEND_TIMEOUT_USEC="))
        assert extended > 2900e6  # drain_timeout_s, and more, in microseconds: the service manager's own limit may be shorter
        for _ in range(3):
            at = d.await_note("WATCHDOG=1", at)
        release(fifo)
        d.await_exit(0)
        assert "reload" not in d.log().split("draining")[1] and d.log().splitlines()[-1] == "INFO stopped"


def test_a_load_that_hangs_does_not_keep_the_server(tmp_path: Path) -> None:
    """A second signal ends the wait for it; who waits for the load is answered."""
    (tmp_path / "repository").mkdir()
    with daemon(tmp_path, {"models": [fast(tmp_path)], "repository": {**REPOSITORY, "control": "explicit"}}) as d:
        def state() -> str:
            other = d.connect()
            other.request("POST", "/v2/repository/index")
            return next((row["state"] for row in json.loads(other.getresponse().read()) if row["name"] == "late"), "")

        late_model(tmp_path)
        connection = d.connect()
        connection.request("POST", "/v2/repository/models/late/load")
        wait_until("the load", lambda: state() == "LOADING")
        at = d.mark()
        d.process.send_signal(signal.SIGTERM)
        d.await_note("STOPPING=1", at)
        d.process.send_signal(signal.SIGTERM)
        d.await_exit(1)
        answer = connection.getresponse()
        assert answer.status == 503 and "stopping" in json.loads(answer.read())["error"]
        assert "WARNING a model is still being loaded, which is not waited for" in d.log()


# ---- a hung instance ------------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not HAS_FAULTS, reason="this build has no fault injection: debug, asan and tsan have")
def test_one_of_two_instances_hangs(tmp_path: Path) -> None:
    """Its batch runs elsewhere, it is reset and serves again, and the watchdog is fed all the while."""
    config = {"models": [fast(tmp_path, **NO_DELAY)], "accelerators": [{"kind": "cpu", "instances": 2, "threads": 1}]}
    with daemon(tmp_path, config, WATCHDOG_USEC="400000", XN_FAULT="accel.cpu.hang:100") as d:
        load = Load(d, 4, FAST_INPUT)
        wait_until("the hang", lambda: "is out of service" in d.log())
        at = d.mark()
        wait_until("the reset", lambda: d.metric("xnord_instance_resets_total") == 1)
        for _ in range(3):
            at = d.await_note("WATCHDOG=1", at)
        load.end()
        assert not load.errors and {status for status, _ in load.answers} == {200}, (load.errors, load.answers[-1])
        assert d.metric("xnord_instance_healthy") == 2
        assert re.search(r"^ERROR instance cpu\d is out of service: .*; it will be reset DEVICE=cpu\d$", d.log(), re.M), d.log()
        assert re.search(r"^INFO instance cpu\d is back in service DEVICE=cpu\d$", d.log(), re.M), d.log()


@pytest.mark.skipif(not HAS_FAULTS, reason="this build has no fault injection: debug, asan and tsan have")
def test_the_only_instance_stays_hung(tmp_path: Path) -> None:
    """It is not ready, the watchdog starves, requests fail in time, and it still stops in good order."""
    config = {"models": [fast(tmp_path, **NO_DELAY, timeout_ms=600000)], "accelerators": ONE_CPU}
    with daemon(tmp_path, config, WATCHDOG_USEC="400000", XN_FAULT="accel.cpu.hang:50,accel.cpu.reset:1+") as d:
        for _ in range(49):
            assert d.infer(FAST_INPUT)[0] == 200
        status, answer = d.infer(FAST_INPUT)
        assert status == 503 and "cpu0 failed" in answer["error"], answer
        assert d.get("/readyz")[0] == 503 and d.get("/healthz")[0] == 200
        at = d.await_note("STATUS=", d.await_note("STATUS=", d.mark()))
        at = d.await_note("STATUS=1 model on 0 of 1 instances", at)
        d.await_note("STATUS=", at)
        assert "WATCHDOG=1" not in d.notes[at:]
        waiting = dial(d)
        waiting.sendall(post(FAST_INPUT))
        wait_until("the request waits", lambda: d.metric("xnord_queue_depth") == 1)  # a connection that is not yet accepted would not be waited for
        d.process.send_signal(signal.SIGTERM)
        d.process.send_signal(signal.SIGINT)
        d.await_exit(1)
        got = read_answer(waiting)
        assert got is None or got[0] == 503


# ---- memory ---------------------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(HAS_FAULTS, reason="memory is not measured: a sanitizer keeps what is freed")
def test_memory_stays_flat(tmp_path: Path) -> None:
    """5,000 requests of every kind add nothing to what the first 2,000 needed."""
    put_file(tmp_path / "i.xnor", network("i", image=True))
    file = io.BytesIO()
    Image.linear_gradient("L").save(file, "PNG")
    good_png = file.getvalue()
    file = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").resize((640, 480)).save(file, "JPEG")
    good_jpeg = file.getvalue()
    bodies = [(FAST_INPUT, 200), (good_png, 200), (good_jpeg, 200), (good_jpeg[:500], 400), (good_png[:100], 400), (b"{", 400), (b"x" * 17, 400)]

    with daemon(tmp_path, {"models": [{"path": str(tmp_path / "i.xnor")}]}) as d:
        def resident() -> int:
            return int(re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{d.process.pid}/status").read_text())[1]) * 1024  # type: ignore[index]

        def ask(n: int) -> None:
            connection = d.connect()
            for i in range(n):
                body, wanted = bodies[i % len(bodies)]
                status, answer = d.infer(body, None, connection)
                assert status == wanted, answer
            connection.close()

        ask(2000)
        warm = resident()
        ask(5000)
        ratio = resident() / warm
        print(f"resident memory: {warm} bytes warm, {ratio:.3f} of it after 5,000 requests more")
        assert ratio <= 1.05
