"""Two-dimensional convolution (cross-correlation, NCHW, OIHW), any stride, padding and groups; both gradients.

A weight (O,I,KW) without a height is a kernel of height 1: one-dimensional convolution, on images of height 1.
"""

from collections.abc import Sequence
from math import ceil
from typing import Any

import numpy as np

from strop.compiler.dtypes import INT32, UINT8
from strop.compiler.ir import Builder, Op, TensorType
from strop.compiler.ops.base import Array, Attrs, Case, Expr, Hints, OpSpec, Te, Tensor, f32, guarded


def conv_output(size: int, kernel: int, stride: int, padding: int) -> int:
    """Output positions along one axis (floor mode)."""
    return (size + 2 * padding - kernel) // stride + 1


def taps(kernel: Sequence[Any], only: int = 1) -> tuple[Any, Any]:
    """Height and width of a kernel from its own axes, or a place in it; `only`: what a missing height is."""
    height, width = (only, *kernel)[-2:]
    return height, width


def inside(te: Te, place: Sequence[Expr], image: Sequence[int], padding: Sequence[int]) -> Expr | None:
    """Whether a place lies in the image; only axes with padding can leave it, so None is always."""
    bounds = []
    for axis in (0, 1):
        if padding[axis]:
            bounds += [place[axis] >= 0, place[axis] < image[axis]]
    return te.every(*bounds) if bounds else None


def _own(tap: Sequence[Expr], kernel: Sequence[int]) -> Sequence[Expr]:
    """A place in the kernel by the kernel's own axes."""
    return tap[2 - len(kernel) :]


def _patches(x: Array, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]) -> Array:
    """(B,C,OH,OW,KH,KW) view of the padded image."""
    x = np.pad(x, ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2))
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel, axis=(2, 3))
    return windows[:, :, :: stride[0], :: stride[1]]


class Conv2d(OpSpec):
    """x (B,I,H,W), w (O,I/groups,KH,KW)[, b (O)] -> y (B,O,OH,OW). attrs: stride, padding (pairs), groups."""

    kind = "conv2d"
    weighted = True
    operands = ("x", "w", "b")

    def hints(self, types: Sequence[TensorType], attrs: Attrs) -> Hints:
        return Hints(tile=(1, 3) if attrs["groups"] == 1 else (3,))  # channels share the image only within a group

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        batch, _, *image = inputs[0].shape
        out, _, *kernel = inputs[1].shape
        axes = zip(image, taps(kernel), attrs["stride"], attrs["padding"], strict=True)
        size = (conv_output(*axis) for axis in axes)
        return [TensorType((batch, out, *size), inputs[0].dtype)]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        x, w, *bias = inputs
        kernel = taps(w.shape[2:])
        w, patches = w.reshape(*w.shape[:2], *kernel), _patches(x, kernel, attrs["stride"], attrs["padding"])
        parts = zip(np.split(patches, attrs["groups"], axis=1), np.split(w, attrs["groups"]), strict=True)
        y = np.concatenate([np.einsum("bihwkl,oikl->bohw", *part, optimize=True) for part in parts], axis=1)
        return [y + bias[0][:, None, None] if bias else y]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        x, w, *bias = inputs
        (sh, sw), padding = attrs["stride"], attrs["padding"]
        out, per_group, *kernel = types[1].shape
        group = out // attrs["groups"]
        i, k, l = te.axes(per_group, *taps(kernel))  # noqa: E741
        shape = self.infer(types, attrs)[0].shape

        def element(b: Expr, o: Expr, h: Expr, v: Expr) -> Expr:
            channel = i if attrs["groups"] == 1 else o // group * per_group + i
            place = h * sh + k - padding[0], v * sw + l - padding[1]
            term = x[(b, channel, *place)] * w[(o, i, *_own((k, l), kernel))]
            return te.sum(guarded(te, inside(te, place, types[0].shape[2:], padding), term), [i, k, l])

        y = te.compute(shape, element, "sum")
        return [te.compute(shape, lambda b, o, h, v: y[b, o, h, v] + bias[0][o], "y") if bias else y]

    def vjp(self, b: Builder, op: Op, grads: Sequence[str | None]) -> list[str | None]:
        dy, (x, w, *bias) = grads[0], op.inputs
        assert dy is not None
        image, kernel = b.values[x].shape[2:], b.values[w].shape[2:]
        dx = b.emit1("conv2d_dx", (dy, w), f"d_{x}", loc=op.loc, image=image, **op.attrs)
        dw = b.emit1("conv2d_dw", (dy, x), f"d_{w}", loc=op.loc, kernel=kernel, **op.attrs)
        return [dx, dw, *(b.emit1("bias_grad", (dy,), f"d_{name}", loc=op.loc) for name in bias)]

    def macs(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType], attrs: Attrs) -> int:
        return outputs[0].size * inputs[1].size // inputs[1].shape[0]

    def cases(self) -> list[Case]:
        return [
            Case((x, w, f32(w.shape[0])), {"stride": stride, "padding": padding, "groups": groups})
            for x, w, stride, padding, groups in CONVOLUTIONS
        ]

    @property
    def differentiable(self) -> tuple[int, ...]:
        return (0, 1, 2)


CONVOLUTIONS = (
    (f32(1, 1, 8, 7), f32(5, 1, 3, 3), (1, 1), (0, 0), 1),
    (f32(1, 3, 9, 7), f32(4, 3, 3, 2), (1, 1), (1, 0), 1),
    (f32(2, 3, 9, 11), f32(5, 3, 3, 5), (2, 3), (1, 2), 1),
    (f32(1, 4, 7, 9), f32(6, 2, 3, 3), (2, 1), (1, 1), 2),
    (f32(1, 5, 7, 6), f32(5, 1, 3, 3), (1, 2), (1, 1), 5),
    (f32(1, 6, 5, 7), f32(7, 6, 1, 1), (1, 1), (0, 0), 1),
    (f32(1, 3, 5, 4), f32(4, 3, 1, 1), (2, 2), (0, 0), 1),
    (f32(1, 16, 7, 5), f32(24, 16, 1, 1), (1, 1), (0, 0), 1),
    (f32(1, 2, 6, 5), f32(24, 2, 3, 3), (1, 1), (1, 1), 1),
    (f32(1, 3, 1, 11), f32(4, 3, 5), (1, 2), (0, 2), 1),
    (f32(2, 4, 1, 9), f32(6, 2, 3), (1, 1), (0, 1), 2),
)
"""Odd sizes, every kind of stride, padding and grouping: x, w, stride, padding, groups."""


def _grad_cases(attr: str) -> list[Case]:
    cases = []
    for x, w, stride, padding, groups in CONVOLUTIONS:
        attrs: dict[str, Any] = {"stride": stride, "padding": padding, "groups": groups}
        dy = Conv2d().infer([x, w], attrs)[0]
        other = w if attr == "image" else x
        size = x.shape[2:] if attr == "image" else w.shape[2:]
        cases.append(Case((dy, other), {**attrs, attr: size}))
    return cases


def _covers(
    outputs: Sequence[int], kernel: Sequence[int], attrs: Attrs, place: Sequence[Expr], tap: Sequence[Expr]
) -> list[Expr]:
    """When output `place` exists and the kernel has `tap`: the conditions that are not always true."""
    conditions = []
    for axis in (0, 1):
        if (outputs[axis], kernel[axis]) != (attrs["image"][axis], 1):
            conditions += [place[axis] >= 0, place[axis] < outputs[axis]]
        if kernel[axis] % attrs["stride"][axis]:
            conditions.append(tap[axis] < kernel[axis])
    return conditions


class Conv2dDx(OpSpec):
    """dy (B,O,OH,OW), w (O,I/groups,KH,KW) -> dx (B,I,H,W). attrs: those of conv2d and image (H,W)."""

    kind = "conv2d_dx"
    operands = ("dy", "w")
    linear = "dy"
    results = ("dx",)

    def hints(self, types: Sequence[TensorType], attrs: Attrs) -> Hints:
        return Hints(tile=(1, 3) if attrs["groups"] == 1 else (3,))  # channels share the image only within a group

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        channels = inputs[1].shape[1] * attrs["groups"]
        return [TensorType((inputs[0].shape[0], channels, *attrs["image"]), inputs[0].dtype)]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        dy, w = inputs
        (sh, sw), (ph, pw), (height, width) = attrs["stride"], attrs["padding"], attrs["image"]
        per_group, (kh, kw) = w.shape[1], taps(w.shape[2:])
        w = w.reshape(*w.shape[:2], kh, kw)
        dx = np.zeros((dy.shape[0], per_group * attrs["groups"], height + 2 * ph, width + 2 * pw), dy.dtype)
        for o, h, v in np.ndindex(dy.shape[1:]):
            first = o // (dy.shape[1] // attrs["groups"]) * per_group
            window = dx[:, first : first + per_group, h * sh : h * sh + kh, v * sw : v * sw + kw]
            window += dy[:, o, h, v, None, None, None] * w[o]
        return [dx[:, :, ph : ph + height, pw : pw + width]]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        dy, w = inputs
        out, per_group, *own = types[1].shape
        group, kernel = out // attrs["groups"], taps(own)
        (sh, sw), (ph, pw) = attrs["stride"], attrs["padding"]
        o, k, l = te.axes(group, ceil(kernel[0] / sh), ceil(kernel[1] / sw))  # noqa: E741

        def element(b: Expr, c: Expr, h: Expr, v: Expr) -> Expr:
            y, x = (h + ph) // sh - k, (v + pw) // sw - l
            tap = (h + ph) % sh + k * sh, (v + pw) % sw + l * sw
            channel = o if attrs["groups"] == 1 else c // per_group * group + o
            hit = _covers(types[0].shape[2:], kernel, attrs, (y, x), tap)
            row = c if attrs["groups"] == 1 else c % per_group
            value = dy[b, channel, y, x] * w[(channel, row, *_own(tap, own))]
            return te.sum(guarded(te, te.every(*hit) if hit else None, value), [o, k, l])

        return [te.compute(self.infer(types, attrs)[0].shape, element, "dx")]

    def macs(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType], attrs: Attrs) -> int:
        return inputs[0].size * inputs[1].size // inputs[1].shape[0]

    def cases(self) -> list[Case]:
        return _grad_cases("image")


class Conv2dDw(OpSpec):
    """dy (B,O,OH,OW), x (B,I,H,W) -> dw (O,I/groups,KH,KW), summed over batch and positions."""

    kind = "conv2d_dw"
    operands = ("dy", "x")
    linear = "dy"
    results = ("dw",)

    def hints(self, types: Sequence[TensorType], attrs: Attrs) -> Hints:
        if attrs["groups"] == 1 and taps(attrs["kernel"]) == (1, 1):
            return Hints(tile=(0, 1), slides=False)
        last = 1 + len(attrs["kernel"])
        return Hints(tile=(0, last) if attrs["groups"] == 1 else (last,))

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        per_group = inputs[1].shape[1] // attrs["groups"]
        return [TensorType((inputs[0].shape[1], per_group, *attrs["kernel"]), inputs[0].dtype)]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        dy, x = inputs
        patches = _patches(x, taps(attrs["kernel"]), attrs["stride"], attrs["padding"])
        patches, groups = patches[:, :, : dy.shape[2], : dy.shape[3]], attrs["groups"]
        parts = zip(np.split(dy, groups, axis=1), np.split(patches, groups, axis=1), strict=True)
        dw = np.concatenate([np.einsum("bohw,bihwkl->oikl", *part, optimize=True) for part in parts])
        return [dw.reshape(*dw.shape[:2], *attrs["kernel"])]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        dy, x = inputs
        (sh, sw), (ph, pw) = attrs["stride"], attrs["padding"]
        batch, out, oh, ow = types[0].shape
        group, per_group = out // attrs["groups"], types[1].shape[1] // attrs["groups"]
        b, h, v = te.axes(batch, oh, ow)

        def element(o: Expr, i: Expr, *tap: Expr) -> Expr:
            k, l = taps(tap, 0)  # noqa: E741
            channel = i if attrs["groups"] == 1 else o // group * per_group + i
            place = h * sh + k - ph, v * sw + l - pw
            term = x[(b, channel, *place)] * dy[b, o, h, v]
            return te.sum(guarded(te, inside(te, place, types[1].shape[2:], (ph, pw)), term), [b, h, v])

        return [te.compute(self.infer(types, attrs)[0].shape, element, "dw")]

    def macs(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType], attrs: Attrs) -> int:
        return inputs[0].size * outputs[0].size // outputs[0].shape[0]

    def cases(self) -> list[Case]:
        return _grad_cases("kernel")


class Conv2dDwPooled(OpSpec):
    """dq (B,O,PH,PW), index (B,O,PH,PW), x (B,I,H,W) -> dw: conv2d_dw of an error that a max-pool's gradient spreads.

    The error is dq at the place of each window's maximum and 0 elsewhere, so one term a window is enough.
    attrs: those of conv2d_dw, and pool_kernel, pool_stride, pool_padding.
    """

    kind = "conv2d_dw_pooled"
    operands = ("dy", "index", "x")
    linear = "dy"
    results = ("dw",)

    def hints(self, types: Sequence[TensorType], attrs: Attrs) -> Hints:
        return Hints(tile=(2, 3)[: len(attrs["kernel"])], scattered=True)

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return Conv2dDw().infer([inputs[0], inputs[2]], attrs)

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        dq, index, x = inputs
        kw, (sh, sw), (ph, pw) = attrs["pool_kernel"][1], attrs["pool_stride"], attrs["pool_padding"]
        image = [
            conv_output(*axis)
            for axis in zip(x.shape[2:], taps(attrs["kernel"]), attrs["stride"], attrs["padding"], strict=True)
        ]
        dy = np.zeros((*dq.shape[:2], *image), dq.dtype)
        for b, o, h, v in np.ndindex(dq.shape):
            place = int(index[b, o, h, v])
            dy[b, o, h * sh - ph + place // kw, v * sw - pw + place % kw] += dq[b, o, h, v]
        return Conv2dDw().reference([dy, x], attrs)

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        dq, index, x = inputs
        (sh, sw), (ph, pw), width = attrs["stride"], attrs["padding"], attrs["pool_kernel"][1]
        batch, out, *pooled = types[0].shape
        group, per_group = out // attrs["groups"], types[2].shape[1] // attrs["groups"]
        b, h, v = te.axes(batch, *pooled)

        def element(o: Expr, i: Expr, *tap: Expr) -> Expr:
            k, l = taps(tap, 0)  # noqa: E741
            spot = te.cast(index[b, o, h, v], INT32)
            y = h * attrs["pool_stride"][0] - attrs["pool_padding"][0] + spot // width
            z = v * attrs["pool_stride"][1] - attrs["pool_padding"][1] + spot % width
            channel = i if attrs["groups"] == 1 else o // group * per_group + i
            place = y * sh + k - ph, z * sw + l - pw
            term = x[(b, channel, *place)] * dq[b, o, h, v]
            return te.sum(guarded(te, inside(te, place, types[2].shape[2:], (ph, pw)), term), [b, h, v])

        return [te.compute(self.infer(types, attrs)[0].shape, element, "dw")]

    def macs(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType], attrs: Attrs) -> int:
        return inputs[0].size * outputs[0].size // outputs[0].shape[0]

    def cases(self) -> list[Case]:
        pools = (((2, 2), (2, 2), (0, 0)), ((2, 3), (2, 3), (0, 0)), ((3, 2), (2, 1), (1, 0)))
        rows = (((1, 2), (1, 2), (0, 0)), ((1, 3), (1, 2), (0, 1)))
        cases, shapes = [], (*pools * 3, *rows)
        for (x, w, stride, padding, groups), (kernel, step, pad) in zip(CONVOLUTIONS, shapes, strict=True):
            attrs: dict[str, Any] = {"stride": stride, "padding": padding, "groups": groups}
            dy = Conv2d().infer([x, w], attrs)[0]
            size = [conv_output(*axis) for axis in zip(dy.shape[2:], kernel, step, pad, strict=True)]
            dq = f32(*dy.shape[:2], *size)
            pool = {"pool_kernel": kernel, "pool_stride": step, "pool_padding": pad}
            cases.append(Case((dq, TensorType(dq.shape, UINT8), x), {**attrs, **pool, "kernel": w.shape[2:]}))
        return cases

    def draw(self, rng: np.random.Generator, case: Case) -> list[Array]:
        """Indices of a real forward pass: none points into the padding."""
        from strop.compiler.ops.pool import MaxPool2dArgmax

        dq, _, x = case.inputs
        dy = Conv2d().infer([x, f32(dq.shape[1], x.shape[1], *case.attrs["kernel"])], case.attrs)[0]
        image = rng.standard_normal(dy.shape).astype(np.float32)
        pool = {name.removeprefix("pool_"): value for name, value in case.attrs.items() if name.startswith("pool_")}
        return [
            rng.standard_normal(dq.shape).astype(np.float32),
            MaxPool2dArgmax().reference([image], pool)[1],
            rng.standard_normal(x.shape).astype(np.float32),
        ]
