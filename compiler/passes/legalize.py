"""Refuse by name what the board lacks; fix how it rounds."""

from strop.compiler.ir import Program, flatten
from strop.compiler.ops import spec
from strop.errors import LegalizeError


def legalize(program: Program, *, fma: bool, board: str) -> Program:
    """Return the Program for a core: with fused multiply-add where it has one.

    Raises LegalizeError naming the layer whose op has no kernel for a dtype.
    """
    for ops in program.functions().values():
        for op in flatten(ops):
            kind = spec(op.kind)
            for name in (*op.inputs, *op.outputs):
                dtype = program.values[name].dtype
                if dtype.is_float and dtype.name not in kind.dtypes:
                    raise LegalizeError(
                        f"{op.kind} has no kernel for {dtype.name} on {board}", where=op.loc or name,
                        do=f"Use one of: {', '.join(kind.dtypes)}",
                    )  # fmt: skip
    return program.with_(fma=fma)
