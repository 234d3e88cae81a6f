# SPDX-License-Identifier: Apache-2.0
"""Ways in: unix sockets, TLS, tokens, limits of one client, and sockets that are handed over."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import threading
from collections.abc import Iterator
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any

import pytest
from lifecycle_support import FAST_INPUT, PATIENCE_S, SLOW_INPUT, XNORD, Daemon, daemon, network, put_file, wait_until
from transport_support import hand_over, make_authority, make_certificate, openssl, token_file

TCP = {"address": "127.0.0.1", "port": 0}


def models(folder: Path, slow: bool = False) -> list[dict[str, Any]]:
    put_file(folder / "net.xnor", network("net", slow=slow))
    return [{"path": "net.xnor", "max_delay_us": 0, **({"max_batch": 1, "timeout_ms": 600000} if slow else {})}]


def start_fails(folder: Path, config: dict[str, Any], **environment: str) -> str:
    """What it says."""
    (folder / "xnord.json").write_text(json.dumps({"listen": [TCP], "log": {"target": "stderr"}, "models": models(folder), **config}))
    done = subprocess.run([str(XNORD), "--config", str(folder / "xnord.json")], capture_output=True, text=True, timeout=PATIENCE_S, env={**os.environ, **environment})
    assert done.returncode == 1, done.stderr
    return done.stderr


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("xnord", timeout=PATIENCE_S)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE_S)
        self.sock.connect(str(self.path))


Said = tuple[int, dict[str, str], bytes]


def ask(connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None, token: str | None = None) -> Said:
    connection.request(method, path, body, {"Authorization": f"Bearer {token}"} if token else {})
    answer = connection.getresponse()
    return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()


# ---- unix sockets -------------------------------------------------------------------------------------------------------------------------------


def test_unix_socket(tmp_path: Path) -> None:
    """Beside TCP, by its permissions, with keep-alive; gone when the server is."""
    path = tmp_path / "door"
    with daemon(tmp_path, {"models": models(tmp_path), "listen": [TCP, {"unix": "door", "mode": "0600"}]}) as d:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_ISSOCK(path.stat().st_mode)
        connection = UnixConnection(path)
        for _ in range(3):
            status, headers, body = ask(connection, "POST", "/infer", FAST_INPUT)
            assert (status, json.loads(body)["model"]) == (200, "net") and "connection" not in headers
        assert d.get("/healthz")[0] == 200
        half = socket.socket(socket.AF_UNIX)  # its end comes together with the last bytes that it sends
        half.connect(str(path))
        half.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        half.shutdown(socket.SHUT_WR)
        assert half.makefile("rb").read().startswith(b"HTTP/1.1 200")
        cut = socket.socket(socket.AF_UNIX)
        cut.connect(str(path))
        cut.sendall(b"POST /infer HTTP/1.1\r\nHost: x\r\nContent-Length: 16\r\n\r\nabc")
        cut.shutdown(socket.SHUT_WR)
        cut.settimeout(PATIENCE_S)
        assert cut.makefile("rb").read()[:12] in (b"", b"HTTP/1.1 400")  # it ends, with or without a word
    assert not path.exists()


def test_unix_socket_in_the_way(tmp_path: Path) -> None:
    """One that nobody listens on is replaced; one in use, and a file, are not."""
    path = tmp_path / "door"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    with daemon(tmp_path, {"models": models(tmp_path), "listen": [TCP, {"unix": "door"}]}):
        assert ask(UnixConnection(path), "GET", "/healthz")[0] == 200
        other = tmp_path / "other"
        other.mkdir()
        assert "unix socket " in (said := start_fails(other, {"listen": [{"unix": str(path)}]})) and "Address already in use" in said
        assert ask(UnixConnection(path), "GET", "/healthz")[0] == 200
    path.write_text("precious")
    assert "Address already in use" in start_fails(tmp_path, {"listen": [{"unix": "door"}]})
    assert path.read_text() == "precious"
    assert "a path may have 107 bytes" in start_fails(tmp_path, {"listen": [{"unix": "x" * 108}]})


# ---- shared memory ------------------------------------------------------------------------------------------------------------------------------

REGION = "/v2/systemsharedmemory/region/r"


def address_beside_loopback() -> str:
    """An IPv4 address of this machine that is not loopback's. What connects from it to a loopback address is, to who sees addresses alone, somebody else."""
    done = subprocess.run(["hostname", "--all-ip-addresses"], capture_output=True, text=True, timeout=PATIENCE_S)
    found = [one for one in done.stdout.split() if "." in one and not one.startswith("127.")]
    if not found:
        pytest.skip("this machine has no IPv4 address beside loopback's to come from (tests/unit/test_http_access.c tests the rule alone)")
    return found[0]


@pytest.fixture
def memory() -> Iterator[shared_memory.SharedMemory]:
    memory = shared_memory.SharedMemory(create=True, size=4096)
    yield memory
    memory.close()
    memory.unlink()


def share(connection: http.client.HTTPConnection, memory: shared_memory.SharedMemory) -> list[tuple[int, str]]:
    """Register a region, ask for inference from it, and unregister it; what each was answered."""
    infer = {"inputs": [{"name": "image", "shape": [1, 4, 4, 1], "datatype": "UINT8", "parameters": {"shared_memory_region": "r", "shared_memory_byte_size": 16}}]}
    said = [ask(connection, "POST", path, json.dumps(body).encode()) for path, body in (
        (f"{REGION}/register", {"key": memory.name, "byte_size": 16}), ("/v2/models/net/infer", infer), (f"{REGION}/unregister", {}), ("/v2/systemsharedmemory/unregister", {}))]
    return [(status, body.decode()) for status, _, body in said]


def test_shared_memory_is_for_this_machine(tmp_path: Path, memory: shared_memory.SharedMemory) -> None:
    """By loopback and by a unix socket, unless configured otherwise; a client that comes from elsewhere gets 403, also for a region that is there, and is served
    in all else."""
    with daemon(tmp_path, {"models": models(tmp_path), "listen": [TCP, {"unix": "door"}]}) as d:
        for connection in (d.connect(), UnixConnection(tmp_path / "door")):
            assert [status for status, _ in share(connection, memory)] == [200] * 4
        assert ask(d.connect(), "POST", f"{REGION}/register", json.dumps({"key": memory.name, "byte_size": 16}).encode())[0] == 200
        other = http.client.HTTPConnection("127.0.0.1", d.port, timeout=PATIENCE_S, source_address=(address_beside_loopback(), 0))
        for status, said in share(other, memory):
            assert status == 403 and "shared memory is for clients on this machine" in said and "send the tensors in the request" in said, said
        assert [one["name"] for one in json.loads(d.get("/v2/systemsharedmemory/status")[1])] == ["r"]  # it is still there
        assert d.metric("xnord_requests_rejected_total", reason="forbidden") == 4
        assert ask(other, "POST", "/infer", FAST_INPUT)[0] == 200


@pytest.mark.parametrize("setting", ["on", "off"])
def test_shared_memory_for_all_or_nobody(tmp_path: Path, memory: shared_memory.SharedMemory, setting: str) -> None:
    with daemon(tmp_path, {"models": models(tmp_path), "shared_memory": setting}) as d:
        connections = [d.connect(), http.client.HTTPConnection("127.0.0.1", d.port, timeout=PATIENCE_S, source_address=(address_beside_loopback(), 0))]
        for connection in connections:
            said = share(connection, memory)
            assert [status for status, _ in said] == ([200] * 4 if setting == "on" else [501, 400, 200, 200]), said
        assert ("system_shared_memory" in json.loads(d.get("/v2")[1])["extensions"]) == (setting == "on")


# ---- TLS ----------------------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    make_authority(tmp_path)
    for name in ("first", "second"):
        make_certificate(tmp_path, name)
    show(tmp_path, "first")
    return tmp_path


def show(folder: Path, name: str) -> None:
    for kind in ("pem", "key"):
        put_file(folder / f"server.{kind}", (folder / f"{name}.{kind}").read_bytes())
    (folder / "server.key").chmod(0o600)


TLS = {**TCP, "certificate": "server.pem", "key": "server.key"}


def subject(d: Daemon) -> str:
    """Common name of the certificate that a new connection is shown, verified."""
    with socket.create_connection(("127.0.0.1", d.port), PATIENCE_S) as plain, context(d.folder).wrap_socket(plain, server_hostname="127.0.0.1") as tls:
        return dict(pair[0] for pair in tls.getpeercert()["subject"])["commonName"]  # type: ignore[index,misc,union-attr]


def context(folder: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(folder / "ca.pem"))


def test_tls(authority: Path) -> None:
    """curl, Python and openssl s_client; every version below 1.2 is refused; a plain client is no danger."""
    with daemon(authority, {"models": models(authority), "listen": [TLS, {"unix": "door"}]}) as d:
        url = f"https://127.0.0.1:{d.port}"
        if shutil.which("curl"):
            good = subprocess.run(["curl", "-sS", "--cacert", "ca.pem", f"{url}/healthz", f"{url}/v2/health/ready"], cwd=authority, capture_output=True, text=True)
            assert good.stdout == 'ok\n{"ready":true}', good.stderr
            assert subprocess.run(["curl", "-sS", f"{url}/healthz"], capture_output=True).returncode == 60  # an authority that is not known
        connection = http.client.HTTPSConnection("127.0.0.1", d.port, timeout=PATIENCE_S, context=context(authority))
        for _ in range(20):
            status, _, body = ask(connection, "POST", "/infer", FAST_INPUT)
            assert (status, json.loads(body)["model"]) == (200, "net")
        for version, works in (("-tls1", False), ("-tls1_1", False), ("-tls1_2", True), ("-tls1_3", True)):
            done = openssl(authority, "s_client", "-connect", f"127.0.0.1:{d.port}", version, "-cipher", "ALL:@SECLEVEL=0", "-CAfile", "ca.pem", "-verify_return_error")
            assert (done.returncode == 0 and "Verify return code: 0" in done.stdout) == works, (version, done.stdout[-500:], done.stderr)
        with socket.create_connection(("127.0.0.1", d.port), PATIENCE_S) as plain:
            plain.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"200" not in plain.makefile("rb").read()
        assert ask(UnixConnection(authority / "door"), "GET", "/healthz")[0] == 200


def test_tls_errors_before_the_body(authority: Path) -> None:
    """What is refused while a body comes in is answered in the same way as over plain TCP."""
    with daemon(authority, {"models": models(authority), "listen": [TLS], "limits": {"body_bytes": 1024, "json_bytes": 1024}}) as d:
        for head, want in (("Content-Length: 99999", 413), ("Transfer-Encoding: chunked", 413)):
            with socket.create_connection(("127.0.0.1", d.port), PATIENCE_S) as plain, context(authority).wrap_socket(plain, server_hostname="127.0.0.1") as tls:
                tls.sendall(f"POST /infer HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n".encode())
                if "chunked" in head:
                    tls.sendall(b"800\r\n" + bytes(0x800) + b"\r\n")
                answer = http.client.HTTPResponse(tls)  # type: ignore[arg-type]
                answer.begin()
                assert answer.status == want and "larger than the limit" in json.loads(answer.read())["error"]


def test_new_certificate(authority: Path) -> None:
    """SIGHUP: new handshakes see it, an open connection goes on; a broken one changes nothing."""
    with daemon(authority, {"models": models(authority), "listen": [TLS]}) as d:
        kept = http.client.HTTPSConnection("127.0.0.1", d.port, timeout=PATIENCE_S, context=context(authority))
        assert ask(kept, "GET", "/healthz")[0] == 200
        sock = kept.sock
        assert subject(d) == "first"
        show(authority, "second")
        d.reload()
        assert subject(d) == "second"
        assert ask(kept, "POST", "/infer", FAST_INPUT)[0] == 200 and kept.sock is sock
        put_file(authority / "server.key", (authority / "first.key").read_bytes())
        (authority / "server.key").chmod(0o600)
        d.reload()
        assert "is not the one of certificate" in d.log() and "everything stays as it was" in d.log()
        assert subject(d) == "second"
        for _ in range(20):  # pairs come and go under handshakes
            show(authority, "first" if subject(d) == "second" else "second")
            d.reload()
        assert subject(d) == "second" and ask(kept, "GET", "/healthz")[0] == 200


@pytest.mark.parametrize(("damage", "why"), [
    (lambda folder: (folder / "server.pem").unlink(), "certificate .*server.pem: "),
    (lambda folder: (folder / "server.pem").write_text("nonsense"), "certificate .*server.pem: "),
    (lambda folder: (folder / "server.key").write_text("nonsense"), "key .*server.key: "),
    (lambda folder: (folder / "server.key").chmod(0o644), "key .*server.key: others may read it"),
    (lambda folder: shutil.copy(folder / "second.pem", folder / "server.pem"), "key .*server.key is not the one of certificate .*server.pem"),
], ids=["missing", "no certificate", "no key", "open key", "another's key"])
def test_tls_that_does_not_start(authority: Path, damage: Any, why: str) -> None:
    damage(authority)
    assert re.search(why, start_fails(authority, {"listen": [TLS]}))


# ---- tokens -------------------------------------------------------------------------------------------------------------------------------------


def test_tokens(tmp_path: Path) -> None:
    token_file(tmp_path, camera="infer", scrape="read", boss="admin")
    with daemon(tmp_path, {"models": models(tmp_path), "tokens": "tokens"}) as d:

        def status(method: str, path: str, token: str | None) -> int:
            connection = d.connect()
            said = ask(connection, method, path, FAST_INPUT if method == "POST" else None, token)
            if said[0] == 401:
                assert said[1]["www-authenticate"] == 'Bearer realm="xnord"'
            if said[0] in (401, 403):
                assert json.loads(said[2])["error"]
            connection.close()
            return said[0]

        everyone = [None, "secret-camera", "secret-scrape", "secret-boss", "secret-nobody"]
        for path in ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"):
            assert [status("GET", path, token) for token in everyone] == [200] * 5, path
        for path in ("/infer", "/v2/models/net/infer"):
            want = [status("POST", path, token) for token in everyone]
            assert [s in (200, 400) for s in want] == [False, True, False, True, False] and (want[0], want[2], want[4]) == (401, 403, 401), (path, want)
        for path in ("/metrics", "/v1/status"):
            assert [status("GET", path, token) for token in everyone] == [401, 403, 200, 200, 401], path
        for path in ("/v2/repository/models/net/unload", "/v2/logging", "/v2/trace/setting", "/v2/systemsharedmemory/region/x/register"):
            want = [status("POST", path, token) for token in everyone]
            assert want[:3] + want[4:] == [401, 403, 403, 401] and want[3] != 401, (path, want)
        assert [status("POST", "/v2/repository/index", token) for token in everyone][:3] == [401, 403, 400]
        for path in ("/v2", "/v2/models/net", "/v2/models/net/ready", "/"):
            assert [status("GET", path, token) for token in everyone] == [401, 200, 200, 200, 401], path

        connection = d.connect()
        text = ask(connection, "GET", "/metrics", token="secret-scrape")[2].decode()
        assert re.search(r'xnord_token_requests_total\{token="camera",outcome="forbidden"\} 7\n', text), text
        assert "nobody" not in text and "secret" not in text + d.log()
        assert 'reason="unauthorized"} ' in text and 'reason="forbidden"} ' in text

        token_file(tmp_path, camera="infer,read", guest="infer")
        d.reload()
        assert [status("GET", "/metrics", f"secret-{name}") for name in ("camera", "scrape", "boss", "guest")] == [200, 401, 401, 403]
        text = ask(connection, "GET", "/metrics", token="secret-camera")[2].decode()
        assert 'xnord_token_requests_total{token="camera",outcome="forbidden"} 7\n' in text  # counts go on

        (tmp_path / "tokens").chmod(0o644)
        d.reload()
        assert "others may read it" in d.log() and "everything stays as it was" in d.log()
        (tmp_path / "tokens").chmod(0o600)
        (tmp_path / "tokens").write_text("camera infer secret-camera\n")
        d.reload()
        assert "tokens:1: behind the roles must come the SHA-256" in d.log() and "secret-camera" not in d.log()
        assert status("POST", "/infer", "secret-guest") == 200
        connection.close()


def test_refused_before_the_body(tmp_path: Path) -> None:
    token_file(tmp_path, camera="infer")
    with daemon(tmp_path, {"models": models(tmp_path), "tokens": "tokens"}) as d:
        with socket.create_connection(("127.0.0.1", d.port), PATIENCE_S) as s:
            s.sendall(b"POST /infer HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 100000\r\n\r\n")
            said = s.makefile("rb").read()
        assert said.startswith(b"HTTP/1.1 401") and b"100 Continue" not in said


def test_tokens_that_do_not_start(tmp_path: Path) -> None:
    assert "No such file" in start_fails(tmp_path, {"tokens": "tokens"})
    token_file(tmp_path, camera="infer")
    (tmp_path / "tokens").chmod(0o604)
    assert "others may read it" in start_fails(tmp_path, {"tokens": "tokens"})


# ---- limits of one client -----------------------------------------------------------------------------------------------------------------------


def test_requests_under_way(tmp_path: Path) -> None:
    """One client's limit is not another's, and ends with its requests."""
    token_file(tmp_path, greedy="infer", modest="infer", scrape="read")
    with daemon(tmp_path, {"models": models(tmp_path, slow=True), "tokens": "tokens", "limits": {"client_requests": 4}}) as d:
        ended: list[int] = []

        def one() -> None:
            connection = d.connect()
            ended.append(ask(connection, "POST", "/infer", SLOW_INPUT, "secret-greedy")[0])
            connection.close()

        sockets = [socket.create_connection(("127.0.0.1", d.port), PATIENCE_S) for _ in range(4)]
        for s in sockets:  # admitted by their headers
            s.sendall(f"POST /infer HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret-greedy\r\nContent-Length: {len(SLOW_INPUT)}\r\n\r\n".encode())
        wait_until("admission", lambda: re.search(r"xnord_requests_active 4\n", ask(d.connect(), "GET", "/metrics", token="secret-scrape")[2].decode()))
        status, headers, body = ask(d.connect(), "POST", "/infer", SLOW_INPUT, "secret-greedy")
        assert status == 429 and int(headers["retry-after"]) >= 1 and "limits.client_requests" in json.loads(body)["error"]
        assert ask(d.connect(), "POST", "/infer", SLOW_INPUT, "secret-modest")[0] == 200
        for s in sockets:
            s.sendall(SLOW_INPUT)
            answer = http.client.HTTPResponse(s)
            answer.begin()
            assert answer.status == 200
            s.close()
        threads = [threading.Thread(target=one) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert ended == [200] * 4
        assert 'reason="client_limit"} 1\n' in ask(d.connect(), "GET", "/metrics", token="secret-scrape")[2].decode()


def test_requests_a_second(tmp_path: Path) -> None:
    """Without tokens an address is a client; on the unix socket a user is. A second's worth goes at once."""
    with daemon(tmp_path, {"models": models(tmp_path), "listen": [TCP, {"unix": "door"}], "limits": {"client_requests_per_s": 1}}) as d:
        tcp, unix = d.connect(), UnixConnection(tmp_path / "door")
        refused = 0
        while not refused:  # a second request within the second comes sooner or later
            status, headers, body = ask(tcp, "GET", "/v2")
            refused = status == 429
            assert status == 200 or refused
        assert headers["retry-after"] == "1" and "limits.client_requests_per_s" in json.loads(body)["error"]
        assert ask(unix, "GET", "/v2")[0] == 200  # another client
        assert ask(tcp, "GET", "/healthz")[0] == 200  # is not counted
        wait_until("the next second", lambda: ask(tcp, "GET", "/v2")[0] == 200)


# ---- sockets that are handed over ---------------------------------------------------------------------------------------------------------------


def test_sockets_find_their_listeners(tmp_path: Path) -> None:
    """By name, by address and by path; one that was not handed over is opened; the ones that were are there when the server has gone."""
    named, told, path = socket.create_server(("127.0.0.1", 0)), socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_UNIX)
    path.bind(str(tmp_path / "door"))
    path.listen()
    listen = [{"unix": "own"}, {"unix": "door"}, {"port": told.getsockname()[1]}, {"name": "a"}]
    process = hand_over(tmp_path, {"models": models(tmp_path), "listen": listen}, "a:b:c", [named, told, path])
    try:
        for connection in (UnixConnection(tmp_path / "door"), http.client.HTTPConnection(*named.getsockname(), timeout=PATIENCE_S),
                           http.client.HTTPConnection(*told.getsockname(), timeout=PATIENCE_S), UnixConnection(tmp_path / "own")):
            assert ask(connection, "GET", "/healthz")[0] == 200  # it waits in the queue until the server is there
            connection.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
        assert (tmp_path / "door").exists() and not (tmp_path / "own").exists()
        for address in (named.getsockname(), told.getsockname()):
            socket.create_connection(address, PATIENCE_S).close()  # nobody serves it, and it is not refused
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(("names", "kind", "why"), [
    ("b", "tcp", 'the socket "b" was handed over, but no listener has its name or address'),
    ("a:a", "tcp", 'the socket "a" was handed over, but no listener has its name or address'),
    ("a", "udp", 'the socket "a" that was handed over is not a listening stream socket'),
])
def test_socket_that_nobody_wants(tmp_path: Path, names: str, kind: str, why: str) -> None:
    make = {"tcp": lambda: socket.create_server(("127.0.0.1", 0)), "udp": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)}[kind]
    sockets = [make() for _ in names.split(":")]
    process = hand_over(tmp_path, {"models": models(tmp_path), "listen": [{"name": "a"}]}, names, sockets)
    assert why in process.communicate(timeout=PATIENCE_S)[1]
    assert process.returncode == 1


# ---- xnorctl over all of it ---------------------------------------------------------------------------------------------------------------------

XNORCTL = XNORD.with_name("xnorctl")


def ctl(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("XNORD_")}
    return subprocess.run([str(XNORCTL), *arguments], cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S, env={**clean, **environment})


def test_xnorctl_through_every_door(authority: Path) -> None:
    """A token that `xnorctl token` made, over TLS and over a unix socket; load too."""
    made = json.loads(ctl(authority, "token", "cam", "--roles", "infer,read", "--json").stdout)
    put_file(authority / "tokens", (made["line"] + "\n").encode())
    (authority / "tokens").chmod(0o600)
    (authority / "token").write_text(made["token"] + "\n")
    (authority / "tensor").write_bytes(FAST_INPUT)
    with daemon(authority, {"models": models(authority), "listen": [TLS, {"unix": "door"}], "tokens": "tokens"}) as d:
        tls, unix = ["--url", f"https://127.0.0.1:{d.port}"], ["--url", f"unix:{authority}/door"]
        for door in ([*tls, "--cacert", "ca.pem"], [*tls, "--insecure"], unix):
            for arguments in (["infer", "tensor"], ["models"], ["status"]):
                good = ctl(authority, *arguments, *door, "--token-file", "token")
                assert good.returncode == 0 and "net" in good.stdout, good.stderr
        assert ctl(authority, "models", *unix, XNORD_TOKEN=made["token"]).returncode == 0
        assert "--cacert names the authorities" in ctl(authority, "models", *tls, XNORD_TOKEN=made["token"]).stderr
        assert "this needs a token" in ctl(authority, "models", *unix).stderr
        assert "the token is not known here" in ctl(authority, "models", *unix, XNORD_TOKEN="guess").stderr
        assert "not a token" in ctl(authority, "models", *unix, XNORD_TOKEN="a b").stderr
        assert "No such file" in ctl(authority, "models", *unix, "--token-file", "nothing").stderr


def test_xnorctl_sends_load_through_every_door(authority: Path) -> None:
    """bench and eval, which have sockets of their own: in many requests on each connection, with bodies and answers over a TLS record's size, and with the same trust."""
    made = json.loads(ctl(authority, "token", "cam", "--roles", "infer,read", "--json").stdout)
    put_file(authority / "tokens", (made["line"] + "\n").encode())
    (authority / "tokens").chmod(0o600)
    (authority / "labelled/0").mkdir(parents=True)
    for i in range(40):
        (authority / f"labelled/0/{i}.bin").write_bytes(bytes([i] * 16))
    with daemon(authority, {"models": models(authority), "listen": [TLS, {"unix": "door"}, TCP], "tokens": "tokens", "limits": {"images_per_request": 1024}}) as d:
        tls, unix = ["--url", f"https://127.0.0.1:{d.port}"], ["--url", f"unix:{authority}/door"]
        for door in ([*tls, "--cacert", "ca.pem"], [*tls, "--insecure"], unix):
            for images in ("1", "300"):
                load = ctl(authority, "bench", *door, "--count", "50", "--warmup", "0", "--concurrency", "3", "--images", images, "--json", XNORD_TOKEN=made["token"])
                assert load.returncode == 0, load.stderr
                said = json.loads(load.stdout)
                assert said["requests"] == 50 and not said["errors"], said
            right = ctl(authority, "eval", "labelled", *door, "--json", XNORD_TOKEN=made["token"])
            assert right.returncode == 0 and json.loads(right.stdout)["images"] == 40, right.stdout + right.stderr
            assert "this needs a token" in ctl(authority, "bench", *door, "--count", "1").stderr
        for command in (["bench", "--count", "1"], ["eval", "labelled"]):
            assert "--cacert names the authorities" in ctl(authority, *command, *tls, XNORD_TOKEN=made["token"]).stderr


@pytest.mark.parametrize("arguments", [[], ["a", "b"], ["a b"], [".a"], ["a" * 64], ["a", "--roles", ""], ["a", "--roles", "infer,"], ["a", "--roles", "boss"]], ids=str)
def test_xnorctl_token_that_is_not_made(tmp_path: Path, arguments: list[str]) -> None:
    assert ctl(tmp_path, "token", *arguments).returncode == 2
