"""The architecture's invariants: who may import what, what C never does, and seams that need one new file."""

import ast
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from types import ModuleType

import numpy as np
import pytest
from cases import Library, Net, batches, mlp, stages

from strop.compiler.dtypes import DType
from strop.compiler.interp import Interpreter
from strop.compiler.ir import Program, TensorType
from strop.compiler.kernels import kernel_spec
from strop.compiler.ops import _registered, spec
from strop.compiler.ops.base import f32
from strop.compiler.optim import SGD
from strop.compiler.passes.legalize import legalize
from strop.compiler.rules import Backprop
from strop.compiler.schedules import Tiling
from strop.errors import LegalizeError

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("compiler", "host", "targets", "strop")
PYTHON = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
C = [path for folder in ("runtime", "firmware") for path in sorted((ROOT / folder).rglob("*.[ch]"))]


def imports(path: Path) -> Iterator[str]:
    """Every module a file imports, wherever the statement stands; `from a import b` gives a.b."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{name.name}" for name in node.names)


def importers(pattern: str) -> set[str]:
    """Files that import a module matching the pattern."""
    return {str(path.relative_to(ROOT)) for path in PYTHON if any(re.match(pattern, name) for name in imports(path))}


def test_the_package_is_here() -> None:
    assert len(PYTHON) > 50
    assert len(C) > 10


def test_only_lower_knows_tvm() -> None:
    assert importers(r"tvm\b") == {"compiler/lower.py"}


def test_only_capture_reads_models() -> None:
    found = importers(r"(torch\.export|torch\._export|onnx|tflite|tensorflow)\b")
    assert found == {path for path in found if path.startswith("compiler/capture/")}
    assert found


def test_only_transports_open_ports() -> None:
    found = importers(r"(serial(?!\.tools\.list_ports)|socket|socketserver)\b")  # a list of ports opens none
    assert found == {path for path in found if path.startswith("host/transport/")}
    assert found


def test_a_rule_contains_no_board_and_a_board_no_rule() -> None:
    for name in importers(r"strop\.targets\b"):
        assert not name.startswith(("compiler/rules/", "compiler/ops/", "compiler/passes/")), name
    assert not {name for name in importers(r"strop\.compiler\b") if name.startswith("targets/")}


def test_the_compiler_does_not_need_the_host() -> None:
    """But for the bundle's conveniences, imported when they are called."""
    found = {name for name in importers(r"strop\.host\b") if name.startswith("compiler/")}
    assert found <= {"compiler/bundle.py"}


def code(path: Path) -> str:
    """A C file without comments and strings."""
    return re.sub(r'/\*.*?\*/|//[^\n]*|"(\\.|[^"\\])*"', " ", path.read_text(), flags=re.DOTALL)


@pytest.mark.parametrize("path", C, ids=lambda path: str(path.relative_to(ROOT)))
def test_c_never_allocates_and_needs_no_libm(path: Path) -> None:
    text = code(path)
    assert not re.search(r"\b(malloc|calloc|realloc|free|alloca|strdup|setjmp|longjmp)\s*\(", text)
    assert not re.search(r"#\s*include\s*<(math|stdlib|stdio|setjmp)\.h>", text)


def c_functions(text: str) -> Iterator[tuple[str, str]]:
    """Name and body of every function."""
    for head in re.finditer(r"^\w[^;{}#=]*?\b(\w+)\([^;{}]*\)\s*\{", text, re.MULTILINE):
        depth, end = 1, head.end()
        while depth:
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
        yield head[1], text[head.end() : end]


def test_c_functions_are_found() -> None:
    text = "int a(void) { return 1; }\nint b(int x)\n{\n    if (x) {\n        b(x - 1);\n    }\n    return a();\n}\n"
    assert [name for name, _ in c_functions(text)] == ["a", "b"]
    assert [re.findall(r"\w+(?=\()", body) for _, body in c_functions(text)] == [[], ["b", "a"]]


@pytest.mark.parametrize("path", [p for p in C if p.suffix == ".c"], ids=lambda path: str(path.relative_to(ROOT)))
def test_no_c_function_calls_itself(path: Path) -> None:
    """What recursion over several functions there might be, the analysis of the linked program finds."""
    for name, body in c_functions(code(path)):
        assert not re.search(rf"\b{name}\s*\(", body), name


def test_functions_fit_a_screen() -> None:
    lengths = {}
    for path in PYTHON:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno
                lengths[f"{path.relative_to(ROOT)}:{node.name}"] = node.end_lineno - node.lineno + 1
    assert median(lengths.values()) <= 15
    assert sorted(lengths.values())[int(0.99 * len(lengths))] <= 50


# --- seams: one file in a folder of one's own ---------------------------------------------------------------------

OP = '''
"""y = x^2, and its gradient."""
from strop.compiler.ops import register
from strop.compiler.ops.base import Elementwise


class Square(Elementwise):
    kind = "test_square"

    def reference(self, inputs, attrs):
        return [inputs[0] * inputs[0]]

    def element(self, te, values, attrs):
        return values[0] * values[0]

    def vjp(self, b, op, grads):
        return [b.emit1("test_square_grad", (grads[0], op.inputs[0]), f"d_{op.inputs[0]}", loc=op.loc)]


class SquareGrad(Elementwise):
    kind = "test_square_grad"
    operands = ("dy", "x")

    def reference(self, inputs, attrs):
        return [inputs[0] * (inputs[1] + inputs[1])]

    def element(self, te, values, attrs):
        return values[0] * (values[1] + values[1])


register(Square())
register(SquareGrad())
'''

RULE = '''
"""Backpropagation that leaves the biases alone."""
from dataclasses import dataclass
from strop.compiler.ir import Role
from strop.compiler.rules import Backprop


@dataclass(frozen=True)
class NoBias(Backprop):
    name = "no-bias"

    def frozen(self, program):
        return {v.name for v in program.of(Role.PARAM) if v.name.endswith(".bias")} | super().frozen(program)
'''


def load(folder: Path, name: str, text: str) -> ModuleType:
    """Import a file that no package knows of."""
    (folder / f"{name}.py").write_text(text)
    found = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    assert found and found.loader
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.fixture
def square(tmp_path: Path) -> Iterator[ModuleType]:
    """An op from a folder of one's own, forgotten afterwards."""
    spec("relu")
    known = dict(_registered)
    yield load(tmp_path, "square", OP)
    for kind in set(_registered) - set(known):
        del _registered[kind]


def squared() -> Program:
    return Net(5).dense(6).act("test_square").dense(3).program()


@pytest.mark.usefixtures("square")
def test_a_new_op_is_one_file(tmp_path: Path) -> None:
    """It is differentiated, fused, planned, lowered and compiled without a change elsewhere."""
    seen, bundle = stages(squared(), Backprop(), "cross_entropy", SGD())
    assert {"test_square", "test_square_grad"} <= {part.kind for op in bundle.program.train_step for part in op.parts}
    library, exact = Library(bundle, tmp_path), Interpreter(seen["rule"])
    for x, y in batches(bundle.program, 3):
        assert library.train_step(x, y) == pytest.approx(exact.train_step(x, y), rel=1e-5)


def test_a_changed_op_is_not_taken_from_the_cache(tmp_path: Path) -> None:
    """The key of a kept kernel follows the file that defines the op, wherever that lies."""
    keys = []
    for folder, text in (("a", OP), ("b", OP.replace("values[0] * values[0]", "values[0] * values[0] * 1"))):
        (tmp_path / folder).mkdir()
        load(tmp_path / folder, "square", text)
        program = Net(5).dense(6).act("test_square").program()
        keys.append(kernel_spec(program, program.infer[1], Tiling()).key)
        for kind in [kind for kind in _registered if kind.startswith("test_square")]:
            del _registered[kind]
    assert keys[0] != keys[1]


def test_a_new_rule_is_one_file(tmp_path: Path) -> None:
    rule = load(tmp_path, "no_bias", RULE).NoBias()
    program = stages(mlp(), rule, "cross_entropy", SGD())[1].program
    assert {op.outputs[0] for op in program.train_step if op.parts[-1].kind == "sgd"} >= {"l0.weight"}
    assert not {name for op in program.train_step for name in op.outputs if name.endswith(".bias")}


def test_a_new_dtype_is_refused_by_every_op_that_does_not_list_it() -> None:
    """Never widened silently: the refusal names the op, the format and the layer."""
    net = Net(5).dense(6)
    strange = DType("float24", "f24", 24, "float32", np.float32)
    values = {
        **net.b.values,
        "l0": type(net.b.values["l0"])("l0", TensorType(f32(1, 6).shape, strange), net.b.values["l0"].role),
    }
    with pytest.raises(LegalizeError, match=r"dense has no kernel for float24 on qemu \(l0 \(dense\)\)"):
        legalize(net.program().with_(values=values), fma=True, board="qemu")
