# SPDX-License-Identifier: Apache-2.0
"""Pictures to input tensors: the daemon's decoder (through tests/tools/image_tensor) and train/xnortrain/images.py give the same bytes, and Pillow's own resize
is a third witness; broken and hostile files get a clear error and no memory. $XN_SEED repeats a run."""

from __future__ import annotations

import os
import random
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

import pictures
from lifecycle_support import daemon
from pictures import chunk, ihdr, png

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("XN_BUILD", ROOT / "build/release"))
SEED = int(os.environ.get("XN_SEED") or time.time())
RANDOM_PICTURES = 400
MAX_PIXELS = 1 << 22
NOISE = np.random.default_rng(1).integers(0, 256, (61, 83, 3), np.uint8)
# Resident bytes that many hostile files may add once the decoder is warm: scratch that it keeps, and the allocator's slack (a sanitizer's is larger).
GROWTH_BYTES_MAX = (64 if {"asan", "tsan"} & set(BUILD.parts) else 16) << 20

sys.path.insert(0, str(ROOT / "train"))

from xnortrain import images  # noqa: E402
from xnortrain.xnorfile import Network  # noqa: E402

Spec = tuple[tuple[int, int, int], dict[str, Any], str]


class Decoder:
    """tests/tools/image_tensor, one process for many pictures."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.models: dict[str, Path] = {}
        # A sanitizer keeps freed memory for a while, by default much of it.
        options = f"{os.environ.get('ASAN_OPTIONS', 'allocator_may_return_null=1')}:quarantine_size_mb=8"
        self.process = subprocess.Popen([str(ROOT / BUILD / "tests/tools/image_tensor"), str(MAX_PIXELS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True, env={**os.environ, "ASAN_OPTIONS": options})

    def model(self, spec: Spec) -> Path:
        path = self.models.setdefault(repr(spec), self.folder / f"{len(self.models)}.xnor")
        if not path.exists():
            shape, image, dtype = spec
            net = Network(shape, dtype)
            net.logits(net.global_avgpool(net.input))
            net.save(path, {"name": "m", "input": {"image": image}})
        return path

    def __call__(self, data: bytes, spec: Spec) -> tuple[str, int, str, np.ndarray | None]:
        """"ok" or the name of the error, resident bytes, message, tensor."""
        (self.folder / "picture").write_bytes(data)
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(f"{self.model(spec)} {self.folder / 'picture'} {self.folder / 'tensor'}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"the decoder died with {self.process.wait()}"
        verdict, resident, message = line.rstrip("\n").split(" ", 2)
        shape, _, dtype = spec
        tensor = np.fromfile(self.folder / "tensor", dtype).reshape(shape) if verdict == "ok" else None
        return verdict, int(resident), message, tensor

    def tensor(self, data: bytes, spec: Spec) -> np.ndarray:
        verdict, _, message, tensor = self(data, spec)
        assert verdict == "ok" and tensor is not None, message
        return tensor


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Decoder]:
    program = Decoder(tmp_path_factory.mktemp("image"))
    yield program
    program.process.communicate(timeout=60)
    assert program.process.returncode == 0


def spec(h: int, w: int, color: str = "rgb", dtype: str = "uint8", **image: Any) -> Spec:
    return (h, w, 3 if color == "rgb" else 1), {"color": color, **image}, dtype


def random_spec(r: np.random.Generator) -> Spec:
    color, dtype = str(r.choice(["rgb", "gray"])), str(r.choice(["uint8", "int8"]))
    channels = 3 if color == "rgb" else 1
    image: dict[str, Any] = {"fit": str(r.choice(["stretch", "crop", "pad"]))}
    if r.integers(2):
        shift = int(r.integers(0, 25))
        size = 1 << min(24, shift + 1)
        image |= {"multiplier": r.integers(-size, size + 1, channels).tolist(), "offset": r.integers(-size * 8, size * 8 + 1, channels).clip(-1 << 24, 1 << 24).tolist(),
                  "shift": shift}
    return spec(pictures.random_side(r, 96), pictures.random_side(r, 96), color, dtype, **image)


def assert_same(decoder: Decoder, data: bytes, wanted: Spec, what: str = "") -> np.ndarray:
    tensor = decoder.tensor(data, wanted)
    python = images.decode(data, *wanted)
    different = np.argwhere(tensor != python)
    assert not len(different), f"{what} to {wanted}: {len(different)} elements differ, first at {different[0]}"
    return tensor


def test_random_pictures(decoder: Decoder) -> None:
    print(f"XN_SEED={SEED}")
    r = np.random.default_rng(SEED)
    for index in range(RANDOM_PICTURES):
        name, data = pictures.random_picture(r, 400)
        assert_same(decoder, data, random_spec(r), f"XN_SEED={SEED}, picture {index}: {name}")


def test_dct_scaling(decoder: Decoder) -> None:
    """Every DCT scale, on both sides of where it begins."""
    seen = set()
    r = np.random.default_rng(2)
    for wanted in (spec(1, 1), spec(2, 3, "gray"), spec(16, 24), spec(28, 28, "gray", fit="crop")):
        (h, w, _), _, _ = wanted
        for s in (1, 2, 4, 8):
            for nudge in (-1, 0, 1):
                size = max(1, 2 * w * s + nudge), 2 * h * s + 1
                data = pictures.jpeg(pictures.random_samples(r, size[1], size[0], 3, 255).astype(np.uint8))
                seen.add(images.jpeg_divisor(size, (w, h)))
                assert_same(decoder, data, wanted, f"{size}")
    assert seen == {1, 2, 4, 8}
    for side in range(1, 70):  # results so small that their size does not tell the scale
        data = pictures.jpeg(pictures.random_samples(r, side, side, 3, 255).astype(np.uint8))
        assert_same(decoder, data, spec(1, 1), f"{side}")


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("orientation", range(0, 10))
def test_orientation(decoder: Decoder, orientation: int, big_endian: bool) -> None:
    data = pictures.jpeg(NOISE, orientation=orientation, big_endian=big_endian, quality=95)
    tensor = assert_same(decoder, data, spec(20, 16))
    with Image.open(decoder.folder / "picture") as opened:
        upright = np.asarray(ImageOps.exif_transpose(opened).resize((16, 20), Image.BILINEAR))
    assert np.array_equal(tensor, upright)


@pytest.mark.parametrize("body", [
    b"Exif\0\0", b"Exif\0\0II*\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0XX*\0\x08\0\0\0", b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(65000),
    pictures.exif(6)[:-4], pictures.exif(6)[:24], b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\4\0\0\0\1\0\6\0\0", b"http://ns.adobe.com/xap/1.0/\0",
], ids=["nothing", "head", "offset", "order", "huge", "no next", "cut", "type", "xmp"])
def test_exif_without_sense_is_upright(decoder: Decoder, body: bytes) -> None:
    plain = pictures.jpeg(NOISE)
    data = pictures.with_segment(plain, 0xE1, body)
    wanted = images.orientation(data)
    assert wanted == (6 if body == pictures.exif(6)[:-4] else 1)
    assert_same(decoder, data, spec(20, 16))
    # The first segment of EXIF counts, wherever it stands.
    assert_same(decoder, pictures.with_segment(pictures.with_segment(plain, 0xE1, pictures.exif(3)), 0xE1, body), spec(20, 16))


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("color", "depth"), [(color, depth) for color, depths in pictures.DEPTHS.items() for depth in depths])
def test_every_kind_of_png(decoder: Decoder, color: int, depth: int, interlaced: bool) -> None:
    r = np.random.default_rng(color * 100 + depth)
    palette = r.integers(0, 256, (2**depth, 3)) if color == pictures.PALETTE else None
    samples = r.integers(0, 2**depth, (19, 23, pictures.CHANNELS[color]), np.uint16)
    data = png(samples, color, depth, interlaced=interlaced, palette=palette)
    high = samples >> 8 if depth == 16 else samples if palette is not None else samples * (255 // (2**depth - 1))
    rgb = palette[samples[:, :, 0]] if palette is not None else high[:, :, :3] if high.shape[2] >= 3 else high[:, :, :1].repeat(3, axis=2)
    assert np.array_equal(assert_same(decoder, data, spec(19, 23)), rgb)
    assert_same(decoder, data, spec(19, 23, "gray"))
    assert_same(decoder, data, spec(7, 9, "gray"))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 1}, {"subsampling": 2}, {"restart_marker_rows": 1}, {"quality": 1}, {"quality": 100}],
                         ids=str)
def test_kinds_of_jpeg(decoder: Decoder, options: dict[str, Any]) -> None:
    for pixels in (NOISE, NOISE[:, :, :1]):
        data = pictures.jpeg(pixels, **options)
        for color in ("rgb", "gray"):
            full = assert_same(decoder, data, spec(61, 83, color))
            with Image.open(decoder.folder / "picture") as opened:
                if color == "gray":
                    opened.draft("L", opened.size)
                assert np.array_equal(full.squeeze(), np.asarray(opened.convert("RGB" if color == "rgb" else "L")))
            assert_same(decoder, data, spec(9, 10, color))
    assert_same(decoder, pictures.jpeg_in_rgb(NOISE), spec(61, 83, "gray"))


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1), (65535, 1), (1, 65535), (3, 2), (640, 2), (255, 256)], ids=str)
def test_aspect_ratios(decoder: Decoder, size: tuple[int, int]) -> None:
    r = np.random.default_rng(size[0])
    w, h = size
    data = png(pictures.random_samples(r, h, w, 3, 255), pictures.RGB, 8)
    flat = pictures.jpeg(pictures.random_samples(r, min(h, 65500), min(w, 65500), 3, 255).astype(np.uint8))
    for how in ("stretch", "crop", "pad"):
        for shape in ((1, 1), (28, 28), (5, 40), (40, 5)):
            for color in ("rgb", "gray"):
                assert_same(decoder, data, spec(*shape, color, fit=how), f"{size}")
                assert_same(decoder, flat, spec(*shape, color, fit=how), f"{size}")


@pytest.mark.parametrize(("how", "wanted"), [
    ("stretch", (lambda im: im.resize((30, 20), Image.BILINEAR))),
    ("crop", (lambda im: im.crop((0, 3, 83, 58)).resize((30, 20), Image.BILINEAR))),
    ("pad", (lambda im: ImageOps.expand(im.resize((27, 20), Image.BILINEAR), (1, 0, 2, 0)))),
])
def test_fits_as_pillow_does_them(decoder: Decoder, how: str, wanted: Any) -> None:
    tensor = assert_same(decoder, png(NOISE.astype(np.uint16), pictures.RGB, 8), spec(20, 30, fit=how))
    assert np.array_equal(tensor, np.asarray(wanted(Image.fromarray(NOISE))))


def test_resize_is_pillows() -> None:
    print(f"XN_SEED={SEED}")
    r = np.random.default_rng(SEED)
    for _ in range(300):
        h, w, c = pictures.random_side(r, 500), pictures.random_side(r, 500), int(r.choice([1, 3]))
        pixels = pictures.random_samples(r, h, w, c, 255).astype(np.uint8)
        to_w, to_h = pictures.random_side(r, 300), pictures.random_side(r, 300)
        pillow = np.asarray(Image.fromarray(pixels[:, :, 0] if c == 1 else pixels).resize((to_w, to_h), Image.BILINEAR))
        assert np.array_equal(images.resize(pixels, to_w, to_h).squeeze(), pillow.squeeze()), f"XN_SEED={SEED}: {w}x{h}x{c} to {to_w}x{to_h}"


@pytest.mark.parametrize("image", [
    {"multiplier": [2], "offset": [-255], "shift": 1}, {"multiplier": [-(1 << 24)], "offset": [1 << 24], "shift": 24}, {"multiplier": [1 << 24], "offset": [-(1 << 24)]},
    {"multiplier": [1], "offset": [-128]}, {"multiplier": [3], "offset": [1], "shift": 2},
], ids=str)
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_normalisation(decoder: Decoder, image: dict[str, Any], dtype: str) -> None:
    ramp = np.arange(256, dtype=np.uint16).reshape(16, 16, 1)
    tensor = assert_same(decoder, png(ramp, pictures.GREY, 8), spec(16, 16, "gray", dtype, **image))
    shift = image.get("shift", 0)
    limits = np.iinfo(dtype)
    for p, got in enumerate(tensor.ravel().tolist()):  # in Python's own integers
        exact = image["multiplier"][0] * p + image["offset"][0]
        assert got == min(max((2 * exact + (1 << shift)) >> (shift + 1) if shift else exact, limits.min), limits.max)


# ---- refused ------------------------------------------------------------------------------------------------------------------------------------------

GREY_SPEC = spec(8, 8, "gray")


GOOD = pictures.jpeg(NOISE)


def refused(decoder: Decoder, data: bytes, wanted: Spec = GREY_SPEC) -> tuple[str, str]:
    """Name and text of the error; and the same decoder takes the next picture as if nothing had been."""
    verdict, _, message, _ = decoder(data, wanted)
    assert verdict != "ok", "accepted"
    assert np.array_equal(decoder.tensor(GOOD, GREY_SPEC), images.decode(GOOD, *GREY_SPEC)), message
    assert message.startswith(("JPEG: ", "PNG: ", "neither a JPEG nor a PNG")) and len(message) > 10, message
    return verdict, message


def small_files() -> dict[str, bytes]:
    pixels = NOISE[:9, :11]
    return {
        "jpeg": pictures.jpeg(pixels, quality=40),
        "progressive": pictures.jpeg(pixels, quality=40, progressive=True),
        "png": png(pixels.astype(np.uint16), pictures.RGB, 8),
        "interlaced": png(pixels[:, :, :1].astype(np.uint16), pictures.GREY, 8, interlaced=True),
    }


@pytest.mark.parametrize("kind", small_files())
def test_truncated_at_every_byte(decoder: Decoder, kind: str) -> None:
    data = small_files()[kind]
    decoder.tensor(data, GREY_SPEC)
    warm = None
    complete = len(data) - (0 if data[:1] == b"\xff" else 4)  # the checksum of IEND may be missing
    for bytes_ in range(complete):
        verdict, message = refused(decoder, data[:bytes_])
        if bytes_ == 0:
            assert (verdict, message) == ("EMEDIUMTYPE", "neither a JPEG nor a PNG")
        elif bytes_ >= 8:
            assert verdict == "EBADMSG", message
        warm = warm or decoder(data[:bytes_], GREY_SPEC)[1]
    assert warm is not None and decoder(data, GREY_SPEC)[1] - warm <= GROWTH_BYTES_MAX


@pytest.mark.parametrize("kind", small_files())
def test_damaged_anywhere(decoder: Decoder, kind: str) -> None:
    """No damage crashes; in a PNG each is found, by a checksum, but in the last of them."""
    data = bytearray(small_files()[kind])
    print(f"XN_SEED={SEED}")
    chooser = random.Random(SEED)
    for at in range(len(data)):
        bit = 1 << chooser.randrange(8)
        data[at] ^= bit
        verdict, _, message, _ = decoder(bytes(data), GREY_SPEC)
        assert verdict != "ok" or kind in ("jpeg", "progressive") or at >= len(data) - 4, f"XN_SEED={SEED}: byte {at}: accepted"
        assert verdict in ("ok", "EBADMSG", "EMEDIUMTYPE", "EFBIG"), f"XN_SEED={SEED}: byte {at}: {verdict} {message}"
        data[at] ^= bit


def test_wrong_crc(decoder: Decoder) -> None:
    data = small_files()["png"]
    for kind in (b"IHDR", b"IDAT"):
        at = data.index(kind)
        end = at + 4 + int.from_bytes(data[at - 4:at], "big")
        verdict, message = refused(decoder, data[:end] + bytes([data[end] ^ 1]) + data[end + 1:])
        assert verdict == "EBADMSG" and "checksum" in message, message


def test_cmyk(decoder: Decoder) -> None:
    path = decoder.folder / "cmyk.jpg"
    Image.new("CMYK", (20, 20), (1, 2, 3, 4)).save(path)
    verdict, message = refused(decoder, path.read_bytes())
    assert verdict == "EMEDIUMTYPE" and "CMYK" in message


@pytest.mark.parametrize(("old", "new", "verdict"), [
    (b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c", "EMEDIUMTYPE"), (b"\xff\xc0", b"\xff\xc3", "EMEDIUMTYPE"), (b"\xff\xc0", b"\xff\xc5", "EMEDIUMTYPE"),
    (b"\x08\0\x09\0\x0b\x03", b"\x08\0\x00\0\x0b\x03", "EBADMSG"), (b"\x08\0\x09\0\x0b\x03", b"\x08\0\x09\0\x00\x03", "EBADMSG"),
], ids=["12 bits", "lossless", "hierarchical", "no height", "no width"])
def test_other_jpegs(decoder: Decoder, old: bytes, new: bytes, verdict: str) -> None:
    data = small_files()["jpeg"]
    assert data.count(old) == 1
    assert refused(decoder, data.replace(old, new))[0] == verdict


@pytest.mark.parametrize("data", [b"", b"GIF89a" + bytes(100), b"RIFF\0\0\0\0WEBPVP8 ", b"BM" + bytes(50), b"\xff\xd8", b"<svg/>"], ids=str)
def test_other_formats(decoder: Decoder, data: bytes) -> None:
    assert refused(decoder, data)[0] == "EMEDIUMTYPE"


def resize_claim(jpeg: bytes, width: int, height: int) -> bytes:
    at = next(at for marker in (b"\xff\xc0", b"\xff\xc2") if (at := jpeg.find(marker)) >= 0)
    return jpeg[:at + 5] + struct.pack(">HH", height, width) + jpeg[at + 9:]


def claims() -> dict[str, tuple[bytes, str]]:
    """Small files that claim much: name -> (file, verdict)."""
    small = small_files()
    line = chunk(b"IDAT", zlib.compress(bytes(1 << 20)))
    end = chunk(b"IEND", b"")
    signature = pictures.PNG_SIGNATURE
    fits = 2047  # squared, just within MAX_PIXELS
    return {
        "jpeg of 65500": (resize_claim(small["jpeg"], 65500, 65500), "EFBIG"),
        "jpeg of 65535": (resize_claim(small["jpeg"], 65535, 65535), "EBADMSG"),
        "jpeg at the limit": (resize_claim(small["jpeg"], fits, fits), "EBADMSG"),
        "progressive at the limit": (resize_claim(small["progressive"], fits, fits), "EBADMSG"),
        "png of 65535": (signature + ihdr(65535, 65535) + line + end, "EFBIG"),
        "png of 2^31 - 1": (signature + ihdr((1 << 31) - 1, (1 << 31) - 1, 16, pictures.RGB_ALPHA) + line + end, "EFBIG"),
        "png of one row": (signature + ihdr(MAX_PIXELS, 1, 16, pictures.RGB_ALPHA) + line + end, "EFBIG"),
        "png of one column": (signature + ihdr(1, MAX_PIXELS, 16, pictures.RGB_ALPHA) + line + end, "EFBIG"),
        "png at the limit": (signature + ihdr(fits, fits, 16, pictures.RGB_ALPHA) + line + end, "EBADMSG"),
        "interlaced at the limit": (signature + ihdr(fits, fits, 16, pictures.RGB_ALPHA, 1) + line + end, "EBADMSG"),
        "png of nothing": (signature + ihdr(0, 5) + line + end, "EBADMSG"),
    }


def bombs() -> dict[str, bytes]:
    """PNG files with much in a side chunk."""
    bomb = zlib.compress(bytes(64 << 20), 9)
    body = small_files()["png"]
    at = 8 + 25  # behind IHDR
    made = {
        "iCCP": chunk(b"iCCP", b"p\0\0" + bomb),
        "zTXt": chunk(b"zTXt", b"k\0\0" + bomb),
        "iTXt": chunk(b"iTXt", b"k\0\1\0\0\0" + bomb),
        "many zTXt": b"".join(chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(1 << 19))) for _ in range(200)),
        "tEXt": chunk(b"tEXt", b"k\0" + b"x" * (2 << 20)),
        "eXIf": chunk(b"eXIf", b"II*\0" + bytes(2 << 20)),
        "unknown": chunk(b"prVt", bytes(2 << 20)),
    }
    return {name: body[:at] + extra + body[at:] for name, extra in made.items()}


def test_claims(decoder: Decoder) -> None:
    for name, (data, wanted) in claims().items():
        assert len(data) < 2048, name
        verdict, message = refused(decoder, data)
        assert verdict == wanted, f"{name}: {message}"


def test_bombs(decoder: Decoder) -> None:
    """Too much beside the picture is refused, or skipped unread; it is never held."""
    for name, data in bombs().items():
        verdict, _, message, tensor = decoder(data, GREY_SPEC)
        assert verdict in ("ok", "EFBIG", "EBADMSG"), f"{name}: {verdict} {message}"
        if verdict == "ok":
            assert np.array_equal(tensor, decoder.tensor(small_files()["png"], GREY_SPEC)), name


def test_scans_are_limited(decoder: Decoder) -> None:
    """Their work is not in proportion to the file."""
    for scans, side in ((5000, 64), (100, 64), (100, 2047)):
        assert refused(decoder, pictures.many_scans(scans, side, side)) == ("EFBIG", "JPEG: more than 100 scans")
    decoder.tensor(pictures.many_scans(99, 2047, 2047), GREY_SPEC)
    thumbnail = pictures.many_scans(200, 64, 64)  # scans within a segment are not the picture's
    decoder.tensor(pictures.with_segment(GOOD, 0xE1, pictures.exif(1) + thumbnail), GREY_SPEC)


def test_no_memory_grows(decoder: Decoder) -> None:
    """Everything hostile, twice: the second round adds nothing."""
    files = [data for data, _ in claims().values()] + [*bombs().values(), pictures.many_scans(5000, 64, 64), pictures.many_scans(99, 2047, 2047)]
    for data in files * 2:
        decoder(data, GREY_SPEC)
    _, warm, _, _ = decoder(files[0], GREY_SPEC)
    most = 0
    for _ in range(10):
        for data in files:
            most = max(most, decoder(data, GREY_SPEC)[1])
    print(f"resident: {warm} bytes warm, {most} at most")
    assert most - warm <= GROWTH_BYTES_MAX


def test_through_the_daemon(tmp_path: Path) -> None:
    """The statuses that clients see, and the same tensor: a network whose logits are its first four pixels."""
    net = Network((2, 2, 1))
    net.logits(net.dense(net.input, np.eye(4, dtype=np.int8), bits=False))
    net.save(tmp_path / "m.xnor", {"name": "m", "input": {"image": {"color": "gray", "fit": "pad"}}})
    Image.new("CMYK", (20, 20), (1, 2, 3, 4)).save(tmp_path / "cmyk.jpg")
    wanted = ((2, 2, 1), {"color": "gray", "fit": "pad"}, "uint8")
    with daemon(tmp_path, {"models": [{"path": str(tmp_path / "m.xnor")}], "limits": {"image_pixels": MAX_PIXELS}}) as d:
        for data in (GOOD, small_files()["interlaced"], pictures.jpeg(NOISE, orientation=6)):
            status, answer = d.infer(data)
            assert status == 200, answer
            pixels = images.decode(data, *wanted).ravel().tolist()
            best = answer["results"][0]
            assert (best["class"], best["logit"]) == (pixels.index(max(pixels)), max(pixels))
        for data, code in ((tmp_path / "cmyk.jpg").read_bytes(), 415), (GOOD[:200], 400), (claims()["png of 65535"][0], 413), (pictures.many_scans(5000, 64, 64), 413):
            status, answer = d.infer(data)
            assert status == code and answer["error"].startswith(("JPEG: ", "PNG: ")), answer
