"""Sparse update: backpropagation, by autograd, of the parameters that are chosen.

What a budget pays for is the compiler's choice: with one, those learn that are among the first tensors loaded.
"""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from numpy.typing import ArrayLike

from strop.host.reference.backprop import Backprop


class Sparse(Backprop):
    """The chosen parameters follow the gradient of the task loss."""

    rule = "sparse"

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        if self.settings.update:
            self._choose([n for n in self.parameters if any(fnmatchcase(n, p) for p in self.settings.update)])

    def _choose(self, names: list[str]) -> None:
        for name, parameter in self.parameters.items():
            parameter.requires_grad_(parameter.requires_grad and name in names)

    def load(self, tensors: Mapping[str, ArrayLike]) -> None:
        """Go on from these tensors; with a budget, train those alone."""
        super().load(tensors)
        if self.settings.budget:
            self._choose(list(tensors))
