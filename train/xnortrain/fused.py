# SPDX-License-Identifier: Apache-2.0
"""The work of training in C (train/fused), behind PyTorch's autograd: elementwise passes fused, and convolutions of whole numbers on integer units.

The library is built on first use with the system's C compiler, for this very processor, and kept in the user's cache folder by the hash of its source and flags.
Where there is no compiler, for tensors on a GPU, and with XN_FUSED=0 in the environment, the plain modules of layers.py run instead: they are the definition,
with the same results bit for bit forward."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .layers import StreamScale

FOLDER = Path(__file__).resolve().parent.parent / "fused"
SOURCES = [FOLDER / name for name in ("fused.h", "fused.c", "convolve.c")]
FLAGS = ["-std=c17", "-O3", "-march=native", "-mprefer-vector-width=512", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-fPIC", "-shared", "-w"]
ESTIMATOR_CODES = {"h": 0, "clip": 1, "approxsign": 2}
UNIT = 2.0**-8


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "xnord"


def _processor() -> str:
    """What -march=native depends on."""
    try:
        return next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags"))
    except (OSError, StopIteration):
        return platform.processor()


def build() -> Path | None:
    """The library's path, built if need be; None, with a reason on stderr, when it cannot be."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None or not all(path.exists() for path in SOURCES):
        print("no C compiler: training runs on plain PyTorch, several times slower", file=sys.stderr)
        return None
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in SOURCES) + repr((FLAGS, _processor(), compiler)).encode()).hexdigest()[:16]
    path = _cache_folder() / f"fused-{digest}.so"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    sources = [str(source) for source in SOURCES if source.suffix == ".c"]
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / path.name
        for flags in (FLAGS, [flag for flag in FLAGS if flag != "-fopenmp"]):  # a compiler without OpenMP's runtime: one thread
            done = subprocess.run([compiler, *flags, "-o", str(made), *sources, "-lm"], capture_output=True, text=True)
            if done.returncode == 0:
                made.rename(path)
                return path
    print(f"{FOLDER} does not compile, training runs on plain PyTorch: {done.stderr.strip()}", file=sys.stderr)
    return None


class _Epilogue(ctypes.Structure):
    _fields_ = [("m", ctypes.c_void_p), ("b", ctypes.c_void_p), ("im", ctypes.c_void_p), ("ib", ctypes.c_void_p), ("scale", ctypes.c_double),
                ("a", ctypes.c_void_p), ("slope", ctypes.c_void_p), ("d", ctypes.c_void_p)]


class _Spread(ctypes.Structure):
    _fields_ = [("to_s", ctypes.c_void_p), ("c0", ctypes.c_void_p), ("c1", ctypes.c_void_p)]


@functools.cache
def library() -> Any:
    """The loaded library, or None."""
    if os.environ.get("XN_FUSED") == "0":
        return None
    path = build()
    if path is None:
        return None
    lib = ctypes.CDLL(str(path))
    pointer, size = ctypes.c_void_p, ctypes.c_long
    for name, arguments in {"sign": [pointer] * 3 + [size] * 2, "sign_grad": [pointer] * 6 + [size] * 2 + [ctypes.c_int], "moments": [pointer] * 2 + [size] * 2,
                            "apply": [pointer] * 4 + [size] * 2, "reduce": [pointer] * 5 + [size] * 2, "spread": [pointer] * 7 + [size] * 2,
                            "weight_sign": [pointer] * 2 + [size], "weight_sign_grad": [pointer] * 3 + [size, ctypes.c_int], "adam": [pointer] * 5 + [size],
                            "quantize": [pointer] * 2 + [ctypes.c_double] * 3 + [size], "quantize_grad": [pointer] * 4 + [ctypes.c_double] * 4 + [pointer, size],
                            "down": [pointer] * 2 + [size] * 5, "down_grad": [pointer] * 2 + [size] * 5}.items():
        getattr(lib, f"xn_fused_{name}").argtypes = arguments
    lib.xn_convolve.argtypes = [pointer] * 4
    lib.xn_convolve_grad.argtypes = [pointer] * 8 + [ctypes.c_float]
    return lib


def usable(x: Tensor) -> bool:
    """Whether the library runs for this tensor."""
    return x.device.type == "cpu" and x.dtype == torch.float32 and library() is not None


def convolves(h: Tensor, weight: Tensor, groups: int, gradient: bool) -> bool:
    """Whether Convolve runs for this input and weights [oc][ic][k][k]; gradient: whether h wants one."""
    oc, ic, kernel, _ = weight.shape
    fits = groups == 1 and oc % 16 == 0 and kernel % 2 == 1 and kernel <= 7 and (ic % 16 == 0 or not gradient)
    return fits and usable(h) and bool(library().xn_convolve_available())


def _last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _rows(x: Tensor) -> tuple[int, int]:
    """rows, channels of an NCHW map."""
    return x.numel() // x.shape[1], x.shape[1]


def _check(status: int) -> None:
    if status != 0:
        raise MemoryError("the fused training library found no memory")


def _pointer(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()


# ---- RSign ----------------------------------------------------------------------------------------------------------


class Sign(torch.autograd.Function):
    """(bits of h >= t, h): h comes back so that the gradients of both uses meet in one pass."""

    @staticmethod
    def forward(ctx, h: Tensor, t: Tensor, estimator: str):  # type: ignore[override]
        h = _last(h)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(h, t)
        ctx.estimator = ESTIMATOR_CODES[estimator]
        x = torch.empty_like(h)
        library().xn_fused_sign(h.data_ptr(), t.data_ptr(), x.data_ptr(), *_rows(h))
        return x, h

    @staticmethod
    def backward(ctx, gx: Tensor | None, gh: Tensor | None):  # type: ignore[override]
        h, t = ctx.saved_tensors
        if gx is None:
            return gh, None, None
        gx, gh = _last(gx), None if gh is None else _last(gh)
        dh, dt = torch.empty_like(h), torch.empty(h.shape[1], dtype=torch.float64)
        _check(library().xn_fused_sign_grad(h.data_ptr(), t.data_ptr(), gx.data_ptr(), _pointer(gh), dh.data_ptr(), dt.data_ptr(), *_rows(h), ctx.estimator))
        return dh, dt.float(), None


class WeightSign(torch.autograd.Function):
    """sign of weights [oc][ic][k][k]."""

    @staticmethod
    def forward(ctx, w: Tensor, estimator: str):  # type: ignore[override]
        w = _last(w)
        ctx.save_for_backward(w)
        ctx.estimator = ESTIMATOR_CODES[estimator]
        x = torch.empty_like(w)
        library().xn_fused_weight_sign(w.data_ptr(), x.data_ptr(), w.numel())
        return x

    @staticmethod
    def backward(ctx, g: Tensor):  # type: ignore[override]
        w, = ctx.saved_tensors
        g, dw = _last(g), torch.empty_like(w)
        library().xn_fused_weight_sign_grad(w.data_ptr(), g.data_ptr(), dw.data_ptr(), w.numel(), ctx.estimator)
        return dw, None


class _Adam(ctypes.Structure):
    _fields_ = [(name, ctypes.c_float) for name in ("beta1", "beta2", "decay", "rate", "root", "eps")]


class Adam(torch.optim.Adam):
    """torch.optim.Adam with the step of each parameter in one pass, where the library runs."""

    @torch.no_grad()
    def step(self, closure=None):  # type: ignore[no-untyped-def, override]
        if any(not usable(p) for group in self.param_groups for p in group["params"]):
            return super().step(closure)
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._step_of(p, group)
        return None

    def _step_of(self, p: Tensor, group: dict[str, Any]) -> None:
        state = self.state[p]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"], state["exp_avg_sq"] = (torch.zeros_like(p, memory_format=torch.preserve_format) for _ in range(2))
        state["step"] += 1
        n, (beta1, beta2) = float(state["step"]), group["betas"]
        g, mean, square = (t if t.stride() == p.stride() else torch.empty_like(p).copy_(t) for t in (p.grad, state["exp_avg"], state["exp_avg_sq"]))
        state["exp_avg"], state["exp_avg_sq"] = mean, square
        call = _Adam(beta1, beta2, group["weight_decay"], group["lr"] / (1 - beta1**n), (1 - beta2**n)**0.5, group["eps"])
        library().xn_fused_adam(ctypes.byref(call), p.data_ptr(), g.data_ptr(), mean.data_ptr(), square.data_ptr(), p.numel())


class Quantize(torch.autograd.Function):
    """(int8 counts of h in steps, h), as Sign. `step` is where the gradient goes, m and shift the integers that are applied."""

    @staticmethod
    def forward(ctx, h: Tensor, step: Tensor, m: int, shift: int):  # type: ignore[override]
        h = _last(h)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(h, step)
        ctx.constants = m / UNIT, 2.0 ** (shift - 1) if shift else 0.0, 2.0**-shift
        q = torch.empty_like(h)
        library().xn_fused_quantize(h.data_ptr(), q.data_ptr(), *ctx.constants, h.numel())
        return q, h

    @staticmethod
    def backward(ctx, gq: Tensor | None, gh: Tensor | None):  # type: ignore[override]
        h, step = ctx.saved_tensors
        if gq is None:
            return gh, None, None, None
        gq, gh = _last(gq), None if gh is None else _last(gh)
        dh, total = torch.empty_like(h), torch.empty((), dtype=torch.float64)
        _check(library().xn_fused_quantize_grad(h.data_ptr(), gq.data_ptr(), _pointer(gh), dh.data_ptr(), *ctx.constants, 1 / float(step), total.data_ptr(),
                                                h.numel()))
        return dh, (-total / step.double()**2).to(step.dtype), None, None


# ---- epilogue -------------------------------------------------------------------------------------------------------


def moments(s: Tensor) -> Tensor:
    """[2][c] float64: sums of s and of s*s over the rows."""
    sums = torch.empty(2, s.shape[1], dtype=torch.float64)
    _check(library().xn_fused_moments(s.data_ptr(), sums.data_ptr(), *_rows(s)))
    return sums


class Epilogue(torch.autograd.Function):
    """scale, rounding, residual, saturation and RPReLU in one pass; `scale` is the StreamScale whose coefficients and integers are used."""

    @staticmethod
    def forward(ctx, s: Tensor, h: Tensor | None, scale: "StreamScale", a: Tensor | None, slope: Tensor | None, d: Tensor | None, *parameters: Tensor):  # type: ignore[override]
        s, h = _last(s), None if h is None else _last(h)
        with torch.enable_grad():
            leaves = [p.detach().requires_grad_() for p in parameters]
            statistics: list[Tensor] = []
            if scale.batch_statistics():
                statistics = [v.requires_grad_() for v in scale.statistics(moments(s), _rows(s)[0])]
                scale.note_statistics(*statistics, _rows(s)[0])
            m, b = scale.fold(*leaves, *statistics)
        ctx.save_for_backward(s, h, a, slope, d)
        ctx.leaves, ctx.statistics, ctx.coefficients = leaves, statistics, (m, b)
        ctx.integers = scale.integers() if scale.exact else None
        out = torch.empty_like(s)
        call = Epilogue._call(ctx, a, slope, d)
        library().xn_fused_apply(ctypes.byref(call), s.data_ptr(), _pointer(h), out.data_ptr(), *_rows(s))
        return out

    @staticmethod
    def _call(ctx, a: Tensor | None, slope: Tensor | None, d: Tensor | None) -> _Epilogue:
        """The C structure; ctx keeps the tensors that it points into."""
        m, b = (v.detach().contiguous() for v in ctx.coefficients)
        ctx.keep = [m, b]
        call = _Epilogue(m.data_ptr(), b.data_ptr(), None, None, 1.0, _pointer(a), _pointer(slope), _pointer(d))
        if ctx.integers is not None:
            im, ib, shift = ctx.integers
            ib = ib + (2.0**(shift - 1) if shift else 0.0)
            ctx.keep += [im, ib]
            call.im, call.ib, call.scale = im.data_ptr(), ib.data_ptr(), 2.0**-shift
        return call

    @staticmethod
    def backward(ctx, g: Tensor):  # type: ignore[override]
        s, h, a, slope, d = ctx.saved_tensors
        g = _last(g)
        rows, c = _rows(s)
        call = Epilogue._call(ctx, a, slope, d)
        sums = torch.empty(5, c, dtype=torch.float64)
        _check(library().xn_fused_reduce(ctypes.byref(call), s.data_ptr(), _pointer(h), g.data_ptr(), sums.data_ptr(), rows, c))
        m, b = ctx.coefficients
        wanted = [*ctx.leaves, *ctx.statistics]
        towards = ((sums[0] * UNIT).to(m.dtype), (sums[1] * UNIT).to(b.dtype))
        grads = torch.autograd.grad((m, b), wanted, towards, allow_unused=True) if wanted else ()
        to_s, c0, c1 = (m.detach() * UNIT).contiguous(), torch.zeros(c), torch.zeros(c)
        if ctx.statistics:
            mean, (dmean, dvar) = ctx.statistics[0].detach(), grads[len(ctx.leaves):]
            c0, c1 = ((dmean - 2 * dvar * mean) / rows).float(), (2 * dvar / rows).float()
        ds, dh = torch.empty_like(s), None if h is None else torch.empty_like(h)
        spread = _Spread(to_s.data_ptr(), c0.data_ptr(), c1.data_ptr())
        library().xn_fused_spread(ctypes.byref(call), ctypes.byref(spread), s.data_ptr(), _pointer(h), g.data_ptr(), ds.data_ptr(), _pointer(dh), rows, c)
        act = [None] * 3 if a is None else [sums[2].float(), sums[3].float(), sums[4].float()]
        return ds, dh, None, *act, *grads[:len(ctx.leaves)]


# ---- shortcut -------------------------------------------------------------------------------------------------------


class Down(torch.autograd.Function):
    """Mean of 2x2 on the grid, the channels `copies` times over."""

    @staticmethod
    def forward(ctx, x: Tensor, copies: int):  # type: ignore[override]
        x = _last(x)
        n, c, h, w = x.shape
        ctx.shape, ctx.copies = x.shape, copies
        out = torch.empty((n, c * copies, h // 2, w // 2), memory_format=torch.channels_last)
        library().xn_fused_down(x.data_ptr(), out.data_ptr(), n, h, w, c, copies)
        return out

    @staticmethod
    def backward(ctx, g: Tensor):  # type: ignore[override]
        g = _last(g)
        n, c, h, w = ctx.shape
        dx = torch.empty(ctx.shape, memory_format=torch.channels_last)
        library().xn_fused_down_grad(g.data_ptr(), dx.data_ptr(), n, h, w, c, ctx.copies)
        return dx, None


# ---- convolution ----------------------------------------------------------------------------------------------------


class _Shape(ctypes.Structure):
    _fields_ = [(name, ctypes.c_long) for name in ("n", "h", "w", "ic", "oc", "kernel", "stride")]


class _Source(ctypes.Structure):
    _fields_ = [("h", ctypes.c_void_p), ("t", ctypes.c_void_p), ("m", ctypes.c_double), ("half", ctypes.c_double), ("scale", ctypes.c_double), ("mode", ctypes.c_int),
                ("estimator", ctypes.c_int)]


SOURCE_MODES = {"sign": 0, "int8": 1, "pixels": 2}


class Convolve(torch.autograd.Function):
    """(sums, h): the convolution of what `mode` makes of h with whole numbers `weight`. sign: `parameter` is the thresholds [ic]; int8: the step, with m and shift
    in `integers`; pixels: h itself, whole numbers 0..255, and no gradient goes to it."""

    @staticmethod
    def forward(ctx, h: Tensor, parameter: Tensor | None, weight: Tensor, mode: str, estimator: str, integers: tuple[int, int], stride: int):  # type: ignore[override]
        h, weight = _last(h), _last(weight)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(h, parameter, weight)
        ctx.arguments = mode, estimator, integers, stride
        n, ic, height, width = h.shape
        shape, source = Convolve._structures(ctx, h, parameter, weight)
        out = torch.empty((n, weight.shape[0], (height - 1) // stride + 1, (width - 1) // stride + 1), memory_format=torch.channels_last)
        _check(library().xn_convolve(ctypes.byref(shape), ctypes.byref(source), weight.data_ptr(), out.data_ptr()))
        return out, h

    @staticmethod
    def _structures(ctx, h: Tensor, parameter: Tensor | None, weight: Tensor) -> tuple[_Shape, _Source]:
        mode, estimator, (m, shift), stride = ctx.arguments
        n, ic, height, width = h.shape
        source = _Source(h.data_ptr(), _pointer(parameter), m / UNIT, 2.0 ** (shift - 1) if shift else 0.0, 2.0**-shift, SOURCE_MODES[mode], ESTIMATOR_CODES[estimator])
        return _Shape(n, height, width, ic, weight.shape[0], weight.shape[2], stride), source

    @staticmethod
    def backward(ctx, gs: Tensor | None, gh: Tensor | None):  # type: ignore[override]
        h, parameter, weight = ctx.saved_tensors
        if gs is None:
            return gh, None, None, None, None, None, None
        mode = ctx.arguments[0]
        gs, gh = _last(gs), None if gh is None else _last(gh)
        shape, source = Convolve._structures(ctx, h, parameter, weight)
        dh = None if mode == "pixels" else torch.empty_like(h)
        dw, sums = torch.empty_like(weight), torch.empty(h.shape[1], dtype=torch.float64)
        to_h = 1 / float(parameter) if mode == "int8" else 0.0
        _check(library().xn_convolve_grad(ctypes.byref(shape), ctypes.byref(source), weight.data_ptr(), gs.data_ptr(), _pointer(gh), _pointer(dh), sums.data_ptr(),
                                          dw.data_ptr(), to_h))
        dp = {"sign": lambda: (-sums).float(), "int8": lambda: (-sums.sum() / parameter.double()**2).to(parameter.dtype), "pixels": lambda: None}[mode]()
        return dh, dp, dw, None, None, None, None
