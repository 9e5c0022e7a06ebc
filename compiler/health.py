"""What a generated file needs beside its kernels when errors rest in 16 bits times a scale: limits, and their count.

Of a step, `beyond` remembers whether an error left its format's range. Under a fixed scale it stays at the range's end;
under one that follows, kernels that update something are not run in this step, and the scale halves.
"""

from collections.abc import Iterable

import numpy as np

from strop.compiler.dtypes import DType
from strop.compiler.ir import PERSISTENT, Op, Program

SCALE = "error.scale"
"""State of a scale that follows, (3): the scale, its inverse, steps since it changed."""

FIRST, MOST, PATIENCE = 2.0**16, 2.0**24, 2000
"""Scale at start, largest one, steps without trouble until it doubles (PyTorch's GradScaler)."""

DECLARATION = """/* Steps since start with a 16-bit error beyond its range, and with updates skipped for that. */
typedef struct strop_model_health { uint32_t saturated, skipped; } strop_model_health_t;
extern strop_model_health_t strop_model_health;
"""

FIXED = """strop_model_health_t strop_model_health;

/* Whether an error of this step was too large for its format. */
static bool beyond;

static inline __attribute__((unused)) float strop_model_limited(float x) {{
    const float low = x < -{most} ? -{most} : x, y = low > {most} ? {most} : low;
    beyond = beyond || y != x;
    return y;
}}
"""

LANES = """
/* The same of {n} lanes at once, few of which ever lie beyond. */
static inline __attribute__((always_inline)) {type}
strop_model_limited_{half}x{n}({type} x, size_t n) {{
    if (strop_x{n}_{half}within(x, {most}, n)) {{
        return x;
    }}
    beyond = true;
    return {limited};
}}
"""

FOLLOWING = """strop_model_health_t strop_model_health;

/* Whether an error of this step was too large for its format: no kernel updates anything. */
static bool beyond;

static inline float strop_model_scale(void) {{ return {scale}[0]; }}
static inline float strop_model_unscale(void) {{ return {scale}[1]; }}

static inline __attribute__((unused)) float strop_model_limited(float x) {{
    beyond = beyond || !(x >= -{most} && x <= {most});
    return x;
}}

/* Halves the scale after a step with too large an error, and doubles it after {patience} without. */
static void follow(void) {{
    float *const scale = {scale};
    scale[2] += 1.0f;
    if (beyond) {{
        scale[0] = scale[0] > 1.0f ? scale[0] * 0.5f : scale[0];
    }} else if (scale[2] >= {patience}.0f) {{
        scale[0] = scale[0] < {largest:.1f}f ? scale[0] * 2.0f : scale[0];
    }} else {{
        return;
    }}
    scale[1] = 1.0f / scale[0];
    scale[2] = 0.0f;
}}
"""


def scaled(program: Program) -> DType | None:
    """The format of errors that rest times a scale; None where none does."""
    return next((v.dtype for v in program.values.values() if v.dtype.exponent or v.dtype.dynamic), None)


def definitions(dtype: DType, scale: str, widths: Iterable[int] = (), halves: Iterable[int] = ()) -> str:
    """C before the kernels. scale: the state's memory.  widths: of the vectors of errors that kernels store.

    halves: of those that are computed in binary16.
    """
    most = f"{dtype.most:.1f}f"
    text = (FOLLOWING if dtype.dynamic else FIXED).format(most=most, scale=scale, patience=PATIENCE, largest=MOST)
    for half, element, lanes in (("", "f32", widths), ("half_", "f16", halves)):
        for n in lanes:
            limited = "x" if dtype.dynamic else f"strop_x{n}_{half}clipped(x, {most}, n)"
            text += LANES.format(n=n, most=most, limited=limited, half=half, type=f"strop_{element}x{n}")
    return text


def ending(dtype: DType) -> list[str]:
    """C at the end of a step."""
    counted = ["    strop_model_health.saturated += beyond;"]
    if dtype.dynamic:
        counted += ["    strop_model_health.skipped += beyond;", "    follow();"]
    return [*counted, "    beyond = false;"]


def guarded(program: Program, op: Op) -> bool:
    """Whether an op is left out once an error was too large: under a scale that follows, whatever overwrites."""
    dtype = scaled(program)
    return dtype is not None and dtype.dynamic and any(program.values[n].role in PERSISTENT for n in op.outputs)


def followed(scale: np.ndarray, *, beyond: bool) -> np.ndarray:
    """The state after a step, as `follow` leaves it."""
    factor, since = float(scale[0]), float(scale[2]) + 1
    if not beyond and since < PATIENCE:
        return np.array([factor, scale[1], since], scale.dtype)
    factor = max(factor / 2, 1.0) if beyond else min(factor * 2, MOST)
    return np.array([factor, 1 / factor, 0], scale.dtype)
