"""What all references share: a model in float64, a loss, an optimizer, and their state by the board's names."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional

from strop.compiler.optim import Optimizer
from strop.errors import UsageError, nearest
from strop.host.reference.optimizers import torch_optimizer

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": functional.cross_entropy,
    "mse": functional.mse_loss,
    "l1": functional.l1_loss,
    "huber": functional.huber_loss,
    "bce": functional.binary_cross_entropy_with_logits,
}
"""Task losses: the mean over the batch, of all but cross_entropy over all elements."""


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch without threads of its own: on tensors as small as a board's they wait for each other.

    Beside other work that makes a step several times longer.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Reference(ABC):
    """Trains a copy of a model, in eval mode: dropout passes, batch normalisation keeps its statistics.

    dtype: of all arithmetic.  Tensors have the names of a board's tensor table: parameters as in `state_dict` (a tied
    one under its first name), optimizer states as "<parameter>.velocity", "<parameter>.m", "<parameter>.v",
    "<parameter>.gradient", "adam.c1", "adam.c2", "optim.step" and "optim.phase".
    """

    rule: ClassVar[str]
    """Name of the learning rule."""

    def __init__(
        self, settings: Any, model: nn.Module, loss: str, optimizer: Optimizer, dtype: torch.dtype = torch.float64
    ) -> None:
        if loss not in LOSSES:
            raise UsageError(f"no loss is called {loss!r}", do=nearest(loss, LOSSES))
        self.settings, self.loss, self.dtype = settings, loss, dtype
        self.model = copy.deepcopy(model).cpu().to(dtype).eval()
        self.parameters = dict(self.model.named_parameters())
        for name, parameter in self.parameters.items():
            if any(fnmatchcase(name, pattern) for pattern in settings.freeze):
                parameter.requires_grad_(False)
        trained = {name: parameter for name, parameter in self.parameters.items() if parameter.requires_grad}
        built = torch_optimizer(optimizer, trained)
        if built is None:
            raise UsageError(f"the optimizer {type(optimizer).__name__} has no reference", do="Use SGD, Adam or Lion")
        self.optimizer = built

    @abstractmethod
    def objective(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The task loss, and the scalar whose gradient trains every parameter."""

    def step(self, x: ArrayLike, y: ArrayLike) -> float:
        """Train on one batch (batch axis first; y int for cross_entropy); returns the task loss before the update.

        Raises UsageError, with torch's reason, for a model or batch that torch cannot run backward.
        """
        target_type = torch.int64 if self.loss == "cross_entropy" else self.dtype
        inputs, target = torch.as_tensor(x, dtype=self.dtype), torch.as_tensor(y, dtype=target_type)
        for parameter in self.parameters.values():
            parameter.grad = None
        try:
            loss, objective = self.objective(inputs, target)
            torch.autograd.backward(objective)
        except (RuntimeError, IndexError) as error:
            what = f"PyTorch cannot train the model: {str(error).splitlines()[0]}"
            raise UsageError(what, do="Check the labels, and in-place ops in forward") from error
        self.optimizer.step()
        return loss.item()

    def task(self, output: Tensor, y: Tensor) -> Tensor:
        """The task loss of a batch."""
        return LOSSES[self.loss](output, y)

    def infer(self, x: ArrayLike) -> NDArray[Any]:
        """The network's output for a batch of any size."""
        with torch.no_grad():
            return np.asarray(self.model(torch.as_tensor(x, dtype=self.dtype)))

    def state_dict(self) -> dict[str, Tensor]:
        """A copy of all parameters and buffers, by the original module's names."""
        return {name: tensor.clone() for name, tensor in self.model.state_dict().items()}

    def state(self) -> dict[str, NDArray[Any]]:
        """A copy of all parameters and optimizer states; may hold more names than a board that trains fewer."""
        parameters = {name: parameter.detach().numpy().copy() for name, parameter in self.parameters.items()}
        return {**parameters, **self.optimizer.state()}

    def decided(self, name: str, ours: ArrayLike) -> NDArray[Any]:
        """A parameter after a step; where the update jumps and rounding decides the side, at the side nearer to ours.

        ours: what a board made of it.
        """
        return self.optimizer.decided(name, self.parameters[name].detach().numpy(), np.asarray(ours))

    def load(self, tensors: Mapping[str, ArrayLike]) -> None:
        """Go on from these parameters and optimizer states; what is not named stays.

        Raises UsageError for a name or shape that does not belong here.
        """
        known = self.state()
        for name, data in tensors.items():
            array = np.asarray(data)
            if name not in known:
                raise UsageError(f"the reference has no tensor {name!r}", do=nearest(name, known))
            if array.shape != known[name].shape:
                raise UsageError(f"{name} has shape {known[name].shape}, not {array.shape}", do="Give it as trained")
            if name in self.parameters:
                with torch.no_grad():
                    self.parameters[name].copy_(torch.as_tensor(array))
            else:
                self.optimizer.load(name, array)
