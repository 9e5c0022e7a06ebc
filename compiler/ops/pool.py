"""Pooling: largest and mean value of a window, and their gradients."""

from collections.abc import Callable, Sequence
from math import ceil

import numpy as np

from strop.compiler.dtypes import FLOAT32, UINT8
from strop.compiler.ir import Builder, Op, TensorType
from strop.compiler.ops.base import Array, Attrs, Case, Expr, Hints, OpSpec, Te, Tensor, f32, guarded
from strop.compiler.ops.conv import conv_output, inside


def pooled(type_: TensorType, attrs: Attrs) -> tuple[int, ...]:
    """Output shape (B,C,OH,OW) of a pooling op on (B,C,H,W)."""
    axes = zip(type_.shape[2:], attrs["kernel"], attrs["stride"], attrs["padding"], strict=True)
    return (*type_.shape[:2], *(conv_output(*axis) for axis in axes))


def _windows(x: Array, attrs: Attrs, fill: float) -> Array:
    """(B,C,OH,OW,KH*KW) windows of the padded image."""
    pads = [(0, 0), (0, 0), *((p, p) for p in attrs["padding"])]
    view = np.lib.stride_tricks.sliding_window_view(
        np.pad(x, pads, constant_values=fill), tuple(attrs["kernel"]), axis=(2, 3)
    )
    view = view[:, :, :: attrs["stride"][0], :: attrs["stride"][1]]
    return view.reshape(*view.shape[:4], -1)


def _scatter(terms: Array, attrs: Attrs) -> Array:
    """Add (B,C,OH,OW,KH,KW) contributions at their places in the image (B,C,H,W)."""
    (sh, sw), (ph, pw), (height, width) = attrs["stride"], attrs["padding"], attrs["image"]
    kh, kw = attrs["kernel"]
    dx = np.zeros((*terms.shape[:2], height + 2 * ph, width + 2 * pw), terms.dtype)
    for h, v in np.ndindex(terms.shape[2:4]):
        dx[:, :, h * sh : h * sh + kh, v * sw : v * sw + kw] += terms[:, :, h, v]
    return dx[:, :, ph : ph + height, pw : pw + width]


def _gather(te: Te, dy: TensorType, attrs: Attrs, term: Callable[..., Expr]) -> Tensor:
    """dx[b,c,h,w] = sum of `term(b, c, oh, ow, kh, kw)` over the windows that cover (h, w)."""
    (kh, kw), (sh, sw), (ph, pw) = attrs["kernel"], attrs["stride"], attrs["padding"]
    oh, ow = dy.shape[2:]
    reach = (ceil(kh / sh), ceil(kw / sw))
    axes = te.axes(*reach)

    def element(b: Expr, c: Expr, h: Expr, w: Expr) -> Expr:
        a, d = axes if reach != (1, 1) else (0, 0)
        y, x = (h + ph) // sh - a, (w + pw) // sw - d
        k, m = h + ph - y * sh, w + pw - x * sw
        hit = te.every(y >= 0, y < oh, k < kh, x >= 0, x < ow, m < kw)
        value = guarded(te, hit, term(b, c, y, x, k, m))
        return value if reach == (1, 1) else te.sum(value, list(axes))

    return te.compute((*dy.shape[:2], *attrs["image"]), element, "dx")


LOWEST = -3.4028234663852886e38
"""The most negative float32: what padding counts as under a maximum."""


def _window(te: Te, x: Tensor, type_: TensorType, attrs: Attrs, k: Expr, m: Expr, fill: float) -> Callable[..., Expr]:
    """Element (k, m) of the window at output (b, c, oh, ow); `fill` outside the image."""
    (sh, sw), (ph, pw) = attrs["stride"], attrs["padding"]

    def read(b: Expr, c: Expr, oh: Expr, ow: Expr) -> Expr:
        h, w = oh * sh + k - ph, ow * sw + m - pw
        where = inside(te, (h, w), type_.shape[2:], attrs["padding"])
        return x[b, c, h, w] if where is None else te.where(where, x[b, c, h, w], te.const(fill))

    return read


class MaxPool2dArgmax(OpSpec):
    """x (B,C,H,W) -> y (B,C,OH,OW) and the place of the maximum in its window, row by row (the first of equals).

    attrs: kernel, stride, padding (pairs; padding never wins). Windows of at most 256 elements.
    """

    kind = "max_pool2d_argmax"
    follows = True
    results = ("y", "index")
    suffixes = ("", ".index")
    plain = "max_pool2d"

    def hints(self, types: Sequence[TensorType], attrs: Attrs) -> Hints:
        return Hints(window=attrs["kernel"] == attrs["stride"] and attrs["padding"] == (0, 0))

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        shape = pooled(inputs[0], attrs)
        return [TensorType(shape, inputs[0].dtype), TensorType(shape, UINT8)]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        windows = _windows(inputs[0], attrs, -np.inf)
        return [windows.max(-1), windows.argmax(-1).astype(np.uint8)]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        k, m = te.axes(*attrs["kernel"])
        read = _window(te, inputs[0], types[0], attrs, k, m, LOWEST)

        def element(*i: Expr) -> tuple[Expr, Expr]:
            return read(*i), k * attrs["kernel"][1] + m

        return list(te.compute_argmax(pooled(types[0], attrs), element, [k, m], "y"))

    def vjp(self, b: Builder, op: Op, grads: Sequence[str | None]) -> list[str | None]:
        assert grads[0] is not None
        image = b.values[op.inputs[0]].shape[2:]
        inputs = (grads[0], op.outputs[1])
        return [b.emit1("max_pool2d_grad", inputs, f"d_{op.inputs[0]}", loc=op.loc, image=image, **op.attrs)]

    def cases(self) -> list[Case]:
        return [Case((x,), {"kernel": k, "stride": s, "padding": p}) for x, k, s, p in POOLINGS]

    def draw(self, rng: np.random.Generator, case: Case) -> list[Array]:
        """Distinct values, so that finite differences never cross a tie."""
        x = rng.permutation(case.inputs[0].size).reshape(case.inputs[0].shape)
        return [(x * 0.1).astype(np.float32)]

    @property
    def differentiable(self) -> tuple[int, ...]:
        return (0,)


POOLINGS = (
    (f32(1, 3, 8, 6), (2, 2), (2, 2), (0, 0)),
    (f32(2, 3, 9, 7), (2, 3), (2, 3), (0, 0)),
    (f32(1, 2, 9, 8), (3, 3), (2, 1), (1, 1)),
    (f32(1, 2, 7, 9), (3, 2), (1, 2), (1, 0)),
    (f32(1, 5, 7, 5), (7, 5), (7, 5), (0, 0)),
)
"""Odd sizes, with leftovers, overlaps and padding: x, kernel, stride, padding."""


class MaxPool2d(OpSpec):
    """x (B,C,H,W) -> y (B,C,OH,OW), without the place of the maximum: what inference runs. attrs as above."""

    kind = "max_pool2d"
    follows = True

    def hints(self, types: Sequence[TensorType], attrs: Attrs) -> Hints:
        return Hints(window=attrs["kernel"] == attrs["stride"] and attrs["padding"] == (0, 0))

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [TensorType(pooled(inputs[0], attrs), inputs[0].dtype)]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        return [_windows(inputs[0], attrs, -np.inf).max(-1)]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        k, m = te.axes(*attrs["kernel"])
        read = _window(te, inputs[0], types[0], attrs, k, m, LOWEST)
        return [te.compute(pooled(types[0], attrs), lambda *i: te.max(read(*i), [k, m]), "y")]

    def cases(self) -> list[Case]:
        return MaxPool2dArgmax().cases()


class MaxPool2dGrad(OpSpec):
    """dy (B,C,OH,OW), index -> dx (B,C,H,W): each dy goes where its window had the maximum."""

    kind = "max_pool2d_grad"
    operands = ("dy", "index")
    linear = "dy"
    results = ("dx",)

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [TensorType((*inputs[0].shape[:2], *attrs["image"]), inputs[0].dtype)]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        dy, index = inputs
        places = np.arange(attrs["kernel"][0] * attrs["kernel"][1])
        terms = np.where(index[..., None] == places, dy[..., None], 0).reshape(*dy.shape, *attrs["kernel"])
        return [_scatter(terms.astype(dy.dtype), attrs)]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        dy, index = inputs

        def term(b: Expr, c: Expr, y: Expr, x: Expr, k: Expr, m: Expr) -> Expr:
            place = te.cast(k * attrs["kernel"][1] + m, UINT8)
            return te.where(index[b, c, y, x] == place, dy[b, c, y, x], te.const(0))

        return [_gather(te, types[0], attrs, term)]

    def cases(self) -> list[Case]:
        return [
            Case(
                (TensorType(pooled(x, attrs), FLOAT32), TensorType(pooled(x, attrs), UINT8)),
                {**attrs, "image": x.shape[2:]},
            )
            for x, k, s, p in POOLINGS
            for attrs in [{"kernel": k, "stride": s, "padding": p}]
        ]

    def draw(self, rng: np.random.Generator, case: Case) -> list[Array]:
        """Indices of a real forward pass: none points into the padding."""
        attrs = case.attrs
        image = rng.standard_normal((*case.inputs[0].shape[:2], *attrs["image"])).astype(np.float32)
        return [
            rng.standard_normal(case.inputs[0].shape).astype(np.float32),
            MaxPool2dArgmax().reference([image], attrs)[1],
        ]


class AvgPool2d(OpSpec):
    """x (B,C,H,W) -> window means (B,C,OH,OW); padding counts as zeros, as in PyTorch's default.

    attrs: kernel, stride, padding (pairs).
    """

    kind = "avg_pool2d"

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [TensorType(pooled(inputs[0], attrs), inputs[0].dtype)]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        return [_windows(inputs[0], attrs, 0).mean(-1)]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (kh, kw), shape = attrs["kernel"], pooled(types[0], attrs)
        k, m = te.axes(kh, kw)
        read = _window(te, inputs[0], types[0], attrs, k, m, 0)
        total = te.compute(shape, lambda *i: te.sum(read(*i), [k, m]), "sum")
        return [te.compute(shape, lambda *i: total[i] * te.const(1 / (kh * kw)), "y")]

    def vjp(self, b: Builder, op: Op, grads: Sequence[str | None]) -> list[str | None]:
        assert grads[0] is not None
        image = b.values[op.inputs[0]].shape[2:]
        return [b.emit1("avg_pool2d_grad", (grads[0],), f"d_{op.inputs[0]}", loc=op.loc, image=image, **op.attrs)]

    def cases(self) -> list[Case]:
        return [Case((x,), {"kernel": k, "stride": s, "padding": p}) for x, k, s, p in POOLINGS]

    @property
    def differentiable(self) -> tuple[int, ...]:
        return (0,)


class AvgPool2dGrad(OpSpec):
    """dy (B,C,OH,OW) -> dx (B,C,H,W): each dy spread evenly over its window."""

    kind = "avg_pool2d_grad"
    operands = ("dy",)
    linear = "dy"
    results = ("dx",)

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [TensorType((*inputs[0].shape[:2], *attrs["image"]), inputs[0].dtype)]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        dy, kernel = inputs[0], tuple(attrs["kernel"])
        terms = np.broadcast_to(dy[..., None, None] / (kernel[0] * kernel[1]), (*dy.shape, *kernel))
        return [_scatter(terms.astype(dy.dtype), attrs)]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (dy,), share = inputs, te.const(1 / (attrs["kernel"][0] * attrs["kernel"][1]))
        return [_gather(te, types[0], attrs, lambda b, c, y, x, k, m: dy[b, c, y, x] * share)]

    def cases(self) -> list[Case]:
        return [
            Case((TensorType(pooled(x, attrs), FLOAT32),), {**attrs, "image": x.shape[2:]})
            for x, k, s, p in POOLINGS
            for attrs in [{"kernel": k, "stride": s, "padding": p}]
        ]


def _cell(index: Expr, size: int, cells: int) -> tuple[Expr, Expr]:
    """First place and end of a cell: floor(i size / cells) and ceil((i + 1) size / cells), size in places."""
    return index * size // cells, ((index + 1) * size + cells - 1) // cells


def _widest(size: int, cells: int) -> int:
    """Places of the largest cell."""
    edges = (_cell(i, size, cells) for i in range(cells))
    return max(int(end - start) for start, end in edges)


class AdaptiveAvgPool2d(OpSpec):
    """x (B,C,H,W) -> means over the cells of a grid (B,C,GH,GW), as torch.nn.functional.adaptive_avg_pool2d.

    attrs: grid (pair). Cells overlap where the grid does not divide the image; where it has more cells than the image
    has places, places repeat.
    """

    kind = "adaptive_avg_pool2d"

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [TensorType((*inputs[0].shape[:2], *attrs["grid"]), inputs[0].dtype)]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        x, grid = inputs[0], tuple(attrs["grid"])
        y = np.empty((*x.shape[:2], *grid), x.dtype)
        for cell in np.ndindex(grid):
            y[:, :, *cell] = x[:, :, *_places(cell, x.shape[2:], grid)].mean((2, 3))
        return [y]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        image, grid = types[0].shape[2:], attrs["grid"]
        shape = self.infer(types, attrs)[0].shape
        read = _grid_sum(te, inputs[0], image, grid)
        total = te.compute(shape, read, "sum")

        def mean(*i: Expr) -> Expr:
            return total[i] / _count(te, i[2:], image, grid)

        return [te.compute(shape, mean, "y")]

    def vjp(self, b: Builder, op: Op, grads: Sequence[str | None]) -> list[str | None]:
        assert grads[0] is not None
        image = b.values[op.inputs[0]].shape[2:]
        return [b.emit1("adaptive_avg_pool2d_grad", (grads[0],), f"d_{op.inputs[0]}", loc=op.loc, image=image)]

    def cases(self) -> list[Case]:
        return [Case((x,), {"grid": grid}) for x, grid in GRIDS]

    @property
    def differentiable(self) -> tuple[int, ...]:
        return (0,)


GRIDS = ((f32(1, 3, 7, 5), (4, 4)), (f32(2, 2, 9, 3), (2, 3)), (f32(1, 2, 3, 11), (4, 5)), (f32(2, 1, 1, 6), (1, 4)))
"""Grids that do not divide the image, and larger ones: x, grid."""


def _places(cell: Sequence[int], image: Sequence[int], grid: Sequence[int]) -> tuple[slice, ...]:
    """What of the image a cell covers."""
    return tuple(slice(*_cell(*axis)) for axis in zip(cell, image, grid, strict=True))


def _grid_sum(
    te: Te, x: Tensor, image: Sequence[int], grid: Sequence[int], scale: Callable[..., Expr] | None = None
) -> Callable[..., Expr]:
    """Sum of x over the cell (oh, ow) of a grid, each element divided by `scale` of its place."""
    widest = [_widest(*axis) for axis in zip(image, grid, strict=True)]
    taps = te.axes(*widest)

    def element(b: Expr, c: Expr, *cell: Expr) -> Expr:
        edges = [_cell(*axis) for axis in zip(cell, image, grid, strict=True)]
        place = [start + tap for (start, _), tap in zip(edges, taps, strict=True)]
        uneven = [size % cells != 0 for size, cells in zip(image, grid, strict=True)]
        inside = [p < end for p, (_, end), odd in zip(place, edges, uneven, strict=True) if odd]
        term = x[(b, c, *place)] if scale is None else x[(b, c, *place)] / scale(place)
        return te.sum(guarded(te, te.every(*inside) if inside else None, term), taps)

    return element


def _count(te: Te, cell: Sequence[Expr], image: Sequence[int], grid: Sequence[int]) -> Expr:
    """Places in a cell, as a float."""
    (h, h_end), (w, w_end) = (_cell(*axis) for axis in zip(cell, image, grid, strict=True))
    return te.cast((h_end - h) * (w_end - w), FLOAT32)


class AdaptiveAvgPool2dGrad(OpSpec):
    """dy (B,C,GH,GW) -> dx (B,C,H,W): each dy spread evenly over its cell. attrs: image (H,W).

    A place lies in the cells that the image's own grid would cover, were it laid over the cells.
    """

    kind = "adaptive_avg_pool2d_grad"
    operands = ("dy",)
    linear = "dy"
    results = ("dx",)

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [TensorType((*inputs[0].shape[:2], *attrs["image"]), inputs[0].dtype)]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        (dy,), image = inputs, tuple(attrs["image"])
        dx = np.zeros((*dy.shape[:2], *image), dy.dtype)
        for cell in np.ndindex(dy.shape[2:]):
            share = dx[:, :, *_places(cell, image, dy.shape[2:])]
            share += dy[:, :, *cell, None, None] / dy.dtype.type(share[0, 0].size)
        return [dx]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        image, grid = attrs["image"], types[0].shape[2:]
        share = _grid_sum(te, inputs[0], grid, image, lambda cell: _count(te, cell, image, grid))
        return [te.compute(self.infer(types, attrs)[0].shape, share, "dx")]

    def cases(self) -> list[Case]:
        return [Case((f32(*x.shape[:2], *grid),), {"image": x.shape[2:]}) for x, grid in GRIDS]
