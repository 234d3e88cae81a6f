# SPDX-License-Identifier: Apache-2.0
"""The virtual card through the real XRT 2.13: card_test's cases under `xnor-vcard run`, and what xnor-vcard itself promises.

On every build that there is: XN_BUILD, and beside it asan and tsan. Where XRT is missing nothing was built, and all of it is skipped."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import mmap
import os
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
BUILD = Path(os.environ.get("XN_BUILD", ROOT / "build/release"))
MODELS = sorted(ROOT.glob("models/*/*.xnor"))
SMALL = ROOT / "models/fashion-mnist/fashion-mnist.xnor"
TIMEOUT_S = 240


def is_built(build: Path) -> bool:
    return (build / "xnor-vcard").exists() and (build / "tests/vcard/card_test").exists()


BUILDS = [BUILD] + [build for name in ("asan", "tsan") if (build := BUILD.parent / name) != BUILD and is_built(build)]
pytestmark = pytest.mark.skipif(not is_built(BUILD), reason=f"{BUILD}/xnor-vcard was not built: it needs libxrt-dev 2.13 and uuid-dev")


def environment() -> dict[str, str]:
    supp = ROOT / "tests/vcard/xrt.supp"
    return {
        **os.environ,
        "ASAN_OPTIONS": "detect_stack_use_after_return=1:allocator_may_return_null=1",
        "LSAN_OPTIONS": f"suppressions={supp}:print_suppressions=0",
        "TSAN_OPTIONS": f"halt_on_error=1:suppressions={supp}",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }


def command(build: Path, options: str, *arguments: object) -> list[str]:
    return [str(build / "xnor-vcard"), "run", *options.split(), "--", *map(str, arguments)]


def run(build: Path, options: str, *case: object) -> str:
    """A case of card_test; its output."""
    done = subprocess.run(command(build, options, build / "tests/vcard/card_test", *case), cwd=ROOT, env=environment(), capture_output=True, text=True,
                          timeout=TIMEOUT_S)
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-8000:]}"
    assert f"ok - {case[0]}" in done.stdout
    assert "WARNING: ThreadSanitizer" not in done.stderr, done.stderr[-8000:]
    return done.stdout


@contextlib.contextmanager
def running(arguments: list[object], status: int = 0, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A process that ends with the test, by SIGTERM where the test has not seen to it, whatever became of the test; it has to end with `status`."""
    process = subprocess.Popen([str(word) for word in arguments], env=environment(), text=True, **options)
    try:
        yield process
    finally:
        process.terminate()
        try:
            ended = process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        finally:
            if process.stdout:
                process.stdout.close()
    assert ended == status


@pytest.fixture(params=BUILDS, ids=lambda build: build.name)
def build(request: pytest.FixtureRequest) -> Path:
    return request.param


CASES = {
    "end": ("--cards 2 --units 3 --banks 2", 3),
    "memory": ("--units 2 --banks 2 --memory 64",),
    "hang": ("--fault hang@2",),
    "lost": ("--fault lost@1",),
    "crash": ("--fault crash@2 --revive-ms 200",),
    "corrupt": ("--fault corrupt@1",),
    "addresses": ("--memory 64",),
    "refuse": ("--fault refuse@1",),
    "busy": ("--units 2",),
    "reset": ("--units 2 --fault hang@3",),
    "abort": ("--fault hang@2",),
    "lost-abort": ("--fault lost@2",),
    "devices": ("--cards 3",),
    "soak": ("--cards 2 --units 2 --engine scalar --fault hang@50,crash@200,lost@70,slow@40 --slow-ms 10 --revive-ms 50",),
    "storm": ("--units 4 --engine scalar --fault hang@20,lost@30,slow@15 --seed 3 --slow-ms 20",),
    "bus-hang": ("--bus-error hang",),
    "reopen": ("--memory 16 --fault hang@10", 40),
}


@pytest.mark.parametrize("case", CASES)
def test_case(build: Path, case: str) -> None:
    options, *arguments = CASES[case]
    run(build, options, case, *arguments)


@pytest.mark.parametrize("cards,units", [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_network(build: Path, cards: int, units: int) -> None:
    """Logits are the reference's, cycles the model's, on all units at once."""
    run(build, f"--cards {cards} --units {units}", "network", cards, units, 2, 2, SMALL)


@pytest.mark.parametrize("model", MODELS, ids=lambda path: path.stem)
def test_shipped_networks(model: Path) -> None:
    run(BUILD, "--units 2", "network", 1, 2, 3, 1, model)


def test_scalar_engine() -> None:
    run(BUILD, "--engine scalar --geometry 2T", "network", 1, 1, 1, 1, SMALL)


def test_xclbin(build: Path, tmp_path: Path) -> None:
    """Damaged ones and one of another engine are refused."""
    other = tmp_path / "other.xclbin"
    subprocess.run([build / "xnor-vcard", "xclbin", "--geometry", "2T", other], check=True)
    run(build, "", "xclbin", other)


def test_xclbin_is_deterministic(tmp_path: Path) -> None:
    for name, options in {"a": "", "b": "", "c": "--units 2", "d": "--clock 300"}.items():
        subprocess.run([BUILD / "xnor-vcard", "xclbin", *options.split(), tmp_path / name], check=True)
    a, b, c, d = ((tmp_path / name).read_bytes() for name in "abcd")
    assert a == b
    assert len({x[UUID_AT : UUID_AT + 16] for x in (a, c, d)}) == 3


def read_stats(path: Path) -> dict:
    return json.loads(path.read_text())


def test_time_is_the_models(tmp_path: Path) -> None:
    """--timing model: a run lasts its cycles of the clock at least, and the units' counters say so."""
    stats = tmp_path / "stats.json"
    out = run(BUILD, f"--units 2 --timing model --skip-compute --clock 100 --stats {stats}", "saturate", 2, 16, 20, SMALL)
    cycles = int(out.split("cycles ")[1].split()[0])
    for unit in read_stats(stats)["cards"][0]["units"]:
        assert unit["runs"] == 40 and unit["images"] == 40 * 16
        assert unit["cycles"] == 40 * cycles
        assert unit["model_s"] == pytest.approx(40 * cycles / 100e6, rel=1e-6)
        assert unit["busy_s"] >= unit["model_s"]


def test_idle_time_is_counted(tmp_path: Path) -> None:
    """Busy and idle come to the time from the first start to the last end."""
    stats = tmp_path / "stats.json"
    out = run(BUILD, f"--stats {stats}", "rate", 1000)
    whole_s = 1000 * float(out.split("# ")[1].split()[0]) * 1e-6
    seen = read_stats(stats)
    unit = seen["cards"][0]["units"][0]
    assert unit["runs"] == 1001 and unit["idle_s"] > 0
    assert 0.8 * whole_s < unit["busy_s"] + unit["idle_s"] < seen["uptime_s"]


def test_link_has_a_speed() -> None:
    """--pcie: transfers take their bytes' time at least, small ones by what they owe, those of several connections one behind another."""
    for mib, times, connections in ((4, 5, 1), (1, 20, 1), (4, 5, 2)):
        out = run(BUILD, "--units 2 --engine scalar --pcie 0.25", "transfer", mib, times, connections)
        assert 0.05 < float(out.split("GB/s ")[1].split()[0]) <= 0.251


def test_faults_are_counted(tmp_path: Path) -> None:
    stats = tmp_path / "stats.json"
    run(BUILD, f"--engine scalar --fault slow@5 --slow-ms 20 --stats {stats}", "rate", 49)
    unit = read_stats(stats)["cards"][0]["units"][0]
    assert unit["runs"] == 50 and unit["faults"]["slow"] == 10
    assert unit["busy_s"] >= 10 * 0.02


def test_resets_and_deaths_are_counted(tmp_path: Path) -> None:
    stats = tmp_path / "stats.json"
    run(BUILD, f"--units 2 --fault hang@3 --stats {stats}", "reset")
    card = read_stats(stats)["cards"][0]
    assert card["resets"] == 1 and card["units"][0]["stopped"] == 1 and card["deaths"] == 0
    run(BUILD, f"--fault crash@2 --revive-ms 50 --stats {stats}", "crash")
    card = read_stats(stats)["cards"][0]
    assert card["deaths"] == 1 and card["units"][0]["faults"]["crash"] == 1


def test_seeded_faults_differ_and_repeat(tmp_path: Path) -> None:
    counts = []
    for seed in (1, 1, 2):
        stats = tmp_path / "stats.json"
        run(BUILD, f"--engine scalar --fault slow@10 --slow-ms 0 --seed {seed} --stats {stats}", "rate", 400)
        counts.append(read_stats(stats)["cards"][0]["units"][0]["faults"]["slow"])
    assert counts[0] == counts[1]
    assert all(15 <= count <= 80 for count in counts), counts


def wait_for(condition, what: str) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def test_power(tmp_path: Path) -> None:
    """An idle card takes its idle power, a busy one more; the files are those of the kernel, there before the command is and gone with the cards."""
    shown = subprocess.run(command(BUILD, "--cards 3 --power 10,30/12.5,40", "sh", "-c", 'cd $XNOR_VCARD_SYSFS && pwd && find . -type f -exec grep -H "" {} +'),
                           env=environment(), capture_output=True, text=True, check=True).stdout.splitlines()
    devices = "./bus/pci/devices"
    assert sorted(shown[1:]) == sorted(f"{devices}/ffff:0{n}:00.1/{file}" for n, power in ((1, 10_000_000), (2, 12_500_000), (3, 12_500_000))
                                       for file in ("vendor:0x10ee", "hwmon/hwmon0/name:xnor_vcard", f"hwmon/hwmon0/power1_input:{power}"))
    assert not Path(shown[0]).parent.exists()
    sensor, stats = tmp_path / "sys" / devices / "ffff:01:00.1/hwmon/hwmon0/power1_input", tmp_path / "stats.json"
    seen = []
    options = f"--power 10,30 --fault hang@2 --revive-ms 100 --stats {stats}"
    with running([BUILD / "xnor-vcard", "serve", *options.split(), tmp_path]):
        wait_for(sensor.exists, "no sensor")
        mine = {**environment(), "XILINX_XRT": str(BUILD / "vcard/xrt"), "XNOR_VCARD_DIR": str(tmp_path), "XNOR_VCARD_CARDS": "1", "XNOR_VCARD_XCLBIN": str(tmp_path / "xnor.xclbin")}
        with subprocess.Popen([BUILD / "tests/vcard/card_test", "hang"], env=mine, stdout=subprocess.DEVNULL) as busy:
            while busy.poll() is None:  # a hung unit is busy for more than half a second
                seen.append(int(sensor.read_text()))
                time.sleep(0.01)
            assert busy.returncode == 0
        assert max(seen) > 25_000_000, max(seen)
        # Energy is the same model's: idle power all the time, and what being busy adds to it. A dead card has no sensor.
        after = before = read_stats(stats)
        while after["uptime_s"] < before["uptime_s"] + 0.5:
            time.sleep(0.02)
            after = read_stats(stats)
        assert after["cards"][0]["energy_j"] - before["cards"][0]["energy_j"] == pytest.approx(10 * (after["uptime_s"] - before["uptime_s"]), rel=0.02)
        os.kill(after["cards"][0]["process"], signal.SIGKILL)
        wait_for(lambda: not sensor.exists(), "a dead card has a sensor")
        wait_for(sensor.exists, "a card that is back has none")


@pytest.mark.parametrize("script,status", [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 137)])
def test_exit_status_is_the_commands(script: str, status: int) -> None:
    assert subprocess.run(command(BUILD, "", "sh", "-c", script)).returncode == status


def test_no_command() -> None:
    done = subprocess.run(command(BUILD, "", "/nonexistent/program"), capture_output=True, text=True)
    assert done.returncode == 127 and "/nonexistent/program" in done.stderr


@pytest.mark.parametrize("arguments", [[], ["fly"], ["run"], ["run", "--cards", "0", "--", "true"], ["run", "--fault", "hang", "--", "true"],
                                       ["run", "--fault", "melt@3", "--", "true"], ["run", "--geometry", "9T", "--", "true"], ["run", "--power", "10", "--", "true"],
                                       ["run", "--wings", "--", "true"], ["serve"], ["xclbin"], ["run", "--cards"]], ids=" ".join)
def test_wrong_command_line(arguments: list[str]) -> None:
    done = subprocess.run([BUILD / "xnor-vcard", *arguments], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("xnor-vcard: ")


def test_help() -> None:
    for arguments in (["--help"], ["run", "--help"]):
        done = subprocess.run([BUILD / "xnor-vcard", *arguments], capture_output=True, text=True)
        assert done.returncode == 0 and "--geometry" in done.stdout and not done.stderr


def test_signals_reach_the_command(tmp_path: Path) -> None:
    """The command ends as it likes, then the cards; nothing is left behind."""
    started = tmp_path / "started"
    script = f"trap 'echo got it; exit 5' TERM; echo $XNOR_VCARD_DIR $XILINX_XRT > {started}.new; mv {started}.new {started}; while :; do sleep 0.05; done"
    with running([*command(BUILD, "--cards 2", "sh", "-c", script)], 5, stdout=subprocess.PIPE) as process:
        wait_for(started.exists, "no start")
        folder, xrt = map(Path, started.read_text().split())
        assert (folder / "card-0").is_socket() and (folder / "card-1").is_socket() and (folder / "xnor.xclbin").exists()
        assert (xrt / "lib/libxrt_core.so.2").exists()
        process.send_signal(signal.SIGTERM)
        assert process.stdout and process.stdout.read() == "got it\n"
        process.wait(TIMEOUT_S)
    assert not folder.exists()


def test_serve(tmp_path: Path) -> None:
    """Cards without a command, for programs that are started elsewhere; a card that was killed comes back."""
    stats = tmp_path / "stats.json"
    with running([BUILD / "xnor-vcard", "serve", "--revive-ms", "50", "--stats", stats, tmp_path]):
        wait_for(lambda: stats.exists() and (tmp_path / "card-0").is_socket(), "no card")
        first = read_stats(stats)["cards"][0]["process"]
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: read_stats(stats)["cards"][0]["process"] not in (0, first), "it did not come back")
        programs = {**environment(), "XILINX_XRT": str(BUILD / "vcard/xrt"), "XNOR_VCARD_DIR": str(tmp_path), "XNOR_VCARD_CARDS": "1",
                    "XNOR_VCARD_XCLBIN": str(tmp_path / "xnor.xclbin")}
        done = subprocess.run([BUILD / "tests/vcard/card_test", "end"], env=programs, capture_output=True, text=True, timeout=TIMEOUT_S)
        assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stats.json"]


def packet(op: int, a: int = 0, b: int = 0, tag: int = 1) -> bytes:
    return struct.pack("<IIQQ", op, tag, a & 2**64 - 1, b & 2**64 - 1)


@pytest.mark.parametrize("seed", range(3))
def test_garbage(build: Path, tmp_path: Path, seed: int) -> None:
    """A host that sends anything, on several connections, some of which end in the middle: the card goes on serving others."""
    random = Random(seed)
    values = [0, 1, 2, 31, 32, 33, 0x800000, 0x800010, 0x80FFFC, 0x810000, 0x82FFFF, 2**32 - 1, 0x4000000000, 0x4000000FFF, 2**63, 2**64 - 1]
    with running([build / "xnor-vcard", "serve", "--units", "2", "--memory", "16", tmp_path]) as process:
        wait_for((tmp_path / "xnor.xclbin").exists, "no start")
        wait_for((tmp_path / "card-0").is_socket, "no card")
        time.sleep(0.05)
        first = sorted(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())
        for _ in range(8):
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
                connection.connect(str(tmp_path / "card-0"))
                for _ in range(200):
                    n = random.choice([1, 1, 1, 2, 64, 65])
                    data = b"".join(packet(random.choice([*range(12), 32, 33, 34, 2**32 - 1]), random.choice(values), random.choice(values)) for _ in range(n))
                    data = data[: random.choice([len(data), len(data), len(data) - 1, 3])]
                    try:
                        connection.send(data, socket.MSG_DONTWAIT)
                    except (BlockingIOError, BrokenPipeError, ConnectionResetError):
                        break  # it does not read answers, so the card may cut it off
        programs = {**environment(), "XILINX_XRT": str(build / "vcard/xrt"), "XNOR_VCARD_DIR": str(tmp_path), "XNOR_VCARD_CARDS": "1",
                    "XNOR_VCARD_XCLBIN": str(tmp_path / "xnor.xclbin")}
        done = subprocess.run([build / "tests/vcard/card_test", "end", "2"], env=programs, capture_output=True, text=True, timeout=TIMEOUT_S)
        assert done.returncode == 0, done.stdout + done.stderr
        assert sorted(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()) == first, "the card died"


class Host:
    """A connection to a card, without XRT."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(60)
        self.socket.connect(str(path))
        hello, files, _, _ = socket.recv_fds(self.socket, 64, 1)
        self.memory = mmap.mmap(files[0], struct.unpack("<IIIIQQ", hello)[4])
        os.close(files[0])

    def ask(self, op: int, a: int = 0, b: int = 0, file: int | None = None) -> tuple[int, int]:
        """The answer's a, which is signed, and b."""
        if file is None:
            self.socket.send(packet(op, a, b))
        else:
            socket.send_fds(self.socket, [packet(op, a, b)], [file])
        while True:
            op, _, a, b = struct.unpack("<IIqQ", self.socket.recv(64 * 24)[:24])
            if op == REPLY:
                return a, b

    def load(self, xclbin: bytes) -> int:
        with tempfile.TemporaryFile() as file:
            file.write(xclbin)
            file.flush()
            return self.ask(LOAD, len(xclbin), file=file.fileno())[0]

    def close(self) -> None:
        self.memory.close()
        self.socket.close()


WRITE, READ, LOAD, OPEN_UNIT, REPLY = 1, 2, 5, 6, 32
UNITS, MEMORY = 0x800000, 0x4000000000


@contextlib.contextmanager
def served(build: Path, folder: Path, options: str) -> Iterator[Host]:
    """A card; at the end it must still live."""
    with running([build / "xnor-vcard", "serve", *options.split(), folder]):
        wait_for((folder / "card-0").is_socket, "no card")
        wait_for(lambda: connects(folder / "card-0"), "no card")
        with contextlib.closing(Host(folder / "card-0")) as host:
            yield host
            assert host.ask(READ, UNITS)[0] == 0, "the card died"


def connects(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        return connection.connect_ex(str(path)) == 0


UUID_AT = 416  # offsetof(struct axlf, m_header.uuid)


def sealed(xclbin: bytes) -> bytes:
    blank = xclbin[:UUID_AT] + bytes(16) + xclbin[UUID_AT + 16 :]
    return xclbin[:UUID_AT] + hashlib.sha256(blank).digest()[:16] + xclbin[UUID_AT + 16 :]


def test_damaged_xclbins(build: Path, tmp_path: Path) -> None:
    """Also with the UUID made right, so that what lies behind it is looked at: the card refuses or takes it, and lives."""
    random = Random(1)
    with served(build, tmp_path, "--memory 16 --units 4 --engine scalar") as host:
        whole = (tmp_path / "xnor.xclbin").read_bytes()
        assert sealed(whole) == whole
        assert host.load(whole) == 0
        for i in range(400):
            data = bytearray(whole)
            for _ in range(random.choice([1, 1, 2, 5])):
                at = random.randrange(448, 456 + 8 * 40) if random.random() < 0.6 else random.randrange(len(data))
                data[at] = random.choice([0, 1, 0x7F, 0xFF, random.randrange(256)])
            if i % 4 == 0:
                del data[random.randrange(len(data)) :]
                data += bytes(max(0, 500 - len(data)))
                data[304:312] = struct.pack("<Q", len(data))
            assert host.load(sealed(bytes(data))) in (0, -errno.EINVAL)
            if bytes(data) != whole:
                assert host.load(bytes(data)) == -errno.EINVAL
        assert host.load(b"") == host.load(b"x") == -errno.EINVAL
        assert host.ask(LOAD, 1000)[0] == -errno.EINVAL
        assert host.load(whole) == 0


def test_random_programs(build: Path, tmp_path: Path) -> None:
    """Descriptors of anything, as a host may have them in card memory: each run ends, with a status."""
    random = Random(2)
    numbers = [0, 0, 1, 1, 1, 2, 3, 4, 8, 16, 17, 63, 64, 255, 4096, 65536, 2**31, 2**32 - 1]
    with served(build, tmp_path, "--memory 1 --engine scalar --geometry P2,PI1,PR1,AM64,RM64,WB16") as host:
        assert host.load((tmp_path / "xnor.xclbin").read_bytes()) == 0 and host.ask(OPEN_UNIT, 0)[0] == 0
        errors = set()
        for _ in range(300):
            words = [[random.randrange(8), random.choice([0, 0, 1 << random.randrange(14)]), random.randrange(5)] + [random.choice(numbers) if random.random() < 0.3 else 1 for _ in range(29)]
                     for _ in range(random.randrange(1, 5))]
            program = b"".join(struct.pack("<32I", *w) for w in words) + (bytes(128) if random.random() < 0.9 else b"")
            host.memory[: len(program)] = program
            host.memory[8192 : 8192 + 64] = b"\xee" * 64
            registers = {0x10: MEMORY, 0x1C: MEMORY + 16384, 0x28: MEMORY + 65536, 0x34: MEMORY + 131072, 0x58: MEMORY + 8192}
            writes = b"".join(packet(WRITE, UNITS + at, value & 2**32 - 1) + packet(WRITE, UNITS + at + 4, value >> 32) for at, value in registers.items())
            for at, value in ((0x40, random.randrange(4)), (0x48, random.choice([0, 1, 64, 1000])), (0x50, random.choice([0, 1, 16, 100])), (0, 1)):
                writes += packet(WRITE, UNITS + at, value)
            host.socket.send(writes)
            wait_for(lambda: host.ask(READ, UNITS)[1] & 2, "it does not end")
            error, _, _, version = struct.unpack("<4I", host.memory[8192 : 8192 + 16])
            assert error <= 7 or error == 0x100
            assert version >> 16 == 1
            errors.add(error)
        assert {0, 1, 2, 3} <= errors, errors


def test_without_cards() -> None:
    """No card: XRT finds no device, and says so."""
    program = {**environment(), "XILINX_XRT": str(BUILD / "vcard/xrt")}
    done = subprocess.run([BUILD / "tests/vcard/card_test", "hang"], env=program, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 1 and "device 0" in done.stdout
