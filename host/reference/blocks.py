"""Layer-local training of an eager model: every layer's block sees the blocks before it as constants.

A block is a layer with weights (linear, conv1d, conv2d), the activations, normalisations and max-pools called right
after it, and whatever was called since the block before (averaging, reshaping, adding). What follows the last layer
belongs to it.
Each layer of a recurrent stack is a block of its own: its output is its last state, and what follows begins the next.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from strop.host.reference import recurrent
from strop.host.reference.base import Reference

LAYERS = frozenset({"linear", "conv1d", "conv2d", *recurrent.CELLS})
POOLS = frozenset({"max_pool1d", "max_pool2d"})
FOLLOWERS = POOLS | frozenset({
    "relu", "leaky_relu", "relu6", "hardtanh", "tanh", "sigmoid", "softmax", "log_softmax",
    "batch_norm", "layer_norm", "group_norm", "instance_norm",
})  # fmt: skip
PASSING = frozenset({"dropout", "dropout1d", "dropout2d", "contiguous", "clone", "get"})
VIEWS = frozenset({"flatten", "reshape", "view", "squeeze", "unsqueeze"})


@dataclass
class Block:
    """What ran in a block. output: result of its last call.  last: name of the last call that was no pool.

    weight: of its layer.
    layer: a copy of what the layer itself gave, before any activation.
    """

    output: Tensor
    last: str
    weight: Tensor | None = None
    layer: Tensor | None = None


class LayerLocal(Reference):
    """A reference whose gradients stay inside the blocks."""

    followers: ClassVar[frozenset[str]] = FOLLOWERS
    _numbers: tuple[int, ...] = ()

    def run(self, x: Tensor) -> tuple[Tensor, list[Block]]:
        """The network's output and its blocks, in order; nothing a block reads from another carries a gradient."""
        if not self._numbers:
            with torch.no_grad(), _Pass((), LayerLocal.states.__get__(self)) as first:
                self.model(x)
            self._numbers = self.numbered(first.calls)
        with _Pass(self._numbers, self.states) as cut:
            output = self.model(x)
        return output, list(cut.blocks.values())

    def states(self, name: str, x: Tensor, weights: Sequence[Tensor], leak: float) -> tuple[Tensor, Tensor]:
        """Every state and the last cell of a recurrent layer, see `recurrent.states`."""
        return recurrent.states(name, x, weights, self.settings.truncate, leak)

    def numbered(self, calls: Sequence[str]) -> tuple[int, ...]:
        """The block of each call, by name: a layer each."""
        return _number(calls, self.followers)


def _number(calls: Sequence[str], followers: frozenset[str]) -> tuple[int, ...]:
    """The block of each call."""
    numbers, block, complete, before = [], 0, False, ""
    for name in calls:
        if complete and (name not in followers or before in recurrent.CELLS):
            block, complete = block + 1, False
        before = name
        complete = complete or name in LAYERS
        numbers.append(block)
    last = max((number for number, name in zip(numbers, calls, strict=True) if name in LAYERS), default=0)
    return tuple(min(number, last) for number in numbers)


class _Pass(TorchFunctionMode):
    """Follows one forward pass and cuts it between blocks.

    numbers: the block of each call, in order; empty to find the calls without cutting.  states: runs a recurrent layer.
    """

    def __init__(self, numbers: Sequence[int], states: Callable[..., tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.numbers, self.states = numbers, states
        self.calls: list[str] = []
        self.blocks: dict[int, Block] = {}
        self.owners: dict[int, tuple[int, Tensor]] = {}  # by id, which is unique while the tensor is kept here

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run one call of the forward pass."""
        del types
        name = func.__name__.strip("_")
        if name in recurrent.CELLS:
            return self._recurrent(name, args)
        number = self._number()
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

    def _number(self) -> int:
        """The block of the next call."""
        return self.numbers[min(len(self.calls), len(self.numbers) - 1)] if self.numbers else 0

    def _recurrent(self, name: str, args: Sequence[Any]) -> tuple[Tensor, ...]:
        """A stack of recurrent layers, each a call of its own."""
        steps, last, cells = args[0], [], []
        for weights in recurrent.stacked(args):
            number = self._number()
            steps, cell = self.states(name, self._cut(steps, number), weights, recurrent.leak_of(name, args))
            last.append(steps[:, -1])
            cells.append(cell)
            self._record(number, name, last[-1], weights[:1])
            self.owners[id(steps)] = (number, steps)
        made = recurrent.results(name, steps, last, cells)
        self.owners.update({id(each): (number, each) for each in made})
        return made

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
        block.output, block.last = result, block.last if name in POOLS else name
        if name in LAYERS:
            block.weight = next(weight for weight in weights if weight is not None)
            block.layer = result.clone()
