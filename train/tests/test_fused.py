# SPDX-License-Identifier: Apache-2.0
"""The fused library against the plain modules: equal bits forward, equal gradients to float tolerance."""

from __future__ import annotations

import copy

import pytest
import torch
from xnortrain import fused, networks
from xnortrain.layers import UNIT, BinaryConv, Int8Conv, Int8Quantizer, RPReLU, RSign, Shortcut, StreamAdd, StreamScale, convolve, set_binary_weights, set_exact, sign

pytestmark = pytest.mark.skipif(fused.library() is None, reason="no C compiler: the fused library is not built")


def plain(function, *arguments):
    """function(*arguments) with the fused library out of use."""
    usable = fused.usable
    fused.usable = lambda x: False
    try:
        return function(*arguments)
    finally:
        fused.usable = usable


def stream(generator: torch.Generator, *shape: int, wide: bool = False) -> torch.Tensor:
    h = torch.randint(-32768, 32768, shape, generator=generator) if wide else torch.randn(shape, generator=generator) * 300
    return (torch.round(h.float()).clamp(-32768, 32767) * UNIT).contiguous(memory_format=torch.channels_last).requires_grad_()


def randomize(module: torch.nn.Module, generator: torch.Generator) -> None:
    with torch.no_grad():
        for p in module.parameters():
            p.add_(torch.randn(p.shape, generator=generator) * 0.5)


def both(module: torch.nn.Module, inputs: list[torch.Tensor], call):
    """Outputs and gradients (of inputs, then parameters) fused and plain."""
    results = []
    for wrap in (lambda f, *a: f(*a), plain):
        m, xs = copy.deepcopy(module), [x.detach().clone(memory_format=torch.preserve_format).requires_grad_() for x in inputs]

        def step(m=m, xs=xs):
            outs = call(m, *xs)
            weights = [torch.randn(o.shape, generator=torch.Generator().manual_seed(7)) for o in outs]
            sum((o * w).sum() for o, w in zip(outs, weights)).backward()
            return outs

        outs = wrap(step)
        results.append(([o.detach() for o in outs], [x.grad for x in xs if getattr(module, "quantizer", xs) is not None] + [p.grad for p in m.parameters()], dict(m.named_buffers())))
    return results


def compare(results, tolerance: float = 2e-4) -> None:
    (outs, grads, buffers), (plain_outs, plain_grads, plain_buffers) = results
    for a, b in zip(outs, plain_outs):
        assert torch.equal(a, b), f"{(a != b).sum()} of {a.numel()} differ forward"
    for a, b in zip(grads, plain_grads):
        if a is None or b is None:  # autograd's way to say zero
            assert all(v is None or not v.any() for v in (a, b))
        else:  # gradients of scales vanish by cancellation where the batch normalises: no relative tolerance for them
            torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * float(b.abs().max() + 1))
    for name in buffers:
        torch.testing.assert_close(buffers[name], plain_buffers[name])


@pytest.mark.parametrize("estimator", ["h", "clip", "approxsign"])
@pytest.mark.parametrize("channels", [1, 24, 64, 130])
def test_sign(estimator: str, channels: int) -> None:
    g = torch.Generator().manual_seed(channels)
    module = RSign(channels, estimator)
    randomize(module, g)
    compare(both(module, [stream(g, 3, channels, 9, 7)], lambda m, h: m(h)))
    compare(both(module, [stream(g, 3, channels, 9, 7)], lambda m, h: m(h)[:1]))
    compare(both(module, [stream(g, 3, channels, 9, 7)], lambda m, h: m(h)[1:]))


@pytest.mark.parametrize("step", [0.01, 0.3])
def test_quantizer(step: float) -> None:
    g = torch.Generator().manual_seed(2)
    for call in (lambda m, h: m(h), lambda m, h: m(h)[:1], lambda m, h: m(h)[1:]):
        compare(both(Int8Quantizer(step), [stream(g, 3, 20, 9, 7)], call))


def test_add() -> None:
    g = torch.Generator().manual_seed(4)

    class Both(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.add, self.act = StreamAdd(20), RPReLU(20)

    module = Both()
    randomize(module, g)
    compare(both(module, [stream(g, 3, 20, 8, 6, wide=True), stream(g, 3, 20, 8, 6, wide=True)], lambda m, y, h: [m.add(y, h, m.act)]))


@pytest.mark.parametrize("mode", ["train", "eval", "exact"])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("act", [False, True])
@pytest.mark.parametrize("channels,wide", [(16, False), (67, False), (64, True)])
def test_epilogue(mode: str, residual: bool, act: bool, channels: int, wide: bool) -> None:
    g = torch.Generator().manual_seed(channels)

    class Both(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale, self.act = StreamScale(BinaryConv(64, channels)), RPReLU(channels)

    module = Both()
    randomize(module, g)
    with torch.no_grad():
        module.scale.bn.running_mean.normal_(generator=g)
        module.scale.bn.running_var.uniform_(0.5, 2, generator=g)
    module.train(mode == "train")
    set_exact(module, mode == "exact")
    s = torch.randint(-576, 577, (5, channels, 8, 6), generator=g).float().contiguous(memory_format=torch.channels_last)
    inputs = [s] + ([stream(g, 5, channels, 8, 6, wide=wide)] if residual else [])
    compare(both(module, inputs, lambda m, s, h=None: [m.scale(s, h, m.act if act else None)]))


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("size", [8, 7])
def test_shortcut(double: bool, size: int) -> None:
    g = torch.Generator().manual_seed(size)
    compare(both(Shortcut(double), [stream(g, 3, 20, size, size)], lambda m, h: [m(h)]))


@pytest.mark.parametrize("estimator", ["h", "clip", "approxsign"])
@pytest.mark.parametrize("shape", [(48, 32, 3, 3), (20, 7, 1, 1), (16, 1, 3, 3)], ids=str)
def test_weight_sign(estimator: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(1)

    class Weights(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(shape))
            with torch.no_grad():
                self.weight.view(-1)[3] = 0.0

    compare(both(Weights().to(memory_format=torch.channels_last), [], lambda m: [sign(m.weight, estimator)]))


@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_adam(decay: float) -> None:
    g = torch.Generator().manual_seed(1)
    first = [torch.nn.Parameter(torch.randn(shape, generator=g)) for shape in ((5,), (), (8, 4, 3, 3))]
    second = [torch.nn.Parameter(p.detach().clone()) for p in first]
    first[2].data = first[2].data.contiguous(memory_format=torch.channels_last)
    ours, theirs = fused.Adam(first, 1e-2, weight_decay=decay), torch.optim.Adam(second, 1e-2, weight_decay=decay)
    for step in range(12):
        for p, q in zip(first, second):
            q.grad = torch.randn(q.shape, generator=g)
            p.grad = q.grad.clone()
        ours.step()
        theirs.step()
        if step == 6:  # one's checkpoint is the other's
            ours.load_state_dict(theirs.state_dict())
    for p, q in zip(first, second):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("activations", ["sign", "int8", "pixels"])
@pytest.mark.parametrize("weights", ["binary", "int8"])
@pytest.mark.parametrize("ic,oc,kernel,stride,size", [(16, 16, 3, 1, 14), (32, 80, 3, 1, 7), (64, 128, 3, 2, 16), (48, 32, 5, 2, 9), (80, 64, 1, 1, 5), (16, 48, 1, 2, 8),
                                                      (128, 64, 3, 1, 4)], ids=str)
def test_convolve(activations: str, weights: str, ic: int, oc: int, kernel: int, stride: int, size: int) -> None:
    if not fused.library().xn_convolve_available():
        pytest.skip("no AVX-512 VNNI: convolutions run in PyTorch")
    g = torch.Generator().manual_seed(ic + oc)
    ic = 3 if activations == "pixels" else ic
    quantizer = {"sign": RSign(ic), "int8": Int8Quantizer(0.1), "pixels": None}[activations]

    class Both(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.quantizer = quantizer
            self.conv = BinaryConv(ic, oc, kernel, stride) if weights == "binary" else Int8Conv(ic, oc, kernel, stride)
            set_binary_weights(self, True)

    module = Both()
    if quantizer is not None and activations == "sign":
        randomize(quantizer, g)
    n = 37  # no whole number of groups of images
    h = stream(g, n, ic, size, size) if quantizer else torch.randint(0, 256, (n, ic, size, size), generator=g).float()
    compare(both(module, [h], lambda m, h: convolve(m.quantizer, m.conv, h)[:2 if quantizer else 1]), 5e-3 if activations == "int8" else 1e-3)


@pytest.mark.parametrize("stage", ["bits", "binary", "exact"])
@pytest.mark.parametrize("kind", ["residual", "squeeze", "depthwise"])
def test_whole_network(kind: str, stage: str) -> None:
    torch.manual_seed(5)
    g = torch.Generator().manual_seed(5)
    model = networks.build(kind, (28, 28, 1), 10, width=16, blocks=[1, 2], precision={"block2.*": "int8"})
    x = torch.randint(0, 256, (8, 1, 28, 28), generator=g).float()
    set_binary_weights(model, stage != "bits")
    set_exact(model, stage == "exact")
    outs, plain_outs = model(x), plain(model, x)
    if stage != "bits":  # sums of real weights depend on the order of additions
        assert torch.equal(outs, plain_outs)
    torch.testing.assert_close(outs, plain_outs, rtol=1e-3, atol=1e-2)
