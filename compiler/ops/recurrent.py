"""Recurrent layers: a whole sequence at once, backwards through time, with zeros as the initial state.

A layer and its errors are composite: `expand` gives a scan, a turn of which is a step of the cell with one dense
product of the input and one of the last state. Errors come out as one sequence (T,G,B,H), a row of G gates a step, so
that every weight gradient is one reduction over time (`gate_dw`) that its update joins.

Truncation: errors flow back through the state within the last k steps, the k steps before, and so on, never across
(Williams and Peng 1990). If the last step alone has an error, the last k steps are all that is visited and kept.
"""

from collections.abc import Sequence
from math import prod
from typing import ClassVar

import numpy as np

from strop.compiler.dtypes import FLOAT32
from strop.compiler.ir import PERSISTENT, Attr, Builder, Op, Role, Row, TensorType
from strop.compiler.ops.base import Array, Attrs, Case, Expr, Hints, OpSpec, Te, Tensor, f32


def spec(kind: str) -> OpSpec:
    """See `ops.spec`, which knows this module only when it is complete."""
    from strop.compiler.ops import spec

    return spec(kind)


class Scan(OpSpec):
    """A loop over the ops of its body (see `ir.Op`). It has no expression, and joins no other op."""

    kind = "scan"
    composite = True
    dtypes = ("float32",)


class Steps:
    """Builds a scan. first, last: of its counter.  b: gets the scan, under the location of the op it stands for."""

    def __init__(self, b: Builder, op: Op, first: int, last: int) -> None:
        self.outer, self.loc, self.times = b, op.loc, (first, last)
        self.body = Builder({})
        self.body.values, self.body.initial = b.values, b.initial
        self.rows: list[Row] = []

    def row(self, sequence: str, shape: tuple[int, ...], shift: int = 0, start: int = 0) -> str:
        """A step value: elements of row t + shift of a sequence, from `start` on."""
        name = self.outer.value(self.outer.fresh(f"{sequence}.t"), TensorType(shape, FLOAT32), Role.ACT, self.loc)
        self.rows.append(Row(name, sequence, shift, start))
        return name

    def sequence(self, name: str, shape: tuple[int, ...]) -> str:
        """A sequence that only the scan works on."""
        return self.outer.value(self.outer.fresh(name), TensorType(shape, FLOAT32), Role.ACT, self.loc)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a value."""
        return self.outer.values[name].shape

    def parts(self, row: str) -> list[str]:
        """The elements of a row, whose first axis they lie along."""
        whole = next(each for each in self.rows if each.name == row)
        count, *shape = self.shape(row)
        return [self.row(whole.sequence, tuple(shape), whole.shift, i * prod(shape)) for i in range(count)]

    def emit(self, kind: str, inputs: Sequence[str], name: str, **attrs: Attr) -> str:
        """Append an op of a turn with fresh outputs; returns the first."""
        return self.body.emit1(kind, inputs, name, loc=self.loc, **attrs)

    def store(self, kind: str, inputs: Sequence[str], into: Sequence[str], **attrs: Attr) -> list[str]:
        """Append an op of a turn that writes rows; returns its outputs, of which those behind the rows are fresh."""
        types = spec(kind).infer([self.outer.values[name].type for name in inputs], attrs)
        outputs = [*into]
        for type_, suffix in list(zip(types, spec(kind).suffixes, strict=True))[len(into) :]:
            name = self.outer.fresh(f"{into[0]}{suffix}")
            outputs.append(self.outer.value(name, type_, Role.ACT, self.loc))
        self.body.update(kind, inputs, outputs, loc=self.loc, **attrs)
        return outputs

    def start(self, row: str, every: int = 0) -> None:
        """Set a row to zeros in every so many turns from the first, or in the first alone if 0."""
        self.store("zeros", (), (row,), shape=self.shape(row), restart=every)

    def close(self, outputs: Sequence[str], **attrs: Attr) -> None:
        """Append the scan. outputs: sequences it makes that others read; variables that a turn overwrites follow."""
        written = {name for op in self.body.ops for name in op.outputs}
        read = [name for op in self.body.ops for name in op.inputs]
        variables = [name for name in read if name in written and self.outer.values[name].role in PERSISTENT]
        rows = {row.name: row for row in self.rows if row.name in written.union(read)}
        made = dict.fromkeys([*outputs, *(row.sequence for row in rows.values() if row.name in written)])
        outside = [rows[name].sequence if name in rows else name for name in read]
        inputs = dict.fromkeys(
            name for name in [*outside, *attrs.values()] if name in variables or name not in {*made, *written}
        )
        made |= dict.fromkeys(variables)
        placed: dict[str, Attr] = {"times": self.times, "rows": tuple(row.attr for row in rows.values()), **attrs}
        self.outer.ops.append(Op("scan", tuple(map(str, inputs)), tuple(made), placed, self.loc, tuple(self.body.ops)))


class Recurrent(OpSpec):
    """x (T,B,I), w_ih (G*H,I), w_hh (G*H,H)[, b_ih, b_hh (G*H)] -> every state y (T,B,H), the last one (B,H), and
    what the way back needs.

    attrs: truncate, steps that an error goes back, 0 for all.
    """  # fmt: skip

    operands: ClassVar[tuple[str, ...]] = ("x", "w_ih", "w_hh", "b_ih", "b_hh")
    results: ClassVar[tuple[str, ...]] = ("y", "last")
    suffixes: ClassVar[tuple[str, ...]] = ("", ".last")
    composite = True
    weighted = True
    activity = 1
    reach = (-0.9, 0.9)

    gates: ClassVar[int] = 1
    """Rows of errors a step."""
    blocks: ClassVar[int] = 1
    """H times this is the height of a weight."""
    reset: ClassVar[bool] = False
    """See `gate_dw`, of the weight of the state."""

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        x, w_ih, w_hh, *biases = inputs
        (steps, batch, width), hidden = x.shape, w_hh.shape[1]
        rows = (self.blocks * hidden,)
        if (w_ih.shape, w_hh.shape) != ((*rows, width), (*rows, hidden)) or any(b.shape != rows for b in biases):
            raise ValueError("the weights do not belong together")
        return [f32(steps, batch, hidden), f32(batch, hidden), *self.kept(steps, batch, hidden)]

    def kept(self, steps: int, batch: int, hidden: int) -> list[TensorType]:
        """Types of what the way back needs besides the states."""
        del steps, batch, hidden
        return []

    def step(self, a: Array, m: Array, state: Sequence[Array], attrs: Attrs) -> list[Array]:
        """One step in numpy: the new row of y and of each of `kept`. state: the last ones.  a, m: see `rnn_tanh`."""
        raise NotImplementedError

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        x, w_ih, w_hh, *biases = inputs
        b_ih, b_hh = (*biases, x.dtype.type(0), x.dtype.type(0))[:2]
        y, _, *kept = self.infer([f32(*each.shape) for each in inputs], attrs)
        sequences = [np.zeros(each.shape, x.dtype) for each in (y, *kept)]
        state = [np.zeros_like(sequence[0]) for sequence in sequences]
        for t, x_t in enumerate(x):
            state = self.step(x_t @ w_ih.T + b_ih, state[0] @ w_hh.T + b_hh, state, attrs)
            for sequence, row in zip(sequences, state, strict=True):
                sequence[t] = row
        return [sequences[0], state[0], *sequences[1:]]

    def expand(self, b: Builder, op: Op) -> None:
        """A scan of two dense products and the cell; the last state is the last row."""
        (x, w_ih, w_hh, *biases), (y, last, *kept) = op.inputs, op.outputs
        steps, *row = b.values[y].shape
        s = Steps(b, op, 0, steps - 1)
        before, now = ([s.row(name, b.values[name].shape[1:], shift) for name in (y, *kept)] for shift in (-1, 0))
        s.start(before[0])
        a = s.emit("dense", (s.row(x, b.values[x].shape[1:]), w_ih, *biases[:1]), f"{y}.a")
        m = s.emit("dense", (before[0], w_hh, *biases[1:]), f"{y}.m")
        self.cell(s, op, (a, m), before, now)
        s.close((y, *kept))
        b.ops.append(Op("rows", (y,), (last,), {"first": steps - 1, "shape": tuple(row)}, op.loc))

    def cell(self, s: Steps, op: Op, sums: Sequence[str], before: Sequence[str], rows: Sequence[str]) -> None:
        """Append the ops of one step behind the dense products, whose results are `sums`.

        before, rows: for y and each of `kept`, the row of the step before and the one to write.
        """
        raise NotImplementedError

    def vjp(self, b: Builder, op: Op, grads: Sequence[str | None]) -> list[str | None]:
        """Errors of the gates by one pass back through time; every gradient is a reduction over them."""
        (x, w_ih, w_hh, *biases), (y, _, *kept) = op.inputs, op.outputs
        (steps, batch, hidden), (*_, width) = b.values[y].shape, b.values[x].shape
        dy = _incoming(b, op, grads)
        errors = b.emit1(f"{self.kind}_errors", (dy, w_hh, y, *kept), f"d_{y}.gates", loc=op.loc, **op.attrs)
        seen, gates, *_ = b.values[errors].shape
        recent = _rows(b, x, steps - seen, (seen, batch, width), op.loc)
        dw_ih = b.emit1("gate_dw", (errors, recent), f"d_{w_ih}", loc=op.loc, reset=False, blocks=self.blocks)
        linked = min(seen, steps - 1)  # steps that have one before them; the state before the first is zero
        before = _rows(b, y, steps - 1 - linked, (linked, batch, hidden), op.loc)
        later = _rows(b, errors, seen - linked, (linked, gates, batch, hidden), op.loc)
        dw_hh = b.emit1("gate_dw", (later, before), f"d_{w_hh}", loc=op.loc, reset=self.reset, blocks=self.blocks)
        resets = zip(biases, (False, self.reset), strict=False)
        return [
            self._dx(b, op, errors), dw_ih, dw_hh,
            *(b.emit1("gate_db", (errors,), f"d_{name}", loc=op.loc, reset=reset, blocks=self.blocks)
              for name, reset in resets),
        ]  # fmt: skip

    def _dx(self, b: Builder, op: Op, errors: str) -> str:
        """The gradient of the input: of the steps that have an error, behind zeros."""
        x, w_ih = op.inputs[:2]
        (steps, *row), seen = b.values[x].shape, b.values[errors].shape[0]
        flat = b.emit1("gate_dx", (errors, w_ih), f"d_{x}", loc=op.loc, reset=False, blocks=self.blocks)
        dx = b.emit1("reshape", (flat,), f"d_{x}.steps", loc=op.loc, shape=(seen, *row))
        return dx if seen == steps else b.emit1("late", (dx,), f"d_{x}.all", loc=op.loc, steps=steps)

    def cases(self) -> list[Case]:
        return [_case(self.blocks, 4, 1, 3, 5), _case(self.blocks, 3, 2, 5, 3, bias=False)]

    def draw(self, rng: np.random.Generator, case: Case) -> list[Array]:
        """Weights at which no gate saturates."""
        x, *weights = super().draw(rng, case)
        return [x, *(np.float32(0.5) * w for w in weights)]

    @property
    def differentiable(self) -> tuple[int, ...]:
        return (0, 1, 2, 3, 4)


def _case(rows: int, steps: int, batch: int, width: int, hidden: int, *, bias: bool = True) -> Case:
    height = rows * hidden
    biases = (f32(height), f32(height)) if bias else ()
    return Case((f32(steps, batch, width), f32(height, width), f32(height, hidden), *biases), {"truncate": 0})


def _rows(b: Builder, x: str, first: int, shape: tuple[int, ...], loc: str) -> str:
    """Rows of a sequence, by a name of their own only if they are not all of it."""
    return x if b.values[x].shape == shape else b.emit1("rows", (x,), f"{x}.rows", loc=loc, first=first, shape=shape)


def _incoming(b: Builder, op: Op, grads: Sequence[str | None]) -> str:
    """The error from outside: of the last step (B,H) if no other has one, else of the last steps (T',B,H)."""
    dy, last = grads[:2]
    made = {made.outputs[0]: made for made in b.ops if made.kind == "late"}
    if dy is None:
        assert last is not None
        return last
    if last is None:
        return made[dy].inputs[0] if dy in made else dy
    steps, batch, hidden = b.values[dy].shape
    row = b.emit1("reshape", (last,), f"{last}.row", loc=op.loc, shape=(1, batch, hidden))
    return b.emit1("add", (dy, b.emit1("late", (row,), f"{last}.late", loc=op.loc, steps=steps)), f"{dy}.sum")


class Errors(OpSpec):
    """dy (B,H) of the last step or (S,B,H) of the last S, w_hh, y (T,B,H), and what the layer kept -> errors (S,G,B,H)
    of the sums that its gates take; with dy of the last step alone, S is truncate or, if that is 0, T.

    attrs: truncate.
    """  # fmt: skip

    operands: ClassVar[tuple[str, ...]] = ("dy", "w_hh", "y")
    results = ("errors",)
    composite = True
    layer: ClassVar[Recurrent]

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        steps, batch, hidden = inputs[2].shape
        return [f32(_seen(inputs[0].shape, steps, attrs), self.layer.gates, batch, hidden)]

    def back(
        self, dh: Array, inner: Array, t: int, arrays: Sequence[Array], attrs: Attrs
    ) -> tuple[Array, Array, Array]:
        """One step in numpy: (errors of the gates (G,B,H), error of the state before, error of the cell before).

        dh, inner: errors of state and cell behind step t.  arrays: w_hh, y and what the layer kept.
        """
        raise NotImplementedError

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        dy, *arrays = inputs
        steps, *row = arrays[1].shape
        seen = _seen(dy.shape, steps, attrs)
        errors = np.zeros((seen, self.layer.gates, *row), dy.dtype)
        late = dy if dy.ndim == 3 else np.concatenate([np.zeros((seen - 1, *row), dy.dtype), dy[None]])
        for turn, at in enumerate(reversed(range(seen))):
            if turn % (attrs["truncate"] or seen) == 0:
                dh = inner = np.zeros(row, dy.dtype)
            errors[at], dh, inner = self.back(dh + late[at], inner, steps - 1 - turn, arrays, attrs)
        return [errors]

    def expand(self, b: Builder, op: Op) -> None:
        """A scan from the last step back; the errors take over the memory of the gates, where these were kept."""
        (dy, w_hh, y, *kept), (errors,) = op.inputs, op.outputs
        seen, gates, *shape = b.values[errors].shape
        row, steps = tuple(shape), b.values[y].shape[0]
        s, here = Steps(b, op, steps - 1, steps - seen), seen - steps
        slots = [s.row(errors, row, here, i * prod(row)) for i in range(gates)]
        whole = s.row(errors, (1, gates, *row), here)
        states = b.value(b.fresh(f"d_{y}.state"), f32(2, *row), Role.ACT, op.loc)
        dh, before = s.row(states, row), s.row(states, row, -1)
        every = self._restart(op, seen)
        if b.values[dy].shape == row:
            s.store("copy", (dy,), (dh,), restart=0)
        else:
            s.start(dh, every)
            dh = s.emit("add", (dh, s.row(dy, row, here)), f"{dy}.sum")
        passed = self.cell(s, op, dh, slots, every)
        self._send_back(s, (whole, w_hh), passed, before)
        over = {"over": _rows(b, kept[0], steps - seen, (seen, gates, *row), op.loc)} if kept else {}
        s.close((errors,), **over)

    def _restart(self, op: Op, seen: int) -> int:
        """Turns after which the error of the state is cut, 0 if it never is."""
        truncate = int(str(op.attrs["truncate"]))
        return truncate if truncate < seen else 0

    def _send_back(self, s: Steps, gates: tuple[str, str], passed: str, before: str) -> None:
        """Append the error of the state before the step: through the gates, and past them."""
        layer = self.layer
        if not passed:
            s.store("gate_dx", gates, (before,), reset=layer.reset, blocks=layer.blocks)
            return
        through = s.emit("gate_dx", gates, f"{before}.through", reset=layer.reset, blocks=layer.blocks)
        s.store("add", (through, passed), (before,))

    def cell(self, s: Steps, op: Op, dh: str, slots: Sequence[str], every: int) -> str:
        """Append the gradient of a step, which fills the slots with errors.

        every: see `Steps.start`.  Returns what of dh reaches the state before past the gates, or "".
        """
        raise NotImplementedError

    def cases(self) -> list[Case]:
        steps, batch, hidden = 5, 2, 3
        y, w_hh = f32(steps, batch, hidden), f32(self.layer.blocks * hidden, hidden)
        kept = self.layer.kept(steps, batch, hidden)
        incoming = ((f32(batch, hidden), 0), (f32(batch, hidden), 3), (y, 0), (y, 2), (f32(2, batch, hidden), 2))
        own = {name: value for name, value in self.layer.cases()[0].attrs.items() if name != "truncate"}
        return [Case((dy, w_hh, y, *kept), {"truncate": truncate, **own}) for dy, truncate in incoming]


def _seen(dy: tuple[int, ...], steps: int, attrs: Attrs) -> int:
    """Steps that have an error."""
    return dy[0] if len(dy) == 3 else min(attrs["truncate"] or steps, steps)


class RnnTanh(Recurrent):
    """h' = tanh(a + m), with a = W_ih x + b_ih and m = W_hh h + b_hh (Elman 1990)."""

    kind = "rnn_tanh"
    function: ClassVar[str] = "tanh"

    def step(self, a: Array, m: Array, state: Sequence[Array], attrs: Attrs) -> list[Array]:
        return spec(self.function).reference([a + m], {})

    def cell(self, s: Steps, op: Op, sums: Sequence[str], before: Sequence[str], rows: Sequence[str]) -> None:
        s.store(self.function, (s.emit("add", sums, f"{rows[0]}.sum"),), rows)


class RnnRelu(RnnTanh):
    """h' = max(a + m, 0)."""

    kind = "rnn_relu"
    function = "relu"
    reach = (0.0, 1.0)


class RnnTanhErrors(Errors):
    """The one gate's error is dh f'(h)."""

    kind = "rnn_tanh_errors"
    layer: ClassVar[Recurrent] = RnnTanh()
    function: ClassVar[str] = "tanh_grad"

    def back(
        self, dh: Array, inner: Array, t: int, arrays: Sequence[Array], attrs: Attrs
    ) -> tuple[Array, Array, Array]:
        w_hh, y = arrays
        (error,) = spec(self.function).reference([dh, y[t]], {})
        return error[None], error @ w_hh, inner

    def cell(self, s: Steps, op: Op, dh: str, slots: Sequence[str], every: int) -> str:
        s.store(self.function, (dh, s.row(op.inputs[2], s.shape(dh))), slots)
        return ""


class RnnReluErrors(RnnTanhErrors):
    """The same for max(x, 0)."""

    kind = "rnn_relu_errors"
    layer = RnnRelu()
    function = "relu_grad"


class LeakyRnn(Recurrent):
    """h' = leak h + (1 - leak) tanh(W_ih x + W_hh h + b), see `leaky_cell`; keeps tanh (T,1,B,H).

    Operands are x, w_ih, w_hh and, optionally, b. attrs: leak in (0, 1); truncate.
    """

    kind = "leaky_rnn"
    operands = ("x", "w_ih", "w_hh", "b_ih")
    results = ("y", "last", "squashed")
    suffixes = ("", ".last", ".squashed")

    def kept(self, steps: int, batch: int, hidden: int) -> list[TensorType]:
        return [f32(steps, 1, batch, hidden)]

    def step(self, a: Array, m: Array, state: Sequence[Array], attrs: Attrs) -> list[Array]:
        h, c = spec("leaky_cell").reference([a + m, state[0]], attrs)
        return [h, c[None]]

    def cell(self, s: Steps, op: Op, sums: Sequence[str], before: Sequence[str], rows: Sequence[str]) -> None:
        z = s.emit("add", sums, f"{rows[0]}.sum")
        s.store("leaky_cell", (z, before[0]), (rows[0], *s.parts(rows[1])), leak=op.attrs["leak"])

    def cases(self) -> list[Case]:
        biased, bare = super().cases()
        return [Case(biased.inputs[:4], {**biased.attrs, "leak": 0.75}), Case(bare.inputs, {**bare.attrs, "leak": 0.5})]

    @property
    def differentiable(self) -> tuple[int, ...]:
        return (0, 1, 2, 3)


class LeakyRnnErrors(Errors):
    """The one gate's error is (1 - leak) dh (1 - tanh^2); leak dh passes it by."""

    kind = "leaky_rnn_errors"
    operands = ("dy", "w_hh", "y", "squashed")
    layer = LeakyRnn()

    def back(
        self, dh: Array, inner: Array, t: int, arrays: Sequence[Array], attrs: Attrs
    ) -> tuple[Array, Array, Array]:
        w_hh, _, squashed = arrays
        error, passed = spec("leaky_cell_grad").reference([squashed[t][0], dh], attrs)
        return error[None], error @ w_hh + passed, inner

    def cell(self, s: Steps, op: Op, dh: str, slots: Sequence[str], every: int) -> str:
        return s.store("leaky_cell_grad", (*slots, dh), slots, leak=op.attrs["leak"])[-1]


class Gru(Recurrent):
    """Gated recurrent units, see `gru_cell`; keeps gates (T,4,B,H) as inner, z, n and r."""

    kind = "gru"
    results = ("y", "last", "gates")
    suffixes = ("", ".last", ".gates")
    gates = 4
    blocks = 3
    reset = True

    def kept(self, steps: int, batch: int, hidden: int) -> list[TensorType]:
        return [f32(steps, 4, batch, hidden)]

    def step(self, a: Array, m: Array, state: Sequence[Array], attrs: Attrs) -> list[Array]:
        r, z, n_inner, n, h = spec("gru_cell").reference([a, m, state[0]], {})
        return [h, np.stack([n_inner, z, n, r])]

    def cell(self, s: Steps, op: Op, sums: Sequence[str], before: Sequence[str], rows: Sequence[str]) -> None:
        inner, z, n, r = s.parts(rows[1])
        s.store("gru_cell", (*sums, before[0]), (r, z, inner, n, rows[0]))


class GruErrors(Errors):
    """Errors of the reset, update and new gate, and of the product that the reset gate scales."""

    kind = "gru_errors"
    operands = ("dy", "w_hh", "y", "gates")
    layer = Gru()

    def back(
        self, dh: Array, inner: Array, t: int, arrays: Sequence[Array], attrs: Attrs
    ) -> tuple[Array, Array, Array]:
        w_hh, y, gates = arrays
        product, z, n, r = gates[t]
        h = y[t - 1] if t else np.zeros_like(y[0])
        dz, dn, dr, dinner, passed = spec("gru_cell_grad").reference([z, n, product, r, h, dh], {})
        return np.stack([dr, dz, dn, dinner]), np.concatenate([dr, dz, dinner], axis=1) @ w_hh + passed, inner

    def cell(self, s: Steps, op: Op, dh: str, slots: Sequence[str], every: int) -> str:
        inner, z, n, r = slots
        h = s.row(op.inputs[2], s.shape(dh), -1)
        return s.store("gru_cell_grad", (z, n, inner, r, h, dh), (z, n, inner, r))[-1]


class Lstm(Recurrent):
    """Long short-term memory, see `lstm_cell`; keeps gates (T,4,B,H), slope_i, f, slope_g and o, and cells (T,B,H)."""

    kind = "lstm"
    results = ("y", "last", "gates", "cells")
    suffixes = ("", ".last", ".gates", ".cells")
    gates = 4
    blocks = 4

    def kept(self, steps: int, batch: int, hidden: int) -> list[TensorType]:
        return [f32(steps, 4, batch, hidden), f32(steps, batch, hidden)]

    def step(self, a: Array, m: Array, state: Sequence[Array], attrs: Attrs) -> list[Array]:
        h, c, *gates = spec("lstm_cell").reference([a, m, state[2]], {})[:6]
        return [h, np.stack(gates), c]

    def cell(self, s: Steps, op: Op, sums: Sequence[str], before: Sequence[str], rows: Sequence[str]) -> None:
        s.start(before[2])
        s.store("lstm_cell", (*sums, before[2]), (rows[0], rows[2], *s.parts(rows[1])))


class LstmErrors(Errors):
    """Errors of the input, forget, cell and output gate."""

    kind = "lstm_errors"
    operands = ("dy", "w_hh", "y", "gates", "cells")
    layer = Lstm()

    def back(
        self, dh: Array, inner: Array, t: int, arrays: Sequence[Array], attrs: Attrs
    ) -> tuple[Array, Array, Array]:
        w_hh, _, gates, cells = arrays
        c = cells[t - 1] if t else np.zeros_like(cells[0])
        inner, *errors = spec("lstm_cell_grad").reference([inner, *gates[t], cells[t], c, dh], {})[:5]
        return np.stack(errors), np.concatenate(errors, axis=1) @ w_hh, inner

    def cell(self, s: Steps, op: Op, dh: str, slots: Sequence[str], every: int) -> str:
        cells, shape = op.inputs[4], s.shape(dh)
        dc = s.row(s.sequence(f"d_{cells}", (1, *shape)), shape)
        s.start(dc, every)
        s.store("lstm_cell_grad", (dc, *slots, s.row(cells, shape), s.row(cells, shape, -1), dh), (dc, *slots))
        return ""


def _gate(number: Expr, reset: bool) -> Expr:
    """The gate whose error belongs to a block of rows of a weight: of three, the last may belong to the fourth."""
    return number + number // 2 if reset else number


def _chosen(errors: Array, attrs: Attrs) -> Array:
    """Errors (S,G,B,H) of the gates that a weight belongs to: (S,B,blocks*H)."""
    picked = errors[:, [_gate(i, attrs["reset"]) for i in range(attrs["blocks"])]]
    return picked.transpose(0, 2, 1, 3).reshape(len(errors), errors.shape[2], -1)


class GateDw(OpSpec):
    """errors (S,G,B,H), x (S,B,I) -> dw (blocks*H,I): the gradient of a weight that all steps share.

    attrs: blocks, of H rows each, in the weight.  reset: whether the last of three blocks belongs to the fourth gate,
    as the inner product of a GRU does.
    """

    kind = "gate_dw"
    operands = ("errors", "x")
    results = ("dw",)

    def hints(self, types: Sequence[TensorType], attrs: Attrs) -> Hints:
        return Hints(tile=(0, 1), slides=False)

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [f32(attrs["blocks"] * inputs[0].shape[3], inputs[1].shape[2])]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        errors, x = inputs
        return [np.einsum("sbo,sbi->oi", _chosen(errors, attrs), x)]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (errors, x), (steps, _, batch, hidden) = inputs, types[0].shape
        s, b = te.axes(steps, batch)

        def term(o: Expr, i: Expr) -> Expr:
            return errors[s, _gate(o // hidden, attrs["reset"]), b, o % hidden] * x[s, b, i]

        shape = (attrs["blocks"] * hidden, types[1].shape[2])
        return [te.compute(shape, lambda o, i: te.sum(term(o, i), [s, b]), "dw")]

    def macs(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType], attrs: Attrs) -> int:
        steps, _, batch, _ = inputs[0].shape
        return steps * batch * outputs[0].size

    def cases(self) -> list[Case]:
        return [Case((errors, f32(*errors.shape[::2], 7)), attrs) for errors, attrs in GATES]


GATES: tuple[tuple[TensorType, dict[str, int | bool]], ...] = (
    (f32(3, 1, 1, 5), {"blocks": 1, "reset": False}),
    (f32(5, 4, 1, 3), {"blocks": 4, "reset": False}),
    (f32(4, 4, 1, 6), {"blocks": 3, "reset": True}),
    (f32(3, 4, 2, 5), {"blocks": 3, "reset": False}),
    (f32(2, 4, 3, 5), {"blocks": 3, "reset": True}),
)
"""Errors and the weight they belong to."""


class GateDx(OpSpec):
    """errors (S,G,B,H), w (blocks*H,I) -> dx (S*B,I). attrs: see `gate_dw`."""

    kind = "gate_dx"
    operands = ("errors", "w")
    results = ("dx",)

    def hints(self, types: Sequence[TensorType], attrs: Attrs) -> Hints:
        return Hints(tile=(1,))

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        steps, _, batch, _ = inputs[0].shape
        return [f32(steps * batch, inputs[1].shape[1])]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        errors, w = inputs
        return [(_chosen(errors, attrs) @ w).reshape(-1, w.shape[1])]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (errors, w), (steps, _, batch, hidden) = inputs, types[0].shape
        g, j = te.axes(attrs["blocks"], hidden)

        def term(r: Expr, i: Expr) -> Expr:
            return errors[r // batch, _gate(g, attrs["reset"]), r % batch, j] * w[g * hidden + j, i]

        return [te.compute((steps * batch, types[1].shape[1]), lambda r, i: te.sum(term(r, i), [g, j]), "dx")]

    def macs(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType], attrs: Attrs) -> int:
        steps, _, batch, _ = inputs[0].shape
        return steps * batch * inputs[1].size

    def cases(self) -> list[Case]:
        weights = [f32(int(attrs["blocks"]) * errors.shape[3], 7) for errors, attrs in GATES]
        return [Case((errors, w), attrs) for w, (errors, attrs) in zip(weights, GATES, strict=True)]


class GateDb(OpSpec):
    """errors (S,G,B,H) -> db (blocks*H). attrs: see `gate_dw`."""

    kind = "gate_db"
    operands = ("errors",)
    results = ("db",)

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [f32(attrs["blocks"] * inputs[0].shape[3])]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        return [_chosen(inputs[0], attrs).sum(axis=(0, 1))]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (errors,), (steps, _, batch, hidden) = inputs, types[0].shape
        s, b = te.axes(steps, batch)

        def term(o: Expr) -> Expr:
            return errors[s, _gate(o // hidden, attrs["reset"]), b, o % hidden]

        return [te.compute((attrs["blocks"] * hidden,), lambda o: te.sum(term(o), [s, b]), "db")]

    def cases(self) -> list[Case]:
        return [Case((errors,), attrs) for errors, attrs in GATES]
