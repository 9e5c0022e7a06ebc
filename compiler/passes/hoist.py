"""Move the learning rate of a rank-1 update into the outer product, where a schedule computes it once a column.

`w - lr (dy x^T)` costs two multiplications a weight; `w + dy (-lr x)^T` one, and is a fused multiply-add where there is
one, of a sign that every core has. The two round differently, so this is decided here, in the Program, for board and
twin alike.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import cast

from strop.compiler.ir import Op, Program


def hoist(program: Program) -> Program:
    """Return the Program with plain SGD updates of dense layers at batch 1 as one multiplication a weight."""
    if program.batch != 1:
        return program
    reads = Counter(name for op in program.train_step for name in op.inputs)
    products = {op.outputs[0]: op for op in program.train_step if _rank_one(program, op) and reads[op.outputs[0]] == 1}
    scales = {
        op.inputs[1]: -cast(float, op.attrs["lr"])
        for op in program.train_step
        if op.kind == "sgd" and op.inputs[1] in products and "lr" in op.attrs and not op.attrs["weight_decay"]
    }
    return program.with_(train_step=tuple(_hoisted(op, scales) for op in program.train_step))


def _rank_one(program: Program, op: Op) -> bool:
    """Whether the op is the outer product of two rows; of more rows, each would be multiplied by the rate."""
    return op.kind == "dense_dw" and program.values[op.inputs[0]].shape[0] == 1


def _hoisted(op: Op, scales: Mapping[str, float]) -> Op:
    if op.kind == "dense_dw" and op.outputs[0] in scales:
        return replace(op, attrs={**op.attrs, "scale": scales[op.outputs[0]]})
    if op.kind == "sgd" and op.inputs[1] in scales:
        return replace(op, attrs={**op.attrs, "lr": -1.0})
    return op
