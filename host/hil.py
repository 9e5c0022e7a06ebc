"""Hardware in the loop: what the fixtures of the pytest plugin do.

A device under test is an emulated board, or one on the desk; a test cannot tell. The twin on the PC says what must come
out, to the bit.
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from strop.compiler.pipeline import build
from strop.errors import UsageError
from strop.host.data import Dataset, Order, Signature, load_data
from strop.host.desk import Desk
from strop.host.device import Device, connect, twin
from strop.host.validate import unequal, validate
from strop.host.zoo import load_model
from strop.targets.board import Board

if TYPE_CHECKING:
    from torch import Tensor, nn

    from strop.compiler.bundle import Bundle

Array = NDArray[Any]


class Firmware:
    """Makes bundles for one board, and remembers them. bundles: by a hash of all that goes into them."""

    def __init__(self, board: Board, bundles: "dict[str, Bundle]") -> None:
        self.board, self._bundles = board, bundles

    def __call__(self, model: "str | nn.Module", example: "Tensor | None" = None, **settings: Any) -> "Bundle":
        """Build a model, or return what was built of the same model with the same settings.

        model: a built-in's name, `file.py:callable`, or a module with its example input, batch axis first.
        settings: of `strop.build`: rule, loss, optimizer, batch, seed, … Raises what that raises.
        """
        if isinstance(model, str):
            name, module, example = load_model(model)
        else:
            name, module = type(model).__name__.lower(), model
        if example is None:
            raise UsageError("a module needs an example input", do="Call firmware(module, example, …)")
        settings = {"name": name, **settings}
        key = _fingerprint(module, example, {**settings, "board": self.board})
        if key not in self._bundles:
            self._bundles[key] = build(module, example, board=self.board, **settings)
        return self._bundles[key]


def _fingerprint(module: "nn.Module", example: "Tensor", settings: Mapping[str, Any]) -> str:
    """Hash of a module's classes, plain attributes and weights, and of the settings.

    What cannot be told apart by its text, such as an object that prints its address, is taken for different.
    """
    parts = [repr([(id(type(m)), {k: v for k, v in vars(m).items() if k[0] != "_"}) for m in module.modules()])]
    parts += [repr(module), repr((example.shape, example.dtype)), repr(sorted(settings.items()))]
    digest = sha256("\n".join(parts).encode())
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode() + tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


class Duts:
    """The devices of one test: call it with a bundle. Closing it ends emulators, and lets go of hardware."""

    def __init__(self, desk: Desk, spec: str, log: Path) -> None:
        self._desk, self._spec, self.log = desk, spec, log
        self._open = ExitStack()

    def __call__(self, bundle: "Bundle", **options: Any) -> Device:
        """A device that runs the bundle, freshly started or flashed, with initial parameters.

        With --skip-autoflash the board must run it already. Of a board on the desk, an earlier device is closed:
        there is one of it.  options: of `strop.connect`.
        """
        instance = self._desk.instance(self._spec)
        if instance:
            self._open.close()
        if instance and not self._desk.autoflash:
            device = connect(bundle, port=instance.address(bundle.board), **options)
        else:
            device = connect(bundle, instance=instance, **options)
        device.log = self.log
        self._open.enter_context(device)
        device.reset()
        return device

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the devices."""
        self._open.close()


@dataclass(frozen=True)
class Trained:
    """A device and its twin after the same steps. losses: of each step, mean over its batch."""

    device: Device
    twin: Device
    data: Dataset
    losses: NDArray[np.float32]

    @cached_property
    def accuracy(self) -> float:
        """What the device reaches on held-out samples: in [0, 1] for classes, mean squared error of a regression."""
        return self.device.evaluate(*self.data.held_out)


class Trainer:
    """Trains a device and its twin alike: call it with a bundle."""

    def __init__(self, connect: Callable[["Bundle"], Device]) -> None:
        self._connect = connect

    def __call__(self, bundle: "Bundle", data: "str | tuple[Any, Any]" = "digits", *, steps: int = 200,
                 seed: int = 0) -> Trained:  # fmt: skip
        """Train for some steps, in the order in which `strop train` shows the samples.

        data: as for `strop train --data`, or arrays (x, y) with one sample a row.  Raises AssertionError, which names
        step, tensor and log file, where the device's bits are not the twin's.
        """
        __tracebackhide__ = True
        device, pc = self._connect(bundle), twin(bundle)
        samples = _samples(data, Signature.of(bundle.manifest), seed)
        chosen = Order(len(samples.x), bundle.manifest["batch"], seed).indices(0, steps)
        losses: list[float] = []
        assert_same_bits(device, pc, samples.x[chosen], samples.y[chosen], on_step=losses.append)
        return Trained(device, pc, samples, np.array(losses, np.float32))


def _samples(data: "str | tuple[Any, Any]", signature: Signature, seed: int) -> Dataset:
    if isinstance(data, str):
        return load_data(data, signature, seed=seed)
    x, y = (np.asarray(part) for part in data)
    return Dataset(x, y, x[:0], y[:0], "arrays")


def assert_same_bits(
    device: Device, twin: Device, x: Any = None, y: Any = None, *, on_step: Callable[[float], None] = lambda _: None
) -> None:
    """Fail where a device's tensors are not the twin's, bit by bit.

    x, y: samples of whole steps to train both on first, from equal tensors; then the very step is found.
    Raises AssertionError with the step, the tensor and its layer, the first element that differs, and the log file.
    """
    __tracebackhide__ = True
    if x is None:
        step, tensor = device.steps - 1, unequal(device.tensors(), twin.tensors())
    else:
        found = validate(device, twin, None, np.asarray(x), np.asarray(y), on_step).first_difference
        step, tensor = (found.step, found.tensor) if found else (0, "")
    if tensor:
        raise AssertionError(_parted(device, twin, step, tensor))


def _parted(device: Device, twin: Device, step: int, tensor: str) -> str:
    """Two devices that differ, in a sentence for people."""
    after = f"after step {step}" if step >= 0 else "before the first step"
    layer = tensor.rpartition(".")[0]
    what = "the loss" if tensor == "loss" else f"tensor {tensor}{f' of layer {layer}' if layer else ''}"
    more = "" if tensor == "loss" else f": {_first_element(device.tensors()[tensor], twin.tensors()[tensor])}"
    log = f"; log: {device.log}" if device.log else ""
    return f"{device.name} and its twin differ {after}, first in {what}{more}{log}"


def _first_element(ours: Array, expected: Array) -> str:
    word = f"u{ours.dtype.itemsize}"
    places = np.flatnonzero(ours.ravel().view(word) != expected.ravel().view(word))
    if not len(places):
        return "equal by now"
    index = tuple(int(i) for i in np.unravel_index(places[0], ours.shape))
    return f"element {index} is {ours[index]!s}, not {expected[index]!s}; {len(places)} of {ours.size} differ"
