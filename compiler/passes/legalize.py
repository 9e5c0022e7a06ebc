"""Refuse by name what the board lacks; fix how it rounds."""

from strop.compiler.ir import Program
from strop.compiler.ops import spec
from strop.errors import LegalizeError


def legalize(program: Program, *, fma: bool, board: str) -> Program:
    """Return the Program for a core: with fused multiply-add where it has one.

    Raises LegalizeError naming the layer whose op has no kernel for a dtype.
    """
    check_formats(program, board)
    return program.with_(fma=fma)


def check_formats(program: Program, board: str) -> None:
    """Raise LegalizeError for the first op that has no kernel for the format of an operand."""
    for ops in program.functions().values():
        for op in (part for top in ops for part in top.parts):
            kind = spec(op.kind)
            for name in (*op.inputs, *op.outputs):
                dtype = program.values[name].dtype
                if dtype.is_float and dtype.base not in kind.dtypes:
                    kept = " or ".join(kind.dtypes)
                    raise LegalizeError(
                        f"{op.kind} has no kernel for {dtype.base} on {board}", where=op.loc or name,
                        do=f"Keep the layer in {kept}: an entry [layers.\"{layer(op.loc)}\"] of a precision policy does"
                        " that" if op.loc else f"Build in {kept}",
                    )  # fmt: skip


def layer(loc: str) -> str:
    """The layer in a location such as `conv1 (Conv2d)`."""
    return loc.split(" ", maxsplit=1)[0]
