"""What a max-pool makes cheaper: most of the image it reads never matters.

* An activation that never decreases moves behind the pool: the largest stays the largest, and only it is activated.
* The pool's gradient is zero but at one place a window, so a convolution's weight gradient needs one term a window, and
  a bias gradient is the sum before it is spread.
"""

from collections.abc import Sequence
from dataclasses import replace

from strop.compiler.ir import Op, Program, Role, Value
from strop.compiler.ops import spec

POOLS = frozenset({"max_pool2d", "max_pool2d_argmax"})


def pooling(program: Program) -> Program:
    """Return the Program with activations behind max-pools and sparse gradients where pools allow it."""
    values = dict(program.values)
    functions = {name: _behind(values, ops) for name, ops in program.functions().items()}
    functions["train_step"] = tuple(_sparse(functions["train_step"]))
    return program.with_(values=values, **functions).pruned()


def _behind(values: dict[str, Value], ops: Sequence[Op]) -> tuple[Op, ...]:
    """Swap each activation with the pool that alone reads it, and their gradients likewise."""
    swapped = list(ops)
    for activation in [op for op in ops if spec(op.kind).monotone]:
        chain = _chain(swapped, activation)
        if chain:
            _swap(values, swapped, *chain)
    return tuple(swapped)


def _chain(ops: Sequence[Op], activation: Op) -> tuple[Op, Op, Op | None, Op | None] | None:
    """(activation, pool, pool gradient, activation gradient) if nothing else reads what lies between them."""
    (a,) = activation.outputs
    readers = [op for op in ops if a in op.inputs]
    pools = [op for op in readers if op.kind in POOLS]
    slopes = [op for op in readers if op.kind == f"{activation.kind}_grad"]
    if len(pools) != 1 or len(readers) != 1 + len(slopes) or len(slopes) > 1:
        return None
    if not slopes:
        return activation, pools[0], None, None
    error = slopes[0].inputs[0]
    spread = next((op for op in ops if error in op.outputs and op.kind == "max_pool2d_grad"), None)
    if spread is None or sum(error in op.inputs for op in ops) != 1 or spread.inputs[1] not in pools[0].outputs:
        return None
    return activation, pools[0], spread, slopes[0]


def _swap(values: dict[str, Value], ops: list[Op], act: Op, pool: Op, spread: Op | None, slope: Op | None) -> None:
    image, result = act.inputs[0], pool.outputs[0]
    largest = _declare(values, f"{image}.max", values[result])
    ops[ops.index(act)] = replace(pool, inputs=(image,), outputs=(largest, *pool.outputs[1:]))
    ops[ops.index(pool)] = replace(act, inputs=(largest,), outputs=(result,))
    if spread is None or slope is None:
        return
    error = _declare(values, f"d_{largest}", values[result])
    index = spread.inputs[1]
    ops[ops.index(spread)] = replace(slope, inputs=(spread.inputs[0], result), outputs=(error,))
    ops[ops.index(slope)] = replace(spread, inputs=(error, index), outputs=slope.outputs)


def _declare(values: dict[str, Value], name: str, like: Value) -> str:
    values.setdefault(name, Value(name, like.type, Role.ACT, like.loc))
    return name


def _sparse(ops: Sequence[Op]) -> list[Op]:
    """Let weight and bias gradients read the error before a pool's gradient spreads it."""
    spread = {op.outputs[0]: op for op in ops if op.kind == "max_pool2d_grad"}
    return [_read_before(op, spread[op.inputs[0]]) if op.inputs and op.inputs[0] in spread else op for op in ops]


def _read_before(op: Op, spread: Op) -> Op:
    error, index = spread.inputs
    if op.kind == "bias_grad":
        return replace(op, inputs=(error,))
    if op.kind == "conv2d_dw":
        pool = {f"pool_{name}": spread.attrs[name] for name in ("kernel", "stride", "padding")}
        return replace(op, kind="conv2d_dw_pooled", inputs=(error, index, op.inputs[1]), attrs={**op.attrs, **pool})
    return op
