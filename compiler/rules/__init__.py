"""Learning rules, one file each. A rule is a cut plus an objective (see `base.py`)."""

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from strop.compiler.rules.backprop import Backprop as Backprop
from strop.compiler.rules.base import Rule as Rule
from strop.compiler.rules.blocks import Blocks as Blocks
from strop.compiler.rules.cafo import CaFo as CaFo
from strop.compiler.rules.dfa import DFA as DFA
from strop.compiler.rules.dfa import SDFA as SDFA
from strop.compiler.rules.drtp import DRTP as DRTP
from strop.compiler.rules.fetril import FeTrIL as FeTrIL
from strop.compiler.rules.fixed_m import FixedM as FixedM
from strop.compiler.rules.forward_forward import ForwardForward as ForwardForward
from strop.compiler.rules.head_only import HeadOnly as HeadOnly
from strop.compiler.rules.mono_forward import MonoForward as MonoForward
from strop.compiler.rules.pepita import MemPepita as MemPepita
from strop.compiler.rules.pepita import Pepita as Pepita
from strop.compiler.rules.sparse import Sparse as Sparse
from strop.compiler.rules.tpsgd import TpSGD as TpSGD
from strop.compiler.rules.traces import Traces as Traces
from strop.errors import RuleError, nearest


@cache
def rules() -> dict[str, type[Rule]]:
    """All rules by the name used on the command line."""
    modules = [import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)]
    found = [item for module in modules for item in vars(module).values() if _is_rule(item)]
    return {item.name: item for item in found}


def _is_rule(item: object) -> bool:
    return isinstance(item, type) and issubclass(item, Rule) and "name" in vars(item)


def rule_class(name: str) -> type[Rule]:
    """A rule by name. Raises RuleError with the nearest name for an unknown one."""
    if name not in rules():
        raise RuleError(f"no rule is called {name!r}", do=nearest(name, rules()))
    return rules()[name]
