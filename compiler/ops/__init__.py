"""The ops, one file a family: shape, numpy reference, gradient, tensor expression and test cases of each.

Adding a file here, or registering an `OpSpec` from anywhere before a build, adds an op; nothing else changes.
"""

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from strop.compiler.ops.base import OpSpec
from strop.errors import LowerError, nearest

_registered: dict[str, OpSpec] = {}


def register(op: OpSpec) -> OpSpec:
    """Make an op known under its kind; a kind is registered once."""
    if op.kind in _registered and type(_registered[op.kind]) is not type(op):
        raise LowerError(f"op {op.kind!r} is registered twice", do="Rename one of the two")
    _registered[op.kind] = op
    return op


@cache
def _load() -> None:
    for module in iter_modules(__path__):
        for item in vars(import_module(f"{__name__}.{module.name}")).values():
            if isinstance(item, type) and issubclass(item, OpSpec) and "kind" in vars(item):
                register(item())


def specs() -> dict[str, OpSpec]:
    """All known ops by kind."""
    _load()
    return dict(_registered)


def spec(kind: str) -> OpSpec:
    """The op of a kind. Raises LowerError for an unknown one."""
    _load()
    if kind not in _registered:
        raise LowerError(f"no op is called {kind!r}", do=nearest(kind, _registered))
    return _registered[kind]
