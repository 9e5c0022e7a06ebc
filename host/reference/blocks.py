"""Layer-local training of an eager model: every layer's block sees the blocks before it as constants.

A block is a layer with weights (linear, conv1d, conv2d), the activations and normalisations called right after it, and
whatever was called since the block before (pooling, reshaping, adding). What follows the last layer belongs to it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from strop.host.reference.base import Reference

LAYERS = frozenset({"linear", "conv1d", "conv2d"})
FOLLOWERS = frozenset({
    "relu", "leaky_relu", "relu6", "hardtanh", "tanh", "sigmoid", "softmax", "log_softmax",
    "batch_norm", "layer_norm", "group_norm", "instance_norm",
})  # fmt: skip
PASSING = frozenset({"dropout", "dropout1d", "dropout2d", "contiguous", "clone", "get"})
VIEWS = frozenset({"flatten", "reshape", "view", "squeeze", "unsqueeze"})


@dataclass
class Block:
    """What ran in a block. output: result of its last call.  last: name of that call.  weight: of its layer."""

    output: Tensor
    last: str
    weight: Tensor | None = None


class LayerLocal(Reference):
    """A reference whose gradients stay inside the blocks."""

    _numbers: tuple[int, ...] = ()

    def run(self, x: Tensor) -> tuple[Tensor, list[Block]]:
        """The network's output and its blocks, in order; nothing a block reads from another carries a gradient."""
        if not self._numbers:
            with torch.no_grad(), _Pass(()) as first:
                self.model(x)
            self._numbers = _number(first.calls)
        with _Pass(self._numbers) as cut:
            output = self.model(x)
        return output, list(cut.blocks.values())


def _number(calls: Sequence[str]) -> tuple[int, ...]:
    """The block of each call."""
    numbers, block, complete = [], 0, False
    for name in calls:
        if complete and name not in FOLLOWERS:
            block, complete = block + 1, False
        complete = complete or name in LAYERS
        numbers.append(block)
    last = max((number for number, name in zip(numbers, calls, strict=True) if name in LAYERS), default=0)
    return tuple(min(number, last) for number in numbers)


class _Pass(TorchFunctionMode):
    """Follows one forward pass and cuts it between blocks.

    numbers: the block of each call, in order; empty to find the calls without cutting.
    """

    def __init__(self, numbers: Sequence[int]) -> None:
        super().__init__()
        self.numbers = numbers
        self.calls: list[str] = []
        self.blocks: dict[int, Block] = {}
        self.owners: dict[int, tuple[int, Tensor]] = {}  # by id, which is unique while the tensor is kept here

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run one call of the forward pass."""
        del types
        name = func.__name__.strip("_")
        number = self.numbers[min(len(self.calls), len(self.numbers) - 1)] if self.numbers else 0
        result = func(
            *(self._cut(value, number) for value in args),
            **{key: self._cut(value, number) for key, value in (kwargs or {}).items()},
        )
        results = result if isinstance(result, tuple | list) else [result]
        pieces = [piece for piece in results if isinstance(piece, Tensor)]
        if not pieces:
            return result
        if name in PASSING or (name in VIEWS and pieces[0].shape == args[0].shape):
            number = self.owners.get(id(args[0]), (number,))[0]
        else:
            self._record(number, name, pieces[0], [*args[1:2], (kwargs or {}).get("weight")])
        self.owners.update({id(piece): (number, piece) for piece in pieces})
        return result

    def _cut(self, value: Any, number: int) -> Any:
        """A constant copy of what another block made; anything else as it is."""
        if isinstance(value, tuple | list):
            items = [self._cut(item, number) for item in value]
            return tuple(items) if isinstance(value, tuple) else items
        foreign = isinstance(value, Tensor) and self.owners.get(id(value), (number,))[0] != number
        return value.detach().clone() if foreign else value

    def _record(self, number: int, name: str, result: Tensor, weights: Sequence[Any]) -> None:
        self.calls.append(name)
        block = self.blocks.setdefault(number, Block(result, name))
        block.output, block.last = result, name
        if name in LAYERS:
            block.weight = next(weight for weight in weights if weight is not None)
