"""Make weight updates cheap where the mathematics allows it; decided here, in the Program, for board and twin alike.

* The learning rate of a rank-1 update moves into the outer product: `w - lr (dy x^T)` costs two multiplications a
  weight, `w - dy (lr x)^T` one, which a fused multiply-add takes in. The two round differently.
* An error that passed a ReLU's gradient is 0 wherever the ReLU was dead; its rows are skipped (`sparse`).
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from strop.compiler.ir import Attr, Op, Program


def hoist(program: Program) -> Program:
    """Return the Program with cheaper updates at batch 1."""
    return _skip_zeros(_scale_inputs(program)) if program.batch == 1 else program


def _scale_inputs(program: Program) -> Program:
    reads = Counter(name for op in program.train_step for name in op.inputs)
    products = {op.outputs[0]: op for op in program.train_step if op.kind == "dense_dw" and reads[op.outputs[0]] == 1}
    scales = {
        op.inputs[1]: op.attrs["lr"]
        for op in program.train_step
        if op.kind == "sgd" and op.inputs[1] in products and not op.attrs["weight_decay"]
    }
    return program.with_(train_step=tuple(_hoisted(op, scales) for op in program.train_step))


def _hoisted(op: Op, scales: Mapping[str, Attr]) -> Op:
    if op.kind == "dense_dw" and op.outputs[0] in scales:
        return replace(op, attrs={**op.attrs, "scale": scales[op.outputs[0]]})
    if op.kind == "sgd" and op.inputs[1] in scales:
        return replace(op, attrs={**op.attrs, "lr": 1.0})
    return op


MASKING = frozenset({"relu_grad", "relu6_grad"})
SKIPPING = frozenset({"dense_dx", "dense_dw", "conv2d_dw_pooled"})


def _skip_zeros(program: Program) -> Program:
    """Mark ops that read a masked error and can skip its zeros; a weight gradient only when plain SGD consumes it."""
    masked: set[str] = set()
    plain = {op.inputs[1] for op in program.train_step if op.kind == "sgd" and op.attrs["lr"] == 1}
    ops = []
    for op in program.train_step:
        if op.kind in MASKING or (op.kind == "reshape" and op.inputs[0] in masked):
            masked.update(op.outputs)
        skips = op.kind in SKIPPING and op.inputs[0] in masked and (op.kind != "dense_dw" or op.outputs[0] in plain)
        ops.append(replace(op, attrs={**op.attrs, "sparse": True}) if skips else op)
    return program.with_(train_step=tuple(ops))
