"""PyTorch references of the built-in learning rules, one file a rule.

They are written from the rules' equations over `torch.nn`, `torch.autograd` and `torch.optim`, in float64. They share
the settings (rule, loss, optimizer) with the compiler, and the generator that defines fixed random tensors; no code
that computes. A rule added elsewhere has no reference until a file here names it.
"""

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

import torch
from torch import nn

from strop.compiler.adaptation import Replay
from strop.compiler.optim import Optimizer
from strop.compiler.rules.base import Rule
from strop.host.reference.base import Reference as Reference
from strop.host.reference.optimizers import torch_optimizer
from strop.host.reference.replay import Replayed


def reference(
    rule: Rule,
    model: nn.Module,
    loss: str,
    optimizer: Optimizer,
    *,
    dtype: torch.dtype = torch.float64,
    replay: Replay | None = None,
) -> Reference | None:
    """Return a trainer of a copy of `model` by the same rule, or None when the rule or the optimizer has no reference.

    replay: the buffer it trains again from, if any.  Raises UsageError for an unknown loss.
    """
    kind = references().get(rule.name)
    if kind is None or torch_optimizer(optimizer, {}) is None:
        return None
    made = kind(rule, model, loss, optimizer, dtype)
    return Replayed(made, replay, rule.seed) if replay else made


@cache
def references() -> dict[str, type[Reference]]:
    """All references by the name of their rule."""
    modules = [import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)]
    found = [item for module in modules for item in vars(module).values() if isinstance(item, type)]
    return {item.rule: item for item in found if issubclass(item, Reference) and "rule" in vars(item)}
