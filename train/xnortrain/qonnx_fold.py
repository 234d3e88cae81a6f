# SPDX-License-Identifier: Apache-2.0
"""Folding of float arithmetic into integers by search: the frozen float graph is evaluated at every reachable integer, and the switch points are stored.

A chain of float operations is a list of steps over arrays [channels][levels]; each channel has its own levels, the integers that its accumulator can reach."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

CHUNK_ELEMENTS = 1 << 22
PAIRS_MAX = 1 << 24
INT16_MAX = 32767
SHIFT_MAX = 30


@dataclasses.dataclass
class Step:
    """One float operation: function(x [channels][levels], which channels these are) in the type of x. `pool`: a maximum over a window stands here, through which
    every non-decreasing function may be drawn."""

    what: str
    function: Callable[[np.ndarray, slice], np.ndarray]
    pool: bool = False


def per_channel(values: np.ndarray, x: np.ndarray, channels: slice) -> np.ndarray:
    """Constants [channels] as a column for x, in its type."""
    return values[channels, None].astype(x.dtype)


@dataclasses.dataclass
class Levels:
    """The integers that channel c can reach: low[c], low[c] + step, ... high[c]. int64 [channels]."""

    low: np.ndarray
    high: np.ndarray
    step: int = 1

    def count(self) -> int:
        """Of the channel that has most."""
        return int((self.high - self.low).max()) // self.step + 1

    def rows(self, channels: slice) -> np.ndarray:
        """[channels][count] ascending; short rows go on with their last level."""
        low, high = self.low[channels, None], self.high[channels, None]
        return np.minimum(low + np.arange(self.count()) * self.step, high)

    def chunks(self) -> list[slice]:
        """Slices of channels that keep arrays small."""
        size = max(1, CHUNK_ELEMENTS // self.count())
        return [slice(i, min(i + size, len(self.low))) for i in range(0, len(self.low), size)]


@dataclasses.dataclass
class Chain:
    """value(v) = steps(v * factor[c]), per channel."""

    factor: np.ndarray  # float64 [channels]
    steps: list[Step]

    def evaluate(self, v: np.ndarray, channels: slice, dtype: type, upto: int | None = None) -> np.ndarray:
        """v int64 [channels][levels]; the first `upto` steps (all)."""
        x = v.astype(dtype)
        factor = self.factor[channels, None].astype(dtype)
        if not (factor == 1).all():
            x = x * factor
        for step in self.steps[:upto]:
            x = step.function(x, channels)
        return x


class NotMonotone(ValueError):
    """The chain rises and falls over the reachable levels: no threshold can stand for it."""


@dataclasses.dataclass
class Thresholds:
    """bit = (flip[c] ? -v : v) >= values[c]. constant: channels whose bit never changes. ties: reachable levels at which the chain is exactly 0, or at which float32
    and float64 disagree about its sign, so that another order of the same operations may answer otherwise there."""

    values: np.ndarray
    flip: np.ndarray
    constant: int
    zeros: int
    uncertain: int


def _draw_through_pools(chain: Chain, v: np.ndarray, channels: slice) -> None:
    for at, step in enumerate(chain.steps):
        if step.pool:
            before = chain.evaluate(v, channels, np.float64, at)
            after = chain.evaluate(v, channels, np.float64)
            order = np.argsort(before, axis=1, kind="stable")
            if (np.diff(np.take_along_axis(after, order, 1), axis=1) < 0).any():
                raise NotMonotone("what follows the maximum falls in some channels, so the maximum cannot be taken of bits")


def thresholds(chain: Chain, levels: Levels) -> Thresholds:
    """Where the sign (>= 0) of the chain switches. Raises NotMonotone."""
    n = len(levels.low)
    result = Thresholds(np.zeros(n, np.int64), np.zeros(n, bool), 0, 0, 0)
    for channels in levels.chunks():
        v = levels.rows(channels)
        value = chain.evaluate(v, channels, np.float32)
        if np.isnan(value).any():
            raise NotMonotone("it is not a number at some levels")
        _draw_through_pools(chain, v, channels)
        bits = value >= 0
        if (np.diff(bits.astype(np.int8), axis=1) != 0).sum(axis=1).max(initial=0) > 1:
            raise NotMonotone("its sign changes more than once over the reachable levels")
        new = np.concatenate([np.ones((len(v), 1), bool), np.diff(v, axis=1) != 0], axis=1)  # short rows repeat their last level
        double = chain.evaluate(v, channels, np.float64)
        result.zeros += int(((value == 0) & new).sum())
        result.uncertain += int((((double >= 0) != bits) & new).sum())
        falls = bits[:, 0] & ~bits[:, -1]
        first = np.where(bits.any(axis=1), bits.argmax(axis=1), -1)  # first level that gives +1; -1: none does
        rising = np.where(first >= 0, v[np.arange(len(v)), first], v[:, -1] + 1)
        last = v.shape[1] - 1 - bits[:, ::-1].argmax(axis=1)
        result.values[channels] = np.where(falls, -v[np.arange(len(v)), last], rising)
        result.flip[channels] = falls
        result.constant += int((bits[:, 0] == bits[:, -1]).sum())
    return result


@dataclasses.dataclass
class Scaling:
    """y = clamp((multiplier[c]*v + bias[c] + half) >> shift), the integers of a quantizer at every reachable level."""

    multiplier: np.ndarray
    bias: np.ndarray
    shift: int


def _fit_channel(v: np.ndarray, y: np.ndarray, slope: float, shift: int, low: int, high: int) -> tuple[int, int] | None:
    """M, B that give y at every v with this shift: B lies in an interval that each level narrows."""
    half = 1 << (shift - 1) if shift else 0
    for m in sorted(range(round(slope * 2**shift) - 2, round(slope * 2**shift) + 3), key=lambda m: abs(m - slope * 2**shift)):
        if abs(m) > INT16_MAX:
            continue
        least = int(np.max((y << shift) - half - m * v, where=y > low, initial=-(1 << 45)))
        most = int(np.min(((y + 1) << shift) - half - 1 - m * v, where=y < high, initial=1 << 45))
        if least <= most:
            return m, (least + most) // 2
    return None


def fit_scaling(chain: Chain, levels: Levels, quantize: Callable[[np.ndarray], np.ndarray], unit: float, low: int, high: int) -> Scaling | None:
    """Integers that give quantize(chain(v)) (in low..high) at every level of every channel, or None where no 16-bit multiplier does. unit: of the quantizer."""
    n = len(levels.low)
    rows, slopes = [], []
    for c in range(n):
        one = slice(c, c + 1)
        v = np.arange(levels.low[c], levels.high[c] + 1, levels.step)
        x = chain.evaluate(v[None], one, np.float64)[0] / unit
        inside = np.flatnonzero((x > low) & (x < high))
        a, b = (inside[0], inside[-1]) if len(inside) > 1 else (0, len(v) - 1)
        slopes.append((x[b] - x[a]) / (v[b] - v[a]) if b > a else 0.0)
        rows.append((v, quantize(chain.evaluate(v[None], one, np.float32))[0].astype(np.int64)))
    largest = max((abs(s) for s in slopes), default=0.0)
    top = next((s for s in range(SHIFT_MAX, -1, -1) if largest * 2**s <= INT16_MAX - 2), None)
    for shift in range(top, max(top - 4, -1), -1) if top is not None else ():
        fits = [_fit_channel(v, y, slope, shift, low, high) for (v, y), slope in zip(rows, slopes)]
        if all(fit is not None for fit in fits):
            return Scaling(np.array([f[0] for f in fits]), np.array([f[1] for f in fits]), shift)  # type: ignore[index]
    return None


@dataclasses.dataclass
class Classes:
    """z = multiplier[c]*v + bias[c], score = scale*z + offset. disordered: pairs of classes and levels that float32 and z order otherwise (-1: too many to try)."""

    multiplier: np.ndarray
    bias: np.ndarray
    scale: float
    offset: float
    disordered: int


def _disordered(score: list[np.ndarray], z: list[np.ndarray]) -> int:
    if sum(len(a) for a in score) ** 2 > PAIRS_MAX:
        return -1
    count = 0
    for a in range(len(score)):
        for b in range(a + 1, len(score)):
            count += int((np.sign(score[a][:, None] - score[b][None]) != np.sign(z[a][:, None] - z[b][None])).sum())
    return count


def fit_classes(chain: Chain, levels: Levels) -> Classes:
    """The last layer's scores, affine in its sums, as logits. Raises NotMonotone where they are not affine."""
    n = len(levels.low)
    rows = [np.arange(levels.low[c], levels.high[c] + 1, levels.step) for c in range(n)]
    exact = [chain.evaluate(v[None], slice(c, c + 1), np.float64)[0] for c, v in enumerate(rows)]
    score = [chain.evaluate(v[None], slice(c, c + 1), np.float32)[0] for c, v in enumerate(rows)]
    slope = np.array([(x[-1] - x[0]) / (v[-1] - v[0]) if len(v) > 1 else 0.0 for v, x in zip(rows, exact)])
    offset = np.array([x[0] - s * v[0] for v, x, s in zip(rows, exact, slope)])
    largest = max(float(np.abs(x).max()) for x in exact)
    if any(np.abs(s * v + o - x).max() > 1e-6 * max(largest, 1e-30) for v, x, s, o in zip(rows, exact, slope, offset)):
        raise NotMonotone("the scores of the classes are not affine in the sums of the last layer")
    alike = np.allclose(slope, slope[0], rtol=1e-9, atol=0) and np.allclose(offset, offset[0], rtol=0, atol=1e-9 * largest)  # float32 constants differ by more
    if alike and slope[0] != 0:
        m, b = np.full(n, 1 if slope[0] > 0 else -1), np.zeros(n, np.int64)
        scale, common = abs(float(slope[0])), float(offset[0])
    else:
        scale, common = max(largest, 1e-30) / (1 << 29), 0.0
        m, b = np.round(slope / scale).astype(np.int64), np.round(offset / scale).astype(np.int64)
    z = [m[c] * v + b[c] for c, v in enumerate(rows)]
    return Classes(m, b, scale, common, _disordered(score, z))
