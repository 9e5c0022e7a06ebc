"""A planned Program as C: one readable file with constant shapes, its header, and the table that a session needs.

The generated code owns all memory of the model as file-scope objects; it calls nothing but its own kernels and the
runtime's numerics.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from re import findall, search, sub

import numpy as np

from strop.compiler import health
from strop.compiler.cprint import literal
from strop.compiler.dtypes import DTYPES, FLOAT32
from strop.compiler.ir import Op, Program, Role, Row, Value
from strop.compiler.kernels import Kernel, kernel_runs, macs, needs_code, operands
from strop.compiler.liveness import offsets
from strop.compiler.plan import Plan

STRUCTS = {Role.PARAM: "params", Role.STATE: "state", Role.CONST: "consts"}
MEMBERS = {"float": "f32", "uint16_t": "u16", "int32_t": "i32", "int8_t": "i8", "uint8_t": "u8"}
"""Views of the arena by the C type of what lies there."""
STROP_DTYPES = {
    "float32": "STROP_F32", "float16": "STROP_F16", "bfloat16": "STROP_BF16", "int32": "STROP_I32", "int8": "STROP_I8",
    "uint8": "STROP_U8",
}  # fmt: skip


@dataclass(frozen=True)
class Call:
    """One kernel call of a function. name: of the C function.  macs: multiply-accumulates, in all turns of a scan."""

    name: str
    op: Op
    macs: int


@dataclass(frozen=True)
class Naming:
    """C names of values and kernels. values: unique identifiers.  calls: by function, in order of execution."""

    values: Mapping[str, str]
    kernels: Mapping[Kernel, str]
    calls: Mapping[str, tuple[Call, ...]]


def naming(program: Program, kernels: Mapping[Op, Kernel]) -> Naming:
    """Choose a C identifier for every value and every distinct kernel."""
    values: dict[str, str] = {}
    for name in program.values:
        values[name] = _free(identifier(name), set(values.values()) | RESERVED)
    names: dict[Kernel, str] = {}
    calls: dict[str, tuple[Call, ...]] = {}
    for function, ops in program.functions().items():
        row = []
        for op, times in kernel_runs(ops):
            kernel = kernels[op]
            names.setdefault(kernel, _free(_kernel_name(op), {*names.values(), *values.values()} | RESERVED))
            row.append(Call(names[kernel], op, times * macs(program, op)))
        calls[function] = tuple(row)
    return Naming(values, names, calls)


RESERVED = frozenset(
    [
        "x",
        "y",
        "t",
        "hart",
        "harts",
        "job_x",
        "job_y",
        "job_out",
        "out",
        "arena",
        "main",
        "auto",
        "break",
        "case",
        "char",
        "const",
        "continue",
        "default",
        "do",
        "double",
        "else",
        "enum",
        "extern",
        "float",
        "for",
        "goto",
        "if",
        "inline",
        "int",
        "long",
        "register",
        "restrict",
        "return",
        "short",
        "signed",
        "sizeof",
        "static",
        "struct",
        "switch",
        "typedef",
        "union",
        "unsigned",
        "void",
        "volatile",
        "while",
        "bool",
        "true",
        "false",
        "exp",
        "log",
        "tanh",
        "sqrt",
        "int32_t",
        "uint8_t",
        "uint64_t",
        "size_t",
        "start",
        "consts",
        "initial_params",
        "initial_state",
        "strop_model_params",
        "strop_model_state",
        "strop_model_kernel_cost",
        "strop_port_counter",
        "KERNEL",
    ]
)
"""Words of C, and what the generated file uses by itself."""


def identifier(name: str) -> str:
    """A C identifier that resembles the name; `0.weight` becomes `layer0_weight`."""
    text = sub(r"\W", "_", name)
    return f"layer{text}" if text[0].isdigit() else text


def _free(stem: str, taken: set[str] | frozenset[str]) -> str:
    name, count = stem, 1
    while name in taken:
        count += 1
        name = f"{stem}_{count}"
    return name


def _kernel_name(op: Op) -> str:
    """`conv1_conv2d_tanh`: the layer, then what is computed."""
    layer = identifier(op.loc.split(" ")[0]) if op.loc else ""
    kinds = "_".join(dict.fromkeys(part.kind for part in op.parts))
    return f"{layer}_{kinds}" if layer else kinds


class Emitter:
    """Writes the C of one Program. Methods return text; nothing is stored but the inputs.

    flush: the core's vectors take subnormal numbers for zero.  apart: see `Isa`.
    """

    def __init__(
        self, program: Program, plan: Plan, kernels: Mapping[Op, Kernel], *, flush: bool = False, apart: bool = False
    ) -> None:
        self.program, self.plan, self.kernels, self.flush, self.apart = program, plan, kernels, flush, apart
        self.names = naming(program, kernels)
        self.offsets = {name: offsets(program, ops) for name, ops in program.functions().items()}
        self.x, self.y = program.only(Role.INPUT), next(iter(program.of(Role.LABEL)), None)
        self.out = program.values[program.output]

    def files(self) -> dict[str, str]:
        """Every generated C file by name."""
        return {
            "strop_model.h": self.header(),
            "strop_model.c": self.source(),
            "strop_model_table.c": self.table(),
        }

    def _banner(self, what: str) -> str:
        about = "; ".join(f"{key}: {value}" for key, value in self.program.notes.items())
        return f"/* {what}\n *\n * Generated by strop {version('strop')} from {self.program.name}. {about}\n */\n"

    def header(self) -> str:
        """`strop_model.h`: all that a user includes."""
        label = self.y.dtype.c if self.y else "int32_t"
        lines = [
            self._banner("A network that trains where it runs."),
            "#ifndef STROP_MODEL_H\n#define STROP_MODEL_H\n\n#include <stdint.h>\n",
            '#ifdef __cplusplus\nextern "C" {\n#endif\n',
            f"#define STROP_MODEL_BATCH {self.program.batch}u",
            f"#define STROP_MODEL_X_BYTES {self.x.bytes}u",
            f"#define STROP_MODEL_Y_BYTES {self.y.bytes if self.y else 0}u",
            f"#define STROP_MODEL_OUT_BYTES {self.out.bytes}u\n",
            "/* Sets initial parameters and optimizer state. Call once before anything else; again to start over. */",
            "void strop_model_init(void);\n",
            f"/* One step on one batch: forward, backward, update. x: {_shape(self.x)}; y: {self._label_text()}.",
            " * Both are only read, and stay the caller's. Returns the mean loss of the batch before the update. */",
            f"float strop_model_train_step(const float *x, const {label} *y);\n",
            f"/* The network's output for one batch. x: {_shape(self.x)}; out: {_shape(self.out)}, apart from x. */",
            "void strop_model_infer(const float *x, float *out);\n",
            *(self._struct(role) for role in (Role.PARAM, Role.STATE) if self.program.of(role)),
            *([health.DECLARATION] if health.scaled(self.program) else []),
            "#ifdef __cplusplus\n}\n#endif\n#endif",
        ]
        return "\n".join(lines) + "\n"

    def _label_text(self) -> str:
        if self.y is None:
            return "not used"
        limit = f", each in [0, {self.classes})" if self.classes else ""
        return f"{_shape(self.y)}{limit}"

    @property
    def classes(self) -> int:
        """Number of classes, 0 for a regression label."""
        return self.out.shape[-1] if self.y is not None and not self.y.dtype.is_float else 0

    def _struct(self, role: Role) -> str:
        """The struct that holds all values of a role, in the order of the plan's addresses."""
        what = {
            Role.PARAM: "Trainable parameters",
            Role.STATE: "State of the optimizer, of local heads, and what is remembered of samples",
            Role.CONST: "Frozen values",
        }[role]
        name = f"strop_model_{STRUCTS[role]}"
        members = [
            f"    {v.dtype.c} {self.names.values[v.name]}[{v.type.size}];"
            f" /* {v.name} {_shape(v) if v.dtype.narrow else _dims(v)} */"
            for v in self.program.of(role)
        ]
        constant = "const " if role is Role.CONST else ""
        declaration = "" if constant else f"extern {name}_t {name};\n"
        head = f"/* {what}, row major. */\ntypedef struct {name} {{\n"
        return head + "\n".join(members) + f"\n}} {name}_t;\n{declaration}"

    def source(self) -> str:
        """`strop_model.c`: memory, kernels, and the three functions."""
        parts = [
            self._banner("Every shape, address and kernel was fixed when this was generated."),
            INCLUDES,
            vectors(self.names.kernels, flush=self.flush) + ('#include "team.h"\n' if self.team else ""),
            IMAGE,
            self._profile_hook(),
            self._memory(),
            self._health(),
            *map(self._definition, self.names.kernels),
            self._init(),
            self._function("train_step") if self.program.train_step else "",
            self._function("infer"),
            self._part() if self.team else "",
        ]
        return "\n".join(part for part in parts if part)

    def _definition(self, kernel: Kernel) -> str:
        """A kernel; no part of its callers if a step has several and the core prefers that."""
        name = self.names.kernels[kernel]
        calls = sum(call.name == name for call in self.names.calls["train_step"])
        return (APART if self.apart and calls > 1 else "") + kernel.function(name)

    def _health(self) -> str:
        """What kernels call when they store errors times a scale."""
        dtype = health.scaled(self.program)
        state = f"strop_model_state.{self.names.values[health.SCALE]}" if health.SCALE in self.names.values else ""
        found = [findall(r"limited_(half_)?x(\d+)", kernel.body) for kernel in self.names.kernels]
        widths, halves = (sorted({int(n) for row in found for kind, n in row if kind == own}) for own in ("", "half_"))
        return health.definitions(dtype, state, widths, halves) if dtype else ""

    @property
    def team(self) -> bool:
        """Whether the harts of a cluster run each kernel together."""
        return any(kernel.team for kernel in self.names.kernels)

    def _profile_hook(self) -> str:
        count = len(self.names.calls["train_step"])
        if self.team:
            return TEAM_HOOK.format(count=max(count, 1))
        return (
            "#ifdef STROP_COUNT_KERNELS\n"
            '#include "strop.h"\n'
            f"uint64_t strop_model_kernel_cost[{max(count, 1)}];\n"
            "#define KERNEL(i, call)                                                   \\\n"
            "    do {                                                                  \\\n"
            "        const uint64_t start = strop_port_counter();                      \\\n"
            "        call;                                                             \\\n"
            "        strop_model_kernel_cost[i] += strop_port_counter() - start;       \\\n"
            "    } while (0)\n"
            "#else\n#define KERNEL(i, call) call\n#endif\n"
        )

    def _memory(self) -> str:
        text = []
        for role in (Role.PARAM, Role.STATE):
            if self.program.of(role):
                text.append(f"strop_model_{STRUCTS[role]}_t strop_model_{STRUCTS[role]};\n")
                if any(self.program.initial[v.name].any() for v in self.program.of(role)):
                    text.append(self._contents(role, f"initial_{STRUCTS[role]}"))
        if self.program.of(Role.CONST):
            text += [self._struct(Role.CONST), self._contents(Role.CONST, "consts")]
        return "\n".join([*text, self._arena()])

    def _arena(self) -> str:
        size = max(self.plan.sizes["arena"], 4)
        widths = {row.c: row.bytes for row in DTYPES.values()}
        members = "".join(f" {c} {member}[{size // widths[c]}];" for c, member in MEMBERS.items())
        return f"{ARENA}static union {{{members} }} arena;\n"

    def _contents(self, role: Role, name: str) -> str:
        rows = []
        for value in self.program.of(role):
            data = self.program.initial[value.name].ravel()
            data = data.view(np.uint16) if value.dtype.narrow else data
            numbers = [literal(v) if value.dtype is FLOAT32 else str(v) for v in data.tolist()]
            rows.append(f"    .{self.names.values[value.name]} = {{{_wrapped(numbers)}}},")
        return f"IMAGE static const strop_model_{STRUCTS[role]}_t {name} = {{\n" + "\n".join(rows) + "\n};\n"

    def _init(self) -> str:
        lines = []
        for role in (Role.PARAM, Role.STATE):
            name = f"strop_model_{STRUCTS[role]}"
            if any(self.program.initial[v.name].any() for v in self.program.of(role)):
                lines.append(f"    {name} = initial_{STRUCTS[role]};")
            elif self.program.of(role):
                floats = all(v.dtype is FLOAT32 for v in self.program.of(role))
                c, zero = ("float", "0.0f") if floats else ("uint8_t", "0u")
                lines.append(f"    for (size_t i = 0; i < sizeof {name} / sizeof({c}); ++i) {{")
                lines.append(f"        (({c} *)&{name})[i] = {zero};")
                lines.append("    }")
        return "void strop_model_init(void) {\n" + "\n".join(lines) + "\n}\n"

    def _function(self, function: str) -> str:
        train = function == "train_step"
        label = self.y.dtype.c if self.y else "int32_t"
        head = (
            f"float strop_model_train_step(const float *x, const {label} *y) {{"
            if train
            else "void strop_model_infer(const float *x, float *out) {"
        )
        lines = [*(self._team_head(function) if self.team else [head]), *self._pointers(function)]
        calls = enumerate(self.names.calls[function])
        for op in filter(needs_code, self.program.functions()[function]):
            if op.kind == "scan":
                lines += self._loop(function, op, [next(calls) for _ in op.body])
            else:
                lines.append(f"    {self._call(function, *next(calls))}")
        if self.team:
            return "\n".join([*lines, *self._team_tail(function, head), "}"]) + "\n"
        if train:
            dtype = health.scaled(self.program)
            lines += health.ending(dtype) if dtype else []
            lines.append(f"    return {self._place(function, self.program.loss)}[0];")
        return "\n".join([*lines, "}"]) + "\n"

    def _part(self) -> str:
        """What every hart is called for."""
        call = f"        train_step_part({TEAM_JOB});"
        train = ["    if (what == STROP_PART_TRAIN) {", call, "        return;", "    }"]
        head = "void strop_model_part(int what, const void *x, const void *y, void *out, int hart, int harts) {"
        known = train if self.program.train_step else ["    (void)what;"]
        return "\n".join([head, *known, f"    infer_part({TEAM_JOB});", "}"]) + "\n"

    def _team_head(self, function: str) -> list[str]:
        """The part of a function that every hart runs."""
        train, label = function == "train_step", self.y.dtype.c if self.y else "int32_t"
        out = [f"    const {label} *const y = job_y;", "    (void)y;"] if train else ["    float *const out = job_out;"]
        return [
            f"static void {function}_part(const void *job_x, const void *job_y, void *job_out, int hart, int harts) {{",
            "    const float *const x = job_x;",
            *out,
            *([] if train else ["    (void)job_y;"]),
        ]

    def _team_tail(self, function: str, head: str) -> list[str]:
        """The end of that part, and the function that has all harts run it."""
        if function != "train_step":
            return ["}\n", head, "    strop_team_run(STROP_PART_INFER, x, NULL, out);"]
        dtype = health.scaled(self.program)
        store = f"        *(float *)job_out = {self._place(function, self.program.loss)}[0];"
        ending = [f"    {line}" for line in health.ending(dtype)] if dtype else []
        run = ["    float mean = 0.0f;", "    strop_team_run(STROP_PART_TRAIN, x, y, &mean);", "    return mean;"]
        return ["    if (hart == 0) {", *ending, store, "    }", "}\n", head, *run]

    def _call(self, function: str, index: int, call: Call, places: Mapping[str, str] = {}) -> str:
        """A kernel call. places: C of the operands that are rows."""
        shared = ["hart", "harts"] if self.team else []
        arguments = self._arguments(function, call.op, places)
        if self.flush and "strop_x" in self.kernels[call.op].body:  # see lanes_mve.h
            arguments = [f"strop_address({each})" for each in arguments]
        text = f"{call.name}({', '.join([*shared, *arguments])})"
        counted = f"KERNEL({index}, {text})" if function == "train_step" else text
        counted = f"if (!beyond) {{ {counted}; }}" if health.guarded(self.program, call.op) else counted
        together = "; strop_team_barrier(hart)" if self.team and function != "train_step" else ""
        return f"{counted}{together}; /* {_remark(call.op)} */"

    def _loop(self, function: str, scan: Op, calls: Sequence[tuple[int, Call]]) -> list[str]:
        """A scan: what only its first turn does stands before the loop."""
        times = scan.times
        at_first, at_any = (
            {row.name: self._row(function, scan, row, t) for row in scan.rows.values()} for t in (times[0], None)
        )
        before, inside = [], []
        for index, call in calls:
            restart = call.op.attrs.get("restart")
            if restart is None:
                inside.append(f"        {self._call(function, index, call, at_any)}")
            elif not restart:
                before.append(f"    {self._call(function, index, call, at_first)}")
            else:
                turn = "t" if times.step > 0 else f"({times[0]} - t)"
                inside.append(f"        if ({turn} % {restart} == 0) {{")
                inside += [f"            {self._call(function, index, call, at_any)}", "        }"]
        turns = f"t < {times.stop}; ++t" if times.step > 0 else f"t >= {times[-1]}; --t"
        return [*before, f"    for (int t = {times[0]}; {turns}) {{", *inside, "    }"]

    def _row(self, function: str, scan: Op, row: Row, t: int | None) -> str:
        """The C expression for a step value's memory, at a turn that is known or at the loop's."""
        sequence = self.program.values[row.sequence]
        count, size = sequence.shape[0], sequence.type.size // sequence.shape[0]
        terms = [self._place(function, row.sequence)]
        if t is not None:
            row_start = (t + row.shift) % count * size + row.start
            return " + ".join([*terms, *([str(row_start)] if row_start else [])])
        if count > 1:
            terms.append(f"{_modulo(scan.times, row.shift, count)} * {size}")
        return " + ".join([*terms, *([str(row.start)] if row.start else [])])

    def _pointers(self, function: str) -> list[str]:
        """One pointer a planned buffer."""
        lines = []
        for buffer in self.plan.arena[function]:
            value = self.program.values[buffer.interval.names[0]]
            offset = buffer.offset // value.dtype.bytes
            name = self.names.values[value.name]
            lines.append(
                f"    {value.dtype.c} *const {name} = arena.{MEMBERS[value.dtype.c]} + {offset};"
                f" /* {_dims(value)} */"
            )
        return lines

    def _place(self, function: str, name: str) -> str:
        """The C expression for a value's memory."""
        start = self.offsets[function].get(name, 0)
        owner = self._owner(function, self.plan.aliases[function].get(name, name))
        return f"{owner} + {start}" if start else owner

    def _owner(self, function: str, name: str) -> str:
        """The C expression for memory that is no other value's."""
        value = self.program.values[name]
        if name in self.plan.given[function]:
            return "out"
        if value.role in (Role.PARAM, Role.STATE):
            return f"strop_model_{STRUCTS[value.role]}.{self.names.values[name]}"
        if value.role is Role.CONST:
            return f"consts.{self.names.values[name]}"
        return {Role.INPUT: "x", Role.LABEL: "y"}.get(value.role, self.names.values[name])

    def _arguments(self, function: str, op: Op, places: Mapping[str, str]) -> list[str]:
        fresh = op.outputs[1:] if "over" in op.attrs else op.outputs
        names = [*operands(op), *(name for name in fresh if name not in op.inputs)]
        return [places.get(name) or self._place(function, name) for name in names]

    def table(self) -> str:
        """`strop_model_table.c`: the model as the session sees it."""
        tensors = [
            f"    {{strop_model_{STRUCTS[v.role]}.{self.names.values[v.name]}, {v.bytes}u, "
            f"{STROP_DTYPES[v.dtype.name]}, STROP_{v.role.upper()}, 1, 0}}, /* {v.name} */"
            for v in self.program.of(Role.PARAM, Role.STATE)
        ]
        tensors.sort(key=lambda row: "STROP_STATE" in row)
        hash_ = ", ".join(f"0x{byte:02x}" for byte in self.program.hash)
        return TABLE.format(
            banner=self._banner("The model as a session drives it."), tensors="\n".join(tensors), count=len(tensors),
            hash=hash_, kernels=len(self.names.calls["train_step"]), classes=self.classes,
            health="&strop_model_health.saturated" if health.scaled(self.program) else "NULL",
        )  # fmt: skip


def vectors(kernels: Iterable[Kernel], *, flush: bool) -> str:
    """The header of vector types, where kernels use them. flush: see Emitter."""
    bodies = [kernel.body for kernel in kernels]
    if not any("strop_x" in body for body in bodies):
        return ""
    floats = flush and not any(search(r"(?<!b)f16|_half", body) for body in bodies)
    return (FLUSH if flush else "") + (FLOATS if floats else "") + '#include "lanes.h"\n'


APART = "__attribute__((noinline))\n"

FLUSH = "#define STROP_LANES_FLUSH /* the board's vectors take subnormal numbers for zero: so do the PC's */\n"

FLOATS = "#define STROP_LANES_FLOATS /* no vector meets binary16 */\n"

INCLUDES = """#include "strop_model.h"

#include <stdbool.h>
#include <stddef.h>

#include "numerics.h"
#include "rng.h"
"""

TEAM_JOB = "x, y, out, hart, harts"

TEAM_HOOK = """#ifdef STROP_COUNT_KERNELS
#include "strop.h"
uint64_t strop_model_kernel_cost[{count}];
#define KERNEL(i, call)                                                   \\
    do {{                                                                  \\
        const uint64_t start = hart == 0 ? strop_port_counter() : 0;      \\
        call;                                                             \\
        strop_team_barrier(hart);                                         \\
        if (hart == 0) {{                                                  \\
            strop_model_kernel_cost[i] += strop_port_counter() - start;   \\
        }}                                                                 \\
    }} while (0)
#else
#define KERNEL(i, call)           \\
    do {{                          \\
        call;                     \\
        strop_team_barrier(hart); \\
    }} while (0)
#endif
"""

ARENA = "/* Activations and scratch of both functions: what lives at once is apart. */\n"

IMAGE = """/* On a board, constants that came with the network have a section of their own: reports tell them apart. */
#ifdef STROP_BOARD
#define IMAGE __attribute__((section(".strop_params")))
#else
#define IMAGE
#endif
"""

TABLE = """{banner}
#include "strop.h"
#include "strop_model.h"

#include <stddef.h>

static const strop_tensor_t tensors[] = {{
{tensors}
}};

static float train_step(const void *x, const void *y) {{ return strop_model_train_step(x, y); }}

static void infer(const void *x, void *out) {{ strop_model_infer(x, out); }}

#ifdef STROP_COUNT_KERNELS
extern uint64_t strop_model_kernel_cost[];
#endif

const strop_model_t strop_model = {{
    .hash = {{{hash}}},
    .batch = STROP_MODEL_BATCH,
    .x_bytes = STROP_MODEL_X_BYTES,
    .y_bytes = STROP_MODEL_Y_BYTES,
    .out_bytes = STROP_MODEL_OUT_BYTES,
    .n_tensors = {count}u,
    .tensors = tensors,
    .init = strop_model_init,
    .train_step = train_step,
    .infer = infer,
#ifdef STROP_COUNT_KERNELS
    .n_kernels = {kernels}u,
    .kernel_cost = strop_model_kernel_cost,
#endif
    .n_classes = {classes}u,
    .health = {health},
}};
"""


def _shape(value: Value) -> str:
    return f"{value.dtype.name} {_dims(value)}"


def _dims(value: Value) -> str:
    return f"({','.join(map(str, value.shape))})"


def _modulo(times: range, shift: int, count: int) -> str:
    """C of (t + shift) mod count, without the division where no turn needs it."""
    shift = shift if min(times) + shift >= 0 and max(times) + shift < count else shift % count
    term = f"(t {'+' if shift > 0 else '-'} {abs(shift)})" if shift else "t"
    return term if max(times) + shift < count else f"{term} % {count}"


def _remark(op: Op) -> str:
    kinds = " + ".join(part.kind for part in op.parts)
    return f"{op.loc}: {kinds}" if op.loc else kinds


def _wrapped(numbers: Sequence[str], width: int = 10) -> str:
    rows = [", ".join(numbers[i : i + width]) for i in range(0, len(numbers), width)]
    return rows[0] if len(rows) == 1 else "\n        " + ",\n        ".join(rows)
